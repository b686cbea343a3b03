//! When a commit waits a moment for more operations: while many are under way, so that they share its sync and its pages.
//! A lone operation never waits.
//!
//! PostgreSQL does the same with `commit_siblings`; here the time is counted from the commit before, so that it is no
//! longer than between two commits of a busy queue.

use std::time::{Duration, Instant};

/// From one commit to the next on a busy queue.
const BETWEEN_COMMITS: Duration = Duration::from_millis(5);
/// The queue is busy if this many recipients are leased, each of which will be settled,
const SIBLINGS: i64 = 10;
/// and if at least this many operations arrived during the last [`WINDOW`].
const ARRIVALS: usize = 20;
const WINDOW: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct Pace {
    last_commit: Instant,
    leased: i64,
    window: Instant,
    arrived: usize,
    /// In the window before.
    arrived_before: usize,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { last_commit: now, leased: 0, window: now, arrived: 0, arrived_before: 0 }
    }

    /// How long a commit at this time waits for more operations.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let is_current = now.saturating_duration_since(self.window) < 2 * WINDOW;
        let arrived = self.arrived.max(self.arrived_before);
        if self.leased < SIBLINGS || arrived < ARRIVALS || !is_current {
            return Duration::ZERO;
        }
        (self.last_commit + BETWEEN_COMMITS).saturating_duration_since(now)
    }

    /// `leased`: by how many recipients the number of leased ones has changed.
    pub(super) fn committed(&mut self, now: Instant, operations: usize, leased: i64) {
        self.last_commit = now;
        self.leased += leased;
        let elapsed = now.saturating_duration_since(self.window);
        if elapsed >= WINDOW {
            self.arrived_before = if elapsed < 2 * WINDOW { self.arrived } else { 0 };
            (self.window, self.arrived) = (now, 0);
        }
        self.arrived += operations;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commits of `operations` each, a millisecond apart.
    fn after(commits: u32, operations: usize, leased: i64) -> (Pace, Instant) {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.committed(start, 0, leased);
        let at = |number: u32| start + number * Duration::from_millis(1);
        (1..=commits).for_each(|number| pace.committed(at(number), operations, 0));
        (pace, at(commits))
    }

    #[test]
    fn a_busy_queue_commits_every_few_milliseconds() {
        let (pace, now) = after(30, 5, 20);
        assert_eq!(pace.wait(now), BETWEEN_COMMITS);
        assert_eq!(pace.wait(now + Duration::from_millis(1)), BETWEEN_COMMITS - Duration::from_millis(1));
        assert_eq!(pace.wait(now + BETWEEN_COMMITS), Duration::ZERO);
    }

    #[test]
    fn what_comes_alone_does_not_wait() {
        for (commits, operations, leased) in [(0, 0, 0), (30, 1, 20), (30, 5, 1)] {
            let (pace, now) = after(commits, operations, leased);
            assert_eq!(pace.wait(now), Duration::ZERO, "{commits} commits of {operations}, {leased} leased");
        }
        let (pace, now) = after(30, 5, 20);
        assert_eq!(pace.wait(now + Duration::from_secs(60)), Duration::ZERO, "long after the rush");
        let (mut pace, now) = after(30, 5, 20);
        pace.committed(now, 1, -15);
        assert_eq!(pace.wait(now), Duration::ZERO, "most are settled");
    }
}
