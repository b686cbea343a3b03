//! What delivery needs from a queue: to store mail, lease what is due, settle it, and put it on other lanes.

use super::{Cursor, Handoffs, IdempotencyKey, Lane, LeaseId, Leased, NewMail, QueueError, Settlement, Wakeups};
use crate::message::MailId;
use crate::message::accepted::Addressed;
use async_trait::async_trait;
use jiff::Timestamp;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Cost: calls of `put`, `lease` and `settle` that wait at the same time share one sync (group commit). Crash
/// guarantee: each call is all or nothing, and durable when it returns `Ok`. A call whose future is dropped is
/// completed or not done at all, and its leases are released.
#[async_trait]
pub trait Queue: Send + Sync + fmt::Debug + 'static {
    /// Responsibility passes when this returns `Ok`. A mail's `deduplication` is remembered with it, in the same step.
    /// Mail that waits on one lane only may be stored as leased and handed over (`handoffs`).
    async fn put(&self, mail: NewMail) -> Result<(), QueueError>;

    /// The same, unless a message was stored under the mail's key within that one's window: then nothing is stored, and the answer is
    /// the id of that message. Of calls with one key at the same time exactly one stores its mail. Without a `deduplication` it is
    /// `put`.
    async fn put_once(&self, mail: NewMail) -> Result<Option<MailId>, QueueError>;

    /// The message that was stored under this key, while its window lasts, whatever has become of it since.
    async fn stored_under(&self, key: IdempotencyKey) -> Result<Option<MailId>, QueueError>;

    /// Whether a message of this size would be accepted, as far as that is known before it arrives: there is enough
    /// disk space, and the storage is still the one that was opened. Returns at once.
    fn admit(&self, octets: u64) -> Result<(), QueueError>;

    /// Leases due messages of this lane: at most `limit`, and no more once `octets` are reached. Sender domains take
    /// turns. A held lane returns none.
    ///
    /// An unreadable message is set aside (state damaged) and logged; it is never returned and never retried.
    async fn lease(&self, lane: &Lane, now: Timestamp, limit: usize, octets: u64) -> Result<Vec<Leased>, QueueError>;

    /// Leases waiting messages of this lane, due or not, that are at least this old, in order of acceptance, after the
    /// cursor. The limits are those of [`Queue::lease`]. A call examines a bounded number of messages, so it can return
    /// none together with a cursor to continue from. Without a cursor there are no more.
    async fn lease_expired(
        &self,
        lane: &Lane,
        age: Duration,
        after: Option<Cursor>,
        limit: usize,
        octets: u64,
    ) -> Result<(Vec<Leased>, Option<Cursor>), QueueError>;

    /// Expects one settlement per recipient of the lease's envelope, in order. `due`: when deferred and postponed
    /// recipients are due again; untried ones wait with them, or keep their due time if there are none.
    async fn settle(&self, lease: LeaseId, settlements: Vec<Settlement>, due: Timestamp) -> Result<(), QueueError>;

    /// Whether a message may still be sent under this lease. Cheap to call. False: another instance may have it by now, and the
    /// lease is to be settled as untried.
    fn still_holds(&self, _lease: LeaseId) -> bool {
        true
    }

    /// When the lane's next message is due; `None` if nothing waits there or the lane is held. Here and in `lease`, a
    /// due time further ahead than any schedule makes counts as `now`, because the clock was set back.
    async fn next_due(&self, lane: &Lane, now: Timestamp) -> Result<Option<Timestamp>, QueueError>;

    /// Puts every waiting or failed recipient on the lane that `lane_of` names, a few hundred messages per call.
    ///
    /// The first call has no cursor and moves nothing; each further call passes the cursor of the last answer. If the
    /// `fingerprint` of the routes, which is stored durably, is that of the last completed reassignment, the first call
    /// is also the last. From the first call on, nothing is leased on a lane that is not its own, whatever else is
    /// called meanwhile; existing leases keep their lane. A reassignment that does not complete, for example because of
    /// a crash, starts over with the routes of that time.
    async fn reassign_lanes(
        &self,
        fingerprint: &str,
        lane_of: LaneOf,
        after: Option<Cursor>,
    ) -> Result<Reassigned, QueueError>;

    /// For the delivery loops. A call that can make mail due has triggered them by the time it returns.
    fn wakeups(&self) -> &Wakeups;

    /// The delivery loops that can begin new mail at once.
    fn handoffs(&self) -> &Handoffs;

    /// Returns when every earlier call is durable. Every later call gets [`QueueError::Closed`].
    async fn close(&self);
}

/// What one call of [`Queue::reassign_lanes`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reassigned {
    /// Number of recipients.
    pub moved: u64,
    /// `None`: every message is on its lane.
    pub next: Option<Cursor>,
}

/// The lane of one recipient.
pub type LaneOf = Arc<dyn Fn(&Addressed<'_>) -> Lane + Send + Sync>;
