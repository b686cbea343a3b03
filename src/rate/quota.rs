//! The part of a quota that survives a restart: a write-ahead reservation. Units are recorded as used before they are
//! used, a chunk at a time.
//!
//! Each row is a bucket of the window. All rows but the newest say how much was used; the newest says how much may be
//! used at most, so a process that ends in any way has never used more than is recorded. An orderly end adds an empty
//! row after the others, which makes the last one exact too. Rows are dated by the ledger's own clock, which cannot be
//! set, so setting a clock neither frees usage nor holds it for longer.

use super::window::{Moment, Window};
use async_trait::async_trait;
use std::fmt::Debug;
use std::time::Duration;

/// A limit is reserved in this many parts.
const CHUNKS: u64 = 200;
const LARGEST_CHUNK: u64 = 1_000;

/// By how much a transaction under way at the end of a process may have outlived its bucket.
pub const UNDER_WAY: Duration = Duration::from_secs(3600);

/// Units of one bucket, used or reserved, none of them after `at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaBucket {
    /// Increases from bucket to bucket.
    pub number: i64,
    /// By [`QuotaStore::now`].
    pub at: Duration,
    pub units: u64,
}

/// The storage of quotas. An error's text is for people.
#[async_trait]
pub trait QuotaStore: Send + Sync + Debug + 'static {
    /// Continues from process to process. It never jumps forward, and goes back by at most a few seconds, after a
    /// crash.
    fn now(&self) -> Duration;

    /// By number.
    async fn load(&self, quota: &str) -> Result<Vec<QuotaBucket>, String>;

    /// Each row replaces the one with its number, and rows below `oldest` are deleted; atomic, and durable when it
    /// returns.
    async fn write(&self, quota: &str, rows: Vec<QuotaBucket>, oldest: i64) -> Result<(), String>;
}

/// The recorded usage of one window.
#[derive(Debug, Clone)]
pub struct QuotaJournal {
    /// The newest row: units that are not in an older row must not exceed `bound`, nor be used after `until`.
    newest: i64,
    bound: u64,
    until: Moment,
}

/// Must be written before a unit can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaReservation {
    pub rows: Vec<QuotaBucket>,
    pub oldest: i64,
    newest: i64,
    bound: u64,
    until: Moment,
}

/// The same instant by two clocks.
#[derive(Debug, Clone, Copy)]
pub struct TwoClocks {
    pub moment: Moment,
    /// By the ledger's clock.
    pub kept: Duration,
}

impl TwoClocks {
    /// So much later.
    pub fn ahead(self, time: Duration) -> Self {
        Self { moment: self.moment.saturating_add(time), kept: self.kept.saturating_add(time) }
    }
}

impl QuotaJournal {
    /// Nothing is recorded yet.
    pub fn new() -> Self {
        Self { newest: i64::MIN, bound: 0, until: Moment::ZERO }
    }

    /// `None`: what was used and this many units more are already reserved.
    pub fn reserve(&self, units: u64, window: &mut Window, now: TwoClocks) -> Option<QuotaReservation> {
        let covered = now.moment < self.until && self.open(window) + units <= self.bound;
        (!covered).then(|| {
            let chunk = (window.limit() / CHUNKS).min(LARGEST_CHUNK).max(units);
            let part = window.part();
            let in_flight = window.in_flight();
            let bucket = *window.fill(now.moment);
            let until = bucket.began + part;
            let bound = bucket.units + in_flight + chunk;
            let mut rows = self.exact(window, now, bucket.number);
            rows.push(QuotaBucket { number: bucket.number, at: to_kept(until, now), units: bound });
            QuotaReservation { rows, oldest: window.oldest(), newest: bucket.number, bound, until }
        })
    }

    pub fn mark_written(&mut self, reservation: &QuotaReservation) {
        self.newest = reservation.newest;
        self.bound = reservation.bound;
        self.until = reservation.until;
    }

    /// The exact usage, for the end of the process and its beginning. Units still under way count as used now.
    pub fn closing(&self, window: &mut Window, now: TwoClocks) -> QuotaReservation {
        let in_flight = window.in_flight();
        let newest = window.skip();
        let mut rows = self.exact(window, now, newest);
        rows.push(QuotaBucket { number: newest, at: now.kept, units: in_flight });
        QuotaReservation { rows, oldest: window.oldest(), newest, bound: 0, until: now.moment }
    }

    /// Units that are only in the newest row.
    fn open(&self, window: &Window) -> u64 {
        window.in_flight() + window.buckets_from(self.newest).map(|bucket| bucket.units).sum::<u64>()
    }

    /// Rows of buckets that are complete but whose exact usage is not recorded yet.
    fn exact(&self, window: &Window, now: TwoClocks, current: i64) -> Vec<QuotaBucket> {
        let done = window.buckets_from(self.newest).filter(|bucket| bucket.number != current);
        done.map(|bucket| QuotaBucket { number: bucket.number, at: to_kept(bucket.last, now), units: bucket.units })
            .collect()
    }
}

/// What one quota of an account has recorded.
#[derive(Debug, Clone)]
pub struct QuotaRecord {
    pub period: Duration,
    pub rows: Vec<QuotaBucket>,
}

impl QuotaRecord {
    fn newest(&self) -> Option<&QuotaBucket> {
        self.rows.iter().max_by_key(|row| row.number)
    }

    /// Usage with the time after which none of it happened. Rows in the future (reserved ahead) count as used now.
    fn used(&self, now: TwoClocks, is_wanted: impl Fn(&QuotaBucket) -> bool) -> Vec<(Moment, u64)> {
        let newest = self.newest().map(|row| row.number);
        let dated = |row: &QuotaBucket| {
            let slack = if Some(row.number) == newest { UNDER_WAY } else { Duration::ZERO };
            let age = now.kept.saturating_sub(row.at).saturating_sub(slack);
            (now.moment.saturating_sub(age), row.units)
        };
        self.rows.iter().filter(|row| row.units > 0 && is_wanted(row)).map(dated).collect()
    }

    /// For a quota that is no longer in use: it records nothing from now on. Returns what to write.
    pub fn end(&mut self, now: TwoClocks) -> Option<QuotaReservation> {
        let last = self.rows.iter_mut().max_by_key(|row| row.number).filter(|row| row.units > 0)?;
        last.at = last.at.max(now.kept.min(last.at.saturating_add(UNDER_WAY)));
        let newest = last.number.saturating_add(1);
        let rows = vec![*last, QuotaBucket { number: newest, at: now.kept, units: 0 }];
        self.rows.extend(rows.last());
        Some(QuotaReservation { rows, oldest: i64::MIN, newest, bound: 0, until: now.moment })
    }

    /// Whether all of `row`, which belongs to a quota with another period, was used after this one stopped recording.
    fn ended_before(&self, row: &QuotaBucket, period: Duration) -> bool {
        let Some(newest) = self.newest() else { return true };
        // A row without units marks the end of the record. Otherwise the process was killed, and `row` may be from the
        // same time unless its bucket began later.
        let length = if newest.units == 0 { Duration::ZERO } else { Window::part_of(period) };
        row.at > newest.at.saturating_add(length)
    }
}

/// Loads recorded usage into an empty window of this period: from its own quota, and since then from those of other
/// periods, which may have replaced it for a while.
pub fn remember(window: &mut Window, period: Duration, records: &[QuotaRecord], now: TwoClocks) {
    let none = QuotaRecord { period, rows: Vec::new() };
    let own = records.iter().find(|record| record.period == period).unwrap_or(&none);
    let others = records.iter().filter(|record| record.period != period);
    let mut used = own.used(now, |_| true);
    used.extend(others.flat_map(|other| other.used(now, |row| own.ended_before(row, other.period))));
    used.sort_unstable();
    window.number_from(own.newest().map_or(1, |row| row.number.saturating_add(1)));
    used.into_iter().for_each(|(last, units)| window.remember(units, last));
}

/// A quota's name within its account, for example "86400s".
pub fn name(period: Duration) -> String {
    format!("{}s", period.as_secs())
}

fn to_kept(moment: Moment, now: TwoClocks) -> Duration {
    now.kept.saturating_add(moment).saturating_sub(now.moment)
}
