//! The queue at start: opened under the data folder's lock, its mail put on the lanes of today's routes; and the job that
//! forgets what was kept long enough.

use super::StartError;
use super::lock::Lock;
use crate::config::Settings;
use crate::delivery::Routes;
use crate::message::accepted::Addressed;
use crate::observe::Clock;
use crate::observe::clock::Start;
use crate::observe::fault::Fault;
use crate::queue::sqlite::{self, SqliteQueue};
use crate::queue::watched::Watched;
use crate::queue::{Queue, QueueError};
use jiff::SignedDuration;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

const BETWEEN_PRUNINGS: Duration = Duration::from_secs(3600);
/// A clock that is merely slewed, or a second of a leap, is further off by less.
const UNSTEADY: Duration = Duration::from_secs(60);

/// How `max_memory` is divided: one half for mail coming in; of the other, one half for the copies that conversions make at
/// the door, and the rest in equal parts for what was just stored and for what is being delivered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub inbound: u64,
    pub cache: u64,
    pub leases: u64,
    pub conversions: u64,
}

impl Memory {
    pub fn of(settings: &Settings) -> Self {
        let all = settings.max_memory;
        Self { inbound: all / 2, cache: all / 8, leases: all / 8, conversions: all / 4 }
    }
}

/// The lock is to be held as long as the queue.
pub(super) async fn open(
    settings: &Settings,
    memory: Memory,
    routes: &Arc<Routes>,
) -> Result<(Lock, Arc<Watched>), StartError> {
    let lock = Lock::take(&settings.data_dir)?;
    let options = sqlite::Options {
        data_dir: settings.data_dir.clone(),
        cache_octets: memory.cache,
        schedule: settings.queue.schedule,
    };
    let opened = tokio::task::spawn_blocking(|| SqliteQueue::open(options)).await;
    let queue = opened.map_err(|failure| StartError::Fault(Fault(&failure).to_string()))??;
    let queue = Arc::new(Watched::new(Arc::new(queue)));
    let (fingerprint, routes) = (routes.fingerprint(), routes.clone());
    let lane_of = Arc::new(move |addressed: &Addressed<'_>| routes.lane(addressed));
    let unusable = |source: QueueError| StartError::Queue { path: settings.data_dir.clone(), source };
    let moved = match queue.relane(&fingerprint, lane_of).await {
        // Only delivery makes room again: what waits on lanes that there still are is delivered.
        Err(QueueError::Full(error)) => {
            error!(
                "routes have changed, and the disk is too full to put waiting mail on their lanes; the next start tries again: {error}"
            );
            0
        }
        moved => moved.map_err(unusable)?,
    };
    let counts = queue.statistics().await.map_err(unusable)?;
    if moved > 0 {
        info!(recipients = moved, "routes have changed: waiting mail was put on their lanes");
    }
    info!(waiting = counts.waiting, failed = counts.failed, damaged = counts.damaged, "the queue is open");
    Ok((lock, queue))
}

/// What is kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    pub failed: Duration,
    pub history: Duration,
}

/// Every hour, the first one after the start, until the stop. Not by a clock that was set meanwhile: a machine that starts with a
/// wrong one, and is told better by the network, must not forget what it still has to keep.
pub(super) async fn prune(queue: Arc<dyn Queue>, keep: Keep, clock: Clock, stop: CancellationToken) {
    let before = |keep| SignedDuration::try_from(keep).ok().and_then(|keep| clock.now().checked_sub(keep).ok());
    loop {
        let last = Start::now(&clock);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(BETWEEN_PRUNINGS) => {}
        }
        if !last.is_steady(&clock, UNSTEADY) {
            info!("the clock was set within the last hour: nothing is forgotten by it yet");
            continue;
        }
        // What cannot be counted back is kept for ever.
        let (failed, history) = (before(keep.failed).unwrap_or_default(), before(keep.history).unwrap_or_default());
        match queue.prune(failed, history).await {
            Ok(0) => {}
            Ok(rows) => info!(rows, "forgot failed mail and history that was kept long enough"),
            Err(error) => error!("old mail could not be forgotten: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::State;
    use crate::queue::testing::{MemoryQueue, row};
    use std::sync::Mutex;
    use tokio::time::{Instant, sleep};

    /// It was the first thing after a start: fourteen days ahead were enough.
    #[tokio::test(start_paused = true)]
    async fn a_wrong_clock_at_the_start_forgets_nothing() {
        let queue = Arc::new(MemoryQueue::of([row(1, State::Failed)]));
        let received_at = queue.inner().messages[0].0.received_at;
        let days = |days: i64| SignedDuration::from_hours(24 * days);
        let at = Arc::new(Mutex::new(received_at + days(400)));
        let clock = Clock::Along { at: at.clone(), since: Instant::now() };
        let keep = Keep { failed: Duration::from_secs(14 * 24 * 3600), history: Duration::ZERO };
        let stop = CancellationToken::new();
        tokio::spawn(prune(queue.clone(), keep, clock, stop.clone()));
        sleep(Duration::from_secs(1800)).await;
        assert_eq!(queue.inner().pruned, [], "not at once");
        *at.lock().unwrap() = received_at;
        sleep(Duration::from_secs(1900)).await;
        assert_eq!(queue.inner().pruned, [], "not by a clock that was set");
        sleep(Duration::from_secs(3600)).await;
        let [before] = queue.inner().pruned[..] else { panic!("once an hour of a steady clock is over") };
        assert!(before < received_at, "{before}");
        stop.cancel();
    }
}
