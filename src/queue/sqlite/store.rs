//! What stands around the database: readers, files, the cache, and the leases that are out.

use super::bodies::{Bodies, MAX_INLINE, Part};
use super::cache::Cache;
use super::content::{self, Unreadable};
use super::failure::{Failure, of_io, of_sqlite};
use super::lease::{self, Grant, Turns};
use super::operate::Removed;
use super::put::{self, Prepared, digest, is_to_be_kept};
use super::rows::{key_of, to_column};
use super::schema;
use super::settle::{self, Held};
use super::work::Sql;
use super::writer::{Writer, lock};
use crate::message::accepted::Accepted;
use crate::message::{Author, MailId, RawMessage};
use crate::queue::schedule::Schedule;
use crate::queue::{Lane, LeaseId, Leased, NewMail, QueueError, Settlement};
use jiff::Timestamp;
use rusqlite::Connection;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tracing::error;

/// Connections kept for readers; more are opened while more are needed.
const READERS: usize = 4;

#[derive(Debug)]
pub(super) struct Store {
    pub(super) writer: Writer,
    pub(super) schedule: Schedule,
    bodies: Arc<Bodies>,
    path: PathBuf,
    readers: Mutex<Vec<Connection>>,
    cache: Mutex<Cache>,
    leases: Mutex<HashMap<LeaseId, Held>>,
    next_lease: AtomicI64,
    turns: Arc<Turns>,
}

/// Runs to its end even if the caller goes away: what is half done would otherwise stay half done until the next start.
pub(super) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, QueueError>> + Send + 'static,
) -> Result<T, QueueError> {
    tokio::spawn(work).await.unwrap_or(Err(QueueError::Closed))
}

impl Store {
    pub(super) fn new(writer: Writer, bodies: Bodies, path: PathBuf, cache_octets: u64, schedule: Schedule) -> Self {
        Self {
            writer,
            schedule,
            bodies: Arc::new(bodies),
            path,
            readers: Mutex::default(),
            cache: Mutex::new(Cache::new(cache_octets)),
            leases: Mutex::default(),
            next_lease: AtomicI64::new(1),
            turns: Arc::default(),
        }
    }

    /// Off the runtime's threads, on a connection of its own.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        query: impl FnOnce(&Sql<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, QueueError> {
        let store = self.clone();
        let reading = spawn_blocking(move || store.with_reader(|sql| query(sql)).map_err(QueueError::from));
        reading.await.unwrap_or(Err(QueueError::Closed))
    }

    fn with_reader<T, E: From<Failure>>(&self, query: impl FnOnce(&Sql<'_>) -> Result<T, E>) -> Result<T, E> {
        if self.writer.is_closed() {
            return Err(Failure::from(QueueError::Closed).into());
        }
        let kept = lock(&self.readers).pop();
        let connection = match kept {
            Some(connection) => connection,
            None => schema::open_reader(&self.path).map_err(Failure::from)?,
        };
        let result = query(&Sql::new(&connection));
        let mut readers = lock(&self.readers);
        // One that failed may not be well.
        if result.is_ok() && readers.len() < READERS {
            readers.push(connection);
        }
        result
    }

    pub(super) async fn put(&self, mail: NewMail) -> Result<(), QueueError> {
        let accepted = mail.accepted.clone();
        let prepared = Arc::new(self.prepare(mail).await?);
        let is_kept = is_to_be_kept(&prepared.mail);
        if is_kept {
            lock(&self.cache).insert(&accepted);
        }
        let stored = self.writer.call({
            let prepared = prepared.clone();
            move |work| put::put(work, &prepared)
        });
        let stored = stored.await;
        if stored.is_err() {
            lock(&self.cache).remove(accepted.id);
            let files = [(prepared.body_in_file, Part::Body), (prepared.original_in_file, Part::Original)];
            self.remove_files(
                files.into_iter().filter(|(written, _)| *written).map(|(_, part)| (accepted.id, part)).collect(),
            )
            .await;
        }
        stored
    }

    /// Large parts go to their files, before the transaction that names them.
    async fn prepare(&self, mail: NewMail) -> Result<Prepared, QueueError> {
        let message = &mail.accepted.message;
        let is_kept = is_to_be_kept(&mail);
        let body_in_file = is_kept && message.body().len() > MAX_INLINE;
        let original_in_file = is_kept && mail.original.as_ref().is_some_and(|original| original.len() > MAX_INLINE);
        let prepare = move |bodies: &Bodies| {
            let accepted = &mail.accepted;
            if body_in_file {
                bodies.write((accepted.id, Part::Body), accepted.message.body())?;
            }
            if let Some(original) = mail.original.as_ref().filter(|_| original_in_file) {
                bodies.write((accepted.id, Part::Original), original)?;
            }
            let digest = digest(accepted.message.header(), accepted.message.body());
            Ok(Prepared { digest, mail, body_in_file, original_in_file })
        };
        let prepared: std::io::Result<Prepared> = if body_in_file || original_in_file {
            let bodies = self.bodies.clone();
            spawn_blocking(move || prepare(&bodies)).await.map_err(|_| QueueError::Closed)?
        } else {
            prepare(&self.bodies)
        };
        prepared.map_err(|error| of_io(&error))
    }

    pub(super) async fn settle(
        &self,
        lease: LeaseId,
        settlements: Vec<Settlement>,
        due: Timestamp,
    ) -> Result<(), QueueError> {
        let held = lock(&self.leases).remove(&lease).ok_or(QueueError::NoSuchLease)?;
        let settled = self.writer.call({
            let held = held.clone();
            move |work| settle::settle(work, &held, &settlements, to_column(due))
        });
        match settled.await {
            Ok(settled) => {
                if settled.is_gone {
                    lock(&self.cache).remove(held.id);
                }
                self.remove_files(settled.files).await;
                Ok(())
            }
            Err(error) => {
                lock(&self.leases).insert(lease, held);
                Err(error)
            }
        }
    }

    /// After a removal was committed.
    pub(super) async fn clear(&self, removed: Removed) {
        for id in &removed.ids {
            lock(&self.cache).remove(*id);
        }
        self.remove_files(removed.files).await;
    }

    async fn remove_files(&self, files: Vec<super::bodies::Name>) {
        if !files.is_empty() {
            let bodies = self.bodies.clone();
            let removing = spawn_blocking(move || files.into_iter().for_each(|name| bodies.remove(name)));
            // A runtime that is being shut down leaves litter for the next start.
            let _ = removing.await;
        }
    }

    pub(super) async fn content(self: &Arc<Self>, id: MailId) -> Result<Option<bytes::Bytes>, QueueError> {
        let bodies = self.bodies.clone();
        self.read(move |sql| {
            let Some(message) = key_of(sql, id)? else { return Ok(None) };
            match content::load(sql, &bodies, message, id) {
                Ok(message) => Ok(message.map(|message| message.to_bytes().into())),
                Err(Unreadable::Damaged(reason)) => {
                    Err(QueueError::Storage(format!("{id} is damaged: {reason}")).into())
                }
                Err(Unreadable::Trouble(error)) => Err(error.into()),
            }
        })
        .await
    }
}

/// Whatever happens to the caller: what was marked as leased is either handed over or given back.
pub(super) async fn lease(
    store: &Arc<Store>,
    lane: Lane,
    now: Timestamp,
    limit: usize,
    octets: u64,
) -> Result<Vec<Leased>, QueueError> {
    let request = lease::Request {
        lane: lane.as_str().into(),
        now: to_column(now),
        horizon: to_column(store.schedule.horizon(now)),
        limit,
        octets,
    };
    let (answer, answered) = oneshot::channel();
    let store = store.clone();
    tokio::spawn(async move {
        let leased = store.lend(&lane, request).await;
        if let Err(Ok(unwanted)) = answer.send(leased) {
            for leased in unwanted {
                store.give_back(leased.lease, now).await;
            }
        }
    });
    answered.await.map_err(|_| QueueError::Closed)?
}

impl Store {
    async fn lend(self: &Arc<Self>, lane: &Lane, request: lease::Request) -> Result<Vec<Leased>, QueueError> {
        let now = request.now;
        let turns = self.turns.clone();
        let granted = self.writer.call(move |work| lease::lease(work, &request, &turns)).await?;
        for (message, reason) in &granted.damaged {
            error!(row = message, %lane, reason, "a message in the queue is damaged; it is set aside and not tried again");
        }
        let mut leased = Vec::new();
        let mut trouble = None;
        for (grant, content) in self.contents(granted.grants).await {
            let held = Held {
                message: grant.message,
                id: grant.id,
                lane: lane.as_str().into(),
                positions: grant.positions.clone(),
            };
            let lease = LeaseId(self.next_lease.fetch_add(1, Ordering::Relaxed));
            match content {
                Ok(message) => {
                    lock(&self.leases).insert(lease, held);
                    leased.push(assemble(lease, lane, grant, message));
                }
                Err(Unreadable::Damaged(reason)) => self.set_aside(held, reason).await,
                Err(Unreadable::Trouble(error)) => {
                    lock(&self.leases).insert(lease, held);
                    self.give_back(lease, super::rows::from_column(now)).await;
                    trouble = Some(error);
                }
            }
        }
        trouble.filter(|_| leased.is_empty()).map_or(Ok(leased), Err)
    }

    async fn contents(self: &Arc<Self>, grants: Vec<Grant>) -> Vec<(Grant, Result<Content, Unreadable>)> {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for grant in grants {
            match lock(&self.cache).find(grant.id) {
                Some(accepted) => found.push((grant, Ok(Content::Cached(accepted)))),
                None => missing.push(grant),
            }
        }
        if missing.is_empty() {
            return found;
        }
        let store = self.clone();
        let reading = spawn_blocking(move || {
            let load = |grant: Grant| {
                let content = store.with_reader(|sql| content::load(sql, &store.bodies, grant.message, grant.id));
                let content =
                    content.and_then(|message| message.ok_or(Unreadable::Damaged("its content is missing".into())));
                (grant, content.map(Content::Read))
            };
            missing.into_iter().map(load).collect::<Vec<_>>()
        });
        found.extend(reading.await.unwrap_or_default());
        found
    }

    async fn set_aside(&self, held: Held, reason: String) {
        error!(id = %held.id, lane = &*held.lane, reason, "a message in the queue is damaged; it is set aside and not tried again");
        let set_aside = self.writer.call({
            let held = held.clone();
            move |work| lease::set_aside(work, held.message, &held.lane)
        });
        if let Err(error) = set_aside.await {
            error!(id = %held.id, %error, "it could not be set aside either; the next start tries it again");
        }
    }

    async fn give_back(&self, lease: LeaseId, now: Timestamp) {
        let recipients = lock(&self.leases).get(&lease).map_or(0, |held| held.positions.len());
        if let Err(error) = self.settle(lease, vec![Settlement::Untried; recipients], now).await {
            error!(%error, "a lease could not be given back; the next start does it");
        }
    }
}

enum Content {
    Cached(Arc<Accepted>),
    Read(RawMessage),
}

fn assemble(lease: LeaseId, lane: &Lane, grant: Grant, content: Content) -> Leased {
    let Grant { id, received_at, since, envelope, attempts, suspect, .. } = grant;
    let accepted = match content {
        Content::Cached(accepted) if accepted.envelope == envelope => accepted,
        Content::Cached(accepted) => Arc::new(Accepted { envelope, ..(*accepted).clone() }),
        Content::Read(message) => {
            let author = Author::of(&message).ok();
            Arc::new(Accepted { id, received_at, envelope, message, author })
        }
    };
    Leased { lease, lane: lane.clone(), accepted, attempts, since, suspect }
}

impl From<Failure> for Unreadable {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Sqlite(error) => Self::Trouble(of_sqlite(&error)),
            Failure::Queue(error) => Self::Trouble(error),
        }
    }
}
