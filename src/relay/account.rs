//! An account with a provider: its connections and its rates, for every upstream that uses it.
//!
//! Connections and tokens belong to the account and not to a table of the configuration, so two tables for one account
//! never get more than it allows. A provider that asks for a slower pace slows the whole account down. If several gateways
//! share the account, a common ledger keeps its limits for all of them.

use super::connection::{PooledConnection, retire};
use super::gate::Gate;
use super::ledger::AccountLedger;
use super::pool::Pool;
use super::renewal::Renewal;
use super::surplus::ConnectionLimit;
use crate::message::outcome::Signal;
use crate::rate::shared::SharedLimits;
use crate::rate::{Counting, QuotaRecord, Rate, StoredUsage};
use std::sync::Arc;
use std::time::Duration;

/// Passed to each upstream that shares the limits. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Account {
    pub(super) pool: Arc<Pool<PooledConnection>>,
    pub(super) gate: Arc<Gate>,
    pub(super) connections: Arc<ConnectionLimit>,
    /// Set if several gateways share the account.
    pub(super) ledger: Option<Arc<AccountLedger>>,
}

/// An account in the ledger that gateways share.
#[derive(Debug, Clone)]
pub struct SharedAccount {
    pub limits: Arc<dyn SharedLimits>,
    /// The same at every gateway.
    pub name: Arc<str>,
    /// The longest time for which a connection of a gateway that is gone may still be open.
    pub idle_timeout: Duration,
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
            ledger: None,
        }
    }

    /// For an account that several gateways share: its connections and rates are theirs together.
    pub fn shared(connections: usize, rates: &[Rate], counting: Counting, shared: SharedAccount) -> Self {
        let SharedAccount { limits, name, idle_timeout } = shared;
        let ledger = AccountLedger::new(limits, name, idle_timeout);
        Self {
            pool: Pool::shared(connections),
            gate: Gate::shared(rates, counting, ledger.clone()),
            connections: ConnectionLimit::new(connections),
            ledger: Some(ledger),
        }
    }

    /// Whether both are clones of one.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pool, &other.pool)
    }

    /// Call this before the first message: loads the quota usage of earlier processes, or asks the gateways' ledger, and
    /// keeps asking in the background. A ledger that does not answer is not an error: mail waits for it.
    pub async fn restore(&self) -> Result<(), String> {
        if let Some(renewal) = self.renewal() {
            renewal.renew(&self.pool, false).await;
            tokio::spawn(renewal.run());
        }
        self.gate.restore().await
    }

    /// The stored usage of all quotas, for [`Account::allow`].
    pub async fn usage(&self) -> Result<Vec<QuotaRecord>, String> {
        self.gate.usage().await
    }

    /// From now on it may have so many connections and these rates, and keeps a connection open for so long. Usage counts on,
    /// and what is under way is not cut off: surplus connections are closed when they have carried their message.
    pub fn allow(
        &self,
        (connections, idle_timeout): (usize, Duration),
        rates: &[Rate],
        counting: Counting,
        usage: &[QuotaRecord],
    ) {
        if let Some(ledger) = &self.ledger {
            ledger.set_idle_timeout(idle_timeout);
        }
        self.connections.set_cap(connections);
        self.pool.set_cap(connections, self.connections.allowed()).into_iter().for_each(retire);
        self.gate.set_rates(rates, counting, usage);
    }

    /// Records the exact quota usage, and gives back permits that are not held.
    pub async fn close(&self) -> Result<(), String> {
        if let Some(renewal) = self.renewal() {
            self.gate.report(true).await;
            renewal.renew(&self.pool, true).await;
        }
        self.gate.close().await
    }

    fn renewal(&self) -> Option<Renewal> {
        let ledger = self.ledger.clone()?;
        let pool = Arc::downgrade(&self.pool);
        let gate = Arc::downgrade(&self.gate);
        Some(Renewal { ledger, pool, gate, connections: self.connections.clone() })
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

    /// A caller waits for a permit.
    pub(super) fn notify_need(&self) {
        if let Some(ledger) = &self.ledger {
            ledger.changed.notify_one();
        }
    }

    /// How many connections there could be.
    pub(super) fn most_connections(&self) -> usize {
        let allowed = self.connections.allowed();
        self.ledger.as_ref().map_or(allowed, |ledger| ledger.share().min(allowed))
    }

    /// Limits the pool to the number currently allowed. Returns idle connections that exceed it.
    pub(super) fn limit_connections(&self) -> Vec<PooledConnection> {
        self.pool.set_limit(self.connections.allowed())
    }
}
