//! `Window`: never more than a number of units in any period of a given length, by the provider's own count.
//!
//! Pure; a moment is the time since an origin that the caller chose. It is not known when a provider counts a
//! transaction, only that it does so between its first command and its last reply. A unit therefore counts from before
//! its transaction until one window length after its end: of two units that use the same slot of the limit, the second
//! begins a whole window after the first has ended.

use std::collections::VecDeque;
use std::time::Duration;

/// Units that ended within one such part of the window are stored as one number, and released with the last of them.
const PARTS: u32 = 100;

/// Time since an origin that the caller chose.
pub type Moment = Duration;

#[derive(Debug, Clone)]
pub struct Window {
    limit: u64,
    length: Duration,
    /// Used, but the transaction is not over yet.
    in_flight: u64,
    /// The sum of all buckets.
    ended: u64,
    /// Oldest first.
    buckets: VecDeque<Bucket>,
    /// The number of the next bucket.
    next_number: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Increases from bucket to bucket.
    pub number: i64,
    pub began: Moment,
    /// When the last of its units ended.
    pub last: Moment,
    pub units: u64,
}

/// Why a unit is not allowed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowFull {
    /// Not before this time, even if everything in flight ended well.
    Until(Moment),
    /// Only transactions in flight prevent it.
    InFlight,
}

impl Window {
    pub fn new(limit: u32, length: Duration) -> Self {
        let limit = u64::from(limit.max(1));
        Self { limit, length, in_flight: 0, ended: 0, buckets: VecDeque::new(), next_number: 1 }
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Units that count now, those of transactions under way among them.
    pub fn used(&mut self, now: Moment) -> u64 {
        self.release(now);
        self.in_flight + self.ended
    }

    /// The usage stays.
    pub fn set_limit(&mut self, limit: u32) {
        self.limit = u64::from(limit.max(1));
    }

    /// For how long one bucket is filled.
    pub fn part(&self) -> Duration {
        Self::part_of(self.length)
    }

    /// The same of any window of this length.
    pub fn part_of(length: Duration) -> Duration {
        length / PARTS
    }

    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// The buckets from this number on, oldest first.
    pub fn buckets_from(&self, number: i64) -> impl Iterator<Item = &Bucket> {
        self.buckets.iter().filter(move |bucket| bucket.number >= number)
    }

    /// The oldest number that still counts.
    pub fn oldest(&self) -> i64 {
        self.buckets.front().map_or(self.next_number, |bucket| bucket.number)
    }

    /// More units than the limit count as the limit; otherwise they would never be allowed.
    pub fn check(&mut self, units: u64, now: Moment) -> Result<(), WindowFull> {
        self.release(now);
        let mut over = (self.in_flight + self.ended + units.min(self.limit)).saturating_sub(self.limit);
        if over == 0 {
            return Ok(());
        }
        for bucket in &self.buckets {
            over = over.saturating_sub(bucket.units);
            if over == 0 {
                return Err(WindowFull::Until(bucket.last + self.length));
            }
        }
        Err(WindowFull::InFlight)
    }

    pub fn take(&mut self, units: u64) {
        self.in_flight += units;
    }

    /// The transaction was not begun.
    pub fn refund(&mut self, units: u64) {
        self.in_flight = self.in_flight.saturating_sub(units);
    }

    /// The transaction is over.
    pub fn end(&mut self, units: u64, now: Moment) {
        self.in_flight = self.in_flight.saturating_sub(units);
        self.ended += units;
        let bucket = self.fill(now);
        bucket.units += units;
        bucket.last = now.max(bucket.last);
    }

    /// Units that ended at this time, or in its part of the window, do not count after all.
    pub fn take_back(&mut self, units: u64, at: Moment) {
        let holds = |bucket: &&mut Bucket| bucket.began <= at && bucket.last >= at;
        if let Some(bucket) = self.buckets.iter_mut().rev().find(holds) {
            let units = units.min(bucket.units);
            bucket.units -= units;
            self.ended -= units;
        }
    }

    /// Adds usage of an earlier process, oldest first.
    pub fn remember(&mut self, units: u64, last: Moment) {
        self.ended += units;
        self.begin(last).units = units;
    }

    /// The bucket that fills now.
    pub fn fill(&mut self, now: Moment) -> &mut Bucket {
        let part = self.part();
        // A skipped number ends the bucket before it.
        let newest = self.next_number - 1;
        let fills = self.buckets.back().is_some_and(|bucket| bucket.number == newest && now < bucket.began + part);
        if !fills {
            return self.begin(now);
        }
        let last = self.buckets.len() - 1;
        &mut self.buckets[last]
    }

    /// A number that no bucket has; the next bucket gets a higher one.
    pub fn skip(&mut self) -> i64 {
        self.next_number += 1;
        self.next_number - 1
    }

    fn begin(&mut self, at: Moment) -> &mut Bucket {
        self.buckets.push_back(Bucket { number: self.next_number, began: at, last: at, units: 0 });
        self.next_number += 1;
        let last = self.buckets.len() - 1;
        &mut self.buckets[last]
    }

    fn release(&mut self, now: Moment) {
        while let Some(oldest) = self.buckets.front().filter(|bucket| bucket.last + self.length <= now) {
            self.ended -= oldest.units;
            self.buckets.pop_front();
        }
    }

    /// Numbers continue after this one.
    pub fn number_from(&mut self, next: i64) {
        self.next_number = next;
    }
}
