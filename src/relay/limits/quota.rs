//! What survives a restart of a quota: a write-ahead reservation. Units are recorded as used before they are taken, a
//! chunk at a time.
//!
//! A row stands for a bucket of the window. All but the newest say what was used; the newest says what may be used at most,
//! so that a process that ends in any way at all has never used more than stands there. When it ends in order, an empty row behind
//! the others makes the last one exact too. Rows are dated by the ledger's own clock, which nobody can set: none that is set frees
//! what was used, or holds it back for longer.

use super::window::{Moment, Window};
use async_trait::async_trait;
use std::fmt::Debug;
use std::time::Duration;

/// Of a limit, the part that is put down ahead.
const CHUNKS: u64 = 200;
const LARGEST_CHUNK: u64 = 1_000;

/// By how much a transaction that was under way at the end of a process may have outlived its bucket.
pub(super) const UNDER_WAY: Duration = Duration::from_secs(3600);

/// Units of one bucket, used or put down to be used, none of them after `at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaBucket {
    /// Grows from bucket to bucket.
    pub number: i64,
    /// By [`QuotaStore::now`].
    pub at: Duration,
    pub units: u64,
}

/// Where it is kept. An error's text is for people.
#[async_trait]
pub trait QuotaStore: Send + Sync + Debug + 'static {
    /// Goes on from process to process, as time does; it never jumps, and goes back by no more than some seconds, after a crash.
    fn now(&self) -> Duration;

    /// By number.
    async fn load(&self, quota: &str) -> Result<Vec<QuotaBucket>, String>;

    /// Each row replaces the one of its number, and those below `oldest` go; all of it or nothing, durable when it returns.
    async fn write(&self, quota: &str, rows: Vec<QuotaBucket>, oldest: i64) -> Result<(), String>;
}

/// What is recorded for one window.
#[derive(Debug)]
pub(super) struct QuotaJournal {
    /// The newest row: units that are not in an older row must not exceed `bound`, nor be taken after `until`.
    newest: i64,
    bound: u64,
    until: Moment,
}

/// To be written before a unit can be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QuotaReservation {
    pub rows: Vec<QuotaBucket>,
    pub oldest: i64,
    newest: i64,
    bound: u64,
    until: Moment,
}

/// The same instant by two clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct TwoClocks {
    pub moment: Moment,
    /// The ledger's.
    pub kept: Duration,
}

impl QuotaJournal {
    /// Nothing is recorded yet.
    pub(super) fn new() -> Self {
        Self { newest: i64::MIN, bound: 0, until: Moment::ZERO }
    }

    /// `None`: so many units are covered.
    pub(super) fn reserve(&self, units: u64, window: &mut Window, now: TwoClocks) -> Option<QuotaReservation> {
        let covered = now.moment < self.until && self.open(window) + units <= self.bound;
        (!covered).then(|| {
            let chunk = (window.limit() / CHUNKS).clamp(1, LARGEST_CHUNK).max(units);
            let (part, in_flight) = (window.part(), window.in_flight());
            let bucket = *window.fill(now.moment);
            let (until, bound) = (bucket.began + part, bucket.units + in_flight + chunk);
            let mut rows = self.exact(window, now, bucket.number);
            rows.push(QuotaBucket { number: bucket.number, at: to_kept(until, now), units: bound });
            QuotaReservation { rows, oldest: window.oldest(), newest: bucket.number, bound, until }
        })
    }

    pub(super) fn mark_written(&mut self, reservation: &QuotaReservation) {
        (self.newest, self.bound, self.until) = (reservation.newest, reservation.bound, reservation.until);
    }

    /// Everything as it was used, at the end of the process and at its beginning. What is still under way counts as used now.
    pub(super) fn closing(&self, window: &mut Window, now: TwoClocks) -> QuotaReservation {
        let in_flight = window.in_flight();
        let newest = window.skip();
        let mut rows = self.exact(window, now, newest);
        rows.push(QuotaBucket { number: newest, at: now.kept, units: in_flight });
        QuotaReservation { rows, oldest: window.oldest(), newest, bound: 0, until: now.moment }
    }

    /// Units that are in no row but the newest.
    fn open(&self, window: &Window) -> u64 {
        window.in_flight() + window.buckets_from(self.newest).map(|bucket| bucket.units).sum::<u64>()
    }

    /// Rows of the buckets that are no longer filled and not yet put down as they were used.
    fn exact(&self, window: &Window, now: TwoClocks, current: i64) -> Vec<QuotaBucket> {
        let done = window.buckets_from(self.newest).filter(|bucket| bucket.number != current);
        done.map(|bucket| QuotaBucket { number: bucket.number, at: to_kept(bucket.last, now), units: bucket.units })
            .collect()
    }
}

/// Puts what was loaded into an empty window. What lies in the future (put down ahead) counts as used now.
pub(super) fn remember(window: &mut Window, rows: &[QuotaBucket], now: TwoClocks) {
    let newest = rows.iter().map(|row| row.number).max().unwrap_or_default();
    let mut used: Vec<(Moment, u64)> = Vec::new();
    for row in rows {
        let slack = if row.number == newest { UNDER_WAY } else { Duration::ZERO };
        let age = now.kept.saturating_sub(row.at).saturating_sub(slack);
        if row.units > 0 {
            used.push((now.moment.saturating_sub(age), row.units));
        }
    }
    used.sort_unstable();
    window.number_from(newest.saturating_add(1));
    used.into_iter().for_each(|(last, units)| window.remember(units, last));
}

fn to_kept(moment: Moment, now: TwoClocks) -> Duration {
    now.kept.saturating_add(moment).saturating_sub(now.moment)
}
