//! Pauses between attempts: doubled each time up to a bound, and spread so that those who failed together do not come back
//! together. Says how long; whether another attempt makes sense is the caller's decision.

use std::time::Duration;
use tokio::time::sleep;

/// For storage that fails, perhaps for long: one second, then twice as long each time, thirty seconds at most. The
/// storage is the gateway's own, so nothing has to be spread.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    pub const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(30);

    /// The pause after one more failure.
    pub fn pause(&mut self) -> Duration {
        let pause = doubled(Self::FIRST, self.failures, Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    pub async fn wait(&mut self) {
        sleep(self.pause()).await;
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// `first`, doubled so many times; `longest` at most.
pub fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times.min(30)).min(longest)
}

/// By ±20 %: `jitter` in 0..=65535 from the shortest to the longest.
pub fn spread(pause: Duration, jitter: u16) -> Duration {
    pause.mul_f64(0.8 + 0.4 * f64::from(jitter) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again() {
        let mut backoff = Backoff::default();
        let seconds: Vec<_> = (0..7).map(|_| backoff.pause().as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30]);
        backoff.failures = u32::MAX;
        assert_eq!(backoff.pause().as_secs(), 30);
        backoff.reset();
        assert_eq!(backoff.pause(), Backoff::FIRST);
    }

    #[test]
    fn a_spread_stays_within_a_fifth() {
        let pause = Duration::from_secs(10);
        assert_eq!(spread(pause, 0), Duration::from_secs(8));
        assert!(spread(pause, u16::MAX).abs_diff(Duration::from_secs(12)) < Duration::from_micros(1));
    }
}
