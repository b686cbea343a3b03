//! The shared backend: several instances, one queue, in Redis or Valkey.
//!
//! A message is one record (record.rs). Every change of it is computed here and stored if the record is still the one that
//! was read (commit.rs). A lease is fenced by the record's version; what its holder says after somebody else has leased the
//! message does not count.

mod answers;
mod bodies;
mod claim;
mod commit;
mod connect;
mod counts;
mod history;
mod identity;
mod instances;
mod journal;
mod known;
mod layout;
mod lease;
mod limits;
mod link;
mod list;
mod memory;
mod node;
mod open;
mod operator;
pub mod options;
mod places;
mod put;
mod quota;
mod reassign;
mod record;
mod search;
mod server;
mod settle;
mod spool;
mod store;
mod takeover;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod times;
mod transfer;
mod transitions;
mod watch;
mod whole;

pub(crate) use open::RedisQueueOptions;
pub(crate) use spool::{SpoolOptions, spool_folder};

use super::export_file::{ExportError, ExportItem};
use super::sqlite;
use super::{
    Cursor, Handoffs, IdempotencyKey, Lane, LaneOf, LeaseId, Leased, NewMail, Queue, QueueError, Reassigned,
    Settlement, Wakeups, detached,
};
use crate::message::MailId;
use async_trait::async_trait;
use connect::Task;
use jiff::Timestamp;
use limits::RedisLimits;
use options::Fallback;
use put::PutResult;
use spool::Spool;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use store::RedisStore;

/// Dropping it ends its connections once nothing uses them; what it has leased becomes a possible duplicate.
#[derive(Debug)]
pub struct RedisQueue {
    store: Arc<RedisStore>,
    limits: Arc<RedisLimits>,
    /// New mail while Redis does not answer, if that is configured or was.
    spool: Option<Arc<Spool>>,
    _tasks: Vec<Task>,
}

impl RedisQueue {
    /// With a spool it is opened although Redis does not answer.
    pub(crate) async fn open(options: RedisQueueOptions) -> Result<Self, QueueError> {
        let (takes_mail, is_gateway) = (options.redis.fallback == Fallback::Sqlite, options.is_gateway);
        let spool = Spool::open(&options.data_dir, takes_mail, options.spool.clone(), options.clock.clone()).await?;
        let store = Arc::new(open::open(options).await?);
        let limits = Arc::new(RedisLimits::new(store.clone()));
        let mut tasks = Vec::from(watch::start(&store));
        if let Some(spool) = spool.as_ref().filter(|_| is_gateway) {
            tasks.push(Task::spawn(spool::empty(Arc::downgrade(&store), Arc::downgrade(spool))));
        }
        Ok(Self { store, limits, spool, _tasks: tasks })
    }

    /// What Redis holds now is this queue from now on, whatever this instance remembers. Returns how many acknowledged
    /// messages are missing.
    pub(crate) async fn adopt(options: RedisQueueOptions) -> Result<u64, QueueError> {
        open::adopt(options).await
    }

    /// Calls `each` with everything that is to be kept, in the order in which it is to be imported. Each message is as it was when
    /// it was read: the queue is in use meanwhile. `all`: learns the number of messages first.
    pub(crate) async fn export(
        options: RedisQueueOptions,
        all: impl FnOnce(u64),
        each: &mut (dyn FnMut(ExportItem) -> io::Result<()> + Send),
    ) -> Result<(), ExportError> {
        let spool = spool_folder(&options.data_dir);
        let store = open::peek(options).await?;
        let mut spooled = 0;
        let exists = sqlite::exists(&spool).map_err(|error| ExportError::Unreadable(error.to_string()))?;
        if exists {
            sqlite::export(&spool, |count| spooled = count, &mut *each)?;
        }
        store.export(|count| all(count + spooled), each).await
    }

    /// Hands the message over to a delivery loop that can begin it at once, or wakes the loops of its lanes.
    async fn store(&self, mail: NewMail, is_once: bool) -> Result<Option<MailId>, QueueError> {
        let spool = self.spool.as_ref().filter(|spool| spool.takes_mail).cloned();
        if let Some(spool) = &spool {
            if is_once && let Some(first) = self.spooled_under(&mail).await? {
                return Ok(Some(first));
            }
            // So that no client waits for a server of which it is known that it does not answer.
            if self.store.link.away().is_some() {
                return spool.put(mail, is_once).await;
            }
        }
        let store = self.store.clone();
        let accepted = mail.accepted.clone();
        let reserved = |lane: Lane| store.handoffs.reserve(&lane, accepted.memory_needed());
        let slot = mail.only_lane().cloned().and_then(reserved);
        let put = async move {
            let stored = match (store.put(&mail, is_once, slot.is_some()).await, spool) {
                // Under the same id, so it does not matter if Redis has it, too.
                (Err(QueueError::Away(_)), Some(spool)) => return spool.put(mail, is_once).await,
                (stored, _) => stored?,
            };
            match stored {
                PutResult::Known(first) => return Ok(Some(first)),
                PutResult::Waiting => store.wakeups.wake(&mail.waiting_lanes()),
                PutResult::Leased(held) => {
                    if let Some(slot) = slot {
                        claim::hand_over(&store, *held, accepted, slot);
                    }
                }
            }
            Ok(None)
        };
        detached(put).await
    }
}

/// With a spool, what asks Redis about all mail is answered without it while it does not answer.
impl RedisQueue {
    async fn unless_away<T: Default>(
        &self,
        asked: impl Future<Output = Result<T, QueueError>>,
    ) -> Result<T, QueueError> {
        if self.spool.is_some() && self.store.link.away().is_some() {
            return Ok(T::default());
        }
        match asked.await {
            Err(QueueError::Away(_)) if self.spool.is_some() => Ok(T::default()),
            answer => answer,
        }
    }

    async fn spooled_under(&self, mail: &NewMail) -> Result<Option<MailId>, QueueError> {
        match (&self.spool, &mail.deduplication) {
            (Some(spool), Some(deduplication)) => spool.stored_under(deduplication.key).await,
            _ => Ok(None),
        }
    }
}

impl Drop for RedisQueue {
    fn drop(&mut self) {
        // What was seen in the last second; the watch writes the rest. Without it, less of a loss would be noticed.
        let _best_effort = self.store.link.known.keep();
    }
}

#[async_trait]
impl Queue for RedisQueue {
    async fn put(&self, mail: NewMail) -> Result<(), QueueError> {
        self.store(mail, false).await.map(drop)
    }

    async fn put_once(&self, mail: NewMail) -> Result<Option<MailId>, QueueError> {
        self.store(mail, true).await
    }

    async fn stored_under(&self, key: IdempotencyKey) -> Result<Option<MailId>, QueueError> {
        let Some(spool) = &self.spool else { return self.store.stored_under(key).await };
        if let Some(first) = spool.stored_under(key).await? {
            return Ok(Some(first));
        }
        self.unless_away(self.store.stored_under(key)).await
    }

    fn admit(&self, octets: u64) -> Result<(), QueueError> {
        if self.store.link.is_closed() {
            return Err(QueueError::Closed);
        }
        if let Some(spool) = self.spool.as_ref().filter(|spool| spool.takes_mail)
            && self.store.link.away().is_some()
        {
            return spool.queue().admit(octets);
        }
        self.store.link.trouble().map_or(Ok(()), Err)?;
        self.store.memory.admit(octets)
    }

    fn still_holds(&self, lease: LeaseId) -> bool {
        self.store.still_holds(lease)
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
        self.store.next_due(lane, now).await
    }

    async fn reassign_lanes(
        &self,
        fingerprint: &str,
        lane_of: LaneOf,
        after: Option<Cursor>,
    ) -> Result<Reassigned, QueueError> {
        let (store, fingerprint) = (self.store.clone(), fingerprint.to_owned());
        if let Some(spool) = self.spool.as_ref().filter(|_| after.is_none()) {
            spool.reassign_lanes(&fingerprint, &lane_of).await?;
        }
        let reassigned = detached(async move {
            match after {
                None => {
                    store.lanes_are_old.store(true, Ordering::Relaxed);
                    store.begun().await?;
                    let begun = store.begin_reassignment(&fingerprint, lane_of).await;
                    store.lanes_are_old.store(begun.is_err(), Ordering::Relaxed);
                    begun
                }
                Some(after) => store.go_on_reassigning(&fingerprint, lane_of, after).await,
            }
        });
        let reassigned = reassigned.await;
        self.store.wakeups.wake_all();
        reassigned
    }

    fn wakeups(&self) -> &Wakeups {
        &self.store.wakeups
    }

    fn handoffs(&self) -> &Handoffs {
        &self.store.handoffs
    }

    async fn close(&self) {
        // If Redis is away, some seconds of the clock are lost.
        if self.store.link.away().is_none() {
            let _best_effort = self.store.keep_lifetime(true).await;
        }
        self.store.link.close();
        if let Some(spool) = &self.spool {
            spool.close().await;
        }
    }
}
