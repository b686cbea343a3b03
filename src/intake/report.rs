//! Logs what applications submit: one line for each message, with everything by which people search for it.

use crate::delivery::named;
use crate::inbound::{Client, Received};
use crate::message::accepted::Accepted;
use crate::message::{MailId, RawMessage, message_id, trace_id};
use crate::observe::log::Clean;
use crate::queue::QueueError;
use crate::smtp::Reply;
use std::sync::Arc;
use tracing::field::display;
use tracing::{error, info, warn};

/// `what` became of it.
pub(super) fn log_taken(accepted: &Accepted, client: &Client, what: &'static str) {
    let id = accepted.id;
    let from = Clean(&accepted.envelope.sender);
    let recipients = &accepted.envelope.recipients;
    let to = named(recipients);
    let recipients = recipients.len();
    let size = accepted.message.size();
    let user = client.user.as_deref().map(|user| display(Clean(user)));
    let listener = accepted.origin.listener.as_deref();
    let peer = client.peer;
    let message_id = message_id(accepted.message.header());
    let trace_id = trace_id(accepted.message.header());
    info!(%id, %from, to, recipients, size, user, listener, %peer, message_id, trace_id, "{what}");
}

/// Before it was stored: what it says of itself is what arrived.
pub(super) struct RefusedMail<'a> {
    pub id: MailId,
    pub received: &'a Received,
    pub listener: &'a str,
}

impl RefusedMail<'_> {
    /// For most applications a refusal is a lost mail, and few of them show the reply. `rule`: the one that refuses it.
    pub(super) fn log_refused(&self, reply: &Reply, rule: Option<&Arc<str>>) {
        let Self { id, received, listener } = *self;
        let from = Clean(&received.envelope.sender);
        let to = named(&received.envelope.recipients);
        let size = received.data.len();
        let user = received.client.user.as_deref().map(|user| display(Clean(user)));
        let peer = received.client.peer;
        let (message_id, trace_id) = self.identifiers();
        let code = reply.code();
        let enhanced = reply.enhanced().map(display);
        let reply = Clean(reply);
        let rule = rule.map(|rule| display(Clean(rule)));
        warn!(%id, %from, to, size, user, listener, %peer, message_id, trace_id, rule, code, enhanced, %reply, "refused a message");
    }

    pub(super) fn log_discarded(&self, rule: &Arc<str>) {
        let Self { id, received, listener } = *self;
        let from = Clean(&received.envelope.sender);
        let to = named(&received.envelope.recipients);
        let size = received.data.len();
        let user = received.client.user.as_deref().map(|user| display(Clean(user)));
        let peer = received.client.peer;
        let (message_id, trace_id) = self.identifiers();
        let rule = Clean(rule);
        info!(%id, %from, to, size, user, listener, %peer, message_id, trace_id, %rule, "discarded by a rule: no one gets this message");
    }

    /// The message's own, and its trace's.
    fn identifiers(&self) -> (Option<String>, Option<String>) {
        let message = RawMessage::from_data(self.received.data.clone());
        message.map_or((None, None), |message| (message_id(message.header()), trace_id(message.header())))
    }
}

/// The application is told to come again.
pub(super) fn log_not_stored(accepted: &Accepted, client: &Client, error: &QueueError) {
    let id = accepted.id;
    let from = Clean(&accepted.envelope.sender);
    let to = named(&accepted.envelope.recipients);
    let user = client.user.as_deref().map(|user| display(Clean(user)));
    let listener = accepted.origin.listener.as_deref();
    let peer = client.peer;
    let message_id = message_id(accepted.message.header());
    let trace_id = trace_id(accepted.message.header());
    error!(%id, %from, to, user, listener, %peer, message_id, trace_id, "refused a message that could not be stored: {error}");
}
