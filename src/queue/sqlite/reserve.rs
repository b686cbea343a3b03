//! A file whose only use is to be removed: where a full disk keeps the queue from being opened, or from recording what is
//! delivered, this is the room for it, and only delivery makes room again.
//!
//! Made at a start with plenty of room, or at a clean close out of what that close has set free; never given up for new mail.

use crate::queue::space::free_octets;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// SQLite's log goes round in it: a lease or a settlement is some tens of KiB.
const OCTETS: u64 = 4 << 20;

/// So much free space is plenty.
const PLENTY: u64 = 16 * OCTETS;

#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    pub(super) fn of(data_dir: &Path) -> Self {
        Self { path: data_dir.join("queue.reserve") }
    }

    /// As much as there is room for. Blocks.
    pub(super) fn keep(&self) {
        if let Err(error) = self.fill() {
            tracing::debug!(path = %self.path.display(), %error, "there is no room for the whole of it");
        }
    }

    /// If nobody misses it. Blocks.
    pub(super) fn keep_of_plenty(&self) {
        if self.path.parent().and_then(free_octets).is_some_and(|free| free >= PLENTY) {
            self.keep();
        }
    }

    fn fill(&self) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        let missing = OCTETS.saturating_sub(file.metadata()?.len());
        io::copy(&mut io::repeat(0).take(missing), &mut file).map(drop)
    }

    /// True if there was one: now there is room.
    pub(super) fn give_up(&self) -> bool {
        let was_there = fs::remove_file(&self.path).is_ok();
        if was_there {
            tracing::warn!("the disk is full: the room that was put by is used, so that delivery goes on");
        }
        was_there
    }
}
