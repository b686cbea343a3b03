//! Who of a transaction's recipients stands where. An outcome once settled is never changed.
//! Nobody is forgotten: who was not heard of is deferred. RFC 5321 §3.3.

use crate::message::outcome::{Meaning, Outcome, Reason, SlowDown, meaning};
use crate::smtp::Reply;

#[derive(Debug)]
enum Standing {
    /// RCPT not yet answered.
    Open,
    /// RCPT accepted, the message not yet.
    Accepted,
    Settled(Outcome),
}

#[derive(Debug)]
pub(super) struct Ledger(Vec<Standing>);

impl Ledger {
    pub(super) fn new(recipients: usize) -> Self {
        Self((0..recipients).map(|_| Standing::Open).collect())
    }

    pub(super) fn accept(&mut self, recipient: usize) {
        self.0[recipient] = Standing::Accepted;
    }

    pub(super) fn settle(&mut self, recipient: usize, outcome: Outcome) {
        if !matches!(self.0[recipient], Standing::Settled(_)) {
            self.0[recipient] = Standing::Settled(outcome);
        }
    }

    /// For everyone who is not settled yet.
    pub(super) fn settle_rest(&mut self, outcome: &Outcome) {
        for recipient in 0..self.0.len() {
            self.settle(recipient, outcome.clone());
        }
    }

    pub(super) fn open(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().filter(|(_, standing)| matches!(standing, Standing::Open)).map(|(at, _)| at)
    }

    pub(super) fn has_accepted(&self) -> bool {
        self.0.iter().any(|standing| matches!(standing, Standing::Accepted))
    }

    pub(super) fn deliver(&mut self, reply: &Reply) {
        for standing in &mut self.0 {
            if matches!(standing, Standing::Accepted) {
                *standing = Standing::Settled(Outcome::Delivered(reply.clone()));
            }
        }
    }

    /// `otherwise` for whoever was overlooked: nobody's mail is dropped without a word.
    pub(super) fn into_outcomes(self, otherwise: impl Fn() -> Reason) -> Vec<Outcome> {
        self.0
            .into_iter()
            .map(|standing| match standing {
                Standing::Settled(outcome) => outcome,
                Standing::Open | Standing::Accepted => Outcome::Deferred(otherwise()),
            })
            .collect()
    }
}

/// A reason that is a reply means what the table says; everything else may be better next time.
pub(super) fn judge(reason: Reason, slow_down: &[SlowDown]) -> Outcome {
    match reason.reply().map(|reply| meaning(reason.step, reply, slow_down)) {
        Some(Meaning::RecipientFailed | Meaning::MessageFailed) => Outcome::Failed(reason),
        Some(Meaning::UpstreamDeferred) => Outcome::Deferred(reason.upstream_wide()),
        _ => Outcome::Deferred(reason),
    }
}
