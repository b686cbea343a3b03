//! Converts between this machine's clock and the server's. What waits in a shared queue is due by one clock, the server's,
//! so that no instance whose clock is wrong sends mail early or never.

use crate::observe::Clock;
use crate::observe::clock::plus;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// The largest whole number that Redis writes as one: year 2112.
const LATEST: i64 = (1 << 52) - 1;

#[derive(Debug)]
pub(super) struct Times {
    clock: Clock,
    /// The server's clock in microseconds since 1970, and when it showed that; `None`: it is not asked, and taken for the
    /// same (for tests that set the clock).
    measured: Mutex<Option<(i64, Instant)>>,
}

impl Times {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, measured: Mutex::default() }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The server's clock showed this just now.
    pub(super) fn measure(&self, server: i64) {
        if matches!(self.clock, Clock::System) {
            *self.measured.lock() = Some((server, Instant::now()));
        }
    }

    fn server_now(&self) -> Option<i64> {
        let (server, at) = (*self.measured.lock())?;
        Some(server.saturating_add(micros(at.elapsed())))
    }

    /// Microseconds since 1970 by the server's clock.
    pub(super) fn to_server(&self, at: Timestamp) -> i64 {
        let at = match self.server_now() {
            Some(now) => now.saturating_add(at.as_microsecond().saturating_sub(self.clock.now().as_microsecond())),
            None => at.as_microsecond(),
        };
        at.clamp(0, LATEST)
    }

    pub(super) fn to_local(&self, at: i64) -> Timestamp {
        match self.server_now() {
            Some(now) if at >= now => plus(self.clock.now(), Duration::from_micros(at.abs_diff(now))),
            Some(now) => {
                let since = SignedDuration::from_micros(i64::try_from(at.abs_diff(now)).unwrap_or(i64::MAX));
                self.clock.now().checked_sub(since).unwrap_or(Timestamp::MIN)
            }
            None => Timestamp::from_microsecond(at).unwrap_or(Timestamp::MAX),
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_due_time_is_as_far_ahead_by_the_servers_clock_as_by_this_one() {
        let times = Times::new(Clock::System);
        let year = 365 * 24 * 3600 * 1_000_000;
        let server = Timestamp::now().as_microsecond() - year;
        times.measure(server);
        let soon = Timestamp::now() + Duration::from_secs(60);
        let due = times.to_server(soon);
        assert!((due - server).abs_diff(60_000_000) < 5_000_000, "{due} {server}");
        assert!(times.to_local(due).duration_since(soon).abs() < SignedDuration::from_secs(5));
        for extreme in [Timestamp::MIN, Timestamp::MAX] {
            assert!((0..=LATEST).contains(&times.to_server(extreme)));
        }
    }
}
