//! The state of each recipient in a transaction. A settled outcome never changes; recipients
//! without a reply are deferred. RFC 5321 §3.3.

use crate::message::outcome::{Outcome, Reason};
use crate::smtp::Reply;

#[derive(Debug)]
enum RecipientStanding {
    /// RCPT was not answered yet.
    Open,
    /// RCPT was accepted; the message was not yet.
    Accepted,
    Settled(Outcome),
}

#[derive(Debug)]
pub(super) struct TransactionRecipients(Vec<RecipientStanding>);

impl TransactionRecipients {
    pub(super) fn new(recipients: usize) -> Self {
        Self((0..recipients).map(|_| RecipientStanding::Open).collect())
    }

    pub(super) fn accept(&mut self, recipient: usize) {
        self.0[recipient] = RecipientStanding::Accepted;
    }

    pub(super) fn settle(&mut self, recipient: usize, outcome: Outcome) {
        if !matches!(self.0[recipient], RecipientStanding::Settled(_)) {
            self.0[recipient] = RecipientStanding::Settled(outcome);
        }
    }

    /// Settles every recipient that is not settled yet.
    pub(super) fn settle_rest(&mut self, outcome: &Outcome) {
        for recipient in 0..self.0.len() {
            self.settle(recipient, outcome.clone());
        }
    }

    pub(super) fn open(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().filter(|(_, standing)| matches!(standing, RecipientStanding::Open)).map(|(at, _)| at)
    }

    pub(super) fn has_accepted(&self) -> bool {
        self.0.iter().any(|standing| matches!(standing, RecipientStanding::Accepted))
    }

    pub(super) fn deliver(&mut self, reply: &Reply) {
        for standing in &mut self.0 {
            if matches!(standing, RecipientStanding::Accepted) {
                *standing = RecipientStanding::Settled(Outcome::Delivered(reply.clone()));
            }
        }
    }

    /// Uses `otherwise` for a recipient without an outcome, so that no mail is dropped silently.
    pub(super) fn into_outcomes(self, otherwise: impl Fn() -> Reason) -> Vec<Outcome> {
        self.0
            .into_iter()
            .map(|standing| match standing {
                RecipientStanding::Settled(outcome) => outcome,
                RecipientStanding::Open | RecipientStanding::Accepted => Outcome::Deferred(otherwise()),
            })
            .collect()
    }
}
