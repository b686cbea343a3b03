//! The instances that share the queue: each says every second that it runs. One that is gone for good can be forgotten, so that
//! nothing waits for it.

use super::answers::{text, texts};
use super::layout::{MessagePlace, split_lease_member};
use super::limits;
use super::record::MessageRecord;
use super::store::{NextRecord, RedisStore};
use crate::queue::{Forgotten, InstanceRow, Lane, QueueError};
use crate::rate::shared::GONE;
use redis::{Value, cmd};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use tracing::warn;

const ALIVE: &str = "#!lua flags=allow-oom\nreturn redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])";
/// Unless it has shown itself meanwhile.
const FORGET: &str = "#!lua flags=allow-oom
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])";

/// What an instance says of itself. Times are those of the server's clock, in microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SelfReport {
    #[serde(default)]
    name: String,
    #[serde(default)]
    seen: i64,
    #[serde(default)]
    started: Option<i64>,
}

impl SelfReport {
    fn of(stored: &str) -> Self {
        serde_json::from_str(stored).unwrap_or(Self { name: String::new(), seen: 0, started: None })
    }
}

impl RedisStore {
    /// The ids of all instances that were ever seen and have not been forgotten, this one among them.
    pub(super) async fn instances(&self) -> Result<Vec<String>, QueueError> {
        let mut names = cmd("HKEYS");
        names.arg(self.layout.instances());
        Ok(self.link.read(0, vec![names]).await?.pop().map(texts).unwrap_or_default())
    }

    /// The names of all instances, by id.
    pub(super) async fn instance_names(&self) -> Result<BTreeMap<String, String>, QueueError> {
        let reports = self.fields(0, self.layout.instances()).await?;
        Ok(reports.into_iter().map(|(id, stored)| (id, SelfReport::of(&stored).name)).collect())
    }

    /// Says that this instance runs. A command that uses the folder of a stopped gateway does not.
    pub(super) async fn say_alive(&self) -> Result<(), QueueError> {
        if !self.is_gateway {
            return Ok(());
        }
        let now = self.times.to_server(self.times.now());
        let started = self.times.to_server(self.started);
        let report = SelfReport { name: self.name.clone(), seen: now, started: Some(started) };
        let says = serde_json::to_string(&report).unwrap_or_default();
        let keys = [self.layout.instances()];
        let called = self.link.call(0, ALIVE, &keys, |command| {
            command.arg(&self.instance).arg(&says);
        });
        called.await.map(drop).map_err(QueueError::from)
    }

    fn is_alive(&self, report: &SelfReport) -> bool {
        let gone = i64::try_from(GONE.as_micros()).unwrap_or(i64::MAX);
        self.times.to_server(self.times.now()).saturating_sub(report.seen) < gone
    }

    /// By name.
    pub(super) async fn instance_rows(&self) -> Result<Vec<InstanceRow>, QueueError> {
        let mut permits = limits::permits(self).await?;
        let mut rows = Vec::new();
        for (id, stored) in self.fields(0, self.layout.instances()).await? {
            let report = SelfReport::of(&stored);
            rows.push(InstanceRow {
                is_own: id == self.instance,
                is_alive: self.is_alive(&report),
                started: report.started.map(|at| self.times.to_local(at)),
                seen: self.times.to_local(report.seen),
                leases: self.leases_of(&id).await?.len() as u64,
                permits: permits.remove(&id).unwrap_or_default(),
                name: report.name,
                id,
            });
        }
        rows.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
        Ok(rows)
    }

    /// The leases of an instance, each with its shard.
    pub(super) async fn leases_of(&self, instance: &str) -> Result<Vec<(u16, String)>, QueueError> {
        let mut leases = Vec::new();
        for shard in self.layout.all_shards() {
            let mut all = cmd("ZRANGE");
            all.arg(self.layout.leases(shard, instance)).arg(0).arg(-1);
            let members = self.link.read(shard, vec![all]).await?.pop().map(texts).unwrap_or_default();
            leases.extend(members.into_iter().map(|member| (shard, member)));
        }
        Ok(leases)
    }

    /// Makes everything wait again that an instance had leased when its process ended, as possible duplicates. Returns how many
    /// messages, and the lanes that they are on.
    pub(super) async fn take_back_all(&self, instance: &str) -> Result<(u64, HashSet<Lane>), QueueError> {
        let (mut count, mut lanes) = (0, HashSet::new());
        for (shard, member) in self.leases_of(instance).await? {
            let Some((id, fence, lane)) = split_lease_member(&member) else { continue };
            let make = |mut record: MessageRecord| {
                record.take_back(lane, fence, true).then_some(NextRecord { record, answer: () })
            };
            if self.change(MessagePlace { shard, id }, make, |_, ()| {}).await?.is_some() {
                count += 1;
                lanes.insert(Lane::new(lane));
            }
        }
        Ok((count, lanes))
    }

    /// `id` is gone for good. If it is not, its connections are not counted until it shows itself again, and what it is sending
    /// may arrive twice.
    pub(super) async fn forget_instance(&self, id: &str) -> Result<Forgotten, QueueError> {
        let mut read = cmd("HGET");
        read.arg(self.layout.instances()).arg(id);
        let stored = self.link.read(0, vec![read]).await?.pop().and_then(text);
        let Some(stored) = stored else { return Ok(Forgotten::Unknown) };
        let report = SelfReport::of(&stored);
        if self.is_alive(&report) {
            return Ok(Forgotten::Alive);
        }
        // Leases of an instance that is not in the list are never taken over, so they come first.
        let (leases, lanes) = self.take_back_all(id).await?;
        self.wakeups.wake(&lanes);
        let keys = [self.layout.instances()];
        let called = self.link.call(0, FORGET, &keys, |command| {
            command.arg(id).arg(&stored);
        });
        if called.await.map_err(QueueError::from)? == Value::Int(0) {
            return Ok(Forgotten::Alive);
        }
        let permits = limits::forget(self, id).await?;
        warn!(instance = id, name = report.name, leases, permits, "an instance was forgotten, as an operator asked");
        Ok(Forgotten::Done { leases, permits })
    }
}
