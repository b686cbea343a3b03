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

use super::export_file::{ExportError, ExportItem};
use super::{
    Cursor, Handoffs, IdempotencyKey, Lane, LaneOf, LeaseId, Leased, NewMail, Queue, QueueError, Reassigned,
    Settlement, Wakeups, detached,
};
use crate::message::MailId;
use async_trait::async_trait;
use connect::Task;
use jiff::Timestamp;
use limits::RedisLimits;
use put::PutResult;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use store::RedisStore;

/// Dropping it ends its connections once nothing uses them; what it has leased becomes a possible duplicate.
#[derive(Debug)]
pub struct RedisQueue {
    store: Arc<RedisStore>,
    limits: Arc<RedisLimits>,
    _tasks: [Task; 2],
}

impl RedisQueue {
    pub(crate) async fn open(options: RedisQueueOptions) -> Result<Self, QueueError> {
        let store = Arc::new(open::open(options).await?);
        let limits = Arc::new(RedisLimits::new(store.clone()));
        let tasks = watch::start(&store);
        Ok(Self { store, limits, _tasks: tasks })
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
        open::peek(options).await?.export(all, each).await
    }

    /// Hands the message over to a delivery loop that can begin it at once, or wakes the loops of its lanes.
    async fn store(&self, mail: NewMail, is_once: bool) -> Result<Option<MailId>, QueueError> {
        let store = self.store.clone();
        let accepted = mail.accepted.clone();
        let reserved = |lane: Lane| store.handoffs.reserve(&lane, accepted.memory_needed());
        let slot = mail.only_lane().cloned().and_then(reserved);
        let put = async move {
            match store.put(&mail, is_once, slot.is_some()).await? {
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
        self.store.stored_under(key).await
    }

    fn admit(&self, octets: u64) -> Result<(), QueueError> {
        if self.store.link.is_closed() {
            return Err(QueueError::Closed);
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
        let reassigned = detached(async move {
            match after {
                None => store.begin_reassignment(&fingerprint, lane_of).await,
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
        let _best_effort = self.store.keep_lifetime(true).await;
        self.store.link.close();
    }
}
