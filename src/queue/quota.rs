//! Usage of quotas, kept across restarts as plain numbers.

use super::QueueError;
use crate::rate::shared::SharedLimits;
use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Every call is durable when it returns `Ok`. Names are opaque, like a lane's.
#[async_trait]
pub trait QuotaLedger: Send + Sync + fmt::Debug + 'static {
    /// The clock by which mail ages: the time since the queue's beginning that gateways have run with it, plus as much
    /// of each stop as can be trusted. It neither jumps nor goes back when the wall clock is set, and a crash loses at
    /// most a few seconds of it. Cheap to call.
    fn lived(&self) -> Duration;

    /// What keeps the limits of accounts for all gateways of a queue that several share. `None`: this gateway is alone.
    fn shared_limits(&self) -> Option<Arc<dyn SharedLimits>> {
        None
    }

    /// The recorded usage of a quota, by number.
    async fn spent(&self, quota: &str) -> Result<Vec<QuotaRow>, QueueError>;

    /// Records rows for a quota, each replacing the one with its number, and forgets those below `oldest`.
    async fn spend(&self, quota: &str, rows: Vec<QuotaRow>, oldest: i64) -> Result<(), QueueError>;
}

/// A used part of a quota: a number of units, none of them used after `at`, which is a time by [`QuotaLedger::lived`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaRow {
    /// Identifies the row within its quota.
    pub number: i64,
    pub at: Duration,
    pub units: u64,
}
