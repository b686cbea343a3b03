//! `Limiter`: every rate of an account at once, over time that is passed in. Pure bookkeeping: no waiting, no storage.
//!
//! A transaction's load is taken from all rates or from none; each counts its messages or its recipients.

use super::load::{Counting, Counts, Load};
use super::pace::Share;
use super::quota::{self, Book, Draft, Now, Spent};
use super::rate::Rate;
use super::spacing::Spacing;
use super::window::{Full, Moment, Window};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Limiter {
    limits: Vec<Limit>,
}

#[derive(Debug)]
struct Limit {
    rate: Rate,
    counts: Counts,
    window: Window,
    kind: Kind,
}

/// What a rate is besides its window.
#[derive(Debug)]
enum Kind {
    Short(Spacing),
    Quota(Book),
}

/// Whether so much can be taken now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    Free,
    /// Not before then.
    Until(Moment),
    /// Not before a transaction has ended.
    InFlight,
    /// A quota is used up.
    UsedUp {
        rate: Rate,
        until: Moment,
    },
    /// Once this is written.
    Write {
        quota: String,
        draft: Draft,
    },
}

/// How long to wait where only transactions under way stand between a quota and its limit.
const MOMENT: Duration = Duration::from_secs(1);

impl Limiter {
    pub(super) fn new(rates: &[Rate], counting: Counting) -> Self {
        let limit = |&rate: &Rate| {
            let kind = if rate.is_short() {
                Kind::Short(Spacing::new(rate.units(), rate.period()))
            } else {
                Kind::Quota(Book::new())
            };
            Limit { rate, counts: counting.of(rate), window: Window::new(rate.units(), rate.period()), kind }
        };
        Self { limits: rates.iter().map(limit).collect() }
    }

    /// The most recipients that one transaction can have; `None` if nothing counts them.
    pub(super) fn most_recipients(&self) -> Option<u64> {
        let counting = self.limits.iter().filter(|limit| limit.counts == Counts::Recipients);
        counting.map(|limit| limit.window.limit()).min()
    }

    pub(super) fn look(&mut self, load: Load, now: Now) -> Look {
        let (mut until, mut in_flight) = (Moment::ZERO, false);
        for Limit { rate, counts, window, kind } in &mut self.limits {
            let full = window.look(load.units(*counts), now.moment).err();
            match (kind, full) {
                (Kind::Short(spacing), full) => {
                    until = until.max(spacing.ready());
                    match full {
                        Some(Full::Until(moment)) => until = until.max(moment),
                        Some(Full::InFlight) => in_flight = true,
                        None => {}
                    }
                }
                (Kind::Quota(_), Some(Full::Until(until))) => return Look::UsedUp { rate: *rate, until },
                (Kind::Quota(_), Some(Full::InFlight)) => {
                    return Look::UsedUp { rate: *rate, until: now.moment + MOMENT };
                }
                (Kind::Quota(_), None) => {}
            }
        }
        match (in_flight, until > now.moment) {
            (_, true) => Look::Until(until),
            (true, false) => Look::InFlight,
            (false, false) => self.unwritten(load, now).unwrap_or(Look::Free),
        }
    }

    fn unwritten(&mut self, load: Load, now: Now) -> Option<Look> {
        self.limits.iter_mut().find_map(|limit| match &limit.kind {
            Kind::Quota(book) => {
                let draft = book.draft(load.units(limit.counts), &mut limit.window, now)?;
                Some(Look::Write { quota: length(limit.rate), draft })
            }
            Kind::Short(_) => None,
        })
    }

    /// When the last of it could be taken if all of it were waiting now.
    pub(super) fn forecast(&self, load: Load, now: Moment, share: Share) -> Moment {
        let ready = |limit: &Limit| match &limit.kind {
            Kind::Short(spacing) => {
                spacing.ready().max(now) + spacing.span(load.units(limit.counts).saturating_sub(1), share)
            }
            Kind::Quota(_) => now,
        };
        self.limits.iter().map(ready).max().unwrap_or(now)
    }

    /// After [`Look::Free`].
    pub(super) fn take(&mut self, load: Load, now: Moment, share: Share) {
        for limit in &mut self.limits {
            let units = load.units(limit.counts);
            limit.window.take(units);
            if let Kind::Short(spacing) = &mut limit.kind {
                spacing.take(units, now, share);
            }
        }
    }

    /// No transaction began.
    pub(super) fn refund(&mut self, load: Load, share: Share) {
        for limit in &mut self.limits {
            let units = load.units(limit.counts);
            limit.window.refund(units);
            if let Kind::Short(spacing) = &mut limit.kind {
                spacing.refund(units, share);
            }
        }
    }

    /// The transaction is over, however it ended.
    pub(super) fn end(&mut self, load: Load, now: Moment) {
        self.limits.iter_mut().for_each(|limit| limit.window.end(load.units(limit.counts), now));
    }

    pub(super) fn written(&mut self, quota: &str, draft: &Draft) {
        for limit in self.limits.iter_mut().filter(|limit| length(limit.rate) == quota) {
            if let Kind::Quota(book) = &mut limit.kind {
                book.written(draft);
            }
        }
    }

    /// Names of what is kept across restarts. A limit that is changed keeps what was used of it; another length begins anew.
    pub(super) fn quotas(&self) -> Vec<String> {
        self.limits.iter().filter(|limit| !limit.rate.is_short()).map(|limit| length(limit.rate)).collect()
    }

    pub(super) fn remember(&mut self, quota: &str, rows: &[Spent], now: Now) {
        for limit in self.limits.iter_mut().filter(|limit| length(limit.rate) == quota) {
            quota::remember(&mut limit.window, rows, now);
        }
    }

    /// What is to be written at the end, and at the start.
    pub(super) fn closing(&mut self, now: Now) -> Vec<(String, Draft)> {
        let quotas = self.limits.iter_mut().filter_map(|limit| match &limit.kind {
            Kind::Quota(book) => Some((length(limit.rate), book.closing(&mut limit.window, now))),
            Kind::Short(_) => None,
        });
        quotas.collect()
    }
}

/// "86400s"
fn length(rate: Rate) -> String {
    format!("{}s", rate.period().as_secs())
}

#[cfg(test)]
mod tests;
