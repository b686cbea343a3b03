//! `RedisStore`: what all operations share: the connections, the keys, the clocks, the leases that this process holds; and
//! the one way in which a record is changed.

use super::answers::{list, number, octets, text};
use super::commit::{COMMIT, Committed, RecordChange};
use super::journal::Journal;
use super::layout::{Layout, MessagePlace, unique};
use super::lease::{FencedLease, InstanceLease};
use super::link::Link;
use super::memory::Memory;
use super::node::CallError;
use super::record::{MessageRecord, RecordDamage};
use super::times::Times;
use crate::message::MailId;
use crate::queue::lifetime::Lifetime;
use crate::queue::schedule::Schedule;
use crate::queue::{Handoffs, LaneOf, LeaseId, QueueError, Wakeups};
use parking_lot::Mutex;
use redis::{Value, cmd};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU16, AtomicU64};
use std::time::Duration;

/// How often a change is made again because another one came first.
pub(super) const MAX_ATTEMPTS: usize = 50;

const LIFETIME: &str = include_str!("scripts/lifetime.lua");

#[derive(Debug)]
pub(super) struct RedisStore {
    /// Set when what its last end has left is put in order.
    pub has_begun: tokio::sync::OnceCell<()>,
    pub clock: crate::observe::Clock,
    pub link: Link,
    pub layout: Layout,
    pub times: Times,
    pub lifetime: Lifetime,
    pub schedule: Schedule,
    /// Names this instance among all of the queue.
    pub instance: String,
    /// Its name in lists.
    pub name: String,
    /// It accepts and delivers mail; false: it is a command, which does not show itself among the instances.
    pub is_gateway: bool,
    pub started: jiff::Timestamp,
    pub memory: Memory,
    pub journal: Journal,
    /// Held while the journal is told, so that nothing is told twice at once.
    pub telling: tokio::sync::Mutex<()>,
    /// Puts that are not answered; what they stored is not leased here.
    pub unanswered: Mutex<HashSet<MailId>>,
    /// Leases that were asked for and whose answer was lost.
    pub unsure: Mutex<Vec<FencedLease>>,
    /// Mail whose put is not answered is stored in the spool, under the same id.
    pub has_spool: bool,
    /// How long a put whose answer is lost is repeated.
    pub put_patience: Duration,
    /// How long a lease lasts if it is not renewed.
    pub lease_length: Duration,
    pub leases: Mutex<HashMap<LeaseId, InstanceLease>>,
    pub next_lease: AtomicI64,
    /// Where the next search begins, so that no shard comes last each time.
    pub next_shard: AtomicU16,
    /// The domain that last had its turn, by lane and shard.
    pub turns: Mutex<HashMap<(u16, String), String>>,
    /// One search at a time on each lane: two would find the same mail.
    pub searches: Mutex<HashMap<String, std::sync::Arc<tokio::sync::Mutex<()>>>>,
    /// Set while mail from before the current routes is moved to its lanes.
    pub reassignment: Mutex<Option<LaneMove>>,
    /// The routes have changed, and Redis could not be told yet: nothing may be leased.
    pub lanes_are_old: std::sync::atomic::AtomicBool,
    /// Counts the reassignments of all instances, as this one knows it.
    pub epoch: AtomicU64,
    /// The routes by which this instance puts mail on lanes; `None`: it does not know.
    pub routes: Mutex<Option<String>>,
    pub wakeups: Wakeups,
    pub handoffs: Handoffs,
}

/// Messages stored before the current routes, which may be on the wrong lane.
#[derive(Clone)]
pub(super) struct LaneMove {
    pub lane_of: LaneOf,
    /// Messages up to this position in the order of acceptance are done.
    pub done: i64,
    /// Messages after this position were stored on the lanes of the current routes.
    pub last: i64,
}

impl fmt::Debug for LaneMove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneMove").field("done", &self.done).field("last", &self.last).finish_non_exhaustive()
    }
}

/// A record as it is stored.
#[derive(Debug)]
pub(super) struct Loaded {
    pub place: MessagePlace,
    pub version: u64,
    /// Position in the order of acceptance.
    pub order: i64,
    pub record: Result<MessageRecord, RecordDamage>,
}

/// What a change makes of a record.
pub(super) struct NextRecord<T> {
    pub record: MessageRecord,
    pub answer: T,
}

impl RedisStore {
    pub(super) fn lived(&self) -> u64 {
        u64::try_from(self.lifetime.now().as_millis()).unwrap_or(u64::MAX)
    }

    /// Records of one shard, in this order; `None`: there is no such message.
    pub(super) async fn load(&self, shard: u16, ids: &[MailId]) -> Result<Vec<Option<Loaded>>, QueueError> {
        let command = |id: &MailId| {
            let mut command = cmd("HMGET");
            command.arg(self.layout.message(MessagePlace { shard, id: *id })).arg("v").arg("seq").arg("rec");
            command
        };
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let values = self.link.read(shard, ids.iter().map(command).collect()).await?;
        Ok(ids.iter().zip(values).map(|(id, value)| loaded(MessagePlace { shard, id: *id }, value)).collect())
    }

    pub(super) async fn load_one(&self, place: MessagePlace) -> Result<Option<Loaded>, QueueError> {
        Ok(self.load(place.shard, &[place.id]).await?.pop().flatten())
    }

    /// Where a message is stored; `None`: it does not exist (any more).
    pub(super) async fn find(&self, id: MailId) -> Result<Option<MessagePlace>, QueueError> {
        for shard in self.layout.all_shards() {
            let place = MessagePlace { shard, id };
            let mut exists = cmd("EXISTS");
            exists.arg(self.layout.message(place));
            let found = self.link.read(shard, vec![exists]).await?.pop();
            if found.and_then(number::<u64>) == Some(1) {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Changes one record: `make` computes the new one and an answer, or `None` if nothing is to be done; it is called again
    /// if another change came first. `more` adds conditions and writes. Returns `None` if there is no such message or nothing
    /// was to be done.
    pub(super) async fn change<T>(
        &self,
        place: MessagePlace,
        mut make: impl FnMut(MessageRecord) -> Option<NextRecord<T>>,
        mut more: impl FnMut(&mut RecordChange<'_>, &T),
    ) -> Result<Option<T>, QueueError> {
        let token = unique();
        let mut unanswered = None;
        for _ in 0..MAX_ATTEMPTS {
            let Some(Loaded { version, record, .. }) = self.load_one(place).await? else {
                return Ok(unanswered);
            };
            if unanswered.is_some() && self.last_change(place).await?.as_ref() == Some(&token) {
                return Ok(unanswered);
            }
            let record = record.map_err(|damage| QueueError::Storage(format!("{}: {damage}", place.id)))?;
            let Some(NextRecord { record: after, answer }) = make(record.clone()) else { return Ok(None) };
            let mut change = RecordChange::new(&self.layout, place.shard);
            change.if_version(place, version);
            change.write(place, Some(&record), &after, (version + 1, &token, self.lease_length)).map_err(of_damage)?;
            more(&mut change, &answer);
            match self.link.commit(COMMIT, &change).await {
                Ok(Committed::Done(_)) => return Ok(Some(answer)),
                Ok(Committed::Changed) => unanswered = None,
                Ok(other) => return Err(refused(&other)),
                // Whether it was done is seen at the next look.
                Err(CallError::Unanswered(_)) => unanswered = Some(answer),
                Err(CallError::NotDone(error)) => return Err(error),
            }
        }
        Err(QueueError::Storage("the message was changed by others again and again".into()))
    }

    /// The token of the last change of a message; `None`: nothing is left of it.
    pub(super) async fn last_change(&self, place: MessagePlace) -> Result<Option<String>, QueueError> {
        let mut command = cmd("HGET");
        command.arg(self.layout.message(place)).arg("by");
        Ok(self.link.read(place.shard, vec![command]).await?.pop().and_then(text))
    }

    /// Stores the queue's clock if that is due.
    pub(super) async fn keep_lifetime(&self, is_forced: bool) -> Result<(), QueueError> {
        let record = if is_forced { Some(self.lifetime.record()) } else { self.lifetime.record_if_due() };
        let Some(record) = record else { return Ok(()) };
        self.link.known.change(|known| known.clock = Some((&record).into()));
        let keys = [self.layout.lifetime()];
        let optional = |at: Option<jiff::Timestamp>| at.map_or(String::new(), |at| at.to_string());
        let (boot, uptime) =
            record.boot.map_or_else(Default::default, |boot| (boot.id, boot.uptime.as_millis().to_string()));
        let called = self.link.call(0, LIFETIME, &keys, |command| {
            command.arg(record.lived.as_millis().to_string());
            command.arg(optional(record.at)).arg(optional(record.latest)).arg(&boot).arg(&uptime);
        });
        called.await.map(drop).map_err(QueueError::from)
    }
}

fn loaded(place: MessagePlace, value: Value) -> Option<Loaded> {
    let mut fields = list(value).into_iter();
    let version = number(fields.next()?)?;
    let order = fields.next().and_then(number).unwrap_or_default();
    let record = fields.next().and_then(octets).ok_or(RecordDamage::Missing);
    Some(Loaded { place, version, order, record: record.and_then(|stored| MessageRecord::decode(&stored)) })
}

pub(super) fn of_damage(damage: RecordDamage) -> QueueError {
    QueueError::Storage(damage.to_string())
}

/// For answers that a call cannot act on.
pub(super) fn refused(answer: &Committed) -> QueueError {
    QueueError::Storage(match answer {
        Committed::OtherIdentity => "Redis does not hold this queue any more; see `waxseal queue adopt`".into(),
        other => format!("Redis gave an unexpected answer ({other:?})"),
    })
}
