//! The lock of the data folder: one process at a time may touch what lies in it.
//!
//! The kernel lets go of it when the process ends, however it ends; the file stays, and says who took it last.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error(
        "another waxseal ({holder}) works in the data folder {path}; stop it first, or give this one a `data_dir` of \
         its own"
    )]
    Held { path: PathBuf, holder: String },
    #[error("the data folder {path} cannot be locked: {source}")]
    Failed { path: PathBuf, source: io::Error },
}

impl Lock {
    /// Does not wait.
    pub fn take(data_dir: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Failed { path: data_dir.to_owned(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(data_dir.join("lock")).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { path: data_dir.to_owned(), holder: holder(&file) });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // A full disk keeps nobody from holding it.
        let _only_for_the_others_message = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

/// In a container it is a number of the container's own.
fn holder(file: &File) -> String {
    let mut text = String::new();
    let _it_may_be_empty = file.take(20).read_to_string(&mut text);
    text.trim().parse::<u32>().map_or("a process unknown".to_owned(), |id| format!("process {id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_in_the_way() {
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
}
