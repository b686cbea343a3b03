//! What a listener's intake is configured to do with a message, and the check at MAIL. `prepare` does the rest.

use super::policy::SenderPolicy;
use super::storm::{StormCheck, StormWatch};
use crate::inbound::{Client, SubmissionRates};
use crate::message::accepted::Accepted;
use crate::message::repair::Repairs;
use crate::message::rewrite::Rules;
use crate::message::trace::ReceivedDetail;
use crate::observe::{Clock, fault};
use crate::smtp::{Reply, ReversePath};
use std::sync::Arc;
use std::time::Duration;

/// The pipeline of one listener.
#[derive(Debug, Clone)]
pub struct IntakePipeline {
    pub policy: SenderPolicy,
    pub repairs: Repairs,
    pub rules: Rules,
    /// The gateway's hostname, for Received and Message-ID.
    pub hostname: Arc<str>,
    /// The listener's address as configured, for example "127.0.0.1:2525".
    pub listener: Arc<str>,
    /// What the Received field contains.
    pub received: ReceivedDetail,
    /// For how long a message that is submitted again is recognised; `None`: never.
    pub deduplicate: Option<Duration>,
    /// How much its clients may submit.
    pub rates: SubmissionRates,
    /// `None`: nothing is held.
    pub storms: Option<StormWatch>,
    pub clock: Clock,
}

impl IntakePipeline {
    /// At MAIL.
    pub(super) fn admit(&self, client: &Client, sender: &ReversePath) -> Result<(), Reply> {
        fault::provoke("session", sender);
        self.policy.check_envelope(client, sender)
    }

    /// Counts an accepted message among those that are equal. `subject`: decoded.
    pub(super) fn storm(&self, accepted: &Accepted, subject: &str) -> Option<StormCheck> {
        self.storms.as_ref().map(|storms| storms.check(accepted, subject))
    }
}
