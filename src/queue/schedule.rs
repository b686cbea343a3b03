//! When a deferred message is due again: growing waits with jitter, up to a limit. Pure. RFC 5321 §4.5.4.1.

use crate::observe::backoff::{doubled, spread};
use crate::observe::clock::plus;
use jiff::Timestamp;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Wait before the second attempt.
    pub first: Duration,
    pub longest: Duration,
    /// A message that is still deferred after this time has failed.
    pub expire: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        Self { first: Duration::from_secs(30), longest: Duration::from_secs(3600), expire: days(5) }
    }
}

impl Schedule {
    /// `attempts`: how many were made, at least one. `jitter` in 0..=65535 spreads the wait over ±20 %, so that
    /// messages that failed together are not retried together.
    pub fn wait(&self, attempts: u32, jitter: u16) -> Duration {
        spread(doubled(self.first, attempts.saturating_sub(1), self.longest), jitter)
    }

    pub fn due(&self, now: Timestamp, attempts: u32, jitter: u16) -> Timestamp {
        plus(now, self.wait(attempts, jitter))
    }

    /// The latest due time that this schedule can produce. A later one was set before the clock was set back.
    pub fn horizon(&self, now: Timestamp) -> Timestamp {
        plus(now, self.longest.mul_f64(1.25))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_first_to_longest_and_are_spread() {
        let schedule = Schedule::default();
        let middle = u16::MAX / 2;
        for (attempts, seconds) in [(1, 30), (2, 60), (3, 120), (7, 1920), (8, 3600), (40, 3600), (u32::MAX, 3600)] {
            let wait = schedule.wait(attempts, middle);
            assert!(
                wait.abs_diff(Duration::from_secs(seconds)) < Duration::from_millis(seconds),
                "{attempts}: {wait:?}"
            );
            assert_eq!(schedule.wait(attempts, 0), Duration::from_secs(seconds).mul_f64(0.8));
            assert!(schedule.wait(attempts, u16::MAX) <= Duration::from_secs(seconds).mul_f64(1.21));
        }
    }

    #[test]
    fn no_due_time_lies_behind_the_horizon() {
        let schedule = Schedule::default();
        let now: Timestamp = "2026-11-24T03:00:00Z".parse().unwrap();
        assert!(schedule.due(now, 40, u16::MAX) < schedule.horizon(now));
    }
}
