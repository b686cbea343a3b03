//! Where the relay's quotas outlive the process: in the queue, which knows nothing of them but numbers.

use crate::queue::{self, Queue};
use crate::relay::{Ledger, Spent};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
pub struct Quotas(pub Arc<dyn Queue>);

#[async_trait]
impl Ledger for Quotas {
    fn now(&self) -> Duration {
        self.0.lived()
    }

    async fn load(&self, quota: &str) -> Result<Vec<Spent>, String> {
        let rows = self.0.spent(quota).await.map_err(|error| error.to_string())?;
        Ok(rows.into_iter().map(|queue::Spent { number, at, units }| Spent { number, at, units }).collect())
    }

    async fn write(&self, quota: &str, rows: Vec<Spent>, oldest: i64) -> Result<(), String> {
        let rows = rows.into_iter().map(|Spent { number, at, units }| queue::Spent { number, at, units }).collect();
        self.0.spend(quota, rows, oldest).await.map_err(|error| error.to_string())
    }
}
