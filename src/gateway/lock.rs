//! The lock of the data folder: one process at a time may touch what lies in it.
//!
//! The kernel lets go of it when the process ends, however it ends; the file stays and means nothing by itself.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("another waxseal works in the data folder {0}; stop it first, or give this one a `data_dir` of its own")]
    Held(PathBuf),
    #[error("the data folder {path} cannot be locked: {source}")]
    Failed { path: PathBuf, source: io::Error },
}

impl Lock {
    /// Does not wait.
    pub fn take(data_dir: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Failed { path: data_dir.to_owned(), source };
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(data_dir.join("lock")).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Held(data_dir.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take(folder.path()).unwrap();
        let refused = Lock::take(folder.path()).unwrap_err();
        assert!(refused.to_string().contains(&folder.path().display().to_string()), "{refused}");
        drop(first);
        Lock::take(folder.path()).unwrap();
        assert!(matches!(Lock::take(Path::new("/nonexistent")), Err(LockError::Failed { .. })));
    }
}
