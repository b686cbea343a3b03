//! Logs an attempt: one line per transaction that delivered and per reason for a deferral, and one line per failed
//! recipient.

use super::settled::{Attempt, SentTransaction, SettledRecipient};
use crate::message::accepted::Accepted;
use crate::message::outcome::Cause;
use crate::message::{Outcome, Reason, trace_id};
use crate::observe::log::Clean;
use crate::smtp::{EnhancedCode, Mailbox, Reply};
use std::sync::Arc;
use std::time::Duration;
use tracing::field::{DisplayValue, display};
use tracing::{error, info, warn};

/// Recipients named on one line; the others are counted.
const NAMED: usize = 10;

impl Attempt {
    /// `elapsed`: since the final dot. `expired`: those of the deferred that have failed by age, with the whole reason.
    pub fn log(&self, accepted: &Accepted, elapsed: Duration, expired: &[(Mailbox, String)]) {
        let told = MailLine { accepted, elapsed };
        for (transaction, reply, recipients) in self.delivered_by_transaction() {
            told.delivered(transaction, reply, &recipients);
        }
        let age_of = |to: &Mailbox| expired.iter().find(|(known, _)| known == to).map(|(_, text)| &**text);
        for (reason, recipients) in self.deferred_by_reason(|to| age_of(to).is_none()) {
            told.deferred(reason, &recipients);
        }
        for settled in self.settled() {
            match (&settled.outcome, age_of(&settled.recipient)) {
                (Outcome::Failed(reason), _) => told.failed(settled, reason, &reason.without_upstream()),
                (Outcome::Deferred(reason), Some(text)) => told.failed(settled, reason, text),
                _ => {}
            }
        }
    }

    /// Omits what had not begun when the gateway stopped, since it returns to the queue unchanged.
    fn deferred_by_reason(&self, is_deferred: impl Fn(&Mailbox) -> bool) -> Vec<(&Reason, Vec<&Mailbox>)> {
        let mut reasons: Vec<(&Reason, Vec<&Mailbox>)> = Vec::new();
        for settled in self.settled().iter().filter(|settled| is_deferred(&settled.recipient)) {
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

/// What each line of an attempt begins with.
struct MailLine<'a> {
    accepted: &'a Accepted,
    elapsed: Duration,
}

impl MailLine<'_> {
    fn delivered(&self, transaction: &SentTransaction, reply: &Reply, recipients: &[&Mailbox]) {
        let id = self.accepted.id;
        let from = Clean(&self.accepted.envelope.sender);
        let size = self.accepted.message.size();
        let trace_id = trace_id(self.accepted.message.header());
        let to = named(recipients.iter().copied());
        let upstream = &*transaction.upstream;
        let tls = transaction.tls;
        let seal = &*transaction.seal;
        let code = reply.code();
        let enhanced = reply.enhanced().map(display);
        let reply = Clean(reply);
        let ms = self.in_ms();
        let what = if transaction.is_sandbox { "kept in the sandbox, NOT sent" } else { "delivered" };
        info!(%id, %from, to, size, upstream, tls, seal, code, enhanced, %reply, ms, trace_id, "{what}");
    }

    fn deferred(&self, reason: &Reason, recipients: &[&Mailbox]) {
        let id = self.accepted.id;
        let from = Clean(&self.accepted.envelope.sender);
        let size = self.accepted.message.size();
        let trace_id = trace_id(self.accepted.message.header());
        let to = named(recipients.iter().copied());
        let upstream = reason.upstream.as_deref();
        let (code, enhanced) = codes(reason);
        let reason = reason.without_upstream();
        let ms = self.in_ms();
        warn!(%id, %from, to, size, upstream, code, enhanced, reason = %Clean(reason), ms, trace_id, "deferred");
    }

    fn failed(&self, settled: &SettledRecipient, reason: &Reason, text: &str) {
        let id = self.accepted.id;
        let from = Clean(&self.accepted.envelope.sender);
        let size = self.accepted.message.size();
        let trace_id = trace_id(self.accepted.message.header());
        let to = Clean(&settled.recipient);
        let tls = settled.transaction.as_ref().map(|transaction| transaction.tls);
        let upstream = reason.upstream.as_deref();
        let (code, enhanced) = codes(reason);
        let ms = self.in_ms();
        error!(%id, %from, %to, size, upstream, tls, code, enhanced, reason = %Clean(text), ms, trace_id, "failed");
    }

    // JSON numbers cannot hold a u128, and readers of milliseconds expect a number.
    fn in_ms(&self) -> u64 {
        u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Refused by one upstream; the next one is tried.
pub(super) fn log_refused(accepted: &Accepted, to: &Mailbox, reason: &Reason) {
    let id = accepted.id;
    let from = Clean(&accepted.envelope.sender);
    let to = Clean(to);
    let upstream = reason.upstream.as_deref();
    let (code, enhanced) = codes(reason);
    let reason = reason.without_upstream();
    let trace_id = trace_id(accepted.message.header());
    warn!(%id, %from, %to, upstream, code, enhanced, reason = %Clean(reason), trace_id, "refused; the route's next upstream is asked");
}

/// The provider's code, and the enhanced one.
fn codes(reason: &Reason) -> (Option<u16>, Option<DisplayValue<EnhancedCode>>) {
    (reason.reply().map(Reply::code), reason.enhanced().map(display))
}

/// `a@example.net,b@example.net,+3 more`.
pub fn named<'a>(recipients: impl IntoIterator<Item = &'a Mailbox>) -> String {
    let mut recipients = recipients.into_iter();
    let mut names: Vec<String> = recipients.by_ref().take(NAMED).map(|to| Clean(to).to_string()).collect();
    let more = recipients.count();
    if more > 0 {
        names.push(format!("+{more} more"));
    }
    names.join(",")
}
