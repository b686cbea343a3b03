//! Stores one message in one step: with its record, its text and its indexes, unless its key is known. A put whose answer is
//! lost is repeated until it is known what became of it; if that takes too long it is revoked.

use super::bodies;
use super::commit::{Committed, PUT, RecordChange, StoredContent};
use super::journal::JournalEntry;
use super::known::AcceptedCount;
use super::layout::{MessagePlace, hexadecimal, unique};
use super::lease::{FencedLease, InstanceLease};
use super::node::CallError;
use super::record::LeaseRecord;
use super::store::{RedisStore, of_damage, refused};
use super::transitions::NewRecord;
use crate::message::MailId;
use crate::queue::{Lane, NewMail, QueueError};
use bytes::Bytes;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use tracing::warn;

/// Pause before a put is repeated.
pub(super) const A_MOMENT: Duration = Duration::from_millis(20);

/// What a put did.
#[derive(Debug)]
pub(super) enum PutResult {
    /// Nothing: this message has its key.
    Known(MailId),
    Waiting,
    /// It is leased for the delivery loop that waits for it.
    Leased(Box<InstanceLease>),
}

/// A put that can be made several times.
struct PreparedPut<'a> {
    mail: &'a NewMail,
    content: StoredContent,
    place: MessagePlace,
    token: String,
    lived: u64,
    is_once: bool,
    new: NewRecord,
}

impl RedisStore {
    /// `is_once`: unless its key is known. `is_awaited`: a delivery loop can begin it at once; the caller hands it over.
    pub(super) async fn put(&self, mail: &NewMail, is_once: bool, is_awaited: bool) -> Result<PutResult, QueueError> {
        self.begun().await?;
        let lived = self.lived();
        let new = NewRecord::of(mail, lived, |at| self.times.to_server(at))?;
        let message = &mail.accepted.message;
        let content = StoredContent {
            header: Bytes::copy_from_slice(message.header()),
            body: bodies::pack(message.body()).await?,
            original: match &mail.original {
                Some(original) => Some(bodies::pack(original).await?),
                None => None,
            },
        };
        let octets = (content.header.len() + content.body.len()) as u64;
        self.memory.admit(octets)?;
        self.keep_lifetime(false).await?;
        let key = mail.deduplication.as_ref().map(|deduplication| deduplication.key);
        let id = mail.accepted.id;
        let place = MessagePlace { shard: self.layout.shard_of(id, key), id };
        let put = PreparedPut { mail, content, place, token: unique(), lived, is_once, new };
        // Mail that is being moved to other lanes may be older and come first.
        let awaited = mail.only_lane().filter(|_| is_awaited && self.reassignment.lock().is_none());
        self.unanswered.lock().insert(id);
        let stored = self.put_somehow(&put, awaited).await;
        match &stored {
            // The caller stores it in the spool.
            Err(PutError::GivenUp(QueueError::Away(_))) if self.has_spool => drop(self.unanswered.lock().remove(&id)),
            // Nobody may lease here what a client was told is not stored, until Redis knows it, too.
            Err(PutError::GivenUp(_)) if self.revoke(&put).is_err() => {}
            _ => drop(self.unanswered.lock().remove(&id)),
        }
        self.memory.add(octets);
        stored.map_err(|(PutError::Refused(error) | PutError::GivenUp(error))| error)
    }

    async fn put_somehow(&self, put: &PreparedPut<'_>, awaited: Option<&Lane>) -> Result<PutResult, PutError> {
        if let Some(lane) = awaited
            && let Some(stored) = self.put_leased(put, lane).await?
        {
            return Ok(stored);
        }
        let stored =
            self.make(put, |is_repeated| self.change_of(put, &put.new, None, is_repeated), || PutResult::Waiting);
        Ok(stored.await?.unwrap_or(PutResult::Waiting))
    }

    /// `None`: the lane is held.
    async fn put_leased(&self, put: &PreparedPut<'_>, lane: &Lane) -> Result<Option<PutResult>, PutError> {
        let lease = LeaseRecord { fence: 1, instance: self.instance.clone() };
        let mut new = put.new.clone();
        if !new.record.lease(lane.as_str(), lease) {
            return Ok(None);
        }
        let ends = Instant::now() + self.lease_length;
        let leased = || {
            let positions = new.record.recipients.iter().map(|recipient| recipient.position).collect();
            let held = FencedLease { place: put.place, lane: lane.to_string(), fence: 1, positions, token: unique() };
            PutResult::Leased(Box::new(InstanceLease { held, record: new.record.clone(), is_unsure: false, ends }))
        };
        self.make(put, |is_repeated| self.change_of(put, &new, Some(lane), is_repeated), leased).await
    }

    fn change_of(
        &self,
        put: &PreparedPut<'_>,
        new: &NewRecord,
        unheld: Option<&Lane>,
        is_repeated: bool,
    ) -> Result<RecordChange<'_>, QueueError> {
        let PreparedPut { mail, place, token, lived, .. } = put;
        let mut change = RecordChange::new(&self.layout, place.shard);
        if is_repeated {
            change.if_undelivered(place.id);
        }
        if let Some(deduplication) = mail.deduplication.as_ref().filter(|_| put.is_once) {
            change.if_unknown(deduplication.key, *lived, place.id);
        }
        change.if_absent(*place, token);
        if let Some(lane) = unheld {
            change.if_unheld(lane.as_str());
        }
        if !new.is_done() {
            change.write(*place, None, &new.record, (1, token, self.lease_length)).map_err(of_damage)?;
            change.write_content(*place, &new.record, put.content.clone(), token);
        }
        change.write_history(&new.record.history(&new.delivered, *lived));
        if let Some(deduplication) = &mail.deduplication {
            let until = u64::try_from(deduplication.window.as_millis()).unwrap_or(u64::MAX).saturating_add(*lived);
            change.remember(deduplication.key, place.id, until);
        }
        if let Some(routes) = self.routes.lock().as_deref() {
            change.step("routes").arg(routes);
        }
        if unheld.is_none() {
            for lane in mail.waiting_lanes() {
                change.tell(&format!("{} {lane}", self.instance));
            }
        }
        change.step("accept").arg(&self.instance);
        Ok(change)
    }

    /// `None`: the lane is held.
    async fn make<'a>(
        &'a self,
        put: &PreparedPut<'_>,
        change: impl Fn(bool) -> Result<RecordChange<'a>, QueueError>,
        stored: impl Fn() -> PutResult,
    ) -> Result<Option<PutResult>, PutError> {
        let asked = Instant::now();
        let mut is_repeated = false;
        loop {
            let change = change(is_repeated).map_err(PutError::Refused)?;
            let error = match self.link.commit(PUT, &change).await {
                Ok(Committed::Done(answers)) => {
                    self.learn_accepted(put.place.shard, &answers);
                    return Ok(Some(stored()));
                }
                Ok(Committed::Stored) => return Ok(Some(stored())),
                Ok(Committed::Known(first)) => return Ok(Some(PutResult::Known(first))),
                Ok(Committed::Held) => return Ok(None),
                Ok(Committed::Taken) => QueueError::Storage(format!("the id {} is in use", put.place.id)),
                Ok(other) => refused(&other),
                Err(error) => {
                    is_repeated |= matches!(error, CallError::Unanswered(_));
                    if is_repeated && asked.elapsed() < self.put_patience && !self.link.is_closed() {
                        sleep(A_MOMENT).await;
                        continue;
                    }
                    error.into()
                }
            };
            return Err(if is_repeated { PutError::GivenUp(error) } else { PutError::Refused(error) });
        }
    }

    /// `answers`: of a change that stored a message.
    pub(super) fn learn_accepted(&self, shard: u16, answers: &[Option<Bytes>]) {
        let mut counts = answers.iter().flatten().map(|count| parsed(count));
        let (all, own) = (counts.next().unwrap_or_default(), counts.next().unwrap_or_default());
        self.link.known.learn_accepted(shard, AcceptedCount { all, own });
    }

    /// Whatever was stored of it is removed as soon as Redis can be told, before anything else is leased here.
    fn revoke(&self, put: &PreparedPut<'_>) -> std::io::Result<()> {
        let MessagePlace { shard, id } = put.place;
        warn!(%id, "a message was refused, and nobody knows whether Redis stored it; it is removed when Redis answers");
        let key = put.mail.deduplication.as_ref().map(|deduplication| hexadecimal(&deduplication.key.0));
        self.journal.add(JournalEntry::Revoked { shard, id, key })
    }
}

enum PutError {
    /// It is not stored.
    Refused(QueueError),
    /// It may be stored.
    GivenUp(QueueError),
}

fn parsed(count: &[u8]) -> u64 {
    std::str::from_utf8(count).ok().and_then(|count| count.parse().ok()).unwrap_or_default()
}
