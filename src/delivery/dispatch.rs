//! The queue's loop: leases due mail, has it delivered, and settles it; one task per lane.
//!
//! A slot is free again only once the settlement is durable, so after a power failure only the messages under way can
//! be sent twice. Never leases more than the lane's upstreams have capacity for, and nothing while all of them are
//! paused.

mod memory;
mod unbegun;

use self::memory::{LaneAllotment, LeaseMemory};
use self::unbegun::{Unbegun, settle};
use super::attempt::{Delivery, Target};
use super::bounce::Bouncer;
use super::lane_state::{LaneLimits, LoopLimit};
use super::settle::{LeaseSettlement, SettlementPolicy};
use super::settled::Attempt;
use crate::message::accepted::Accepted;
use crate::message::dsn::FailedRecipient;
use crate::observe::Backoff;
use crate::observe::fault::{self, Fault};
use crate::observe::log::Clean;
use crate::queue::{Cursor, Lane, LaneWakeups, Leased, Queue, QueueError};
use crate::relay::{Capacity, Deadline, Upstream};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, warn};

/// The wall clock may be set at any time, so due times are read again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Interval between two checks of a lane with due mail that cannot be leased at the moment, because someone else has
/// it.
const BREATH: Duration = Duration::from_millis(20);
/// Interval between two searches for expired mail on a lane from which no mail is leased.
const BETWEEN_SWEEPS: Duration = Duration::from_secs(30);
/// Number of expired messages settled at once.
const SWEPT_TOGETHER: usize = 8;
/// Pause while another lane's message is tried alone.
const REST: Duration = Duration::from_secs(1);

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
            let wakeups = dispatcher.queue.wakeups().of(&lane);
            let dispatcher = Arc::clone(&dispatcher);
            let lane = LaneLoop {
                dispatcher,
                lane,
                wakeups,
                share: LaneAllotment::of(memory.clone()),
                trouble: Backoff::default(),
                queue_is_gone: false,
                sweep: ExpirySweep { next: Instant::now(), after: None },
                running: JoinSet::new(),
            };
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
    /// the lease is always settled.
    async fn deliver(self: Arc<Self>, unbegun: Unbegun, stop: CancellationToken) {
        fault::provoke("hand-over", &unbegun.leased().accepted.envelope.sender);
        if stop.is_cancelled() {
            return unbegun.give_back().await;
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
            return;
        }
        let lease_settlement = self.close(&leased, attempt).await;
        self.send_bounce(&leased, lease_settlement.failures).await;
        settle(&*self.queue, &leased, lease_settlement.settlements, lease_settlement.due).await;
    }

    /// A fault of our own defers the message, so that it does not stay leased.
    async fn attempt(&self, leased: &Leased, stop: &CancellationToken) -> Attempt {
        let deliver = self.deliver.clone();
        let accepted = leased.accepted.clone();
        let stop = stop.clone();
        let cut_off = self.cut_off.clone();
        apart(async move { deliver.attempt(&accepted, &stop, &cut_off).await }).await.unwrap_or_else(|failure| {
            error!(id = %leased.accepted.id, "an attempt failed: {}", Fault(&failure));
            Attempt::interrupted(&leased.accepted)
        })
    }

    /// Decides what the attempt means for the queue, and logs it.
    async fn close(&self, leased: &Arc<Leased>, attempt: Attempt) -> LeaseSettlement {
        let settlement = self.settlement.clone();
        let lent = leased.clone();
        let closing = apart(async move {
            let accepted = &lent.accepted;
            fault::provoke("closing", &accepted.envelope.sender);
            let elapsed = settlement.clock.now().duration_since(accepted.received_at);
            let lease_settlement = settlement.settle(&lent, &attempt);
            let elapsed = Duration::try_from(elapsed).unwrap_or_default();
            attempt.log(accepted, elapsed, &lease_settlement.expired);
            lease_settlement
        });
        closing.await.unwrap_or_else(|failure| {
            error!(id = %leased.accepted.id, "the outcome of an attempt was lost: {}", Fault(&failure));
            self.settlement.settle(leased, &Attempt::interrupted(&leased.accepted))
        })
    }

    /// Sent before the settlement: a bounce sent twice after a crash is better than one never sent.
    async fn send_bounce(&self, leased: &Arc<Leased>, failures: Vec<FailedRecipient>) {
        let bouncer = self.bouncer.clone();
        let lent = leased.clone();
        let telling = apart(async move {
            fault::provoke("bounce", &lent.accepted.envelope.sender);
            let mut backoff = Backoff::default();
            while let Err(error) = bouncer.notify(&lent.accepted, &failures).await {
                error!(id = %lent.accepted.id, "a bounce could not be stored: {error}");
                if matches!(error, QueueError::Closed) {
                    return;
                }
                backoff.wait().await;
            }
        });
        if let Err(failure) = telling.await {
            error!(id = %leased.accepted.id, "the bounce was not sent: {}", Fault(&failure));
        }
    }
}

/// Contains a panic in `work`.
async fn apart<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, JoinError> {
    AbortOnDropHandle::new(tokio::spawn(work)).await
}

struct LaneLoop<C> {
    dispatcher: Arc<Dispatcher<C>>,
    lane: Lane,
    wakeups: LaneWakeups,
    /// This lane's part of the memory for leased messages.
    share: LaneAllotment,
    /// Consecutive errors of the queue. Its storage may fail for a long time, and a log line per second would be too
    /// many.
    trouble: Backoff,
    /// The queue was closed for good.
    queue_is_gone: bool,
    sweep: ExpirySweep,
    /// Each task returns its octets and how it ended.
    running: JoinSet<(u64, Result<(), JoinError>)>,
}

/// The search for expired mail while no mail is leased.
struct ExpirySweep {
    next: Instant,
    /// The position of the search.
    after: Option<Cursor>,
}

/// What the loop waits for, apart from the stop and the end of an attempt.
struct LoopWait {
    until: Instant,
    /// New mail could be begun at once.
    for_mail: bool,
}

impl<C: Deliver> LaneLoop<C> {
    fn note(&self, limit: Option<LoopLimit>) {
        self.dispatcher.limits.note(&self.lane, limit);
    }

    async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() && !self.queue_is_gone {
            let wait = self.begin(&stop).await;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = self.running.join_next() => {
                    self.record(ended);
                    // Collects all that have ended, so that the next lease covers all free slots in one commit.
                    while let Some(ended) = self.running.try_join_next() {
                        self.record(ended);
                    }
                }
                () = self.wakeups.retry.notified() => self.dispatcher.deliver.cut_pause(&self.lane),
                () = self.wakeups.mail.notified(), if wait.for_mail => {}
                () = sleep_until(wait.until) => {}
            }
        }
        while let Some(ended) = self.running.join_next().await {
            self.record(ended);
        }
    }

    /// Begins as much mail as possible.
    async fn begin(&mut self, stop: &CancellationToken) -> LoopWait {
        let now = Instant::now();
        let full = LoopWait { until: now + LOOK_AGAIN, for_mail: false };
        let slots = match self.dispatcher.deliver.capacity(&self.lane) {
            Capacity::After(until) => return self.sweep(until, stop).await,
            Capacity::Slots(slots) => slots.saturating_sub(self.running.len()),
        };
        self.note((slots == 0).then_some(LoopLimit::Slots));
        if slots == 0 {
            return if self.running.is_empty() { LoopWait { until: now + REST, ..full } } else { full };
        }
        let octets = self.share.reserve();
        if octets == 0 && !self.running.is_empty() {
            self.share.settle();
            self.note(Some(LoopLimit::Memory));
            return full;
        }
        let queue = &self.dispatcher.queue;
        let leased = queue.lease(&self.lane, self.dispatcher.settlement.clock.now(), slots, octets).await;
        let leased = leased.map(|leased| {
            let found = !leased.is_empty();
            self.spawn(leased, stop);
            found
        });
        self.share.settle();
        match leased {
            Ok(false) => {
                self.trouble.reset();
                LoopWait { until: now + self.until_due().await, for_mail: true }
            }
            Ok(true) => {
                self.trouble.reset();
                LoopWait { until: now, for_mail: true }
            }
            Err(error) => {
                error!(lane = %self.lane, "the queue cannot lease mail: {error}");
                // At an orderly stop it is closed after the loops.
                self.queue_is_gone = matches!(error, QueueError::Closed);
                LoopWait { until: now + self.trouble.pause(), for_mail: false }
            }
        }
    }

    /// Expired mail must fail even if no mail is leased. Otherwise an upstream that is gone for good would be tried
    /// with one message per pause, and the last senders would get their bounce weeks late.
    async fn sweep(&mut self, until: Instant, stop: &CancellationToken) -> LoopWait {
        let now = Instant::now();
        // Another lane may find out earlier that an upstream is back.
        let wait = LoopWait { until: until.min(now + LOOK_AGAIN), for_mail: false };
        let queue = self.dispatcher.queue.clone();
        let settlement = &self.dispatcher.settlement;
        let limit = SWEPT_TOGETHER.saturating_sub(self.running.len());
        if now < self.sweep.next
            || limit == 0
            || !settlement.is_long(self.dispatcher.deliver.unavailable_for(&self.lane))
        {
            return wait;
        }
        let age = settlement.schedule.expire;
        let octets = self.share.reserve();
        if octets == 0 && !self.running.is_empty() {
            self.share.settle();
            return wait;
        }
        let leased = queue.lease_expired(&self.lane, age, self.sweep.after.take(), limit, octets).await;
        let leased = leased.map(|(leased, next)| {
            self.sweep.after = next;
            self.spawn(leased, stop);
        });
        self.share.settle();
        if let Err(error) = leased {
            error!(lane = %self.lane, "expired mail cannot be leased: {error}");
        }
        if self.sweep.after.is_some() {
            return LoopWait { until: now, ..wait };
        }
        self.sweep.next = now + BETWEEN_SWEEPS;
        wait
    }

    async fn until_due(&self) -> Duration {
        let now = self.dispatcher.settlement.clock.now();
        match self.dispatcher.queue.next_due(&self.lane, now).await {
            Ok(Some(due)) => Duration::try_from(due.duration_since(now)).unwrap_or_default().clamp(BREATH, LOOK_AGAIN),
            Ok(None) => LOOK_AGAIN,
            Err(error) => {
                error!(lane = %self.lane, "the next due time cannot be read: {error}");
                Backoff::FIRST
            }
        }
    }

    fn spawn(&mut self, leased: Vec<Leased>, stop: &CancellationToken) {
        // Wraps all of them before anything is done for one.
        let unbegun: Vec<_> = leased.into_iter().map(|leased| Unbegun::new(&self.dispatcher.queue, leased)).collect();
        for unbegun in unbegun {
            let octets = unbegun.leased().accepted.memory_needed();
            self.share.add(octets);
            let delivering = self.dispatcher.clone().deliver(unbegun, stop.clone());
            self.running.spawn(async move {
                // Returns the octets in any case.
                let ended = apart(delivering).await;
                (octets, ended)
            });
        }
    }

    fn record(&mut self, ended: Result<(u64, Result<(), JoinError>), JoinError>) {
        let ended = ended.and_then(|(octets, ended)| {
            self.share.remove(octets);
            ended
        });
        if let Err(failure) = ended {
            error!(lane = %self.lane, "a delivery failed: {}", Fault(&failure));
        }
    }
}

#[cfg(test)]
mod tests;
