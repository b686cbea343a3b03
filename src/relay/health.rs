//! One upstream's health: its breaker, the callers waiting for a change, and the log lines about it.
//!
//! A [`MonitoredAttempt`] is the permission for one attempt; its result is reported on drop. Every failure of a
//! provider is reported here, and no refusal of a message ever is.

use super::breaker::{Admission, AttemptPass, Breaker, Capacity};
use super::deadline::{Deadline, Expired};
use crate::message::outcome::{Outcome, Reason, Signal, SlowDown};
use crate::observe::jitter;
use crate::observe::log::Clean;
use crate::text::roughly;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

#[derive(Debug)]
pub(super) struct Health {
    upstream: Arc<str>,
    state: Mutex<HealthState>,
    /// Notified after every change.
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct HealthState {
    breaker: Breaker,
    /// Why the breaker was last opened.
    last: String,
    last_up: Option<Instant>,
    /// A message was taken since the start.
    has_delivered: bool,
}

/// Why no attempt is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotAdmitted {
    /// The reason for the pause, for people, and its length.
    Unavailable { why: String, wait: Duration },
    /// The caller does not wait for the attempts under way.
    Full,
}

impl Health {
    pub(super) fn new(upstream: Arc<str>, cap: usize) -> Arc<Self> {
        let state =
            HealthState { breaker: Breaker::new(cap), last: String::new(), last_up: None, has_delivered: false };
        Arc::new(Self { upstream, state: Mutex::new(state), changed: watch::Sender::new(()) })
    }

    /// Waits while the upstream is recovering and others are ahead, unless there is an alternative upstream.
    pub(super) async fn admit(
        self: &Arc<Self>,
        deadline: Deadline,
        has_alternative: bool,
    ) -> Result<MonitoredAttempt, NotAdmitted> {
        let mut changed = self.changed.subscribe();
        loop {
            let now = Instant::now();
            let admission = self.state.lock().breaker.admit(now, deadline.at.is_some());
            match admission {
                Admission::Go(pass) => {
                    let health = Arc::clone(self);
                    let begun = now;
                    return Ok(MonitoredAttempt { health, pass, begun, signal: Signal::None, reason: None });
                }
                Admission::Unavailable(until) => return Err(self.unavailable_until(until)),
                Admission::Full if has_alternative => return Err(NotAdmitted::Full),
                Admission::Full => match deadline.limit(changed.changed()).await {
                    Ok(_) => {}
                    Err(Expired) => return Err(NotAdmitted::Full),
                },
            }
        }
    }

    pub(super) fn capacity(&self) -> Capacity {
        self.state.lock().breaker.capacity(Instant::now())
    }

    /// Why nothing is tried, and until when.
    pub(super) fn pause(&self) -> Option<(String, Instant)> {
        let state = self.state.lock();
        match state.breaker.capacity(Instant::now()) {
            Capacity::After(until) => Some((state.last.clone(), until)),
            Capacity::Slots(_) => None,
        }
    }

    pub(super) fn unavailable_for(&self) -> Duration {
        self.state.lock().breaker.unavailable_for(Instant::now())
    }

    pub(super) fn has_delivered(&self) -> bool {
        self.state.lock().has_delivered
    }

    pub(super) fn cut_pause(&self) {
        self.state.lock().breaker.cut_pause(Instant::now());
        self.changed.send_replace(());
    }

    fn unavailable_until(&self, until: Instant) -> NotAdmitted {
        let wait = until.saturating_duration_since(Instant::now());
        let left = roughly(wait.max(Duration::from_secs(1)));
        NotAdmitted::Unavailable { why: format!("no attempt for another {left} ({})", self.state.lock().last), wait }
    }

    fn end(&self, attempt: &MonitoredAttempt) {
        let now = Instant::now();
        let signal = attempt.signal;
        let mut state = self.state.lock();
        let was_closed = state.breaker.is_closed();
        let pause = state.breaker.ended(attempt.pass, signal, now, jitter());
        if signal == Signal::Success {
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
            let again = if was_closed { "upstream unavailable" } else { "upstream still unavailable" };
            warn!(upstream, pause_ms = pause.as_millis() as u64, reason = %Clean(reason), "{again}");
        } else if is_closed && !was_closed {
            info!(upstream, "upstream available again");
        }
    }
}

/// One attempt at a message. Dropped without a result, it says nothing about the upstream.
#[derive(Debug)]
pub(super) struct MonitoredAttempt {
    health: Arc<Health>,
    pass: AttemptPass,
    begun: Instant,
    signal: Signal,
    reason: Option<String>,
}

impl MonitoredAttempt {
    /// Returns when the upstream became unavailable, with the reason and for how long: work that has not begun must not
    /// begin.
    pub(super) async fn overtaken(&self) -> (String, Duration) {
        let mut changed = self.health.changed.subscribe();
        while self.is_current() {
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        let wait = match self.health.capacity() {
            Capacity::After(until) => until.saturating_duration_since(Instant::now()),
            Capacity::Slots(_) => Duration::ZERO,
        };
        let last = self.health.state.lock().last.clone();
        (format!("it became unavailable meanwhile ({last})"), wait)
    }

    /// Whether no failure has come since this attempt began.
    pub(super) fn is_current(&self) -> bool {
        self.health.state.lock().breaker.is_current(self.pass)
    }

    /// The upstream has accepted a message since this attempt began.
    pub(super) fn upstream_succeeded(&self) -> bool {
        self.health.state.lock().last_up.is_some_and(|at| at >= self.begun)
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(super) fn failed(&mut self, reason: &Reason, slow_down: &[SlowDown]) -> Signal {
        self.note(reason.signal(slow_down), Some(reason))
    }

    /// Called after a transaction.
    pub(super) fn finished(&mut self, outcomes: &[Outcome], slow_down: &[SlowDown]) -> Signal {
        if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Delivered(_))) {
            self.health.state.lock().has_delivered = true;
        }
        let signs = outcomes.iter().map(|outcome| match outcome {
            Outcome::Delivered(_) => (Signal::Success, None),
            Outcome::Deferred(reason) | Outcome::Failed(reason) => (reason.signal(slow_down), Some(reason)),
        });
        // A request for patience takes precedence over the other outcomes, then a success.
        let weight = |signal: Signal| match signal {
            Signal::SlowDown => 4,
            Signal::Success => 3,
            Signal::Unavailable => 2,
            Signal::Broken => 1,
            Signal::None => 0,
        };
        let (signal, reason) = signs.max_by_key(|(signal, _)| weight(*signal)).unwrap_or((Signal::None, None));
        self.note(signal, reason)
    }

    fn note(&mut self, signal: Signal, reason: Option<&Reason>) -> Signal {
        self.signal = signal;
        self.reason = reason.map(Reason::without_upstream);
        signal
    }
}

impl Drop for MonitoredAttempt {
    fn drop(&mut self) {
        Arc::clone(&self.health).end(self);
    }
}
