//! `Gcra`: units are spaced evenly, with a small burst allowed (the generic cell rate algorithm).
//!
//! Pure. It guarantees nothing: `Window` enforces the limit. This is the part that slows down when a provider asks for
//! it.

use super::throttle::ThrottleFactor;
use super::window::Moment;
use std::time::Duration;

/// The part of a rate's units that may be used at once; at most `MOST_AT_ONCE`.
const BURST_PART: u32 = 10;
const MOST_AT_ONCE: u32 = 10;

#[derive(Debug)]
pub struct Gcra {
    interval: Duration,
    tolerance: Duration,
    /// When the next unit would be due if all were evenly spaced.
    next: Moment,
}

impl Gcra {
    pub fn new(units: u32, period: Duration) -> Self {
        let interval = period / units.max(1);
        let burst = (units / BURST_PART).clamp(1, MOST_AT_ONCE);
        Self { interval, tolerance: interval * (burst - 1), next: Moment::ZERO }
    }

    /// The same pace as far as it is used, for another rate.
    pub fn adjusted(&self, units: u32, period: Duration) -> Self {
        Self { next: self.next, ..Self::new(units, period) }
    }

    /// The earliest time. Any number of units may be used at once; later callers then wait longer.
    pub fn ready(&self) -> Moment {
        self.next.saturating_sub(self.tolerance)
    }

    /// How much earlier than evenly spaced a unit may be used.
    pub fn tolerance(&self) -> Duration {
        self.tolerance
    }

    /// How much time this many units take.
    pub fn span(&self, units: u64, share: ThrottleFactor) -> Duration {
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        share.stretched(self.interval).saturating_mul(units)
    }

    pub fn take(&mut self, units: u64, now: Moment, share: ThrottleFactor) {
        self.next = self.next.max(now) + self.span(units, share);
    }

    pub fn refund(&mut self, units: u64, share: ThrottleFactor) {
        self.next = self.next.saturating_sub(self.span(units, share));
    }
}
