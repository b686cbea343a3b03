//! `Breaker`: decides from its recent results whether an upstream is tried: closed, open until some time, or half open.
//!
//! A pure state machine; time and jitter are passed in. A failure opens it for a pause that doubles each time. After
//! the pause one attempt, the probe, runs alone. Its success closes the breaker and allows two attempts at once; each
//! further success allows one more, up to the cap, so that a recovering provider does not get a burst of connections.

use crate::message::outcome::Signal;
use crate::observe::backoff::{doubled, spread};
use std::time::Duration;
use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// For an upstream that cannot be reached or does not work.
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);
/// For a caller that waits for an answer and has no other upstream.
const SHORT_PAUSE: Duration = Duration::from_secs(5);
/// For an upstream that asks for patience: SES asks to be left alone for up to ten minutes.
const LONGEST_REST: Duration = Duration::from_secs(10 * 60);

#[derive(Debug)]
pub struct Breaker {
    cap: usize,
    state: BreakerState,
    /// Failures since it last allowed attempts up to the cap.
    failures: u32,
    /// The last attempt with a result ended with a broken connection.
    is_shaken: bool,
    /// No attempt has succeeded since then.
    away_since: Option<Instant>,
    era: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BreakerState {
    /// How many attempts are allowed at once, and how many are under way.
    Closed {
        room: usize,
        running: usize,
    },
    /// Open until then, or until `soonest` for a caller that waits.
    Open {
        until: Instant,
        soonest: Instant,
    },
    HalfOpen,
}

/// The right to make one attempt; returned with its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptPass {
    era: u64,
}

/// Whether an attempt may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    Go(AttemptPass),
    /// The maximum number of attempts is under way; this may change when one of them ends.
    Full,
    /// Not before this time.
    Unavailable(Instant),
}

/// What may be started now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capacity {
    /// This many attempts at once, including those under way.
    Slots(usize),
    /// None before this time.
    After(Instant),
}

impl Capacity {
    /// For two upstreams of the same mail: the capacities of both, of the one that has any, or of whichever has it
    /// first.
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Slots(one), Self::Slots(other)) => Self::Slots(one.saturating_add(other)),
            (Self::Slots(slots), Self::After(_)) | (Self::After(_), Self::Slots(slots)) => Self::Slots(slots),
            (Self::After(one), Self::After(other)) => Self::After(one.min(other)),
        }
    }

    /// For two upstreams that share their connections.
    pub fn most(self, other: Self) -> Self {
        match (self, other) {
            (Self::Slots(one), Self::Slots(other)) => Self::Slots(one.max(other)),
            _ => self.or(other),
        }
    }
}

impl Breaker {
    /// `cap`: the number of simultaneous attempts at which the recovery is complete; 0 counts as 1.
    pub fn new(cap: usize) -> Self {
        Self {
            cap: cap.max(1),
            state: BreakerState::Closed { room: usize::MAX, running: 0 },
            failures: 0,
            is_shaken: false,
            away_since: None,
            era: 0,
        }
    }

    /// `urgent`: a client waits for the answer. An unavailable upstream is then tried every few seconds; an upstream
    /// that asks for patience is not.
    pub fn admit(&mut self, now: Instant, urgent: bool) -> Admission {
        match &mut self.state {
            BreakerState::Closed { room, running } if *running < *room => *running += 1,
            BreakerState::Closed { .. } | BreakerState::HalfOpen => return Admission::Full,
            BreakerState::Open { until, soonest } => match if urgent { *soonest } else { *until } {
                until if now < until => return Admission::Unavailable(until),
                _ => self.state = BreakerState::HalfOpen,
            },
        }
        Admission::Go(AttemptPass { era: self.era })
    }

    /// From now on.
    pub fn set_cap(&mut self, cap: usize) {
        self.cap = cap.max(1);
    }

    /// How many attempts could be under way now.
    pub fn capacity(&self, now: Instant) -> Capacity {
        match self.state {
            BreakerState::Closed { room, .. } => Capacity::Slots(room.min(self.cap)),
            BreakerState::Open { until, .. } if now < until => Capacity::After(until),
            BreakerState::Open { .. } | BreakerState::HalfOpen => Capacity::Slots(1),
        }
    }

    /// Zero if it is available; failed probes do not reset it.
    pub fn unavailable_for(&self, now: Instant) -> Duration {
        self.away_since.map(|since| now.saturating_duration_since(since)).unwrap_or_default()
    }

    /// Results of attempts that began before a failure are stale, and none of them continues.
    pub fn is_current(&self, pass: AttemptPass) -> bool {
        pass.era == self.era
    }

    pub fn is_closed(&self) -> bool {
        matches!(self.state, BreakerState::Closed { .. })
    }

    /// An attempt ended. Returns the length of the pause if a new one began.
    pub fn ended(&mut self, pass: AttemptPass, signal: Signal, now: Instant, jitter: u16) -> Option<Duration> {
        if !self.is_current(pass) {
            return None;
        }
        let was_shaken = self.is_shaken;
        self.is_shaken = signal == Signal::Broken || (was_shaken && signal == Signal::None);
        match (signal, self.state) {
            (Signal::Broken, BreakerState::Closed { room, running }) if !was_shaken => {
                self.state = BreakerState::Closed { room, running: running.saturating_sub(1) };
            }
            (Signal::Success, BreakerState::Closed { room, running }) => self.widen(room, running.saturating_sub(1)),
            (Signal::Success, _) => self.widen(1, 0),
            (Signal::None, BreakerState::Closed { room, running }) => {
                self.state = BreakerState::Closed { room, running: running.saturating_sub(1) };
            }
            // The next attempt is the probe.
            (Signal::None, _) => self.state = BreakerState::Open { until: now, soonest: now },
            (Signal::Unavailable | Signal::Broken, _) => {
                return Some(self.open(LONGEST_PAUSE, SHORT_PAUSE, now, jitter));
            }
            (Signal::SlowDown, _) => return Some(self.open(LONGEST_REST, LONGEST_REST, now, jitter)),
        }
        None
    }

    /// Ends the pause, because the caller knows more. One probe may then start.
    pub fn cut_pause(&mut self, now: Instant) {
        if let BreakerState::Open { until, soonest } = &mut self.state {
            *until = now.min(*until);
            *soonest = now.min(*soonest);
        }
    }

    /// Another gateway saw the upstream fail: open until then.
    pub fn follow_failure(&mut self, now: Instant, until: Instant, soonest: Instant, failures: u32) {
        if let BreakerState::Open { until: known, .. } = self.state
            && known > until
        {
            return;
        }
        self.failures = self.failures.max(failures);
        self.away_since.get_or_insert(now);
        self.era += 1;
        self.state = BreakerState::Open { until, soonest };
    }

    /// Another gateway's probe succeeded.
    pub fn follow_success(&mut self) {
        if !self.is_closed() {
            self.era += 1;
            self.widen(1, 0);
        }
    }

    /// The attempt was not the probe after all: another gateway makes it, and its result is known by then.
    pub fn give_up_probe(&mut self, pass: AttemptPass, until: Instant) {
        if self.is_current(pass) && self.state == BreakerState::HalfOpen {
            self.state = BreakerState::Open { until, soonest: until };
        }
    }

    pub fn is_half_open(&self) -> bool {
        self.state == BreakerState::HalfOpen
    }

    /// Until when it is open, for others and for a caller that waits; and how often it has failed.
    pub fn open_until(&self) -> Option<(Instant, Instant, u32)> {
        match self.state {
            BreakerState::Open { until, soonest } => Some((until, soonest, self.failures)),
            BreakerState::Closed { .. } | BreakerState::HalfOpen => None,
        }
    }

    fn widen(&mut self, room: usize, running: usize) {
        self.away_since = None;
        let room = room.saturating_add(1);
        if room >= self.cap {
            self.failures = 0;
        }
        self.state = BreakerState::Closed { room: if room >= self.cap { usize::MAX } else { room }, running };
    }

    fn open(&mut self, longest: Duration, short: Duration, now: Instant, jitter: u16) -> Duration {
        let pause = spread(doubled(FIRST_PAUSE, self.failures, longest), jitter);
        self.failures = self.failures.saturating_add(1);
        self.away_since.get_or_insert(now);
        self.era += 1;
        let after = |pause| now.checked_add(pause).unwrap_or(now);
        self.state = BreakerState::Open { until: after(pause), soonest: after(pause.min(short)) };
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDDLE: u16 = u16::MAX / 2;
    const SECOND: Duration = Duration::from_secs(1);

    fn go(breaker: &mut Breaker, now: Instant) -> AttemptPass {
        match breaker.admit(now, false) {
            Admission::Go(pass) => pass,
            other => panic!("{other:?}"),
        }
    }

    fn fail(breaker: &mut Breaker, now: Instant) -> Duration {
        let pass = go(breaker, now);
        breaker.ended(pass, Signal::Unavailable, now, MIDDLE).expect("a pause")
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_pause_one_goes_ahead_and_each_success_makes_room_for_one() {
        let mut breaker = Breaker::new(5);
        let start = Instant::now();
        assert_eq!(breaker.capacity(start), Capacity::Slots(5));
        let pause = fail(&mut breaker, start);
        let back = start + pause;
        assert_eq!(
            (breaker.admit(start, false), breaker.capacity(start)),
            (Admission::Unavailable(back), Capacity::After(back))
        );
        let mut passes = vec![go(&mut breaker, back)];
        for room in [2, 3, 4, 5] {
            assert_eq!(breaker.admit(back, false), Admission::Full, "no more than {} at once", passes.len());
            breaker.ended(passes.remove(0), Signal::Success, back, MIDDLE);
            assert_eq!(breaker.capacity(back), Capacity::Slots(room));
            while passes.len() < room {
                passes.push(go(&mut breaker, back));
            }
        }
        assert!(matches!(breaker.admit(back, false), Admission::Go(_)), "from the cap on the pool decides");
    }

    #[tokio::test(start_paused = true)]
    async fn exactly_one_probe_until_something_came_of_it() {
        let mut breaker = Breaker::new(4);
        let start = Instant::now();
        let later = start + fail(&mut breaker, start);
        let probe = go(&mut breaker, later);
        assert_eq!((breaker.admit(later, false), breaker.capacity(later)), (Admission::Full, Capacity::Slots(1)));
        assert_eq!(breaker.ended(probe, Signal::None, later, MIDDLE), None);
        let probe = go(&mut breaker, later);
        let pause = breaker.ended(probe, Signal::Unavailable, later, MIDDLE).expect("a pause");
        assert!(pause > SECOND && breaker.admit(later, false) == Admission::Unavailable(later + pause));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_under_way_at_a_failure_neither_prolongs_nor_ends_the_pause() {
        let mut breaker = Breaker::new(4);
        let start = Instant::now();
        let passes: Vec<AttemptPass> = (0..4).map(|_| go(&mut breaker, start)).collect();
        let pause = breaker.ended(passes[0], Signal::SlowDown, start, MIDDLE).expect("a pause");
        for (pass, signal) in passes[1..].iter().zip([Signal::Unavailable, Signal::Success, Signal::SlowDown]) {
            assert_eq!(breaker.ended(*pass, signal, start + SECOND, MIDDLE), None);
            assert!(!breaker.is_current(*pass));
        }
        assert_eq!(breaker.capacity(start), Capacity::After(start + pause));
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_an_end_until_the_cap_is_reached_again() {
        for (signal, longest) in [(Signal::Unavailable, 300), (Signal::SlowDown, 600)] {
            let mut breaker = Breaker::new(2);
            let mut now = Instant::now();
            let mut pauses = Vec::new();
            for _ in 0..12 {
                let pass = go(&mut breaker, now);
                let pause = breaker.ended(pass, signal, now, MIDDLE).expect("a pause");
                pauses.push(pause.as_secs_f64().round() as u64);
                now += pause;
            }
            let doubling = (0..12).map(|times| (1 << times).min(longest));
            assert_eq!(pauses, doubling.collect::<Vec<_>>());
            let probe = go(&mut breaker, now);
            breaker.ended(probe, Signal::Success, now, MIDDLE);
            let pass = go(&mut breaker, now);
            assert!(breaker.ended(pass, signal, now, 0).is_some_and(|pause| pause < SECOND));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_broken_connection_is_ignored_and_two_in_a_row_are_not() {
        let mut breaker = Breaker::new(2);
        let now = Instant::now();
        for (signal, pauses) in [
            (Signal::Broken, false),
            (Signal::Success, false),
            (Signal::Broken, false),
            (Signal::None, false),
            (Signal::Broken, true),
        ] {
            let pass = go(&mut breaker, now);
            assert_eq!(breaker.ended(pass, signal, now, MIDDLE).is_some(), pauses, "{signal:?}");
        }
        breaker.cut_pause(now);
        let probe = go(&mut breaker, now);
        assert!(breaker.ended(probe, Signal::Broken, now, MIDDLE).is_some(), "a probe has one chance");
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_client_is_admitted_after_seconds_unless_the_provider_asked_for_patience() {
        for (signal, let_ahead) in [(Signal::Unavailable, true), (Signal::SlowDown, false)] {
            let mut breaker = Breaker::new(2);
            let mut now = Instant::now();
            for _ in 0..8 {
                let pass = go(&mut breaker, now);
                now += breaker.ended(pass, signal, now, MIDDLE).expect("a pause");
            }
            let pass = go(&mut breaker, now);
            breaker.ended(pass, signal, now, MIDDLE);
            assert!(matches!(breaker.admit(now + 4 * SECOND, true), Admission::Unavailable(_)));
            assert!(matches!(breaker.admit(now + 6 * SECOND, false), Admission::Unavailable(_)));
            assert_eq!(matches!(breaker.admit(now + 6 * SECOND, true), Admission::Go(_)), let_ahead);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_away_from_the_first_failure_until_something_gets_through() {
        let mut breaker = Breaker::new(2);
        let start = Instant::now();
        assert_eq!(breaker.unavailable_for(start), Duration::ZERO);
        let again = start + fail(&mut breaker, start);
        let back = again + fail(&mut breaker, again);
        assert_eq!(breaker.unavailable_for(back), back - start);
        let probe = go(&mut breaker, back);
        assert_eq!(breaker.unavailable_for(back), back - start, "until something came of it");
        breaker.ended(probe, Signal::Success, back, MIDDLE);
        assert_eq!(breaker.unavailable_for(back), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_is_cut_lets_one_go_ahead_at_once() {
        let mut breaker = Breaker::new(8);
        let now = Instant::now();
        fail(&mut breaker, now);
        breaker.cut_pause(now);
        assert_eq!(breaker.capacity(now), Capacity::Slots(1));
        go(&mut breaker, now);
        assert_eq!(breaker.admit(now, false), Admission::Full);
    }
}
