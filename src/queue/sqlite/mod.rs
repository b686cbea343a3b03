//! The embedded backend: SQLite in `data_dir`, one writer thread, separate readers, large bodies as files.
//!
//! The database is authoritative; a process may lose the cache and the table of leases. No call answers before its
//! commit is synced. docs/queue.md describes the tables and the costs.

mod batch;
mod bodies;
mod cache;
mod check;
mod claim;
mod content;
mod deduplication;
mod envelope;
mod export;
mod failure;
mod identity;
mod inspect;
mod integrity;
mod lane_counts;
mod lease;
mod lifetime;
mod list;
mod open;
mod operate;
mod operator;
mod pace;
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
mod suspend;
#[cfg(test)]
mod tests;
mod transfer;
mod wal;
mod work;
mod writer;

pub(crate) use check::{Checked, check};
pub(crate) use export::export;
pub use open::SqliteOptions;
pub(crate) use open::{OpenError, exists, is_settled};
pub(crate) use salvage::{Finding, Salvaged, salvage};
pub(crate) use space::SMALLEST_FLOOR;

use super::{
    Cursor, Handoffs, IdempotencyKey, Lane, LaneOf, LeaseId, Leased, NewMail, Queue, QueueError, QuotaLedger, QuotaRow,
    Reassigned, Settlement, Wakeups, detached,
};
use crate::message::MailId;
use async_trait::async_trait;
use jiff::Timestamp;
use rows::{lived_to_column, to_column};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use store::{SqliteStore, StoredPut};

/// Computes the digests of rows that were written by hand.
#[cfg(any(test, fuzzing))]
pub(crate) fn cover_all(connection: &rusqlite::Connection) -> rusqlite::Result<()> {
    envelope::cover_all(&work::Sql::new(connection))
}

/// Dropping it ends the writer after all requested operations; unsettled leases become possible duplicates at the next
/// open.
pub struct SqliteQueue {
    store: Arc<SqliteStore>,
    wakeups: Arc<Wakeups>,
    handoffs: Arc<Handoffs>,
}

/// Without what is in it.
impl fmt::Debug for SqliteQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteQueue").finish_non_exhaustive()
    }
}

impl SqliteQueue {
    /// The caller must hold the lock of `data_dir`. Blocks: creates and migrates the tables, makes every leased
    /// recipient wait again, removes files that no message refers to.
    pub fn open(options: SqliteOptions) -> Result<Self, OpenError> {
        open::open(&options).map(|store| Self {
            store: Arc::new(store),
            wakeups: Arc::default(),
            handoffs: Arc::default(),
        })
    }

    /// Commits so far, each with one sync.
    pub fn commits(&self) -> u64 {
        self.store.writer.commits()
    }

    /// Hands the message over to a delivery loop that can begin it at once, or wakes the loops of its lanes.
    async fn store(&self, mail: NewMail, is_once: bool) -> Result<Option<MailId>, QueueError> {
        let store = self.store.clone();
        let wakeups = self.wakeups.clone();
        let accepted = mail.accepted.clone();
        let reserved = |lane: Lane| Some((self.handoffs.reserve(&lane, accepted.memory_needed())?, lane));
        let slot = mail.only_lane().cloned().and_then(reserved);
        let lanes = mail.waiting_lanes();
        let put = async move {
            match store.put(mail, is_once, slot.is_some()).await? {
                StoredPut::Known(first) => return Ok(Some(first)),
                StoredPut::Waiting => wakeups.wake(&lanes),
                StoredPut::Leased(message) => {
                    if let Some((slot, lane)) = slot {
                        store.lease_of_put(message, accepted, lane).hand_over(slot);
                    }
                }
            }
            Ok(None)
        };
        detached(put).await
    }
}

#[async_trait]
impl Queue for SqliteQueue {
    async fn put(&self, mail: NewMail) -> Result<(), QueueError> {
        self.store(mail, false).await.map(drop)
    }

    async fn put_once(&self, mail: NewMail) -> Result<Option<MailId>, QueueError> {
        self.store(mail, true).await
    }

    async fn stored_under(&self, key: IdempotencyKey) -> Result<Option<MailId>, QueueError> {
        let lived = lived_to_column(self.store.lifetime.now());
        self.store.read(move |sql| deduplication::stored_under(sql, key, lived)).await
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
        let lane = lane.clone();
        let horizon = to_column(self.store.schedule.horizon(now));
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

    fn admit(&self, octets: u64) -> Result<(), QueueError> {
        self.store.admit(octets)
    }

    fn wakeups(&self) -> &Wakeups {
        &self.wakeups
    }

    fn handoffs(&self) -> &Handoffs {
        &self.handoffs
    }

    async fn close(&self) {
        // If the disk is full, some seconds of the clock are lost.
        let _best_effort = self.store.keep_lifetime().await;
        let store = self.store.clone();
        // Joining the writer blocks.
        let _ = tokio::task::spawn_blocking(move || store.close()).await;
    }
}

#[async_trait]
impl QuotaLedger for SqliteQueue {
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
}
