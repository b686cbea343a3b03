//! Large bodies as files in `data_dir/bodies`: written and synced before the transaction that names them, removed after
//! the one that deletes their row. A file without a row is therefore litter, and a row without its file is damage,
//! unless the whole folder is missing.

use super::failure::of_io;
use super::identity::FileIdentity;
use crate::message::MailId;
use crate::queue::QueueError;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// In octets; a larger body would delay the commits of small messages.
pub(super) const MAX_INLINE: usize = 256 * 1024;

/// What a file contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyFile {
    Body,
    /// The message from before the rewrite rules.
    Original,
}

pub(super) type BodyName = (MailId, BodyFile);

#[derive(Debug)]
pub(super) struct Bodies {
    folder: PathBuf,
    /// `None`: any folder found there is read.
    opened: Option<FileIdentity>,
    /// Size of all files.
    octets: AtomicU64,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error(transparent)]
    Io(io::Error),
    /// It is unknown whether the file still exists: it may come back with its folder.
    #[error("{0}")]
    Moved(String),
}

impl From<BodyError> for QueueError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Io(error) => of_io(&error),
            BodyError::Moved(what) => Self::Moved(what),
        }
    }
}

impl Bodies {
    /// Creates the folder if it is missing.
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        let folder = data_dir.join("bodies");
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        sync_folder(data_dir)?;
        let opened = Some(FileIdentity::of(&fs::metadata(&folder)?));
        Ok(Self { folder, opened, octets: AtomicU64::new(0) })
    }

    /// For reading only; creates nothing.
    pub(super) fn in_folder(data_dir: &Path) -> Self {
        Self { folder: data_dir.join("bodies"), opened: None, octets: AtomicU64::new(0) }
    }

    /// The file and its name are on the disk when this returns `Ok`. An existing file of that name belongs to another
    /// message and is an error. Blocks.
    pub(super) fn write(&self, name: BodyName, data: &[u8]) -> io::Result<()> {
        let path = self.path(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let written = file.write_all(data).and_then(|()| file.sync_all());
        let synced = written.and_then(|()| sync_folder(&self.folder));
        if synced.is_err() {
            // If it stays, it is litter and the next start removes it.
            let _ = fs::remove_file(&path);
        } else {
            self.octets.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        synced
    }

    /// Appends the file's contents to `data`. Blocks.
    pub(super) fn read(&self, name: BodyName, data: &mut Vec<u8>) -> Result<(), BodyError> {
        let mut read = || File::open(self.path(name))?.read_to_end(data).map(drop);
        match read() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.look()?;
                // The folder may have come back between the two steps.
                read().map_err(BodyError::Io)
            }
            result => result.map_err(BodyError::Io),
        }
    }

    /// `Err`: the folder is not the one that was opened.
    pub(super) fn look(&self) -> Result<(), BodyError> {
        let moved = self.opened.and_then(|opened| opened.difference(&self.folder));
        moved.map_or(Ok(()), |what| Err(BodyError::Moved(what)))
    }

    /// A missing file is not an error. Blocks.
    pub(super) fn remove(&self, name: BodyName) {
        let path = self.path(name);
        let octets = fs::metadata(&path).map_or(0, |found| found.len());
        match fs::remove_file(&path) {
            Ok(()) => {
                let less = |known: u64| Some(known.saturating_sub(octets));
                let _always_updated = self.octets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "cannot remove a body that is no longer needed");
            }
            _ => {}
        }
    }

    /// Removes every file for which `is_known` is false; returns how many. Files with other names are left alone.
    pub(super) fn sweep(&self, is_known: impl Fn(BodyName) -> rusqlite::Result<bool>) -> Result<u64, SweepError> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().and_then(parse) else { continue };
            self.octets.fetch_add(entry.metadata().map_or(0, |found| found.len()), Ordering::Relaxed);
            if !is_known(name)? {
                self.remove(name);
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Size of all files.
    pub(super) fn octets(&self) -> u64 {
        self.octets.load(Ordering::Relaxed)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, (id, part): BodyName) -> PathBuf {
        match part {
            BodyFile::Body => self.folder.join(id.as_str()),
            BodyFile::Original => self.folder.join(format!("{id}.original")),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum SweepError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

fn parse(file_name: &str) -> Option<BodyName> {
    let (id, part) = match file_name.strip_suffix(".original") {
        Some(id) => (id, BodyFile::Original),
        None => (file_name, BodyFile::Body),
    };
    id.parse().ok().map(|id| (id, part))
}

// A new name is durable only once its folder is synced.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
