//! Leases of this and of other instances: renews those that it holds, takes back those of instances that have vanished, and
//! says whether one may still be used.

use super::answers::texts;
use super::commit::RecordChange;
use super::layout::{MessagePlace, lease_member, split_lease_member};
use super::lease::FencedLease;
use super::record::MessageRecord;
use super::store::{NextRecord, RedisStore};
use crate::queue::{Lane, LeaseId, QueueError};
use redis::cmd;
use std::collections::HashSet;
use std::time::Instant;
use tracing::{info, warn};

const RENEW: &str = include_str!("scripts/renew.lua");

/// Leases that are taken back in one go.
const MOST: usize = 500;

impl RedisStore {
    /// A holder stops before it sends when the end is so near that a command could not be answered in time.
    pub(super) fn still_holds(&self, lease: LeaseId) -> bool {
        let leases = self.leases.lock();
        leases.get(&lease).is_some_and(|held| Instant::now() + self.link.options.timeout < held.ends)
    }

    /// Leases that somebody else has taken over stay as they are: settling them says so.
    pub(super) async fn renew(&self) -> Result<(), QueueError> {
        for shard in self.layout.all_shards() {
            let held: Vec<(LeaseId, String)> = {
                let leases = self.leases.lock();
                let here = leases.iter().filter(|(_, active)| active.held.place.shard == shard);
                here.map(|(lease, active)| {
                    (*lease, lease_member(active.held.place.id, active.held.fence, &active.held.lane))
                })
                .collect()
            };
            for held in held.chunks(MOST) {
                let asked = Instant::now();
                let keys = [self.layout.leases(shard, &self.instance)];
                let called = self.link.call(shard, RENEW, &keys, |command| {
                    command.arg(self.lease_length.as_millis() as u64);
                    held.iter().for_each(|(_, member)| {
                        command.arg(member);
                    });
                });
                let renewed: HashSet<String> = texts(called.await?).into_iter().collect();
                let mut leases = self.leases.lock();
                for (lease, _) in held.iter().filter(|(_, member)| renewed.contains(member)) {
                    if let Some(held) = leases.get_mut(lease) {
                        held.ends = asked + self.lease_length;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes back leases that have ended: of other instances, which may have sent the message, and those of this one of which
    /// it was never told. Not in the first two lease times after a connection was lost: their holders may have lost theirs,
    /// too, and need time to renew or settle.
    pub(super) async fn take_over(&self) -> Result<(), QueueError> {
        if self.link.calm() < self.lease_length * 2 {
            return Ok(());
        }
        let mut lanes = HashSet::new();
        for instance in self.instances().await? {
            for shard in self.layout.all_shards() {
                let mut ended = cmd("ZRANGEBYSCORE");
                ended.arg(self.layout.leases(shard, &instance)).arg("-inf").arg(self.server_now(shard).await?);
                ended.arg("LIMIT").arg(0).arg(MOST);
                let members = self.link.read(shard, vec![ended]).await?.pop().map(texts).unwrap_or_default();
                for member in members {
                    if self.take_over_one(shard, &instance, &member).await? {
                        lanes.extend(split_lease_member(&member).map(|(.., lane)| Lane::new(lane)));
                    }
                }
            }
        }
        self.wakeups.wake(&lanes);
        Ok(())
    }

    async fn take_over_one(&self, shard: u16, instance: &str, member: &str) -> Result<bool, QueueError> {
        let Some((id, fence, lane)) = split_lease_member(member) else { return Ok(false) };
        let is_own = instance == self.instance;
        let is_held =
            self.leases.lock().values().any(|active| active.held.place.id == id && active.held.fence == fence);
        if is_own && is_held {
            return Ok(false);
        }
        let make = |mut record: MessageRecord| {
            record.take_back(lane, fence, !is_own).then_some(NextRecord { record, answer: () })
        };
        let still_ended = |change: &mut RecordChange<'_>, (): &()| {
            change.if_ended(instance, member);
        };
        let taken = self.change(MessagePlace { shard, id }, make, still_ended).await?.is_some();
        if taken && !is_own {
            warn!(%id, lane, instance, "a lease of another instance has ended; its message is tried again, and may be a duplicate");
        }
        Ok(taken)
    }

    /// Takes back leases whose answers were lost; nothing was sent under them. The new version of the record keeps a request
    /// that is still on its way from taking effect.
    pub(super) async fn take_back_unsure(&self) -> Result<(), QueueError> {
        loop {
            let Some(FencedLease { place, lane, fence, .. }) = self.unsure.lock().last().cloned() else {
                return Ok(());
            };
            let make = |mut record: MessageRecord| {
                let is_waiting =
                    |record: &MessageRecord| record.jobs.get(&lane).is_some_and(|job| job.state.is_waiting());
                let is_to_change = record.take_back(&lane, fence, false) || is_waiting(&record);
                is_to_change.then_some(NextRecord { record, answer: () })
            };
            // A damaged record is set aside by the next lease.
            if self.load_one(place).await?.is_some_and(|loaded| loaded.record.is_ok()) {
                self.change(place, make, |_, ()| {}).await?;
            }
            self.unsure.lock().retain(|lease| (lease.place, lease.fence) != (place, fence));
            self.wakeups.wake(&[Lane::new(lane)]);
        }
    }

    /// Microseconds since 1970 by the server's clock.
    async fn server_now(&self, shard: u16) -> Result<i64, QueueError> {
        let time = self.link.read(shard, vec![cmd("TIME")]).await?.pop().map(texts).unwrap_or_default();
        let part = |at: usize| time.get(at).and_then(|part| part.parse::<i64>().ok()).unwrap_or_default();
        Ok(part(0).saturating_mul(1_000_000).saturating_add(part(1)))
    }

    /// This instance's process has ended, so nothing that it had leased is being sent.
    pub(super) async fn take_back_own(&self) -> Result<(), QueueError> {
        let (count, _) = self.take_back_all(&self.instance).await?;
        if count > 0 {
            info!(count, "messages were leased when this instance ended; they are tried again, and may be duplicates");
        }
        Ok(())
    }
}
