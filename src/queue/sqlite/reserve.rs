//! Files whose only use is to be removed: where a full disk keeps the queue from being opened, or from recording what is delivered,
//! this is the room for it, and only delivery makes room again.
//!
//! Together as large as the smallest floor, which is what they stand in for where somebody else has taken the free space; several,
//! so that each is room for a while, and an inode. Made while there is plenty of room, or at a clean close out of what that close has
//! set free; never given up for new mail.

use super::space::{SMALLEST_FLOOR, Space};
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

const FILES: u64 = 4;
const OCTETS: u64 = SMALLEST_FLOOR / FILES;

#[derive(Debug)]
pub(super) struct Reserve {
    /// In the order in which they are made.
    paths: Vec<PathBuf>,
    /// How many there were at most: a disk that never had room for more gets no more at the close.
    most: AtomicUsize,
    there: AtomicUsize,
}

impl Reserve {
    pub(super) fn of(data_dir: &Path) -> Self {
        let name = |number| match number {
            1 => data_dir.join("queue.reserve"),
            number => data_dir.join(format!("queue.reserve-{number}")),
        };
        let paths: Vec<_> = (1..=FILES).map(name).collect();
        let there = paths.iter().take_while(|path| path.exists()).count();
        Self { paths, most: there.into(), there: there.into() }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.there.load(Ordering::Relaxed) == self.paths.len()
    }

    /// As much of what there once was as there is room for. Blocks.
    pub(super) fn keep(&self) {
        self.make(self.most.load(Ordering::Relaxed), |_| true);
    }

    /// If nobody misses it. Blocks.
    pub(super) fn keep_of_plenty(&self, space: &Space) {
        self.make(self.paths.len(), |missing| space.can_spare(missing + 3 * OCTETS));
    }

    fn make(&self, count: usize, may_take: impl Fn(u64) -> bool) {
        for path in &self.paths[..count] {
            let missing = OCTETS.saturating_sub(fs::metadata(path).map_or(0, |found| found.len()));
            if !may_take(missing) {
                break;
            }
            if let Err(error) = fill(path, missing) {
                tracing::debug!(path = %path.display(), %error, "there is no room for the whole of it");
                break;
            }
        }
        let there = self.paths.iter().take_while(|path| path.exists()).count();
        self.there.store(there, Ordering::Relaxed);
        self.most.fetch_max(there, Ordering::Relaxed);
    }

    /// A part of it. True if there was one: now there is room.
    pub(super) fn give_up(&self) -> bool {
        let given_up = self.paths.iter().rev().any(|path| fs::remove_file(path).is_ok());
        if given_up {
            self.there.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |there| there.checked_sub(1)).ok();
            tracing::warn!("the disk is full: room that was put by is used, so that delivery goes on");
        }
        given_up
    }
}

fn fill(path: &Path, missing: u64) -> io::Result<()> {
    if missing == 0 {
        return Ok(());
    }
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    // Where it cannot, or there is less room than that: as much as there is. A file system that compresses keeps no room for zeros.
    match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, OCTETS) {
        Ok(()) => Ok(()),
        Err(_) => io::copy(&mut io::repeat(0).take(missing), &mut file).map(drop),
    }
}
