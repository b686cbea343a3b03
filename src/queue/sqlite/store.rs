//! What surrounds the database: readers, files, the cache, and active leases. None of it has to survive a crash.

use super::batch::Addition;
use super::bodies::{Bodies, BodyFile, MAX_INLINE};
use super::cache::Cache;
use super::content::{self, Unreadable};
use super::deduplication;
use super::failure::{Failure, is_damage, of_io};
use super::lane_counts::LaneCounter;
use super::lease::{self, Turns};
use super::lifetime;
use super::open::SqliteOptions;
use super::operate::Removed;
use super::put::{self, PreparedPut, PutState, digest, is_to_be_kept};
use super::reassign::{self, Reassignment};
use super::rows::{key_of, lived_to_column, to_column};
use super::schema;
use super::settle::{self, ActiveLease};
use super::work::Sql;
use super::writer::{Surroundings, Writer};
use crate::message::MailId;
use crate::queue::lifetime::Lifetime;
use crate::queue::schedule::Schedule;
use crate::queue::{Cursor, LaneOf, LeaseId, NewMail, QueueError, Reassigned, Settlement};
use jiff::Timestamp;
use parking_lot::Mutex;
use rusqlite::Connection;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use tokio::task::spawn_blocking;
use tracing::error;

/// Idle connections kept for readers; more are opened when needed.
const READERS: usize = 4;

#[derive(Debug)]
pub(super) struct SqliteStore {
    /// Dropped before the writer: the last connection to close empties the write-ahead log, which a reader cannot do.
    readers: Mutex<Vec<Connection>>,
    pub(super) writer: Writer,
    pub(super) schedule: Schedule,
    pub(super) lifetime: Arc<Lifetime>,
    pub(super) bodies: Arc<Bodies>,
    path: PathBuf,
    pub(super) surroundings: Surroundings,
    pub(super) cache: Mutex<Cache>,
    pub(super) leases: Mutex<HashMap<LeaseId, ActiveLease>>,
    pub(super) next_lease: AtomicI64,
    pub(super) turns: Arc<Turns>,
    /// Set while mail from before the current routes is moved to its lanes.
    pub(super) reassignment: Mutex<Option<Reassignment>>,
}

/// What a put did.
#[derive(Debug)]
pub(super) enum StoredPut {
    /// Nothing: this message has its key.
    Known(MailId),
    Waiting,
    /// It is marked as leased for the delivery loop that waits for it; its key.
    Leased(i64),
}

impl SqliteStore {
    pub(super) fn new(
        writer: Writer,
        lifetime: Lifetime,
        bodies: Bodies,
        surroundings: Surroundings,
        path: PathBuf,
        options: &SqliteOptions,
    ) -> Self {
        Self {
            writer,
            lifetime: Arc::new(lifetime),
            schedule: options.schedule,
            surroundings,
            bodies: Arc::new(bodies),
            path,
            readers: Mutex::default(),
            cache: Mutex::new(Cache::new(options.cache_octets)),
            leases: Mutex::default(),
            next_lease: AtomicI64::new(1),
            turns: Arc::default(),
            reassignment: Mutex::default(),
        }
    }

    /// Runs outside the runtime's threads, on a connection of its own.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        query: impl FnOnce(&Sql<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, QueueError> {
        let store = self.clone();
        let reading = spawn_blocking(move || store.with_reader(|sql| query(sql)).map_err(QueueError::from));
        reading.await.unwrap_or(Err(QueueError::Closed))
    }

    pub(super) fn with_reader<T, E: From<Failure>>(
        &self,
        query: impl FnOnce(&Sql<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        // Until the connection is back: the log stays, and the queue is not closed.
        let _reading = self.surroundings.reading.read();
        if self.writer.is_closed() {
            return Err(Failure::from(QueueError::Closed).into());
        }
        let kept = self.readers.lock().pop();
        let connection = match kept {
            Some(connection) => connection,
            None => schema::open_reader(&self.path).map_err(Failure::from)?,
        };
        let result = query(&Sql::new(&connection));
        let mut readers = self.readers.lock();
        // A connection that failed may be broken.
        if result.is_ok() && readers.len() < READERS {
            readers.push(connection);
        }
        result
    }

    /// `is_once`: unless its key is known. `is_awaited`: a delivery loop can begin it at once; the caller hands it over.
    pub(super) async fn put(
        self: &Arc<Self>,
        mail: NewMail,
        is_once: bool,
        is_awaited: bool,
    ) -> Result<StoredPut, QueueError> {
        let accepted = mail.accepted.clone();
        // Mail that is being moved to other lanes may be older and come first.
        let is_awaited = is_awaited && self.reassignment.lock().is_none();
        let prepared = Arc::new(self.prepare(mail, is_awaited).await?);
        let is_cached = is_to_be_kept(&prepared.mail) && self.cache.lock().insert(&accepted, &prepared.digest);
        let key = prepared.mail.deduplication.as_ref().map(|deduplication| deduplication.key);
        let addition = Addition { id: accepted.id, octets: prepared.octets(), key };
        let sought = key.filter(|_| is_once);
        let stored = self.writer.add(addition, {
            let prepared = prepared.clone();
            let record = self.lifetime.record_if_due();
            move |work| {
                lifetime::keep(work, record.as_ref())?;
                if let Some(key) = sought
                    && let Some(first) = deduplication::stored_under(work, key, prepared.lived)?
                {
                    return Ok(Err(first));
                }
                put::put(work, &prepared).map(Ok)
            }
        });
        let stored = stored.await;
        if !matches!(stored, Ok(Ok(_))) {
            if is_cached {
                self.cache.lock().remove(accepted.id);
            }
            let files = [(prepared.body_in_file, BodyFile::Body), (prepared.original_in_file, BodyFile::Original)];
            self.remove_files(
                files.into_iter().filter(|(written, _)| *written).map(|(_, part)| (accepted.id, part)).collect(),
            )
            .await;
        }
        Ok(match stored? {
            Err(first) => StoredPut::Known(first),
            Ok(PutState::Waiting) => StoredPut::Waiting,
            Ok(PutState::Leased(message)) => StoredPut::Leased(message),
        })
    }

    /// Writes large parts to their files, before the transaction that names them.
    async fn prepare(&self, mail: NewMail, is_awaited: bool) -> Result<PreparedPut, QueueError> {
        let message = &mail.accepted.message;
        let is_kept = is_to_be_kept(&mail);
        let body_in_file = is_kept && message.body().len() > MAX_INLINE;
        let original_in_file = is_kept && mail.original.as_ref().is_some_and(|original| original.len() > MAX_INLINE);
        let lived = lived_to_column(self.lifetime.now());
        let original = mail.original.as_ref().map_or(0, |original| original.len());
        let length = |is_in_file: bool, length: usize| if is_in_file { length as u64 } else { 0 };
        let octets = length(body_in_file, message.body().len()) + length(original_in_file, original);
        let bodies = self.bodies.clone();
        let surroundings = self.surroundings.clone();
        let prepare = move || {
            let accepted = &mail.accepted;
            if octets > 0 {
                surroundings.files.look()?;
                let _until_they_are_there = surroundings.space.promise(octets)?;
                let body = body_in_file.then(|| &accepted.message.body()[..]);
                let original = mail.original.as_deref().filter(|_| original_in_file);
                write_files(&bodies, accepted.id, body, original).map_err(|error| of_io(&error))?;
            }
            let digest = digest(accepted.message.header(), accepted.message.body());
            Ok(PreparedPut { digest, lived, mail, body_in_file, original_in_file, is_awaited })
        };
        if octets > 0 { spawn_blocking(prepare).await.map_err(|_| QueueError::Closed)? } else { prepare() }
    }

    pub(super) fn counter(&self) -> &Arc<LaneCounter> {
        &self.surroundings.counter
    }

    /// Size of everything that is stored.
    pub(super) fn octets(&self) -> u64 {
        self.surroundings.space.database().saturating_add(self.bodies.octets())
    }

    /// Asked before a message arrives; its `put` checks again.
    pub(super) fn admit(&self, octets: u64) -> Result<(), QueueError> {
        let Surroundings { files, space, .. } = &self.surroundings;
        // The writer then saves the contents of a deleted log in the database and returns empty pages to the disk.
        files.look_lately().and_then(|()| space.admit(octets)).inspect_err(|_| self.writer.wake())
    }

    pub(super) async fn settle(
        &self,
        lease: LeaseId,
        settlements: Vec<Settlement>,
        due: Timestamp,
    ) -> Result<(), QueueError> {
        let held = self.leases.lock().remove(&lease).ok_or(QueueError::NoSuchLease)?;
        let settled = self.writer.call({
            let held = held.clone();
            let record = self.lifetime.record_if_due();
            let lived = lived_to_column(self.lifetime.now());
            move |work| {
                lifetime::keep(work, record.as_ref())?;
                match work.attempt(|work| settle::settle(work, &held, &settlements, to_column(due), lived)) {
                    Err(Failure::Sqlite(error)) if is_damage(&error) => Ok(None),
                    settled => settled.map(Some),
                }
            }
        });
        let ended = match settled.await {
            Ok(Some(settled)) => {
                if settled.is_gone {
                    self.cache.lock().remove(held.id);
                }
                self.remove_files(settled.files).await;
                Ok(())
            }
            Ok(None) => self.set_aside(&held, "the outcome of its lease cannot be recorded; see the log").await,
            Err(error) => Err(error),
        };
        if ended.is_err() {
            // The caller will settle it again.
            self.leases.lock().insert(lease, held);
        }
        ended
    }

    /// An unreadable or unwritable message is never tried again automatically.
    pub(super) async fn set_aside(&self, held: &ActiveLease, reason: &str) -> Result<(), QueueError> {
        error!(id = %held.id, lane = &*held.lane, reason, "a message in the queue is damaged; it is set aside and not tried again");
        let set_aside = self.writer.call({
            let held = held.clone();
            move |work| lease::set_aside(work, held.message, &held.lane)
        });
        set_aside.await.inspect_err(|error| {
            error!(id = %held.id, %error, "a damaged message could not be set aside; the next start tries it again");
        })
    }

    pub(super) async fn begin_reassignment(
        self: &Arc<Self>,
        fingerprint: String,
        lane_of: LaneOf,
    ) -> Result<Reassigned, QueueError> {
        let state = self.read(|sql| Ok((reassign::fingerprint(sql)?, reassign::last_message(sql)?)));
        let (known, last) = state.await?;
        if known.as_ref() == Some(&fingerprint) {
            *self.reassignment.lock() = None;
            return Ok(Reassigned { moved: 0, next: None });
        }
        // Set before the first await that may fail, so that leases made meanwhile check their mail in any case.
        let last = last.unwrap_or(i64::MIN);
        *self.reassignment.lock() = Some(Reassignment { lane_of, done: i64::MIN, last });
        self.writer.call(|work| Ok(reassign::forget_fingerprint(work)?)).await?;
        Ok(Reassigned { moved: 0, next: Some(Cursor(i64::MIN)) })
    }

    pub(super) async fn go_on_reassigning(
        &self,
        fingerprint: String,
        lane_of: LaneOf,
        Cursor(done): Cursor,
    ) -> Result<Reassigned, QueueError> {
        let Some(last) = self.reassignment.lock().as_ref().map(|reassignment| reassignment.last) else {
            return Ok(Reassigned { moved: 0, next: None });
        };
        let reassignment = Reassignment { lane_of, done, last };
        let step = self.writer.call(move |work| reassign::step(work, &reassignment, &fingerprint)).await?;
        let mut current = self.reassignment.lock();
        match (step.last, current.as_mut()) {
            (Some(done), Some(current)) => current.done = done,
            _ => *current = None,
        }
        Ok(Reassigned { moved: step.moved, next: step.last.map(Cursor) })
    }

    /// Stores the queue's clock for the next start.
    pub(super) async fn keep_lifetime(&self) -> Result<(), QueueError> {
        let record = self.lifetime.record();
        self.writer.call_if_there_is_room(move |work| lifetime::keep(work, Some(&record))).await
    }

    pub(super) fn close(&self) {
        self.writer.shut();
        {
            // Later ones see that it is closed.
            let _nobody_reads = self.surroundings.reading.write();
            self.readers.lock().clear();
        }
        self.writer.close();
        self.surroundings.files.unlock();
        self.surroundings.reserve.fill();
    }

    /// Called after a removal was committed.
    pub(super) async fn clear(&self, removed: Removed) {
        for id in &removed.ids {
            self.cache.lock().remove(*id);
        }
        self.remove_files(removed.files).await;
    }

    pub(super) async fn remove_files(&self, files: Vec<super::bodies::BodyName>) {
        if !files.is_empty() {
            let bodies = self.bodies.clone();
            let removing = spawn_blocking(move || files.into_iter().for_each(|name| bodies.remove(name)));
            // If the runtime is shutting down, the litter stays for the next start.
            let _ = removing.await;
        }
    }

    pub(super) async fn content(self: &Arc<Self>, id: MailId) -> Result<Option<bytes::Bytes>, QueueError> {
        let bodies = self.bodies.clone();
        self.read(move |sql| {
            let Some(message) = key_of(sql, id)? else { return Ok(None) };
            match content::load(sql, &bodies, message, id) {
                Ok(content) => Ok(content.map(|content| content.message.to_bytes().into())),
                Err(Unreadable::Damaged(reason)) => {
                    Err(QueueError::Storage(format!("{id} is damaged: {reason}")).into())
                }
                Err(Unreadable::Trouble(error)) => Err(error.into()),
            }
        })
        .await
    }
}

/// The parts of a message that are to be in files of their own.
pub(super) fn write_files(
    bodies: &Bodies,
    id: MailId,
    body: Option<&[u8]>,
    original: Option<&[u8]>,
) -> std::io::Result<()> {
    for (part, data) in [(BodyFile::Body, body), (BodyFile::Original, original)] {
        if let Some(data) = data {
            bodies.write((id, part), data)?;
        }
    }
    Ok(())
}
