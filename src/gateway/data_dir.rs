//! `data_dir`: made if missing, closed to everybody else. It will hold password-reset links.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

const OWNER_ONLY: u32 = 0o700;

/// `/tmp` and its kin.
const SHARED: u32 = 0o1000;

#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("{0}; set `data_dir` to a folder this user may write to")]
    Io(#[from] io::Error),
    #[error("it is shared with other users, and closing it would lock them out; set `data_dir` to a folder below it")]
    Shared,
    #[error(
        "it belongs to another user, so it cannot be closed to others; set `data_dir` to a folder below it, which will \
         be made"
    )]
    Foreign,
}

pub(super) fn prepare(path: &Path) -> Result<(), DataDirError> {
    DirBuilder::new().recursive(true).mode(OWNER_ONLY).create(path)?;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & SHARED != 0 {
        return Err(DataDirError::Shared);
    }
    if mode & 0o777 != OWNER_ONLY {
        fs::set_permissions(path, Permissions::from_mode(OWNER_ONLY)).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => DataDirError::Foreign,
            _ => error.into(),
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_folder_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        prepare(folder.path()).unwrap();
        assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, OWNER_ONLY);
        prepare(&folder.path().join("new")).unwrap();
    }

    /// `data_dir = "/tmp"` closed /tmp for everybody.
    #[test]
    fn a_folder_that_all_share_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
        assert!(matches!(prepare(folder.path()), Err(DataDirError::Shared)));
        assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o7777, 0o1777);
    }
}
