//! What identifies a lease, in memory and in the journal.

use super::layout::MessagePlace;
use super::record::MessageRecord;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// All that is needed to settle a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FencedLease {
    pub place: MessagePlace,
    pub lane: String,
    pub fence: u64,
    /// Of the recipients, in the order of the lease's envelope.
    pub positions: Vec<u32>,
    /// Of the change that settles it.
    pub token: String,
}

/// A lease that this process holds.
#[derive(Debug, Clone)]
pub(super) struct InstanceLease {
    pub held: FencedLease,
    /// As it was leased: settling it needs no look first.
    pub record: MessageRecord,
    /// The answer to the change that settles it was lost, so it may have been made.
    pub is_unsure: bool,
    /// When it ends if it is not renewed, counted from before it was asked for.
    pub ends: Instant,
}
