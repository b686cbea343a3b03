//! What keeps mail from an upstream at this moment, for people who ask why it has not left. Decides nothing.

use crate::rate::Rate;
use tokio::time::Instant;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamObstacle {
    /// This quota is used up until then.
    Quota { rate: Rate, until: Instant },
    /// After a failure, with its reason, nothing is tried until then.
    Breaker { reason: String, until: Instant },
    /// After a failure, a few messages at a time.
    Recovery,
    /// Messages wait for their turn by the rates.
    Rate,
    /// So many connections are allowed, and all of them are busy.
    Connections(usize),
    /// Of so many connections, other gateways have as many.
    OtherGateways { allowed: usize, elsewhere: usize },
    /// The limits that the gateways share cannot be checked.
    Ledger { trouble: String },
}
