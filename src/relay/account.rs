//! An account with a provider: its connections and its rates, for every upstream that uses it.
//!
//! Connections and tokens belong to the account and not to a table of the configuration, so two tables for one account
//! never get more than it allows. A provider that asks for a slower pace slows the whole account down.

use super::connection::PooledConnection;
use super::gate::Gate;
use super::pool::Pool;
use super::surplus::ConnectionLimit;
use crate::message::outcome::Signal;
use crate::rate::{Counting, Rate, StoredUsage};
use std::sync::Arc;

/// Passed to each upstream that shares the limits. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Account {
    pub(super) pool: Arc<Pool<PooledConnection>>,
    pub(super) gate: Arc<Gate>,
    pub(super) connections: Arc<ConnectionLimit>,
}

impl Account {
    /// At most this many connections at once, and no rates. 0 counts as 1.
    pub fn new(connections: usize) -> Self {
        Self::with_rates(connections, &[], Counting::MESSAGES, None)
    }

    /// Without `kept`, quotas start empty in each process.
    pub fn with_rates(connections: usize, rates: &[Rate], counting: Counting, kept: Option<StoredUsage>) -> Self {
        Self {
            pool: Pool::new(connections),
            gate: Gate::new(rates, counting, kept),
            connections: ConnectionLimit::new(connections),
        }
    }

    /// Call this before the first message: loads the quota usage of earlier processes.
    pub async fn restore(&self) -> Result<(), String> {
        self.gate.restore().await
    }

    /// Records the exact quota usage.
    pub async fn close(&self) -> Result<(), String> {
        self.gate.close().await
    }

    /// Adapts the throttle to the provider's latest reply. Returns idle connections that are now too many.
    pub(super) fn adapt(&self, signal: Signal) -> Vec<PooledConnection> {
        let share = match signal {
            Signal::SlowDown => self.gate.slow_down(),
            Signal::Success => match self.gate.recover() {
                Some(share) => share,
                None => return Vec::new(),
            },
            Signal::Unavailable | Signal::Broken | Signal::None => return Vec::new(),
        };
        self.connections.throttle(share);
        self.limit_connections()
    }

    /// Limits the pool to the number currently allowed. Returns idle connections that exceed it.
    pub(super) fn limit_connections(&self) -> Vec<PooledConnection> {
        self.pool.set_limit(self.connections.allowed())
    }
}
