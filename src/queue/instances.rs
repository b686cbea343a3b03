//! The gateways that share a queue, as operators see them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A gateway that shares the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRow {
    /// The same at every start of the gateway.
    pub id: String,
    /// `[queue.redis] instance`, or the machine's name. Several instances can have the same one.
    pub name: String,
    /// The gateway that answers, or the one whose data folder the command uses.
    pub is_own: bool,
    /// It has shown itself in the last seconds.
    pub is_alive: bool,
    /// When it was last started; `None`: not known.
    pub started: Option<Timestamp>,
    /// When it last showed itself.
    pub seen: Timestamp,
    /// Messages that it is sending.
    pub leases: u64,
    /// Connections that it may have open.
    pub permits: Vec<AccountPermits>,
}

impl InstanceRow {
    pub fn connections(&self) -> u64 {
        self.permits.iter().map(|account| account.permits).sum()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountPermits {
    /// As the gateways name a login at a provider.
    pub account: String,
    pub permits: u64,
}

/// What became of the request to forget an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forgotten {
    /// Its leases wait again, as possible duplicates, and its connections count no more.
    Done { leases: u64, permits: u64 },
    /// No instance has this id.
    Unknown,
    /// It runs: what it has cannot be taken from it.
    Alive,
    /// No other gateway shares this queue.
    NotShared,
}
