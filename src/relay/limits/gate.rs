//! `Gate`: where transactions wait for what the account's rates allow, in order of arrival.
//!
//! A [`Token`] is held for as long as the transaction goes on. What a quota needs to be written is written before its token is
//! given; if that fails, there is none.

use super::limiter::{Limiter, Look};
use super::load::{Counting, Load};
use super::pace::{Pace, Share};
use super::quota::{Draft, Now, Spent};
use super::rate::Rate;
use super::window::Moment;
use crate::relay::account::Kept;
use crate::relay::deadline::{Deadline, Expired};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::error;

/// Moments are counted from so long before the gate was made, so that what was used before it has one, too.
const PAST: Duration = Duration::from_secs(10 * 24 * 3600);

#[derive(Debug)]
pub(in crate::relay) struct Gate {
    state: Mutex<State>,
    /// The first in line waits for its units, the others for their turn.
    turn: tokio::sync::Mutex<()>,
    /// A transaction has ended, or never began.
    ended: Notify,
    /// Of all that wait.
    waiting: Mutex<Load>,
    origin: Instant,
    kept: Option<Kept>,
}

#[derive(Debug)]
struct State {
    limiter: Limiter,
    pace: Pace,
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::relay) enum Denied {
    /// The turn would come too late; after so long, if that is known.
    NotInTime(Option<Duration>),
    UsedUp {
        rate: Rate,
        until: Instant,
    },
    /// What was used of a quota cannot be written down.
    Unwritten(String),
}

impl Gate {
    /// Without a ledger quotas are forgotten at the end of the process.
    pub(in crate::relay) fn new(rates: &[Rate], counting: Counting, kept: Option<Kept>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State { limiter: Limiter::new(rates, counting), pace: Pace::default() }),
            turn: tokio::sync::Mutex::default(),
            ended: Notify::new(),
            waiting: Mutex::default(),
            origin: Instant::now(),
            kept,
        })
    }

    /// Before anything is sent: what earlier processes have used. That what they put down ahead cannot be cut to it is no error
    /// (a full disk): it counts as used, and there is no token before what it takes is written.
    pub(in crate::relay) async fn restore(&self) -> Result<(), String> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let quotas = self.lock().limiter.quotas();
        for quota in quotas {
            let mut rows = kept.ledger.load(&key(&kept.name, &quota)).await?;
            if rows.is_empty() && kept.former != kept.name {
                rows = take_over(kept, &quota).await?;
            }
            let now = self.now();
            self.lock().limiter.remember(&quota, &rows, now);
        }
        let _it_is_in_the_log = self.close().await;
        Ok(())
    }

    /// What was used is written down exactly.
    pub(in crate::relay) async fn close(&self) -> Result<(), String> {
        let now = self.now();
        let drafts = self.lock().limiter.closing(now);
        for (quota, draft) in drafts {
            self.write(&quota, draft).await?;
        }
        Ok(())
    }

    /// The most recipients of one token; `None` if nothing counts them.
    pub(in crate::relay) fn most_recipients(&self) -> Option<u64> {
        self.lock().limiter.most_recipients()
    }

    /// If a quota is used up: which, and until when.
    pub(in crate::relay) fn used_up(&self) -> Option<(Rate, Instant)> {
        let now = self.now();
        match self.lock().limiter.look(Load::of_one(1), now) {
            Look::UsedUp { rate, until } => Some((rate, self.instant(until))),
            _ => None,
        }
    }

    /// For one transaction; waits for at most a minute's rate, never for a quota.
    pub(in crate::relay) async fn token(self: &Arc<Self>, load: Load, deadline: Deadline) -> Result<Token, Denied> {
        let line = InLine::behind(&self.waiting, load);
        if let (Some(remaining), wait) = (deadline.remaining(), self.forecast(line.ahead + load))
            && wait > remaining
        {
            return Err(Denied::NotInTime(Some(wait)));
        }
        let Ok(_turn) = deadline.limit(self.turn.lock()).await else { return Err(Denied::NotInTime(None)) };
        loop {
            match self.look_and_take(load) {
                Look::Free => return Ok(Token { gate: Arc::clone(self), load, began: false }),
                Look::Until(moment) => self.sleep(moment, deadline).await?,
                Look::InFlight => {
                    deadline.limit(self.ended.notified()).await.map_err(|Expired| Denied::NotInTime(None))?;
                }
                Look::UsedUp { rate, until } => {
                    return Err(Denied::UsedUp { rate, until: self.instant(until) });
                }
                Look::Write { quota, draft } => self.write_in_time(&quota, draft, deadline).await?,
            }
        }
    }

    /// A provider asked for a slower pace.
    pub(in crate::relay) fn slow_down(&self) -> Share {
        let mut state = self.lock();
        state.pace.slow_down();
        state.pace.share()
    }

    /// A message was taken. `None`: the pace is whole as it was.
    pub(in crate::relay) fn taken(&self) -> Option<Share> {
        let mut state = self.lock();
        let before = state.pace.share();
        state.pace.taken();
        (state.pace.share() != before).then(|| state.pace.share())
    }

    fn look_and_take(&self, load: Load) -> Look {
        let now = self.now();
        let mut state = self.lock();
        let look = state.limiter.look(load, now);
        if look == Look::Free {
            let share = state.pace.share();
            state.limiter.take(load, now.moment, share);
        }
        look
    }

    fn forecast(&self, load: Load) -> Duration {
        let now = self.now().moment;
        let state = self.lock();
        state.limiter.forecast(load, now, state.pace.share()).saturating_sub(now)
    }

    async fn sleep(&self, until: Moment, deadline: Deadline) -> Result<(), Denied> {
        let until = self.instant(until);
        if deadline.at.is_some_and(|at| at < until) {
            return Err(Denied::NotInTime(Some(until.saturating_duration_since(Instant::now()))));
        }
        sleep_until(until).await;
        Ok(())
    }

    /// What is given up halfway is drafted again for the next in line: the same rows, so that nothing counts twice.
    async fn write_in_time(&self, quota: &str, draft: Draft, deadline: Deadline) -> Result<(), Denied> {
        let written = deadline.limit(self.write(quota, draft)).await;
        written
            .unwrap_or_else(|Expired| Err("the storage gives no answer in time".to_owned()))
            .map_err(Denied::Unwritten)
    }

    /// Without a place to write to, what is to be written counts as written.
    async fn write(&self, quota: &str, draft: Draft) -> Result<(), String> {
        if let Some(kept) = &self.kept {
            let written = kept.ledger.write(&key(&kept.name, quota), draft.rows.clone(), draft.oldest).await;
            written.inspect_err(|error| {
                error!(account = &*kept.former, "what was used of a quota could not be written down: {error}");
            })?;
        }
        self.lock().limiter.written(quota, &draft);
        Ok(())
    }

    fn end(&self, load: Load, began: bool) {
        let now = self.now().moment;
        let mut state = self.lock();
        if began {
            state.limiter.end(load, now);
        } else {
            let share = state.pace.share();
            state.limiter.refund(load, share);
        }
        drop(state);
        self.ended.notify_one();
    }

    fn now(&self) -> Now {
        let kept = self.kept.as_ref().map_or(Duration::ZERO, |kept| kept.ledger.now());
        Now { moment: PAST + self.origin.elapsed(), kept }
    }

    fn instant(&self, moment: Moment) -> Instant {
        self.origin.checked_add(moment.saturating_sub(PAST)).unwrap_or(self.origin)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an earlier version kept by the table's name.
async fn take_over(kept: &Kept, quota: &str) -> Result<Vec<Spent>, String> {
    let former = key(&kept.former, quota);
    let rows = kept.ledger.load(&former).await?;
    let Some(oldest) = rows.iter().map(|row| row.number).min() else { return Ok(rows) };
    let moved = match kept.ledger.write(&key(&kept.name, quota), rows.clone(), oldest).await {
        // Another account may come to have that name.
        Ok(()) => kept.ledger.write(&former, Vec::new(), i64::MAX).await,
        failed => failed,
    };
    if let Err(error) = moved {
        error!(account = &*kept.former, "what was used of a quota could not be put under its account: {error}");
    }
    Ok(rows)
}

/// A quota's name among those of all accounts.
fn key(account: &str, quota: &str) -> String {
    format!("{account}/{quota}")
}

/// The load of one transaction. Dropped before it began, it is given back; after, it counts from its end.
pub(in crate::relay) struct Token {
    gate: Arc<Gate>,
    load: Load,
    began: bool,
}

impl Token {
    pub(in crate::relay) fn begin(&mut self) {
        self.began = true;
    }

    /// It turned out that nobody heard of it.
    pub(in crate::relay) fn take_back(&mut self) {
        self.began = false;
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.gate.end(self.load, self.began);
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("load", &self.load).field("began", &self.began).finish_non_exhaustive()
    }
}

/// Counted among those who wait until it is dropped.
struct InLine<'a> {
    waiting: &'a Mutex<Load>,
    load: Load,
    /// Of those who came before.
    ahead: Load,
}

impl<'a> InLine<'a> {
    fn behind(waiting: &'a Mutex<Load>, load: Load) -> Self {
        let mut all = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead = *all;
        *all = ahead + load;
        Self { waiting, load, ahead }
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        *all = *all - self.load;
    }
}

#[cfg(test)]
mod tests;
