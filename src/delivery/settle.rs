//! What an attempt's outcomes mean for the queue: when to try again, when to give up, what the history keeps.
//!
//! Does not repeat decisions of `message::outcome`; only the age of the mail turns a deferral into a failure.

use super::route::Routes;
use super::settled::{Attempt, SettledRecipient};
use crate::message::accepted::Accepted;
use crate::message::dsn::FailedRecipient;
use crate::message::outcome::Cause;
use crate::message::{Outcome, Reason};
use crate::observe::clock::plus;
use crate::observe::{Clock, jitter};
use crate::queue::schedule::Schedule;
use crate::queue::{Attempted, Delivered, InitialState, Leased, Settlement};
use crate::smtp::{Mailbox, Reply};
use crate::text::in_words;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// Turns the outcomes of attempts into settlements for the queue.
#[derive(Debug, Clone)]
pub struct SettlementPolicy {
    pub schedule: Schedule,
    pub routes: Arc<Routes>,
    pub clock: Clock,
}

/// How a lease is settled.
#[derive(Debug)]
pub(super) struct LeaseSettlement {
    /// In the envelope's order.
    pub settlements: Vec<Settlement>,
    /// When deferred recipients are due again.
    pub due: Timestamp,
    /// The failed recipients, for a bounce.
    pub failures: Vec<FailedRecipient>,
    /// The recipients that failed by age alone, each with the reason for the log, which names the upstream separately.
    pub expired: Vec<(Mailbox, String)>,
}

impl SettlementPolicy {
    pub(super) fn settle(&self, leased: &Leased, attempt: &Attempt) -> LeaseSettlement {
        let now = self.clock.now();
        let due = self.due(leased, attempt, now);
        let expired = leased.age >= self.schedule.expire;
        let mut lease_settlement =
            LeaseSettlement { settlements: Vec::new(), due, failures: Vec::new(), expired: Vec::new() };
        for settled in attempt.settled() {
            let settlement = match &settled.outcome {
                Outcome::Delivered(reply) => {
                    Settlement::Delivered(delivered(settled, reply, leased.accepted.received_at, now))
                }
                Outcome::Deferred(reason) if reason.is_untried() && !(expired && self.is_long_unavailable(reason)) => {
                    untried(reason)
                }
                Outcome::Deferred(reason) if expired => {
                    let expired = format!("expired after {}: ", in_words(self.schedule.expire));
                    let text = format!("{expired}{reason}");
                    lease_settlement.failures.push(FailedRecipient::expired(&settled.recipient, reason, text.clone()));
                    let logged = expired + &reason.without_upstream();
                    lease_settlement.expired.push((settled.recipient.clone(), logged));
                    Settlement::Failed(Attempted { text, ..attempted(reason, now) })
                }
                Outcome::Deferred(reason) => Settlement::Deferred(attempted(reason, now)),
                Outcome::Failed(reason) => {
                    lease_settlement.failures.push(FailedRecipient::new(&settled.recipient, reason));
                    Settlement::Failed(attempted(reason, now))
                }
            };
            lease_settlement.settlements.push(settlement);
        }
        lease_settlement
    }

    /// A message that waits longer than any wait between two attempts was really blocked: its age counts although no
    /// upstream was tried. A shorter outage (for example a network that comes up after the gateway) fails nothing.
    pub(super) fn is_long(&self, absence: Duration) -> bool {
        absence >= self.schedule.longest
    }

    fn is_long_unavailable(&self, reason: &Reason) -> bool {
        matches!(&reason.cause, Cause::Unavailable(unavailable) if self.is_long(unavailable.lasting))
    }

    /// By the schedule; or, if no upstream was tried, when the first of them may be tried again.
    fn due(&self, leased: &Leased, attempt: &Attempt, now: Timestamp) -> Timestamp {
        let mut wait = None;
        for settled in attempt.settled() {
            match &settled.outcome {
                Outcome::Deferred(reason) if reason.is_untried() => wait = wait.or(wait_of(reason)),
                Outcome::Deferred(_) => {
                    return self.schedule.due(now, leased.attempts.saturating_add(1), jitter());
                }
                _ => {}
            }
        }
        let wait = wait.unwrap_or_default().max(MIN_WAIT).min(self.schedule.longest);
        plus(now, wait)
    }

    /// The initial states of a message's recipients, if it was tried before it was stored, and the failed ones.
    pub fn initial_states(&self, accepted: &Accepted, attempt: &Attempt) -> (Vec<InitialState>, Vec<FailedRecipient>) {
        let now = self.clock.now();
        let due = self.schedule.due(now, 1, jitter());
        let mut failures = Vec::new();
        let header = accepted.asked_header();
        let initial_states = attempt.settled().iter().map(|settled| {
            let lane = self.routes.lane(&accepted.addressed(&settled.recipient, &header));
            match &settled.outcome {
                Outcome::Delivered(reply) => {
                    InitialState::Delivered(delivered(settled, reply, accepted.received_at, now))
                }
                Outcome::Deferred(reason) => InitialState::Deferred { lane, due, attempt: attempted(reason, now) },
                Outcome::Failed(reason) => {
                    failures.push(FailedRecipient::new(&settled.recipient, reason));
                    InitialState::Failed { lane, attempt: attempted(reason, now) }
                }
            }
        });
        (initial_states.collect(), failures)
    }

    /// The initial states of a message's recipients if it was not tried yet.
    pub fn waiting_states(&self, accepted: &Accepted) -> Vec<InitialState> {
        let recipients = accepted.envelope.recipients.iter();
        let header = accepted.asked_header();
        recipients
            .map(|recipient| InitialState::Waiting(self.routes.lane(&accepted.addressed(recipient, &header))))
            .collect()
    }
}

/// The shortest wait for a message for which no upstream could be tried.
const MIN_WAIT: Duration = Duration::from_millis(100);

fn wait_of(reason: &Reason) -> Option<Duration> {
    match &reason.cause {
        Cause::Unavailable(unavailable) => Some(unavailable.wait),
        _ => None,
    }
}

fn untried(reason: &Reason) -> Settlement {
    wait_of(reason).map_or(Settlement::Untried, |_| Settlement::Postponed)
}

fn attempted(reason: &Reason, at: Timestamp) -> Attempted {
    Attempted {
        at,
        upstream: reason.upstream.clone(),
        text: reason.to_string(),
        possible_duplicate: reason.possible_duplicate,
    }
}

fn delivered(settled: &SettledRecipient, reply: &Reply, received_at: Timestamp, at: Timestamp) -> Delivered {
    let upstream = settled.transaction.as_ref().map(|transaction| transaction.upstream.to_string());
    // The clock may have been set back; the time is never negative.
    let milliseconds = u64::try_from(at.duration_since(received_at).as_millis()).unwrap_or(0);
    Delivered { at, upstream: upstream.unwrap_or_default(), reply: reply.to_string(), milliseconds }
}

#[cfg(test)]
mod tests;
