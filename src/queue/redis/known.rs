//! What this instance knows of the shared queue between two runs, as a file in the data folder: its own name among the
//! instances, the queue's identity, and how many messages each shard had ever accepted. A Redis that knows less has lost
//! acknowledged mail.

use super::layout::unique;
use crate::observe::clock::Boot;
use crate::queue::lifetime::Record;
use crate::queue::portable::milliseconds;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

const NAME: &str = "redis-queue.json";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownQueue {
    /// Names this instance.
    pub instance: String,
    /// `None`: no queue was opened from this folder yet.
    pub generation: Option<QueueGeneration>,
    /// By shard.
    pub accepted: Vec<AcceptedCount>,
    /// The clock by which mail ages, for a start while Redis is away; `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<KnownClock>,
}

/// How many messages a shard has ever accepted. Those of one instance are counted as well: others, which accept more after
/// some were lost, would otherwise hide the loss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AcceptedCount {
    /// By all instances.
    pub all: u64,
    /// By this one.
    pub own: u64,
}

impl AcceptedCount {
    /// How many of these messages are missing where only `stored` are known.
    pub(super) fn missing_in(self, stored: Self) -> u64 {
        self.all.saturating_sub(stored.all).max(self.own.saturating_sub(stored.own))
    }
}

/// As `lifetime::Record`. Durations are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownClock {
    lived: u64,
    at: Option<Timestamp>,
    latest: Option<Timestamp>,
    boot: Option<(String, u64)>,
}

impl From<&Record> for KnownClock {
    fn from(Record { lived, at, latest, boot }: &Record) -> Self {
        let boot = boot.as_ref().map(|boot| (boot.id.clone(), milliseconds(boot.uptime)));
        Self { lived: milliseconds(*lived), at: *at, latest: *latest, boot }
    }
}

impl From<KnownClock> for Record {
    fn from(KnownClock { lived, at, latest, boot }: KnownClock) -> Self {
        let boot = boot.map(|(id, uptime)| Boot { id, uptime: Duration::from_millis(uptime) });
        Self { lived: Duration::from_millis(lived), at, latest, boot }
    }
}

/// The queue's identity. An operator who adopts another state of it begins another generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct QueueGeneration {
    pub queue: String,
    pub number: u64,
    pub shards: u16,
}

impl QueueGeneration {
    pub(super) fn first(shards: u16) -> Self {
        Self { queue: unique(), number: 1, shards }
    }

    /// As it is stored in every shard.
    pub(super) fn encode(&self) -> String {
        format!("{}:{}:{}", self.queue, self.number, self.shards)
    }

    pub(super) fn decode(stored: &str) -> Option<Self> {
        let mut parts = stored.split(':');
        let (queue, number, shards) =
            (parts.next()?.to_owned(), parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self { queue, number, shards })
    }
}

/// The file and what it contains.
#[derive(Debug)]
pub(super) struct KnownFile {
    path: PathBuf,
    known: Mutex<(KnownQueue, bool)>,
}

impl KnownFile {
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        let file = Self::peek(data_dir)?;
        file.known.lock().1 = true;
        file.keep()?;
        Ok(file)
    }

    /// Beside a gateway that uses the folder: it is read, and must not be kept.
    pub(super) fn peek(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(NAME);
        let known = match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                KnownQueue { instance: unique(), ..KnownQueue::default() }
            }
            Err(error) => return Err(error),
        };
        Ok(Self { path, known: Mutex::new((known, false)) })
    }

    pub(super) fn read(&self) -> KnownQueue {
        self.known.lock().0.clone()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut KnownQueue)) {
        let mut known = self.known.lock();
        let before = known.0.clone();
        change(&mut known.0);
        known.1 |= known.0 != before;
    }

    /// What a shard says of itself. What was accepted in an earlier generation may be missing, as an operator knows.
    pub(super) fn learn(&self, shard: u16, generation: QueueGeneration, accepted: AcceptedCount) {
        self.change(|known| {
            if known.generation.as_ref() != Some(&generation) {
                known.generation = Some(generation);
                known.accepted.clear();
            }
        });
        self.learn_accepted(shard, accepted);
    }

    /// Messages that a shard has accepted, by its own count.
    pub(super) fn learn_accepted(&self, shard: u16, accepted: AcceptedCount) {
        self.change(|known| {
            let shard = usize::from(shard);
            known.accepted.resize(known.accepted.len().max(shard + 1), AcceptedCount::default());
            let known = &mut known.accepted[shard];
            *known = AcceptedCount { all: known.all.max(accepted.all), own: known.own.max(accepted.own) };
        });
    }

    /// Writes what has changed since the last time. Blocks for a moment.
    pub(super) fn keep(&self) -> io::Result<()> {
        let mut known = self.known.lock();
        if !known.1 {
            return Ok(());
        }
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(&known.0).map_err(io::Error::other)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        known.1 = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_of_a_queue_is_there_at_the_next_start_and_never_less() {
        let folder = tempfile::tempdir().unwrap();
        let first = KnownFile::open(folder.path()).unwrap();
        first.learn_accepted(2, AcceptedCount { all: 7, own: 3 });
        first.learn_accepted(2, AcceptedCount { all: 5, own: 4 });
        first.change(|known| known.generation = Some(QueueGeneration::first(3)));
        first.keep().unwrap();
        let none = AcceptedCount::default();
        let again = KnownFile::open(folder.path()).unwrap().read();
        assert_eq!(
            (&again, again.accepted.as_slice()),
            (&first.read(), &[none, none, AcceptedCount { all: 7, own: 4 }][..])
        );
        let generation = again.generation.unwrap();
        assert_eq!(QueueGeneration::decode(&generation.encode()), Some(generation));
        fs::write(folder.path().join(NAME), "{").unwrap();
        KnownFile::open(folder.path()).unwrap_err();
    }
}
