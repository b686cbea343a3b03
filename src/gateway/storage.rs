//! Opens the queue at start under the data folder's lock, and runs two jobs beside it: one moves waiting mail to the
//! lanes of the current routes, one removes expired mail and history.

use super::StartError;
use super::backend::{self, BackendOptions};
use super::lock::Lock;
use crate::config::Settings;
use crate::delivery::Routes;
use crate::observe::metrics::QueueMetrics;
use crate::queue::{Backend, Cursor, LaneOf, Operator, Queue, QueueError, Reassigned};
use std::any::Any;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

const CHECK_INTERVAL: Duration = Duration::from_secs(5);
const PRUNE_INTERVAL: Duration = Duration::from_secs(3600);
/// Interval between log lines that report how much waiting mail has been moved to other lanes.
const REPORT_INTERVAL: Duration = Duration::from_secs(30);
/// Between two looks for mail that was stored under the former routes.
const STRAGGLER_INTERVAL: Duration = Duration::from_millis(500);
const RETRY_PAUSE: Duration = Duration::from_secs(30);
/// Between two looks whether a queue answers again.
const AWAY_PAUSE: Duration = Duration::from_secs(1);

/// How `max_memory` is divided: one half for incoming mail; a quarter for the copies that conversions make just before
/// sending; and an eighth each for newly stored messages and for messages being delivered.
#[derive(Debug, Clone, Copy)]
pub(super) struct MemoryPlan {
    pub inbound: u64,
    pub cache: u64,
    pub leases: u64,
    pub conversions: u64,
}

impl MemoryPlan {
    pub fn of(settings: &Settings) -> Self {
        let all = settings.max_memory;
        Self { inbound: all / 2, cache: all / 8, leases: all / 8, conversions: all / 4 }
    }
}

/// The caller must hold the lock for as long as the queue is open.
pub(super) async fn open(
    settings: &Settings,
    memory: MemoryPlan,
    metrics: QueueMetrics,
) -> Result<(Lock, Arc<dyn Backend>), StartError> {
    let lock = Lock::take(&settings.data_dir)?;
    let options = BackendOptions {
        cache_octets: memory.cache,
        min_free_space: settings.queue.min_free_space,
        schedule: settings.queue.schedule,
        metrics,
        is_gateway: true,
    };
    let queue = backend::open(settings.queue_location(), options).await?;
    let unusable = |source: QueueError| StartError::Queue { path: settings.data_dir.clone(), source };
    let counts = queue.statistics().await.map_err(unusable)?;
    info!(waiting = counts.waiting, failed = counts.failed, damaged = counts.damaged, "the queue is open");
    Ok((lock, queue))
}

/// What may still store mail under former routes: messages that come in, are delivered, or wait to be stored. Does not keep it
/// alive.
#[derive(Debug)]
pub(super) struct InUse(pub Vec<Weak<dyn Any + Send + Sync>>);

impl InUse {
    fn is_over(&self) -> bool {
        self.0.iter().all(|part| part.strong_count() == 0)
    }
}

/// The reassignment of mail that was stored under other routes to the current routes' lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    queue: Arc<dyn Backend>,
    routes: Arc<Routes>,
    /// How often mail was found on a wrong lane once this was done.
    repetitions: usize,
    moved: u64,
    progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The beginning could not be recorded yet.
    ToBegin,
    At(Cursor),
    Done,
}

impl Lanes {
    pub fn of(queue: Arc<dyn Backend>, routes: Arc<Routes>) -> Self {
        Self { queue, routes, repetitions: 0, moved: 0, progress: Progress::ToBegin }
    }

    /// Does what is possible at once; [`Lanes::reassign_rest`] does the rest once the listeners are open.
    pub async fn begin(&mut self) -> Result<(), QueueError> {
        for _ in 0..2 {
            match self.step().await {
                // Nothing is leased before it is done, and new mail is stored in the spool meanwhile.
                Err(QueueError::Away(_)) => return Ok(()),
                // Only delivery frees space, so the gateway starts anyway: mail on lanes that still exist is delivered.
                Err(QueueError::Full(error)) => {
                    error!(
                        "routes have changed, and the disk is too full to put waiting mail on their lanes; it is tried again: {error}"
                    );
                    return Ok(());
                }
                step => step?,
            }
        }
        if self.progress != Progress::Done {
            info!("routes have changed: waiting mail is put on their lanes while new mail is accepted and delivered");
        }
        Ok(())
    }

    /// Ends when all mail is on its lane, or at the stop; in that case the next start begins again.
    pub async fn reassign_rest(&mut self, stop: CancellationToken) {
        let mut logged_at = Instant::now();
        while self.progress != Progress::Done {
            let step = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                step = self.step() => step,
            };
            match step {
                Ok(()) => {}
                Err(QueueError::Closed) => return,
                // It is said elsewhere that the queue does not answer.
                Err(QueueError::Away(_)) => tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(AWAY_PAUSE) => {}
                },
                Err(error) => {
                    error!("waiting mail cannot be put on the lanes of the current routes; it is tried again: {error}");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(RETRY_PAUSE) => {}
                    }
                }
            }
            if logged_at.elapsed() >= REPORT_INTERVAL {
                info!(recipients = self.moved, "waiting mail is being put on the lanes of the current routes");
                logged_at = Instant::now();
            }
        }
    }

    /// What was in progress when the routes changed may have stored mail on a lane that is no more.
    pub async fn follow_stragglers(&mut self, former: InUse, stop: CancellationToken) {
        loop {
            let is_last = former.is_over();
            if self.has_stragglers().await {
                self.repetitions += 1;
                (self.moved, self.progress) = (0, Progress::ToBegin);
                self.reassign_rest(stop.clone()).await;
            }
            if is_last {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(STRAGGLER_INTERVAL) => {}
            }
        }
    }

    async fn has_stragglers(&self) -> bool {
        let lanes = self.routes.lanes();
        let is_known = |name: &str| lanes.iter().any(|(lane, _)| lane.as_str() == name);
        match self.queue.figures().await {
            Ok(figures) => figures.lanes.iter().any(|counts| counts.waiting > 0 && !is_known(&counts.lane)),
            // Looking costs little, and passing over mail would cost it its delivery.
            Err(_) => true,
        }
    }

    async fn step(&mut self) -> Result<(), QueueError> {
        let after = match self.progress {
            Progress::ToBegin => None,
            Progress::At(cursor) => Some(cursor),
            Progress::Done => return Ok(()),
        };
        let routes = self.routes.clone();
        let lane_of: LaneOf = Arc::new(move |addressed| routes.lane(addressed));
        let fingerprint = match self.repetitions {
            0 => self.routes.fingerprint(),
            // The queue would take it for one that is done.
            repetitions => format!("{} {repetitions}", self.routes.fingerprint()),
        };
        let Reassigned { moved, next } = self.queue.reassign_lanes(&fingerprint, lane_of, after).await?;
        self.moved += moved;
        self.progress = next.map_or(Progress::Done, Progress::At);
        if next.is_none() && self.moved > 0 {
            info!(recipients = self.moved, "routes have changed: waiting mail was put on their lanes");
        }
        Ok(())
    }
}

/// Runs until the stop: logs what is wrong with the data folder even if no mail comes, and corrects what it can.
pub(super) async fn watch(queue: Arc<dyn Queue>, lock: Arc<Lock>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CHECK_INTERVAL) => {}
        }
        // Both log their findings.
        let _ = queue.admit(0);
        lock.renew();
    }
}

/// How long failed mail and history are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retention {
    pub failed: Duration,
    pub history: Duration,
}

/// Runs every hour until the stop, first an hour after the start; the queue's own clock decides what has expired.
pub(super) async fn prune(queue: Arc<dyn Operator>, keep: watch::Receiver<Retention>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PRUNE_INTERVAL) => {}
        }
        let keep = *keep.borrow();
        match queue.prune(keep.failed, keep.history).await {
            Ok(0) => {}
            Ok(rows) => info!(rows, "removed expired failed mail and history"),
            Err(error) => error!("expired mail and history could not be removed: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::testing::MemoryQueue;
    use tokio::time::sleep;

    /// It once ran directly after the start, with whatever time the clock showed.
    #[tokio::test(start_paused = true)]
    async fn what_was_kept_is_forgotten_every_hour_and_not_at_the_start() {
        let queue = Arc::new(MemoryQueue::default());
        let keep = Retention { failed: Duration::from_secs(14 * 24 * 3600), history: Duration::ZERO };
        let stop = CancellationToken::new();
        tokio::spawn(prune(queue.clone(), watch::Sender::new(keep).subscribe(), stop.clone()));
        sleep(Duration::from_secs(3500)).await;
        assert!(queue.inner().pruned.is_empty(), "not at once");
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(queue.inner().pruned, [keep.failed]);
        stop.cancel();
        sleep(Duration::from_secs(7200)).await;
        assert_eq!(queue.inner().pruned.len(), 1);
    }
}
