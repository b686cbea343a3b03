//! The outcome of an attempt: one for each recipient, with the transaction that produced it. Attempts, reports and the
//! queue's settlement all use it; it decides nothing.

use crate::message::accepted::Accepted;
use crate::message::{Outcome, Reason};
use crate::smtp::{EnhancedCode, Mailbox};
use std::sync::Arc;

/// How a transaction was sent, for the log.
#[derive(Debug, Clone)]
pub struct SentTransaction {
    pub upstream: Arc<str>,
    pub tls: &'static str,
    pub seal: String,
    pub is_sandbox: bool,
}

/// The outcome for one recipient.
#[derive(Debug, Clone)]
pub struct SettledRecipient {
    pub recipient: Mailbox,
    pub outcome: Outcome,
    /// The transaction that settled it; `None` if no connection was ready.
    pub transaction: Option<Arc<SentTransaction>>,
}

/// One per recipient, in the envelope's order.
#[derive(Debug)]
pub struct Attempt {
    settled: Vec<SettledRecipient>,
}

impl Attempt {
    pub fn new(settled: Vec<SettledRecipient>) -> Self {
        Self { settled }
    }

    /// A fault of this program interrupted the attempt; whether something was sent is unknown.
    pub(super) fn interrupted(accepted: &Accepted) -> Self {
        let text = "the attempt was broken off by a fault of the gateway; see the log".to_owned();
        let reason = Reason::local(None, EnhancedCode::new(4, 3, 0), text).maybe_delivered();
        let recipients = accepted.envelope.recipients.iter();
        let outcome = || Outcome::Deferred(reason.clone());
        let settled = recipients.map(|recipient| SettledRecipient {
            recipient: recipient.clone(),
            outcome: outcome(),
            transaction: None,
        });
        Self { settled: settled.collect() }
    }

    pub fn settled(&self) -> &[SettledRecipient] {
        &self.settled
    }

    /// The provider accepted the message for at least one recipient.
    pub fn has_delivered(&self) -> bool {
        self.settled.iter().any(|settled| matches!(settled.outcome, Outcome::Delivered(_)))
    }

    /// The provider may have accepted the message; that is unknown.
    pub fn is_in_doubt(&self) -> bool {
        let is_in_doubt = |settled: &SettledRecipient| matches!(&settled.outcome, Outcome::Deferred(reason) if reason.possible_duplicate);
        self.settled.iter().any(is_in_doubt)
    }
}
