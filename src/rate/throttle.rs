//! `Throttle`: which fraction of the configured limits is used now, after the provider's latest replies.
//!
//! Pure. "Slow down" halves the rate and the connections at once; each accepted message restores a sixty-fourth.

use std::time::Duration;

const FULL: u32 = 64;

/// A fraction of the configured limits, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThrottleFactor(u32);

impl ThrottleFactor {
    pub const WHOLE: Self = Self(FULL);

    /// The interval stretched by the factor.
    pub fn stretched(self, interval: Duration) -> Duration {
        interval.saturating_mul(FULL) / self.0
    }

    /// At least one.
    pub fn of(self, cap: usize) -> usize {
        (cap.saturating_mul(self.0 as usize) / FULL as usize).max(1)
    }
}

#[derive(Debug)]
pub struct Throttle {
    share: ThrottleFactor,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { share: ThrottleFactor::WHOLE }
    }
}

impl Throttle {
    pub fn share(&self) -> ThrottleFactor {
        self.share
    }

    pub fn slow_down(&mut self) {
        self.share = ThrottleFactor((self.share.0 / 2).max(1));
    }

    pub fn recover(&mut self) {
        self.share = ThrottleFactor((self.share.0 + 1).min(FULL));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn down_by_halves_to_a_floor_and_back_in_steps() {
        let mut throttle = Throttle::default();
        let second = Duration::from_secs(1);
        let mut seen = Vec::new();
        for _ in 0..8 {
            seen.push((throttle.share().of(12), throttle.share().stretched(second).as_secs()));
            throttle.slow_down();
        }
        assert_eq!(seen, [(12, 1), (6, 2), (3, 4), (1, 8), (1, 16), (1, 32), (1, 64), (1, 64)]);
        for _ in 0..63 {
            assert_ne!(throttle.share(), ThrottleFactor::WHOLE);
            throttle.recover();
        }
        assert_eq!(throttle.share(), ThrottleFactor::WHOLE);
        throttle.recover();
        assert_eq!(throttle.share().of(12), 12);
    }
}
