//! The durable queue: accepted mail stays until each recipient is settled.
//!
//! States of a recipient (docs/queue.md draws them):
//! ```text
//! S0 unknown ──put──▶ S1 waiting ──lease──▶ S2 leased ──settle──▶ S3 delivered (a history row; the body is gone)
//!                        ▲  ▲                  │  │
//!                        │  └── defer ─────────┘  └────────────▶ S4 failed (kept `keep_failed`; retry ──▶ S1)
//!                        └── crash: every S2 is S1 again, and its next attempt is a possible duplicate
//! ```
//! **The instant of responsibility** is the return of [`Queue::put`]: the commit that holds the message was synced. Before
//! it the client has the only copy and gets an error; after it nothing that happens to the process or the machine loses
//! the message. Every transition is one durable transaction; a lease is durable before anything is sent under it.
//!
//! A recipient that is stored as [`Suspension::Held`] or [`Suspension::Delayed`] is in S1, and is not leased before it is
//! released or due.
//!
//! The queue is blind to providers: a [`Lane`] is an opaque word, a lease covers one message on one lane.

use crate::message::accepted::Accepted;
use jiff::Timestamp;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

#[cfg(test)]
pub(crate) mod conformance;
mod deduplication;
mod detached;
pub(crate) mod export_file;
mod handoff;
mod instances;
pub(crate) mod lifetime;
mod operator;
pub(crate) mod portable;
mod quota;
pub mod redis;
pub mod schedule;
pub mod sqlite;
mod store;
mod suspension;
#[cfg(test)]
pub(crate) mod testing;
mod wakeups;

pub use deduplication::{Deduplication, IdempotencyKey};
use detached::detached;
pub(crate) use handoff::{HandoffReceiver, HandoffSlot, Handoffs};
pub(crate) use instances::{AccountPermits, Forgotten, InstanceRow};
pub(crate) use operator::{
    Correction, HeldLane, HistoryRow, LaneCounts, MessageDetails, Page, QueueFigures, RecipientRow, Revision, Row,
    SpoolFigures, Statistics, StoredMail, is_message_id,
};
pub use operator::{Filter, Operator, RecipientState};
pub(crate) use quota::{QuotaLedger, QuotaRow};
pub(crate) use store::Reassigned;
pub use store::{LaneOf, Queue};
pub use suspension::Suspension;
pub(crate) use wakeups::{LaneWakeups, Wakeups};

/// Where mail waits: a name that only delivery interprets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane(Arc<str>);

impl Lane {
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A message to be stored.
#[derive(Debug, Clone)]
pub struct NewMail {
    pub accepted: Arc<Accepted>,
    /// One per recipient of the envelope, in its order.
    pub initial_states: Vec<InitialState>,
    /// The message from before the rewrite rules, if one changed it, as `rewrite::Original::encode` writes it; opaque
    /// to the queue.
    pub original: Option<bytes::Bytes>,
    /// For lists: decoded, at most 200 characters.
    pub subject: String,
    /// What it is remembered by, so that a client that hands it in again is recognised.
    pub deduplication: Option<Deduplication>,
}

impl NewMail {
    /// The lanes on which it waits, each once.
    pub fn waiting_lanes(&self) -> Vec<Lane> {
        let mut lanes = Vec::new();
        for state in &self.initial_states {
            if let InitialState::Waiting(lane)
            | InitialState::Deferred { lane, .. }
            | InitialState::Delayed { lane, .. } = state
                && !lanes.contains(lane)
            {
                lanes.push(lane.clone());
            }
        }
        lanes
    }

    /// The lane on which all its recipients wait, if there is one.
    pub fn only_lane(&self) -> Option<&Lane> {
        let InitialState::Waiting(lane) = self.initial_states.first()? else { return None };
        let waits = |state: &InitialState| matches!(state, InitialState::Waiting(other) if other == lane);
        self.initial_states.iter().all(waits).then_some(lane)
    }
}

/// The initial state of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InitialState {
    /// Due immediately.
    Waiting(Lane),
    /// Not tried yet, and not to be tried before it is due; `reason` is for people.
    Delayed { lane: Lane, due: Timestamp, reason: String },
    /// Not to be tried before an operator releases it; `reason` is for people.
    Held { lane: Lane, reason: String },
    /// Tried before it was stored (direct mode) and to be tried again.
    Deferred { lane: Lane, due: Timestamp, attempt: Attempted },
    /// Kept for the operator.
    Failed { lane: Lane, attempt: Attempted },
    /// The provider has accepted it already; recorded in the history only.
    Delivered(Delivered),
}

/// The reply or error that decided an attempt.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attempted {
    pub at: Timestamp,
    pub upstream: Option<String>,
    /// As `message::Reason` prints it.
    pub text: String,
    /// The provider may have the message.
    pub possible_duplicate: bool,
}

/// The provider's reply when it accepted the message.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Delivered {
    pub at: Timestamp,
    pub upstream: String,
    pub reply: String,
    /// From the application's final dot to the provider's reply.
    pub milliseconds: u64,
}

/// Identifies a lease; unique among all leases of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseId(pub i64);

/// One message on one lane, leased for one attempt.
#[derive(Debug, Clone)]
pub struct Leased {
    pub lease: LeaseId,
    pub lane: Lane,
    /// The envelope contains only this lane's waiting recipients.
    pub accepted: Arc<Accepted>,
    /// Attempts on this lane before this one.
    pub attempts: u32,
    /// Measured by [`QuotaLedger::lived`] since the message was received, or since an operator last asked for a retry.
    pub age: Duration,
    /// This attempt may deliver a duplicate: the message was leased when the process last ended, or a recipient's last
    /// attempt was a `possible_duplicate`.
    pub possible_duplicate: bool,
}

/// How a lease ends for one recipient.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settlement {
    Delivered(Delivered),
    Deferred(Attempted),
    Failed(Attempted),
    /// Not tried: treated as if it had not been leased; costs no attempt.
    Untried,
    /// Not tried, and trying before `due` is pointless; costs no attempt.
    Postponed,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum QueueError {
    /// 452 4.3.1
    #[error("the disk is full ({0})")]
    Full(String),
    /// 451 4.3.0
    #[error("the queue's storage fails ({0})")]
    Storage(String),
    /// 451 4.3.0: the next start would not find a message that was stored now.
    #[error("the queue was moved or deleted ({0})")]
    Moved(String),
    /// 451 4.3.0: a server that the queue is in does not answer; what was asked may have been done.
    #[error("the queue's storage does not answer ({0})")]
    Away(String),
    #[error("the queue is closed")]
    Closed,
    /// From `settle`: the lease was settled before.
    #[error("no such lease")]
    NoSuchLease,
}

impl QueueError {
    /// A panic, which has been logged. The operation was not done.
    pub(crate) fn fault() -> Self {
        Self::Storage("a fault of this program; see the log".to_owned())
    }
}

/// An opaque position, taken from a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cursor(pub i64);

/// The key by which domains take turns; the null path has its own.
fn domain_of(sender: Option<&str>) -> String {
    sender
        .and_then(|sender| sender.rsplit_once('@'))
        .map_or_else(String::new, |(_, domain)| domain.to_ascii_lowercase())
}

/// A queue's storage: everything that the parts of a gateway need from a queue. `queue::conformance` says, as tests,
/// what a backend must do.
pub trait Backend: Queue + Operator + QuotaLedger + portable::Transfer {}

impl<T: Queue + Operator + QuotaLedger + portable::Transfer> Backend for T {}
