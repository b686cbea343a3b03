//! What recognises a message that a client submits a second time, because it did not see the answer to the first.
//!
//! The queue compares keys and keeps them for their time; what makes two messages the same is not its business.

use std::fmt;
use std::time::Duration;

/// A digest (SHA-256) of whatever must be the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(pub [u8; 32]);

/// What a stored message is remembered by, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deduplication {
    pub key: IdempotencyKey,
    /// By [`QuotaLedger::lived`](super::QuotaLedger::lived), from when it is stored.
    pub window: Duration,
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}
