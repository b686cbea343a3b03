//! A queue with a bell for each lane: whoever delivers sleeps until mail may have become due there.
//!
//! Rings for every change that goes through it; what another process changed is found by looking now and then.

use super::{
    Correction, Cursor, Fate, Filter, HeldLane, HistoryRow, Lane, LaneOf, LeaseId, Leased, NewMail, Page, Queue,
    QueueError, Reassigned, Revision, Settlement, Shown, Spent, Statistics, Stored,
};
use crate::message::MailId;
use async_trait::async_trait;
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

#[derive(Debug)]
pub struct Watched {
    queue: Arc<dyn Queue>,
    bells: Mutex<HashMap<Lane, Arc<Notify>>>,
    nudges: Mutex<HashMap<Lane, Arc<Notify>>>,
}

impl Watched {
    pub fn new(queue: Arc<dyn Queue>) -> Self {
        Self { queue, bells: Mutex::default(), nudges: Mutex::default() }
    }

    /// For one waiter. What rings while nobody waits is heard by the next wait.
    pub fn bell(&self, lane: &Lane) -> Arc<Notify> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner).entry(lane.clone()).or_default().clone()
    }

    /// For one waiter: the operator wants it tried now, whatever the lane waits for.
    pub fn nudged(&self, lane: &Lane) -> Arc<Notify> {
        self.nudges.lock().unwrap_or_else(PoisonError::into_inner).entry(lane.clone()).or_default().clone()
    }

    /// All lanes.
    pub fn nudge(&self) {
        self.nudges.lock().unwrap_or_else(PoisonError::into_inner).values().for_each(|nudge| nudge.notify_one());
    }

    fn ring<'a>(&self, lanes: impl Iterator<Item = &'a Lane>) {
        let bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.filter_map(|lane| bells.get(lane)).for_each(|bell| bell.notify_one());
    }

    fn ring_all(&self) {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner).values().for_each(|bell| bell.notify_one());
    }
}

#[async_trait]
impl Queue for Watched {
    async fn put(&self, mail: NewMail) -> Result<(), QueueError> {
        let mut lanes: Vec<Lane> = Vec::new();
        for fate in &mail.fates {
            if let Fate::Waiting(lane) | Fate::Deferred { lane, .. } = fate
                && !lanes.contains(lane)
            {
                lanes.push(lane.clone());
            }
        }
        self.queue.put(mail).await?;
        self.ring(lanes.iter());
        Ok(())
    }

    async fn lease(&self, lane: &Lane, now: Timestamp, limit: usize, octets: u64) -> Result<Vec<Leased>, QueueError> {
        self.queue.lease(lane, now, limit, octets).await
    }

    async fn lease_old(
        &self,
        lane: &Lane,
        age: Duration,
        after: Option<Cursor>,
        limit: usize,
        octets: u64,
    ) -> Result<(Vec<Leased>, Option<Cursor>), QueueError> {
        self.queue.lease_old(lane, age, after, limit, octets).await
    }

    async fn settle(&self, lease: LeaseId, settlements: Vec<Settlement>, due: Timestamp) -> Result<(), QueueError> {
        self.queue.settle(lease, settlements, due).await
    }

    async fn next_due(&self, lane: &Lane, now: Timestamp) -> Result<Option<Timestamp>, QueueError> {
        self.queue.next_due(lane, now).await
    }

    async fn reassign_lanes(
        &self,
        fingerprint: &str,
        lane_of: LaneOf,
        after: Option<Cursor>,
    ) -> Result<Reassigned, QueueError> {
        let reassigned = self.queue.reassign_lanes(fingerprint, lane_of, after).await;
        self.ring_all();
        reassigned
    }

    async fn hold(&self, lane: Option<&Lane>, held: bool) -> Result<(), QueueError> {
        self.queue.hold(lane, held).await?;
        self.ring_all();
        Ok(())
    }

    async fn holds(&self) -> Result<Vec<HeldLane>, QueueError> {
        self.queue.holds().await
    }

    async fn list(&self, filter: &Filter, after: Option<Cursor>, limit: usize) -> Result<Page, QueueError> {
        self.queue.list(filter, after, limit).await
    }

    async fn show(&self, id: MailId) -> Result<Option<Shown>, QueueError> {
        self.queue.show(id).await
    }

    async fn content(&self, id: MailId) -> Result<Option<bytes::Bytes>, QueueError> {
        self.queue.content(id).await
    }

    async fn retry(&self, ids: &[MailId], correction: Option<&Correction>, now: Timestamp) -> Result<u64, QueueError> {
        let made_due = self.queue.retry(ids, correction, now).await;
        self.ring_all();
        made_due
    }

    async fn stored(&self, id: MailId) -> Result<Option<Stored>, QueueError> {
        self.queue.stored(id).await
    }

    async fn replace(&self, revision: Revision, now: Timestamp) -> Result<bool, QueueError> {
        let replaced = self.queue.replace(revision, now).await;
        self.ring_all();
        replaced
    }

    async fn remove(&self, ids: &[MailId]) -> Result<u64, QueueError> {
        self.queue.remove(ids).await
    }

    async fn history(&self, before: Option<Cursor>, limit: usize) -> Result<Vec<HistoryRow>, QueueError> {
        self.queue.history(before, limit).await
    }

    async fn prune(&self, failed: Duration, history: Duration) -> Result<u64, QueueError> {
        self.queue.prune(failed, history).await
    }

    fn lived(&self) -> Duration {
        self.queue.lived()
    }

    async fn spent(&self, quota: &str) -> Result<Vec<Spent>, QueueError> {
        self.queue.spent(quota).await
    }

    async fn spend(&self, quota: &str, rows: Vec<Spent>, oldest: i64) -> Result<(), QueueError> {
        self.queue.spend(quota, rows, oldest).await
    }

    fn admit(&self, octets: u64) -> Result<(), QueueError> {
        self.queue.admit(octets)
    }

    async fn statistics(&self) -> Result<Statistics, QueueError> {
        self.queue.statistics().await
    }

    async fn close(&self) {
        self.queue.close().await;
    }
}
