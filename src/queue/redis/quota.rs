//! The recorded usage of quotas.

use super::RedisQueue;
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

    async fn spent(&self, _: &str) -> Result<Vec<QuotaRow>, QueueError> {
        Err(QueueError::Storage("this is not built yet".into()))
    }

    async fn spend(&self, _: &str, _: Vec<QuotaRow>, _: i64) -> Result<(), QueueError> {
        Err(QueueError::Storage("this is not built yet".into()))
    }
}
