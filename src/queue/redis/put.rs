//! Stores one message in one step: with its record, its text and its indexes, unless its key is known.

use super::bodies;
use super::commit::{Committed, PUT, RecordChange, StoredContent};
use super::layout::MessagePlace;
use super::link::CallError;
use super::record::LeaseRecord;
use super::store::{InstanceLease, RedisStore, of_damage, refused, token};
use super::transitions::NewRecord;
use crate::message::MailId;
use crate::queue::{Lane, NewMail, QueueError};
use bytes::Bytes;

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
    place: MessagePlace,
    token: String,
    lived: u64,
    is_once: bool,
    new: NewRecord,
}

impl RedisStore {
    /// `is_once`: unless its key is known. `is_awaited`: a delivery loop can begin it at once; the caller hands it over.
    pub(super) async fn put(&self, mail: &NewMail, is_once: bool, is_awaited: bool) -> Result<PutResult, QueueError> {
        self.keep_lifetime(false).await?;
        let lived = self.lived();
        let new = NewRecord::of(mail, lived, |at| self.times.to_server(at))?;
        let key = mail.deduplication.as_ref().map(|deduplication| deduplication.key);
        let id = mail.accepted.id;
        let place = MessagePlace { shard: self.layout.shard_of(id, key), id };
        let put = PreparedPut { mail, place, token: token(), lived, is_once, new };
        // Mail that is being moved to other lanes may be older and come first.
        let awaited = mail.only_lane().filter(|_| is_awaited && self.reassignment.lock().is_none());
        if let Some(lane) = awaited
            && let Some(stored) = self.put_leased(&put, lane).await?
        {
            return Ok(stored);
        }
        let change = self.change_of(&put, &put.new)?;
        self.make(&put, &change, || PutResult::Waiting).await.map(|stored| stored.unwrap_or(PutResult::Waiting))
    }

    /// `None`: the lane is held.
    async fn put_leased(&self, put: &PreparedPut<'_>, lane: &Lane) -> Result<Option<PutResult>, QueueError> {
        let lease = LeaseRecord { fence: 1, instance: self.instance.clone() };
        let mut new = put.new.clone();
        if !new.record.lease(lane.as_str(), lease) {
            return Ok(None);
        }
        let mut change = RecordChange::new(&self.layout, put.place.shard);
        change.if_unheld(lane.as_str());
        let rest = self.change_of(put, &new)?;
        // Steps name keys by their position, and the control hash is the first of both.
        change.keys = rest.keys;
        change.steps.extend(rest.steps);
        let leased = || {
            let positions = new.record.recipients.iter().map(|recipient| recipient.position).collect();
            let lane = lane.to_string();
            let record = new.record.clone();
            let (place, token) = (put.place, token());
            PutResult::Leased(Box::new(InstanceLease {
                place,
                lane,
                fence: 1,
                positions,
                record,
                token,
                is_unsure: false,
            }))
        };
        self.make(put, &change, leased).await
    }

    fn change_of(&self, put: &PreparedPut<'_>, new: &NewRecord) -> Result<RecordChange<'_>, QueueError> {
        let PreparedPut { mail, place, token, lived, .. } = put;
        let mut change = RecordChange::new(&self.layout, place.shard);
        if let Some(deduplication) = mail.deduplication.as_ref().filter(|_| put.is_once) {
            change.if_unknown(deduplication.key, *lived, place.id);
        }
        change.if_absent(*place, token);
        if !new.is_done() {
            change.write(*place, None, &new.record, (1, token, self.lease_length)).map_err(of_damage)?;
            let message = &mail.accepted.message;
            let content = StoredContent {
                header: Bytes::copy_from_slice(message.header()),
                body: bodies::pack(message.body()),
                original: mail.original.as_ref().map(bodies::pack),
            };
            change.write_content(*place, &new.record, content, token);
        }
        change.write_history(&new.record.history(&new.delivered, *lived));
        if let Some(deduplication) = &mail.deduplication {
            let until = u64::try_from(deduplication.window.as_millis()).unwrap_or(u64::MAX).saturating_add(*lived);
            change.remember(deduplication.key, place.id, until);
        }
        if let Some(routes) = self.routes.lock().as_deref() {
            change.step("routes").arg(routes);
        }
        change.step("accept");
        Ok(change)
    }

    /// `None`: the lane is held.
    async fn make(
        &self,
        put: &PreparedPut<'_>,
        change: &RecordChange<'_>,
        stored: impl Fn() -> PutResult,
    ) -> Result<Option<PutResult>, QueueError> {
        match self.link.commit(PUT, change).await {
            Ok(Committed::Done(_) | Committed::Stored) => Ok(Some(stored())),
            Ok(Committed::Known(first)) => Ok(Some(PutResult::Known(first))),
            Ok(Committed::Held) => Ok(None),
            Ok(Committed::Taken) => Err(QueueError::Storage(format!("the id {} is in use", put.place.id))),
            Ok(other) => Err(refused(&other)),
            Err(CallError::NotDone(error)) => Err(error),
            Err(CallError::Unanswered(reason)) => Err(QueueError::Storage(reason)),
        }
    }
}
