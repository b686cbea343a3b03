//! Measures the free space of the queue's disk, and how much of it must stay free so that accepted mail can be
//! delivered and removed and the queue can be opened. Only new mail is refused when space is low.

use super::identity::octets_of;
use crate::queue::QueueError;
use parking_lot::Mutex;
use rusqlite::Connection;
use rustix::fs::StatVfs;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Size in octets of a page in the database, and of one in the log (with its header).
pub(super) const PAGE: u64 = 4096;
const FRAME: u64 = PAGE + 24;

/// Once the log has this many pages, every commit writes them back into the database.
pub(super) const CHECKPOINT_PAGES: u64 = 1000;

/// Once the log has this many pages, readers wait until they are written back: the log cannot restart while it is being
/// read.
pub(super) const PATIENT_PAGES: u64 = 1500;

/// The largest transaction that must not fail: settling a message to a thousand recipients, or storing one of the
/// largest messages that are kept in the database.
const TRANSACTION_PAGES: u64 = 500;

/// Octets of new mail per transaction; a single message can be half as large again.
pub(super) const BATCH: u64 = 1 << 20;

/// The maximum size of the log.
const LONGEST_LOG: u64 = (PATIENT_PAGES + TRANSACTION_PAGES) * FRAME;

/// The disk space that delivery, removal and the start may need before they free any: the longest log and, when it is
/// written back, a new database page for each of its pages. Rounded up to whole MiB (16).
pub const SMALLEST_FLOOR: u64 = (LONGEST_LOG + (PATIENT_PAGES + TRANSACTION_PAGES) * PAGE).div_ceil(1 << 20) << 20;

/// How long a measurement is valid for MAIL; stored messages are measured each time.
const GOOD_FOR: Duration = Duration::from_secs(1);

pub(super) struct FreeSpace {
    folder: PathBuf,
    database: PathBuf,
    log: PathBuf,
    floor: u64,
    /// Size of the database at the last commit, and the size of its empty pages.
    octets: AtomicU64,
    reusable: AtomicU64,
    /// Size of the files in `bodies/` that are being written, which counts as used.
    pending: AtomicU64,
    seen: Mutex<Option<SpaceReading>>,
    look: fn(&Path) -> Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct SpaceReading {
    at: Instant,
    room: Room,
    low: bool,
}

/// All in octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Free space once the log has been written back and emptied.
    free: u64,
    /// Space inside the database that is no longer in use.
    reusable: u64,
    floor: u64,
}

impl Room {
    /// The log lacks space and the database has some to spare, so its pages should be returned.
    pub(super) fn is_held_by_the_database(self) -> bool {
        self.reusable > 0 && self.free < self.floor.min(SMALLEST_FLOOR).saturating_add(2 * BATCH)
    }

    /// The room left after a message of this size. The message is refused if that is too little.
    pub(super) fn without(self, octets: u64) -> Result<Self, QueueError> {
        let reused = octets.min(self.reusable);
        let grown = octets.saturating_sub(self.reusable);
        let left = Self { free: self.free.saturating_sub(grown), reusable: self.reusable - reused, ..self };
        // Reusable pages can hold new mail, but not the log.
        let is_enough =
            left.free >= self.floor.min(SMALLEST_FLOOR) && left.free.saturating_add(left.reusable) >= self.floor;
        if is_enough && octets <= self.free.saturating_add(self.reusable) {
            Ok(left)
        } else {
            Err(QueueError::Full(format!("less than `min_free_space`, {} octets, would be left", self.floor)))
        }
    }
}

/// Space reserved for a file; released once the file is written or has failed.
pub(super) struct Pending<'a> {
    space: &'a FreeSpace,
    octets: u64,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.space.pending.fetch_sub(self.octets, Ordering::Relaxed);
    }
}

impl FreeSpace {
    /// `floor`: in octets.
    pub(super) fn new(folder: &Path, database: &Path, log: &Path, floor: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            database: database.to_owned(),
            log: log.to_owned(),
            floor,
            octets: AtomicU64::default(),
            reusable: AtomicU64::default(),
            pending: AtomicU64::default(),
            seen: Mutex::default(),
            look: free_octets,
        }
    }

    /// The path of SQLite's log.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// Octets of the database and of its log.
    pub(super) fn database(&self) -> u64 {
        octets_of(&self.database).saturating_add(octets_of(&self.log))
    }

    /// Called after each commit.
    pub(super) fn note(&self, connection: &Connection) {
        let pages = |pragma| {
            let number = connection.prepare_cached(pragma)?.query_row([], |row| row.get::<_, i64>(0))?;
            Ok::<_, rusqlite::Error>(number.unsigned_abs())
        };
        self.octets.store(pages("PRAGMA page_count").unwrap_or(0) * PAGE, Ordering::Relaxed);
        self.reusable.store(pages("PRAGMA freelist_count").unwrap_or(0) * PAGE, Ordering::Relaxed);
    }

    /// The current room. If the system does not report free space, assume enough: the write will show.
    pub(super) fn room(&self) -> Room {
        let free = (self.look)(&self.folder).unwrap_or(u64::MAX);
        // After a long read the log is longer, and the excess is not ours to use.
        let log = octets_of(&self.log).min(LONGEST_LOG);
        let missing = self.octets.load(Ordering::Relaxed).saturating_sub(octets_of(&self.database));
        let used = missing.saturating_add(self.pending.load(Ordering::Relaxed));
        let reusable = self.reusable.load(Ordering::Relaxed);
        // Without a free inode only the log can be used.
        let free = if free == 0 { 0 } else { free.saturating_add(log).saturating_sub(used) };
        Room { free, reusable, floor: self.floor }
    }

    /// Whether a message of this size would be accepted, from a measurement that can be a second old. Logs changes.
    pub(super) fn admit(&self, octets: u64) -> Result<(), QueueError> {
        let mut seen = self.seen.lock();
        let now = Instant::now();
        let fresh = seen.filter(|seen| now.duration_since(seen.at) < GOOD_FOR);
        let current = fresh.unwrap_or_else(|| {
            let room = self.room();
            let low = room.without(0).is_err();
            let was_low = seen.is_some_and(|seen| seen.low);
            self.report(room, low, was_low);
            SpaceReading { at: now, room, low }
        });
        *seen = Some(current);
        current.room.without(octets).map(drop)
    }

    /// Reserves space for a file that is about to be written.
    pub(super) fn promise(&self, octets: u64) -> Result<Pending<'_>, QueueError> {
        self.pending.fetch_add(octets, Ordering::Relaxed);
        let pending = Pending { space: self, octets };
        // The database's pages cannot be used for a file.
        Room { reusable: 0, ..self.room() }.without(0).map(|_| pending)
    }

    /// Whether this much can be reserved while new mail still has room.
    pub(super) fn can_spare(&self, octets: u64) -> bool {
        (self.look)(&self.folder).is_some_and(|free| free >= self.floor.saturating_add(octets))
    }

    /// Logs a change once, not for each refused message.
    fn report(&self, room: Room, low: bool, was_low: bool) {
        let folder = self.folder.display();
        let free = room.free;
        let floor = self.floor;
        match (low, was_low) {
            (true, false) => {
                warn!(%folder, free, floor, "below `min_free_space`: no new mail is accepted; delivery continues")
            }
            (false, true) => info!(%folder, free, floor, "there is free space again: new mail is accepted"),
            _ => {}
        }
    }
}

impl fmt::Debug for FreeSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space").field("folder", &self.folder).field("floor", &self.floor).finish_non_exhaustive()
    }
}

/// Space that an ordinary user may still write. A file system without free inodes has none.
pub(super) fn free_octets(folder: &Path) -> Option<u64> {
    let seen = rustix::fs::statvfs(folder).ok()?;
    Some(if has_fewer_inodes(&seen, 1) { 0 } else { seen.f_bavail.saturating_mul(seen.f_frsize) })
}

/// Whether this many files cannot be created.
pub(super) fn lacks_inodes(folder: &Path, files: u64) -> bool {
    rustix::fs::statvfs(folder).is_ok_and(|seen| has_fewer_inodes(&seen, files))
}

fn has_fewer_inodes(seen: &StatVfs, files: u64) -> bool {
    // File systems that do not count inodes report 0 of 0.
    seen.f_files > 0 && seen.f_favail < files
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn space(folder: &Path, floor: u64, look: fn(&Path) -> Option<u64>) -> FreeSpace {
        FreeSpace { look, ..FreeSpace::new(folder, &folder.join("database"), &folder.join("log"), floor) }
    }

    #[test]
    fn the_floor_is_kept_free_of_the_message_too() {
        let folder = tempfile::tempdir().unwrap();
        let space = space(folder.path(), 100, |_| Some(150));
        assert!(space.admit(0).is_ok() && space.admit(50).is_ok());
        assert!(matches!(space.admit(51), Err(QueueError::Full(_))));
    }

    #[test]
    fn what_the_database_no_longer_needs_holds_mail_and_no_log() {
        let room = |free, reusable| Room { free: free * MIB, reusable: reusable * MIB, floor: 64 * MIB };
        assert!(room(20, 50).without(5 * MIB).is_ok());
        assert!(room(20, 50).without(7 * MIB).is_err(), "the floor");
        assert!(room(15, 90).without(0).is_err(), "the log has no room");
        assert!(room(15, 90).is_held_by_the_database() && !room(15, 0).is_held_by_the_database());
        assert!(!room(64, 90).is_held_by_the_database());
        assert_eq!(room(80, 10).without(15 * MIB).unwrap(), room(75, 0));
        assert!(Room { floor: 0, ..room(1, 0) }.without(2 * MIB).is_err(), "more than there is");
    }

    /// If the floor were below what the log needs to be written back, nothing could be delivered, removed or started.
    #[test]
    fn the_log_counts_as_the_pages_that_it_will_be() {
        let folder = tempfile::tempdir().unwrap();
        let space = space(folder.path(), 16 * MIB, |_| Some(20 * MIB));
        assert!(space.admit(0).is_ok());
        std::fs::write(folder.path().join("database"), vec![0; 4096]).unwrap();
        space.octets.store(5 * MIB, Ordering::Relaxed);
        assert!(space.room().without(0).is_err(), "5 MiB less a page are to be written back");
        std::fs::write(folder.path().join("log"), vec![0; 3 << 20]).unwrap();
        assert!(space.room().without(0).is_ok(), "the log's own room is used again");
    }

    #[test]
    fn files_that_are_being_written_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let space = space(folder.path(), 16 * MIB, |_| Some(20 * MIB));
        let first = space.promise(3 * MIB).unwrap();
        assert!(space.promise(2 * MIB).is_err());
        drop(first);
        assert!(space.promise(2 * MIB).is_ok());
        assert_eq!(space.pending.load(Ordering::Relaxed), 0, "what was refused takes none");
    }

    #[test]
    fn an_unknown_amount_is_room_and_an_own_folder_has_some() {
        let folder = tempfile::tempdir().unwrap();
        assert!(space(folder.path(), 100, |_| None).admit(1 << 40).is_ok());
        assert!(free_octets(folder.path()).is_some_and(|free| free > 0));
        assert!(space(folder.path(), u64::MAX - 1, free_octets).admit(0).is_err());
    }

    #[test]
    fn the_smallest_floor_holds_the_longest_log_twice() {
        assert_eq!(SMALLEST_FLOOR, 16 * MIB);
        const { assert!(SMALLEST_FLOOR >= 2 * (PATIENT_PAGES + TRANSACTION_PAGES) * PAGE) }
    }
}
