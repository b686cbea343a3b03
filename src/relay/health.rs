//! One upstream's health: its breaker, who waits for it to change, and what is said of it in the log.
//!
//! An [`Attempt`] is what a caller may make; what came of it is told by dropping it. Every failure of a provider's passes here,
//! and no refusal of a message ever does.

use super::breaker::{Admission, Breaker, Pass, Room, Sign};
use super::deadline::{Deadline, Expired};
use crate::message::outcome::{Cause, Outcome, Reason, SlowDown, Step, asks_for_patience};
use crate::observe::log::Clean;
use crate::observe::{roughly, small_chance};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

#[derive(Debug)]
pub(super) struct Health {
    upstream: Arc<str>,
    state: Mutex<State>,
    /// Told after every change.
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    breaker: Breaker,
    /// Why it was opened last.
    last: String,
    last_up: Option<Instant>,
}

/// Why no attempt is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// With why it is left alone, for the reader, and for how long.
    Away { why: String, wait: Duration },
    /// The caller does not wait for the attempts that are under way.
    Full,
}

impl Health {
    pub(super) fn new(upstream: Arc<str>, cap: usize) -> Arc<Self> {
        let state = State { breaker: Breaker::new(cap), last: String::new(), last_up: None };
        Arc::new(Self { upstream, state: Mutex::new(state), changed: watch::Sender::new(()) })
    }

    /// Waits while the upstream is on its way back and others are before us, unless there is somebody else to go to.
    pub(super) async fn admit(self: &Arc<Self>, deadline: Deadline, has_alternative: bool) -> Result<Attempt, Refused> {
        let mut changed = self.changed.subscribe();
        loop {
            let now = Instant::now();
            let admission = self.lock().breaker.admit(now, deadline.at.is_some());
            match admission {
                Admission::Go(pass) => {
                    let (health, begun) = (Arc::clone(self), now);
                    return Ok(Attempt { health, pass, begun, sign: Sign::None, reason: None });
                }
                Admission::Away(until) => return Err(self.away_until(until)),
                Admission::Full if has_alternative => return Err(Refused::Full),
                Admission::Full => match deadline.limit(changed.changed()).await {
                    Ok(_) => {}
                    Err(Expired) => return Err(Refused::Full),
                },
            }
        }
    }

    pub(super) fn room(&self) -> Room {
        self.lock().breaker.room(Instant::now())
    }

    pub(super) fn away_for(&self) -> Duration {
        self.lock().breaker.away_for(Instant::now())
    }

    pub(super) fn cut_pause(&self) {
        self.lock().breaker.cut_pause(Instant::now());
        self.changed.send_replace(());
    }

    fn away_until(&self, until: Instant) -> Refused {
        let wait = until.saturating_duration_since(Instant::now());
        let left = roughly(wait.max(Duration::from_secs(1)));
        Refused::Away { why: format!("it is left alone for another {left} ({})", self.lock().last), wait }
    }

    fn end(&self, attempt: &Attempt) {
        let (now, sign) = (Instant::now(), attempt.sign);
        let mut state = self.lock();
        let was_closed = state.breaker.is_closed();
        let pause = state.breaker.ended(attempt.pass, sign, now, small_chance());
        if sign == Sign::Up {
            state.last_up = Some(now);
        }
        let is_closed = state.breaker.is_closed();
        if let (Some(_), Some(reason)) = (pause, &attempt.reason) {
            state.last.clone_from(reason);
        }
        drop(state);
        self.changed.send_replace(());
        let upstream = &*self.upstream;
        if let Some(pause) = pause {
            let reason = attempt.reason.as_deref().unwrap_or_default();
            let again = if was_closed { "the upstream is away" } else { "the upstream is still away" };
            warn!(upstream, pause_ms = pause.as_millis() as u64, reason = %Clean(reason), "{again}");
        } else if is_closed && !was_closed {
            info!(upstream, "the upstream is back");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One attempt at a message. Without a word on what came of it, it says nothing about the upstream.
#[derive(Debug)]
pub(super) struct Attempt {
    health: Arc<Health>,
    pass: Pass,
    begun: Instant,
    sign: Sign,
    reason: Option<String>,
}

impl Attempt {
    /// Returns when the upstream turned out away, with why and for how long: nothing that has not begun is to go on.
    pub(super) async fn overtaken(&self) -> (String, Duration) {
        let mut changed = self.health.changed.subscribe();
        while self.is_current() {
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        let wait = match self.health.room() {
            Room::After(until) => until.saturating_duration_since(Instant::now()),
            Room::Slots(_) => Duration::ZERO,
        };
        let last = self.health.lock().last.clone();
        (format!("it was found to be away meanwhile ({last})"), wait)
    }

    /// Whether it is the newest word on the upstream.
    pub(super) fn is_current(&self) -> bool {
        self.health.lock().breaker.is_current(self.pass)
    }

    /// The upstream took a message since this attempt was begun.
    pub(super) fn saw_success(&self) -> bool {
        self.health.lock().last_up.is_some_and(|at| at >= self.begun)
    }

    pub(super) fn lasted(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(super) fn failed(&mut self, reason: &Reason, slow_down: &[SlowDown]) -> Sign {
        self.note(sign_of(reason, slow_down), Some(reason))
    }

    /// After a transaction.
    pub(super) fn told(&mut self, outcomes: &[Outcome], slow_down: &[SlowDown]) -> Sign {
        let signs = outcomes.iter().map(|outcome| match outcome {
            Outcome::Delivered(_) => (Sign::Up, None),
            Outcome::Deferred(reason) | Outcome::Failed(reason) => (sign_of(reason, slow_down), Some(reason)),
        });
        // One that asks for patience counts, whatever became of the others; else one that was served.
        let weight = |sign: Sign| match sign {
            Sign::SlowDown => 4,
            Sign::Up => 3,
            Sign::Away => 2,
            Sign::Broken => 1,
            Sign::None => 0,
        };
        let (sign, reason) = signs.max_by_key(|(sign, _)| weight(*sign)).unwrap_or((Sign::None, None));
        self.note(sign, reason)
    }

    fn note(&mut self, sign: Sign, reason: Option<&Reason>) -> Sign {
        let anonymous = |reason: &Reason| Reason { upstream: None, ..reason.clone() }.to_string();
        (self.sign, self.reason) = (sign, reason.map(anonymous));
        sign
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        Arc::clone(&self.health).end(self);
    }
}

fn sign_of(reason: &Reason, slow_down: &[SlowDown]) -> Sign {
    match &reason.cause {
        Cause::Stopping | Cause::Away(_) => Sign::None,
        // A crowd of our own, unless the upstream is to blame for it.
        Cause::Local { .. } if reason.step == Step::Permit && !reason.upstream_wide => Sign::None,
        Cause::Local { .. } if reason.step == Step::Local => Sign::None,
        Cause::Reply(reply) if asks_for_patience(reply, slow_down) => Sign::SlowDown,
        Cause::TimedOut | Cause::Network(_) if reason.step >= Step::Mail => Sign::Broken,
        _ if reason.is_about_upstream() => Sign::Away,
        _ => Sign::Up,
    }
}
