//! `Pace`: how much of what is configured is used just now, by what the provider last said to it.
//!
//! Pure. "Slow down" halves the rate and the connections at once; each message that is taken gives a sixty-fourth back.

use std::time::Duration;

const FULL: u32 = 64;

/// A part of the whole; never nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay) struct Share(u32);

impl Share {
    pub(super) const WHOLE: Self = Self(FULL);

    /// An interval that is the longer, the smaller the share.
    pub(super) fn stretched(self, interval: Duration) -> Duration {
        interval.saturating_mul(FULL) / self.0
    }

    /// At least one.
    pub(in crate::relay) fn of(self, cap: usize) -> usize {
        (cap.saturating_mul(self.0 as usize) / FULL as usize).max(1)
    }
}

#[derive(Debug)]
pub(in crate::relay) struct Pace {
    share: Share,
}

impl Default for Pace {
    fn default() -> Self {
        Self { share: Share::WHOLE }
    }
}

impl Pace {
    pub(in crate::relay) fn share(&self) -> Share {
        self.share
    }

    pub(in crate::relay) fn slow_down(&mut self) {
        self.share = Share((self.share.0 / 2).max(1));
    }

    pub(in crate::relay) fn taken(&mut self) {
        self.share = Share((self.share.0 + 1).min(FULL));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn down_by_halves_to_a_floor_and_back_in_steps() {
        let mut pace = Pace::default();
        let second = Duration::from_secs(1);
        let mut seen = Vec::new();
        for _ in 0..8 {
            seen.push((pace.share().of(12), pace.share().stretched(second).as_secs()));
            pace.slow_down();
        }
        assert_eq!(seen, [(12, 1), (6, 2), (3, 4), (1, 8), (1, 16), (1, 32), (1, 64), (1, 64)]);
        for _ in 0..63 {
            assert_ne!(pace.share(), Share::WHOLE);
            pace.taken();
        }
        assert_eq!(pace.share(), Share::WHOLE);
        pace.taken();
        assert_eq!(pace.share().of(12), 12);
    }
}
