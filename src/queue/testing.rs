//! An in-memory queue of rows, for tests of requests to an [`Operator`]: it keeps what it is given and accepts no mail.

use super::*;
use crate::message::accepted::Origin;
use crate::message::{Author, Envelope, MailId, Marks, RawMessage};
use crate::smtp::{Mailbox, ReversePath};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, HashMap};

#[derive(Debug, Default)]
pub struct MemoryQueue {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
pub struct Inner {
    pub messages: Vec<(Row, Bytes)>,
    /// The messages from before the rules, by id.
    pub originals: HashMap<String, Bytes>,
    pub history: Vec<HistoryRow>,
    pub held: Vec<HeldLane>,
    /// The ages of failed mail that `prune` received.
    pub pruned: Vec<Duration>,
    /// `stored` finds this message damaged.
    pub unreadable: Option<MailId>,
    /// Every call fails with this error.
    pub broken: Option<QueueError>,
}

/// A message with one recipient.
pub fn row(number: u32, state: RecipientState) -> Row {
    let received_at = Timestamp::from_second(1_795_000_000 + i64::from(number)).expect("in range");
    let waiting = state == RecipientState::Waiting;
    let recipient = RecipientRow {
        address: format!("r{number}@example.net"),
        state,
        lane: "default".into(),
        attempts: number % 5,
        due: waiting.then_some(received_at),
        delayed: false,
        instance: None,
        reason: (state == RecipientState::Failed)
            .then(|| "upstream \"company\", RCPT TO: 550 5.1.1 no such user".into()),
    };
    Row {
        id: MailId::new(received_at, number).to_string(),
        received_at,
        sender: "reports@example.com".into(),
        subject: format!("Report {number}"),
        size: 4_500,
        message_id: Some(format!("<report-{number}@example.com>")),
        recipients: vec![recipient],
        is_spooled: false,
    }
}

/// What `figures` must say of these rows, which are in the order of a list.
pub fn lane_counts<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<LaneCounts> {
    let mut lanes: BTreeMap<&str, LaneCounts> = BTreeMap::new();
    for (row, recipient) in
        rows.into_iter().flat_map(|row| row.recipients.iter().map(move |recipient| (row, recipient)))
    {
        let new = || LaneCounts { lane: recipient.lane.clone(), ..LaneCounts::default() };
        let lane = lanes.entry(&recipient.lane).or_insert_with(new);
        *match recipient.state {
            RecipientState::Waiting => &mut lane.waiting,
            RecipientState::Held => &mut lane.held,
            RecipientState::Leased => &mut lane.leased,
            RecipientState::Failed => &mut lane.failed,
            RecipientState::Damaged => &mut lane.damaged,
        } += 1;
        if matches!(recipient.state, RecipientState::Waiting | RecipientState::Leased) && !recipient.delayed {
            lane.oldest.get_or_insert(row.received_at);
        }
    }
    lanes.into_values().collect()
}

impl MemoryQueue {
    pub fn of(rows: impl IntoIterator<Item = Row>) -> Self {
        let queue = Self::default();
        queue.inner().messages =
            rows.into_iter().map(|row| (row, Bytes::from_static(b"A: 1\r\n\r\nbody\r\n"))).collect();
        queue
    }

    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    fn working(&self) -> Result<MutexGuard<'_, Inner>, QueueError> {
        let inner = self.inner();
        inner.broken.clone().map_or(Ok(inner), Err)
    }
}

fn matches(row: &Row, filter: &Filter) -> bool {
    let open = |recipient: &RecipientRow| {
        filter.state.is_none_or(|state| recipient.state == state)
            && filter.recipient.as_ref().is_none_or(|part| recipient.address.contains(part))
            && filter.upstream.as_ref().is_none_or(|lane| recipient.lane == *lane)
    };
    let is_named = |wanted: &String| is_message_id(row.message_id.as_deref(), wanted);
    row.recipients.iter().any(open)
        && filter.message_id.as_ref().is_none_or(is_named)
        && filter.received_before.is_none_or(|before| row.received_at < before)
}

#[async_trait]
impl Operator for MemoryQueue {
    async fn hold(&self, lane: Option<&Lane>, held: bool) -> Result<(), QueueError> {
        let lane = lane.map(ToString::to_string);
        let mut inner = self.working()?;
        inner.held.retain(|other| lane.is_some() && other.lane != lane);
        if held {
            inner.held.push(HeldLane { lane, except: Vec::new() });
        }
        Ok(())
    }

    async fn holds(&self) -> Result<Vec<HeldLane>, QueueError> {
        Ok(self.working()?.held.clone())
    }

    /// The cursor is the number of seconds of the last row.
    async fn list(&self, filter: &Filter, after: Option<Cursor>, limit: usize) -> Result<Page, QueueError> {
        let inner = self.working()?;
        let behind = |row: &&Row| after.is_none_or(|after| row.received_at.as_second() > after.0);
        let mut rows: Vec<Row> = inner
            .messages
            .iter()
            .map(|(row, _)| row)
            .filter(behind)
            .filter(|row| matches(row, filter))
            .cloned()
            .collect();
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|row| Cursor(row.received_at.as_second()));
        Ok(Page { rows, next })
    }

    async fn show(&self, id: MailId) -> Result<Option<MessageDetails>, QueueError> {
        let inner = self.working()?;
        let found = inner.messages.iter().find(|(row, _)| row.id == id.as_str());
        Ok(found.map(|(row, _)| MessageDetails {
            row: row.clone(),
            header: "A: 1\r\n".into(),
            attempts: Vec::new(),
            delivered: inner.history.iter().filter(|row| row.id == id.as_str()).cloned().collect(),
            has_original: false,
        }))
    }

    async fn content(&self, id: MailId) -> Result<Option<Bytes>, QueueError> {
        let inner = self.working()?;
        Ok(inner.messages.iter().find(|(row, _)| row.id == id.as_str()).map(|(_, content)| content.clone()))
    }

    async fn retry(&self, ids: &[MailId], correction: Option<&Correction>, now: Timestamp) -> Result<u64, QueueError> {
        let mut inner = self.working()?;
        let mut count = 0;
        for (row, _) in inner.messages.iter_mut().filter(|(row, _)| ids.iter().any(|id| row.id == id.as_str())) {
            for recipient in row.recipients.iter_mut().filter(|r| r.state != RecipientState::Leased) {
                (recipient.state, recipient.due) = (RecipientState::Waiting, Some(now));
                recipient.address =
                    correction.map_or(recipient.address.clone(), |correction| correction.to.to_string());
                count += 1;
            }
        }
        Ok(count)
    }

    async fn release(&self, ids: &[MailId]) -> Result<u64, QueueError> {
        let mut inner = self.working()?;
        let mut count = 0;
        for (row, _) in inner.messages.iter_mut().filter(|(row, _)| ids.iter().any(|id| row.id == id.as_str())) {
            for recipient in row.recipients.iter_mut().filter(|r| r.state == RecipientState::Held) {
                recipient.state = RecipientState::Waiting;
                count += 1;
            }
        }
        Ok(count)
    }

    async fn stored(&self, id: MailId) -> Result<Option<StoredMail>, QueueError> {
        let inner = self.working()?;
        let Some((row, content)) = inner.messages.iter().find(|(row, _)| row.id == id.as_str()) else {
            return Ok(None);
        };
        if inner.unreadable == Some(id) {
            return Err(QueueError::Storage("damaged".into()));
        }
        let path = Mailbox::parse(&row.sender).map_or(ReversePath::Null, ReversePath::Mailbox);
        let mut envelope = Envelope::new(path);
        let addresses = row.recipients.iter().filter_map(|recipient| Mailbox::parse(&recipient.address).ok());
        addresses.for_each(|address| envelope.add_recipient(address));
        let message = RawMessage::from_data(content.clone()).map_err(|error| QueueError::Storage(error.to_string()))?;
        let author = Author::of(&message).ok();
        let origin = Origin::default();
        let marks = Marks::default();
        let received_at = row.received_at;
        let accepted = Accepted { id, received_at, origin, envelope, message, author, marks };
        Ok(Some(StoredMail { accepted, original: inner.originals.get(&row.id).cloned() }))
    }

    async fn replace(&self, revision: Revision, now: Timestamp) -> Result<bool, QueueError> {
        let mut inner = self.working()?;
        let inner = &mut *inner;
        let Some((row, content)) = inner.messages.iter_mut().find(|(row, _)| row.id == revision.id.as_str()) else {
            return Ok(false);
        };
        if row.recipients.iter().any(|recipient| recipient.state == RecipientState::Leased) {
            return Ok(false);
        }
        let body = RawMessage::from_data(content.clone()).map(|message| message.body().clone()).unwrap_or_default();
        *content = RawMessage::from_parts(revision.header, body).to_bytes().into();
        (row.sender, row.subject) = (revision.envelope.sender.to_string(), revision.subject);
        let lanes = revision.envelope.recipients.iter().zip(revision.lanes);
        let recipient = |(address, lane): (&Mailbox, Lane)| RecipientRow {
            address: address.to_string(),
            state: RecipientState::Waiting,
            lane: lane.to_string(),
            attempts: 0,
            due: Some(now),
            reason: None,
            delayed: false,
            instance: None,
        };
        row.recipients = lanes.map(recipient).collect();
        let id = row.id.clone();
        match revision.original {
            Some(original) => inner.originals.insert(id, original),
            None => inner.originals.remove(&id),
        };
        Ok(true)
    }

    async fn remove(&self, ids: &[MailId]) -> Result<u64, QueueError> {
        let mut inner = self.working()?;
        let before = inner.messages.len();
        inner.messages.retain(|(row, _)| !ids.iter().any(|id| row.id == id.as_str()));
        Ok((before - inner.messages.len()) as u64)
    }

    async fn history(&self, before: Option<Cursor>, limit: usize) -> Result<Vec<HistoryRow>, QueueError> {
        let inner = self.working()?;
        let older = |row: &&HistoryRow| before.is_none_or(|before| row.cursor.0 < before.0);
        let mut rows: Vec<_> = inner.history.iter().filter(older).cloned().collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.cursor.0));
        rows.truncate(limit);
        Ok(rows)
    }

    async fn prune(&self, failed: Duration, _: Duration) -> Result<u64, QueueError> {
        self.inner().pruned.push(failed);
        Ok(0)
    }

    async fn count_waiting(&self, lane: &Lane, after: Option<Timestamp>, most: u64) -> Result<u64, QueueError> {
        let inner = self.working()?;
        let is_late = |due: Option<Timestamp>| after.is_none_or(|after| due.is_some_and(|due| due > after));
        let waits = |recipient: &RecipientRow| {
            recipient.state == RecipientState::Waiting && recipient.lane == lane.as_str() && is_late(recipient.due)
        };
        let count = inner.messages.iter().filter(|(row, _)| row.recipients.iter().any(waits)).count();
        Ok((count as u64).min(most))
    }

    async fn figures(&self) -> Result<QueueFigures, QueueError> {
        let inner = self.working()?;
        Ok(QueueFigures { lanes: lane_counts(inner.messages.iter().map(|(row, _)| row)), octets: 0 })
    }

    async fn statistics(&self) -> Result<Statistics, QueueError> {
        let mut counts = Statistics::default();
        for recipient in self.working()?.messages.iter().flat_map(|(row, _)| &row.recipients) {
            *match recipient.state {
                RecipientState::Waiting | RecipientState::Held => &mut counts.waiting,
                RecipientState::Leased => &mut counts.leased,
                RecipientState::Failed => &mut counts.failed,
                RecipientState::Damaged => &mut counts.damaged,
            } += 1;
        }
        Ok(counts)
    }
}
