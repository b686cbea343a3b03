//! `data_dir`: made if missing, closed to everybody else. It will hold password-reset links.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

const OWNER_ONLY: u32 = 0o700;

pub(super) fn prepare(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(OWNER_ONLY).create(path)?;
    if fs::metadata(path)?.permissions().mode() & 0o777 != OWNER_ONLY {
        fs::set_permissions(path, Permissions::from_mode(OWNER_ONLY))?;
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
}
