//! A queue that wakes the delivery loop of a lane when mail may have become due there.
//!
//! Notifies for every change that goes through it; changes by another process are found by polling.

use super::{
    Correction, Cursor, Filter, HeldLane, HistoryRow, InitialState, Lane, LaneOf, LeaseId, Leased, MessageDetails,
    NewMail, Page, Queue, QueueError, QuotaRow, Reassigned, Revision, Settlement, Statistics, StoredMail,
};
use crate::message::MailId;
use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

#[derive(Debug)]
pub struct NotifyingQueue {
    queue: Arc<dyn Queue>,
    wakeups: Mutex<HashMap<Lane, Arc<Notify>>>,
    retry_requests: Mutex<HashMap<Lane, Arc<Notify>>>,
}

impl NotifyingQueue {
    pub fn new(queue: Arc<dyn Queue>) -> Self {
        Self { queue, wakeups: Mutex::default(), retry_requests: Mutex::default() }
    }

    /// For one waiter. A wake-up without a waiter is kept for the next wait.
    pub fn wakeup(&self, lane: &Lane) -> Arc<Notify> {
        self.wakeups.lock().entry(lane.clone()).or_default().clone()
    }

    /// For one waiter: the operator asked for a retry now, whatever the lane waits for.
    pub fn retry_requested(&self, lane: &Lane) -> Arc<Notify> {
        self.retry_requests.lock().entry(lane.clone()).or_default().clone()
    }

    /// All lanes.
    pub fn retry_now(&self) {
        self.retry_requests.lock().values().for_each(|retry_now| retry_now.notify_one());
    }

    fn wake<'a>(&self, lanes: impl Iterator<Item = &'a Lane>) {
        let wakeups = self.wakeups.lock();
        lanes.filter_map(|lane| wakeups.get(lane)).for_each(|wakeup| wakeup.notify_one());
    }

    fn wake_all(&self) {
        self.wakeups.lock().values().for_each(|wakeup| wakeup.notify_one());
    }
}

#[async_trait]
impl Queue for NotifyingQueue {
    async fn put(&self, mail: NewMail) -> Result<(), QueueError> {
        let mut lanes: Vec<Lane> = Vec::new();
        for initial_state in &mail.initial_states {
            if let InitialState::Waiting(lane) | InitialState::Deferred { lane, .. } = initial_state
                && !lanes.contains(lane)
            {
                lanes.push(lane.clone());
            }
        }
        self.queue.put(mail).await?;
        self.wake(lanes.iter());
        Ok(())
    }

    async fn lease(&self, lane: &Lane, now: Timestamp, limit: usize, octets: u64) -> Result<Vec<Leased>, QueueError> {
        self.queue.lease(lane, now, limit, octets).await
    }

    async fn lease_expired(
        &self,
        lane: &Lane,
        age: Duration,
        after: Option<Cursor>,
        limit: usize,
        octets: u64,
    ) -> Result<(Vec<Leased>, Option<Cursor>), QueueError> {
        self.queue.lease_expired(lane, age, after, limit, octets).await
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
        self.wake_all();
        reassigned
    }

    async fn hold(&self, lane: Option<&Lane>, held: bool) -> Result<(), QueueError> {
        self.queue.hold(lane, held).await?;
        self.wake_all();
        Ok(())
    }

    async fn holds(&self) -> Result<Vec<HeldLane>, QueueError> {
        self.queue.holds().await
    }

    async fn list(&self, filter: &Filter, after: Option<Cursor>, limit: usize) -> Result<Page, QueueError> {
        self.queue.list(filter, after, limit).await
    }

    async fn show(&self, id: MailId) -> Result<Option<MessageDetails>, QueueError> {
        self.queue.show(id).await
    }

    async fn content(&self, id: MailId) -> Result<Option<bytes::Bytes>, QueueError> {
        self.queue.content(id).await
    }

    async fn retry(&self, ids: &[MailId], correction: Option<&Correction>, now: Timestamp) -> Result<u64, QueueError> {
        let made_due = self.queue.retry(ids, correction, now).await;
        self.wake_all();
        made_due
    }

    async fn stored(&self, id: MailId) -> Result<Option<StoredMail>, QueueError> {
        self.queue.stored(id).await
    }

    async fn replace(&self, revision: Revision, now: Timestamp) -> Result<bool, QueueError> {
        let replaced = self.queue.replace(revision, now).await;
        self.wake_all();
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

    async fn spent(&self, quota: &str) -> Result<Vec<QuotaRow>, QueueError> {
        self.queue.spent(quota).await
    }

    async fn spend(&self, quota: &str, rows: Vec<QuotaRow>, oldest: i64) -> Result<(), QueueError> {
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
