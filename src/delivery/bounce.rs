//! Bounces: notifies someone of failed mail, with a message that goes through the queue like any other.
//!
//! Bounces are sent from the null path, unless `bounce_sender` is set, and never for mail from the null path or for
//! delivery reports, so that a bounce never causes another one (RFC 5321 §4.5.5, §6.1; RFC 3834 §2). The author is
//! `bounce_sender`, or in the failed mail's own domain, so that its key signs the bounce too.

use super::settle::SettlementPolicy;
use crate::message::accepted::{Accepted, Origin};
use crate::message::dsn::{BounceReport, FailedRecipient, is_delivery_report};
use crate::message::{Author, Envelope, MailId, Marks, subject};
use crate::observe::random_u32;
use crate::queue::{NewMail, Queue, QueueError};
use crate::smtp::{Mailbox, ReversePath};
use std::sync::Arc;
use tracing::{error, info};

/// `[queue] bounce`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Bounce {
    #[default]
    Off,
    Sender,
    Address(Mailbox),
}

#[derive(Debug)]
pub struct Bouncer {
    pub bounce: Bounce,
    /// `bounce_sender`: the envelope's sender.
    pub sender: ReversePath,
    /// The gateway's hostname.
    pub hostname: Arc<str>,
    pub settlement: SettlementPolicy,
    pub queue: Arc<dyn Queue>,
}

impl Bouncer {
    /// Stores a bounce if one is wanted. An error means that a retry is worthwhile; a bounce that cannot be composed is
    /// logged and dropped.
    pub async fn notify(&self, failed: &Accepted, failures: &[FailedRecipient]) -> Result<(), QueueError> {
        let Some(to) = self.addressee(failed).filter(|_| !failures.is_empty()) else { return Ok(()) };
        let Some(mail) = self.write(failed, failures, to) else { return Ok(()) };
        let id = failed.id;
        let bounce = mail.accepted.id;
        match self.queue.put(mail).await {
            Ok(()) => info!(%id, %to, %bounce, "queued a bounce"),
            // Waiting for space would delay mail that can be delivered, and would free none.
            Err(QueueError::Full(_)) => error!(%id, %to, "no bounce could be stored: the disk is full"),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn addressee<'a>(&'a self, failed: &'a Accepted) -> Option<&'a Mailbox> {
        let sender = failed.envelope.sender.mailbox()?;
        if failed.origin.listener.is_none() || is_delivery_report(failed.message.header()) {
            return None;
        }
        match &self.bounce {
            Bounce::Off => None,
            Bounce::Sender => Some(sender),
            Bounce::Address(address) => Some(address),
        }
    }

    fn write(&self, failed: &Accepted, failures: &[FailedRecipient], to: &Mailbox) -> Option<NewMail> {
        let now = self.settlement.clock.now();
        let id = MailId::new(now, random_u32());
        let domain = match &failed.author {
            Some(author) => author.domain(),
            None => failed.envelope.sender.mailbox()?.domain(),
        };
        let from = match &self.sender {
            ReversePath::Mailbox(sender) => sender.clone(),
            ReversePath::Null => Mailbox::parse(&format!("MAILER-DAEMON@{domain}")).ok()?,
        };
        let report = BounceReport { id, now, hostname: &self.hostname, from: &from, to, failed, failures };
        let message =
            report.message().inspect_err(|error| error!(id = %failed.id, "no bounce could be written: {error}"));
        let message = message.ok()?;
        let mut envelope = Envelope::new(self.sender.clone());
        envelope.add_recipient(to.clone());
        let subject = subject(&message).unwrap_or_default();
        let author = Author::of(&message).ok();
        let accepted = Accepted {
            id,
            received_at: now,
            origin: Origin::default(),
            envelope,
            message,
            author,
            marks: Marks::default(),
        };
        let initial_states = self.settlement.waiting_states(&accepted);
        Some(NewMail { accepted: Arc::new(accepted), initial_states, original: None, subject, deduplication: None })
    }
}
