//! What is used up of quotas, kept across restarts as plain numbers.

use super::QueueError;
use async_trait::async_trait;
use std::fmt;
use std::time::Duration;

/// Durable when a call returns `Ok`. Names are opaque, like a lane's.
#[async_trait]
pub trait QuotaLedger: Send + Sync + fmt::Debug + 'static {
    /// The clock by which mail ages, from the queue's beginning: the time that gateways have run with it, and of each stop as much as can
    /// be trusted. It neither jumps nor goes back when the wall clock is set, and a crash loses a few seconds of it at most. Costs
    /// nothing.
    fn lived(&self) -> Duration;

    /// The recorded usage of a quota, by number.
    async fn spent(&self, quota: &str) -> Result<Vec<QuotaRow>, QueueError>;

    /// Records rows for a quota, each replacing the one with its number, and forgets those below `oldest`.
    async fn spend(&self, quota: &str, rows: Vec<QuotaRow>, oldest: i64) -> Result<(), QueueError>;
}

/// A part of a quota that is used up: so many units, none of them after `at`, by [`QuotaLedger::lived`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaRow {
    /// Names it among those of its quota.
    pub number: i64,
    pub at: Duration,
    pub units: u64,
}
