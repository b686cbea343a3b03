//! Checks whether the queue's files are still the ones that are open. A database that was deleted, replaced or moved
//! away accepts no mail, because the next start would not find it. The log says so once, with the remedy.
//!
//! Invariant: the file that holds the lock is closed after SQLite's connections. Closing any other descriptor of the
//! database releases SQLite's own locks on it (POSIX record locks belong to the process).

use crate::queue::QueueError;
use parking_lot::Mutex;
use rusqlite::Connection;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tracing::{error, info};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    pub(super) fn of(found: &Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino() }
    }

    /// Why the file at `path` is a different one; `None`: it is the same.
    pub(super) fn difference(self, path: &Path) -> Option<String> {
        let shown = path.display();
        match fs::metadata(path) {
            Ok(found) if Self::of(&found) == self => None,
            Ok(_) => {
                Some(format!("{shown} is not the one that is open; it was replaced, or something was mounted over it"))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Some(format!("{shown} was deleted or moved away")),
            Err(error) => Some(format!("{shown} cannot be reached any more ({error})")),
        }
    }
}

/// Size of a file; 0 if it is missing.
pub(super) fn octets_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

/// Opens and locks the database before SQLite does. A lock on the folder alone would not cover a database that is moved
/// to another folder. The mode is set here because SQLite would make the file readable by others; its -wal and -shm
/// files inherit the mode.
pub(super) fn lock_database(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            ErrorKind::ResourceBusy,
            "another waxseal is already using it, from another folder or under another name; stop that one first",
        )),
        // On a file system without such locks, the data folder's lock has to do.
        _ => Ok(file),
    }
}

#[derive(Debug)]
pub(super) struct Files {
    database: File,
    path: PathBuf,
    known: Vec<(PathBuf, FileIdentity)>,
    has_moved: AtomicBool,
    /// When they were last found in their places.
    found: Mutex<Option<Instant>>,
}

/// How long a look is good enough for mail that has not been sent yet.
const LATELY: Duration = Duration::from_millis(100);

impl Files {
    /// All the files must exist. `database`: from [`lock_database`]. `others`: the files that belong to it.
    pub(super) fn new(database: File, path: &Path, others: &[&Path]) -> io::Result<Self> {
        let mut known = vec![(path.to_owned(), FileIdentity::of(&database.metadata()?))];
        for other in others {
            known.push(((*other).to_owned(), FileIdentity::of(&fs::metadata(other)?)));
        }
        Ok(Self { database, path: path.to_owned(), known, has_moved: AtomicBool::new(false), found: Mutex::default() })
    }

    /// `Err`: no mail may be accepted. Costs one `stat` per file.
    pub(super) fn look(&self) -> Result<(), QueueError> {
        let found = self.known.iter().find_map(|(path, identity)| identity.difference(path));
        *self.found.lock() = found.is_none().then(Instant::now);
        let had_moved = self.has_moved.swap(found.is_some(), Ordering::Relaxed);
        match (&found, had_moved) {
            (Some(what), false) => {
                error!("{what}: no new mail is accepted; accepted mail is still delivered. {}", self.advice())
            }
            (None, true) => info!("the queue's files are back in their place: new mail is accepted"),
            _ => {}
        }
        found.map_or(Ok(()), |what| Err(QueueError::Moved(what)))
    }

    /// The same, from a moment ago: what is stored is looked for again.
    pub(super) fn look_lately(&self) -> Result<(), QueueError> {
        let found = *self.found.lock();
        if found.is_some_and(|found| found.elapsed() < LATELY) { Ok(()) } else { self.look() }
    }

    /// Call this once SQLite's connections are closed.
    pub(super) fn unlock(&self) {
        let _it_ends_with_the_process = self.database.unlock();
    }

    /// As of the last look.
    pub(super) fn has_moved(&self) -> bool {
        self.has_moved.load(Ordering::Relaxed)
    }

    /// Only this process can still read it.
    fn is_deleted(&self) -> bool {
        self.database.metadata().is_ok_and(|found| found.nlink() == 0)
    }

    fn advice(&self) -> String {
        let path = self.path.display();
        if self.is_deleted() {
            return format!(
                "The database was deleted, and only this process can still read it: do not kill it. Stop it with SIGTERM, and it \
                 writes the queue back to {path} before it ends; then start it again"
            );
        }
        if self.known[0].1.difference(&self.path).is_some() {
            return format!(
                "The database still exists, under another name or below something that was mounted over the folder: put it back to \
                 {path}, with its -wal and -shm, or stop the gateway first"
            );
        }
        "Move it back; or restart the gateway: an orderly stop writes everything to the database".to_owned()
    }

    /// Called when the last connection closes: writes a deleted database to disk again, in its old place if nothing
    /// else is there. Blocks until that is done.
    pub(super) fn restore(&self, connection: &Connection) {
        if !self.is_deleted() {
            return;
        }
        match self.write_copy(connection) {
            Ok(to) if to == self.path => {
                info!(path = %to.display(), "the deleted database was restored with all its contents")
            }
            Ok(to) => error!(
                path = %to.display(),
                "another database has replaced the deleted one, whose contents were written here: to deliver them, \
                 give a gateway a `data_dir` with this file as queue.sqlite, and with the folder `bodies`"
            ),
            Err(error) => error!(
                path = %self.path.display(), %error,
                "the database was deleted and cannot be restored: undelivered mail is lost when this process ends"
            ),
        }
    }

    fn write_copy(&self, connection: &Connection) -> io::Result<PathBuf> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let rescued = folder.join(format!("queue-rescued-{now}.sqlite"));
        // SQLite accepts an empty file.
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&rescued)?;
        connection.execute("VACUUM INTO ?1", [rescued.to_string_lossy()]).map_err(io::Error::other)?;
        File::open(&rescued)?.sync_all()?;
        if self.path.exists() {
            File::open(folder)?.sync_all()?;
            return Ok(rescued);
        }
        // SQLite would use the deleted database's log for this one.
        for (path, identity) in &self.known[1..] {
            if path.is_file() && identity.difference(path).is_none() {
                fs::remove_file(path)?;
            }
        }
        fs::rename(&rescued, &self.path)?;
        File::open(folder)?.sync_all()?;
        Ok(self.path.clone())
    }
}
