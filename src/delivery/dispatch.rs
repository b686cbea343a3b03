//! The queue's loop: leases due mail, has it delivered, and settles it; one task per lane.
//!
//! A slot is free again only once the settlement is durable, so after a power failure only the messages under way can
//! be sent twice. Never leases more than the lane's upstreams have capacity for, and nothing while all of them are
//! paused.

mod lane_loop;
mod memory;
mod unbegun;

use self::lane_loop::LaneLoop;
use self::memory::{LaneAllotment, LeaseMemory};
use self::unbegun::{Unbegun, settle};
use super::attempt::{Delivery, Target};
use super::bounce::Bouncer;
use super::lane_state::LaneLimits;
use super::settle::{LeaseSettlement, SettlementPolicy};
use super::settled::Attempt;
use crate::message::accepted::Accepted;
use crate::message::dsn::FailedRecipient;
use crate::observe::Backoff;
use crate::observe::fault::{self, Fault, contained};
use crate::observe::log::Clean;
use crate::observe::metrics::DeliveryMetrics;
use crate::queue::{Lane, Leased, Queue, QueueError, Settlement};
use crate::relay::{Capacity, Deadline, Upstream};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

/// Makes delivery attempts.
pub trait Deliver: Send + Sync + 'static {
    /// Once `stop` is cancelled, nothing new is begun (`Cause::Stopping`). Once `cut_off` is cancelled, the attempt
    /// ends at once.
    fn attempt(
        &self,
        accepted: &Accepted,
        stop: &CancellationToken,
        cut_off: &CancellationToken,
    ) -> impl Future<Output = Attempt> + Send;

    /// How many messages may be under way on the lane now, which is how many connections its unpaused upstreams accept;
    /// or until when all of them are paused.
    fn capacity(&self, lane: &Lane) -> Capacity;

    /// For how long all upstreams of the lane have been unavailable; zero if one is available.
    fn unavailable_for(&self, lane: &Lane) -> Duration;

    /// The operator wants the lane's mail to be tried now.
    fn cut_pause(&self, lane: &Lane);
}

impl Deliver for Delivery {
    async fn attempt(&self, accepted: &Accepted, stop: &CancellationToken, cut_off: &CancellationToken) -> Attempt {
        Self::attempt(self, accepted, Deadline::NONE, stop, cut_off).await
    }

    fn capacity(&self, lane: &Lane) -> Capacity {
        self.targets_of(lane).map(Target::capacity).reduce(Capacity::or).unwrap_or(Capacity::Slots(1))
    }

    fn unavailable_for(&self, lane: &Lane) -> Duration {
        self.targets_of(lane).map(Target::unavailable_for).min().unwrap_or_default()
    }

    fn cut_pause(&self, lane: &Lane) {
        self.targets_of(lane).flat_map(|target| target.logins.all()).for_each(Upstream::cut_pause);
    }
}

/// What the configuration says of delivery. It can be replaced as a whole while mail is under way: what has begun ends by the
/// plan under which it began.
#[derive(Debug)]
pub struct DeliveryPlan<C> {
    pub deliver: Arc<C>,
    pub settlement: SettlementPolicy,
    pub bouncer: Arc<Bouncer>,
    pub lanes: Vec<Lane>,
    pub metrics: DeliveryMetrics,
}

#[derive(Debug)]
pub struct Dispatcher<C> {
    pub queue: Arc<dyn Queue>,
    pub plan: watch::Receiver<Arc<DeliveryPlan<C>>>,
    /// Octets of leased messages, over all lanes.
    pub octets: u64,
    /// Cancelled at the end of the drain time: attempts are broken off, and what is known of them is recorded.
    pub cut_off: CancellationToken,
    /// What the loops say of themselves, for operators.
    pub limits: LaneLimits,
}

impl<C: Deliver> Dispatcher<C> {
    /// Runs until `stop` is cancelled and everything under way is settled. It also ends if one lane's loop ends by
    /// itself, because that lane's mail would never be sent. Dropping the future cuts off what is under way: the leases
    /// stay, and the next start treats them as possible duplicates.
    ///
    /// A new plan starts the loops of its new lanes and stops those of lanes that it no longer has.
    pub async fn run(self, stop: CancellationToken) {
        let memory = LeaseMemory::new(self.octets);
        let mut plan = self.plan.clone();
        let dispatcher = Arc::new(self);
        let stop = stop.child_token();
        let mut loops: HashMap<Lane, CancellationToken> = HashMap::new();
        let mut running = JoinSet::new();
        while !stop.is_cancelled() {
            let lanes = plan.borrow_and_update().lanes.clone();
            memory.divide_among(lanes.len());
            loops.extract_if(|lane, _| !lanes.contains(lane)).for_each(|(_, former)| former.cancel());
            for lane in lanes.into_iter().filter(|lane| !loops.contains_key(lane)).collect::<Vec<_>>() {
                let own_stop = stop.child_token();
                loops.insert(lane.clone(), own_stop.clone());
                let lane = LaneLoop::new(Arc::clone(&dispatcher), lane, LaneAllotment::of(memory.clone()));
                running.spawn(async move {
                    lane.run(own_stop.clone()).await;
                    own_stop.is_cancelled()
                });
            }
            tokio::select! {
                Some(ended) = running.join_next() => if !ended_as_asked(ended) {
                    stop.cancel();
                },
                Ok(()) = plan.changed() => {}
                () = stop.cancelled() => {}
            }
        }
        while let Some(ended) = running.join_next().await {
            ended_as_asked(ended);
        }
    }
}

fn ended_as_asked(ended: Result<bool, JoinError>) -> bool {
    ended.unwrap_or_else(|failure| {
        error!("a lane's loop failed: {}", Fault(&failure));
        false
    })
}

/// One message on its way, under the plan that was current when it was begun.
struct DeliveryRun<C> {
    dispatcher: Arc<Dispatcher<C>>,
    plan: Arc<DeliveryPlan<C>>,
}

impl<C: Deliver> DeliveryRun<C> {
    /// From the lease to the durable settlement. A fault of our own in one step does not affect the other steps, and
    /// the lease is always settled. Returns whether the message waits again for anybody.
    async fn deliver(self, unbegun: Unbegun, stop: CancellationToken) -> bool {
        fault::provoke("hand-over", &unbegun.leased().accepted.envelope.sender);
        // Another gateway may have the message by now.
        let is_lost = !self.dispatcher.queue.still_holds(unbegun.leased().lease);
        if is_lost || stop.is_cancelled() {
            unbegun.release().await;
            return true;
        }
        let leased = unbegun.begin();
        if leased.possible_duplicate {
            self.plan.metrics.possible_duplicate();
            let id = leased.accepted.id;
            let from = Clean(&leased.accepted.envelope.sender);
            let lane = &leased.lane;
            warn!(%id, %from, %lane, attempts = leased.attempts, "possible duplicate: an earlier attempt may have got through");
        }
        let attempt = self.attempt(&leased, &stop).await;
        if self.dispatcher.cut_off.is_cancelled() && attempt.is_in_doubt() && !attempt.has_delivered() {
            // The lease itself says all that is known: at the next start the message is due at once, as a possible
            // duplicate.
            return false;
        }
        let lease_settlement = self.close(&leased, attempt).await;
        self.send_bounce(&leased, lease_settlement.failures).await;
        let is_open = |settlement: &Settlement| !matches!(settlement, Settlement::Delivered(_) | Settlement::Failed(_));
        let is_waiting_again = lease_settlement.settlements.iter().any(is_open);
        settle(&*self.dispatcher.queue, &leased, lease_settlement.settlements, lease_settlement.due).await;
        is_waiting_again
    }

    /// A fault of our own defers the message, so that it does not stay leased.
    async fn attempt(&self, leased: &Leased, stop: &CancellationToken) -> Attempt {
        let attempt = contained(Box::pin(self.plan.deliver.attempt(&leased.accepted, stop, &self.dispatcher.cut_off)));
        attempt.await.unwrap_or_else(|panicked| {
            error!(id = %leased.accepted.id, "an attempt failed: {panicked}");
            Attempt::interrupted(&leased.accepted)
        })
    }

    /// Decides what the attempt means for the queue, and logs it.
    async fn close(&self, leased: &Leased, attempt: Attempt) -> LeaseSettlement {
        let accepted = &leased.accepted;
        let closing = contained(Box::pin(async {
            fault::provoke("closing", &accepted.envelope.sender);
            let elapsed = self.plan.settlement.clock.now().duration_since(accepted.received_at);
            let lease_settlement = self.plan.settlement.settle(leased, &attempt);
            let elapsed = Duration::try_from(elapsed).unwrap_or_default();
            attempt.log(accepted, elapsed, &lease_settlement.expired);
            attempt
                .count(&self.plan.metrics, elapsed, |to| lease_settlement.expired.iter().any(|(known, _)| known == to));
            lease_settlement
        }));
        closing.await.unwrap_or_else(|panicked| {
            error!(id = %accepted.id, "the outcome of an attempt was lost: {panicked}");
            self.plan.settlement.settle(leased, &Attempt::interrupted(accepted))
        })
    }

    /// Sent before the settlement: a bounce sent twice after a crash is better than one never sent.
    async fn send_bounce(&self, leased: &Leased, failures: Vec<FailedRecipient>) {
        let id = leased.accepted.id;
        if failures.is_empty() {
            return;
        }
        let sending = contained(Box::pin(async {
            fault::provoke("bounce", &leased.accepted.envelope.sender);
            let mut backoff = Backoff::default();
            while let Err(error) = self.plan.bouncer.notify(&leased.accepted, &failures).await {
                error!(%id, "a bounce could not be stored: {error}");
                if matches!(error, QueueError::Closed) {
                    return;
                }
                backoff.wait().await;
            }
        }));
        if let Err(panicked) = sending.await {
            error!(%id, "the bounce was not sent: {panicked}");
        }
    }
}

#[cfg(test)]
mod tests;
