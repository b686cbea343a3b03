//! Moves messages to their lanes after the routes have changed, a few hundred at a time, while mail is accepted and
//! delivered. A lease that finds a message whose turn has not come yet moves it first, so this instance leases nothing on a
//! lane that is no longer its own.
//!
//! Every shard's control hash has `routes`, the fingerprint of the routes by which all its mail is on its lanes, or
//! `routing`, that of a reassignment under way. A put by other routes deletes both, and the reassignment begins again.

use super::commit::{COMMIT, Committed, RecordChange};
use super::layout::MessagePlace;
use super::layout::unique;
use super::record::{MessageRecord, RecipientRecord};
use super::store::{LaneMove, Loaded, NextRecord, RedisStore, of_damage, refused};
use crate::message::accepted::{Addressed, AskedHeader};
use crate::queue::{Cursor, LaneOf, QueueError, Reassigned, Suspension};
use crate::smtp::Mailbox;
use redis::cmd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Messages per step, and those of them that are changed at once.
const MESSAGES: usize = 500;
const AT_ONCE: usize = 50;
/// Before a reassignment begins again because another instance has other routes.
const PAUSE: Duration = Duration::from_secs(1);

impl MessageRecord {
    /// Puts recipients on the lanes that `lane_of` names. A suspended one stays suspended, and one whose address cannot be
    /// read stays where it is. Returns how many were moved.
    pub(super) fn reassign(&mut self, header: &[u8], lane_of: &LaneOf) -> u64 {
        let Ok(sender) = self.sender.as_deref().map(Mailbox::parse).transpose() else { return 0 };
        let (origin, marks) = (self.origin(), self.marks.clone());
        let header = AskedHeader::new(header);
        let to = |recipient: &RecipientRecord| {
            let (suspension, lane) = Suspension::split(&recipient.lane);
            let Ok(mailbox) = Mailbox::parse(&recipient.address) else { return recipient.lane.clone() };
            let addressed = Addressed {
                sender: sender.as_ref(),
                recipient: &mailbox,
                origin: &origin,
                marks: &marks,
                header: &header,
            };
            let to = lane_of(&addressed);
            match suspension {
                Some(suspension) if to.as_str() != lane => suspension.of(to.as_str()).to_string(),
                Some(_) => recipient.lane.clone(),
                None => to.to_string(),
            }
        };
        // The routes are asked before anything is changed.
        let lanes: Vec<String> = self.recipients.iter().map(to).collect();
        let positions: Vec<u32> = self.recipients.iter().map(|recipient| recipient.position).collect();
        self.move_recipients(|recipient| {
            let at = positions.iter().position(|position| *position == recipient.position);
            at.map_or_else(|| recipient.lane.clone(), |at| lanes[at].clone())
        })
    }
}

impl RecordChange<'_> {
    /// From now on some lanes may differ from what any routes say.
    pub(super) fn forget_routes(&mut self) {
        let control = self.layout.control(self.shard);
        for name in ["routes", "routing"] {
            self.step("unset").key(control.clone()).arg(name);
        }
    }
}

impl RedisStore {
    pub(super) async fn begin_reassignment(
        &self,
        fingerprint: &str,
        lane_of: LaneOf,
    ) -> Result<Reassigned, QueueError> {
        *self.routes.lock() = Some(fingerprint.to_owned());
        // Set before the first await, so that leases made meanwhile check their mail in any case.
        *self.reassignment.lock() = Some(LaneMove { lane_of: lane_of.clone(), done: i64::MIN, last: i64::MAX });
        let mut is_done = true;
        for shard in self.layout.all_shards() {
            is_done &= self.control_text(shard, "routes").await?.as_deref() == Some(fingerprint);
        }
        if is_done {
            *self.reassignment.lock() = None;
            self.learn_epoch(0).await?;
            return Ok(Reassigned { moved: 0, next: None });
        }
        let last = self.last_position().await?;
        *self.reassignment.lock() = Some(LaneMove { lane_of, done: i64::MIN, last });
        let mut epoch = 0;
        for shard in self.layout.all_shards() {
            epoch = epoch.max(self.counter(shard, "epoch").await? + 1);
        }
        for shard in self.layout.all_shards() {
            let control = self.layout.control(shard);
            let mut change = RecordChange::new(&self.layout, shard);
            change.step("unset").key(control.clone()).arg("routes");
            change.step("set").key(control).arg(2).arg("routing").arg(fingerprint).arg("epoch").arg(epoch);
            self.link.commit(COMMIT, &change).await?;
        }
        self.epoch.store(epoch.unsigned_abs(), Ordering::Relaxed);
        Ok(Reassigned { moved: 0, next: Some(Cursor(i64::MIN)) })
    }

    pub(super) async fn go_on_reassigning(
        &self,
        fingerprint: &str,
        lane_of: LaneOf,
        Cursor(done): Cursor,
    ) -> Result<Reassigned, QueueError> {
        let Some(last) = self.reassignment.lock().as_ref().map(|reassignment| reassignment.last) else {
            return Ok(Reassigned { moved: 0, next: None });
        };
        let page = self.page(Some(done).filter(|done| *done != i64::MIN), MESSAGES).await?;
        let is_full = page.len() == MESSAGES;
        let found: Vec<(i64, MessagePlace)> = page.into_iter().filter(|(order, _)| *order <= last).collect();
        let mut moved = 0;
        for shard in self.layout.all_shards() {
            let places: Vec<MessagePlace> =
                found.iter().map(|(_, place)| *place).filter(|place| place.shard == shard).collect();
            for places in places.chunks(AT_ONCE) {
                moved += self.reassign_some(shard, places, &lane_of).await?;
            }
        }
        let behind = found.last().map(|(order, _)| *order).filter(|order| is_full && *order < last);
        if let Some(behind) = behind {
            if let Some(current) = self.reassignment.lock().as_mut() {
                current.done = behind;
            }
            return Ok(Reassigned { moved, next: Some(Cursor(behind)) });
        }
        if self.complete(fingerprint).await? {
            *self.reassignment.lock() = None;
            return Ok(Reassigned { moved, next: None });
        }
        tracing::warn!(
            "another gateway stores mail by other routes in the same queue: waiting mail is put on its lanes again; give all of \
             them the same configuration"
        );
        tokio::time::sleep(PAUSE).await;
        let next = self.begin_reassignment(fingerprint, lane_of).await?.next;
        Ok(Reassigned { moved, next })
    }

    /// All in one step, or, if one of them has changed meanwhile, one by one.
    async fn reassign_some(&self, shard: u16, places: &[MessagePlace], lane_of: &LaneOf) -> Result<u64, QueueError> {
        let ids: Vec<_> = places.iter().map(|place| place.id).collect();
        let loaded = self.load(shard, &ids).await?;
        let headers = self.headers(places).await?;
        let mut changes = Vec::new();
        for (loaded, header) in loaded.into_iter().zip(headers) {
            // An unreadable message is set aside when it is leased.
            let Some(Loaded { place, version, record: Ok(record), .. }) = loaded else { continue };
            let mut after = record.clone();
            let moved = after.reassign(&header, lane_of);
            if moved > 0 {
                changes.push((place, version, record, after, moved, header));
            }
        }
        let token = unique();
        let mut change = RecordChange::new(&self.layout, shard);
        for (place, version, ..) in &changes {
            change.if_version(*place, *version);
        }
        for (place, version, before, after, ..) in &changes {
            change.write(*place, Some(before), after, (version + 1, &token, self.lease_length)).map_err(of_damage)?;
        }
        if changes.is_empty() {
            return Ok(0);
        }
        match self.link.commit(COMMIT, &change).await? {
            Committed::Done(_) => Ok(changes.iter().map(|(.., moved, _)| moved).sum()),
            Committed::Changed => {
                let mut moved = 0;
                for (place, .., header) in &changes {
                    moved += self.reassign_one(*place, header, lane_of).await?;
                }
                Ok(moved)
            }
            other => Err(refused(&other)),
        }
    }

    async fn reassign_one(&self, place: MessagePlace, header: &[u8], lane_of: &LaneOf) -> Result<u64, QueueError> {
        let make = |mut record: MessageRecord| {
            let moved = record.reassign(header, lane_of);
            (moved > 0).then_some(NextRecord { record, answer: moved })
        };
        Ok(self.change(place, make, |_, _| {}).await?.unwrap_or(0))
    }

    /// False: mail was stored by other routes meanwhile.
    async fn complete(&self, fingerprint: &str) -> Result<bool, QueueError> {
        for shard in self.layout.all_shards() {
            let control = self.layout.control(shard);
            let mut change = RecordChange::new(&self.layout, shard);
            change.step("routed").arg(fingerprint);
            change.step("set").key(control.clone()).arg(1).arg("routes").arg(fingerprint);
            change.step("unset").key(control).arg("routing");
            match self.link.commit(COMMIT, &change).await? {
                Committed::Done(_) => {}
                Committed::Changed => return Ok(false),
                other => return Err(refused(&other)),
            }
        }
        Ok(true)
    }

    /// Moves a message that is about to be leased to its lanes if it may not be there yet; true if a recipient was moved.
    /// `order`: its position in the order of acceptance.
    pub(super) async fn is_moved(
        &self,
        place: MessagePlace,
        order: i64,
        record: &MessageRecord,
    ) -> Result<bool, QueueError> {
        let Some(LaneMove { lane_of, done, last }) = self.reassignment.lock().clone() else { return Ok(false) };
        if order <= done || order > last {
            return Ok(false);
        }
        let header = self.headers(&[place]).await?.pop().unwrap_or_default();
        // A panic in the routes holds no mail back: the message stays where it is, and the delivery attempt chooses its route or
        // reports the fault.
        let asked = catch_unwind(AssertUnwindSafe(|| record.clone().reassign(&header, &lane_of)));
        if asked.unwrap_or(0) == 0 {
            return Ok(false);
        }
        self.reassign_one(place, &header, &lane_of).await?;
        Ok(true)
    }

    /// Another instance has begun a reassignment.
    pub(super) async fn learn_epoch(&self, shard: u16) -> Result<(), QueueError> {
        let epoch = self.counter(shard, "epoch").await?;
        self.epoch.store(epoch.unsigned_abs(), Ordering::Relaxed);
        Ok(())
    }

    /// Of the newest message of all shards.
    async fn last_position(&self) -> Result<i64, QueueError> {
        let mut last = i64::MIN;
        for shard in self.layout.all_shards() {
            let mut command = cmd("ZREVRANGE");
            command.arg(self.layout.all(shard)).arg(0).arg(0).arg("WITHSCORES");
            let found =
                self.link.read(shard, vec![command]).await?.pop().map(super::answers::scored).unwrap_or_default();
            last = found.first().map_or(last, |(_, position)| last.max(*position));
        }
        Ok(last)
    }

    async fn control_text(&self, shard: u16, name: &str) -> Result<Option<String>, QueueError> {
        let mut command = cmd("HGET");
        command.arg(self.layout.control(shard)).arg(name);
        Ok(self.link.read(shard, vec![command]).await?.pop().and_then(super::answers::text))
    }
}
