//! What delivery needs of a queue: taking mail, leasing what is due, settling it, and putting it on other lanes.

use super::{Cursor, Lane, LeaseId, Leased, NewMail, QueueError, Settlement, Wakeups};
use crate::message::accepted::Addressed;
use async_trait::async_trait;
use jiff::Timestamp;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Cost: calls of `put`, `lease` and `settle` that wait at the same time share one sync (group commit). Crash guarantee: each call is
/// all or nothing, and durable when it returns `Ok`. A call whose future is dropped is done whole or not at all, and what it has leased
/// goes back.
#[async_trait]
pub trait Queue: Send + Sync + fmt::Debug + 'static {
    /// Responsibility passes when this returns `Ok`.
    async fn put(&self, mail: NewMail) -> Result<(), QueueError>;

    /// Whether a message of this size would be taken, as far as that can be said before it arrives: there is room, and the storage is
    /// still the one that was opened. Returns at once.
    fn admit(&self, octets: u64) -> Result<(), QueueError>;

    /// Messages of this lane that are due: at most `limit`, and no further one once `octets` are reached. Sender domains take turns. A
    /// held lane gives none.
    ///
    /// A message that cannot be read is set aside (state damaged) and logged; it is never returned and never retried.
    async fn lease(&self, lane: &Lane, now: Timestamp, limit: usize, octets: u64) -> Result<Vec<Leased>, QueueError>;

    /// Waiting messages of this lane, due or not, that are at least this old, in order of acceptance, after the cursor. The limits are
    /// those of [`Queue::lease`]. A call looks at a bounded number of messages, so it can return none and still a cursor to go on from;
    /// without a cursor there are no more.
    async fn lease_expired(
        &self,
        lane: &Lane,
        age: Duration,
        after: Option<Cursor>,
        limit: usize,
        octets: u64,
    ) -> Result<(Vec<Leased>, Option<Cursor>), QueueError>;

    /// Takes one settlement per recipient of the lease's envelope, in order. `due`: when deferred and postponed recipients are due again;
    /// untried ones wait with them, or keep their due time if there are none.
    async fn settle(&self, lease: LeaseId, settlements: Vec<Settlement>, due: Timestamp) -> Result<(), QueueError>;

    /// When the lane's next message is due; `None` if nothing waits there or the lane is held. Here and in `lease`, a due time further
    /// ahead than any schedule makes counts as `now`: the clock was set back.
    async fn next_due(&self, lane: &Lane, now: Timestamp) -> Result<Option<Timestamp>, QueueError>;

    /// Puts every waiting or failed recipient on the lane that `lane_of` names, some hundred messages per call.
    ///
    /// The first call has no cursor and moves nothing yet; each further call has the cursor of the last answer. The first call is also
    /// the last one if the `fingerprint` (of the routes) is that of the last reassignment that was completed; it is kept durably. From
    /// the first call on nothing is leased on a lane that is not its own, whatever else is called meanwhile; what was leased before
    /// keeps its lane. A reassignment that is not completed, for instance because of a crash, is started again with the routes of that
    /// time.
    async fn reassign_lanes(
        &self,
        fingerprint: &str,
        lane_of: LaneOf,
        after: Option<Cursor>,
    ) -> Result<Reassigned, QueueError>;

    /// For the loops that deliver. Every call that can make mail due has rung them when it returns.
    fn wakeups(&self) -> &Wakeups;

    /// Returns when everything asked before is durable. Every later call gets [`QueueError::Closed`].
    async fn close(&self);
}

/// What one call of [`Queue::reassign_lanes`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reassigned {
    /// Recipients.
    pub moved: u64,
    /// `None`: everything is on its lane.
    pub next: Option<Cursor>,
}

/// The lane of one recipient.
pub type LaneOf = Arc<dyn Fn(&Addressed<'_>) -> Lane + Send + Sync>;
