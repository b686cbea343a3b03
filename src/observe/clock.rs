//! The wall clock as a value, so that tests can set it. Waiting uses tokio's clock, which tests can pause.
//! Never used to measure how long something took: it may jump.

use std::sync::{Arc, Mutex, PoisonError};

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
