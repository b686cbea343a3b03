//! Finds what is due on a lane: sender domains take turns, and the cost depends on what is found, not on what waits.

use super::answers::{list, number, scored, text, texts};
use super::layout::{MessagePlace, hexadecimal};
use super::store::RedisStore;
use crate::message::MailId;
use crate::queue::{IdempotencyKey, Lane, QueueError, Suspension};
use jiff::Timestamp;
use redis::{Cmd, cmd};
use std::collections::HashMap;

/// Domains that are looked at for one lease. With more than these due at once, those whose mail is due longest come first.
const MAX_DOMAINS: usize = 1000;

/// Whether a lane is held, by its own hold and the one of all lanes.
fn is_held(own: Option<&str>, all: Option<&str>) -> bool {
    own.or(all) == Some("1")
}

fn up_to(key: String, due: i64, limit: usize) -> Cmd {
    let mut command = cmd("ZRANGEBYSCORE");
    command.arg(key).arg("-inf").arg(due).arg("LIMIT").arg(0).arg(limit);
    command
}

impl RedisStore {
    /// Due times after this one were made before the server's clock was set back.
    fn horizon(&self, now: Timestamp) -> i64 {
        self.times.to_server(self.schedule.horizon(now))
    }

    fn holds_of(&self, shard: u16, lane: &str) -> Cmd {
        let mut holds = cmd("HMGET");
        holds.arg(self.layout.control(shard)).arg(format!("hold:{lane}")).arg("hold").arg(format!("turn:{lane}"));
        holds
    }

    /// Delayed mail of a lane that is due now.
    pub(super) async fn due_delayed(
        &self,
        shard: u16,
        lane: &Lane,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<MessagePlace>, QueueError> {
        let delayed = Suspension::Delayed.of(lane.as_str());
        let command = up_to(self.layout.due(shard, delayed.as_str()), self.times.to_server(now), limit);
        let found = self.link.read(shard, vec![command]).await?.pop().map(texts).unwrap_or_default();
        Ok(found.iter().filter_map(|id| Some(MessagePlace { shard, id: id.parse().ok()? })).collect())
    }

    /// At most so many messages that are due on a lane, and the domain whose turn was last. Nothing, if the lane is held.
    pub(super) async fn find_due(
        &self,
        shard: u16,
        lane: &Lane,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<(MailId, String)>, QueueError> {
        let name = lane.as_str();
        let due = self.times.to_server(now);
        let mut behind = cmd("ZRANGEBYSCORE");
        behind.arg(self.layout.due(shard, name)).arg(format!("({}", self.horizon(now))).arg("+inf");
        behind.arg("LIMIT").arg(0).arg(limit);
        let domains = up_to(self.layout.domains(shard, name), due, MAX_DOMAINS);
        let mut answers = self.link.read(shard, vec![self.holds_of(shard, name), domains, behind]).await?.into_iter();
        let holds: Vec<_> = answers.next().map(list).unwrap_or_default().into_iter().map(text).collect();
        let hold = |at: usize| holds.get(at).and_then(Option::as_deref);
        if is_held(hold(0), hold(1)) {
            return Ok(Vec::new());
        }
        let mut domains = answers.next().map(texts).unwrap_or_default();
        let behind = answers.next().map(texts).unwrap_or_default();
        domains.sort_unstable();
        let last = self.turns.lock().get(&(shard, name.to_owned())).cloned();
        let last = last.or_else(|| hold(2).map(str::to_owned));
        if let Some(last) = last {
            let next = domains.partition_point(|domain| *domain <= last);
            domains.rotate_left(next);
        }
        let mut found = self.due_in_turns(shard, name, (due, limit), domains).await?;
        if found.len() < limit {
            let known: Vec<MailId> = found.iter().map(|(id, _)| *id).collect();
            let late = behind.iter().filter_map(|id| id.parse().ok()).filter(|id| !known.contains(id));
            // Whose turn it is does not matter to them.
            let turn = found.last().map_or_else(String::new, |(_, domain)| domain.clone());
            found.extend(late.map(|id| (id, turn.clone())).take(limit - found.len()));
        }
        Ok(found)
    }

    async fn due_in_turns(
        &self,
        shard: u16,
        lane: &str,
        (due, limit): (i64, usize),
        mut domains: Vec<String>,
    ) -> Result<Vec<(MailId, String)>, QueueError> {
        if domains.is_empty() {
            return Ok(Vec::new());
        }
        domains.truncate(limit);
        let each = limit.div_ceil(domains.len()).max(1);
        let mut mail: HashMap<String, std::vec::IntoIter<String>> = HashMap::new();
        // A domain with much mail takes what the others leave.
        for many in [each, limit] {
            let commands =
                domains.iter().map(|domain| up_to(self.layout.due_of_domain(shard, lane, domain), due, many));
            let answers = self.link.read(shard, commands.collect()).await?;
            mail = domains.iter().cloned().zip(answers.into_iter().map(|ids| texts(ids).into_iter())).collect();
            let all: usize = mail.values().map(ExactSizeIterator::len).sum();
            if all >= limit || many == limit || domains.len() > 16 {
                break;
            }
        }
        let mut found = Vec::new();
        loop {
            let before = found.len();
            for domain in &domains {
                let next = mail.get_mut(domain).and_then(Iterator::next);
                found.extend(next.and_then(|id| Some((id.parse().ok()?, domain.clone()))));
                if found.len() == limit {
                    return Ok(found);
                }
            }
            if found.len() == before {
                return Ok(found);
            }
        }
    }

    /// When the lane's next message is due; `None` if nothing waits there or the lane is held.
    pub(super) async fn next_due(&self, lane: &Lane, now: Timestamp) -> Result<Option<Timestamp>, QueueError> {
        let mut next: Option<Timestamp> = None;
        for shard in self.layout.all_shards() {
            let name = lane.as_str();
            let end = |command: &str, key: String| {
                let mut command = cmd(command);
                command.arg(key).arg(0).arg(0).arg("WITHSCORES");
                command
            };
            let due = self.layout.due(shard, name);
            let delayed = self.layout.due(shard, Suspension::Delayed.of(name).as_str());
            let commands = vec![
                self.holds_of(shard, name),
                end("ZRANGE", due.clone()),
                end("ZREVRANGE", due),
                end("ZRANGE", delayed),
            ];
            let mut answers = self.link.read(shard, commands).await?.into_iter();
            let holds: Vec<_> = answers.next().map(list).unwrap_or_default().into_iter().map(text).collect();
            let hold = |at: usize| holds.get(at).and_then(Option::as_deref);
            if is_held(hold(0), hold(1)) {
                return Ok(None);
            }
            let mut score = || answers.next().map(scored).unwrap_or_default().first().map(|(_, score)| *score);
            let (first, last, delayed) = (score(), score(), score());
            let is_behind = last.is_some_and(|last| last > self.horizon(now));
            let due = [first, delayed].into_iter().flatten().map(|due| self.times.to_local(due));
            next = due.chain(is_behind.then_some(now)).chain(next).min();
        }
        Ok(next)
    }

    /// One page in the order of acceptance, over all shards: at most so many messages after a position.
    pub(super) async fn page(&self, after: Option<i64>, limit: usize) -> Result<Vec<(i64, MessagePlace)>, QueueError> {
        self.page_of(|shard| self.layout.all(shard), after, limit).await
    }

    /// The same of what waits or is leased on a lane.
    pub(super) async fn page_on(
        &self,
        lane: &Lane,
        after: Option<i64>,
        limit: usize,
    ) -> Result<Vec<(i64, MessagePlace)>, QueueError> {
        self.page_of(|shard| self.layout.oldest(shard, lane.as_str()), after, limit).await
    }

    async fn page_of(
        &self,
        key: impl Fn(u16) -> String,
        after: Option<i64>,
        limit: usize,
    ) -> Result<Vec<(i64, MessagePlace)>, QueueError> {
        let mut found = Vec::new();
        for shard in self.layout.all_shards() {
            let mut command = cmd("ZRANGEBYSCORE");
            let from = after.map_or_else(|| "-inf".to_owned(), |after| format!("({after}"));
            command.arg(key(shard)).arg(from).arg("+inf");
            command.arg("WITHSCORES").arg("LIMIT").arg(0).arg(limit);
            let answer = self.link.read(shard, vec![command]).await?.pop().map(scored).unwrap_or_default();
            found
                .extend(answer.iter().filter_map(|(id, at)| Some((*at, MessagePlace { shard, id: id.parse().ok()? }))));
        }
        found.sort_unstable();
        found.truncate(limit);
        Ok(found)
    }

    /// The records of places in several shards, in this order.
    pub(super) async fn load_all(
        &self,
        places: &[MessagePlace],
    ) -> Result<Vec<Option<super::store::Loaded>>, QueueError> {
        let mut found: HashMap<MessagePlace, super::store::Loaded> = HashMap::new();
        for shard in self.layout.all_shards() {
            let ids: Vec<MailId> = places.iter().filter(|place| place.shard == shard).map(|place| place.id).collect();
            let loaded = self.load(shard, &ids).await?;
            found.extend(loaded.into_iter().flatten().map(|one| (one.place, one)));
        }
        Ok(places.iter().map(|place| found.remove(place)).collect())
    }

    /// The message that was stored under this key, while its window lasts.
    pub(super) async fn stored_under(&self, key: IdempotencyKey) -> Result<Option<MailId>, QueueError> {
        for shard in self.layout.all_shards() {
            let mut command = cmd("HGET");
            command.arg(self.layout.known_keys(shard)).arg(hexadecimal(&key.0));
            let stored = self.link.read(shard, vec![command]).await?.pop().and_then(text).unwrap_or_default();
            if let Some((id, until)) = stored.split_once(' ')
                && until.parse().is_ok_and(|until: u64| until > self.lived())
            {
                return Ok(id.parse().ok());
            }
        }
        Ok(None)
    }

    /// A number in the control hash of a shard; 0 if there is none.
    pub(super) async fn counter(&self, shard: u16, name: &str) -> Result<i64, QueueError> {
        let mut command = cmd("HGET");
        command.arg(self.layout.control(shard)).arg(name);
        Ok(self.link.read(shard, vec![command]).await?.pop().and_then(number).unwrap_or_default())
    }
}
