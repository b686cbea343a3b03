//! `data_dir`: created if missing, and made private, since it will contain password-reset links.
//!
//! A folder that others may enter is made private only if it can contain nothing of theirs: it is empty or holds our
//! queue.

use crate::queue::sqlite;
use rustix::fs::Access;
use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

const OWNER_ONLY: u32 = 0o700;

/// The permissions of everyone but the owner.
const OTHERS: u32 = 0o077;

/// Shared folders such as `/tmp`.
const SHARED: u32 = 0o1000;

/// A new file system has this folder at its root.
const OF_THE_FILE_SYSTEM: &str = "lost+found";

#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("{0}; set `data_dir` to a folder that this user (uid {user}) may write to", user = user())]
    Io(#[from] io::Error),
    #[error("it is a file; set `data_dir` to a folder")]
    NotAFolder,
    #[error(
        "it is a symbolic link to something that does not exist; make that folder, or set `data_dir` to another one"
    )]
    Dangling,
    #[error(
        "it is shared with other users, and making it private would lock them out; set `data_dir` to a folder below it"
    )]
    Shared,
    #[error(
        "it holds other files and is open to other users (mode {mode:04o}), and making it private would lock them out; \
         set `data_dir` to a folder below it, which will be created, or make it private yourself: chmod 700"
    )]
    Occupied { mode: u32 },
    #[error(
        "it belongs to another user (uid {owner}), and waxseal runs as uid {user}; set `data_dir` to a folder below it, which \
         will be created if this user may write there, or change its owner: chown {user}",
        user = user()
    )]
    Foreign { owner: u32 },
}

pub fn prepare(path: &Path) -> Result<(), DataDirError> {
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound && path.is_symlink() => return Err(DataDirError::Dangling),
        Err(error) if error.kind() == ErrorKind::NotFound => return make(path),
        Err(error) => return Err(error.into()),
    };
    if !found.is_dir() {
        return Err(DataDirError::NotAFolder);
    }
    let mode = found.permissions().mode();
    let owner = found.uid();
    if mode & SHARED != 0 {
        return Err(DataDirError::Shared);
    }
    if mode & OTHERS != 0 || owner != user() {
        close(path, &found)?;
    }
    Ok(rustix::fs::access(path, Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from)?)
}

fn make(path: &Path) -> Result<(), DataDirError> {
    Ok(DirBuilder::new().recursive(true).mode(OWNER_ONLY).create(path)?)
}

/// Root makes the folder private to its owner: a volume that was created for another user stays open to that user
/// alone.
fn close(path: &Path, found: &Metadata) -> Result<(), DataDirError> {
    let mode = found.permissions().mode() & 0o777;
    let owner = found.uid();
    let foreign = |error: io::Error| match error.kind() {
        ErrorKind::PermissionDenied if owner != user() => DataDirError::Foreign { owner },
        _ => error.into(),
    };
    if mode & OTHERS != 0 && !is_empty_or_queue(path).map_err(foreign)? {
        return Err(if owner == user() { DataDirError::Occupied { mode } } else { DataDirError::Foreign { owner } });
    }
    fs::set_permissions(path, Permissions::from_mode(OWNER_ONLY)).map_err(foreign)
}

fn is_empty_or_queue(path: &Path) -> io::Result<bool> {
    if sqlite::exists(path)? {
        return Ok(true);
    }
    for entry in fs::read_dir(path)? {
        if entry?.file_name() != OF_THE_FILE_SYSTEM {
            return Ok(false);
        }
    }
    Ok(true)
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;
    use tempfile::TempDir;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    /// A folder with these files in it.
    fn folder(mode: u32, files: &[&str]) -> (TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("folder");
        fs::create_dir(&path).unwrap();
        files.iter().for_each(|name| fs::write(path.join(name), "").unwrap());
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        (parent, path)
    }

    #[test]
    fn an_empty_folder_or_one_with_a_queue_is_closed() {
        for files in [&[][..], &["lost+found"], &["queue.sqlite", "lock", "anything"]] {
            for open in [0o755, 0o777, 0o770, 0o701] {
                let (_parent, path) = folder(open, files);
                prepare(&path).unwrap();
                assert_eq!(mode(&path), OWNER_ONLY, "{files:?} {open:o}");
            }
        }
        let (_parent, path) = folder(0o755, &[]);
        prepare(&path.join("new").join("newer")).unwrap();
        assert_eq!((mode(&path.join("new/newer")), mode(&path)), (OWNER_ONLY, 0o755));
    }

    /// `data_dir = "."` locked the web server out of a folder with a web site in it.
    #[test]
    fn a_folder_with_files_of_something_else_is_left_alone() {
        for open in [0o755, 0o750, 0o711, 0o775] {
            let (_parent, path) = folder(open, &["index.html"]);
            let refused = prepare(&path).unwrap_err();
            assert!(matches!(refused, DataDirError::Occupied { .. }), "{refused}");
            let told = refused.to_string();
            assert!(
                told.contains("chmod 700") && told.contains("below it") && told.contains(&format!("{open:04o}")),
                "{told}"
            );
            assert_eq!(mode(&path), open);
            let parent = path.parent().unwrap();
            let _kept = &path;
            symlink(&path, parent.join("link")).unwrap();
            assert!(matches!(prepare(&parent.join("link")), Err(DataDirError::Occupied { .. })));
            assert_eq!(mode(&path), open, "nor by a link to it");
        }
        let (_parent, path) = folder(OWNER_ONLY, &["index.html"]);
        prepare(&path).unwrap();
        for system in ["/", "/usr", "/etc"] {
            let before = mode(Path::new(system));
            assert!(matches!(
                prepare(Path::new(system)),
                Err(DataDirError::Occupied { .. } | DataDirError::Foreign { .. })
            ));
            assert_eq!(mode(Path::new(system)), before);
        }
    }

    /// `data_dir = "/tmp"` locked everyone out of /tmp.
    #[test]
    fn a_folder_that_all_share_is_left_alone() {
        let (_parent, path) = folder(0o1777, &[]);
        assert!(matches!(prepare(&path), Err(DataDirError::Shared)));
        assert_eq!(mode(&path), 0o1777);
    }

    #[test]
    fn what_is_not_a_folder_is_named() {
        let (_parent, path) = folder(0o755, &["file"]);
        assert!(matches!(prepare(&path.join("file")), Err(DataDirError::NotAFolder)));
        symlink("nowhere", path.join("link")).unwrap();
        assert!(matches!(prepare(&path.join("link")), Err(DataDirError::Dangling)));
        assert!(matches!(prepare(&path.join("file/below")), Err(DataDirError::Io(_))));
    }

    /// Only root can create one.
    #[test]
    fn a_folder_of_another_user_is_not_closed_over_his_files() {
        let (_parent, path) = folder(0o755, &["index.html"]);
        if std::os::unix::fs::chown(&path, Some(4711), None).is_err() {
            return;
        }
        let refused = prepare(&path).unwrap_err();
        assert!(matches!(refused, DataDirError::Foreign { owner: 4711 }), "{refused}");
        assert!(refused.to_string().contains(&format!("chown {}", user())), "{refused}");
        assert_eq!(mode(&path), 0o755);
    }
}
