//! Private key files: written once, for the owner only, never over an existing key.
//! A file that could not be written completely is removed. The key itself is not examined.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("{0} exists already and is left alone; choose another selector for a new key")]
    Exists(PathBuf),
    /// Not named `source`, because printing the chain of causes would repeat it.
    #[error("{path} cannot be written: {cause}")]
    Write { path: PathBuf, cause: io::Error },
}

/// Missing folders are created with mode 0700; the file has mode 0600 and is synced when this returns.
pub fn create(path: &Path, pem: &str) -> Result<(), KeyFileError> {
    let failed = |cause| KeyFileError::Write { path: path.to_owned(), cause };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(KeyFileError::Exists(path.to_owned()));
        }
        Err(error) => return Err(failed(error)),
    };
    let written = file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| sync_folder(path));
    written.map_err(|error| {
        // A partial file would be read as the key at the next start.
        let _nothing_more_to_do = fs::remove_file(path);
        failed(error)
    })
}

/// Ensures that the file's name also survives a power failure: its record may be published at any moment.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_for_its_owner_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dkim/example.com.wax1.pem");
        create(&path, "first").unwrap();
        assert!(matches!(create(&path, "second"), Err(KeyFileError::Exists(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "first");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
