//! How much a lane may do at once, by what its upstreams last did: pause, probe, and back to the cap without a storm.
//!
//! A pure state machine; time and chance are passed in. An attempt that ended badly because of its upstreams pauses the
//! lane; after the pause one attempt goes ahead alone, and each that succeeds makes room for one more: one, two, four, …
//! up to the cap.

use std::time::Duration;
use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// What an attempt says about the lane's upstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// One of them took or judged the message.
    Up,
    /// None could be reached, or none would do its work.
    Away,
    /// Nothing: the attempt ended before one was asked.
    None,
}

/// Which pause an attempt was begun after. What attempts from before a pause find out is old news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Era(u64);

/// What may be begun now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// So many attempts more.
    Slots(usize),
    /// None before then.
    After(Instant),
}

#[derive(Debug)]
pub struct Health {
    cap: usize,
    /// At most `cap`.
    allowed: usize,
    /// Not before then.
    paused_until: Option<Instant>,
    /// Pauses since the lane last ran at its cap.
    pauses: u32,
    era: Era,
}

impl Health {
    /// `cap`: attempts at once; 0 counts as 1.
    pub fn new(cap: usize) -> Self {
        let cap = cap.max(1);
        Self { cap, allowed: cap, paused_until: None, pauses: 0, era: Era(0) }
    }

    pub fn era(&self) -> Era {
        self.era
    }

    /// From a pause until the cap is reached again.
    pub fn is_recovering(&self) -> bool {
        self.allowed < self.cap || self.pauses > 0
    }

    pub fn room(&self, running: usize, now: Instant) -> Room {
        match self.paused_until.filter(|&until| now < until) {
            Some(until) => Room::After(until),
            None => Room::Slots(self.allowed.saturating_sub(running)),
        }
    }

    /// The pause ends: somebody knows more than the lane does. What may be begun is still one attempt alone.
    pub fn cut_pause(&mut self) {
        self.paused_until = None;
    }

    /// An attempt begun in `era` ended. Returns how long the lane pauses, if that is new.
    pub fn ended(&mut self, era: Era, sign: Sign, now: Instant, chance: u16) -> Option<Duration> {
        if era != self.era {
            return None;
        }
        match sign {
            Sign::None => None,
            Sign::Up => {
                self.allowed = (self.allowed + 1).min(self.cap);
                if self.allowed == self.cap {
                    self.pauses = 0;
                }
                None
            }
            Sign::Away => {
                let pause = pause(self.pauses, chance);
                self.allowed = 1;
                self.pauses = self.pauses.saturating_add(1);
                self.paused_until = now.checked_add(pause);
                self.era = Era(self.era.0 + 1);
                Some(pause)
            }
        }
    }
}

/// Doubles each time, spread over ±20 % so that lanes of one upstream do not come back together.
fn pause(before: u32, chance: u16) -> Duration {
    let pause = FIRST_PAUSE.saturating_mul(1 << before.min(16)).min(LONGEST_PAUSE);
    pause.mul_f64(0.8 + 0.4 * f64::from(chance) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDDLE: u16 = u16::MAX / 2;

    fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_pause_one_goes_ahead_and_each_success_makes_room_for_one() {
        let mut health = Health::new(10);
        let start = Instant::now();
        assert_eq!(health.room(0, start), Room::Slots(10));
        assert_eq!(health.room(10, start), Room::Slots(0));
        let era = health.era();
        let pause = health.ended(era, Sign::Away, start, MIDDLE).expect("a pause");
        let Room::After(until) = health.room(0, start) else { panic!("paused") };
        assert_eq!(until, start + pause);
        assert_eq!(health.room(0, until), Room::Slots(1));
        assert_eq!(health.room(1, until), Room::Slots(0), "the probe is alone");
        for allowed in [2, 3, 4, 5, 6, 7, 8, 9, 10, 10] {
            health.ended(health.era(), Sign::Up, until, MIDDLE);
            assert_eq!(health.room(0, until), Room::Slots(allowed));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_under_way_at_a_pause_neither_prolongs_nor_ends_it() {
        let mut health = Health::new(4);
        let (start, era) = (Instant::now(), health.era());
        let pause = health.ended(era, Sign::Away, start, MIDDLE).expect("a pause");
        for sign in [Sign::Away, Sign::Up, Sign::None] {
            assert_eq!(health.ended(era, sign, start + second(10), MIDDLE), None);
        }
        assert_eq!(health.room(0, start), Room::After(start + pause));
        assert_eq!(health.room(0, start + pause), Room::Slots(1));
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_five_minutes_until_the_cap_is_reached_again() {
        let mut health = Health::new(2);
        let now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let pause = health.ended(health.era(), Sign::Away, now, MIDDLE).expect("a pause");
            pauses.push(pause.as_secs_f64().round() as u64);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        health.ended(health.era(), Sign::Up, now, MIDDLE);
        assert_eq!(health.room(0, now + second(600)), Room::Slots(2));
        assert!(health.ended(health.era(), Sign::Away, now, 0).is_some_and(|pause| pause < second(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_asked_nobody_says_nothing() {
        let mut health = Health::new(0);
        let now = Instant::now();
        assert_eq!(health.ended(health.era(), Sign::None, now, MIDDLE), None);
        assert_eq!(health.room(0, now), Room::Slots(1));
    }
}
