//! Counts what attempts came to, for the metrics. Decides nothing.

use super::settled::Attempt;
use crate::message::{Outcome, RelayStep};
use crate::observe::metrics::{DeliveryMetrics, DeliveryOutcome};
use crate::smtp::Mailbox;
use std::time::Duration;

impl Attempt {
    /// `elapsed`: since the final dot. `is_expired`: the recipient was deferred, and has failed by its age.
    /// Recipients for which no upstream was tried are as they were before, and count nothing.
    pub fn count(&self, metrics: &DeliveryMetrics, elapsed: Duration, is_expired: impl Fn(&Mailbox) -> bool) {
        for settled in self.settled() {
            let (upstream, outcome) = match &settled.outcome {
                Outcome::Delivered(_) => (None, DeliveryOutcome::Delivered),
                Outcome::Failed(reason) => (reason.upstream.as_deref(), DeliveryOutcome::Failed),
                Outcome::Deferred(reason) if is_expired(&settled.recipient) => {
                    (reason.upstream.as_deref(), DeliveryOutcome::Failed)
                }
                Outcome::Deferred(reason) if reason.is_untried() => continue,
                Outcome::Deferred(reason) => (reason.upstream.as_deref(), DeliveryOutcome::Deferred),
            };
            let sent = settled.transaction.as_ref().map(|transaction| &*transaction.upstream);
            metrics.recipient(upstream.or(sent), outcome);
        }
        if self.has_delivered() {
            metrics.delivered(elapsed);
        }
    }
}

/// The step and the outcome that decided a transaction: a delivery if any recipient got the message, otherwise the first
/// recipient's.
pub(super) fn decisive(outcomes: &[Outcome]) -> (RelayStep, DeliveryOutcome) {
    let is_delivered = |outcome: &Outcome| matches!(outcome, Outcome::Delivered(_));
    match outcomes.first() {
        _ if outcomes.iter().any(is_delivered) => (RelayStep::EndOfData, DeliveryOutcome::Delivered),
        Some(Outcome::Deferred(reason)) => (reason.step, DeliveryOutcome::Deferred),
        Some(Outcome::Failed(reason)) => (reason.step, DeliveryOutcome::Failed),
        Some(Outcome::Delivered(_)) | None => (RelayStep::EndOfData, DeliveryOutcome::Deferred),
    }
}

#[cfg(test)]
mod tests {
    use super::super::settled::SettledRecipient;
    use super::*;
    use crate::message::Reason;
    use crate::message::outcome::{Cause, Unavailable};
    use crate::observe::metrics::MetricsRegistry;
    use crate::smtp::{EnhancedCode, Reply};

    fn reason(cause: Cause) -> Reason {
        Reason::new(Some("company"), RelayStep::Rcpt, cause)
    }

    #[test]
    fn a_recipient_that_was_not_tried_counts_nothing_and_an_expired_one_has_failed() {
        let registry = MetricsRegistry::new();
        let metrics = registry.delivery(["company"], &RelayStep::ALL.map(RelayStep::label));
        let refused = || Cause::Reply(Reply::new(550, EnhancedCode::new(5, 1, 1), "no"));
        let unavailable = Unavailable { text: String::new(), wait: Duration::ZERO, lasting: Duration::ZERO };
        let outcomes = [
            ("failed", Outcome::Failed(reason(refused()))),
            ("deferred", Outcome::Deferred(reason(Cause::TimedOut))),
            ("expired", Outcome::Deferred(reason(Cause::TimedOut))),
            ("untried", Outcome::Deferred(reason(Cause::Unavailable(Box::new(unavailable))))),
        ];
        let settled = outcomes.map(|(name, outcome)| SettledRecipient {
            recipient: Mailbox::parse(&format!("{name}@example.net")).expect("an address"),
            outcome,
            transaction: None,
        });
        let attempt = Attempt::new(settled.into());
        attempt.count(&metrics, Duration::ZERO, |to| to.to_string().starts_with("expired"));
        let text = registry.render();
        for (outcome, number) in [("failed", 2), ("deferred", 1), ("delivered", 0)] {
            let line = format!("waxseal_recipients_total{{upstream=\"company\",outcome=\"{outcome}\"}} {number}");
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn one_delivered_recipient_makes_a_delivered_transaction() {
        let failed = Outcome::Failed(reason(Cause::TimedOut));
        assert_eq!(decisive(std::slice::from_ref(&failed)), (RelayStep::Rcpt, DeliveryOutcome::Failed));
        let both = [failed, Outcome::Delivered(Reply::ok())];
        assert_eq!(decisive(&both), (RelayStep::EndOfData, DeliveryOutcome::Delivered));
    }
}
