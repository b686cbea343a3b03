//! The operator's requests as statements: reads run beside the writer, changes run in steps that fit on a full disk.

use super::rows::{lived_to_column, signed, to_column};
use super::{SqliteQueue, lifetime, list, operate, read, suspend};
use crate::message::MailId;
use crate::queue::detached;
use crate::queue::{
    Correction, Cursor, Filter, HeldLane, HistoryRow, Lane, MessageDetails, Operator, Page, QueueError, QueueFigures,
    QuotaLedger as _, Revision, Statistics, StoredMail,
};
use async_trait::async_trait;
use jiff::Timestamp;
use std::ops::Range;
use std::time::Duration;

#[async_trait]
impl Operator for SqliteQueue {
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
        let mut count = 0;
        let mut steps = Steps::of(ids.len());
        while let Some(step) = steps.next() {
            let ids = ids[step].to_vec();
            let correction = correction.cloned();
            let lived = lived_to_column(self.lived());
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

    async fn release(&self, ids: &[MailId]) -> Result<u64, QueueError> {
        let (mut count, mut steps) = (0, Steps::of(ids.len()));
        while let Some(step) = steps.next() {
            let (ids, lived) = (ids[step].to_vec(), lived_to_column(self.lived()));
            let released = self.store.writer.call(move |work| suspend::release(work, &ids, lived));
            count += steps.done(released.await)?.unwrap_or(0);
            self.wakeups.wake_all();
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
        let mut count = 0;
        let mut steps = Steps::of(ids.len());
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
        // If the disk is full, some seconds of the clock are lost; that must not keep pruning from freeing space.
        let _best_effort = self.store.keep_lifetime().await;
        let before = |age| lived_to_column(self.store.lifetime.before(age));
        let ends = [before(Duration::ZERO), before(failed), before(history)];
        let mut count = 0;
        let mut steps = Steps::of(usize::MAX);
        while let Some(step) = steps.next() {
            let pruned = self.store.writer.call(move |work| operate::prune(work, ends, step.len()));
            let Some(removed) = steps.done(pruned.await)? else { continue };
            if removed.count == 0 {
                break;
            }
            count += removed.count;
            self.store.clear(removed).await;
        }
        while self.store.writer.call(operate::return_space).await? {}
        Ok(count)
    }

    async fn statistics(&self) -> Result<Statistics, QueueError> {
        self.store.read(read::statistics).await
    }

    async fn figures(&self) -> Result<QueueFigures, QueueError> {
        let store = self.store.clone();
        let counter = store.counter().clone();
        let lanes = store.read(move |sql| Ok(counter.snapshot(sql)?)).await?;
        Ok(QueueFigures { lanes, octets: store.octets() })
    }

    async fn count_waiting(&self, lane: &Lane, after: Option<Timestamp>, most: u64) -> Result<u64, QueueError> {
        let lane = lane.clone();
        self.store.read(move |sql| read::count_waiting(sql, lane.as_str(), after, most)).await
    }
}

/// How many items each transaction of a large operation covers: fewer and fewer on a full disk, since a smaller one may
/// still fit.
struct Steps {
    at: usize,
    end: usize,
    length: usize,
    /// The range of the current step.
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

    /// `None`: the step did not fit; a part of it is tried next.
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
