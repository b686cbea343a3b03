//! The recorded usage of this gateway's own quotas, those of users and listeners: one hash for each, in shard 0. With a spool they
//! are kept there, so that a gateway knows them while Redis does not answer.

use super::RedisQueue;
use super::commit::{COMMIT, RecordChange};
use crate::queue::{QueueError, QuotaLedger, QuotaRow};
use crate::rate::shared::SharedLimits;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

#[async_trait]
impl QuotaLedger for RedisQueue {
    fn lived(&self) -> Duration {
        self.store.lifetime.now()
    }

    fn shared_limits(&self) -> Option<Arc<dyn SharedLimits>> {
        Some(self.limits.clone())
    }

    async fn spent(&self, quota: &str) -> Result<Vec<QuotaRow>, QueueError> {
        if let Some(spool) = self.spool.as_ref().filter(|spool| spool.takes_mail) {
            return spool.queue().spent(quota).await;
        }
        let found = self.store.fields(0, self.store.layout.quota(&self.store.instance, quota)).await?;
        let row = |(number, row): &(String, String)| {
            let (at, units) = row.split_once(' ')?;
            let at = Duration::from_micros(at.parse().ok()?);
            Some(QuotaRow { number: number.parse().ok()?, at, units: units.parse().ok()? })
        };
        let mut rows: Vec<QuotaRow> = found.iter().filter_map(row).collect();
        rows.sort_unstable_by_key(|row| row.number);
        Ok(rows)
    }

    async fn spend(&self, quota: &str, rows: Vec<QuotaRow>, oldest: i64) -> Result<(), QueueError> {
        if let Some(spool) = self.spool.as_ref().filter(|spool| spool.takes_mail) {
            return spool.queue().spend(quota, rows, oldest).await;
        }
        let store = &self.store;
        let key = store.layout.quota(&store.instance, quota);
        let mut change = RecordChange::new(&store.layout, 0);
        for old in self.spent(quota).await?.into_iter().filter(|row| row.number < oldest) {
            change.step("unset").key(key.clone()).arg(old.number);
        }
        for row in rows.into_iter().filter(|row| row.number >= oldest) {
            let value = format!("{} {}", row.at.as_micros(), row.units);
            change.step("set").key(key.clone()).arg(1).arg(row.number).arg(value);
        }
        if change.steps.is_empty() {
            return Ok(());
        }
        store.link.commit(COMMIT, &change).await.map(drop).map_err(QueueError::from)
    }
}
