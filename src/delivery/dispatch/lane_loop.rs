//! One lane's loop: keeps its slots busy with leased mail, and searches for expired mail while nothing may be sent.
//!
//! It leases a little ahead: while mail is settled as fast as it is leased, a slot that becomes free finds a message that
//! is leased already, and does not wait for a commit. What was leased ahead is given back if the lane has to pause.

use super::memory::LaneAllotment;
use super::unbegun::Unbegun;
use super::{Deliver, DeliveryPlan, DeliveryRun, Dispatcher};
use crate::delivery::lane_state::LoopLimit;
use crate::observe::Backoff;
use crate::observe::fault::{Fault, Panicked, contained};
use crate::queue::{Cursor, HandoffReceiver, Lane, LaneWakeups, Leased, Queue, QueueError};
use crate::relay::Capacity;
use jiff::Timestamp;
use std::collections::VecDeque;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::error;

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

/// A call of [`Queue::lease`].
type Leasing = Pin<Box<dyn Future<Output = Result<Vec<Leased>, QueueError>> + Send>>;

/// How a delivery ended.
struct EndedDelivery {
    octets: u64,
    is_waiting_again: Result<bool, Panicked>,
}

pub(super) struct LaneLoop<C> {
    dispatcher: Arc<Dispatcher<C>>,
    /// Notices when there is another plan than `plan`.
    plans: watch::Receiver<Arc<DeliveryPlan<C>>>,
    plan: Arc<DeliveryPlan<C>>,
    lane: Lane,
    wakeups: LaneWakeups,
    /// Receives mail that was stored as leased by this loop.
    handoff: HandoffReceiver,
    /// This lane's part of the memory for leased messages.
    share: LaneAllotment,
    /// Consecutive errors of the queue. Its storage may fail for a long time, and a log line per second would be too
    /// many.
    trouble: Backoff,
    /// The queue was closed for good.
    queue_is_gone: bool,
    sweep: ExpirySweep,
    /// The lease that was asked for.
    leasing: Option<Leasing>,
    /// How many deliveries have ended since that was asked for, which is how many slots its commit would keep waiting.
    ended_meanwhile: usize,
    /// How many messages to lease in addition to those that are begun at once.
    ahead: usize,
    /// Set after a lease that returned nothing.
    rest: Option<LoopWait>,
    /// Leased ahead.
    ready: VecDeque<Unbegun>,
    running: JoinSet<EndedDelivery>,
}

/// The search for expired mail while no mail is leased.
struct ExpirySweep {
    next: Instant,
    /// The position of the search.
    after: Option<Cursor>,
}

/// What the loop waits for, apart from the stop, a lease, and the end of a delivery.
#[derive(Debug, Clone, Copy)]
struct LoopWait {
    until: Instant,
    /// New mail could be begun at once.
    for_mail: bool,
}

impl<C: Deliver> LaneLoop<C> {
    pub fn new(dispatcher: Arc<Dispatcher<C>>, lane: Lane, share: LaneAllotment) -> Self {
        let mut plans = dispatcher.plan.clone();
        let plan = plans.borrow_and_update().clone();
        Self {
            plans,
            plan,
            wakeups: dispatcher.queue.wakeups().of(&lane),
            handoff: dispatcher.queue.handoffs().receiver(&lane),
            dispatcher,
            lane,
            share,
            trouble: Backoff::default(),
            queue_is_gone: false,
            sweep: ExpirySweep { next: Instant::now(), after: None },
            leasing: None,
            ended_meanwhile: 0,
            ahead: 0,
            rest: None,
            ready: VecDeque::new(),
            running: JoinSet::new(),
        }
    }

    pub async fn run(mut self, stop: CancellationToken) {
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
                leased = answer(&mut self.leasing) => self.receive(leased).await,
                leased = self.handoff.receive() => self.keep([leased]),
                () = self.wakeups.retry.notified() => {
                    self.rest = None;
                    self.plan.deliver.cut_pause(&self.lane);
                }
                Ok(()) = self.plans.changed() => {
                    self.plan = self.plans.borrow_and_update().clone();
                    self.rest = None;
                }
                () = self.wakeups.mail.notified(), if wait.for_mail => self.rest = None,
                () = sleep_until(wait.until) => {}
            }
        }
        self.finish().await;
    }

    /// Nothing more is begun: what was leased goes back, and what is under way ends.
    async fn finish(mut self) {
        if let Some(leasing) = self.leasing.take()
            && let Ok(leased) = leasing.await
        {
            self.keep(leased);
        }
        for leased in self.handoff.close() {
            self.keep([leased]);
        }
        self.release_ready();
        while let Some(ended) = self.running.join_next().await {
            self.record(ended);
        }
        self.note(None);
    }

    /// Begins what is ready, and asks for more if there are free slots.
    async fn begin(&mut self, stop: &CancellationToken) -> LoopWait {
        let now = Instant::now();
        let look_again = LoopWait { until: now + LOOK_AGAIN, for_mail: false };
        let slots = match self.plan.deliver.capacity(&self.lane) {
            Capacity::Slots(slots) => slots,
            Capacity::After(until) => {
                self.handoff.offer(0, 0);
                self.release_ready();
                return self.sweep(until, stop).await;
            }
        };
        while self.running.len() < slots
            && let Some(unbegun) = self.ready.pop_front()
        {
            self.start(unbegun, stop);
        }
        let free = slots.saturating_sub(self.running.len());
        self.note((free == 0).then_some(LoopLimit::Slots));
        self.rest = self.rest.filter(|rest| rest.until > now);
        match self.rest {
            Some(rest) if self.leasing.is_none() => {
                let offered = if rest.for_mail { free } else { 0 };
                self.handoff.offer(offered, self.share.own_rest());
                return rest;
            }
            _ => self.handoff.offer(0, 0),
        }
        let wanted = (free + self.ahead.min(slots)).saturating_sub(self.ready.len());
        if self.leasing.is_none() && wanted > 0 {
            self.lease(wanted);
        } else if self.leasing.is_none() && self.running.is_empty() {
            return LoopWait { until: now + REST, for_mail: false };
        }
        look_again
    }

    /// Asks the queue for this many messages, unless there is no memory for any.
    fn lease(&mut self, wanted: usize) {
        let octets = self.share.reserve();
        if octets == 0 && !(self.running.is_empty() && self.ready.is_empty()) {
            self.share.settle();
            self.note(Some(LoopLimit::Memory));
            return;
        }
        let queue = self.dispatcher.queue.clone();
        let lane = self.lane.clone();
        let now = self.plan.settlement.clock.now();
        self.ended_meanwhile = 0;
        self.leasing = Some(Box::pin(async move { queue.lease(&lane, now, wanted, octets).await }));
    }

    /// The answer to `lease`.
    async fn receive(&mut self, leased: Result<Vec<Leased>, QueueError>) {
        self.leasing = None;
        self.ahead = 2 * self.ended_meanwhile;
        let is_empty = leased.as_ref().is_ok_and(Vec::is_empty);
        let leased = leased.map(|leased| self.keep(leased));
        self.share.settle();
        let now = Instant::now();
        match leased {
            Ok(()) => {
                self.trouble.reset();
                if is_empty {
                    let clock = self.plan.settlement.clock.now();
                    let until = now + until_due(&*self.dispatcher.queue, &self.lane, clock).await;
                    self.rest = Some(LoopWait { until, for_mail: true });
                }
            }
            Err(error) => {
                error!(lane = %self.lane, "the queue cannot lease mail: {error}");
                // At an orderly stop it is closed after the loops.
                self.queue_is_gone = matches!(error, QueueError::Closed);
                self.rest = Some(LoopWait { until: now + self.trouble.pause(), for_mail: false });
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
        let settlement = &self.plan.settlement;
        let limit = SWEPT_TOGETHER.saturating_sub(self.running.len());
        if now < self.sweep.next
            || limit == 0
            || self.leasing.is_some()
            || !settlement.is_long(self.plan.deliver.unavailable_for(&self.lane))
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
            self.keep(leased);
            while let Some(unbegun) = self.ready.pop_front() {
                self.start(unbegun, stop);
            }
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

    /// Takes over leases, before anything is done for one of them.
    fn keep(&mut self, leased: impl IntoIterator<Item = Leased>) {
        for leased in leased {
            self.share.add(leased.accepted.memory_needed());
            self.ready.push_back(Unbegun::new(&self.dispatcher.queue, leased));
        }
    }

    fn start(&mut self, unbegun: Unbegun, stop: &CancellationToken) {
        let octets = unbegun.leased().accepted.memory_needed();
        let run = DeliveryRun { dispatcher: self.dispatcher.clone(), plan: self.plan.clone() };
        let delivering = run.deliver(unbegun, stop.clone());
        // Returns the octets in any case.
        self.running
            .spawn(async move { EndedDelivery { octets, is_waiting_again: contained(Box::pin(delivering)).await } });
    }

    fn release_ready(&mut self) {
        for unbegun in self.ready.drain(..) {
            let octets = unbegun.leased().accepted.memory_needed();
            let releasing = async move {
                unbegun.release().await;
                true
            };
            self.running
                .spawn(async move { EndedDelivery { octets, is_waiting_again: contained(Box::pin(releasing)).await } });
        }
    }

    fn record(&mut self, ended: Result<EndedDelivery, JoinError>) {
        self.ended_meanwhile += 1;
        let is_waiting_again = match ended {
            Ok(EndedDelivery { octets, is_waiting_again }) => {
                self.share.remove(octets);
                is_waiting_again.unwrap_or_else(|panicked| {
                    error!(lane = %self.lane, "a delivery failed: {panicked}");
                    true
                })
            }
            Err(failure) => {
                error!(lane = %self.lane, "a delivery failed: {}", Fault(&failure));
                true
            }
        };
        if is_waiting_again {
            // It may be due before anything else.
            self.rest = None;
        }
    }

    fn note(&self, limit: Option<LoopLimit>) {
        self.dispatcher.limits.note(&self.lane, limit);
    }
}

async fn until_due(queue: &dyn Queue, lane: &Lane, now: Timestamp) -> Duration {
    match queue.next_due(lane, now).await {
        Ok(Some(due)) => Duration::try_from(due.duration_since(now)).unwrap_or_default().clamp(BREATH, LOOK_AGAIN),
        Ok(None) => LOOK_AGAIN,
        Err(error) => {
            error!(%lane, "the next due time cannot be read: {error}");
            Backoff::FIRST
        }
    }
}

/// Never, if nothing was asked for.
async fn answer(asked: &mut Option<Leasing>) -> Result<Vec<Leased>, QueueError> {
    match asked {
        Some(asked) => asked.await,
        None => pending().await,
    }
}
