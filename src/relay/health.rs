//! One upstream's health: its breaker, the callers waiting for a change, and the log lines about it.
//!
//! A [`MonitoredAttempt`] is the permission for one attempt; its result is reported on drop. Every failure of a
//! provider is reported here, and no refusal of a message ever is. Gateways that share the account share its pauses.

use super::breaker::{Admission, AttemptPass, Breaker, Capacity};
use super::deadline::{Deadline, Expired};
use super::ledger::{AccountLedger, FollowsBreaker};
use crate::message::outcome::{Outcome, Reason, Signal, SlowDown};
use crate::observe::jitter;
use crate::observe::log::Clean;
use crate::rate::shared::{BreakerChange, BreakerRecord, HEARTBEAT, OpenBreaker};
use crate::text::roughly;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};
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
    shared: Option<SharedHealth>,
}

/// The upstream in the gateways' ledger.
#[derive(Debug)]
pub(super) struct SharedHealth {
    pub ledger: Arc<AccountLedger>,
    /// The same at every gateway.
    pub name: Arc<str>,
}

#[derive(Debug)]
struct HealthState {
    breaker: Breaker,
    /// Why the breaker was last opened.
    last: String,
    last_up: Option<Instant>,
    /// A message was taken since the start.
    has_delivered: bool,
    /// The ledger's record that was last followed.
    generation: u64,
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
    pub(super) fn new(upstream: Arc<str>, cap: usize, shared: Option<SharedHealth>) -> Arc<Self> {
        let state = HealthState {
            breaker: Breaker::new(cap),
            last: String::new(),
            last_up: None,
            has_delivered: false,
            generation: 0,
        };
        let health = Arc::new(Self { upstream, state: Mutex::new(state), changed: watch::Sender::new(()), shared });
        if let Some(shared) = &health.shared {
            let weak: Weak<Self> = Arc::downgrade(&health);
            shared.ledger.add_follower(weak);
        }
        health
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

    /// The account allows so many connections from now on.
    pub(super) fn set_cap(&self, cap: usize) {
        self.state.lock().breaker.set_cap(cap);
        self.changed.send_replace(());
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
        let was_open = {
            let mut state = self.state.lock();
            state.breaker.cut_pause(Instant::now());
            state.breaker.open_until().is_some()
        };
        self.changed.send_replace(());
        if was_open {
            self.publish(BreakerChange::Cut);
        }
    }

    /// For an attempt that would be the probe: whether no other gateway makes it. If one does, this one waits for its
    /// result.
    pub(super) async fn may_probe(&self, attempt: &MonitoredAttempt) -> Result<(), NotAdmitted> {
        let Some(shared) = &self.shared else { return Ok(()) };
        if !self.state.lock().breaker.is_half_open() {
            return Ok(());
        }
        let (why, wait) = match shared.ledger.ask_probe(&shared.name).await {
            Ok(answer) if answer.may_probe => return Ok(()),
            Ok(_) => ("another gateway is trying whether it works again".to_owned(), HEARTBEAT),
            Err(error) => (format!("the limits that the gateways share cannot be checked: {error}"), HEARTBEAT),
        };
        let now = Instant::now();
        self.state.lock().breaker.give_up_probe(attempt.pass, now.checked_add(wait).unwrap_or(now));
        self.changed.send_replace(());
        Err(NotAdmitted::Unavailable { why, wait })
    }

    fn publish(&self, change: BreakerChange) {
        if let Some(shared) = &self.shared {
            shared.ledger.publish(&shared.name, change);
        }
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
        let was_half_open = state.breaker.is_half_open();
        let pause = state.breaker.ended(attempt.pass, signal, now, jitter());
        if signal == Signal::Success {
            state.last_up = Some(now);
        }
        let is_closed = state.breaker.is_closed();
        if let (Some(_), Some(reason)) = (pause, &attempt.reason) {
            state.last.clone_from(reason);
        }
        if self.shared.is_some() {
            let left = |until: Instant| until.saturating_duration_since(now);
            match state.breaker.open_until() {
                Some((until, soonest, failures)) if pause.is_some() => {
                    let (pause, urgent_pause) = (left(until), left(soonest));
                    let reason = state.last.clone();
                    self.publish(BreakerChange::Opened(OpenBreaker { pause, urgent_pause, failures, reason }));
                }
                None if is_closed && was_half_open => self.publish(BreakerChange::Closed),
                Some(_) if was_half_open => self.publish(BreakerChange::Released),
                _ => {}
            }
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

impl FollowsBreaker for Health {
    fn shared_name(&self) -> &str {
        self.shared.as_ref().map_or("", |shared| &shared.name)
    }

    fn follow(&self, record: &BreakerRecord, is_own: bool) {
        let now = Instant::now();
        let after = |pause: Duration| now.checked_add(pause).unwrap_or(now);
        let mut state = self.state.lock();
        if state.generation == record.generation {
            return;
        }
        state.generation = record.generation;
        let was_closed = state.breaker.is_closed();
        match &record.open {
            Some(OpenBreaker { pause, urgent_pause, failures, reason }) if !is_own => {
                state.breaker.follow_failure(now, after(*pause), after(*urgent_pause), *failures);
                state.last.clone_from(reason);
                let upstream = &*self.upstream;
                let pause_ms = pause.as_millis() as u64;
                if was_closed {
                    warn!(upstream, pause_ms, reason = %Clean(reason), "upstream unavailable, as another gateway found");
                }
            }
            None if !is_own => {
                state.breaker.follow_success();
                if !was_closed {
                    info!(upstream = &*self.upstream, "upstream available again, as another gateway found");
                }
            }
            _ => {}
        }
        drop(state);
        self.changed.send_replace(());
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
