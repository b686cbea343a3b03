//! The durable queue: what was accepted stays until each recipient is settled.
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
//! The queue is blind to providers: a [`Lane`] is an opaque word, a lease covers one message on one lane.

use crate::message::accepted::{Accepted, Addressed};
use crate::message::{Envelope, MailId, Marks};
use crate::smtp::Mailbox;
use async_trait::async_trait;
use jiff::Timestamp;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

#[cfg(test)]
pub mod conformance;
pub mod control;
pub mod lifetime;
pub mod schedule;
pub mod sqlite;
#[cfg(test)]
pub mod testing;
mod wakeups;

pub use wakeups::{LaneWakeups, Wakeups};

/// Where mail waits: a word that means something to delivery alone.
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
    /// From before the rewrite rules, where one changed it, as `rewrite::Original::encode` writes it; opaque to the queue.
    pub original: Option<bytes::Bytes>,
    /// For lists; decoded, at most 200 characters.
    pub subject: String,
}

impl NewMail {
    /// Those on which it waits, each once.
    pub fn waiting_lanes(&self) -> Vec<Lane> {
        let mut lanes = Vec::new();
        for state in &self.initial_states {
            if let InitialState::Waiting(lane) | InitialState::Deferred { lane, .. } = state
                && !lanes.contains(lane)
            {
                lanes.push(lane.clone());
            }
        }
        lanes
    }
}

/// A message as it is stored, with everything that is not settled.
#[derive(Debug, Clone)]
pub struct StoredMail {
    /// The envelope holds every recipient that is not settled, on whatever lane.
    pub accepted: Accepted,
    /// As it was put.
    pub original: Option<bytes::Bytes>,
}

/// Another form of a stored message: all but its body, its name and its origin.
#[derive(Debug, Clone)]
pub struct Revision {
    pub id: MailId,
    /// Those of [`StoredMail`], from which this form was made.
    pub replaces: Vec<Mailbox>,
    /// Not empty.
    pub envelope: Envelope,
    /// One per recipient of the envelope, in its order.
    pub lanes: Vec<Lane>,
    /// Whole fields.
    pub header: Vec<u8>,
    pub marks: Marks,
    pub original: Option<bytes::Bytes>,
    pub subject: String,
}

/// Where a new recipient begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InitialState {
    /// Due at once.
    Waiting(Lane),
    /// Tried before it was stored (direct mode), to be tried again.
    Deferred { lane: Lane, due: Timestamp, attempt: Attempted },
    /// Kept for the operator.
    Failed { lane: Lane, attempt: Attempted },
    /// Already taken by the provider; only history.
    Delivered(Delivered),
}

/// One attempt's decisive line.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attempted {
    pub at: Timestamp,
    pub upstream: Option<String>,
    /// As `message::Reason` prints it.
    pub text: String,
    /// The provider may have the message.
    pub possible_duplicate: bool,
}

/// What the provider said when it took the message.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Delivered {
    pub at: Timestamp,
    pub upstream: String,
    pub reply: String,
    /// From the final dot of the application to the provider's reply.
    pub milliseconds: u64,
}

/// A lease's name: unique among all leases of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseId(pub i64);

/// One message on one lane, leased for one attempt.
#[derive(Debug, Clone)]
pub struct Leased {
    pub lease: LeaseId,
    pub lane: Lane,
    /// The envelope holds the recipients of this lane that are waiting, and no others.
    pub accepted: Arc<Accepted>,
    /// Attempts on this lane before this one.
    pub attempts: u32,
    /// By [`Queue::lived`]: since it was received, or made to be tried again by an operator.
    pub age: Duration,
    /// This attempt may be a duplicate: it was leased when the process last ended, or a recipient's last attempt was a
    /// `possible_duplicate`.
    pub possible_duplicate: bool,
}

/// A part of a quota that is used up: so many units, none of them after `at`, by [`Queue::lived`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaRow {
    /// Names it among those of its quota.
    pub number: i64,
    pub at: Duration,
    pub units: u64,
}

/// How a lease ends for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    Delivered(Delivered),
    Deferred(Attempted),
    Failed(Attempted),
    /// Not tried: as if it had not been leased; costs no attempt.
    Untried,
    /// Not tried and of no use before `due`; costs no attempt.
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
    /// 451 4.3.0: what would be stored now could not be found by the next start.
    #[error("the queue was moved or deleted ({0})")]
    Moved(String),
    #[error("the queue is closed")]
    Closed,
    /// Of `settle`: it was settled before.
    #[error("no such lease")]
    NoSuchLease,
}

impl QueueError {
    /// A panic, which is in the log. What it was about is not done.
    pub(crate) fn fault() -> Self {
        Self::Storage("a fault of this program; see the log".to_owned())
    }
}

/// What a backend guarantees. All of it is tested by `queue::conformance`, which every backend passes.
///
/// Cost: `put`, `lease` and `settle` share one sync among all that wait for one (group commit). Crash guarantee: each call is all
/// or nothing, and durable when it returns `Ok`.
#[async_trait]
pub trait Queue: Send + Sync + fmt::Debug + 'static {
    /// Responsibility passes when this returns `Ok`.
    async fn put(&self, mail: NewMail) -> Result<(), QueueError>;

    /// Messages of this lane that are due, at most `limit`, and no further one once `octets` are reached; sender domains
    /// take turns. A held lane gives none.
    ///
    /// A row that cannot be read is set aside (state damaged) and reported in the log, never returned and never retried.
    async fn lease(&self, lane: &Lane, now: Timestamp, limit: usize, octets: u64) -> Result<Vec<Leased>, QueueError>;

    /// Messages of this lane that wait, due or not, and are of this age or older: in order of acceptance, behind the cursor. At
    /// most `limit`, and no further one once `octets` are reached. A call looks at a bounded number of messages, so that it can
    /// give none and yet a cursor to go on from; without one there is no more. For the rest as [`Queue::lease`].
    async fn lease_expired(
        &self,
        lane: &Lane,
        age: Duration,
        after: Option<Cursor>,
        limit: usize,
        octets: u64,
    ) -> Result<(Vec<Leased>, Option<Cursor>), QueueError>;

    /// One settlement per recipient of the lease's envelope, in order. `due`: when deferred and postponed recipients are due
    /// again; untried ones wait along with them, or keep their due time if there are none.
    async fn settle(&self, lease: LeaseId, settlements: Vec<Settlement>, due: Timestamp) -> Result<(), QueueError>;

    /// When the lane's next message is due; `None` if nothing waits there or the lane is held. A due time that no schedule
    /// could have made by `now` (the clock was set back) counts as `now`, here and in `lease`.
    async fn next_due(&self, lane: &Lane, now: Timestamp) -> Result<Option<Timestamp>, QueueError>;

    /// Puts every waiting or failed recipient on the lane that `lane_of` names, some hundred messages to a call. Without a cursor
    /// it begins, looks at none yet, and is done at no cost if the last one that came to its end had the same `fingerprint` (of
    /// the routes), which is kept durably; with the cursor of the last answer it goes on. From its beginning on nothing is lent
    /// on a lane that is not its own, whatever else is called meanwhile; what was lent before stays where it is. Ended half-way,
    /// by a crash too, it is begun again, with whatever routes there are then.
    async fn reassign_lanes(
        &self,
        fingerprint: &str,
        lane_of: LaneOf,
        after: Option<Cursor>,
    ) -> Result<Reassigned, QueueError>;

    /// Stops (`true`) or resumes lanes; `None`: all, those of the future included. Mail is accepted all the same. The
    /// latest call wins: a lane can be released while all others are held.
    async fn hold(&self, lane: Option<&Lane>, held: bool) -> Result<(), QueueError>;

    async fn holds(&self) -> Result<Vec<HeldLane>, QueueError>;

    /// A page, oldest first, after the cursor. Costs the page, not the queue: a call looks at a bounded number of messages, so a
    /// page can be short, even empty, and have a next one.
    async fn list(&self, filter: &Filter, after: Option<Cursor>, limit: usize) -> Result<Page, QueueError>;

    /// Everything about one message; its header, not its body.
    async fn show(&self, id: MailId) -> Result<Option<MessageDetails>, QueueError>;

    /// The whole message as it was accepted; `None` if there is none (any more).
    async fn content(&self, id: MailId) -> Result<Option<bytes::Bytes>, QueueError>;

    /// Makes waiting, failed and damaged recipients due now, their age counted from now on; with a correction, a message's only
    /// unsettled recipient is replaced, and waits on the lane of the new address. Returns how many recipients.
    async fn retry(&self, ids: &[MailId], correction: Option<&Correction>, now: Timestamp) -> Result<u64, QueueError>;

    /// The message as it is stored, for [`Queue::replace`]; `None` if there is none (any more).
    async fn stored(&self, id: MailId) -> Result<Option<StoredMail>, QueueError>;

    /// Puts another form in place of a message, all at once, and makes it due now, whatever it waited or failed for. Its
    /// attempts stay on record and do not count any more. `false`, and nothing is done, if it is leased, gone, or not to
    /// the recipients any more that the form was made from.
    async fn replace(&self, revision: Revision, now: Timestamp) -> Result<bool, QueueError>;

    /// For good. Messages that are leased stay. Returns how many messages.
    async fn remove(&self, ids: &[MailId]) -> Result<u64, QueueError>;

    /// What was delivered, newest first.
    async fn history(&self, before: Option<Cursor>, limit: usize) -> Result<Vec<HistoryRow>, QueueError>;

    /// Forgets what failed, or was delivered, so long ago or longer, by [`Queue::lived`]; returns the number of rows.
    async fn prune(&self, failed: Duration, history: Duration) -> Result<u64, QueueError>;

    /// The clock that mail ages by, since the queue's beginning: it goes on while a gateway runs, and for a stop by what can be
    /// trusted of it. It neither jumps nor goes back when the wall clock is set, and a crash loses some seconds of it
    /// at most. Costs nothing.
    fn lived(&self) -> Duration;

    /// The recorded usage of a quota, by number. The name is opaque, like a lane's.
    async fn spent(&self, quota: &str) -> Result<Vec<QuotaRow>, QueueError>;

    /// Records rows for a quota, each replacing the one with its number, and forgets those below `oldest`.
    async fn spend(&self, quota: &str, rows: Vec<QuotaRow>, oldest: i64) -> Result<(), QueueError>;

    async fn statistics(&self) -> Result<Statistics, QueueError>;

    /// Whether a message of this size would be taken, as far as that can be said before it is there: there is room, and the place
    /// where the queue is kept is the one that was opened. Returns at once.
    fn admit(&self, octets: u64) -> Result<(), QueueError>;

    /// Of the lanes, for the loops that deliver: rung when mail may have become due.
    fn wakeups(&self) -> &Wakeups;

    /// Returns when everything that was asked before is durable; every later call gets [`QueueError::Closed`].
    async fn close(&self);
}

/// Another address in place of a recipient's.
#[derive(Clone)]
pub struct Correction {
    pub to: Mailbox,
    /// By the routes of today; `None`: they are not known here, and the next [`Queue::reassign_lanes`] looks at all mail.
    pub lane_of: Option<LaneOf>,
}

impl fmt::Debug for Correction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Correction").field("to", &self.to).finish_non_exhaustive()
    }
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecipientState {
    Waiting,
    Leased,
    Failed,
    /// Cannot be read; set aside.
    Damaged,
}

/// All that are given must match.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Filter {
    pub state: Option<RecipientState>,
    /// Glob-free substring of a recipient's address.
    pub recipient: Option<String>,
    /// Lane or last upstream.
    pub upstream: Option<String>,
    pub received_before: Option<Timestamp>,
}

/// Opaque; from a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cursor(pub i64);

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Page {
    pub rows: Vec<Row>,
    /// `None`: this was the last page.
    pub next: Option<Cursor>,
}

/// One message in a list.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Row {
    pub id: String,
    pub received_at: Timestamp,
    /// Empty: the null path.
    pub sender: String,
    pub subject: String,
    pub size: u64,
    pub recipients: Vec<RecipientRow>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RecipientRow {
    pub address: String,
    pub state: RecipientState,
    pub lane: String,
    pub attempts: u32,
    /// Of the next attempt.
    pub due: Option<Timestamp>,
    /// The last reason, in one line.
    pub reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MessageDetails {
    pub row: Row,
    pub header: String,
    /// Oldest first.
    pub attempts: Vec<Attempted>,
    pub delivered: Vec<HistoryRow>,
    pub has_original: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HistoryRow {
    pub cursor: Cursor,
    pub id: String,
    pub received_at: Timestamp,
    pub sender: String,
    pub recipients: Vec<String>,
    pub subject: String,
    pub delivery: Delivered,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HeldLane {
    /// `None`: all lanes.
    pub lane: Option<String>,
    /// Lanes released by name while all are held.
    pub except: Vec<String>,
}

/// Numbers of recipients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Statistics {
    pub waiting: u64,
    pub leased: u64,
    pub failed: u64,
    pub damaged: u64,
}
