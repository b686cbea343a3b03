//! The clocks as a value, so that tests can set them: the wall clock, which anyone may set, and the monotonic clocks of
//! this process and of the machine. Waiting uses tokio's clock, which tests can pause.

use jiff::SignedDuration;
#[cfg(test)]
use parking_lot::Mutex;
use std::fs;
#[cfg(test)]
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

#[derive(Debug, Clone)]
pub enum Clock {
    System,
    /// Follows tokio's clock, which tests can pause.
    #[cfg(test)]
    Along {
        at: Arc<Mutex<jiff::Timestamp>>,
        since: tokio::time::Instant,
    },
    /// Stands still until a test moves it.
    #[cfg(test)]
    Simulated(Arc<Mutex<Simulated>>),
}

/// Identifies a boot of the machine, with its uptime including sleep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    pub id: String,
    pub uptime: Duration,
}

/// No correct clock shows an earlier time, because this code was written later.
pub const EARLIEST: jiff::Timestamp = jiff::Timestamp::constant(1_793_491_200, 0);

/// `at` plus `duration`, but at most the end of time, whatever a configuration asks for.
pub fn plus(at: jiff::Timestamp, duration: Duration) -> jiff::Timestamp {
    let later = SignedDuration::try_from(duration).ok().and_then(|duration| at.checked_add(duration).ok());
    later.unwrap_or(jiff::Timestamp::MAX)
}

/// By the system's clock, as in DKIM's timestamps; 0 before 1970.
pub fn seconds_since_epoch() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

impl Clock {
    /// The wall clock's time. Not for measuring how long something took, since it may jump.
    pub fn now(&self) -> jiff::Timestamp {
        match self {
            Self::System => jiff::Timestamp::now(),
            #[cfg(test)]
            Self::Along { at, since } => *at.lock() + since.elapsed(),
            #[cfg(test)]
            Self::Simulated(simulated) => simulated.lock().wall,
        }
    }

    /// A monotonic clock. It stands still while the machine sleeps.
    pub fn instant(&self) -> Instant {
        match self {
            Self::System => Instant::now(),
            #[cfg(test)]
            Self::Along { .. } => tokio::time::Instant::now().into_std(),
            #[cfg(test)]
            Self::Simulated(simulated) => simulated.lock().instant,
        }
    }

    /// `None`: the system does not report it.
    pub fn boot(&self) -> Option<Boot> {
        match self {
            Self::System => boot_of_linux(),
            #[cfg(test)]
            Self::Along { .. } => None,
            #[cfg(test)]
            Self::Simulated(simulated) => simulated.lock().boot.clone(),
        }
    }
}

/// proc(5). The same in every container of a machine.
fn boot_of_linux() -> Option<Boot> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let uptime = Duration::try_from_secs_f64(seconds).ok()?;
    (!id.is_empty()).then_some(Boot { id, uptime })
}

/// The clocks of a simulated machine.
#[cfg(test)]
#[derive(Debug, Clone)]
pub struct Simulated {
    pub wall: jiff::Timestamp,
    pub instant: Instant,
    pub boot: Option<Boot>,
}

#[cfg(test)]
impl Simulated {
    /// `knows_boots`: whether it reports its boot.
    pub fn starting(wall: jiff::Timestamp, knows_boots: bool) -> Self {
        let boot = knows_boots.then(|| Boot { id: "boot 0".to_owned(), uptime: Duration::ZERO });
        Self { wall, instant: Instant::now(), boot }
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        self.wall += time;
        self.instant += time;
        if let Some(boot) = &mut self.boot {
            boot.uptime += time;
        }
    }

    /// Sets the wall clock.
    pub fn jump(&mut self, by: jiff::SignedDuration) {
        self.wall += by;
    }

    pub fn reboot(&mut self) {
        if let Some(boot) = &mut self.boot {
            *boot = Boot { id: format!("{}'", boot.id), uptime: Duration::ZERO };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_says_which_boot_it_is_and_its_clocks_go_on() {
        let clock = Clock::System;
        let first = clock.boot();
        let instant = clock.instant();
        let second = clock.boot();
        if let (Some(first), Some(second)) = (&first, &second) {
            assert_eq!(first.id, second.id);
            assert!(first.uptime <= second.uptime && !second.uptime.is_zero());
        }
        assert!(clock.instant() >= instant);
        assert_eq!(first.is_some(), cfg!(target_os = "linux"));
    }

    #[test]
    fn time_ends_and_does_not_overflow() {
        let second = Duration::from_secs(1);
        assert_eq!(plus(EARLIEST, second), EARLIEST + second);
        for endless in [Duration::MAX, Duration::from_secs(u64::from(u32::MAX) * 1000)] {
            assert_eq!(plus(EARLIEST, endless), jiff::Timestamp::MAX);
        }
    }

    #[test]
    fn the_earliest_time_is_of_the_year_this_was_written() {
        assert_eq!(EARLIEST.to_string(), "2026-11-01T00:00:00Z");
    }
}
