//! How long a caller is willing to wait. Every step waits until its own timeout or this deadline, whichever ends first.
//! Never extends a timeout, and never shortens one if no one waits. RFC 5321 §4.5.3.2.

use std::time::Duration;
use tokio::time::Instant;

/// `at: None` means that only the steps' own time-outs count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deadline {
    pub at: Option<Instant>,
}

/// The deadline passed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expired;

impl Deadline {
    pub const NONE: Self = Self { at: None };

    pub fn after(duration: Duration) -> Self {
        // A deadline beyond the clock's range means never.
        Self { at: Instant::now().checked_add(duration) }
    }

    /// This deadline, or `duration` from now if that is earlier.
    pub fn capped(self, duration: Duration) -> Self {
        let capped = Self::after(duration).at;
        Self { at: self.at.into_iter().chain(capped).min() }
    }

    pub fn has_passed(self) -> bool {
        self.at.is_some_and(|at| at <= Instant::now())
    }

    /// `None` if there is no deadline; zero if it has passed.
    pub fn remaining(self) -> Option<Duration> {
        self.at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    pub(super) async fn limit<F: Future>(self, future: F) -> Result<F::Output, Expired> {
        match self.at {
            Some(at) => tokio::time::timeout_at(at, future).await.map_err(|_| Expired),
            None => Ok(future.await),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_counts() {
        let second = Duration::from_secs(1);
        assert_eq!(Deadline::NONE.capped(second).remaining(), Some(second));
        assert_eq!(Deadline::after(3 * second).capped(second).remaining(), Some(second));
        assert_eq!(Deadline::after(second).capped(3 * second).remaining(), Some(second));
        assert_eq!(Deadline::NONE.capped(Duration::MAX), Deadline::NONE);
        let soon = Deadline::after(second);
        assert_eq!(soon.limit(std::future::pending::<()>()).await, Err(Expired));
        assert!(soon.has_passed() && !Deadline::NONE.has_passed());
    }
}
