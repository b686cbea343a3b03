//! `MessageRecord`: everything about one message but its text, as it is stored in Redis: typed, and JSON behind a digest.
//!
//! Pure. transitions.rs changes records, commit.rs writes what changed. Nothing that a record says is believed before its
//! digest fits, since neither Redis nor its file of commands has checksums.

use super::layout::lease_member;
use crate::message::accepted::{Accepted, Origin};
use crate::message::{Envelope, MailId, Marks, message_id};
use crate::queue::{Attempted, Delivered, Suspension, domain_of};
use crate::smtp::command::BodyType;
use crate::smtp::{Mailbox, ReversePath};
use aws_lc_rs::digest::{Context, SHA256};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Octets kept of a SHA-256: a random match has a probability of 1 in 2^128.
const DIGEST: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MessageRecord {
    pub id: MailId,
    pub received_at: Timestamp,
    /// `None`: the null path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub eight_bit: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub smtputf8: bool,
    pub size: u64,
    pub subject: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Marks::is_empty")]
    pub marks: Marks,
    /// From when its age counts, in milliseconds of the queue's own clock.
    pub since: u64,
    /// When it was accepted, by the same clock.
    pub lived: u64,
    pub recipients: Vec<RecipientRecord>,
    /// By lane, for every lane on which a recipient is neither delivered nor failed.
    pub jobs: BTreeMap<String, LaneJob>,
    /// Oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempted>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_original: bool,
    /// Of header and body, in hexadecimal.
    pub digest: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RecipientRecord {
    /// In the envelope that was accepted; identifies the recipient within its message.
    pub position: u32,
    pub address: String,
    /// With its suspension in front of it, as `Suspension::of` writes it.
    pub lane: String,
    /// By the queue's own clock, in milliseconds; `None`: it has not failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Of the last attempt, or why it is suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The provider may have the message since the last attempt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_doubt: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The recipients of one lane that are to be sent, as one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LaneJob {
    /// Microseconds since 1970 by the server's clock.
    pub due: i64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub state: JobState,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub possible_duplicate: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum JobState {
    #[default]
    Waiting,
    Leased(LeaseRecord),
    /// Its lease was taken from its holder, whose outcome still counts while nobody else has leased it.
    TakenBack(LeaseRecord),
    /// Unreadable; set aside.
    Damaged,
}

impl JobState {
    /// It can be leased.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting | Self::TakenBack(_))
    }

    pub(super) fn is_leased(&self) -> bool {
        matches!(self, Self::Leased(_))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LeaseRecord {
    /// The version of the record at which it was leased, so it grows with every lease of the message.
    pub fence: u64,
    pub instance: String,
}

/// One row of the history, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HistoryRecord {
    pub id: MailId,
    pub received_at: Timestamp,
    pub sender: Option<String>,
    pub recipients: Vec<String>,
    pub subject: String,
    pub size: u64,
    pub message_id: Option<String>,
    pub delivery: Delivered,
    /// By the queue's own clock, in milliseconds.
    pub lived: u64,
}

/// Why a stored message cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum RecordDamage {
    #[error("its record is not what was stored")]
    Digest,
    #[error("its record cannot be read ({0})")]
    Unreadable(String),
    #[error("its content is not what was stored")]
    Content,
    #[error("its content is missing")]
    Missing,
    #[error("none of its recipients is on this lane")]
    NoRecipient,
}

impl MessageRecord {
    /// As it is stored: the digest of the JSON, and the JSON.
    pub(super) fn encode(&self) -> Result<Vec<u8>, RecordDamage> {
        let json = serde_json::to_vec(self).map_err(|error| RecordDamage::Unreadable(error.to_string()))?;
        let mut stored = digest(&[&json]);
        stored.extend_from_slice(&json);
        Ok(stored)
    }

    pub(super) fn decode(stored: &[u8]) -> Result<Self, RecordDamage> {
        let (digest_of_json, json) = stored.split_at_checked(DIGEST).ok_or(RecordDamage::Digest)?;
        if digest(&[json]) != digest_of_json {
            return Err(RecordDamage::Digest);
        }
        serde_json::from_slice(json).map_err(|error| RecordDamage::Unreadable(error.to_string()))
    }

    /// A message that no recipient needs any more.
    pub(super) fn of_nobody(accepted: &Accepted, subject: &str, lived: u64) -> Self {
        let Accepted { id, received_at, origin, envelope, message, marks, .. } = accepted;
        Self {
            id: *id,
            received_at: *received_at,
            sender: envelope.sender.mailbox().map(ToString::to_string),
            eight_bit: envelope.body == BodyType::EightBitMime,
            smtputf8: envelope.smtputf8,
            size: message.size() as u64,
            subject: subject.to_owned(),
            message_id: message_id(message.header()),
            listener: origin.listener.as_deref().map(str::to_owned),
            user: origin.user.as_deref().map(str::to_owned),
            marks: marks.clone(),
            since: lived,
            lived,
            recipients: Vec::new(),
            jobs: BTreeMap::new(),
            attempts: Vec::new(),
            has_original: false,
            digest: content_digest(message.header(), message.body()),
        }
    }

    pub(super) fn origin(&self) -> Origin {
        let text = |text: &Option<String>| text.as_deref().map(Into::into);
        Origin { listener: text(&self.listener), user: text(&self.user) }
    }

    /// With these of its recipients.
    pub(super) fn envelope<'a>(
        &self,
        recipients: impl Iterator<Item = &'a RecipientRecord>,
    ) -> Result<Envelope, RecordDamage> {
        let parse = |text: &str| Mailbox::parse(text).map_err(|error| RecordDamage::Unreadable(error.to_string()));
        let sender = self.sender.as_deref().map_or(Ok(ReversePath::Null), |text| parse(text).map(ReversePath::Mailbox));
        let mut envelope = Envelope::new(sender?);
        envelope.body = if self.eight_bit { BodyType::EightBitMime } else { BodyType::SevenBit };
        envelope.smtputf8 = self.smtputf8;
        for recipient in recipients {
            envelope.add_recipient(parse(&recipient.address)?);
        }
        Ok(envelope)
    }

    pub(super) fn sender_domain(&self) -> String {
        domain_of(self.sender.as_deref())
    }

    /// Recipients on this lane that are to be sent.
    pub(super) fn open_on<'a>(&'a self, lane: &'a str) -> impl Iterator<Item = &'a RecipientRecord> {
        self.recipients.iter().filter(move |recipient| recipient.failed_at.is_none() && recipient.lane == lane)
    }

    pub(super) fn is_leased(&self) -> bool {
        self.jobs.values().any(|job| job.state.is_leased())
    }

    /// What it contributes to the number of recipients by state and lane, as `<state>:<lane>`.
    pub(super) fn tally(&self) -> BTreeMap<String, i64> {
        let mut tally = BTreeMap::new();
        for recipient in &self.recipients {
            let (suspension, lane) = Suspension::split(&recipient.lane);
            let state = match self.jobs.get(&recipient.lane).map(|job| &job.state) {
                _ if recipient.failed_at.is_some() => "failed",
                Some(JobState::Leased(_)) => "leased",
                Some(JobState::Waiting | JobState::TakenBack(_)) if suspension == Some(Suspension::Held) => "held",
                Some(JobState::Waiting | JobState::TakenBack(_)) => "waiting",
                Some(JobState::Damaged) | None => "damaged",
            };
            *tally.entry(format!("{state}:{lane}")).or_default() += 1;
        }
        tally
    }

    /// Lanes on which it waits or is leased; no suspended ones.
    pub(super) fn active_lanes(&self) -> BTreeSet<&str> {
        let is_active = |(lane, job): &(&String, &LaneJob)| {
            Suspension::split(lane).0.is_none() && (job.state.is_waiting() || job.state.is_leased())
        };
        self.jobs.iter().filter(is_active).map(|(lane, _)| lane.as_str()).collect()
    }

    /// What waits, by lane, with its due time.
    pub(super) fn waiting(&self) -> BTreeMap<&str, i64> {
        let waits = self.jobs.iter().filter(|(_, job)| job.state.is_waiting());
        waits.map(|(lane, job)| (lane.as_str(), job.due)).collect()
    }

    /// Its leases: the [`lease_member`] and the instance that holds it.
    pub(super) fn leases(&self) -> BTreeMap<String, &str> {
        let mut leases = BTreeMap::new();
        for (lane, job) in &self.jobs {
            if let JobState::Leased(lease) = &job.state {
                leases.insert(lease_member(self.id, lease.fence, lane), lease.instance.as_str());
            }
        }
        leases
    }

    /// The instance that sends it on this lane.
    pub(super) fn holder(&self, lane: &str) -> Option<&str> {
        match &self.jobs.get(lane)?.state {
            JobState::Leased(lease) => Some(&lease.instance),
            _ => None,
        }
    }

    /// When its first failed recipient failed.
    pub(super) fn first_failure(&self) -> Option<u64> {
        self.recipients.iter().filter_map(|recipient| recipient.failed_at).min()
    }

    /// The rows for these recipients, one for each distinct reply.
    pub(super) fn history(&self, delivered: &[(Delivered, String)], lived: u64) -> Vec<HistoryRecord> {
        let mut rows: Vec<HistoryRecord> = Vec::new();
        for (delivery, recipient) in delivered {
            match rows.last_mut() {
                Some(row) if row.delivery == *delivery => row.recipients.push(recipient.clone()),
                _ => rows.push(HistoryRecord {
                    id: self.id,
                    received_at: self.received_at,
                    sender: self.sender.clone(),
                    recipients: vec![recipient.clone()],
                    subject: self.subject.clone(),
                    size: self.size,
                    message_id: self.message_id.clone(),
                    delivery: delivery.clone(),
                    lived,
                }),
            }
        }
        rows
    }
}

/// Of header and body, in hexadecimal.
pub(super) fn content_digest(header: &[u8], body: &[u8]) -> String {
    super::layout::hexadecimal(&digest(&[header, body]))
}

fn digest(parts: &[&[u8]]) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref()[..DIGEST].to_vec()
}
