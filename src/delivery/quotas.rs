//! Stores the relay's quotas across restarts in the queue, which treats them as plain numbers.

use crate::queue::{QuotaLedger, QuotaRow};
use crate::rate::{QuotaBucket, QuotaStore};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
pub struct Quotas(pub Arc<dyn QuotaLedger>);

#[async_trait]
impl QuotaStore for Quotas {
    fn now(&self) -> Duration {
        self.0.lived()
    }

    async fn load(&self, quota: &str) -> Result<Vec<QuotaBucket>, String> {
        let rows = self.0.spent(quota).await.map_err(|error| error.to_string())?;
        Ok(rows.into_iter().map(|QuotaRow { number, at, units }| QuotaBucket { number, at, units }).collect())
    }

    async fn write(&self, quota: &str, rows: Vec<QuotaBucket>, oldest: i64) -> Result<(), String> {
        let rows = rows.into_iter().map(|QuotaBucket { number, at, units }| QuotaRow { number, at, units }).collect();
        self.0.spend(quota, rows, oldest).await.map_err(|error| error.to_string())
    }
}
