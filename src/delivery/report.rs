//! Logs an attempt: one line per transaction that delivered and per reason for a deferral, and one line per failed
//! recipient.

use super::settled::{Attempt, SentTransaction, SettledRecipient};
use crate::message::accepted::Accepted;
use crate::message::outcome::Cause;
use crate::message::{Outcome, Reason};
use crate::observe::log::Clean;
use crate::smtp::{Mailbox, Reply};
use std::sync::Arc;
use std::time::Duration;
use tracing::{error, info, warn};

/// Recipients named on one line; the others are counted.
const NAMED: usize = 10;

impl Attempt {
    /// `elapsed`: since the final dot.
    pub fn log(&self, accepted: &Accepted, elapsed: Duration) {
        for (transaction, reply, recipients) in self.delivered_by_transaction() {
            log_delivered(accepted, transaction, reply, &recipients, elapsed);
        }
        for (reason, recipients) in self.deferred_by_reason() {
            log_deferred(accepted, reason, &recipients, elapsed);
        }
        for settled in self.settled() {
            if let Outcome::Failed(reason) = &settled.outcome {
                log_failed(accepted, settled, reason, elapsed);
            }
        }
    }

    /// Omits what had not begun when the gateway stopped, since it returns to the queue unchanged.
    fn deferred_by_reason(&self) -> Vec<(&Reason, Vec<&Mailbox>)> {
        let mut reasons: Vec<(&Reason, Vec<&Mailbox>)> = Vec::new();
        for settled in self.settled() {
            let Outcome::Deferred(reason) = &settled.outcome else { continue };
            if reason.cause == Cause::Stopping && reason.is_untried() {
                continue;
            }
            match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, recipients)) => recipients.push(&settled.recipient),
                None => reasons.push((reason, vec![&settled.recipient])),
            }
        }
        reasons
    }

    fn delivered_by_transaction(&self) -> Vec<(&Arc<SentTransaction>, &Reply, Vec<&Mailbox>)> {
        let mut transactions: Vec<(&Arc<SentTransaction>, &Reply, Vec<&Mailbox>)> = Vec::new();
        for settled in self.settled() {
            let (Outcome::Delivered(reply), Some(transaction)) = (&settled.outcome, &settled.transaction) else {
                continue;
            };
            match transactions.iter_mut().find(|(known, ..)| Arc::ptr_eq(known, transaction)) {
                Some((.., recipients)) => recipients.push(&settled.recipient),
                None => transactions.push((transaction, reply, vec![&settled.recipient])),
            }
        }
        transactions
    }
}

fn log_delivered(
    accepted: &Accepted,
    transaction: &SentTransaction,
    reply: &Reply,
    recipients: &[&Mailbox],
    elapsed: Duration,
) {
    let id = accepted.id;
    let from = Clean(&accepted.envelope.sender);
    let size = accepted.message.size();
    let to = named(recipients);
    let reply = Clean(reply);
    let upstream = &*transaction.upstream;
    let tls = transaction.tls;
    let seal = &*transaction.seal;
    let ms = in_ms(elapsed);
    if transaction.is_sandbox {
        warn!(%id, %from, %to, size, upstream, tls, seal, %reply, ms, "kept in the sandbox, NOT sent");
    } else {
        info!(%id, %from, %to, size, upstream, tls, seal, %reply, ms, "delivered");
    }
}

fn log_deferred(accepted: &Accepted, reason: &Reason, recipients: &[&Mailbox], elapsed: Duration) {
    let id = accepted.id;
    let from = Clean(&accepted.envelope.sender);
    let size = accepted.message.size();
    let to = named(recipients);
    let reason = Clean(reason);
    let ms = elapsed.as_millis();
    warn!(%id, %from, %to, size, %reason, ms, "deferred");
}

fn log_failed(accepted: &Accepted, settled: &SettledRecipient, reason: &Reason, elapsed: Duration) {
    let id = accepted.id;
    let from = Clean(&accepted.envelope.sender);
    let size = accepted.message.size();
    let to = Clean(&settled.recipient);
    let reason = Clean(reason);
    let ms = in_ms(elapsed);
    let tls = settled.transaction.as_ref().map(|transaction| transaction.tls);
    error!(%id, %from, %to, size, tls, %reason, ms, "failed");
}

/// Refused by one upstream; the next one is tried.
pub(super) fn log_refused(accepted: &Accepted, to: &Mailbox, reason: &Reason) {
    let id = accepted.id;
    let from = Clean(&accepted.envelope.sender);
    let to = Clean(to);
    let reason = Clean(reason);
    warn!(%id, %from, %to, %reason, "refused; the route's next upstream is asked");
}

// JSON numbers cannot hold a u128, and readers of milliseconds expect a number.
fn in_ms(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

fn named(recipients: &[&Mailbox]) -> String {
    let mut text = recipients.iter().take(NAMED).map(|to| Clean(to).to_string()).collect::<Vec<_>>().join(",");
    if let Some(more) = recipients.len().checked_sub(NAMED).filter(|&more| more > 0) {
        text.push_str(&format!(",+{more} more"));
    }
    text
}
