//! What an operator asks of a queue and does to it: `waxseal queue`, and the gateway's own housekeeping.

use super::{Attempted, Cursor, Delivered, Lane, LaneOf, QueueError};
use crate::message::accepted::Accepted;
use crate::message::{Envelope, MailId, Marks};
use crate::smtp::Mailbox;
use async_trait::async_trait;
use jiff::Timestamp;
use std::fmt;
use std::time::Duration;

/// Crash guarantee: what a call changes of one message is all or nothing, and durable when it returns `Ok`. Calls that name many
/// messages may have changed some of them when they return an error.
#[async_trait]
pub trait Operator: Send + Sync + fmt::Debug + 'static {
    /// Stops (`true`) or resumes a lane, or with `None` all lanes, also those that do not exist yet. Mail is still accepted. The latest
    /// call wins: a lane can be released while all others are held.
    async fn hold(&self, lane: Option<&Lane>, held: bool) -> Result<(), QueueError>;

    async fn holds(&self) -> Result<Vec<HeldLane>, QueueError>;

    /// A page, oldest first, after the cursor. A call looks at a bounded number of messages, so that it costs the same however long the
    /// queue is; a page can therefore be short, even empty, and have a next one.
    async fn list(&self, filter: &Filter, after: Option<Cursor>, limit: usize) -> Result<Page, QueueError>;

    /// Everything about one message; its header, not its body.
    async fn show(&self, id: MailId) -> Result<Option<MessageDetails>, QueueError>;

    /// The whole message as it was accepted; `None` if there is none (any more).
    async fn content(&self, id: MailId) -> Result<Option<bytes::Bytes>, QueueError>;

    /// Makes waiting, failed and damaged recipients due now; their age starts at zero. With a correction, a message's only unsettled
    /// recipient is replaced and waits on the lane of the new address. Returns the number of recipients.
    async fn retry(&self, ids: &[MailId], correction: Option<&Correction>, now: Timestamp) -> Result<u64, QueueError>;

    /// The message as it is stored, for [`Operator::replace`]; `None` if there is none (any more).
    async fn stored(&self, id: MailId) -> Result<Option<StoredMail>, QueueError>;

    /// Replaces a message by another form of it, all at once, and makes it due now. Its earlier attempts stay on record and no longer
    /// count. `false`, and nothing is done, if it is leased or gone, or if its recipients are no longer those that the form was made
    /// from.
    async fn replace(&self, revision: Revision, now: Timestamp) -> Result<bool, QueueError>;

    /// For good. Messages that are leased stay. Returns the number of messages.
    async fn remove(&self, ids: &[MailId]) -> Result<u64, QueueError>;

    /// What was delivered, newest first.
    async fn history(&self, before: Option<Cursor>, limit: usize) -> Result<Vec<HistoryRow>, QueueError>;

    /// Forgets what failed, or was delivered, at least so long ago, by [`lived`](super::QuotaLedger::lived). Returns the number of
    /// rows.
    async fn prune(&self, failed: Duration, history: Duration) -> Result<u64, QueueError>;

    async fn statistics(&self) -> Result<Statistics, QueueError>;
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

/// Another address in place of a recipient's.
#[derive(Clone)]
pub struct Correction {
    pub to: Mailbox,
    /// By the current routes. `None`: they are not known here, and the next [`reassign_lanes`](super::Queue::reassign_lanes) looks
    /// at all mail.
    pub lane_of: Option<LaneOf>,
}

impl fmt::Debug for Correction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Correction").field("to", &self.to).finish_non_exhaustive()
    }
}

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
