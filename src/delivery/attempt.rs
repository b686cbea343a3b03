//! One attempt: every recipient through its route's upstreams until each has an outcome.
//!
//! Moves on to the next upstream only for what is the upstream's fault. A message that may have been delivered is never
//! tried elsewhere in the same attempt: that would be the duplicate. Once the gateway stops, no transaction is begun.

use super::door::{Door, Exit};
use super::login::Logins;
use super::profile::Profile;
use super::progress::Progress;
use super::route::{Routes, Way};
use crate::dkim::{Keyring, Unsigned};
use crate::message::accepted::Accepted;
use crate::message::outcome::Cause;
use crate::message::{Outcome, Reason, Step};
use crate::observe::fault;
use crate::queue::Lane;
use crate::relay::{Deadline, Reuse, Sent, Upstream};
use crate::smtp::{EnhancedCode, Mailbox};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// An upstream and what the log says of it.
#[derive(Debug, Clone)]
pub struct Target {
    pub logins: Logins<Upstream>,
    /// What it can carry, and in which form.
    pub profile: Profile,
    /// The embedded provider: kept, not sent.
    pub is_sandbox: bool,
}

#[derive(Debug)]
pub struct Delivery {
    targets: Vec<Target>,
    routes: Arc<Routes>,
    door: Door,
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
        Self { targets, routes: Arc::new(routes), door: Door { keyring, unsigned } }
    }

    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    pub fn routes(&self) -> &Arc<Routes> {
        &self.routes
    }

    /// Every lane and how many messages may be under way on it: as many as its upstreams take connections.
    pub fn lanes(&self) -> Vec<(Lane, usize)> {
        // All logins of an upstream share one cap.
        let cap = |&index: &usize| {
            let upstream = self.targets.get(index).and_then(|target| target.logins.all().next());
            upstream.map_or(0, |upstream| upstream.options().max_connections)
        };
        let lanes = self.routes.lanes().into_iter();
        lanes.map(|(lane, upstreams)| (lane, upstreams.iter().map(cap).sum())).collect()
    }

    /// Ends at the deadline at the latest, with every recipient settled.
    pub async fn attempt(&self, accepted: &Accepted, deadline: Deadline) -> Attempt {
        self.attempt_unless(accepted, deadline, &CancellationToken::new()).await
    }

    /// The same; once `stop` is cancelled, what has not begun is deferred as [`Cause::Stopping`].
    pub async fn attempt_unless(&self, accepted: &Accepted, deadline: Deadline, stop: &CancellationToken) -> Attempt {
        fault::provoke("attempt", &accepted.envelope.sender);
        let mut progress = Progress::new(accepted, deadline, stop);
        for group in self.routes.group(accepted) {
            match group.way {
                Ok(way) => self.try_in_order(&way, group.members, &mut progress).await,
                Err(none) => progress.settle_all(&group.members, &Outcome::Deferred(none.reason())),
            }
        }
        progress.finish()
    }

    async fn try_in_order(&self, way: &Way, mut pending: Vec<usize>, progress: &mut Progress<'_>) {
        for target in way.upstreams.iter().filter_map(|&index| self.targets.get(index)) {
            progress.tell_refusals(&pending);
            let upstream = match target.logins.for_mail(progress.accepted) {
                Ok(upstream) => upstream,
                // The next one may have a login for it.
                Err(reason) => {
                    progress.settle_all(&pending, &Outcome::Deferred(reason));
                    continue;
                }
            };
            self.try_in_transactions(target, upstream, &pending, progress).await;
            pending.retain(|&index| progress.wants_another_upstream(index, way.retry_refused));
            if pending.is_empty() {
                return;
            }
        }
    }

    /// No more recipients in one transaction than the profile allows; and as many transactions as the upstream asks for, as
    /// long as each takes some of the recipients. Once the upstream is away, nobody else is tried there.
    async fn try_in_transactions(
        &self,
        target: &Target,
        upstream: &Upstream,
        pending: &[usize],
        progress: &mut Progress<'_>,
    ) {
        let mut groups = pending.chunks(target.profile.max_recipients.unwrap_or(usize::MAX).max(1));
        while let Some(group) = groups.next() {
            let mut asked = group.to_vec();
            while !asked.is_empty() {
                let before = asked.len();
                self.try_upstream(target, upstream, &asked, progress).await;
                asked.retain(|&index| progress.wants_next_transaction(index));
                if asked.len() == before {
                    break;
                }
            }
            if let Some(away) = progress.found_away(group) {
                return groups.for_each(|rest| progress.settle_all(rest, &away));
            }
        }
    }

    /// One transaction for the recipients at `pending`, all of which get an outcome.
    async fn try_upstream(&self, target: &Target, upstream: &Upstream, pending: &[usize], progress: &mut Progress<'_>) {
        let exit = Exit { upstream: upstream.name(), profile: &target.profile };
        if let Err(outcome) = exit.check_size(progress.accepted.message.size()) {
            return progress.settle_all(pending, &outcome);
        }
        let recipients: Vec<Mailbox> =
            pending.iter().filter_map(|&index| progress.accepted.envelope.recipients.get(index).cloned()).collect();
        let mut reuse = Reuse::Allowed;
        loop {
            let ready = tokio::select! {
                biased;
                () = progress.stop.cancelled() => return progress.leave(pending),
                ready = upstream.ready(progress.deadline, reuse) => match ready {
                    Ok(ready) => ready,
                    Err(reason) => return progress.settle_all(pending, &Outcome::Deferred(reason)),
                },
            };
            let sealed = match self.door.seal(progress.accepted, exit, ready.extensions()).await {
                Ok(sealed) => sealed,
                Err(outcome) => return progress.settle_all(pending, &outcome),
            };
            let transaction = Arc::new(Transaction {
                upstream: upstream.name().into(),
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
}

pub(super) fn local(enhanced: EnhancedCode, text: String) -> Reason {
    Reason::new(None, Step::Local, Cause::Local { enhanced, text })
}
