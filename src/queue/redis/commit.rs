//! `RecordChange`: one call of scripts/commit.lua, built step by step. Computes which indexes a message's record adds, moves and
//! removes, so that no caller does.

use super::layout::{Layout, MessagePlace};
use super::record::{HistoryRecord, MessageRecord, RecordDamage};
use crate::message::MailId;
use crate::queue::IdempotencyKey;
use bytes::Bytes;

/// Runs in a full Redis, too: what ends or moves mail must not fail there.
pub(super) const COMMIT: &str = concat!("#!lua flags=allow-oom\n", include_str!("scripts/commit.lua"));
/// The same for new mail, which a full Redis refuses before the first step.
pub(super) const PUT: &str = concat!("#!lua\n", include_str!("scripts/commit.lua"));

#[derive(Debug, Clone)]
pub(super) struct RecordChange<'a> {
    pub layout: &'a Layout,
    pub shard: u16,
    pub keys: Vec<String>,
    /// From the fourth argument of the script on.
    pub steps: Vec<Bytes>,
}

/// A message's text, to be stored with its record.
#[derive(Debug, Clone)]
pub(super) struct StoredContent {
    pub header: Bytes,
    /// As bodies.rs packs it.
    pub body: Bytes,
    pub original: Option<Bytes>,
}

/// How the script answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Committed {
    /// With the answers of the steps that have one.
    Done(Vec<Option<Bytes>>),
    /// The record is not the one that was read.
    Changed,
    /// This message was stored by the same put before.
    Stored,
    /// Another message has this id.
    Taken,
    /// The put was given up.
    Revoked,
    /// A message was stored under the key.
    Known(MailId),
    /// The lane is held.
    Held,
    /// The lanes are being reassigned by other routes than when the change was made.
    OtherEpoch,
    /// The lease runs.
    Running,
    /// The queue's identity is missing or is another one.
    OtherIdentity,
}

impl<'a> RecordChange<'a> {
    pub(super) fn new(layout: &'a Layout, shard: u16) -> Self {
        Self { layout, shard, keys: vec![layout.control(shard)], steps: Vec::new() }
    }

    pub(super) fn step(&mut self, name: &'static str) -> &mut Self {
        self.steps.push(Bytes::from_static(name.as_bytes()));
        self
    }

    pub(super) fn arg(&mut self, value: impl ToString) -> &mut Self {
        self.octets(value.to_string())
    }

    pub(super) fn octets(&mut self, value: impl Into<Bytes>) -> &mut Self {
        self.steps.push(value.into());
        self
    }

    pub(super) fn key(&mut self, key: String) -> &mut Self {
        let at = self.keys.iter().position(|known| *known == key).unwrap_or_else(|| {
            self.keys.push(key);
            self.keys.len() - 1
        });
        self.arg(at + 1)
    }

    // Conditions.

    pub(super) fn if_version(&mut self, place: MessagePlace, version: u64) -> &mut Self {
        let layout = self.layout;
        self.step("version").key(layout.message(place)).arg(version)
    }

    pub(super) fn if_unheld(&mut self, lane: &str) -> &mut Self {
        self.step("unheld").arg(lane)
    }

    pub(super) fn if_epoch(&mut self, epoch: u64) -> &mut Self {
        self.step("epoch").arg(epoch)
    }

    /// The lease is past its end or gone.
    pub(super) fn if_ended(&mut self, instance: &str, member: &str) -> &mut Self {
        let (layout, shard) = (self.layout, self.shard);
        self.step("ended").key(layout.leases(shard, instance)).arg(member)
    }

    /// `token` is unique to this put, so that it can be repeated if its answer is lost.
    pub(super) fn if_absent(&mut self, place: MessagePlace, token: &str) -> &mut Self {
        let (layout, shard) = (self.layout, self.shard);
        self.step("unrevoked").key(layout.revoked(shard)).arg(place.id);
        self.step("absent").key(layout.message(place)).arg(token)
    }

    /// For a put that is repeated: the message may be delivered already.
    pub(super) fn if_undelivered(&mut self, id: MailId) -> &mut Self {
        let (layout, shard) = (self.layout, self.shard);
        self.step("undelivered").key(layout.history_by_id(shard)).arg(id)
    }

    pub(super) fn if_unknown(&mut self, key: IdempotencyKey, lived: u64, own: MailId) -> &mut Self {
        let (layout, shard) = (self.layout, self.shard);
        let name = super::layout::hexadecimal(&key.0);
        self.step("unknown").key(layout.known_keys(shard)).arg(name).arg(lived).arg(own)
    }

    // Writes.

    /// Replaces a record, or makes one if `before` is `None`. It becomes this version. A record without recipients is
    /// deleted with everything of the message. `length`: of new leases.
    pub(super) fn write(
        &mut self,
        place: MessagePlace,
        before: Option<&MessageRecord>,
        after: &MessageRecord,
        (version, token, length): (u64, &str, std::time::Duration),
    ) -> Result<&mut Self, RecordDamage> {
        let (layout, shard) = (self.layout, self.shard);
        let message = layout.message(place);
        let is_gone = after.recipients.is_empty();
        if is_gone {
            self.step("delete").key(message);
            self.step("remove").key(layout.all(shard)).arg(place.id);
        } else {
            let record = after.encode()?;
            self.step("set").key(message).arg(3).arg("v").arg(version).arg("by").arg(token).arg("rec").octets(record);
        }
        self.index_waiting(place.id, before, after);
        self.index_leases(before, after, length);
        let failed = |record: &MessageRecord| record.first_failure();
        let (was, is) = (before.and_then(failed), failed(after));
        match is {
            Some(at) if was != is => drop(self.step("add").key(layout.failed(shard)).arg(at).arg(place.id)),
            None if was.is_some() => drop(self.step("remove").key(layout.failed(shard)).arg(place.id)),
            _ => {}
        }
        self.count(before, after);
        if before.is_some() {
            self.index_oldest(place, before, after);
        }
        Ok(self)
    }

    fn index_waiting(&mut self, id: MailId, before: Option<&MessageRecord>, after: &MessageRecord) {
        let (layout, shard) = (self.layout, self.shard);
        let (was, is) = (before.map(MessageRecord::waiting).unwrap_or_default(), after.waiting());
        let from = before.map(MessageRecord::sender_domain);
        let to = after.sender_domain();
        for lane in was.keys().filter(|lane| !is.contains_key(*lane) || from.as_ref() != Some(&to)) {
            self.unindex(lane, from.as_deref().unwrap_or_default(), id);
        }
        for (lane, due) in &is {
            if was.get(lane) == Some(due) && from.as_ref() == Some(&to) {
                continue;
            }
            self.step("add").key(layout.due(shard, lane)).arg(due).arg(id);
            self.step("add").key(layout.due_of_domain(shard, lane, &to)).arg(due).arg(id);
            self.turn(lane, &to);
        }
    }

    /// Takes a message out of the indexes of a lane.
    pub(super) fn unindex(&mut self, lane: &str, domain: &str, id: MailId) {
        let (layout, shard) = (self.layout, self.shard);
        self.step("remove").key(layout.due(shard, lane)).arg(id);
        self.step("remove").key(layout.due_of_domain(shard, lane, domain)).arg(id);
        self.turn(lane, domain);
    }

    fn turn(&mut self, lane: &str, domain: &str) {
        let (layout, shard) = (self.layout, self.shard);
        let (due, domains) = (layout.due_of_domain(shard, lane, domain), layout.domains(shard, lane));
        self.step("turn").key(due).key(domains).arg(domain);
    }

    fn index_leases(&mut self, before: Option<&MessageRecord>, after: &MessageRecord, length: std::time::Duration) {
        let (layout, shard) = (self.layout, self.shard);
        let (was, is) = (before.map(MessageRecord::leases).unwrap_or_default(), after.leases());
        for (member, instance) in was.iter().filter(|(member, _)| !is.contains_key(*member)) {
            self.step("remove").key(layout.leases(shard, instance)).arg(member);
        }
        for (member, instance) in is.iter().filter(|(member, _)| !was.contains_key(*member)) {
            self.step("lend").key(layout.leases(shard, instance)).arg(length.as_millis()).arg(member);
        }
    }

    fn count(&mut self, before: Option<&MessageRecord>, after: &MessageRecord) {
        let (layout, shard) = (self.layout, self.shard);
        let (was, mut is) = (before.map(MessageRecord::tally).unwrap_or_default(), after.tally());
        for (name, number) in was {
            *is.entry(name).or_default() -= number;
        }
        for (name, change) in is.into_iter().filter(|(_, change)| *change != 0) {
            self.step("count").key(layout.counts(shard)).arg(name).arg(change);
        }
        let octets = |record: &MessageRecord| if record.recipients.is_empty() { 0 } else { record.size.cast_signed() };
        let change = octets(after) - before.map_or(0, octets);
        if change != 0 {
            self.step("count").key(layout.control(shard)).arg("octets").arg(change);
        }
    }

    /// After its position is known.
    fn index_oldest(&mut self, place: MessagePlace, before: Option<&MessageRecord>, after: &MessageRecord) {
        let (layout, shard) = (self.layout, self.shard);
        let (was, is) = (before.map(MessageRecord::active_lanes).unwrap_or_default(), after.active_lanes());
        for lane in was.difference(&is) {
            self.step("remove").key(layout.oldest(shard, lane)).arg(place.id);
        }
        for lane in is.difference(&was) {
            self.step("place").key(layout.oldest(shard, lane)).key(layout.message(place)).arg(place.id);
        }
    }

    pub(super) fn write_content(
        &mut self,
        place: MessagePlace,
        record: &MessageRecord,
        content: StoredContent,
        token: &str,
    ) -> &mut Self {
        let (layout, shard) = (self.layout, self.shard);
        let message = layout.message(place);
        let count = 3 + usize::from(content.original.is_some());
        self.step("set").key(message.clone()).arg(count).arg("put").arg(token);
        self.arg("head").octets(content.header).arg("body").octets(content.body);
        if let Some(original) = content.original {
            self.arg("orig").octets(original);
        }
        self.step("order").key(layout.all(shard)).key(message).arg(place.id);
        self.index_oldest(place, None, record);
        self
    }

    pub(super) fn remember(&mut self, key: IdempotencyKey, id: MailId, until: u64) -> &mut Self {
        let (layout, shard) = (self.layout, self.shard);
        let (known, ends) = (layout.known_keys(shard), layout.known_until(shard));
        self.step("remember").key(known).key(ends).arg(super::layout::hexadecimal(&key.0)).arg(id).arg(until)
    }

    pub(super) fn write_history(&mut self, rows: &[HistoryRecord]) -> &mut Self {
        let (layout, shard) = (self.layout, self.shard);
        for row in rows {
            let json = serde_json::to_vec(row).unwrap_or_default();
            let (history, by_id) = (layout.history(shard), layout.history_by_id(shard));
            self.step("history").key(history).key(by_id).arg(row.id).octets(json);
        }
        self
    }

    /// Wakes other instances' loops of this lane.
    pub(super) fn tell(&mut self, message: &str) -> &mut Self {
        let layout = self.layout;
        self.step("tell").arg(layout.channel()).arg(message)
    }

    /// Answers with header and body.
    pub(super) fn content_of(&mut self, place: MessagePlace) -> &mut Self {
        let layout = self.layout;
        self.step("content").key(layout.message(place))
    }
}
