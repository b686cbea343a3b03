//! Numbers of recipients and held lanes. The cost does not depend on how much mail there is: every change of a record keeps
//! the counts.

use super::answers::{list, number, scored, text};
use super::commit::{COMMIT, RecordChange};
use super::store::RedisStore;
use crate::queue::{HeldLane, Lane, LaneCounts, QueueError, QueueFigures, RecipientState, Statistics};
use jiff::Timestamp;
use redis::{Cmd, Value, cmd};
use std::collections::BTreeMap;

/// In the control hash, before a lane's name.
const HOLD: &str = "hold:";

fn hash(key: String) -> Cmd {
    let mut command = cmd("HGETALL");
    command.arg(key);
    command
}

fn pairs(value: Value) -> Vec<(String, String)> {
    let mut values = match value {
        Value::Map(pairs) => pairs.into_iter().flat_map(|(name, value)| [name, value]).collect(),
        other => list(other),
    }
    .into_iter();
    let mut found = Vec::new();
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        found.extend(text(name).zip(text(value)));
    }
    found
}

impl RedisStore {
    /// All fields of a hash in one shard.
    pub(super) async fn fields(&self, shard: u16, key: String) -> Result<Vec<(String, String)>, QueueError> {
        Ok(self.link.read(shard, vec![hash(key)]).await?.pop().map(pairs).unwrap_or_default())
    }

    /// Every shard has the holds, so that a lease sees them in its own step.
    pub(super) async fn hold(&self, lane: Option<&Lane>, held: bool) -> Result<(), QueueError> {
        for shard in self.layout.all_shards() {
            let control = self.layout.control(shard);
            let mut change = RecordChange::new(&self.layout, shard);
            let name = match lane {
                Some(lane) => format!("{HOLD}{lane}"),
                None => {
                    for (name, _) in self.fields(shard, control.clone()).await? {
                        if name.starts_with(HOLD) {
                            change.step("unset").key(control.clone()).arg(name);
                        }
                    }
                    "hold".to_owned()
                }
            };
            change.step("set").key(control).arg(1).arg(name).arg(u8::from(held));
            self.link.commit(COMMIT, &change).await?;
        }
        Ok(())
    }

    pub(super) async fn holds(&self) -> Result<Vec<HeldLane>, QueueError> {
        let (mut all, mut held, mut released) = (false, Vec::new(), Vec::new());
        for (name, value) in self.fields(0, self.layout.control(0)).await? {
            match name.strip_prefix(HOLD) {
                Some(lane) if value == "1" => held.push(lane.to_owned()),
                Some(lane) => released.push(lane.to_owned()),
                None if name == "hold" => all = value == "1",
                None => {}
            }
        }
        held.sort_unstable();
        released.sort_unstable();
        if all {
            return Ok(vec![HeldLane { lane: None, except: released }]);
        }
        Ok(held.into_iter().map(|lane| HeldLane { lane: Some(lane), except: Vec::new() }).collect())
    }

    /// By state and lane.
    async fn counts(&self) -> Result<Vec<(RecipientState, String, u64)>, QueueError> {
        let mut counts = BTreeMap::<(String, String), i64>::new();
        for shard in self.layout.all_shards() {
            for (name, value) in self.fields(shard, self.layout.counts(shard)).await? {
                if let (Some((state, lane)), Ok(count)) = (name.split_once(':'), value.parse::<i64>()) {
                    *counts.entry((state.to_owned(), lane.to_owned())).or_default() += count;
                }
            }
        }
        let known = |((state, lane), count): ((String, String), i64)| {
            let state = match state.as_str() {
                "waiting" => RecipientState::Waiting,
                "held" => RecipientState::Held,
                "leased" => RecipientState::Leased,
                "failed" => RecipientState::Failed,
                _ => RecipientState::Damaged,
            };
            Some((state, lane, u64::try_from(count).ok()?))
        };
        Ok(counts.into_iter().filter_map(known).collect())
    }

    pub(super) async fn statistics(&self) -> Result<Statistics, QueueError> {
        let mut statistics = Statistics::default();
        for (state, _, count) in self.counts().await? {
            *match state {
                RecipientState::Waiting | RecipientState::Held => &mut statistics.waiting,
                RecipientState::Leased => &mut statistics.leased,
                RecipientState::Failed => &mut statistics.failed,
                RecipientState::Damaged => &mut statistics.damaged,
            } += count;
        }
        Ok(statistics)
    }

    /// How many recipients are in this state.
    pub(super) async fn in_state(&self, wanted: RecipientState) -> Result<u64, QueueError> {
        let counts = self.counts().await?;
        Ok(counts.iter().filter(|(state, ..)| *state == wanted).map(|(.., count)| count).sum())
    }

    pub(super) async fn figures(&self) -> Result<QueueFigures, QueueError> {
        let mut lanes = BTreeMap::<String, LaneCounts>::new();
        for (state, lane, count) in self.counts().await? {
            let counts = lanes.entry(lane.clone()).or_insert_with(|| LaneCounts { lane, ..LaneCounts::default() });
            *match state {
                RecipientState::Waiting => &mut counts.waiting,
                RecipientState::Held => &mut counts.held,
                RecipientState::Leased => &mut counts.leased,
                RecipientState::Failed => &mut counts.failed,
                RecipientState::Damaged => &mut counts.damaged,
            } += count;
        }
        let mut octets = 0;
        for shard in self.layout.all_shards() {
            octets += self.counter(shard, "octets").await?;
        }
        for counts in lanes.values_mut().filter(|counts| counts.waiting + counts.leased > 0) {
            counts.oldest = self.oldest_on(&counts.lane).await?;
        }
        Ok(QueueFigures { lanes: lanes.into_values().collect(), octets: u64::try_from(octets).unwrap_or(0) })
    }

    /// When the first message of all that wait or are leased on a lane was received.
    async fn oldest_on(&self, lane: &str) -> Result<Option<Timestamp>, QueueError> {
        let mut first = None;
        for shard in self.layout.all_shards() {
            let mut command = cmd("ZRANGE");
            command.arg(self.layout.oldest(shard, lane)).arg(0).arg(0).arg("WITHSCORES");
            let found = self.link.read(shard, vec![command]).await?.pop().map(scored).unwrap_or_default();
            let found = found.into_iter().next().map(|(id, order)| (order, shard, id));
            first = first.into_iter().chain(found).min();
        }
        let Some((_, shard, id)) = first else { return Ok(None) };
        let Ok(id) = id.parse() else { return Ok(None) };
        let loaded = self.load(shard, &[id]).await?.pop().flatten();
        Ok(loaded.and_then(|loaded| loaded.record.ok()).map(|record| record.received_at))
    }

    pub(super) async fn count_waiting(
        &self,
        lane: &Lane,
        after: Option<Timestamp>,
        most: u64,
    ) -> Result<u64, QueueError> {
        let from = after.map_or_else(|| "-inf".to_owned(), |after| format!("({}", self.times.to_server(after)));
        let mut count = 0;
        for shard in self.layout.all_shards() {
            let mut command = cmd("ZCOUNT");
            command.arg(self.layout.due(shard, lane.as_str())).arg(&from).arg("+inf");
            count += self.link.read(shard, vec![command]).await?.pop().and_then(number::<u64>).unwrap_or(0);
        }
        Ok(count.min(most))
    }
}
