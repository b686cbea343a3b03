//! What only this backend promises, and the conformance suite run against it.

mod commits;
mod damaged;
mod disk;
mod envelopes;
mod files;
mod filters;
mod opening;
pub(super) mod plans;

use super::{SqliteOptions, SqliteQueue};
use crate::observe::Clock;
use crate::queue::Backend;
use crate::queue::conformance::{Factory, conformance};
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// A temporary folder for one queue.
struct Folder {
    folder: TempDir,
    cache_octets: u64,
}

impl Folder {
    fn new(cache_octets: u64) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), cache_octets }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    fn options(&self) -> SqliteOptions {
        SqliteOptions {
            data_dir: self.path(),
            cache_octets: self.cache_octets,
            min_free_space: 0,
            schedule: Default::default(),
            clock: Clock::System,
            metrics: Default::default(),
        }
    }

    fn open(&self) -> SqliteQueue {
        SqliteQueue::open(self.options()).unwrap()
    }
}

#[async_trait::async_trait]
impl Factory for Folder {
    async fn open(&self, clock: Clock) -> Arc<dyn Backend> {
        Arc::new(SqliteQueue::open(SqliteOptions { clock, ..self.options() }).unwrap())
    }
}

mod with_a_cache {
    use super::*;

    conformance!(Folder::new(1 << 20));
}

/// Everything is read from disk.
mod without_a_cache {
    use super::*;

    conformance!(Folder::new(0));
}
