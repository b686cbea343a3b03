//! A message, and what a queue keeps besides, in a form that belongs to no backend: to be moved from one queue to another, or
//! written to a file. Ages are lengths of time, because every queue has a clock of its own; due times are times of the day.

use super::{Attempted, Delivered, IdempotencyKey, QueueError, Suspension};
use crate::message::{MailId, Marks};
use crate::smtp::Mailbox;
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// Longer names of lanes, users and the like are not written by this program.
const MAX_NAME: usize = 1024;
const MAX_TEXT: usize = 64 * 1024;
/// As many attempts as a queue keeps of a message.
const MAX_ATTEMPTS: usize = 100;

/// Everything that a queue keeps of one message. A leased recipient waits in it, and its next attempt may be a duplicate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortableMail {
    pub id: MailId,
    pub received_at: Timestamp,
    /// `None`: the null path.
    pub sender: Option<String>,
    pub eight_bit: bool,
    pub smtputf8: bool,
    pub subject: String,
    pub listener: Option<String>,
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Marks::is_empty")]
    pub marks: Marks,
    /// In milliseconds: how old it is for its expiry, and since when it was accepted.
    pub age: u64,
    pub accepted: u64,
    pub recipients: Vec<PortableRecipient>,
    /// By lane, for every lane on which a recipient is neither delivered nor failed.
    pub jobs: BTreeMap<String, PortableJob>,
    /// Oldest first.
    pub attempts: Vec<Attempted>,
    #[serde(skip)]
    pub content: PortableContent,
}

#[derive(Clone, Default, PartialEq, Eq)]
pub struct PortableContent {
    /// Complete header fields.
    pub header: Bytes,
    pub body: Bytes,
    /// As it was passed to `put`.
    pub original: Option<Bytes>,
}

impl fmt::Debug for PortableContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} octets", self.header.len() + self.body.len())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortableRecipient {
    /// In the envelope that was accepted; identifies the recipient within its message.
    pub position: u32,
    pub address: String,
    /// With its suspension in front of it, as `Suspension::of` writes it.
    pub lane: String,
    /// Milliseconds since it failed; `None`: it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<u64>,
    pub attempts: u32,
    pub upstream: Option<String>,
    pub reason: Option<String>,
    /// The provider may have the message since the last attempt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_doubt: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortableJob {
    pub due: Timestamp,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub possible_duplicate: bool,
    /// It was found damaged; it is not tried before an operator asks for that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub set_aside: bool,
}

/// A key under which a message was submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortableKey {
    /// In hexadecimal.
    pub key: String,
    pub id: MailId,
    /// Milliseconds until it is forgotten.
    pub left: u64,
}

/// A delivered message's row of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortableHistory {
    pub id: MailId,
    pub received_at: Timestamp,
    pub sender: Option<String>,
    pub recipients: Vec<String>,
    pub subject: String,
    pub size: u64,
    pub message_id: Option<String>,
    pub delivery: Delivered,
    /// Milliseconds since it was delivered.
    pub ago: u64,
}

/// What became of a message that was to be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Imported {
    Stored,
    /// Nothing: it is in the queue.
    Present,
    /// Nothing: all its recipients have it, as the history says.
    Delivered,
}

/// Where imported mail comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportSource {
    /// A gateway of other routes, perhaps: all lanes are examined at the next start.
    Elsewhere,
    /// This gateway, so its lanes are those of its routes.
    OwnSpool,
}

/// Every call is durable when it returns `Ok`, and may be repeated: nothing is stored twice.
#[async_trait]
pub trait Transfer: Send + Sync + fmt::Debug + 'static {
    /// `None`: it does not exist (any more). Fails if any part of it is not what was stored.
    async fn portable(&self, id: MailId) -> Result<Option<PortableMail>, QueueError>;

    /// Stores a message for those recipients that the history does not name. The caller has [checked](PortableMail::check) it.
    async fn import(&self, mail: PortableMail, source: ImportSource) -> Result<Imported, QueueError>;

    /// Remembers keys, each unless another message has it. Returns the messages whose key another one has.
    async fn import_keys(&self, keys: Vec<PortableKey>) -> Result<Vec<MailId>, QueueError>;

    /// Adds the rows that are not there; returns how many those were.
    async fn import_history(&self, rows: Vec<PortableHistory>) -> Result<u64, QueueError>;
}

impl PortableMail {
    /// As `RawMessage::size` counts, with the empty line between header and body.
    pub fn size(&self) -> u64 {
        (self.content.header.len() + 2 + self.content.body.len()) as u64
    }

    /// Why no queue could have written it; `Ok`: it can be stored.
    pub fn check(&self) -> Result<(), String> {
        self.sender.as_deref().map_or(Ok(()), check_address)?;
        let names = [&self.listener, &self.user].into_iter().flatten().map(|name| (name, MAX_NAME));
        let lanes = self.jobs.keys().map(|lane| (lane, MAX_NAME));
        for (text, most) in names.chain(lanes).chain([(&self.subject, MAX_TEXT)]) {
            if text.len() > most {
                return Err(format!("a text of {} octets is too long", text.len()));
            }
        }
        if self.recipients.is_empty() {
            return Err("it has no recipients".to_owned());
        }
        if self.attempts.len() > MAX_ATTEMPTS {
            return Err(format!("it has {} attempts", self.attempts.len()));
        }
        let mut open = BTreeSet::new();
        let mut last = None;
        for recipient in &self.recipients {
            check_address(&recipient.address)?;
            if last >= Some(recipient.position) {
                return Err("its recipients are not in order".to_owned());
            }
            last = Some(recipient.position);
            let texts = [&recipient.upstream, &recipient.reason].into_iter().flatten().chain([&recipient.lane]);
            if texts.map(String::len).max().unwrap_or(0) > MAX_TEXT || Suspension::split(&recipient.lane).1.is_empty() {
                return Err("the lane of a recipient is not valid".to_owned());
            }
            if recipient.failed.is_none() {
                open.insert(recipient.lane.as_str());
            }
        }
        if !self.jobs.keys().map(String::as_str).eq(open) {
            return Err("its due times are not those of its recipients' lanes".to_owned());
        }
        Ok(())
    }

    /// Without the recipients to whom it was delivered. `None`: that are all of them.
    pub(super) fn without(mut self, delivered: &[String]) -> Option<Self> {
        self.recipients.retain(|recipient| !delivered.contains(&recipient.address));
        let open = |lane: &String| {
            self.recipients.iter().any(|recipient| recipient.failed.is_none() && recipient.lane == *lane)
        };
        let jobs = std::mem::take(&mut self.jobs);
        self.jobs = jobs.into_iter().filter(|(lane, _)| open(lane)).collect();
        (!self.recipients.is_empty()).then_some(self)
    }
}

fn check_address(text: &str) -> Result<(), String> {
    Mailbox::parse(text).map(drop).map_err(|error| format!("an address is not valid: {error}"))
}

impl PortableKey {
    pub(super) fn of(key: &[u8; 32], id: MailId, left: Duration) -> Self {
        let mut digits = String::with_capacity(64);
        key.iter().for_each(|octet| digits.push_str(&format!("{octet:02x}")));
        Self { key: digits, id, left: milliseconds(left) }
    }

    /// `None`: it is not 64 hexadecimal digits.
    pub fn key(&self) -> Option<IdempotencyKey> {
        let digits = self.key.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut key = [0; 32];
        for (octet, pair) in key.iter_mut().zip(digits.chunks(2)) {
            *octet = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(IdempotencyKey(key))
    }

    pub(super) fn window(&self) -> Duration {
        Duration::from_millis(self.left)
    }
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
