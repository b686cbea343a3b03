//! The wall clock as a value, so that tests can set it. Waiting uses tokio's clock, which tests can pause.
//! Never used to measure how long something took: it may jump.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug, Clone)]
pub enum Clock {
    System,
    /// Stands still until it is set.
    Fixed(Arc<Mutex<jiff::Timestamp>>),
    /// Goes along with tokio's clock, which tests can pause.
    #[cfg(test)]
    Along {
        at: Arc<Mutex<jiff::Timestamp>>,
        since: tokio::time::Instant,
    },
}

impl Clock {
    pub fn fixed(now: jiff::Timestamp) -> Self {
        Self::Fixed(Arc::new(Mutex::new(now)))
    }

    pub fn now(&self) -> jiff::Timestamp {
        match self {
            Self::System => jiff::Timestamp::now(),
            Self::Fixed(now) => *now.lock().unwrap_or_else(PoisonError::into_inner),
            #[cfg(test)]
            Self::Along { at, since } => *at.lock().unwrap_or_else(PoisonError::into_inner) + since.elapsed(),
        }
    }
}

/// A moment by both clocks: from there on they tell how far the wall clock was set since.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    pub at: jiff::Timestamp,
    pub running: Instant,
}

impl Start {
    pub fn now(clock: &Clock) -> Self {
        Self { at: clock.now(), running: Instant::now() }
    }

    /// The wall clock went on by as much as time did, give or take `tolerance`.
    pub fn is_steady(&self, clock: &Clock, tolerance: Duration) -> bool {
        let wall = clock.now().duration_since(self.at);
        jiff::SignedDuration::try_from(self.running.elapsed())
            .is_ok_and(|running| (wall - running).unsigned_abs() <= tolerance)
    }
}
