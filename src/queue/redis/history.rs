//! Delivered messages, and what is forgotten with time: failed mail, history, keys of submitted mail.

use super::answers::texts;
use super::commit::{COMMIT, RecordChange};
use super::layout::MessagePlace;
use super::record::{HistoryRecord, MessageRecord};
use super::store::{Loaded, NextRecord, RedisStore};
use crate::message::MailId;
use crate::queue::portable::PortableHistory;
use crate::queue::{Cursor, HistoryRow, QueueError};
use redis::cmd;
use std::time::Duration;

/// Rows that are looked at in one step.
const STEP: usize = 200;
/// In milliseconds of the queue's own clock.
const REVOKED_FOR: u64 = 3_600_000;

/// A row with its position and its member in the sorted set.
pub(super) struct HistoryMember {
    position: i64,
    member: String,
    record: HistoryRecord,
}

/// `<position> <row>`. An unreadable row is left out.
pub(super) fn parse(member: String) -> Option<HistoryMember> {
    let (position, json) = member.split_once(' ')?;
    let (position, record) = (position.parse().ok()?, serde_json::from_str(json).ok()?);
    Some(HistoryMember { position, member, record })
}

fn row_of(HistoryMember { position, record, .. }: HistoryMember) -> HistoryRow {
    HistoryRow {
        cursor: Cursor(position),
        id: record.id.to_string(),
        received_at: record.received_at,
        sender: record.sender.unwrap_or_default(),
        recipients: record.recipients,
        subject: record.subject,
        message_id: record.message_id,
        delivery: record.delivery,
    }
}

/// `lived`: the queue's own clock now.
pub(super) fn portable_of(HistoryMember { record, .. }: HistoryMember, lived: u64) -> PortableHistory {
    PortableHistory {
        id: record.id,
        received_at: record.received_at,
        sender: record.sender,
        recipients: record.recipients,
        subject: record.subject,
        size: record.size,
        message_id: record.message_id,
        delivery: record.delivery,
        ago: lived.saturating_sub(record.lived),
    }
}

impl RedisStore {
    pub(super) async fn history(&self, before: Option<Cursor>, limit: usize) -> Result<Vec<HistoryRow>, QueueError> {
        let end = before.map_or_else(|| "+inf".to_owned(), |Cursor(before)| format!("({before}"));
        let mut rows = Vec::new();
        for shard in self.layout.all_shards() {
            let mut command = cmd("ZREVRANGEBYSCORE");
            command.arg(self.layout.history(shard)).arg(&end).arg("-inf").arg("LIMIT").arg(0).arg(limit);
            let found = self.link.read(shard, vec![command]).await?.pop().map(texts).unwrap_or_default();
            rows.extend(found.into_iter().filter_map(parse).map(row_of));
        }
        rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.cursor.0));
        rows.truncate(limit);
        Ok(rows)
    }

    /// Of one message, oldest first, each row with the message's size.
    pub(super) async fn history_of(&self, id: MailId) -> Result<Vec<(HistoryRow, u64)>, QueueError> {
        let mut rows = Vec::new();
        for shard in self.layout.all_shards() {
            let mut names = cmd("ZRANGEBYLEX");
            names.arg(self.layout.history_by_id(shard)).arg(format!("[{id}:")).arg(format!("({id};"));
            let names = self.link.read(shard, vec![names]).await?.pop().map(texts).unwrap_or_default();
            let at = |name: &String| {
                let position = name.rsplit_once(':').map_or("0", |(_, position)| position);
                let mut command = cmd("ZRANGEBYSCORE");
                command.arg(self.layout.history(shard)).arg(position).arg(position);
                command
            };
            if names.is_empty() {
                continue;
            }
            let found = self.link.read(shard, names.iter().map(at).collect()).await?;
            rows.extend(found.into_iter().flat_map(texts).filter_map(parse));
        }
        rows.sort_unstable_by_key(|row| row.position);
        Ok(rows.into_iter().map(|row| (row.record.size, row)).map(|(size, row)| (row_of(row), size)).collect())
    }

    /// Deletes what is older by the queue's own clock; returns the number of rows.
    pub(super) async fn prune(&self, failed: Duration, history: Duration) -> Result<u64, QueueError> {
        // If Redis is full, some seconds of the clock are lost; that must not keep pruning from freeing memory.
        let _best_effort = self.keep_lifetime(true).await;
        let before = |age| u64::try_from(self.lifetime.before(age).as_millis()).unwrap_or(u64::MAX);
        let mut count = 0;
        for shard in self.layout.all_shards() {
            count += self.prune_failed(shard, before(failed)).await?;
            count += self.prune_history(shard, before(history)).await?;
            count += self.prune_known_keys(shard).await?;
            self.prune_revocations(shard).await?;
        }
        Ok(count)
    }

    async fn prune_failed(&self, shard: u16, before: u64) -> Result<u64, QueueError> {
        let mut count = 0;
        loop {
            let mut command = cmd("ZRANGEBYSCORE");
            command.arg(self.layout.failed(shard)).arg("-inf").arg(before).arg("LIMIT").arg(0).arg(STEP);
            let found = self.link.read(shard, vec![command]).await?.pop().map(texts).unwrap_or_default();
            let mut pruned = 0;
            for id in found.iter().filter_map(|id| id.parse().ok()) {
                pruned += self.prune_recipients(MessagePlace { shard, id }, before).await?;
            }
            count += pruned;
            if pruned == 0 {
                return Ok(count);
            }
        }
    }

    async fn prune_recipients(&self, place: MessagePlace, before: u64) -> Result<u64, QueueError> {
        let make = |mut record: MessageRecord| {
            let all = record.recipients.len();
            record.recipients.retain(|recipient| recipient.failed_at.is_none_or(|failed_at| failed_at > before));
            let removed = all - record.recipients.len();
            (removed > 0).then_some(NextRecord { record, answer: removed as u64 })
        };
        match self.load_one(place).await? {
            Some(Loaded { record: Ok(_), .. }) => Ok(self.change(place, make, |_, _| {}).await?.unwrap_or(0)),
            // A damaged one stays until an operator removes it.
            _ => Ok(0),
        }
    }

    async fn prune_history(&self, shard: u16, before: u64) -> Result<u64, QueueError> {
        let mut count = 0;
        loop {
            let mut command = cmd("ZRANGE");
            command.arg(self.layout.history(shard)).arg(0).arg(STEP - 1);
            let found = self.link.read(shard, vec![command]).await?.pop().map(texts).unwrap_or_default();
            let mut change = RecordChange::new(&self.layout, shard);
            let old: Vec<HistoryMember> =
                found.into_iter().filter_map(parse).take_while(|row| row.record.lived <= before).collect();
            for HistoryMember { position, member, record } in &old {
                change.step("remove").key(self.layout.history(shard)).arg(member);
                change.step("remove").key(self.layout.history_by_id(shard)).arg(format!("{}:{position}", record.id));
            }
            if old.is_empty() {
                return Ok(count);
            }
            self.link.commit(COMMIT, &change).await?;
            count += old.len() as u64;
        }
    }

    async fn prune_known_keys(&self, shard: u16) -> Result<u64, QueueError> {
        let lived = self.lived();
        let mut count = 0;
        loop {
            let mut command = cmd("ZRANGEBYSCORE");
            command.arg(self.layout.known_until(shard)).arg("-inf").arg(lived).arg("LIMIT").arg(0).arg(STEP);
            let found = self.link.read(shard, vec![command]).await?.pop().map(texts).unwrap_or_default();
            if found.is_empty() {
                return Ok(count);
            }
            let mut change = RecordChange::new(&self.layout, shard);
            for name in &found {
                let (known, ends) = (self.layout.known_keys(shard), self.layout.known_until(shard));
                change.step("expire").key(known).key(ends).arg(name).arg(lived);
            }
            self.link.commit(COMMIT, &change).await?;
            count += found.len() as u64;
        }
    }

    /// No put is repeated for that long.
    async fn prune_revocations(&self, shard: u16) -> Result<(), QueueError> {
        let before = self.lived().saturating_sub(REVOKED_FOR);
        let mut command = cmd("ZRANGEBYSCORE");
        command.arg(self.layout.revoked(shard)).arg("-inf").arg(before).arg("LIMIT").arg(0).arg(STEP);
        let found = self.link.read(shard, vec![command]).await?.pop().map(texts).unwrap_or_default();
        if found.is_empty() {
            return Ok(());
        }
        let mut change = RecordChange::new(&self.layout, shard);
        for id in &found {
            change.step("remove").key(self.layout.revoked(shard)).arg(id);
        }
        self.link.commit(COMMIT, &change).await.map(drop).map_err(QueueError::from)
    }
}
