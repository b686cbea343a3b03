//! From `Received` to `Accepted`: loop check, author, repair, trace.
//!
//! The author is judged by what the application wrote; no repair changes an address.

use super::reception::Reception;
use crate::inbound::Received;
use crate::message::accepted::{Accepted, Origin};
use crate::message::budget::BudgetExceeded;
use crate::message::raw::RawError;
use crate::message::repair::{Context, Repaired, repair};
use crate::message::trace::{Trace, add_received, is_looping};
use crate::message::{Author, MailId, Marks, RawMessage};
use crate::smtp::Reply;
use jiff::Timestamp;
use tokio::runtime::RuntimeFlavor;
use tracing::{debug, info};

pub(super) fn prepare(
    received: &mut Received,
    reception: &Reception,
    id: MailId,
    now: Timestamp,
) -> Result<Accepted, Reply> {
    let Reception { policy, repairs, hostname, listener, .. } = reception;
    let as_received = RawMessage::from_data(received.data.clone()).map_err(|error| match error {
        RawError::HeaderTooLarge => Reply::header_too_large(),
    })?;
    if is_looping(&as_received) {
        return Err(Reply::mail_loop());
    }
    let author = policy.check_author(&received.client, &as_received)?;
    let context = Context { now, id, host: message_id_host(hostname, author.as_ref()) };
    let Repaired { mut message, steps } = off_the_way(received.data.len(), || repair(&as_received, repairs, &context));
    if message.body().as_ptr() != as_received.body().as_ptr() {
        // Both are held until the reply.
        let held = received.data.len() + message.size();
        received.share.grow(held).map_err(|BudgetExceeded| Reply::no_memory())?;
    }
    if !steps.is_empty() {
        debug!(%id, steps = steps.join(", "), "repaired");
    }
    if received.line_endings_changed || !steps.is_empty() {
        drop_broken_signature(&mut message, id);
    }
    let trace = Trace {
        ehlo: &received.client.ehlo,
        client: received.client.peer.ip(),
        by: hostname,
        protocol: received.client.protocol(),
        id,
    };
    add_received(&mut message, &trace, now);
    let origin = Origin { listener: Some(listener.clone()), user: received.client.user.clone() };
    let envelope = received.envelope.clone();
    Ok(Accepted { id, received_at: now, origin, envelope, message, author, marks: Marks::default() })
}

/// Octets from which repairing takes longer than an async thread's other work should wait.
const LARGE: usize = 16 * 1024;

fn off_the_way<T>(size: usize, work: impl FnOnce() -> T) -> T {
    let flavor = tokio::runtime::Handle::try_current().map(|runtime| runtime.runtime_flavor());
    match flavor {
        Ok(RuntimeFlavor::MultiThread) if size >= LARGE => tokio::task::block_in_place(work),
        _ => work(),
    }
}

// A name without a dot is no name that others know; spam filters count it.
fn message_id_host<'a>(hostname: &'a str, author: Option<&'a Author>) -> &'a str {
    match author {
        Some(author) if !hostname.contains('.') && !author.domain().is_literal() => author.domain().as_str(),
        _ => hostname,
    }
}

// The application's own signature does not cover what was just changed, and a broken one is worse than none.
fn drop_broken_signature(message: &mut RawMessage, id: MailId) {
    let removed = message.remove_fields(|field| field.is("DKIM-Signature"));
    if removed > 0 {
        info!(%id, removed, "removed the application's own DKIM-Signature, since the message had to be repaired");
    }
}
