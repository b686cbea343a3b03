//! The queue's backends by name: the one place that knows which exist. `[queue] backend` decides, and everything else
//! sees a [`Backend`].

use crate::config::{BackendSettings, QueueLocation};
use crate::observe::Clock;
use crate::observe::fault::Fault;
use crate::observe::metrics::QueueMetrics;
use crate::queue::export_file::{ExportError, ExportItem};
use crate::queue::redis::{RedisQueue, RedisQueueOptions, SpoolOptions, spool_folder};
use crate::queue::schedule::Schedule;
use crate::queue::sqlite::{self, SqliteOptions, SqliteQueue};
use crate::queue::{Backend, QueueError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tracing::warn;

/// Options for opening a backend.
#[derive(Debug, Clone)]
pub struct BackendOptions {
    /// Octets of newly stored messages that may stay in memory until they are leased.
    pub cache_octets: u64,
    /// Octets of disk space that new mail leaves free.
    pub min_free_space: u64,
    pub schedule: Schedule,
    pub metrics: QueueMetrics,
    /// False: a command.
    pub is_gateway: bool,
}

impl BackendOptions {
    /// For commands, which store and lease nothing and therefore need neither space, nor a cache, nor the schedule.
    pub fn for_commands() -> Self {
        Self {
            cache_octets: 0,
            min_free_space: u64::MAX,
            schedule: Schedule::default(),
            metrics: QueueMetrics::default(),
            is_gateway: false,
        }
    }

    /// As for commands; mail that is imported leaves the space that a gateway needs at least.
    pub fn for_import() -> Self {
        Self { min_free_space: sqlite::SMALLEST_FLOOR, ..Self::for_commands() }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error(transparent)]
    Sqlite(#[from] sqlite::OpenError),
    #[error(transparent)]
    Redis(#[from] QueueError),
    #[error("a fault of the program: {0}")]
    Fault(String),
}

/// The caller must hold the lock of the data folder for as long as the queue is open.
pub async fn open(location: QueueLocation, options: BackendOptions) -> Result<Arc<dyn Backend>, BackendError> {
    match location.backend {
        BackendSettings::Sqlite => {
            let spool = spool_folder(&location.data_dir);
            if options.is_gateway && sqlite::exists(&spool).unwrap_or(false) {
                warn!(
                    spool = %spool.display(),
                    "the queue was in Redis before, and this folder may hold mail that did not get there; with backend = \"redis\" it is \
                     moved, or `waxseal queue export` writes it to a file"
                );
            }
            let options = SqliteOptions {
                data_dir: location.data_dir,
                cache_octets: options.cache_octets,
                min_free_space: options.min_free_space,
                schedule: options.schedule,
                clock: Clock::System,
                metrics: options.metrics,
            };
            let opened = tokio::task::spawn_blocking(|| SqliteQueue::open(options)).await;
            let queue = opened.map_err(|failure| BackendError::Fault(Fault(&failure).to_string()))??;
            Ok(Arc::new(queue))
        }
        BackendSettings::Redis(redis) => {
            let BackendOptions { is_gateway, min_free_space, metrics, schedule, .. } = options;
            let spool = SpoolOptions { min_free_space, metrics: metrics.clone() };
            let options = RedisQueueOptions::new(*redis, location.data_dir, schedule);
            let options = RedisQueueOptions { is_gateway, spool, metrics, ..options };
            Ok(Arc::new(RedisQueue::open(options).await?))
        }
    }
}

/// Accepts what Redis holds now as the queue of this data folder, whose lock the caller holds. Returns how many acknowledged
/// messages are missing; there are none for a database.
pub async fn adopt(location: QueueLocation, options: BackendOptions) -> Result<u64, BackendError> {
    match location.backend {
        BackendSettings::Sqlite => Ok(0),
        BackendSettings::Redis(redis) => {
            let options = RedisQueueOptions::new(*redis, location.data_dir, options.schedule);
            Ok(RedisQueue::adopt(options).await?)
        }
    }
}

/// Calls `each` with everything that is in the queue, beside a running gateway or without one. `all` learns the number of messages
/// first. A database is read as it is at one moment; in Redis each message is read by itself.
pub async fn export(
    location: QueueLocation,
    all: impl FnOnce(u64),
    each: &mut (dyn FnMut(ExportItem) -> io::Result<()> + Send),
) -> Result<(), ExportError> {
    match location.backend {
        BackendSettings::Sqlite => sqlite::export(&location.data_dir, all, each),
        BackendSettings::Redis(redis) => {
            let options = RedisQueueOptions::new(*redis, location.data_dir, Schedule::default());
            RedisQueue::export(RedisQueueOptions { is_gateway: false, ..options }, all, each).await
        }
    }
}

/// Whether a queue was ever created there. Creates none.
pub fn exists(location: &QueueLocation) -> io::Result<bool> {
    match location.backend {
        BackendSettings::Sqlite => sqlite::exists(&location.data_dir),
        // Only the server knows.
        BackendSettings::Redis(_) => Ok(true),
    }
}

/// Whether opening it changes nothing, not even to a newer form. An error: there is none, or it cannot be read.
pub fn is_settled(location: &QueueLocation) -> io::Result<bool> {
    match location.backend {
        BackendSettings::Sqlite => sqlite::is_settled(&location.data_dir),
        BackendSettings::Redis(_) => Ok(true),
    }
}

/// For operations that exist only for a database and its files: `waxseal queue check` and `salvage`. `None` for another
/// backend.
pub fn database_folder(location: &QueueLocation) -> Option<&Path> {
    match location.backend {
        BackendSettings::Sqlite => Some(&location.data_dir),
        BackendSettings::Redis(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_look_for_a_queue_makes_none_and_finds_the_one_that_was_opened() {
        let folder = tempfile::tempdir().unwrap();
        let location = QueueLocation { data_dir: folder.path().to_owned(), backend: BackendSettings::Sqlite };
        assert!(!exists(&location).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let queue = open(location.clone(), BackendOptions::for_commands()).await.unwrap();
        assert_eq!(queue.statistics().await.unwrap().waiting, 0);
        queue.close().await;
        assert!(exists(&location).unwrap());
    }
}
