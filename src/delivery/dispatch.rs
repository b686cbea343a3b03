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
use crate::queue::{Lane, Leased, Queue, QueueError, Settlement};
use crate::relay::{Capacity, Deadline, Upstream};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
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

#[derive(Debug)]
pub struct Dispatcher<C> {
    pub queue: Arc<dyn Queue>,
    pub deliver: Arc<C>,
    pub settlement: SettlementPolicy,
    pub bouncer: Arc<Bouncer>,
    pub lanes: Vec<Lane>,
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
    pub async fn run(self, stop: CancellationToken) {
        let memory = LeaseMemory::among(self.lanes.len(), self.octets);
        let mut running = JoinSet::new();
        let lanes = self.lanes.clone();
        let dispatcher = Arc::new(self);
        let stop = stop.child_token();
        for lane in lanes {
            let share = LaneAllotment::of(memory.clone());
            let lane = LaneLoop::new(Arc::clone(&dispatcher), lane, share);
            running.spawn(lane.run(stop.clone()));
        }
        while let Some(ended) = running.join_next().await {
            if let Err(failure) = ended {
                error!("a lane's loop failed: {}", Fault(&failure));
            }
            stop.cancel();
        }
    }

    /// From the lease to the durable settlement. A fault of our own in one step does not affect the other steps, and
    /// the lease is always settled. Returns whether the message waits again for anybody.
    async fn deliver(self: Arc<Self>, unbegun: Unbegun, stop: CancellationToken) -> bool {
        fault::provoke("hand-over", &unbegun.leased().accepted.envelope.sender);
        if stop.is_cancelled() {
            unbegun.release().await;
            return true;
        }
        let leased = unbegun.begin();
        if leased.possible_duplicate {
            let id = leased.accepted.id;
            let from = Clean(&leased.accepted.envelope.sender);
            let lane = &leased.lane;
            warn!(%id, %from, %lane, attempts = leased.attempts, "possible duplicate: an earlier attempt may have got through");
        }
        let attempt = self.attempt(&leased, &stop).await;
        if self.cut_off.is_cancelled() && attempt.is_in_doubt() && !attempt.has_delivered() {
            // The lease itself says all that is known: at the next start the message is due at once, as a possible
            // duplicate.
            return false;
        }
        let lease_settlement = self.close(&leased, attempt).await;
        self.send_bounce(&leased, lease_settlement.failures).await;
        let is_open = |settlement: &Settlement| !matches!(settlement, Settlement::Delivered(_) | Settlement::Failed(_));
        let is_waiting_again = lease_settlement.settlements.iter().any(is_open);
        settle(&*self.queue, &leased, lease_settlement.settlements, lease_settlement.due).await;
        is_waiting_again
    }

    /// A fault of our own defers the message, so that it does not stay leased.
    async fn attempt(&self, leased: &Leased, stop: &CancellationToken) -> Attempt {
        let attempt = contained(Box::pin(self.deliver.attempt(&leased.accepted, stop, &self.cut_off)));
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
            let elapsed = self.settlement.clock.now().duration_since(accepted.received_at);
            let lease_settlement = self.settlement.settle(leased, &attempt);
            attempt.log(accepted, Duration::try_from(elapsed).unwrap_or_default(), &lease_settlement.expired);
            lease_settlement
        }));
        closing.await.unwrap_or_else(|panicked| {
            error!(id = %accepted.id, "the outcome of an attempt was lost: {panicked}");
            self.settlement.settle(leased, &Attempt::interrupted(accepted))
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
            while let Err(error) = self.bouncer.notify(&leased.accepted, &failures).await {
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
