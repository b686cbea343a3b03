//! What a listener's intake is configured to do with a message, and the check at MAIL. `prepare` does the rest.

use super::policy::SenderPolicy;
use super::silence::SilenceWatch;
use super::storm::{StormCheck, StormWatch};
use crate::inbound::{Client, SubmissionRates, refusal_reason};
use crate::message::accepted::Accepted;
use crate::message::repair::Repairs;
use crate::message::rewrite::Rules;
use crate::message::trace::ReceivedDetail;
use crate::observe::metrics::{ListenerMetrics, RefusalReason};
use crate::observe::{Clock, fault};
use crate::smtp::reply::Severity;
use crate::smtp::{Reply, ReversePath};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

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
    /// What should come regularly.
    pub expected: SilenceWatch,
    pub metrics: ListenerMetrics,
    pub clock: Clock,
}

impl IntakePipeline {
    /// At MAIL.
    pub(super) fn admit(&self, client: &Client, sender: &ReversePath) -> Result<(), Reply> {
        fault::provoke("session", sender);
        self.policy.check_envelope(client, sender)
    }

    /// Counts a message by the gateway's own reply to its final dot, which came at `started`.
    pub(super) fn count(&self, reply: &Reply, started: Instant) {
        match reply.is_positive() {
            true => self.metrics.accepted(started.elapsed()),
            false => self.metrics.refused(refusal_reason(reply)),
        }
    }

    /// The same for a reply that depends on the provider's.
    pub(super) fn count_forwarded(&self, reply: &Reply, started: Instant) {
        match reply.severity() {
            _ if reply.is_positive() => self.metrics.accepted(started.elapsed()),
            Severity::Permanent => self.metrics.refused(RefusalReason::Refused),
            _ => self.metrics.refused(RefusalReason::Deferred),
        }
    }

    /// Counts an accepted message among those that are equal. `subject`: decoded.
    pub(super) fn storm(&self, accepted: &Accepted, subject: &str) -> Option<StormCheck> {
        self.storms.as_ref().map(|storms| storms.check(accepted, subject))
    }
}
