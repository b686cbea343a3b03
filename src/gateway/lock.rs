//! The lock of the data folder: only one process at a time may use its contents.
//!
//! Locks the folder itself, which cannot be deleted while it has contents, and a file in it that names the last holder
//! (and that earlier versions check). The kernel releases both when the process ends in any way.

use parking_lot::Mutex;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tracing::warn;

/// Held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    data_dir: PathBuf,
    folder: File,
    file: Mutex<File>,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error(
        "another waxseal ({holder}) is already using the data folder {path}; stop it first, or give this one a `data_dir` of \
         its own"
    )]
    Held { path: PathBuf, holder: String },
    #[error("the data folder {path} cannot be locked: {source}")]
    Failed { path: PathBuf, source: io::Error },
    #[error(
        "the queue in {path} belongs to the user with the number {owner}, and this is {user}: run this as the user that the \
         gateway runs as (`sudo -u '#{owner}' waxseal …`), because the gateway could not open the files that another user makes \
         there"
    )]
    OtherUser { path: PathBuf, owner: u32, user: u32 },
}

impl Lock {
    /// Does not wait.
    pub fn take(data_dir: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Failed { path: data_dir.to_owned(), source };
        let folder = File::open(data_dir).map_err(failed)?;
        let mut file = open(data_dir).map_err(failed)?;
        let held = |file: &File| LockError::Held { path: data_dir.to_owned(), holder: holder(file) };
        // On systems without locks on folders, the file's lock has to do.
        if let Err(TryLockError::WouldBlock) = folder.try_lock() {
            return Err(held(&file));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(&file)),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        sign(&mut file);
        Ok(Self { data_dir: data_dir.to_owned(), folder, file: Mutex::new(file) })
    }

    /// For a command. Files that another user than the gateway's makes beside the database (its write-ahead log, its index)
    /// would keep the gateway from opening it, so another one is refused, root too.
    pub fn take_as_owner(data_dir: &Path) -> Result<Self, LockError> {
        refuse_other_users(data_dir)?;
        Self::take(data_dir)
    }

    /// Creates the file again if it was deleted, even if a process that was refused has left an empty one.
    pub fn renew(&self) {
        let path = self.data_dir.join(FILE);
        // If another folder replaced this one, the file would belong to that one.
        if !is_same(&self.folder, &self.data_dir) || is_same(&self.file.lock(), &path) {
            return;
        }
        if let Ok(mut new) = open(&self.data_dir)
            && new.try_lock().is_ok()
        {
            warn!(path = %path.display(), "the file that names the process using the data folder was deleted; it is created again");
            sign(&mut new);
            *self.file.lock() = new;
        }
    }
}

const FILE: &str = "lock";

/// The gateway's user is the owner of the lock's file, which each gateway makes; without it, that of the folder.
pub fn refuse_other_users(data_dir: &Path) -> Result<(), LockError> {
    // What cannot be looked at cannot be opened either, and that error says why.
    let Ok(found) = fs::metadata(data_dir.join(FILE)).or_else(|_| fs::metadata(data_dir)) else { return Ok(()) };
    let (owner, user) = (found.uid(), rustix::process::geteuid().as_raw());
    if owner == user { Ok(()) } else { Err(LockError::OtherUser { path: data_dir.to_owned(), owner, user }) }
}

fn open(data_dir: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(data_dir.join(FILE))
}

/// A full disk must not prevent locking.
fn sign(file: &mut File) {
    let _only_for_the_others_message = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
}

fn is_same(open: &File, path: &Path) -> bool {
    let identity = |found: fs::Metadata| (found.dev(), found.ino());
    matches!((open.metadata().map(identity), fs::metadata(path).map(identity)), (Ok(open), Ok(named)) if open == named)
}

/// In a container this is the process number inside the container.
fn holder(file: &File) -> String {
    let mut text = String::new();
    let _it_may_be_empty = file.take(20).read_to_string(&mut text);
    text.trim().parse::<u32>().map_or("a process unknown".to_owned(), |id| format!("process {id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_process_names_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take(folder.path()).unwrap();
        let refused = Lock::take(folder.path()).unwrap_err();
        let own = format!("process {}", std::process::id());
        for part in [folder.path().display().to_string(), own] {
            assert!(refused.to_string().contains(&part), "{refused}");
        }
        drop(first);
        Lock::take(folder.path()).unwrap();
        assert!(matches!(Lock::take(Path::new("/nonexistent")), Err(LockError::Failed { .. })));
    }

    /// Two gateways used one database.
    #[test]
    fn without_its_file_the_folder_is_still_locked() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let moved = parent.path().join("moved");
        fs::create_dir(&path).unwrap();
        let first = Lock::take(&path).unwrap();
        fs::remove_file(path.join(FILE)).unwrap();
        assert!(matches!(Lock::take(&path), Err(LockError::Held { .. })));
        first.renew();
        let refused = Lock::take(&path).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        fs::rename(&path, &moved).unwrap();
        assert!(matches!(Lock::take(&moved), Err(LockError::Held { .. })), "under another name, too");
        fs::create_dir(&path).unwrap();
        first.renew();
        assert!(!path.join(FILE).exists(), "another folder is another's");
        Lock::take(&path).unwrap();
    }
}
