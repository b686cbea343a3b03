//! Puts the new files in their places: all of them, or none. They are written to a folder beside them first and checked
//! there; then each is renamed. A failure takes back what was done. A folder that an interrupted run left is cleared.

use super::files::NewFile;
use super::outcome::InitOutcome;
use crate::config::{Problems, Settings};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

pub const STAGING: &str = ".waxseal-init";
/// Ending of a file that is on its way back.
const RESTORED: &str = "restored";

#[derive(Debug, thiserror::Error)]
pub enum PlacingError {
    #[error("{} exist{s} already; --force replaces {it}; nothing was written", .paths.join(", "), s = if .paths.len() == 1 { "s" } else { "" }, it = if .paths.len() == 1 { "it" } else { "them" })]
    Exists { paths: Vec<String> },
    #[error("{path} cannot be written: {cause}; nothing was written")]
    Write { path: PathBuf, cause: io::Error },
    #[error("another `waxseal init` is at work in {0}; nothing was written")]
    Busy(PathBuf),
    #[error("the new configuration has mistakes")]
    Configuration(Problems),
}

/// Before any question is asked.
pub fn refuse_existing(config: &Path, force: bool) -> Result<(), PlacingError> {
    match config.symlink_metadata() {
        Ok(_) if !force => Err(PlacingError::Exists { paths: vec![config.display().to_string()] }),
        _ => Ok(()),
    }
}

/// The folder, or the nearest one above it that exists.
pub fn check_writable(folder: &Path) -> Result<(), PlacingError> {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let Some(there) = absolute.ancestors().find(|folder| folder.symlink_metadata().is_ok()) else { return Ok(()) };
    let failed = |cause: io::Error| PlacingError::Write { path: there.to_owned(), cause };
    if !there.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    rustix::fs::access(there, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
        .map_err(|error| failed(error.into()))
}

/// `check` reads the configuration in the staging folder, with its files beside it.
pub fn place(
    outcome: &InitOutcome,
    folder: &Path,
    force: bool,
    check: impl FnOnce(&Path) -> Result<Settings, Problems>,
) -> Result<Settings, PlacingError> {
    let there = |file: &&NewFile| folder.join(&file.path).symlink_metadata().is_ok();
    let existing: Vec<String> =
        outcome.files.iter().filter(there).map(|file| folder.join(&file.path).display().to_string()).collect();
    if !force && !existing.is_empty() {
        return Err(PlacingError::Exists { paths: existing });
    }
    let mut changes = Changes::default();
    let placed = place_or_fail(outcome, folder, check, &mut changes);
    if placed.is_err() {
        changes.take_back();
    }
    placed
}

fn place_or_fail(
    outcome: &InitOutcome,
    folder: &Path,
    check: impl FnOnce(&Path) -> Result<Settings, Problems>,
    changes: &mut Changes,
) -> Result<Settings, PlacingError> {
    changes.make_folder(folder, 0o755, None)?;
    let staging = Staging::open(folder)?;
    let owner = owner_of(&outcome.data_dir);
    for file in &outcome.files {
        staging.write(file, owner)?;
    }
    for path in &outcome.existing {
        staging.link(path, folder)?;
    }
    let config = outcome.files.last().map(|file| staging.path.join(&file.path)).unwrap_or_default();
    let settings = check(&config).map_err(PlacingError::Configuration)?;
    for file in &outcome.files {
        let target = folder.join(&file.path);
        if let Some(parent) = target.parent() {
            changes.make_folder(parent, 0o700, owner)?;
        }
        changes.put(&staging, file, &target)?;
    }
    Ok(settings)
}

/// The user of the gateway, to whom the data folder belongs: root gives it the keys and secrets. `None`: they stay with the
/// user that runs this.
pub fn owner_of(data_dir: &Path) -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let metadata = fs::metadata(data_dir).ok()?;
    (metadata.uid() != 0).then(|| (metadata.uid(), metadata.gid()))
}

fn give(path: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    owner.map_or(Ok(()), |(user, group)| std::os::unix::fs::chown(path, Some(user), Some(group)))
}

/// Removed when it is dropped. The lock ends with the process.
struct Staging {
    path: PathBuf,
    _lock: File,
}

impl Staging {
    fn open(folder: &Path) -> Result<Self, PlacingError> {
        let path = folder.join(STAGING);
        let failed = |cause| PlacingError::Write { path: path.clone(), cause };
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed)?;
        let lock = File::open(&path).map_err(failed)?;
        if let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
            return Err(PlacingError::Busy(folder.to_owned()));
        }
        let staging = Self { path: path.clone(), _lock: lock };
        // Left by a run that was killed.
        staging.clear().map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        Ok(staging)
    }

    fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        }
        Ok(())
    }

    fn write(&self, file: &NewFile, owner: Option<(u32, u32)>) -> Result<(), PlacingError> {
        let path = self.path.join(&file.path);
        let write = || {
            self.make_parent(&path)?;
            let mut open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            open.write_all(file.content.reveal().as_bytes())?;
            open.set_permissions(fs::Permissions::from_mode(file.mode))?;
            if file.is_private() {
                give(&path, owner)?;
            }
            open.sync_all()
        };
        write().map_err(|cause| PlacingError::Write { path: path.clone(), cause })
    }

    /// So that the staged configuration finds what is there already.
    fn link(&self, relative: &Path, folder: &Path) -> Result<(), PlacingError> {
        let path = self.path.join(relative);
        let link = || {
            self.make_parent(&path)?;
            std::os::unix::fs::symlink(std::path::absolute(folder.join(relative))?, &path)
        };
        link().map_err(|cause| PlacingError::Write { path: path.clone(), cause })
    }

    fn make_parent(&self, path: &Path) -> io::Result<()> {
        path.parent().map_or(Ok(()), |parent| DirBuilder::new().recursive(true).mode(0o700).create(parent))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _the_next_run_clears_it = fs::remove_dir_all(&self.path);
    }
}

/// What was changed outside the staging folder, in order.
#[derive(Default)]
struct Changes(Vec<Change>);

enum Change {
    MadeFolder(PathBuf),
    MadeFile(PathBuf),
    /// The file, and what was there before.
    Replaced(PathBuf, Vec<u8>, fs::Permissions),
}

impl Changes {
    fn make_folder(&mut self, folder: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<(), PlacingError> {
        let missing: Vec<&Path> = folder
            .ancestors()
            .take_while(|folder| !folder.as_os_str().is_empty() && folder.symlink_metadata().is_err())
            .collect();
        for path in missing.into_iter().rev() {
            let failed = |cause| PlacingError::Write { path: path.to_owned(), cause };
            DirBuilder::new().mode(mode).create(path).map_err(failed)?;
            self.0.push(Change::MadeFolder(path.to_owned()));
            give(path, owner).map_err(failed)?;
        }
        Ok(())
    }

    fn put(&mut self, staging: &Staging, file: &NewFile, target: &Path) -> Result<(), PlacingError> {
        let failed = |cause| PlacingError::Write { path: target.to_owned(), cause };
        let change = match target.symlink_metadata() {
            Err(_) => Change::MadeFile(target.to_owned()),
            Ok(metadata) => {
                let before = fs::read(target).map_err(failed)?;
                Change::Replaced(target.to_owned(), before, metadata.permissions())
            }
        };
        fs::rename(staging.path.join(&file.path), target).map_err(failed)?;
        self.0.push(change);
        // The name survives a power failure too.
        let parent = target.parent().unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)
    }

    /// Last first. A failure here leaves what it cannot change.
    fn take_back(self) {
        for change in self.0.into_iter().rev() {
            let _nothing_more_can_be_done = match change {
                Change::MadeFolder(path) => fs::remove_dir(path),
                Change::MadeFile(path) => fs::remove_file(path),
                Change::Replaced(path, before, permissions) => restore(&path, &before, permissions),
            };
        }
    }
}

fn restore(path: &Path, before: &[u8], permissions: fs::Permissions) -> io::Result<()> {
    let beside = path.with_extension(RESTORED);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(before)?;
    file.set_permissions(permissions)?;
    file.sync_all()?;
    fs::rename(beside, path)
}
