//! `Limiter`: all rates of an account together, over time that is passed in. Pure bookkeeping: no waiting, no storage.
//!
//! A transaction's load is counted in all rates or in none; each counts messages or recipients.

use super::gcra::Gcra;
use super::load::{Counting, Counts, Load};
use super::quota::{self, QuotaJournal, QuotaRecord, QuotaReservation, TwoClocks};
use super::shared::SharedRate;
use super::throttle::ThrottleFactor;
use super::units::Rate;
use super::window::{Moment, Window, WindowFull};
use std::time::Duration;

#[derive(Debug)]
pub struct Limiter {
    limits: Vec<Limit>,
}

#[derive(Debug)]
struct Limit {
    rate: Rate,
    counts: Counts,
    window: Window,
    kind: LimitKind,
}

/// A rate's pacing or quota, besides its window.
#[derive(Debug)]
enum LimitKind {
    Short(Gcra),
    Quota(QuotaJournal),
}

/// Whether this load is allowed now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitCheck {
    Free,
    /// Not before this time.
    Until(Moment),
    /// Not before a transaction has ended.
    InFlight,
    /// A quota is used up.
    UsedUp {
        rate: Rate,
        until: Moment,
    },
    /// Allowed once this is written.
    Write {
        quota: String,
        reservation: QuotaReservation,
    },
}

/// How many units of a quota are used within its period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaUsage {
    pub rate: Rate,
    pub used: u64,
}

/// The loads of one gateway's transactions, for a ledger that counts for several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RatePosition {
    pub wanted: Load,
    pub in_flight: Load,
    /// Of transactions that were not begun.
    pub returned: Load,
}

/// How long to wait if only transactions under way keep a quota from its limit.
const MOMENT: Duration = Duration::from_secs(1);

impl Limiter {
    pub fn new(rates: &[Rate], counting: Counting) -> Self {
        let limit = |&rate: &Rate| {
            let kind = if rate.is_short() {
                LimitKind::Short(Gcra::new(rate.units(), rate.period()))
            } else {
                LimitKind::Quota(QuotaJournal::new())
            };
            Limit { rate, counts: counting.of(rate), window: Window::new(rate.units(), rate.period()), kind }
        };
        Self { limits: rates.iter().map(limit).collect() }
    }

    /// Other rates for the same account, with the usage so far. What has begun under the former ones ends here. `records`: the
    /// stored usage of all quotas.
    pub fn replace(&mut self, rates: &[Rate], counting: Counting, records: &[QuotaRecord], now: TwoClocks) {
        let former = std::mem::replace(self, Self::new(rates, counting));
        for limit in &mut self.limits {
            let of_same_kind = || former.limits.iter().filter(|other| other.counts == limit.counts);
            let (units, period) = (limit.rate.units(), limit.rate.period());
            if let Some(same) = of_same_kind().find(|other| other.rate.period() == period) {
                limit.window = same.window.clone();
                limit.window.set_limit(units);
                limit.kind = match &same.kind {
                    LimitKind::Short(gcra) => LimitKind::Short(gcra.adjusted(units, period)),
                    LimitKind::Quota(journal) => LimitKind::Quota(journal.clone()),
                };
                continue;
            }
            // The shortest that says enough, or the one that says most.
            let longer = of_same_kind().filter(|other| other.rate.period() > period);
            let nearest = longer.min_by_key(|other| other.rate.period());
            let nearest = nearest.or_else(|| of_same_kind().max_by_key(|other| other.rate.period()));
            if !limit.rate.is_short() {
                quota::remember(&mut limit.window, period, records, now);
            } else if let Some(nearest) = nearest {
                nearest.window.buckets_from(i64::MIN).for_each(|used| limit.window.remember(used.units, used.last));
            }
            limit.window.take(nearest.map_or(0, |nearest| nearest.window.in_flight()));
        }
    }

    /// The most recipients that one transaction can have; `None` if nothing counts them.
    pub fn most_recipients(&self) -> Option<u64> {
        let counting = self.limits.iter().filter(|limit| limit.counts == Counts::Recipients);
        counting.map(|limit| limit.window.limit()).min()
    }

    pub fn check(&mut self, load: Load, now: TwoClocks) -> LimitCheck {
        let mut until = Moment::ZERO;
        let mut in_flight = false;
        for Limit { rate, counts, window, kind } in &mut self.limits {
            let full = window.check(load.units(*counts), now.moment).err();
            match (kind, full) {
                (LimitKind::Short(gcra), full) => {
                    until = until.max(gcra.ready());
                    match full {
                        Some(WindowFull::Until(moment)) => until = until.max(moment),
                        Some(WindowFull::InFlight) => in_flight = true,
                        None => {}
                    }
                }
                (LimitKind::Quota(_), Some(WindowFull::Until(until))) => {
                    return LimitCheck::UsedUp { rate: *rate, until };
                }
                (LimitKind::Quota(_), Some(WindowFull::InFlight)) => {
                    return LimitCheck::UsedUp { rate: *rate, until: now.moment + MOMENT };
                }
                (LimitKind::Quota(_), None) => {}
            }
        }
        match (in_flight, until > now.moment) {
            (_, true) => LimitCheck::Until(until),
            (true, false) => LimitCheck::InFlight,
            (false, false) => self.unwritten(load, now).unwrap_or(LimitCheck::Free),
        }
    }

    fn unwritten(&mut self, load: Load, now: TwoClocks) -> Option<LimitCheck> {
        self.limits.iter_mut().find_map(|limit| match &limit.kind {
            LimitKind::Quota(journal) => {
                let reservation = journal.reserve(load.units(limit.counts), &mut limit.window, now)?;
                Some(LimitCheck::Write { quota: quota::name(limit.rate.period()), reservation })
            }
            LimitKind::Short(_) => None,
        })
    }

    /// When the last of the load would be allowed if all of it were waiting now.
    pub fn forecast(&self, load: Load, now: Moment, share: ThrottleFactor) -> Moment {
        let ready = |limit: &Limit| match &limit.kind {
            LimitKind::Short(gcra) => {
                gcra.ready().max(now) + gcra.span(load.units(limit.counts).saturating_sub(1), share)
            }
            LimitKind::Quota(_) => now,
        };
        self.limits.iter().map(ready).max().unwrap_or(now)
    }

    /// Call this after [`LimitCheck::Free`].
    pub fn take(&mut self, load: Load, now: Moment, share: ThrottleFactor) {
        for limit in &mut self.limits {
            let units = load.units(limit.counts);
            limit.window.take(units);
            if let LimitKind::Short(gcra) = &mut limit.kind {
                gcra.take(units, now, share);
            }
        }
    }

    /// The transaction was not begun.
    pub fn refund(&mut self, load: Load, share: ThrottleFactor) {
        for limit in &mut self.limits {
            let units = load.units(limit.counts);
            limit.window.refund(units);
            if let LimitKind::Short(gcra) = &mut limit.kind {
                gcra.refund(units, share);
            }
        }
    }

    /// The transaction is over, however it ended.
    pub fn end(&mut self, load: Load, now: Moment) {
        self.limits.iter_mut().for_each(|limit| limit.window.end(load.units(limit.counts), now));
    }

    pub fn mark_written(&mut self, quota: &str, reservation: &QuotaReservation) {
        for limit in self.limits.iter_mut().filter(|limit| quota::name(limit.rate.period()) == quota) {
            if let LimitKind::Quota(journal) = &mut limit.kind {
                journal.mark_written(reservation);
            }
        }
    }

    /// The periods of usage that is stored across restarts.
    pub fn quota_periods(&self) -> Vec<Duration> {
        self.limits.iter().map(|limit| limit.rate).filter(|rate| !rate.is_short()).map(Rate::period).collect()
    }

    /// How much of each quota is used, for people.
    pub fn quota_usage(&mut self, now: Moment) -> Vec<QuotaUsage> {
        let quotas = self.limits.iter_mut().filter(|limit| !limit.rate.is_short());
        quotas.map(|limit| QuotaUsage { rate: limit.rate, used: limit.window.used(now) }).collect()
    }

    /// Loads the recorded usage of the account's current and former quotas. A changed limit or period keeps the usage.
    pub fn remember(&mut self, records: &[QuotaRecord], now: TwoClocks) {
        for limit in self.limits.iter_mut().filter(|limit| !limit.rate.is_short()) {
            quota::remember(&mut limit.window, limit.rate.period(), records, now);
        }
    }

    /// The account's position for a ledger that counts for several gateways; this limiter then counts nothing itself.
    /// `share` stretches the pace.
    pub fn position(&self, position: RatePosition, share: ThrottleFactor) -> Vec<SharedRate> {
        let RatePosition { wanted, in_flight, returned } = position;
        let shared = |limit: &Limit| {
            let units = wanted.units(limit.counts);
            let back = returned.units(limit.counts);
            let (span, returned_span, tolerance) = match &limit.kind {
                LimitKind::Short(gcra) => (gcra.span(units, share), gcra.span(back, share), gcra.tolerance()),
                LimitKind::Quota(_) => Default::default(),
            };
            SharedRate {
                period: limit.rate.period(),
                limit: Some(limit.window.limit()),
                is_quota: !limit.rate.is_short(),
                units,
                in_flight: in_flight.units(limit.counts),
                returned: back,
                span,
                returned_span,
                tolerance,
            }
        };
        let mut rates: Vec<SharedRate> = self.limits.iter().map(shared).collect();
        // A quota may be given another period later, and what was used still counts.
        if let Some(quota) = rates.iter().copied().find(|rate| rate.is_quota) {
            let others = Rate::QUOTA_PERIODS.into_iter().filter(|period| !self.quota_periods().contains(period));
            rates.extend(others.map(|period| SharedRate { period, limit: None, ..quota }));
        }
        rates
    }

    /// The rate at this place in [`Limiter::position`].
    pub fn rate(&self, place: usize) -> Option<Rate> {
        self.limits.get(place).map(|limit| limit.rate)
    }

    /// How long the last of the load would wait at the account's pace after the first.
    pub fn span_after_first(&self, load: Load, share: ThrottleFactor) -> Duration {
        let span = |limit: &Limit| match &limit.kind {
            LimitKind::Short(gcra) => gcra.span(load.units(limit.counts).saturating_sub(1), share),
            LimitKind::Quota(_) => Duration::ZERO,
        };
        self.limits.iter().map(span).max().unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }

    /// The rows to write at the start and at the end.
    pub fn closing(&mut self, now: TwoClocks) -> Vec<(String, QuotaReservation)> {
        let quotas = self.limits.iter_mut().filter_map(|limit| match &limit.kind {
            LimitKind::Quota(journal) => {
                Some((quota::name(limit.rate.period()), journal.closing(&mut limit.window, now)))
            }
            LimitKind::Short(_) => None,
        });
        quotas.collect()
    }
}

#[cfg(test)]
mod tests;
