//! `Lifetime`: the clock that mail ages by. It counts the time that gateways have run with a queue, by a clock that nobody can
//! set, and of a stop as much as can be trusted; so nobody makes mail older by setting the wall clock, or younger.
//!
//! Pure over a [`Clock`]. A backend keeps a [`Record`] with its commits and hands it over at the next start. How long a stop was
//! the kernel knows, unless the machine was started again meanwhile; then the wall clock is asked, and believed within bounds.

use crate::observe::Clock;
use crate::observe::clock::plus;
use crate::observe::clock::{Boot, EARLIEST};
use crate::text::roughly;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use std::time::{Duration, Instant};
use tracing::warn;

/// What a stop counts at most: more than a day, so that a day's quota is free again after one.
pub const LONGEST_STOP: Duration = Duration::from_secs(30 * 3600);
/// A wall clock that tells of a longer stop is not believed at all.
pub const IMPLAUSIBLE_STOP: Duration = Duration::from_secs(30 * 24 * 3600);
/// What a new queue's clock begins with, so that there is a time before it.
pub const BEGINNING: Duration = Duration::from_secs(30 * 24 * 3600);
/// Between two records; after a crash on another boot so much at most is counted by the wall clock.
const BETWEEN_RECORDS: Duration = Duration::from_secs(10);
/// A wall clock that is further behind was set back, or was ahead before.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(60);

/// What a queue keeps of its clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub lived: Duration,
    /// By the wall clock; `None`: no gateway has run with it yet.
    pub at: Option<Timestamp>,
    /// The latest that a wall clock has said, gone on with the time since.
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
    /// Then.
    lived: Duration,
    latest: Timestamp,
    /// `None`: not since the start.
    recorded: Mutex<Option<Instant>>,
}

impl Lifetime {
    /// `expire`: of the schedule; a stop that only the wall clock tells of counts for a quarter of it at most.
    pub fn resume(record: &Record, clock: Clock, expire: Duration) -> Self {
        let (began, now) = (clock.instant(), clock.now());
        if let Some(doubt) = doubt(record, now) {
            warn!("{doubt}");
        }
        let stop = stop_since(record, now, clock.boot().as_ref(), expire);
        let latest = record.latest.unwrap_or(now).max(now);
        Self { began, lived: record.lived.saturating_add(stop), latest, clock, recorded: Mutex::default() }
    }

    /// Since the queue's beginning. Never goes back, and never jumps.
    pub fn now(&self) -> Duration {
        self.lived.saturating_add(self.elapsed())
    }

    /// What has this age, or is older, dates from then or before.
    pub fn before(&self, age: Duration) -> Duration {
        self.now().saturating_sub(age)
    }

    pub fn age(&self, since: Duration) -> Duration {
        self.now().saturating_sub(since)
    }

    /// To be kept with what is committed now, if it is the first since the start, or the last one is some seconds old.
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

/// How long nobody ran with the queue, as far as that can be trusted.
fn stop_since(record: &Record, now: Timestamp, boot: Option<&Boot>, expire: Duration) -> Duration {
    if let (Some(then), Some(boot)) = (&record.boot, boot)
        && then.id == boot.id
    {
        return boot.uptime.saturating_sub(then.uptime).min(LONGEST_STOP);
    }
    // From the latest time that was ever said: a clock that is ahead at every start makes mail older once, not each time.
    let stop = record.latest.map_or(Duration::ZERO, |latest| positive(now.duration_since(latest)));
    if stop > IMPLAUSIBLE_STOP { Duration::ZERO } else { stop.min(LONGEST_STOP).min(expire / 4) }
}

fn positive(duration: SignedDuration) -> Duration {
    Duration::try_from(duration).unwrap_or_default()
}

/// What is to be said of a wall clock at a start, once. It costs no mail; what is dated by it is another matter.
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
