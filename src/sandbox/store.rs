//! The sandbox's mail: the newest messages as .eml files, bounded in number and octets.
//!
//! The folder's mode is 0700 and its files' 0600, because development mail contains real password-reset links. A file
//! begins with the envelope in Return-Path and Delivered-To, as after a final delivery (RFC 5321 §4.4).

use crate::message::MailId;
use crate::smtp::{Mailbox, ReversePath};
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tracing::warn;

/// One message as it arrived.
#[derive(Debug, Clone)]
pub struct SandboxMessage {
    pub id: MailId,
    pub sender: ReversePath,
    pub recipients: Vec<Mailbox>,
    pub message: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SandboxLimits {
    pub messages: usize,
    pub octets: u64,
}

impl Default for SandboxLimits {
    fn default() -> Self {
        Self { messages: 1000, octets: 256 * 1024 * 1024 }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the sandbox's folder {path} cannot be used: {source}")]
    Folder { path: PathBuf, source: io::Error },
    #[error("the sandbox cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
}

#[derive(Debug)]
pub struct SandboxStore {
    folder: PathBuf,
    limits: SandboxLimits,
    state: Mutex<StoreState>,
}

#[derive(Debug, Default)]
struct StoreState {
    /// Oldest first.
    files: VecDeque<(PathBuf, u64)>,
    file_octets: u64,
}

impl SandboxStore {
    /// Counts the files of earlier runs, oldest first by name.
    pub fn open(folder: PathBuf, limits: SandboxLimits) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Folder { path: folder.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let mut files = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if is_ours(&entry.path()) {
                files.push((entry.path(), entry.metadata().map_err(failed)?.len()));
            }
        }
        files.sort();
        let state = StoreState { file_octets: files.iter().map(|(_, octets)| octets).sum(), files: files.into() };
        let store = Self { folder, limits, state: Mutex::new(state) };
        store.prune_files(&mut store.state());
        Ok(store)
    }

    /// The file is written before this returns.
    pub fn keep(&self, kept: &SandboxMessage) -> Result<(), StoreError> {
        let path = self.folder.join(format!("{}.eml", kept.id));
        let failed = |source| StoreError::Write { path: path.clone(), source };
        let octets = match write_file(&path, kept) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.make_folder_again().map_err(failed)?;
                write_file(&path, kept).map_err(failed)?
            }
            written => written.map_err(failed)?,
        };
        let mut state = self.state();
        state.files.push_back((path, octets));
        state.file_octets += octets;
        self.prune_files(&mut state);
        Ok(())
    }

    /// Creates the folder again after it was deleted together with its files. Never creates the folders above it: if
    /// the data folder was moved away, a new one would be in the way when it comes back.
    fn make_folder_again(&self) -> io::Result<()> {
        let mut state = self.state();
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            // Another message created it first.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
            made => made?,
        }
        (state.files, state.file_octets) = (VecDeque::new(), 0);
        warn!(path = %self.folder.display(), "the sandbox's folder was deleted; it is made again, and the mail that was in it is gone");
        Ok(())
    }

    fn prune_files(&self, state: &mut StoreState) {
        while state.files.len() > self.limits.messages || state.file_octets > self.limits.octets {
            let Some((path, octets)) = state.files.pop_front() else { break };
            state.file_octets -= octets;
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    warn!(path = %path.display(), %error, "the sandbox could not remove an old message");
                }
                _ => {}
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, StoreState> {
        self.state.lock()
    }
}

fn is_ours(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "eml")
        && path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stem.parse::<MailId>().is_ok())
}

/// Returns the octets written. A file that could not be written completely is removed again.
fn write_file(path: &Path, kept: &SandboxMessage) -> io::Result<u64> {
    let mut top = format!("Return-Path: <{}>\r\n", kept.sender);
    for recipient in &kept.recipients {
        top.push_str(&format!("Delivered-To: {recipient}\r\n"));
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(top.as_bytes()).and_then(|()| file.write_all(&kept.message));
    if let Err(error) = written {
        let _nothing_more_to_do = fs::remove_file(path);
        return Err(error);
    }
    Ok((top.len() + kept.message.len()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use std::os::unix::fs::PermissionsExt;

    fn kept(number: u32, octets: usize) -> SandboxMessage {
        let now = Timestamp::from_millisecond(1_795_000_000_000 + i64::from(number)).unwrap();
        SandboxMessage {
            id: MailId::new(now, number),
            sender: ReversePath::Null,
            recipients: vec![Mailbox::parse("you@example.net").unwrap()],
            message: vec![b'x'; octets].into(),
        }
    }

    #[test]
    fn the_folder_stays_within_number_and_octets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sandbox");
        let limits = SandboxLimits { messages: 3, octets: 1000 };
        let store = SandboxStore::open(path.clone(), limits).unwrap();
        for number in 0..5 {
            store.keep(&kept(number, 10)).unwrap();
        }
        let is_there = |number| path.join(format!("{}.eml", kept(number, 0).id)).exists();
        assert_eq!((0..5).map(is_there).collect::<Vec<_>>(), [false, false, true, true, true]);
        store.keep(&kept(5, 900)).unwrap();
        assert!(fs::read_dir(&path).unwrap().count() < 3, "octets are bounded too");
        SandboxStore::open(path.clone(), SandboxLimits { messages: 1, ..limits }).unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "files of an earlier run count");
    }

    /// Every later message was deferred until the next start.
    #[test]
    fn a_folder_that_was_deleted_is_made_again_and_its_files_count_no_more() {
        let data_dir = tempfile::tempdir().unwrap();
        let path = data_dir.path().join("sandbox");
        let limits = SandboxLimits { messages: 3, octets: 250 };
        let store = SandboxStore::open(path.clone(), limits).unwrap();
        (0..3).for_each(|number| store.keep(&kept(number, 10)).unwrap());
        fs::remove_dir_all(&path).unwrap();
        (3..5).for_each(|number| store.keep(&kept(number, 10)).unwrap());
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2, "what is gone takes no room");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        // Single files can be deleted, too.
        fs::remove_file(path.join(format!("{}.eml", kept(3, 0).id))).unwrap();
        (5..9).for_each(|number| store.keep(&kept(number, 10)).unwrap());
        assert!(path.join(format!("{}.eml", kept(8, 0).id)).exists());
        let moved = data_dir.path().with_extension("moved");
        fs::rename(data_dir.path(), &moved).unwrap();
        store.keep(&kept(9, 10)).unwrap_err();
        assert!(!data_dir.path().exists(), "the data folder is not the sandbox's to make");
        fs::rename(&moved, data_dir.path()).unwrap();
        store.keep(&kept(9, 10)).unwrap();
    }

    #[test]
    fn nobody_else_reads_what_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sandbox");
        let store = SandboxStore::open(path.clone(), SandboxLimits::default()).unwrap();
        store.keep(&kept(0, 1)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        let file = path.join(format!("{}.eml", kept(0, 0).id));
        assert_eq!(mode(&file), 0o600);
        assert_eq!(fs::read_to_string(file).unwrap(), "Return-Path: <>\r\nDelivered-To: you@example.net\r\nx");
    }
}
