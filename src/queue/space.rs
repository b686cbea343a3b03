//! Free space in the folder of the queue, looked at from time to time.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How long a look is good for.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// The floor below which no new mail is taken.
pub struct Space {
    folder: PathBuf,
    floor: u64,
    seen: Mutex<Option<Seen>>,
    look: fn(&std::path::Path) -> Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Instant,
    free: u64,
    low: bool,
}

impl Space {
    /// `floor`: octets.
    pub fn new(folder: PathBuf, floor: u64) -> Self {
        Self { folder, floor, seen: Mutex::default(), look: free_octets }
    }

    /// Whether a message of this size leaves the floor free. Where the system does not say, it does: the put will tell.
    ///
    /// `reusable`: octets that the queue's own files hold and no longer need.
    pub fn has_room_for(&self, octets: u64, reusable: u64) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let fresh = seen.filter(|seen| now.duration_since(seen.at) < GOOD_FOR);
        let current = fresh.unwrap_or_else(|| {
            let free = (self.look)(&self.folder).unwrap_or(u64::MAX).saturating_add(reusable);
            let (low, was_low) = (free < self.floor, seen.is_some_and(|seen| seen.low));
            self.report(free, low, was_low);
            Seen { at: now, free, low }
        });
        *seen = Some(current);
        current.free.saturating_sub(octets) >= self.floor
    }

    /// Once, not for each message that is refused.
    fn report(&self, free: u64, low: bool, was_low: bool) {
        let (folder, floor) = (self.folder.display(), self.floor);
        match (low, was_low) {
            (true, false) => {
                warn!(%folder, free, floor, "below `min_free_space`: no new mail is taken; delivery goes on")
            }
            (false, true) => info!(%folder, free, floor, "there is space again: new mail is taken"),
            _ => {}
        }
    }
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space").field("folder", &self.folder).field("floor", &self.floor).finish_non_exhaustive()
    }
}

/// What an ordinary user may still write. A file system without inodes left has none either.
pub(super) fn free_octets(folder: &std::path::Path) -> Option<u64> {
    let seen = rustix::fs::statvfs(folder).ok()?;
    // File systems that count no inodes say 0 of 0.
    let no_inodes = seen.f_files > 0 && seen.f_favail == 0;
    Some(if no_inodes { 0 } else { seen.f_bavail.saturating_mul(seen.f_frsize) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(floor: u64, look: fn(&std::path::Path) -> Option<u64>) -> Space {
        Space { look, ..Space::new("/".into(), floor) }
    }

    #[test]
    fn the_floor_is_kept_free_of_the_message_too() {
        let space = space(100, |_| Some(150));
        assert!(space.has_room_for(0, 0) && space.has_room_for(50, 0));
        assert!(!space.has_room_for(51, 0));
    }

    #[test]
    fn what_the_queue_no_longer_needs_is_as_good_as_free() {
        let full = |_: &std::path::Path| Some(10);
        assert!(!space(100, full).has_room_for(5, 90));
        assert!(space(100, full).has_room_for(5, 95));
    }

    #[test]
    fn an_unknown_amount_is_room_and_an_own_folder_has_some() {
        assert!(space(100, |_| None).has_room_for(1 << 40, 0));
        let folder = tempfile::tempdir().expect("a folder");
        assert!(free_octets(folder.path()).is_some_and(|free| free > 0));
        assert!(!Space::new(folder.path().to_owned(), u64::MAX).has_room_for(0, 0));
    }
}
