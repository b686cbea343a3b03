//! The progress of an attempt: outcomes as they come in, and what is still to be tried for each recipient.

use super::report;
use super::route::NoRoute;
use super::settled::{Attempt, SentTransaction, SettledRecipient};
use crate::message::accepted::Accepted;
use crate::message::outcome::Cause;
use crate::message::{Outcome, Reason, RelayStep};
use crate::relay::Deadline;
use crate::smtp::EnhancedCode;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// One slot per recipient, in the envelope's order.
pub(super) struct AttemptProgress<'a> {
    pub accepted: &'a Accepted,
    pub deadline: Deadline,
    pub stop: &'a CancellationToken,
    /// The recipients of the current group for which another upstream may still be tried.
    pub open: Vec<usize>,
    /// The upstream with a transaction under way, and its recipients.
    pub sending: Option<(String, Vec<usize>)>,
    settled: Vec<Option<(Outcome, Option<Arc<SentTransaction>>)>>,
}

impl<'a> AttemptProgress<'a> {
    pub fn new(accepted: &'a Accepted, deadline: Deadline, stop: &'a CancellationToken) -> Self {
        let settled = vec![None; accepted.envelope.recipients.len()];
        Self { accepted, deadline, stop, open: Vec::new(), sending: None, settled }
    }

    pub fn settle(&mut self, index: usize, outcome: Outcome, transaction: Option<Arc<SentTransaction>>) {
        if let Some(slot) = self.settled.get_mut(index) {
            match slot.take() {
                // The unavailable upstream may accept what this one cannot.
                Some((Outcome::Deferred(mut reason), carrier)) if is_beyond_upstream(&outcome) => {
                    if let Outcome::Failed(beyond) = outcome {
                        reason.before.push(beyond.to_string());
                    }
                    *slot = Some((Outcome::Deferred(reason), carrier));
                }
                Some((before, _)) => *slot = Some((outcome.after(before), transaction)),
                None => *slot = Some((outcome, transaction)),
            }
        }
    }

    /// Settles recipients without a transaction.
    pub fn settle_all(&mut self, pending: &[usize], outcome: &Outcome) {
        pending.iter().for_each(|&index| self.settle(index, outcome.clone(), None));
    }

    pub fn leave(&mut self, pending: &[usize]) {
        self.skip_upstream(pending, &Reason::new(None, RelayStep::Permit, Cause::Stopping));
    }

    /// Interrupts the attempt where it is. Known outcomes stay; recipients of the transaction under way may still get
    /// the message, and no other upstream is tried for them.
    pub fn interrupt(&mut self) {
        let (name, sending) = self.sending.take().unwrap_or_default();
        let cause = Cause::Local {
            enhanced: EnhancedCode::new(4, 3, 2),
            text: "the gateway had to stop before the provider answered".to_owned(),
        };
        let reason = Reason::new(Some(&name), RelayStep::EndOfData, cause).maybe_delivered();
        self.settle_all(&sending, &Outcome::Deferred(reason));
        let mut unasked = std::mem::take(&mut self.open);
        unasked.extend((0..self.settled.len()).filter(|&index| self.settled[index].is_none()));
        unasked.retain(|index| !sending.contains(index));
        self.leave(&unasked);
    }

    /// This upstream was not tried. Earlier outcomes stay, except that a refusal becomes a deferral: this upstream
    /// might have accepted the message, but was unavailable, or the gateway stopped.
    pub fn skip_upstream(&mut self, pending: &[usize], reason: &Reason) {
        for &index in pending {
            if self.refusal(index).is_some() {
                self.settle(index, Outcome::Deferred(reason.clone()), None);
                continue;
            }
            match self.settled.get_mut(index) {
                Some(slot @ None) => *slot = Some((Outcome::Deferred(reason.clone()), None)),
                Some(Some((Outcome::Deferred(known), _))) => not_unavailable_longer(known, reason),
                _ => {}
            }
        }
    }

    fn reason(&self, index: usize) -> Option<&Reason> {
        match self.settled.get(index) {
            Some(Some((Outcome::Deferred(reason), _))) => Some(reason),
            _ => None,
        }
    }

    /// RFC 5321 §4.5.3.1.10: "too many recipients" asks for another transaction, now.
    pub fn wants_next_transaction(&self, index: usize) -> bool {
        self.reason(index).is_some_and(Reason::wants_next_transaction)
    }

    /// The outcome for untried recipients, if those tried were deferred because of the upstream.
    pub fn found_unavailable(&self, tried: &[usize]) -> Option<Outcome> {
        let mut reasons = tried.iter().filter_map(|&index| self.reason(index));
        let reason = reasons.find(|reason| reason.is_about_upstream())?;
        Some(Outcome::Deferred(Reason { possible_duplicate: false, before: Vec::new(), ..reason.clone() }))
    }

    /// True for mail that this upstream cannot carry, and with `retry_refused` also for mail that it has refused
    /// permanently.
    pub fn wants_another_upstream(&self, index: usize, retry_refused: bool) -> bool {
        let is_refused = || self.refusal(index).is_some_and(|reason| retry_refused || reason.is_beyond_upstream());
        self.reason(index).map_or_else(is_refused, |reason| reason.is_about_upstream() && !reason.possible_duplicate)
    }

    /// Logs refusals of recipients that move on to another upstream. If it accepts them, nothing else records the
    /// refusal.
    pub fn log_refusals(&self, pending: &[usize]) {
        for &index in pending {
            if let Some((reason, to)) = self.refusal(index).zip(self.accepted.envelope.recipients.get(index)) {
                report::log_refused(self.accepted, to, reason);
            }
        }
    }

    fn refusal(&self, index: usize) -> Option<&Reason> {
        match self.settled.get(index) {
            Some(Some((Outcome::Failed(reason), _))) => Some(reason),
            _ => None,
        }
    }

    pub fn finish(self) -> Attempt {
        let recipients = self.accepted.envelope.recipients.iter();
        let unreached = || (Outcome::Deferred(NoRoute::NoRoute.reason()), None);
        let settled = recipients.zip(self.settled).map(|(recipient, slot)| {
            let (outcome, transaction) = slot.unwrap_or_else(unreached);
            SettledRecipient { recipient: recipient.clone(), outcome, transaction }
        });
        Attempt::new(settled.collect())
    }
}

/// Of several unavailable upstreams, the one that was last available shows for how long none was.
fn not_unavailable_longer(known: &mut Reason, other: &Reason) {
    if let (Cause::Unavailable(known), Cause::Unavailable(other)) = (&mut known.cause, &other.cause) {
        known.lasting = known.lasting.min(other.lasting);
    }
}

fn is_beyond_upstream(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(reason) if reason.is_beyond_upstream())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::accepted::Origin;
    use crate::message::{Envelope, MailId, Marks, RawMessage};
    use crate::smtp::{EnhancedCode, Mailbox, Reply, ReversePath};
    use jiff::Timestamp;

    fn accepted() -> Accepted {
        let mut envelope = Envelope::new(ReversePath::Null);
        envelope.add_recipient(Mailbox::parse("b@example.net").expect("an address"));
        Accepted {
            id: MailId::new(Timestamp::UNIX_EPOCH, 1),
            received_at: Timestamp::UNIX_EPOCH,
            origin: Origin::default(),
            envelope,
            message: RawMessage::from_data("Subject: s\r\n\r\n".into()).expect("a message"),
            author: None,
            marks: Marks::default(),
        }
    }

    fn too_large(upstream: &str) -> Outcome {
        let cause = Cause::Local { enhanced: EnhancedCode::new(5, 3, 4), text: "too large".to_owned() };
        Outcome::Failed(Reason::new(Some(upstream), RelayStep::Local, cause))
    }

    fn unavailable(upstream: &str) -> Outcome {
        Outcome::Deferred(Reason::new(Some(upstream), RelayStep::Connect, Cause::TimedOut))
    }

    /// A stop between two upstreams must not turn the first one's refusal into a failure: the second was never tried.
    #[test]
    fn what_the_next_upstream_was_not_asked_waits() {
        let accepted = accepted();
        let stop = CancellationToken::new();
        let reply = Reply::new(550, EnhancedCode::new(5, 7, 1), "spam");
        let refused = Outcome::Failed(Reason::new(Some("a"), RelayStep::Data, Cause::Reply(reply)));
        for before in [too_large("a"), refused] {
            let mut progress = AttemptProgress::new(&accepted, Deadline::NONE, &stop);
            progress.settle(0, before, None);
            progress.leave(&[0]);
            let Outcome::Deferred(reason) = progress.finish().settled()[0].outcome.clone() else {
                panic!("it failed for good");
            };
            assert_eq!((reason.cause, reason.before.len()), (Cause::Stopping, 1), "the refusal is reported");
        }
    }

    /// At the end of the drain time, what the provider accepted is known even if the client gets an error.
    #[test]
    fn what_is_broken_off_keeps_what_is_known_of_each_recipient() {
        let mut accepted = accepted();
        let stop = CancellationToken::new();
        for name in ["taken", "gone", "sending", "refused-here", "next"] {
            let mailbox = Mailbox::parse(&format!("{name}@example.net")).expect("an address");
            accepted.envelope.add_recipient(mailbox);
        }
        let refusal = |code| {
            let reply = Reply::new(550, EnhancedCode::new(5, 1, code), "no");
            Outcome::Failed(Reason::new(Some("a"), RelayStep::Rcpt, Cause::Reply(reply)))
        };
        let mut progress = AttemptProgress::new(&accepted, Deadline::NONE, &stop);
        progress.settle(0, unavailable("a"), None);
        progress.settle(1, Outcome::Delivered(Reply::ok()), None);
        progress.settle(2, refusal(1), None);
        progress.settle(4, refusal(2), None);
        (progress.open, progress.sending) = (vec![3, 4], Some(("b".to_owned(), vec![3])));
        progress.interrupt();
        let attempt = progress.finish();
        let outcomes: Vec<_> = attempt.settled().iter().map(|settled| settled.outcome.clone()).collect();
        assert_eq!(outcomes[..3], [unavailable("a"), Outcome::Delivered(Reply::ok()), refusal(1)]);
        let reason = |at: usize| match &outcomes[at] {
            Outcome::Deferred(reason) => reason.clone(),
            other => panic!("{at}: {other:?}"),
        };
        assert!(reason(3).possible_duplicate && !reason(3).is_untried(), "the provider may have it");
        assert_eq!((reason(4).cause, reason(4).before.len()), (Cause::Stopping, 1), "another may think otherwise");
        assert!(reason(5).is_untried());
        assert!(!reason(4).possible_duplicate && !reason(5).possible_duplicate);
    }

    /// Mail that one upstream cannot carry is offered to the next, and fails only if no other upstream may come back
    /// and accept it.
    #[test]
    fn what_is_beyond_one_upstream_is_another_ones() {
        let accepted = accepted();
        let stop = CancellationToken::new();
        for (outcomes, wants_another, left) in [
            (&[too_large("a")][..], true, too_large("a")),
            (&[too_large("a"), too_large("b")], true, too_large("b")),
            (&[unavailable("a"), too_large("b")], true, unavailable("a")),
            (&[too_large("a"), unavailable("b")], true, unavailable("b")),
        ] {
            let mut progress = AttemptProgress::new(&accepted, Deadline::NONE, &stop);
            outcomes.iter().for_each(|outcome| progress.settle(0, outcome.clone(), None));
            assert_eq!(progress.wants_another_upstream(0, false), wants_another, "{outcomes:?}");
            let mut found = progress.finish().settled()[0].outcome.clone();
            if let Outcome::Deferred(reason) | Outcome::Failed(reason) = &mut found {
                assert_eq!(std::mem::take(&mut reason.before).len(), outcomes.len() - 1, "the others are reported");
            }
            assert_eq!(found, left);
        }
    }
}
