//! Whole messages, with their text: to be read by an operator, or replaced by another form of themselves.

use super::answers::{list, number, octets};
use super::bodies;
use super::commit::{COMMIT, Committed, RecordChange};
use super::layout::MessagePlace;
use super::record::{MessageRecord, RecipientRecord, content_digest};
use super::store::{NextRecord, RedisStore, refused};
use crate::message::accepted::Accepted;
use crate::message::{Author, MailId, RawMessage, message_id};
use crate::queue::{QueueError, Revision, StoredMail};
use bytes::Bytes;
use jiff::Timestamp;
use redis::cmd;

/// In octets, once it is unpacked; far above what a listener accepts.
const MAX_ORIGINAL: u64 = 1 << 30;

/// A message as it is stored, with its text.
#[derive(Debug)]
pub(super) struct WholeMessage {
    pub place: MessagePlace,
    pub record: MessageRecord,
    pub header: Bytes,
    pub body: Bytes,
    pub original: Option<Bytes>,
}

impl WholeMessage {
    pub(super) fn message(&self) -> RawMessage {
        RawMessage::from_parts(self.header.to_vec(), self.body.clone())
    }
}

impl RedisStore {
    /// `None`: it does not exist (any more). An error if any part of it is not what was stored.
    pub(super) async fn whole(&self, id: MailId) -> Result<Option<WholeMessage>, QueueError> {
        let Some(place) = self.find(id).await? else { return Ok(None) };
        let mut command = cmd("HMGET");
        // In one command, so that all parts are of one form.
        command.arg(self.layout.message(place)).arg("v").arg("rec").arg("head").arg("body").arg("orig");
        let mut fields =
            self.link.read(place.shard, vec![command]).await?.pop().map(list).unwrap_or_default().into_iter();
        let Some(_version) = fields.next().and_then(number::<u64>) else { return Ok(None) };
        let damaged = |reason: &dyn std::fmt::Display| QueueError::Storage(format!("{id} is damaged: {reason}"));
        let mut next = || fields.next().and_then(octets);
        let [record, header, body, original] = [next(), next(), next(), next()];
        let record = MessageRecord::decode(&record.unwrap_or_default()).map_err(|damage| damaged(&damage))?;
        let (Some(header), Some(body)) = (header, body) else { return Err(damaged(&"its content is missing")) };
        let body = bodies::unpack(&body, record.size).map_err(|damage| damaged(&damage))?;
        if content_digest(&header, &body) != record.digest {
            return Err(damaged(&"its content is not what was stored"));
        }
        let original = original
            .map(|original| bodies::unpack(&original, MAX_ORIGINAL))
            .transpose()
            .map_err(|damage| damaged(&damage))?;
        Ok(Some(WholeMessage { place, record, header, body, original }))
    }

    pub(super) async fn stored(&self, id: MailId) -> Result<Option<StoredMail>, QueueError> {
        let Some(whole) = self.whole(id).await? else { return Ok(None) };
        let record = &whole.record;
        let envelope = record.envelope(record.recipients.iter());
        let envelope = envelope.map_err(|damage| QueueError::Storage(format!("{id} is damaged: {damage}")))?;
        let message = whole.message();
        let author = Author::of(&message).ok();
        let (origin, marks) = (record.origin(), record.marks.clone());
        let accepted = Accepted { id, received_at: record.received_at, origin, envelope, message, author, marks };
        Ok(Some(StoredMail { accepted, original: whole.original }))
    }

    /// Empty if the message does not exist.
    pub(super) async fn header(&self, id: MailId) -> Result<Vec<u8>, QueueError> {
        let Some(place) = self.find(id).await? else { return Ok(Vec::new()) };
        let found = self.headers(&[place]).await?.pop();
        Ok(found.unwrap_or_default())
    }

    /// Of messages in one shard, in this order; empty for one that does not exist.
    pub(super) async fn headers(&self, places: &[MessagePlace]) -> Result<Vec<Vec<u8>>, QueueError> {
        let Some(first) = places.first() else { return Ok(Vec::new()) };
        let command = |place: &MessagePlace| {
            let mut command = cmd("HGET");
            command.arg(self.layout.message(*place)).arg("head");
            command
        };
        let found = self.link.read(first.shard, places.iter().map(command).collect()).await?;
        Ok(found.into_iter().map(|value| octets(value).map(|header| header.to_vec()).unwrap_or_default()).collect())
    }

    pub(super) async fn replace(&self, revision: Revision, now: Timestamp) -> Result<bool, QueueError> {
        if revision.lanes.len() != revision.envelope.recipients.len() || revision.lanes.is_empty() {
            return Err(QueueError::Storage("a message needs recipients, and one lane for each".into()));
        }
        let Some(whole) = self.whole(revision.id).await? else { return Ok(false) };
        self.keep_lifetime(false).await?;
        let (lived, now) = (self.lived(), self.times.to_server(now));
        let message = RawMessage::from_parts(revision.header.clone(), whole.body.clone());
        let make = |record: MessageRecord| {
            let addresses = record.recipients.iter().map(|recipient| recipient.address.as_str());
            let is_as_it_was = addresses.eq(revision.replaces.iter().map(ToString::to_string).collect::<Vec<_>>());
            if !is_as_it_was || record.is_leased() {
                return None;
            }
            Some(NextRecord { record: record.revised(&revision, &message, now, lived), answer: () })
        };
        let place = whole.place;
        let header = Bytes::from(revision.header.clone());
        let original = match &revision.original {
            Some(original) => Some(bodies::pack(original).await?),
            None => None,
        };
        let more = |change: &mut RecordChange<'_>, (): &()| {
            let stored = change.layout.message(place);
            change.step("set").key(stored.clone()).arg(1).arg("head").octets(header.clone());
            match &original {
                Some(original) => change.step("set").key(stored).arg(1).arg("orig").octets(original.clone()),
                None => change.step("unset").key(stored).arg("orig"),
            };
        };
        Ok(self.change(place, make, more).await?.is_some())
    }

    /// Of a message whose record cannot be read, the lanes are not known: searches forget it there when they find it.
    pub(super) async fn remove_damaged(&self, place: MessagePlace, version: u64) -> Result<bool, QueueError> {
        let mut change = RecordChange::new(&self.layout, place.shard);
        change.if_version(place, version);
        change.step("delete").key(self.layout.message(place));
        for set in [self.layout.all(place.shard), self.layout.failed(place.shard)] {
            change.step("remove").key(set).arg(place.id);
        }
        match self.link.commit(COMMIT, &change).await? {
            Committed::Done(_) => Ok(true),
            Committed::Changed => Ok(false),
            other => Err(refused(&other)),
        }
    }
}

impl MessageRecord {
    /// Another form of it, due now; a new beginning for its recipients. What happened before stays on record.
    fn revised(self, revision: &Revision, message: &RawMessage, now: i64, lived: u64) -> Self {
        let Revision { envelope, lanes, header, marks, original, subject, .. } = revision;
        let failed_in_doubt = self.recipients.iter().any(|one| one.failed_at.is_some() && one.in_doubt);
        let possible_duplicate = failed_in_doubt || self.jobs.values().any(|job| job.possible_duplicate);
        let recipient =
            |(position, (address, lane)): (u32, (&crate::smtp::Mailbox, &crate::queue::Lane))| RecipientRecord {
                position,
                address: address.to_string(),
                lane: lane.to_string(),
                failed_at: None,
                attempts: 0,
                upstream: None,
                reason: None,
                in_doubt: false,
            };
        let mut revised = Self {
            sender: envelope.sender.mailbox().map(ToString::to_string),
            smtputf8: envelope.smtputf8,
            size: message.size() as u64,
            subject: subject.clone(),
            message_id: message_id(header),
            marks: marks.clone(),
            since: self.since.max(lived),
            recipients: (0..).zip(envelope.recipients.iter().zip(lanes)).map(recipient).collect(),
            jobs: std::collections::BTreeMap::new(),
            has_original: original.is_some(),
            digest: content_digest(header, message.body()),
            ..self
        };
        for lane in lanes {
            revised.wait_on(lane.as_str(), now, possible_duplicate);
        }
        revised
    }
}
