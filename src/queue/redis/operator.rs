//! What an operator asks of the queue and does to it. Each message is changed in one step, or not at all.

use super::RedisQueue;
use super::commit::RecordChange;
use super::record::MessageRecord;
use super::spool::{self, SpoolPage};
use super::store::{Loaded, NextRecord, RedisStore};
use crate::message::MailId;
use crate::queue::{
    Correction, Cursor, Filter, Forgotten, HeldLane, HistoryRow, InstanceRow, Lane, MessageDetails, Operator, Page,
    QueueError, QueueFigures, Revision, SpoolFigures, Statistics, StoredMail, detached,
};
use async_trait::async_trait;
use jiff::Timestamp;
use std::time::Duration;
use tokio::sync::MutexGuard;
use tracing::error;

#[async_trait]
impl Operator for RedisQueue {
    async fn hold(&self, lane: Option<&Lane>, held: bool) -> Result<(), QueueError> {
        self.store.hold(lane, held).await?;
        self.store.wakeups.wake_all();
        Ok(())
    }

    async fn holds(&self) -> Result<Vec<HeldLane>, QueueError> {
        self.unless_away(self.store.holds()).await
    }

    async fn list(&self, filter: &Filter, after: Option<Cursor>, limit: usize) -> Result<Page, QueueError> {
        let Some(spool) = &self.spool else { return self.store.list(filter, after, limit).await };
        match spool.list(filter, after, limit).await? {
            SpoolPage::Some(page) => Ok(page),
            SpoolPage::Past => {
                let after = SpoolPage::cursor_behind(after);
                match self.store.list(filter, after, limit).await {
                    // What is shown besides says that this is not all.
                    Err(QueueError::Away(_)) => Ok(Page { rows: Vec::new(), next: None }),
                    page => page,
                }
            }
        }
    }

    async fn show(&self, id: MailId) -> Result<Option<MessageDetails>, QueueError> {
        if let Some(spool) = &self.spool
            && let Some(mut shown) = spool.queue().show(id).await?
        {
            spool::mark(&mut shown.row);
            return Ok(Some(shown));
        }
        self.store.show(id).await
    }

    async fn content(&self, id: MailId) -> Result<Option<bytes::Bytes>, QueueError> {
        if let Some(spool) = &self.spool
            && let Some(content) = spool.queue().content(id).await?
        {
            return Ok(Some(content));
        }
        let whole = self.store.whole(id).await?;
        Ok(whole.map(|whole| whole.message().to_bytes().into()))
    }

    async fn retry(&self, ids: &[MailId], correction: Option<&Correction>, now: Timestamp) -> Result<u64, QueueError> {
        let Spooled { _still, here, others } = self.spooled(ids).await?;
        let mut count = match &self.spool {
            Some(spool) if !here.is_empty() => spool.queue().retry(&here, correction, now).await?,
            _ => 0,
        };
        if others.is_empty() {
            return Ok(count);
        }
        self.store.keep_lifetime(false).await?;
        for id in &others {
            let (store, id, correction) = (self.store.clone(), *id, correction.cloned());
            count += detached(async move { store.retry_one(id, correction.as_ref(), now).await }).await?;
            self.store.wakeups.wake_all();
        }
        Ok(count)
    }

    async fn release(&self, ids: &[MailId]) -> Result<u64, QueueError> {
        let Spooled { _still, here, others } = self.spooled(ids).await?;
        let mut count = match &self.spool {
            Some(spool) if !here.is_empty() => spool.queue().release(&here).await?,
            _ => 0,
        };
        for id in &others {
            let store = self.store.clone();
            let make = |mut record: MessageRecord| {
                let released = record.release(store.lived());
                (released > 0).then_some(NextRecord { record, answer: released })
            };
            count += self.store.change_readable(*id, make, |_, _| {}).await?.unwrap_or(0);
            self.store.wakeups.wake_all();
        }
        Ok(count)
    }

    async fn stored(&self, id: MailId) -> Result<Option<StoredMail>, QueueError> {
        if let Some(spool) = &self.spool
            && let Some(stored) = spool.queue().stored(id).await?
        {
            return Ok(Some(stored));
        }
        self.store.stored(id).await
    }

    async fn replace(&self, revision: Revision, now: Timestamp) -> Result<bool, QueueError> {
        let Spooled { _still, here, .. } = self.spooled(&[revision.id]).await?;
        if let Some(spool) = self.spool.as_ref().filter(|_| !here.is_empty()) {
            return spool.queue().replace(revision, now).await;
        }
        let store = self.store.clone();
        let replaced = detached(async move { store.replace(revision, now).await }).await?;
        self.store.wakeups.wake_all();
        Ok(replaced)
    }

    async fn remove(&self, ids: &[MailId]) -> Result<u64, QueueError> {
        let Spooled { _still, here, others } = self.spooled(ids).await?;
        let mut count = match &self.spool {
            Some(spool) if !here.is_empty() => spool.queue().remove(&here).await?,
            _ => 0,
        };
        for id in &others {
            let Some(place) = self.store.find(*id).await? else { continue };
            let make = |mut record: MessageRecord| {
                record.jobs.clear();
                record.recipients.clear();
                Some(NextRecord { record, answer: () })
            };
            let unless_leased = |record: MessageRecord| if record.is_leased() { None } else { make(record) };
            let removed = match self.store.load_one(place).await? {
                Some(Loaded { record: Err(_), version, .. }) => self.store.remove_damaged(place, version).await?,
                Some(_) => self.store.change(place, unless_leased, |_, ()| {}).await?.is_some(),
                None => false,
            };
            count += u64::from(removed);
        }
        Ok(count)
    }

    async fn history(&self, before: Option<Cursor>, limit: usize) -> Result<Vec<HistoryRow>, QueueError> {
        self.store.history(before, limit).await
    }

    async fn prune(&self, failed: Duration, history: Duration) -> Result<u64, QueueError> {
        let spooled = match &self.spool {
            Some(spool) => spool.queue().prune(failed, history).await?,
            None => 0,
        };
        Ok(spooled + self.unless_away(self.store.prune(failed, history)).await?)
    }

    async fn figures(&self) -> Result<QueueFigures, QueueError> {
        let mut figures = self.unless_away(self.store.figures()).await?;
        if let Some(spool) = &self.spool {
            spool.add_to(&mut figures).await?;
        }
        Ok(figures)
    }

    async fn statistics(&self) -> Result<Statistics, QueueError> {
        let mut statistics = self.unless_away(self.store.statistics()).await?;
        if let Some(spool) = &self.spool {
            let spooled = spool.queue().statistics().await?;
            statistics.waiting += spooled.waiting;
            statistics.failed += spooled.failed;
            statistics.damaged += spooled.damaged;
        }
        Ok(statistics)
    }

    async fn count_waiting(&self, lane: &Lane, after: Option<Timestamp>, most: u64) -> Result<u64, QueueError> {
        let counted = self.unless_away(self.store.count_waiting(lane, after, most)).await?;
        match &self.spool {
            Some(spool) => Ok(most.min(counted + spool.queue().count_waiting(lane, after, most).await?)),
            None => Ok(counted),
        }
    }

    async fn spool(&self) -> Result<Option<SpoolFigures>, QueueError> {
        match &self.spool {
            Some(spool) => spool.figures(self.store.link.away()).await.map(Some),
            None => Ok(None),
        }
    }

    async fn instances(&self) -> Result<Option<Vec<InstanceRow>>, QueueError> {
        self.store.instance_rows().await.map(Some)
    }

    async fn forget(&self, instance: &str) -> Result<Forgotten, QueueError> {
        let (store, instance) = (self.store.clone(), instance.to_owned());
        detached(async move { store.forget_instance(&instance).await }).await
    }
}

/// Messages that are to be changed, by where they are.
struct Spooled<'a> {
    /// Nothing moves from the spool meanwhile.
    _still: Option<MutexGuard<'a, ()>>,
    here: Vec<MailId>,
    others: Vec<MailId>,
}

impl RedisQueue {
    async fn spooled(&self, ids: &[MailId]) -> Result<Spooled<'_>, QueueError> {
        let Some(spool) = &self.spool else {
            return Ok(Spooled { _still: None, here: Vec::new(), others: ids.to_vec() });
        };
        let still = spool.hold_still().await;
        let (here, others) = spool.split(ids).await?;
        Ok(Spooled { _still: Some(still), here, others })
    }
}

impl RedisStore {
    /// As `change`, of a message by its id. A damaged one is logged and stays: it must not keep others from being changed.
    async fn change_readable<T>(
        &self,
        id: MailId,
        make: impl FnMut(MessageRecord) -> Option<NextRecord<T>>,
        more: impl FnMut(&mut RecordChange<'_>, &T),
    ) -> Result<Option<T>, QueueError> {
        let Some(place) = self.find(id).await? else { return Ok(None) };
        if let Some(Loaded { record: Err(damage), .. }) = self.load_one(place).await? {
            error!(%id, reason = %damage, "a message in the queue is too damaged to be changed");
            return Ok(None);
        }
        self.change(place, make, more).await
    }

    /// Makes its recipients due now; a correction replaces the only unsettled one, which may then have another lane.
    async fn retry_one(&self, id: MailId, correction: Option<&Correction>, now: Timestamp) -> Result<u64, QueueError> {
        let header = match correction {
            Some(_) => self.header(id).await?,
            None => Vec::new(),
        };
        let make = |mut record: MessageRecord| {
            if let Some(Correction { to, lane_of }) = correction {
                if !record.redirect(to) {
                    return None;
                }
                if let Some(lane_of) = lane_of {
                    record.reassign(&header, lane_of);
                }
            }
            let count = record.retry(self.times.to_server(now), self.lived());
            (count > 0).then_some(NextRecord { record, answer: count })
        };
        let has_no_lane = correction.is_some_and(|correction| correction.lane_of.is_none());
        let more = |change: &mut RecordChange<'_>, _: &u64| {
            // The next start examines all mail.
            if has_no_lane {
                change.forget_routes();
            }
        };
        Ok(self.change_readable(id, make, more).await?.unwrap_or(0))
    }
}
