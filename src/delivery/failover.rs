//! Tries the upstreams in the route's order, skipping those that are paused, in as many transactions as needed.
//!
//! Moves on to the next upstream only for faults of the current one. A message that may have been delivered is never
//! tried elsewhere in the same attempt, because that would create the duplicate. Once the gateway stops, no transaction
//! is begun.

use super::attempt::{Delivery, Target};
use super::count::decisive;
use super::finalize::TargetServer;
use super::progress::AttemptProgress;
use super::route::RecipientRoute;
use super::settled::SentTransaction;
use crate::message::Outcome;
use crate::observe::metrics::DeliveryOutcome;
use crate::relay::{ConnectionRequest, Reuse, Sent, Upstream};
use crate::smtp::Mailbox;
use std::sync::Arc;
use tokio::time::Instant;

/// An upstream for one message.
#[derive(Clone, Copy)]
struct Outbound<'a> {
    target: &'a Target,
    /// With the message's login.
    upstream: &'a Upstream,
    /// A later upstream in the order would accept the message now.
    has_alternative: bool,
}

impl Delivery {
    pub(super) async fn try_in_order(
        &self,
        way: &RecipientRoute,
        mut pending: Vec<usize>,
        progress: &mut AttemptProgress<'_>,
    ) {
        let targets: Vec<&Target> = way.upstreams.iter().filter_map(|&index| self.targets.get(index)).collect();
        for (at, target) in targets.iter().enumerate() {
            progress.open.clone_from(&pending);
            progress.log_refusals(&pending);
            let upstream = match target.logins.for_mail(progress.accepted) {
                Ok(upstream) => upstream,
                // The next upstream may have a login for it.
                Err(reason) => {
                    progress.settle_all(&pending, &Outcome::Deferred(reason));
                    continue;
                }
            };
            let has_alternative = targets[at + 1..].iter().any(|other| other.would_accept(progress.accepted));
            let outbound = Outbound { target, upstream, has_alternative };
            self.try_in_transactions(outbound, &pending, progress).await;
            pending.retain(|&index| progress.wants_another_upstream(index, way.retry_refused));
            if pending.is_empty() {
                break;
            }
        }
        progress.open.clear();
    }

    /// Puts no more recipients into one transaction than the profile and the rates allow, and makes as many
    /// transactions as the upstream asks for, as long as each accepts some of the recipients. Once the upstream is
    /// unavailable, no further transaction is tried there.
    async fn try_in_transactions(&self, outbound: Outbound<'_>, pending: &[usize], progress: &mut AttemptProgress<'_>) {
        let limits = [outbound.target.profile.max_recipients, outbound.upstream.most_recipients()];
        let most = limits.into_iter().flatten().min().unwrap_or(usize::MAX).max(1);
        let mut groups = pending.chunks(most);
        while let Some(group) = groups.next() {
            let mut asked = group.to_vec();
            while !asked.is_empty() {
                let before = asked.len();
                self.try_upstream(outbound, &asked, progress).await;
                asked.retain(|&index| progress.wants_next_transaction(index));
                if asked.len() == before {
                    break;
                }
            }
            if let Some(unavailable) = progress.found_unavailable(group) {
                return groups.for_each(|rest| progress.settle_all(rest, &unavailable));
            }
        }
    }

    /// One transaction for the recipients at `pending`, each of which gets an outcome.
    async fn try_upstream(&self, outbound: Outbound<'_>, pending: &[usize], progress: &mut AttemptProgress<'_>) {
        let Outbound { target, upstream, has_alternative } = outbound;
        let server = TargetServer { upstream: upstream.name(), profile: &target.profile };
        if let Err(outcome) = server.check_size(progress.accepted.message.size()) {
            return progress.settle_all(pending, &outcome);
        }
        let recipients: Vec<Mailbox> =
            pending.iter().filter_map(|&index| progress.accepted.envelope.recipients.get(index).cloned()).collect();
        let mut reuse = Reuse::Allowed;
        loop {
            let wanted =
                ConnectionRequest { deadline: progress.deadline, reuse, recipients: recipients.len(), has_alternative };
            let ready = tokio::select! {
                biased;
                () = progress.stop.cancelled() => return progress.leave(pending),
                ready = upstream.ready(wanted) => match ready {
                    Ok(ready) => ready,
                    Err(reason) if reason.is_untried() => return progress.skip_upstream(pending, &reason),
                    Err(reason) => {
                        self.metrics().attempt(upstream.name(), reason.step as usize, DeliveryOutcome::Deferred);
                        return progress.settle_all(pending, &Outcome::Deferred(reason));
                    }
                },
            };
            let sealing = self.finalizer.seal(progress.accepted, server, ready.extensions(), progress.deadline);
            let final_message = tokio::select! {
                biased;
                () = progress.stop.cancelled() => return progress.leave(pending),
                final_message = sealing => match final_message {
                    Ok(final_message) => final_message,
                    Err(outcome) => return progress.settle_all(pending, &outcome),
                },
            };
            let transaction = Arc::new(SentTransaction {
                upstream: upstream.name().into(),
                tls: ready.tls_version(),
                seal: final_message.sealed.seal().to_string(),
                is_sandbox: target.is_sandbox,
            });
            progress.sending = Some((upstream.name().to_owned(), pending.to_vec()));
            let (began, is_reused) = (Instant::now(), ready.is_reused());
            let sent =
                ready.send(&progress.accepted.envelope, &recipients, &final_message.sealed, progress.deadline).await;
            progress.sending = None;
            match sent {
                Sent::Outcomes(outcomes) => {
                    let (step, outcome) = decisive(&outcomes);
                    self.metrics().attempt(upstream.name(), step as usize, outcome);
                    self.metrics().transaction(upstream.name(), began.elapsed(), is_reused);
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
