//! An attempt under way: outcomes as they come in, and what each still wants.

use super::attempt::{Attempt, Settled, Transaction, local};
use crate::message::accepted::Accepted;
use crate::message::outcome::Cause;
use crate::message::{Outcome, Reason, Step};
use crate::relay::Deadline;
use crate::smtp::EnhancedCode;
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

    pub fn wants_another_upstream(&self, index: usize) -> bool {
        self.reason(index).is_some_and(|reason| reason.is_about_upstream() && !reason.possible_duplicate)
    }

    pub fn finish(self) -> Attempt {
        let recipients = self.accepted.envelope.recipients.iter();
        let unreached = || (Outcome::Deferred(no_route()), None);
        let settled = recipients.zip(self.settled).map(|(recipient, slot)| {
            let (outcome, transaction) = slot.unwrap_or_else(unreached);
            Settled { recipient: recipient.clone(), outcome, transaction }
        });
        Attempt::new(settled.collect())
    }
}

// RFC 3463 §3.5: X.4.4, unable to route. A configuration that is put right may still send it.
fn no_route() -> Reason {
    let text = "no [[route]] takes mail from this sender to this recipient".to_owned();
    local(EnhancedCode::new(4, 4, 4), text).with_advice("end the routes with one that takes everything")
}
