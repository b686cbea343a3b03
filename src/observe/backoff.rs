//! Pauses between attempts: doubled each time up to a bound, and spread so that clients that failed together do not
//! retry together. Computes the pause only; the caller decides whether another attempt makes sense.

use std::time::Duration;
use tokio::time::sleep;

/// For storage that may fail for a long time: one second, then twice as long each time, at most thirty seconds. The
/// storage belongs to the gateway alone, so the pauses are not spread.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    pub const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(30);

    /// Returns the pause after one more failure.
    pub fn pause(&mut self) -> Duration {
        let pause = doubled(Self::FIRST, self.failures, Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    pub async fn wait(&mut self) {
        sleep(self.pause()).await;
    }

    /// Call this after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// `first`, doubled this many times, but at most `longest`.
pub fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times.min(30)).min(longest)
}

/// Spreads a pause by ±20 %: `jitter` in 0..=65535 selects from the shortest to the longest.
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
