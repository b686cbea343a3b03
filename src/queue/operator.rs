//! What an operator asks of a queue and does to it, for `waxseal queue` and the gateway's own pruning.

use super::{Attempted, Cursor, Delivered, Forgotten, InstanceRow, Lane, LaneOf, QueueError};
use crate::message::accepted::Accepted;
use crate::message::{Envelope, MailId, Marks};
use crate::smtp::Mailbox;
use async_trait::async_trait;
use jiff::Timestamp;
use std::fmt;
use std::time::Duration;

/// Crash guarantee: a call changes each message completely or not at all, and durably when it returns `Ok`. Calls that
/// name many messages may have changed some of them when they return an error.
#[async_trait]
pub trait Operator: Send + Sync + fmt::Debug + 'static {
    /// Holds (`true`) or releases a lane; `None` means all lanes, including those that do not exist yet. Mail is still
    /// accepted. The latest call wins: a lane can be released while all others are held.
    async fn hold(&self, lane: Option<&Lane>, held: bool) -> Result<(), QueueError>;

    async fn holds(&self) -> Result<Vec<HeldLane>, QueueError>;

    /// One page after the cursor, oldest first. A call examines a bounded number of messages, so its cost does not
    /// depend on the queue's length; a page can therefore be short or even empty and still have a next one.
    async fn list(&self, filter: &Filter, after: Option<Cursor>, limit: usize) -> Result<Page, QueueError>;

    /// Everything about one message; its header, not its body.
    async fn show(&self, id: MailId) -> Result<Option<MessageDetails>, QueueError>;

    /// The whole message as it was accepted; `None` if it does not exist (any more).
    async fn content(&self, id: MailId) -> Result<Option<bytes::Bytes>, QueueError>;

    /// Makes waiting, held, failed and damaged recipients due now and resets their age to zero. With a correction, the
    /// message's only unsettled recipient is replaced and waits on the lane of the new address. Returns the number of
    /// recipients.
    async fn retry(&self, ids: &[MailId], correction: Option<&Correction>, now: Timestamp) -> Result<u64, QueueError>;

    /// Makes held recipients due now and resets their age to zero. Returns the number of recipients.
    async fn release(&self, ids: &[MailId]) -> Result<u64, QueueError>;

    /// The message as it is stored, for [`Operator::replace`]; `None` if it does not exist (any more).
    async fn stored(&self, id: MailId) -> Result<Option<StoredMail>, QueueError>;

    /// Replaces a message by another form of it, atomically, and makes it due now. Its earlier attempts stay on record
    /// but no longer count. Returns `false` and does nothing if the message is leased or gone, or if its recipients are
    /// no longer those from which the form was made.
    async fn replace(&self, revision: Revision, now: Timestamp) -> Result<bool, QueueError>;

    /// Removes messages permanently, except those that are leased. Returns the number of messages.
    async fn remove(&self, ids: &[MailId]) -> Result<u64, QueueError>;

    /// Delivered messages, newest first.
    async fn history(&self, before: Option<Cursor>, limit: usize) -> Result<Vec<HistoryRow>, QueueError>;

    /// Deletes failed messages and history that are at least so old by [`lived`](super::QuotaLedger::lived). Returns
    /// the number of rows.
    async fn prune(&self, failed: Duration, history: Duration) -> Result<u64, QueueError>;

    async fn statistics(&self) -> Result<Statistics, QueueError>;

    /// The numbers of each lane, and the size of the storage. The cost does not depend on the queue's length: a backend keeps the
    /// numbers, and the oldest message of a long lane may be the one of half a minute ago.
    async fn figures(&self) -> Result<QueueFigures, QueueError>;

    /// How many messages wait on this lane, those alone that are due after a moment if one is given. Counts up to `most`.
    async fn count_waiting(&self, lane: &Lane, after: Option<Timestamp>, most: u64) -> Result<u64, QueueError>;

    /// What waits in the spool of a shared queue. `None`: it has none.
    async fn spool(&self) -> Result<Option<SpoolFigures>, QueueError> {
        Ok(None)
    }

    /// The gateways that share the queue. `None`: it is not one that can be shared.
    async fn instances(&self) -> Result<Option<Vec<InstanceRow>>, QueueError> {
        Ok(None)
    }

    /// An instance, by its id, is gone for good: what it had leased waits again, and its connections count no more.
    async fn forget(&self, _instance: &str) -> Result<Forgotten, QueueError> {
        Ok(Forgotten::NotShared)
    }
}

/// A message as it is stored, with everything that is not settled.
#[derive(Debug, Clone)]
pub struct StoredMail {
    /// The envelope contains every unsettled recipient, on any lane.
    pub accepted: Accepted,
    /// As it was passed to `put`.
    pub original: Option<bytes::Bytes>,
}

/// Another form of a stored message. It keeps the body, the id and the origin.
#[derive(Debug, Clone)]
pub struct Revision {
    pub id: MailId,
    /// The recipients of the [`StoredMail`] from which this form was made.
    pub replaces: Vec<Mailbox>,
    /// Must not be empty.
    pub envelope: Envelope,
    /// One per recipient of the envelope, in its order.
    pub lanes: Vec<Lane>,
    /// Complete header fields.
    pub header: Vec<u8>,
    pub marks: Marks,
    pub original: Option<bytes::Bytes>,
    pub subject: String,
}

/// A new address for a recipient.
#[derive(Clone)]
pub struct Correction {
    pub to: Mailbox,
    /// The lane by the current routes. `None`: the routes are not known here, and the next
    /// [`reassign_lanes`](super::Queue::reassign_lanes) examines all mail.
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
    /// Accepted, and not to be sent before an operator releases it.
    Held,
    Leased,
    Failed,
    /// Unreadable; set aside.
    Damaged,
}

/// A message matches if every given condition does.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Filter {
    pub state: Option<RecipientState>,
    /// Part of a recipient's address, without wildcards.
    pub recipient: Option<String>,
    /// The lane or the last upstream.
    pub upstream: Option<String>,
    pub received_before: Option<Timestamp>,
    /// Of its header, whole, with or without the angle brackets.
    #[serde(default)]
    pub message_id: Option<String>,
}

/// Whether these are the same, with or without angle brackets.
pub fn is_message_id(stored: Option<&str>, wanted: &str) -> bool {
    stored.is_some_and(|stored| without_brackets(stored) == without_brackets(wanted))
}

/// `a@b` of `<a@b>`.
pub fn without_brackets(message_id: &str) -> &str {
    let trimmed = message_id.trim();
    trimmed.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(trimmed)
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
    /// Empty for the null path.
    pub sender: String,
    pub subject: String,
    pub size: u64,
    /// `None`: the header has none.
    pub message_id: Option<String>,
    pub recipients: Vec<RecipientRow>,
    /// It is in this gateway's spool, and moves into the shared queue when that can be reached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_spooled: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RecipientRow {
    pub address: String,
    pub state: RecipientState,
    pub lane: String,
    pub attempts: u32,
    /// When the next attempt is due.
    pub due: Option<Timestamp>,
    /// The reason for the last failure, on one line; before the first attempt of a delayed or held one, what it waits for.
    pub reason: Option<String>,
    /// It was not tried yet, and is not to be tried before it is due.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delayed: bool,
    /// The name of the instance that sends it at the moment, if several can share the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
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

impl MessageDetails {
    /// Of a message that was delivered to all recipients, so that only its history is left. Each row with the message's size.
    pub(super) fn of_history(delivered: Vec<(HistoryRow, u64)>) -> Option<Self> {
        let (first, size) = delivered.first()?;
        let row = Row {
            id: first.id.clone(),
            received_at: first.received_at,
            sender: first.sender.clone(),
            subject: first.subject.clone(),
            size: *size,
            message_id: first.message_id.clone(),
            recipients: Vec::new(),
            is_spooled: false,
        };
        let delivered = delivered.into_iter().map(|(row, _)| row).collect();
        Some(Self { row, header: String::new(), attempts: Vec::new(), delivered, has_original: false })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HistoryRow {
    pub cursor: Cursor,
    pub id: String,
    pub received_at: Timestamp,
    pub sender: String,
    pub recipients: Vec<String>,
    pub subject: String,
    pub message_id: Option<String>,
    pub delivery: Delivered,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HeldLane {
    /// `None`: all lanes.
    pub lane: Option<String>,
    /// Lanes released by name while all are held.
    pub except: Vec<String>,
}

/// Counts recipients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Statistics {
    pub waiting: u64,
    pub leased: u64,
    pub failed: u64,
    pub damaged: u64,
}

/// What is in the queue, for metrics and `waxseal status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct QueueFigures {
    /// Lanes with any recipients, by name.
    pub lanes: Vec<LaneCounts>,
    /// Size of everything that is stored.
    pub octets: u64,
}

/// What waits in the spool of this gateway because Redis did not answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SpoolFigures {
    pub recipients: u64,
    /// Size of everything that is stored.
    pub octets: u64,
    /// When the oldest message was received.
    pub oldest: Option<Timestamp>,
    /// Why it cannot move; `None`: it moves.
    pub away: Option<String>,
}

/// Counts recipients of one lane, each in the state that [`Operator::list`] shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LaneCounts {
    pub lane: String,
    /// Delayed ones among them.
    pub waiting: u64,
    pub held: u64,
    pub leased: u64,
    pub failed: u64,
    pub damaged: u64,
    /// When the oldest message that waits or is leased was received; neither held nor delayed ones count.
    pub oldest: Option<Timestamp>,
}
