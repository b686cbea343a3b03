//! An account with a provider: its connections and its rates, for every upstream that uses it.
//!
//! Connections and tokens belong to the account and not to a table of the configuration: two tables for one account never get
//! more than it allows. A provider that asks for a slower pace slows the whole account down.

use super::breaker::Sign;
use super::limits::{Counting, Gate, Ledger, Rate};
use super::pool::Pool;
use super::upstream::Connection;
use std::sync::Arc;

/// To be given to each upstream that shares the limits. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Account {
    pub(super) pool: Arc<Pool<Connection>>,
    pub(super) gate: Arc<Gate>,
}

/// Where the account's quotas are kept across restarts.
#[derive(Debug, Clone)]
pub struct Kept {
    pub ledger: Arc<dyn Ledger>,
    /// Under which name: the account's own, whatever its table is called.
    pub name: Arc<str>,
    /// Where earlier versions kept them: taken over once, if there is nothing under `name`.
    pub former: Arc<str>,
}

impl Account {
    /// So many connections at once, no more, and no rates. 0 counts as 1.
    pub fn new(connections: usize) -> Self {
        Self::with_rates(connections, &[], Counting::MESSAGES, None)
    }

    /// Without `kept` quotas begin anew with the process.
    pub fn with_rates(connections: usize, rates: &[Rate], counting: Counting, kept: Option<Kept>) -> Self {
        Self { pool: Pool::new(connections), gate: Gate::new(rates, counting, kept) }
    }

    /// To be called before the first message: what earlier processes have used of the quotas.
    pub async fn restore(&self) -> Result<(), String> {
        self.gate.restore().await
    }

    /// Writes down exactly what was used of the quotas.
    pub async fn close(&self) -> Result<(), String> {
        self.gate.close().await
    }

    /// Adapts the pace to the newest word of the provider. Returns idle connections that are now too many.
    pub(super) fn adapt(&self, sign: Sign) -> Vec<Connection> {
        let share = match sign {
            Sign::SlowDown => self.gate.slow_down(),
            Sign::Up => match self.gate.taken() {
                Some(share) => share,
                None => return Vec::new(),
            },
            Sign::Away | Sign::Broken | Sign::None => return Vec::new(),
        };
        self.pool.set_limit(share.of(self.pool.cap()))
    }
}
