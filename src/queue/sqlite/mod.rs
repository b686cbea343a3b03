//! The embedded backend: SQLite in `data_dir`, one thread that writes, readers beside it, large bodies as files.
//!
//! The database is the only truth; the cache and the table of leases are what a process may forget. It never answers before the
//! commit was synced. docs/queue.md has the tables and the costs.

mod batch;
mod bodies;
mod cache;
mod check;
mod claim;
mod content;
mod envelope;
mod failure;
mod identity;
mod inspect;
mod integrity;
mod lease;
mod lifetime;
mod list;
mod open;
mod operate;
mod put;
mod quota;
mod read;
mod reassign;
mod replace;
mod reserve;
mod rows;
mod salvage;
mod schema;
mod settle;
mod space;
mod store;
#[cfg(test)]
mod tests;
mod wal;
mod work;
mod writer;

pub use check::{Checked, check};
pub use open::{OpenError, SqliteOptions, exists};
pub use salvage::{Finding, SalvageError, Salvaged, salvage};
pub use space::SMALLEST_FLOOR;

use super::{
    Correction, Cursor, Filter, HeldLane, HistoryRow, Lane, LaneOf, LeaseId, Leased, MessageDetails, NewMail, Page,
    Queue, QueueError, QuotaRow, Reassigned, Revision, Settlement, Statistics, StoredMail, Wakeups,
};
use crate::message::MailId;
use async_trait::async_trait;
use jiff::Timestamp;
use rows::{lived_to_column, signed, to_column};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use store::{SqliteStore, detached};

/// Gives rows that were written by hand the digests they would have.
#[cfg(any(test, fuzzing))]
pub(crate) fn cover_all(connection: &rusqlite::Connection) -> rusqlite::Result<()> {
    envelope::cover_all(&work::Sql::new(connection))
}

/// What one transaction of an operation on many covers: on a full disk less and less, as a smaller one may still fit.
struct Steps {
    at: usize,
    end: usize,
    length: usize,
    /// Of the step that was handed out.
    current: Range<usize>,
}

impl Steps {
    const LONGEST: usize = 200;

    fn of(count: usize) -> Self {
        Self { at: 0, end: count, length: Self::LONGEST, current: 0..0 }
    }

    fn next(&mut self) -> Option<Range<usize>> {
        self.current = self.at..self.end.min(self.at + self.length);
        (!self.current.is_empty()).then(|| self.current.clone())
    }

    /// `None`: it did not fit and is asked for once more, in part.
    fn done<T>(&mut self, result: Result<T, QueueError>) -> Result<Option<T>, QueueError> {
        match result {
            Err(QueueError::Full(_)) if self.current.len() > 1 => {
                self.length = self.current.len() / 2;
                Ok(None)
            }
            result => {
                self.at = self.current.end;
                result.map(Some)
            }
        }
    }
}

/// Dropping it ends the writer after what was asked for; leases that are not settled become possible duplicates at the
/// next open.
#[derive(Debug)]
pub struct SqliteQueue {
    store: Arc<SqliteStore>,
    wakeups: Arc<Wakeups>,
}

impl SqliteQueue {
    /// The caller must hold the lock of `data_dir`. Blocks: makes and migrates the tables, makes every leased recipient
    /// wait again, removes files that no message names.
    pub fn open(options: SqliteOptions) -> Result<Self, OpenError> {
        open::open(&options).map(|store| Self { store: Arc::new(store), wakeups: Arc::default() })
    }

    /// Commits so far, each with one sync.
    pub fn commits(&self) -> u64 {
        self.store.writer.commits()
    }
}

#[async_trait]
impl Queue for SqliteQueue {
    async fn put(&self, mail: NewMail) -> Result<(), QueueError> {
        let store = self.store.clone();
        let wakeups = self.wakeups.clone();
        let lanes = mail.waiting_lanes();
        let put = async move { store.put(mail).await.inspect(|()| wakeups.wake(&lanes)) };
        detached(put).await
    }

    async fn lease(&self, lane: &Lane, now: Timestamp, limit: usize, octets: u64) -> Result<Vec<Leased>, QueueError> {
        claim::lease(&self.store, lane.clone(), now, limit, octets).await
    }

    async fn lease_expired(
        &self,
        lane: &Lane,
        age: Duration,
        after: Option<Cursor>,
        limit: usize,
        octets: u64,
    ) -> Result<(Vec<Leased>, Option<Cursor>), QueueError> {
        claim::lease_expired(&self.store, lane.clone(), age, after, limit, octets).await
    }

    async fn settle(&self, lease: LeaseId, settlements: Vec<Settlement>, due: Timestamp) -> Result<(), QueueError> {
        let store = self.store.clone();
        detached(async move { store.settle(lease, settlements, due).await }).await
    }

    async fn next_due(&self, lane: &Lane, now: Timestamp) -> Result<Option<Timestamp>, QueueError> {
        let (lane, horizon) = (lane.clone(), to_column(self.store.schedule.horizon(now)));
        self.store.read(move |sql| read::next_due(sql, lane.as_str(), now, horizon)).await
    }

    async fn reassign_lanes(
        &self,
        fingerprint: &str,
        lane_of: LaneOf,
        after: Option<Cursor>,
    ) -> Result<Reassigned, QueueError> {
        let fingerprint = fingerprint.to_owned();
        let reassigned = match after {
            None => self.store.begin_reassignment(fingerprint, lane_of).await,
            Some(after) => self.store.go_on_reassigning(fingerprint, lane_of, after).await,
        };
        self.wakeups.wake_all();
        reassigned
    }

    async fn hold(&self, lane: Option<&Lane>, held: bool) -> Result<(), QueueError> {
        let lane = lane.cloned();
        self.store.writer.call(move |work| operate::hold(work, lane.as_ref().map(Lane::as_str), held)).await?;
        self.wakeups.wake_all();
        Ok(())
    }

    async fn holds(&self) -> Result<Vec<HeldLane>, QueueError> {
        self.store.read(read::holds).await
    }

    async fn list(&self, filter: &Filter, after: Option<Cursor>, limit: usize) -> Result<Page, QueueError> {
        let filter = filter.clone();
        self.store.read(move |sql| list::list(sql, &filter, after, limit)).await
    }

    async fn show(&self, id: MailId) -> Result<Option<MessageDetails>, QueueError> {
        self.store.read(move |sql| read::show(sql, id)).await
    }

    async fn content(&self, id: MailId) -> Result<Option<bytes::Bytes>, QueueError> {
        self.store.content(id).await
    }

    async fn retry(&self, ids: &[MailId], correction: Option<&Correction>, now: Timestamp) -> Result<u64, QueueError> {
        let (mut count, mut steps) = (0, Steps::of(ids.len()));
        while let Some(step) = steps.next() {
            let (ids, correction, lived) = (ids[step].to_vec(), correction.cloned(), lived_to_column(self.lived()));
            let record = self.store.lifetime.record_if_due();
            let retried = self.store.writer.call(move |work| {
                lifetime::keep(work, record.as_ref())?;
                operate::retry(work, &ids, correction.as_ref(), to_column(now), lived)
            });
            let retried = steps.done(retried.await)?.unwrap_or(0);
            self.wakeups.wake_all();
            count += retried;
        }
        Ok(count)
    }

    async fn stored(&self, id: MailId) -> Result<Option<StoredMail>, QueueError> {
        self.store.stored(id).await
    }

    async fn replace(&self, revision: Revision, now: Timestamp) -> Result<bool, QueueError> {
        let store = self.store.clone();
        let wakeups = self.wakeups.clone();
        detached(async move {
            let replaced = store.replace(revision, to_column(now)).await?;
            wakeups.wake_all();
            Ok(replaced)
        })
        .await
    }

    async fn remove(&self, ids: &[MailId]) -> Result<u64, QueueError> {
        let (mut count, mut steps) = (0, Steps::of(ids.len()));
        while let Some(step) = steps.next() {
            let ids = ids[step].to_vec();
            let removed = self.store.writer.call(move |work| operate::remove(work, &ids));
            let Some(removed) = steps.done(removed.await)? else { continue };
            count += removed.count;
            self.store.clear(removed).await;
        }
        Ok(count)
    }

    async fn history(&self, before: Option<Cursor>, limit: usize) -> Result<Vec<HistoryRow>, QueueError> {
        self.store.read(move |sql| read::history(sql, before, signed(limit))).await
    }

    async fn prune(&self, failed: Duration, history: Duration) -> Result<u64, QueueError> {
        // A full disk costs some seconds of it, and must not keep what is forgotten here from making room.
        let _best_effort = self.store.keep_lifetime().await;
        let before = |age| lived_to_column(self.store.lifetime.before(age));
        let (failed, history) = (before(failed), before(history));
        let (mut count, mut steps) = (0, Steps::of(usize::MAX));
        while let Some(step) = steps.next() {
            let pruned = self.store.writer.call(move |work| operate::prune(work, failed, history, step.len()));
            let Some(removed) = steps.done(pruned.await)? else { continue };
            if removed.count == 0 {
                break;
            }
            count += removed.count;
            self.store.clear(removed).await;
        }
        while self.store.writer.call(operate::give_back_space).await? {}
        Ok(count)
    }

    fn lived(&self) -> Duration {
        self.store.lifetime.now()
    }

    async fn spent(&self, quota: &str) -> Result<Vec<QuotaRow>, QueueError> {
        let quota = quota.to_owned();
        self.store.read(move |sql| quota::spent(sql, &quota)).await
    }

    async fn spend(&self, quota: &str, rows: Vec<QuotaRow>, oldest: i64) -> Result<(), QueueError> {
        let quota = quota.to_owned();
        self.store.writer.call(move |work| quota::spend(work, &quota, &rows, oldest)).await
    }

    fn admit(&self, octets: u64) -> Result<(), QueueError> {
        self.store.admit(octets)
    }

    async fn statistics(&self) -> Result<Statistics, QueueError> {
        self.store.read(read::statistics).await
    }

    fn wakeups(&self) -> &Wakeups {
        &self.wakeups
    }

    async fn close(&self) {
        // A full disk costs some seconds of it.
        let _best_effort = self.store.keep_lifetime().await;
        let store = self.store.clone();
        // Joining the writer blocks.
        let _ = tokio::task::spawn_blocking(move || store.close()).await;
    }
}
