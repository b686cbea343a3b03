//! Files that reserve disk space. They are removed when a full disk keeps the queue from opening or from recording deliveries,
//! since only delivery frees space again.
//!
//! Together they are as large as the smallest floor, and replace it if another program has used up the free space.
//! There are several, because each then lasts for a while and frees an inode. They are created while free space is
//! ample, or at a clean close from the space that the close frees. They are never released for new mail.

use super::space::{FreeSpace, SMALLEST_FLOOR};
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

const FILES: u64 = 4;
const OCTETS: u64 = SMALLEST_FLOOR / FILES;

#[derive(Debug)]
pub(super) struct Reserve {
    /// In the order of their creation.
    paths: Vec<PathBuf>,
    /// The largest number so far: a close does not create more than the disk has ever had space for.
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

    /// Creates as many of the earlier files as the free space allows. Blocks.
    pub(super) fn fill(&self) {
        self.make(self.most.load(Ordering::Relaxed), |_| true);
    }

    /// Fills the reserve only if free space is ample. Blocks.
    pub(super) fn fill_if_ample(&self, space: &FreeSpace) {
        self.make(self.paths.len(), |missing| space.can_spare(missing + 3 * OCTETS));
    }

    fn make(&self, count: usize, may_take: impl Fn(u64) -> bool) {
        for path in &self.paths[..count] {
            let missing = OCTETS.saturating_sub(fs::metadata(path).map_or(0, |found| found.len()));
            if !may_take(missing) {
                break;
            }
            if let Err(error) = fill(path, missing) {
                tracing::debug!(path = %path.display(), %error, "not enough free space for the whole reserve");
                break;
            }
        }
        let there = self.paths.iter().take_while(|path| path.exists()).count();
        self.there.store(there, Ordering::Relaxed);
        self.most.fetch_max(there, Ordering::Relaxed);
    }

    /// Removes one of the files; true if there was one.
    pub(super) fn release(&self) -> bool {
        let given_up = self.paths.iter().rev().any(|path| fs::remove_file(path).is_ok());
        if given_up {
            self.there.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |there| there.checked_sub(1)).ok();
            tracing::warn!("the disk is full: part of the reserve was released so that delivery continues");
        }
        given_up
    }
}

fn fill(path: &Path, missing: u64) -> io::Result<()> {
    if missing == 0 {
        return Ok(());
    }
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    // Without fallocate, or with less free space than that, write as much as fits. A compressing file system reserves
    // nothing for zeros.
    match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, OCTETS) {
        Ok(()) => Ok(()),
        Err(_) => io::copy(&mut io::repeat(0).take(missing), &mut file).map(drop),
    }
}
