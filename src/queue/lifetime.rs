//! `Lifetime`: the clock by which mail ages. It counts the time that gateways have run with a queue, measured by a
//! monotonic clock, and as much of each stop as can be trusted. Setting the wall clock therefore makes no mail older or
//! younger.
//!
//! Pure over a [`Clock`]. A backend stores a [`Record`] with its commits and passes it in at the next start. The kernel
//! knows how long a stop was, unless the machine was rebooted meanwhile; then the wall clock decides, within bounds.

use crate::observe::Clock;
use crate::observe::clock::plus;
use crate::observe::clock::{Boot, EARLIEST};
use crate::text::roughly;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use std::time::{Duration, Instant};
use tracing::warn;

/// The most that one stop counts: more than a day, so that a day's quota is free again after one.
pub const LONGEST_STOP: Duration = Duration::from_secs(30 * 3600);
/// If the wall clock reports a longer stop than this, it is not believed at all.
pub const IMPLAUSIBLE_STOP: Duration = Duration::from_secs(30 * 24 * 3600);
/// The value at which a new queue's clock starts, so that there is a time before it.
pub const BEGINNING: Duration = Duration::from_secs(30 * 24 * 3600);
/// Interval between two records. After a crash and a reboot, at most this much is counted by the wall clock.
const BETWEEN_RECORDS: Duration = Duration::from_secs(10);
/// A wall clock that is further behind than this was set back, or was ahead before.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(60);

/// What a queue stores of its clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub lived: Duration,
    /// The wall-clock time of the record; `None`: no gateway has run with this queue yet.
    pub at: Option<Timestamp>,
    /// The latest time that a wall clock has shown, advanced by the time since.
    pub latest: Option<Timestamp>,
    pub boot: Option<Boot>,
}

impl Default for Record {
    fn default() -> Self {
        Self { lived: BEGINNING, at: None, latest: None, boot: None }
    }
}

#[derive(Debug)]
pub struct Lifetime {
    clock: Clock,
    began: Instant,
    /// The lifetime at `began`.
    lived: Mutex<Duration>,
    latest: Timestamp,
    /// When a record was last stored; `None`: not since the start.
    recorded: Mutex<Option<Instant>>,
}

impl Lifetime {
    /// `expire`: from the schedule. A stop known only from the wall clock counts for at most a quarter of it.
    pub fn resume(record: &Record, clock: Clock, expire: Duration) -> Self {
        let began = clock.instant();
        let now = clock.now();
        if let Some(doubt) = doubt(record, now) {
            warn!("{doubt}");
        }
        let stop = stop_since(record, now, clock.boot().as_ref(), expire);
        let latest = record.latest.unwrap_or(now).max(now);
        Self { began, lived: Mutex::new(record.lived.saturating_add(stop)), latest, clock, recorded: Mutex::default() }
    }

    /// Time since the queue's beginning. Never goes back, and never jumps by itself.
    pub fn now(&self) -> Duration {
        self.lived.lock().saturating_add(self.elapsed())
    }

    /// For a queue that several gateways share: another one has counted further.
    pub fn catch_up(&self, lived: Duration) {
        let behind = lived.saturating_sub(self.now());
        *self.lived.lock() += behind;
    }

    /// A message of this age or older dates from this time or before.
    pub fn before(&self, age: Duration) -> Duration {
        self.now().saturating_sub(age)
    }

    pub fn age(&self, since: Duration) -> Duration {
        self.now().saturating_sub(since)
    }

    /// The record to store with the current commit: due at the first commit after the start, then every few seconds.
    pub fn record_if_due(&self) -> Option<Record> {
        let now = self.clock.instant();
        let mut recorded = self.recorded.lock();
        if recorded.is_some_and(|last| now.saturating_duration_since(last) < BETWEEN_RECORDS) {
            return None;
        }
        *recorded = Some(now);
        drop(recorded);
        Some(self.record())
    }

    pub fn record(&self) -> Record {
        let at = self.clock.now();
        let latest = plus(self.latest, self.elapsed()).max(at);
        Record { lived: self.now(), at: Some(at), latest: Some(latest), boot: self.clock.boot() }
    }

    fn elapsed(&self) -> Duration {
        self.clock.instant().saturating_duration_since(self.began)
    }
}

/// How long no gateway ran with the queue, as far as that can be trusted.
fn stop_since(record: &Record, now: Timestamp, boot: Option<&Boot>, expire: Duration) -> Duration {
    if let (Some(then), Some(boot)) = (&record.boot, boot)
        && then.id == boot.id
    {
        return boot.uptime.saturating_sub(then.uptime).min(LONGEST_STOP);
    }
    // Counted from the latest time ever seen, so that a clock that is ahead at every start ages mail once, not each
    // time.
    let stop = record.latest.map_or(Duration::ZERO, |latest| positive(now.duration_since(latest)));
    if stop > IMPLAUSIBLE_STOP { Duration::ZERO } else { stop.min(LONGEST_STOP).min(expire / 4) }
}

fn positive(duration: SignedDuration) -> Duration {
    Duration::try_from(duration).unwrap_or_default()
}

/// A warning about the wall clock, given once at a start. It does not affect mail, only what is dated by that clock.
fn doubt(record: &Record, now: Timestamp) -> Option<String> {
    let what = if now < EARLIEST {
        format!("the clock says {now}, and this program is younger: it is wrong")
    } else {
        let last = record.at?;
        let since = now.duration_since(last);
        if since < -TOLERANCE {
            let behind = roughly(positive(-since));
            format!(
                "the clock is {behind} behind the last use of this queue ({last}): it is wrong now, or it was wrong then"
            )
        } else if positive(since) > IMPLAUSIBLE_STOP {
            let ago = roughly(positive(since));
            format!("by the clock this queue was last used {ago} ago ({last}): if it was not, the clock is wrong")
        } else {
            return None;
        }
    };
    Some(format!(
        "{what}. Mail does not age by it, but the dates that are written (Date, DKIM signatures, the log) and the validity of \
         certificates go by it: set it, if need be"
    ))
}

#[cfg(test)]
mod tests;
