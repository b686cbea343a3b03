//! `Gate`: where transactions wait, in order of arrival, until the account's rates allow them.
//!
//! A [`RateToken`] is held for as long as the transaction lasts. A quota's reservation is written before its token is
//! granted; if the write fails, there is no token. If several gateways share the account, their ledger counts instead.

mod shared;

use self::shared::SharedUsage;
use super::deadline::{Deadline, Expired};
use super::ledger::AccountLedger;
use crate::rate::{
    Counting, LimitCheck, Limiter, Load, Moment, QuotaRecord, QuotaReservation, QuotaUsage, Rate, StoredUsage,
    Throttle, ThrottleFactor, TwoClocks, quota_name,
};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Time zero is this long before the gate was made, so that earlier usage has a time, too.
const PAST: Duration = Duration::from_secs(10 * 24 * 3600);

#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<GateState>,
    /// The first in line waits for its units, the others for their turn.
    turn: tokio::sync::Mutex<()>,
    /// A transaction has ended, or was not begun.
    ended: Notify,
    /// The load of all waiting callers.
    waiting: Mutex<Load>,
    origin: Instant,
    kept: Option<StoredUsage>,
    ledger: Option<Arc<AccountLedger>>,
}

#[derive(Debug)]
struct GateState {
    limiter: Limiter,
    throttle: Throttle,
    shared: SharedUsage,
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TokenDenied {
    /// The turn would come too late; the wait, if it is known.
    NotInTime(Option<Duration>),
    UsedUp {
        rate: Rate,
        until: Instant,
    },
    /// The quota's usage cannot be recorded.
    Unwritten(String),
    /// The gateways' ledger does not answer.
    Unshared(String),
}

impl Gate {
    /// Without a ledger, quotas are forgotten at the end of the process.
    pub(super) fn new(rates: &[Rate], counting: Counting, kept: Option<StoredUsage>) -> Arc<Self> {
        Self::build(rates, counting, kept, None)
    }

    /// The ledger counts for all gateways.
    pub(super) fn shared(rates: &[Rate], counting: Counting, ledger: Arc<AccountLedger>) -> Arc<Self> {
        Self::build(rates, counting, None, Some(ledger))
    }

    fn build(
        rates: &[Rate],
        counting: Counting,
        kept: Option<StoredUsage>,
        ledger: Option<Arc<AccountLedger>>,
    ) -> Arc<Self> {
        let limiter = Limiter::new(rates, counting);
        let state = GateState { limiter, throttle: Throttle::default(), shared: SharedUsage::default() };
        Arc::new(Self {
            state: Mutex::new(state),
            turn: tokio::sync::Mutex::default(),
            ended: Notify::new(),
            waiting: Mutex::default(),
            origin: Instant::now(),
            kept,
            ledger,
        })
    }

    /// Called before anything is sent: loads the usage of earlier processes. If the amount reserved ahead cannot be
    /// reduced to the actual usage (a full disk), that is not an error: it counts as used, and tokens wait until their
    /// reservation is written.
    pub(super) async fn restore(&self) -> Result<(), String> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let today = self.state.lock().limiter.quota_periods();
        if today.is_empty() {
            return Ok(());
        }
        let mut records = kept.load().await?;
        let now = self.now();
        for record in records.iter_mut().filter(|record| !today.contains(&record.period)) {
            if let Some(end) = record.end(now) {
                let _it_is_in_the_log = self.write(&quota_name(record.period), end).await;
            }
        }
        self.state.lock().limiter.remember(&records, now);
        let _it_is_in_the_log = self.write_exactly(now).await;
        Ok(())
    }

    /// As stored.
    pub(super) async fn usage(&self) -> Result<Vec<QuotaRecord>, String> {
        match &self.kept {
            Some(kept) => kept.load().await,
            None => Ok(Vec::new()),
        }
    }

    /// Other rates; usage counts on. Who waits is allowed by the new ones.
    pub(super) fn set_rates(&self, rates: &[Rate], counting: Counting, usage: &[QuotaRecord]) {
        let now = self.now();
        self.state.lock().limiter.replace(rates, counting, usage, now);
        self.ended.notify_one();
    }

    /// Records the exact usage.
    pub(super) async fn close(&self) -> Result<(), String> {
        self.write_exactly(self.now()).await
    }

    async fn write_exactly(&self, now: TwoClocks) -> Result<(), String> {
        let drafts = self.state.lock().limiter.closing(now);
        for (quota, reservation) in drafts {
            self.write(&quota, reservation).await?;
        }
        Ok(())
    }

    /// The most recipients of one token; `None` if nothing counts them.
    pub(super) fn most_recipients(&self) -> Option<u64> {
        self.state.lock().limiter.most_recipients()
    }

    /// Somebody waits for the rates.
    pub(super) fn has_waiting(&self) -> bool {
        *self.waiting.lock() != Load::default()
    }

    /// If a quota is used up: which, and until when.
    pub(super) fn exhausted_quota(&self) -> Option<(Rate, Instant)> {
        if self.ledger.is_some() {
            return self.state.lock().shared.exhausted_quota();
        }
        let now = self.now();
        match self.state.lock().limiter.check(Load::of_one(1), now) {
            LimitCheck::UsedUp { rate, until } => Some((rate, self.instant(until))),
            _ => None,
        }
    }

    /// How much of each quota is used.
    pub(super) fn quota_usage(&self) -> Vec<QuotaUsage> {
        let now = self.now().moment;
        let mut state = self.state.lock();
        match &self.ledger {
            Some(_) => state.shared.quota_usage(&state.limiter),
            None => state.limiter.quota_usage(now),
        }
    }

    /// For one transaction; waits for at most a minute's rate, never for a quota.
    pub(super) async fn token(self: &Arc<Self>, load: Load, deadline: Deadline) -> Result<RateToken, TokenDenied> {
        let line = WaitingLoad::behind(&self.waiting, load);
        if let (Some(remaining), wait) = (deadline.remaining(), self.forecast(line.ahead + load))
            && wait > remaining
        {
            return Err(TokenDenied::NotInTime(Some(wait)));
        }
        let Ok(_turn) = deadline.limit(self.turn.lock()).await else { return Err(TokenDenied::NotInTime(None)) };
        if let Some(ledger) = &self.ledger {
            return self.shared_token(ledger, load, deadline).await;
        }
        loop {
            match self.check_and_take(load) {
                LimitCheck::Free => return Ok(RateToken { gate: Arc::clone(self), load, began: false }),
                LimitCheck::Until(moment) => self.sleep(moment, deadline).await?,
                LimitCheck::InFlight => {
                    deadline.limit(self.ended.notified()).await.map_err(|Expired| TokenDenied::NotInTime(None))?;
                }
                LimitCheck::UsedUp { rate, until } => {
                    return Err(TokenDenied::UsedUp { rate, until: self.instant(until) });
                }
                LimitCheck::Write { quota, reservation } => self.write_in_time(&quota, reservation, deadline).await?,
            }
        }
    }

    /// A provider asked for a slower pace.
    pub(super) fn slow_down(&self) -> ThrottleFactor {
        let mut state = self.state.lock();
        state.throttle.slow_down();
        state.throttle.share()
    }

    /// A message was accepted. `None`: the rate was not reduced.
    pub(super) fn recover(&self) -> Option<ThrottleFactor> {
        let mut state = self.state.lock();
        let before = state.throttle.share();
        state.throttle.recover();
        (state.throttle.share() != before).then(|| state.throttle.share())
    }

    fn check_and_take(&self, load: Load) -> LimitCheck {
        let now = self.now();
        let mut state = self.state.lock();
        let look = state.limiter.check(load, now);
        if look == LimitCheck::Free {
            let share = state.throttle.share();
            state.limiter.take(load, now.moment, share);
        }
        look
    }

    fn forecast(&self, load: Load) -> Duration {
        let now = self.now().moment;
        let state = self.state.lock();
        if self.ledger.is_some() {
            return state.shared.until_pace() + state.limiter.span_after_first(load, state.throttle.share());
        }
        state.limiter.forecast(load, now, state.throttle.share()).saturating_sub(now)
    }

    async fn sleep(&self, until: Moment, deadline: Deadline) -> Result<(), TokenDenied> {
        let until = self.instant(until);
        if deadline.at.is_some_and(|at| at < until) {
            return Err(TokenDenied::NotInTime(Some(until.saturating_duration_since(Instant::now()))));
        }
        sleep_until(until).await;
        Ok(())
    }

    /// A write that is interrupted is repeated by the next in line with the same rows, so nothing counts twice.
    async fn write_in_time(
        &self,
        quota: &str,
        reservation: QuotaReservation,
        deadline: Deadline,
    ) -> Result<(), TokenDenied> {
        let written = deadline.limit(self.write(quota, reservation)).await;
        written
            .unwrap_or_else(|Expired| Err("the storage gives no answer in time".to_owned()))
            .map_err(TokenDenied::Unwritten)
    }

    /// Without a ledger, everything counts as written.
    async fn write(&self, quota: &str, reservation: QuotaReservation) -> Result<(), String> {
        if let Some(kept) = &self.kept {
            kept.write(quota, &reservation).await?;
        }
        self.state.lock().limiter.mark_written(quota, &reservation);
        Ok(())
    }

    fn end(&self, load: Load, began: bool) {
        let now = self.now().moment;
        let mut state = self.state.lock();
        if let Some(ledger) = &self.ledger {
            state.shared.end(load, began);
            ledger.ended.notify_one();
        } else if began {
            state.limiter.end(load, now);
        } else {
            let share = state.throttle.share();
            state.limiter.refund(load, share);
        }
        drop(state);
        self.ended.notify_one();
    }

    fn now(&self) -> TwoClocks {
        let kept = self.kept.as_ref().map_or(Duration::ZERO, |kept| kept.ledger.now());
        TwoClocks { moment: PAST + self.origin.elapsed(), kept }
    }

    fn instant(&self, moment: Moment) -> Instant {
        self.origin.checked_add(moment.saturating_sub(PAST)).unwrap_or(self.origin)
    }
}

/// The load of one transaction. If it is dropped before the transaction began, the load is returned; otherwise it
/// counts from its end.
pub(super) struct RateToken {
    gate: Arc<Gate>,
    load: Load,
    began: bool,
}

impl RateToken {
    pub(super) fn begin(&mut self) {
        self.began = true;
    }

    /// The server never saw the transaction.
    pub(super) fn take_back(&mut self) {
        self.began = false;
    }
}

impl Drop for RateToken {
    fn drop(&mut self) {
        self.gate.end(self.load, self.began);
    }
}

impl fmt::Debug for RateToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("load", &self.load).field("began", &self.began).finish_non_exhaustive()
    }
}

/// Counted among the waiting until it is dropped.
struct WaitingLoad<'a> {
    waiting: &'a Mutex<Load>,
    load: Load,
    /// The load of earlier callers.
    ahead: Load,
}

impl<'a> WaitingLoad<'a> {
    fn behind(waiting: &'a Mutex<Load>, load: Load) -> Self {
        let mut all = waiting.lock();
        let ahead = *all;
        *all = ahead + load;
        Self { waiting, load, ahead }
    }
}

impl Drop for WaitingLoad<'_> {
    fn drop(&mut self) {
        let mut all = self.waiting.lock();
        *all = *all - self.load;
    }
}

#[cfg(test)]
mod tests;
