//! What could not be told to Redis while it was away: outcomes of deliveries, and puts that were given up. A file in the data
//! folder, synced with every entry, so that the end of this process loses none.

use super::lease::FencedLease;
use crate::message::MailId;
use crate::queue::Settlement;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const NAME: &str = "redis-journal";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum JournalEntry {
    /// How a lease has ended. `due`: by the server's clock.
    Settled { lease: FencedLease, settlements: Vec<Settlement>, due: i64 },
    /// A client was told that its message was not stored, and nobody knows whether it was. `key`: by which it would be
    /// recognised.
    Revoked { shard: u16, id: MailId, key: Option<String> },
}

#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    entries: Mutex<Vec<JournalEntry>>,
}

impl Journal {
    /// The last line may have been cut off by the end of the process; what it says was not promised to anybody.
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let entries = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Ok(Self { path, entries: Mutex::new(entries) })
    }

    /// Returns when it is on the disk.
    pub(super) fn add(&self, entry: JournalEntry) -> io::Result<()> {
        let mut entries = self.entries.lock();
        let mut line = serde_json::to_vec(&entry).map_err(io::Error::other)?;
        line.push(b'\n');
        // A line that was cut off before must not spoil this one.
        line.insert(0, b'\n');
        let mut file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        file.write_all(&line)?;
        file.sync_all()?;
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        entries.push(entry);
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.lock().is_empty()
    }

    pub(super) fn entries(&self) -> Vec<JournalEntry> {
        self.entries.lock().clone()
    }

    /// These have been told. If the file cannot be written, they are told again at the next start, which changes nothing.
    pub(super) fn remove(&self, told: &[JournalEntry]) -> io::Result<()> {
        let mut entries = self.entries.lock();
        entries.retain(|entry| !told.contains(entry));
        let mut text = Vec::new();
        for entry in entries.iter() {
            serde_json::to_writer(&mut text, entry).map_err(io::Error::other)?;
            text.push(b'\n');
        }
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revoked(number: u32) -> JournalEntry {
        JournalEntry::Revoked { shard: 0, id: MailId::new(jiff::Timestamp::UNIX_EPOCH, number), key: None }
    }

    #[test]
    fn entries_outlive_the_process_and_a_line_that_was_cut_off_costs_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        assert!(journal.is_empty());
        journal.add(revoked(1)).unwrap();
        let path = folder.path().join(NAME);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"revoked\":{\"sha").unwrap();
        drop(file);
        let journal = Journal::open(folder.path()).unwrap();
        journal.add(revoked(2)).unwrap();
        assert_eq!(Journal::open(folder.path()).unwrap().entries(), [revoked(1), revoked(2)]);
        journal.remove(&[revoked(1)]).unwrap();
        assert_eq!(Journal::open(folder.path()).unwrap().entries(), [revoked(2)]);
    }
}
