//! `Allowance`: the rates of one user or listener together, over time that is passed in. Pure: no waiting, no storage.
//!
//! Every recipient counts. What must wait is spread out: each recipient gets a moment at which no window of a rate's
//! length holds more than the rate, and none closer to the one before than the rate's units are on average.

use super::quota::{self, QuotaJournal, QuotaRecord, QuotaReservation, TwoClocks};
use super::units::Rate;
use super::window::{Moment, Window, WindowFull};
use std::time::Duration;

#[derive(Debug)]
pub struct Allowance {
    limits: Vec<AllowedRate>,
    /// A message to more recipients than a rate has units passes whole, and those after it wait for all of them.
    passes_whole: bool,
    /// The latest moment that was given to a recipient; later ones come after it.
    last: Moment,
}

#[derive(Debug)]
struct AllowedRate {
    rate: Rate,
    window: Window,
    /// For rates whose usage is stored.
    journal: Option<QuotaJournal>,
}

/// When more recipients are allowed, if it is not now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowedLater {
    pub at: Moment,
    /// The rate that decides.
    pub rate: Rate,
}

/// Rows of the future are loaded by a clock that is so much ahead: longer than any mail waits.
const AHEAD: Duration = Duration::from_secs(400 * 24 * 3600);

impl Allowance {
    /// `passes_whole`: whether one message may have more recipients than a rate has units.
    pub fn new(rates: &[Rate], passes_whole: bool) -> Self {
        let limit = |&rate: &Rate| {
            let journal = (!rate.is_short()).then(QuotaJournal::new);
            AllowedRate { rate, window: Window::new(rate.units(), rate.period()), journal }
        };
        Self { limits: rates.iter().map(limit).collect(), passes_whole, last: Moment::ZERO }
    }

    /// `None`: so many recipients are allowed now.
    pub fn check(&mut self, recipients: u64, now: Moment) -> Option<AllowedLater> {
        let from = now.max(self.last);
        let mut later: Option<AllowedLater> = None;
        let is_behind = self.last > now;
        for AllowedRate { rate, window, .. } in &mut self.limits {
            let mut at = match window.check(recipients, from) {
                Ok(()) if recipients > window.limit() && !self.passes_whole => from + rate.period(),
                Ok(()) => from,
                Err(WindowFull::Until(until)) => until,
                // Nothing is in flight here: what is counted is counted at once.
                Err(WindowFull::InFlight) => from + rate.period(),
            };
            if is_behind {
                at = at.max(self.last + spacing(*rate, recipients));
            }
            if at > now && later.is_none_or(|known| at > known.at) {
                later = Some(AllowedLater { at, rate: *rate });
            }
        }
        later
    }

    /// Counts them at this moment, which [`Allowance::check`] gave, or a later one.
    pub fn count(&mut self, recipients: u64, at: Moment) {
        self.last = self.last.max(at);
        for limit in &mut self.limits {
            limit.window.take(recipients);
            limit.window.end(recipients, at);
        }
    }

    /// They were counted at this moment and were not accepted after all.
    pub fn take_back(&mut self, recipients: u64, at: Moment) {
        self.limits.iter_mut().for_each(|limit| limit.window.take_back(recipients, at));
    }

    /// The latest moment that was given to a recipient.
    pub fn last(&self) -> Moment {
        self.last
    }

    /// The next that gets a moment gets a later one.
    pub fn continue_after(&mut self, last: Moment) {
        self.last = self.last.max(last);
    }

    /// What must be written before the counted recipients may be accepted: the first of it.
    pub fn unwritten(&mut self, now: TwoClocks) -> Option<(String, QuotaReservation)> {
        let now = now.ahead(self.last.saturating_sub(now.moment));
        self.limits.iter_mut().find_map(|limit| {
            let reservation = limit.journal.as_ref()?.reserve(0, &mut limit.window, now)?;
            Some((quota::name(limit.rate.period()), reservation))
        })
    }

    pub fn mark_written(&mut self, quota: &str, reservation: &QuotaReservation) {
        for limit in self.limits.iter_mut().filter(|limit| quota::name(limit.rate.period()) == quota) {
            if let Some(journal) = &mut limit.journal {
                journal.mark_written(reservation);
            }
        }
    }

    /// Loads the usage of earlier processes. `may_wait`: some of it may have a moment that is still to come.
    pub fn remember(&mut self, records: &[QuotaRecord], now: TwoClocks, may_wait: bool) {
        let now = if may_wait { now.ahead(AHEAD) } else { now };
        for limit in self.limits.iter_mut().filter(|limit| limit.journal.is_some()) {
            quota::remember(&mut limit.window, limit.rate.period(), records, now);
        }
    }

    /// The exact usage, for the start and the end of the process.
    pub fn closing(&mut self, now: TwoClocks) -> Vec<(String, QuotaReservation)> {
        let now = now.ahead(self.last.saturating_sub(now.moment));
        let closed = self.limits.iter_mut().filter_map(|limit| {
            let reservation = limit.journal.as_ref()?.closing(&mut limit.window, now);
            Some((quota::name(limit.rate.period()), reservation))
        });
        closed.collect()
    }
}

/// The time that so many units of a rate take on average.
fn spacing(rate: Rate, units: u64) -> Duration {
    (rate.period() / rate.units()).saturating_mul(u32::try_from(units).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
