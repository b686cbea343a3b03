//! One attempt: every recipient through its route's upstreams until each has an outcome.
//!
//! Moves on to the next upstream only for what is the upstream's fault. A message that may have been delivered is never
//! tried elsewhere in the same attempt: that would be the duplicate. Once the gateway stops, no transaction is begun.

use super::route::Routes;
use crate::dkim::{self, Keyring, SealError, SealOptions, Sealed, Unsigned};
use crate::message::accepted::Accepted;
use crate::message::outcome::Cause;
use crate::message::{Outcome, Reason, Step};
use crate::queue::Lane;
use crate::relay::{Deadline, Reuse, Sent, Upstream};
use crate::smtp::{EnhancedCode, Mailbox};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Octets from which sealing moves off the async threads: hashing takes longer than a poll should.
const LARGE: usize = 256 * 1024;

/// An upstream and what the log says of it.
#[derive(Debug, Clone)]
pub struct Target {
    pub upstream: Upstream,
    /// The embedded provider: kept, not sent.
    pub is_sandbox: bool,
}

#[derive(Debug)]
pub struct Delivery {
    targets: Vec<Target>,
    routes: Arc<Routes>,
    keyring: Arc<Keyring>,
    unsigned: Unsigned,
}

/// How a transaction went out, for the log.
#[derive(Debug, Clone)]
pub struct Transaction {
    pub upstream: Arc<str>,
    pub tls: &'static str,
    pub seal: String,
    pub is_sandbox: bool,
}

/// What became of one recipient.
#[derive(Debug, Clone)]
pub struct Settled {
    pub recipient: Mailbox,
    pub outcome: Outcome,
    /// The transaction that settled it; `None` if no connection was ready.
    pub transaction: Option<Arc<Transaction>>,
}

/// One per recipient, in the envelope's order.
#[derive(Debug)]
pub struct Attempt {
    settled: Vec<Settled>,
}

impl Attempt {
    pub fn new(settled: Vec<Settled>) -> Self {
        Self { settled }
    }

    /// A fault of our own broke it off; whether something was sent is not known.
    pub(super) fn interrupted(accepted: &Accepted) -> Self {
        let text = "the attempt was broken off by a fault of the gateway; see the log".to_owned();
        let reason = local(EnhancedCode::new(4, 3, 0), text).maybe_delivered();
        let recipients = accepted.envelope.recipients.iter();
        let outcome = || Outcome::Deferred(reason.clone());
        let settled =
            recipients.map(|recipient| Settled { recipient: recipient.clone(), outcome: outcome(), transaction: None });
        Self { settled: settled.collect() }
    }

    pub fn settled(&self) -> &[Settled] {
        &self.settled
    }
}

impl Delivery {
    /// `targets`: in the order that the routes count.
    pub fn new(targets: Vec<Target>, routes: Routes, keyring: Arc<Keyring>, unsigned: Unsigned) -> Self {
        Self { targets, routes: Arc::new(routes), keyring, unsigned }
    }

    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    pub fn routes(&self) -> &Arc<Routes> {
        &self.routes
    }

    /// Every lane and how many messages may be under way on it: as many as its upstreams take connections.
    pub fn lanes(&self) -> Vec<(Lane, usize)> {
        let cap =
            |&index: &usize| self.targets.get(index).map_or(0, |target| target.upstream.options().max_connections);
        let lanes = self.routes.lanes().into_iter();
        lanes.map(|(lane, upstreams)| (lane, upstreams.iter().map(cap).sum())).collect()
    }

    /// Ends at the deadline at the latest, with every recipient settled.
    pub async fn attempt(&self, accepted: &Accepted, deadline: Deadline) -> Attempt {
        self.attempt_unless(accepted, deadline, &CancellationToken::new()).await
    }

    /// The same; once `stop` is cancelled, what has not begun is deferred as [`Cause::Stopping`].
    pub async fn attempt_unless(&self, accepted: &Accepted, deadline: Deadline, stop: &CancellationToken) -> Attempt {
        let recipients = &accepted.envelope.recipients;
        let mut progress = Progress { accepted, deadline, stop, settled: vec![None; recipients.len()] };
        for (upstreams, members) in self.routes.group(&accepted.envelope.sender, recipients) {
            self.try_in_order(&upstreams, members, &mut progress).await;
        }
        progress.finish()
    }

    async fn try_in_order(&self, upstreams: &[usize], mut pending: Vec<usize>, progress: &mut Progress<'_>) {
        for target in upstreams.iter().filter_map(|&index| self.targets.get(index)) {
            self.try_in_transactions(target, &pending, progress).await;
            pending.retain(|&index| progress.wants_another_upstream(index));
            if pending.is_empty() {
                return;
            }
        }
    }

    /// As many transactions as the upstream asks for, as long as each takes some of the recipients.
    async fn try_in_transactions(&self, target: &Target, pending: &[usize], progress: &mut Progress<'_>) {
        let mut asked = pending.to_vec();
        while !asked.is_empty() {
            let before = asked.len();
            self.try_target(target, &asked, progress).await;
            asked.retain(|&index| progress.wants_next_transaction(index));
            if asked.len() == before {
                return;
            }
        }
    }

    /// One transaction for the recipients at `pending`, all of which get an outcome.
    async fn try_target(&self, target: &Target, pending: &[usize], progress: &mut Progress<'_>) {
        let sealed = match self.seal(progress.accepted).await {
            Ok(sealed) => sealed,
            Err(outcome) => return progress.settle_all(pending, &outcome),
        };
        let recipients: Vec<Mailbox> =
            pending.iter().filter_map(|&index| progress.accepted.envelope.recipients.get(index).cloned()).collect();
        let mut reuse = Reuse::Allowed;
        loop {
            let ready = tokio::select! {
                biased;
                () = progress.stop.cancelled() => return progress.leave(pending),
                ready = target.upstream.ready(progress.deadline, reuse) => match ready {
                    Ok(ready) => ready,
                    Err(reason) => return progress.settle_all(pending, &Outcome::Deferred(reason)),
                },
            };
            let transaction = Arc::new(Transaction {
                upstream: target.upstream.name().into(),
                tls: ready.tls_version(),
                seal: sealed.seal().to_string(),
                is_sandbox: target.is_sandbox,
            });
            match ready.send(&progress.accepted.envelope, &recipients, &sealed, progress.deadline).await {
                Sent::Outcomes(outcomes) => {
                    return pending.iter().zip(outcomes).for_each(|(&index, outcome)| {
                        progress.settle(index, outcome, Some(transaction.clone()));
                    });
                }
                // A fresh connection cannot be stale, so the loop ends.
                Sent::Stale => reuse = Reuse::Fresh,
            }
        }
    }

    /// With today's key, over the bytes that leave. A key that is missing or fails may be put right; a message that cannot be
    /// signed stays so.
    async fn seal(&self, accepted: &Accepted) -> Result<Sealed, Outcome> {
        let domain = accepted.author.as_ref().map(|author| author.domain());
        let Some(keys) = domain.and_then(|domain| self.keyring.keys_for(domain)) else {
            return if self.unsigned.permits(domain) {
                Ok(Sealed::unsigned(&accepted.message))
            } else {
                let from = domain.map_or_else(|| "an unknown domain".to_owned(), ToString::to_string);
                Err(not_now(format!("there is no DKIM key for {from}, and it may not leave unsigned")))
            };
        };
        let (message, keys) = (accepted.message.clone(), keys.to_vec());
        let work = move || dkim::seal(&message, &keys, &SealOptions::default());
        let sealed = if accepted.message.size() < LARGE {
            work()
        } else {
            tokio::task::spawn_blocking(work)
                .await
                .map_err(|error| not_now(format!("sealing was interrupted: {error}")))?
        };
        sealed.map_err(|error| match error {
            SealError::NoFrom | SealError::TooManyFields(_) => never(error.to_string()),
            SealError::NoKey | SealError::Signing { .. } => not_now(error.to_string()),
        })
    }
}

// RFC 3463 §3.8: X.7.5, cryptographic failure.
fn not_now(text: String) -> Outcome {
    Outcome::Deferred(local(EnhancedCode::new(4, 7, 5), text))
}

// RFC 3463 §3.7: X.6.0, the message's content.
fn never(text: String) -> Outcome {
    Outcome::Failed(local(EnhancedCode::new(5, 6, 0), text))
}

// RFC 3463 §3.5: X.4.4, unable to route. A configuration that is put right may still send it.
fn no_route() -> Reason {
    let text = "no [[route]] takes mail from this sender to this recipient".to_owned();
    local(EnhancedCode::new(4, 4, 4), text).with_advice("end the routes with one that takes everything")
}

fn local(enhanced: EnhancedCode, text: String) -> Reason {
    Reason::new(None, Step::Local, Cause::Local { enhanced, text })
}

/// Outcomes as they come in.
struct Progress<'a> {
    accepted: &'a Accepted,
    deadline: Deadline,
    stop: &'a CancellationToken,
    settled: Vec<Option<(Outcome, Option<Arc<Transaction>>)>>,
}

impl Progress<'_> {
    fn settle(&mut self, index: usize, outcome: Outcome, transaction: Option<Arc<Transaction>>) {
        if let Some(slot) = self.settled.get_mut(index) {
            *slot = Some((outcome, transaction));
        }
    }

    /// Without a transaction.
    fn settle_all(&mut self, pending: &[usize], outcome: &Outcome) {
        pending.iter().for_each(|&index| self.settle(index, outcome.clone(), None));
    }

    /// What an earlier upstream said is kept.
    fn leave(&mut self, pending: &[usize]) {
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
    fn wants_next_transaction(&self, index: usize) -> bool {
        self.reason(index).is_some_and(|reason| {
            reason.step == Step::Rcpt && reason.reply().is_some_and(|reply| matches!(reply.code(), 452 | 552))
        })
    }

    fn wants_another_upstream(&self, index: usize) -> bool {
        self.reason(index).is_some_and(|reason| reason.is_about_upstream() && !reason.possible_duplicate)
    }

    fn finish(self) -> Attempt {
        let recipients = self.accepted.envelope.recipients.iter();
        let unreached = || (Outcome::Deferred(no_route()), None);
        let settled = recipients.zip(self.settled).map(|(recipient, slot)| {
            let (outcome, transaction) = slot.unwrap_or_else(unreached);
            Settled { recipient: recipient.clone(), outcome, transaction }
        });
        Attempt { settled: settled.collect() }
    }
}
