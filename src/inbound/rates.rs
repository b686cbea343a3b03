//! `rate` of users and listeners: how much an application may submit, and what becomes of more.
//!
//! Every recipient counts, once its message is accepted; what is refused does not. The session asks at MAIL and RCPT, so
//! that most refusals come before the message does; the intake counts at the final dot, in all rates that apply or in
//! none. A user's mail counts in no other user's rate. Does not know why mail is submitted or where it goes.

use super::Client;
use crate::observe::log::Clean;
use crate::rate::{Allowance, AllowedLater, Moment, Rate, StoredUsage, TwoClocks};
use crate::smtp::{EnhancedCode, Reply};
use crate::text::roughly;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::field::display;
use tracing::warn;

/// Time zero is this long before the process began, so that earlier usage has a time, too.
const PAST: Duration = Duration::from_secs(10 * 24 * 3600);
/// An application that is over its rate may try again at once and for hours: one line in this time.
const BETWEEN_LINES: Duration = Duration::from_secs(60);
/// How far ahead the end of what waits is written, so that not every message is a write.
const SHORTEST_SLACK: Duration = Duration::from_secs(60);

/// What becomes of mail that is over its rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverRate {
    /// The application gets a 452 and is told when to come back.
    Refuse,
    /// It is accepted, and sent when the rate permits.
    Wait,
}

/// Whose rate it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateOwner {
    Listener(SocketAddr),
    User(Arc<str>),
}

/// The rates of one user or listener, shared by all connections.
#[derive(Debug)]
pub struct SubmissionRate {
    owner: RateOwner,
    over: OverRate,
    /// What would have to wait longer is refused.
    longest: Duration,
    state: Mutex<RateState>,
    origin: Instant,
    stored: Option<StoredUsage>,
    /// Usage is written by one at a time.
    writing: tokio::sync::Mutex<()>,
}

impl SubmissionRate {
    pub fn owner(&self) -> &RateOwner {
        &self.owner
    }
}

#[derive(Debug)]
struct RateState {
    allowance: Allowance,
    /// Until when mail waits, as it is stored.
    stored_last: Moment,
    logged: Option<Instant>,
    /// Submissions over the rate since then.
    unlogged: u64,
}

/// The rates that apply on one listener.
#[derive(Debug, Clone, Default)]
pub struct SubmissionRates {
    pub listener: Option<Arc<SubmissionRate>>,
    pub users: Arc<HashMap<Arc<str>, Arc<SubmissionRate>>>,
    /// The client waits for the provider's reply, so its mail cannot.
    pub client_waits: bool,
}

/// Recipients that were counted. Dropped without [`CountedSubmission::keep`], they do not count.
#[derive(Debug)]
pub struct CountedSubmission {
    counted: Vec<(Arc<SubmissionRate>, Moment)>,
    recipients: u64,
    pub wait: Option<RateWait>,
}

/// Accepted mail that has to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateWait {
    pub wait: Duration,
    /// Whose rate it waits for, in words.
    pub reason: String,
}

/// Why so many recipients are not allowed now.
struct OverTheRate {
    rate: Arc<SubmissionRate>,
    limit: Rate,
    wait: Duration,
}

impl SubmissionRates {
    /// At MAIL and RCPT: whether a message to so many recipients would be accepted now. The error is the reply, which has
    /// been logged. Counts nothing.
    pub(super) fn check(&self, client: &Client, recipients: usize) -> Result<(), Reply> {
        let rates = self.of(client);
        let mut states: Vec<_> = rates.iter().map(|rate| rate.state.lock()).collect();
        let decided = self.decide(&rates, &mut states, recipients as u64);
        drop(states);
        decided.map(drop).map_err(|over| over.refusal(client))
    }

    /// At the final dot: counts the recipients in all rates that apply, or in none. The error is the reply, which has been
    /// logged.
    pub async fn count(&self, client: &Client, recipients: usize) -> Result<CountedSubmission, Reply> {
        let rates = self.of(client);
        let recipients = recipients as u64;
        let counted = self.count_in_all(rates, recipients).map_err(|over| over.refusal(client))?;
        for (rate, _) in &counted.counted {
            rate.write().await.map_err(|_logged| Reply::storage_trouble())?;
        }
        if let Some(RateWait { reason, .. }) = &counted.wait
            && let Some((rate, _)) = counted.counted.iter().find(|(rate, _)| rate.over == OverRate::Wait)
        {
            rate.log(client, format_args!("{reason}; its mail is accepted and waits"));
        }
        Ok(counted)
    }

    fn count_in_all(&self, rates: Vec<Arc<SubmissionRate>>, recipients: u64) -> Result<CountedSubmission, OverTheRate> {
        let mut states: Vec<_> = rates.iter().map(|rate| rate.state.lock()).collect();
        let over = self.decide(&rates, &mut states, recipients)?;
        let wait = over.map(|OverTheRate { rate, limit, wait }| RateWait { wait, reason: rate.reason(limit) });
        let delay = wait.as_ref().map_or(Duration::ZERO, |wait| wait.wait);
        let mut counted = Vec::new();
        for (rate, state) in rates.iter().zip(&mut states) {
            let delay = if rate.over == OverRate::Wait { delay } else { Duration::ZERO };
            let at = rate.now().moment.saturating_add(delay);
            state.allowance.count(recipients, at);
            counted.push((Arc::clone(rate), at));
        }
        drop(states);
        Ok(CountedSubmission { counted, recipients, wait })
    }

    /// `Ok`: whose rate it has to wait for, if any.
    fn decide(
        &self,
        rates: &[Arc<SubmissionRate>],
        states: &mut [MutexGuard<'_, RateState>],
        recipients: u64,
    ) -> Result<Option<OverTheRate>, OverTheRate> {
        let mut longest: Option<OverTheRate> = None;
        for (rate, state) in rates.iter().zip(states) {
            let now = rate.now().moment;
            let Some(AllowedLater { at, rate: limit }) = state.allowance.check(recipients, now) else { continue };
            let over = OverTheRate { rate: Arc::clone(rate), limit, wait: at.saturating_sub(now) };
            if rate.over == OverRate::Refuse || self.client_waits || over.wait > rate.longest {
                return Err(over);
            }
            if longest.as_ref().is_none_or(|known| over.wait > known.wait) {
                longest = Some(over);
            }
        }
        Ok(longest)
    }

    /// Always in this order, so that two clients never wait for each other.
    fn of(&self, client: &Client) -> Vec<Arc<SubmissionRate>> {
        let user = client.user.as_ref().and_then(|user| self.users.get(user));
        self.listener.iter().chain(user).cloned().collect()
    }
}

impl SubmissionRate {
    /// `longest`: how long mail may wait. Without `stored`, usage is forgotten at the end of the process.
    pub fn new(
        owner: RateOwner,
        (rates, over): (&[Rate], OverRate),
        longest: Duration,
        stored: Option<StoredUsage>,
    ) -> Self {
        let state = RateState {
            allowance: Allowance::new(rates, over == OverRate::Wait),
            stored_last: Moment::ZERO,
            logged: None,
            unlogged: 0,
        };
        let origin = Instant::now();
        Self { owner, over, longest, state: Mutex::new(state), origin, stored, writing: tokio::sync::Mutex::default() }
    }

    /// Call this before the first message: loads the usage of earlier processes.
    pub async fn restore(&self) -> Result<(), String> {
        let Some(stored) = &self.stored else { return Ok(()) };
        let records = stored.load().await?;
        let last = stored.load_last().await?;
        let now = self.now();
        let may_wait = self.over == OverRate::Wait;
        {
            let mut state = self.state.lock();
            state.allowance.remember(&records, now, may_wait);
            if let Some(ahead) = last.and_then(|last| last.checked_sub(now.kept)).filter(|_| may_wait) {
                let last = now.moment.saturating_add(ahead);
                state.stored_last = last;
                state.allowance.continue_after(last);
            }
        }
        let _it_is_in_the_log = self.close().await;
        Ok(())
    }

    /// Records the exact usage.
    pub async fn close(&self) -> Result<(), String> {
        let Some(stored) = &self.stored else { return Ok(()) };
        let _alone = self.writing.lock().await;
        let now = self.now();
        let (drafts, last, stored_last) = {
            let mut state = self.state.lock();
            let stored_last = std::mem::take(&mut state.stored_last);
            (state.allowance.closing(now), state.allowance.last(), stored_last)
        };
        for (quota, reservation) in drafts {
            stored.write(&quota, &reservation).await?;
            self.state.lock().allowance.mark_written(&quota, &reservation);
        }
        if last.max(stored_last) <= now.moment {
            return Ok(());
        }
        stored.write_last(now.kept.saturating_add(last.saturating_sub(now.moment))).await
    }

    /// Before what was counted is accepted.
    async fn write(&self) -> Result<(), String> {
        let Some(stored) = &self.stored else { return Ok(()) };
        let _alone = self.writing.lock().await;
        loop {
            let now = self.now();
            let unwritten = self.state.lock().allowance.unwritten(now);
            let Some((quota, reservation)) = unwritten else { break };
            stored.write(&quota, &reservation).await?;
            self.state.lock().allowance.mark_written(&quota, &reservation);
        }
        let now = self.now();
        let (last, stored_last) = {
            let state = self.state.lock();
            (state.allowance.last(), state.stored_last)
        };
        let ahead = last.saturating_sub(now.moment);
        if self.over == OverRate::Refuse || ahead.is_zero() || last <= stored_last {
            return Ok(());
        }
        let slack = SHORTEST_SLACK.max(ahead / 20);
        stored.write_last(now.kept.saturating_add(ahead + slack)).await?;
        self.state.lock().stored_last = last.saturating_add(slack);
        Ok(())
    }

    fn now(&self) -> TwoClocks {
        let kept = self.stored.as_ref().map_or(Duration::ZERO, |stored| stored.ledger.now());
        TwoClocks { moment: PAST + self.origin.elapsed(), kept }
    }

    fn reason(&self, limit: Rate) -> String {
        format!("{} has used up its rate of {limit}", self.owner)
    }

    /// Once in a while, with the number of those before that were not logged.
    fn log(&self, client: &Client, what: fmt::Arguments<'_>) {
        let unlogged = {
            let mut state = self.state.lock();
            if state.logged.is_some_and(|logged| logged.elapsed() < BETWEEN_LINES) {
                state.unlogged += 1;
                return;
            }
            state.logged = Some(Instant::now());
            std::mem::take(&mut state.unlogged)
        };
        let peer = client.peer;
        let user = client.user.as_deref().map(|user| display(Clean(user)));
        let listener = match &self.owner {
            RateOwner::Listener(address) => Some(display(address)),
            RateOwner::User(_) => None,
        };
        match unlogged {
            0 => warn!(listener, user, %peer, "{what}; such lines come once a minute"),
            more => warn!(listener, user, %peer, "{what}; so it was {more} more times since the last such line"),
        }
    }
}

impl OverTheRate {
    fn refusal(self, client: &Client) -> Reply {
        let Self { rate, limit, wait } = self;
        let text = format!("{}: try again in {}", rate.reason(limit), roughly(wait));
        rate.log(client, format_args!("refused: {text}"));
        // RFC 3463 §3.8: X.7.0, other security status; there is no code for a rate.
        Reply::new(452, EnhancedCode::new(4, 7, 0), text)
    }
}

impl CountedSubmission {
    /// The message was accepted.
    pub fn keep(mut self) {
        self.counted.clear();
    }
}

impl Drop for CountedSubmission {
    fn drop(&mut self) {
        for (rate, at) in &self.counted {
            rate.state.lock().allowance.take_back(self.recipients, *at);
        }
    }
}

impl fmt::Display for RateOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listener(address) => write!(f, "Listener {address}"),
            Self::User(name) => write!(f, "User \"{}\"", Clean(name)),
        }
    }
}

#[cfg(test)]
mod tests;
