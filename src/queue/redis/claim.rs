//! Leases messages: marks them as leased, which also answers with their text, and returns them. A message that is damaged is
//! set aside. A lease that does not reach its caller goes back.

use super::bodies;
use super::commit::{COMMIT, Committed, RecordChange};
use super::layout::{MessagePlace, unique};
use super::lease::{FencedLease, InstanceLease};
use super::node::CallError;
use super::record::{JobState, LeaseRecord, MessageRecord, RecordDamage, content_digest};
use super::store::{Loaded, NextRecord, RedisStore, of_damage, refused};
use crate::message::accepted::Accepted;
use crate::message::{Author, RawMessage};
use crate::observe::{Backoff, fault};
use crate::queue::detached::{LeaseGuard, deliver_or_release};
use crate::queue::{Cursor, HandoffSlot, Lane, LeaseId, Leased, QueueError, Settlement, Suspension};
use bytes::Bytes;
use jiff::Timestamp;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tracing::error;

/// Rounds of one lease in which others may be faster each time.
const MAX_ROUNDS: usize = 50;

/// Messages examined for their age in one call.
const MAX_OLD_LOOKS: usize = 1000;

/// Even if the caller is dropped, a leased message is either returned or released.
pub(super) async fn lease(
    store: &Arc<RedisStore>,
    lane: Lane,
    now: Timestamp,
    limit: usize,
    octets: u64,
) -> Result<Vec<Leased>, QueueError> {
    let owner = store.clone();
    let claiming = async move { owner.claim(&lane, now, limit, octets).await.map(|leased| (leased, ())) };
    deliver_or_release(claiming).await.map(|(leased, ())| leased)
}

/// The same for mail that is too old.
pub(super) async fn lease_expired(
    store: &Arc<RedisStore>,
    lane: Lane,
    age: Duration,
    after: Option<Cursor>,
    limit: usize,
    octets: u64,
) -> Result<(Vec<Leased>, Option<Cursor>), QueueError> {
    let owner = store.clone();
    deliver_or_release(async move { owner.claim_expired(&lane, age, after, (limit, octets)).await }).await
}

/// A lease that its caller does not have yet. It is released when this is dropped before `end`.
#[derive(Debug)]
pub(super) struct UnreturnedLease {
    store: Arc<RedisStore>,
    lease: LeaseId,
    has_ended: bool,
}

impl LeaseGuard for UnreturnedLease {
    fn end(mut self) {
        self.has_ended = true;
    }
}

impl Drop for UnreturnedLease {
    fn drop(&mut self) {
        if let Ok(runtime) = Handle::try_current()
            && !self.has_ended
        {
            let (store, lease) = (self.store.clone(), self.lease);
            runtime.spawn(async move { store.release(lease).await });
        }
    }
}

/// If the delivery loop has ended meanwhile, the lease is released.
pub(super) fn hand_over(store: &Arc<RedisStore>, active: InstanceLease, accepted: Arc<Accepted>, to: HandoffSlot) {
    let lane = Lane::new(active.held.lane.as_str());
    let unreturned = store.register(active);
    let lease = unreturned.lease;
    let leased = Leased { lease, lane, accepted, attempts: 0, age: Duration::ZERO, possible_duplicate: false };
    if to.hand_over(leased).is_ok() {
        unreturned.end();
    }
}

/// What became of one message that was found.
enum Claimed {
    Leased(Box<(Leased, UnreturnedLease)>),
    /// Another call was faster, or it is on another lane now.
    Gone,
    /// The lane is held.
    Held,
}

impl RedisStore {
    async fn may_lease(&self) -> Result<(), QueueError> {
        self.begun().await?;
        if self.lanes_are_old.load(Ordering::Relaxed) {
            return Err(QueueError::Away("it does not know the new routes yet".into()));
        }
        Ok(())
    }

    fn register(self: &Arc<Self>, active: InstanceLease) -> UnreturnedLease {
        let lease = LeaseId(self.next_lease.fetch_add(1, Ordering::Relaxed));
        self.leases.lock().insert(lease, active);
        UnreturnedLease { store: self.clone(), lease, has_ended: false }
    }

    async fn claim(
        self: &Arc<Self>,
        lane: &Lane,
        now: Timestamp,
        limit: usize,
        octets: u64,
    ) -> Result<Vec<(Leased, UnreturnedLease)>, QueueError> {
        let search = self.searches.lock().entry(lane.to_string()).or_default().clone();
        let _one_at_a_time = search.lock().await;
        self.may_lease().await?;
        self.replay().await?;
        let mut leased = Vec::new();
        let mut room = octets;
        let shards = self.layout.shards;
        let first = self.next_shard.fetch_add(1, Ordering::Relaxed);
        // First the same from each shard; then from any what the others do not have.
        let share = limit.div_ceil(shards.into());
        for most in if shards == 1 { vec![limit] } else { vec![share, limit] } {
            for shard in self.layout.all_shards().map(|at| (first.wrapping_add(at)) % shards) {
                let wanted = most.min(limit - leased.len());
                self.claim_in((shard, lane), now, wanted, &mut room, &mut leased).await?;
            }
        }
        Ok(leased)
    }

    /// Leases at most so many messages of one shard.
    async fn claim_in(
        self: &Arc<Self>,
        (shard, lane): (u16, &Lane),
        now: Timestamp,
        limit: usize,
        room: &mut u64,
        leased: &mut Vec<(Leased, UnreturnedLease)>,
    ) -> Result<(), QueueError> {
        let before = leased.len();
        for place in self.due_delayed(shard, lane, now, limit).await? {
            self.resume(place).await?;
        }
        for _ in 0..MAX_ROUNDS {
            let wanted = limit - (leased.len() - before);
            if wanted == 0 || *room == 0 {
                break;
            }
            let mut found = self.find_due(shard, lane, now, wanted).await?;
            found.retain(|(id, _)| !self.unanswered.lock().contains(id));
            if found.is_empty() || self.claim_found((shard, lane), found, room, leased).await? {
                break;
            }
        }
        Ok(())
    }

    /// Leases what was found, while there is room. True: the lane is held.
    async fn claim_found(
        self: &Arc<Self>,
        (shard, lane): (u16, &Lane),
        found: Vec<(crate::message::MailId, String)>,
        room: &mut u64,
        leased: &mut Vec<(Leased, UnreturnedLease)>,
    ) -> Result<bool, QueueError> {
        let ids: Vec<_> = found.iter().map(|(id, _)| *id).collect();
        for (loaded, (id, domain)) in self.load(shard, &ids).await?.into_iter().zip(found) {
            if *room == 0 {
                break;
            }
            self.turns.lock().insert((shard, lane.to_string()), domain.clone());
            let place = MessagePlace { shard, id };
            match loaded {
                None => self.forget_unindexed(place, lane, &domain).await?,
                Some(loaded) => match self.claim_one(loaded, lane, &domain).await? {
                    Claimed::Leased(one) => {
                        *room = room.saturating_sub(one.0.accepted.memory_needed());
                        leased.push(*one);
                    }
                    Claimed::Gone => {}
                    Claimed::Held => return Ok(true),
                },
            }
        }
        Ok(false)
    }

    async fn claim_one(self: &Arc<Self>, loaded: Loaded, lane: &Lane, domain: &str) -> Result<Claimed, QueueError> {
        let place = loaded.place;
        let record = match loaded.record {
            Ok(record) => record,
            Err(damage) => {
                say_damaged(place, lane, &damage);
                return self.forget_unindexed(place, lane, domain).await.map(|()| Claimed::Gone);
            }
        };
        if self.is_moved(place, loaded.order, &record).await? {
            return Ok(Claimed::Gone);
        }
        let fence = loaded.version + 1;
        let ends = Instant::now() + self.lease_length;
        let mut after = record.clone();
        if !after.lease(lane.as_str(), LeaseRecord { fence, instance: self.instance.clone() }) {
            return Ok(Claimed::Gone);
        }
        let mut change = RecordChange::new(&self.layout, place.shard);
        change.if_unheld(lane.as_str()).if_epoch(self.epoch.load(Ordering::Relaxed));
        change.if_version(place, loaded.version);
        change.write(place, Some(&record), &after, (fence, &unique(), self.lease_length)).map_err(of_damage)?;
        change.step("set").key(self.layout.control(place.shard)).arg(1).arg(format!("turn:{lane}")).arg(domain);
        change.content_of(place);
        let answers = match self.link.commit(COMMIT, &change).await {
            Ok(Committed::Done(answers)) => answers,
            Ok(Committed::Changed) => return Ok(Claimed::Gone),
            Ok(Committed::Held) => return Ok(Claimed::Held),
            Ok(Committed::OtherEpoch) => {
                self.learn_epoch(place.shard).await?;
                return Ok(Claimed::Gone);
            }
            Ok(other) => return Err(refused(&other)),
            Err(CallError::Unanswered(error)) => {
                let lease =
                    FencedLease { place, lane: lane.to_string(), fence, positions: Vec::new(), token: unique() };
                self.unsure.lock().push(lease);
                return Err(error);
            }
            Err(CallError::NotDone(error)) => return Err(error),
        };
        let positions = after.open_on(lane.as_str()).map(|recipient| recipient.position).collect();
        let held = FencedLease { place, lane: lane.to_string(), fence, positions, token: unique() };
        let active = InstanceLease { held, record: after, is_unsure: false, ends };
        let unreturned = self.register(active.clone());
        match assemble(unreturned.lease, lane, &active.record, answers, |since| self.age(since)) {
            Ok(leased) => Ok(Claimed::Leased(Box::new((leased, unreturned)))),
            Err(damage) => {
                self.leases.lock().remove(&unreturned.lease);
                unreturned.end();
                self.set_aside(place, lane, &damage).await.map(|()| Claimed::Gone)
            }
        }
    }

    fn age(&self, since: u64) -> Duration {
        self.lifetime.age(Duration::from_millis(since))
    }

    async fn claim_expired(
        self: &Arc<Self>,
        lane: &Lane,
        age: Duration,
        after: Option<Cursor>,
        (limit, mut room): (usize, u64),
    ) -> Result<(Vec<(Leased, UnreturnedLease)>, Option<Cursor>), QueueError> {
        self.may_lease().await?;
        self.replay().await?;
        let before = u64::try_from(self.lifetime.before(age).as_millis()).unwrap_or(u64::MAX);
        let page = self.page_on(lane, after.map(|Cursor(at)| at), MAX_OLD_LOOKS).await?;
        let places: Vec<MessagePlace> = page.iter().map(|(_, place)| *place).collect();
        let mut leased = Vec::new();
        let mut last = after.map(|Cursor(at)| at);
        for ((order, _), loaded) in page.iter().zip(self.load_all(&places).await?) {
            let Some(loaded) = loaded else { continue };
            if loaded.record.as_ref().is_ok_and(|record| record.lived > before) {
                return Ok((leased, None));
            }
            if leased.len() == limit || room == 0 {
                return Ok((leased, last.map(Cursor)));
            }
            let is_wanted = |record: &MessageRecord| {
                let job = record.jobs.get(lane.as_str());
                let is_known = !self.unanswered.lock().contains(&record.id);
                job.is_some_and(|job| job.state.is_waiting()) && record.since <= before && is_known
            };
            if loaded.record.as_ref().is_ok_and(is_wanted) {
                let domain = loaded.record.as_ref().map_or_else(|_| String::new(), MessageRecord::sender_domain);
                match self.claim_one(loaded, lane, &domain).await? {
                    Claimed::Leased(one) => {
                        room = room.saturating_sub(one.0.accepted.memory_needed());
                        leased.push(*one);
                    }
                    Claimed::Gone => {}
                    Claimed::Held => return Ok((leased, None)),
                }
            }
            last = Some(*order);
        }
        Ok((leased, last.filter(|_| page.len() == MAX_OLD_LOOKS).map(Cursor)))
    }

    /// Puts delayed mail that is due onto its lane.
    async fn resume(&self, place: MessagePlace) -> Result<(), QueueError> {
        let make = |mut record: MessageRecord| {
            let moved = record.resume(|suspension| suspension == Suspension::Delayed);
            (moved > 0).then_some(NextRecord { record, answer: () })
        };
        match self.change(place, make, |_, ()| {}).await {
            // It is set aside when its lane is read.
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// An unreadable message is never tried again automatically.
    async fn set_aside(&self, place: MessagePlace, lane: &Lane, damage: &RecordDamage) -> Result<(), QueueError> {
        say_damaged(place, lane, damage);
        let make = |mut record: MessageRecord| {
            record.set_aside(lane.as_str());
            Some(NextRecord { record, answer: () })
        };
        self.change(place, make, |_, ()| {}).await.map(drop)
    }

    /// Takes a message that cannot be read out of the indexes of the lane; the rest of it stays.
    async fn forget_unindexed(&self, place: MessagePlace, lane: &Lane, domain: &str) -> Result<(), QueueError> {
        let mut change = RecordChange::new(&self.layout, place.shard);
        change.unindex(lane.as_str(), domain, place.id);
        self.link.commit(COMMIT, &change).await.map(drop).map_err(QueueError::from)
    }

    /// As if it had not been leased. Repeated until it is recorded, or the lease has ended by itself.
    async fn release(self: &Arc<Self>, lease: LeaseId) {
        let recipients = self.leases.lock().get(&lease).map_or(0, |active| active.held.positions.len());
        let mut backoff = Backoff::default();
        loop {
            match self.settle(lease, vec![Settlement::Untried; recipients], Timestamp::MIN).await {
                Ok(()) | Err(QueueError::Closed | QueueError::NoSuchLease) => return,
                Err(error) => error!(%error, "a lease could not be released"),
            }
            backoff.wait().await;
        }
    }
}

fn say_damaged(place: MessagePlace, lane: &Lane, damage: &RecordDamage) {
    let id = place.id;
    error!(%id, %lane, reason = %damage, "a message in the queue is damaged; it is set aside and not tried again");
}

fn assemble(
    lease: LeaseId,
    lane: &Lane,
    record: &MessageRecord,
    content: Vec<Option<Bytes>>,
    age: impl Fn(u64) -> Duration,
) -> Result<Leased, RecordDamage> {
    let mut content = content.into_iter();
    let mut next = || content.next().flatten().ok_or(RecordDamage::Missing);
    let (header, body) = (next()?, bodies::unpack(&next()?, record.size)?);
    if content_digest(&header, &body) != record.digest {
        return Err(RecordDamage::Content);
    }
    let envelope = record.envelope(record.open_on(lane.as_str()))?;
    if envelope.recipients.is_empty() {
        return Err(RecordDamage::NoRecipient);
    }
    fault::provoke("lending", &envelope.sender);
    let message = RawMessage::from_parts(header.to_vec(), body);
    let author = Author::of(&message).ok();
    let (origin, marks) = (record.origin(), record.marks.clone());
    let accepted =
        Accepted { id: record.id, received_at: record.received_at, origin, envelope, message, author, marks };
    let attempts = record.open_on(lane.as_str()).map(|recipient| recipient.attempts).max().unwrap_or(0);
    let job = record.jobs.get(lane.as_str());
    let possible_duplicate = job.is_some_and(|job| job.possible_duplicate && matches!(job.state, JobState::Leased(_)));
    let age = age(record.since);
    Ok(Leased { lease, lane: lane.clone(), accepted: Arc::new(accepted), attempts, age, possible_duplicate })
}
