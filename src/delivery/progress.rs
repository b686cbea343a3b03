//! An attempt under way: outcomes as they come in, and what each still wants.

use super::attempt::{Attempt, Settled, Transaction};
use super::report;
use super::route::NoWay;
use crate::message::accepted::Accepted;
use crate::message::outcome::Cause;
use crate::message::{Outcome, Reason, Step};
use crate::relay::Deadline;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// One slot per recipient, in the envelope's order.
pub(super) struct Progress<'a> {
    pub accepted: &'a Accepted,
    pub deadline: Deadline,
    pub stop: &'a CancellationToken,
    settled: Vec<Option<(Outcome, Option<Arc<Transaction>>)>>,
}

impl<'a> Progress<'a> {
    pub fn new(accepted: &'a Accepted, deadline: Deadline, stop: &'a CancellationToken) -> Self {
        Self { accepted, deadline, stop, settled: vec![None; accepted.envelope.recipients.len()] }
    }

    pub fn settle(&mut self, index: usize, outcome: Outcome, transaction: Option<Arc<Transaction>>) {
        if let Some(slot) = self.settled.get_mut(index) {
            let outcome = match slot.take() {
                Some((before, _)) => outcome.after(before),
                None => outcome,
            };
            *slot = Some((outcome, transaction));
        }
    }

    /// Without a transaction.
    pub fn settle_all(&mut self, pending: &[usize], outcome: &Outcome) {
        pending.iter().for_each(|&index| self.settle(index, outcome.clone(), None));
    }

    /// What an earlier upstream said is kept.
    pub fn leave(&mut self, pending: &[usize]) {
        for &index in pending {
            if let Some(slot @ None) = self.settled.get_mut(index) {
                *slot = Some((Outcome::Deferred(Reason::new(None, Step::Permit, Cause::Stopping)), None));
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
        self.reason(index).is_some_and(|reason| {
            reason.step == Step::Rcpt && reason.reply().is_some_and(|reply| matches!(reply.code(), 452 | 552))
        })
    }

    /// `retry_refused`: also what this upstream has refused for good.
    pub fn wants_another_upstream(&self, index: usize, retry_refused: bool) -> bool {
        let is_refused = || retry_refused && self.refusal(index).is_some();
        self.reason(index).map_or_else(is_refused, |reason| reason.is_about_upstream() && !reason.possible_duplicate)
    }

    /// Those that go on to another upstream all the same: if it takes them, nothing else will tell.
    pub fn tell_refusals(&self, pending: &[usize]) {
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
        let unreached = || (Outcome::Deferred(NoWay::NoRoute.reason()), None);
        let settled = recipients.zip(self.settled).map(|(recipient, slot)| {
            let (outcome, transaction) = slot.unwrap_or_else(unreached);
            Settled { recipient: recipient.clone(), outcome, transaction }
        });
        Attempt::new(settled.collect())
    }
}
