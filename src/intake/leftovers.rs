//! What direct mode leaves over once the provider took the message for some of its recipients: the application got its
//! `250` and will not come back, so the others are the gateway's from then on.

use crate::delivery::{Attempt, Bouncer, Clerk};
use crate::message::accepted::Accepted;
use crate::message::{Outcome, subject};
use crate::observe::log::Clean;
use crate::queue::{NewMail, Queue};
use bytes::Bytes;
use std::sync::Arc;
use tracing::error;

#[derive(Debug)]
pub struct Leftovers {
    pub queue: Arc<dyn Queue>,
    pub clerk: Clerk,
    pub bouncer: Arc<Bouncer>,
}

impl Leftovers {
    /// Deferred recipients are queued, failed ones kept, delivered ones remembered, all at once. To be called only if
    /// at least one was delivered; the reply is a 250 whatever happens here.
    pub(super) async fn keep(&self, accepted: Arc<Accepted>, original: Option<Bytes>, attempt: &Attempt) {
        let (fates, failures) = self.clerk.open(&accepted, attempt);
        let subject = subject(&accepted.message);
        let mail = NewMail { accepted: accepted.clone(), fates, original, subject };
        let stored = self.queue.put(mail).await;
        let told = self.bouncer.tell(&accepted, &failures).await;
        let (id, from) = (accepted.id, Clean(&accepted.envelope.sender));
        if let Err(error) = told {
            error!(%id, %from, "a bounce could not be stored: {error}");
        }
        let Err(error) = stored else { return };
        let unsettled = attempt.settled().iter().filter(|settled| !matches!(settled.outcome, Outcome::Delivered(_)));
        match unsettled.count() {
            0 => error!(%id, %from, "delivered, and the history could not be written: {error}"),
            recipients => error!(%id, %from, recipients, "what is left of a message could not be stored: {error}"),
        }
    }
}
