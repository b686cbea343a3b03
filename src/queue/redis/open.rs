//! Opens the queue: creates its identity if Redis is empty, reads its clock, and takes back what this instance had leased
//! when it last ended.

use super::layout::{Layout, MessagePlace, split_lease_member};
use super::link::{Link, list, text, texts};
use super::options::{RedisOptions, RedisPlace};
use super::record::MessageRecord;
use super::store::{NextRecord, RedisStore, token};
use super::times::Times;
use crate::observe::Clock;
use crate::observe::clock::Boot;
use crate::queue::lifetime::{Lifetime, Record};
use crate::queue::schedule::Schedule;
use crate::queue::{Handoffs, QueueError, Wakeups};
use redis::cmd;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Options for opening a queue in Redis.
#[derive(Debug, Clone)]
pub(crate) struct RedisQueueOptions {
    pub redis: RedisOptions,
    /// Names this instance, the same at every start.
    pub instance: String,
    pub lease_length: Duration,
    pub schedule: Schedule,
    pub clock: Clock,
}

pub(super) async fn open(options: RedisQueueOptions) -> Result<RedisStore, QueueError> {
    let shards = match options.redis.place {
        RedisPlace::Cluster { shards, .. } => shards,
        RedisPlace::Single(_) | RedisPlace::Sentinel { .. } => 1,
    };
    let layout = Layout::new(&options.redis.prefix, shards);
    let link = Link::new(options.redis);
    let times = Times::new(options.clock.clone());
    identify(&link, &layout).await?;
    let record = read_lifetime(&link, &layout).await?;
    let store = RedisStore {
        link,
        layout,
        times,
        lifetime: Lifetime::resume(&record, options.clock, options.schedule.expire),
        schedule: options.schedule,
        instance: options.instance,
        lease_length: options.lease_length,
        leases: parking_lot::Mutex::default(),
        next_lease: AtomicI64::new(1),
        turns: parking_lot::Mutex::default(),
        searches: parking_lot::Mutex::default(),
        reassignment: parking_lot::Mutex::default(),
        epoch: AtomicU64::new(0),
        routes: parking_lot::Mutex::default(),
        wakeups: Wakeups::default(),
        handoffs: Handoffs::default(),
    };
    store.epoch.store(store.counter(0, "epoch").await?.unsigned_abs(), Ordering::Relaxed);
    store.take_back_own().await?;
    Ok(store)
}

async fn identify(link: &Link, layout: &Layout) -> Result<(), QueueError> {
    for shard in layout.all_shards() {
        let mut create = cmd("HSETNX");
        create.arg(layout.control(shard)).arg("gen").arg(token());
        let mut read = cmd("HGET");
        read.arg(layout.control(shard)).arg("gen");
        let generation = link.read(shard, vec![create, read]).await?.pop().and_then(text).unwrap_or_default();
        *link.generation.lock() = generation;
    }
    Ok(())
}

async fn read_lifetime(link: &Link, layout: &Layout) -> Result<Record, QueueError> {
    let mut command = cmd("HMGET");
    command.arg(layout.lifetime()).arg("lived").arg("at").arg("latest").arg("boot").arg("uptime");
    let values = link.read(0, vec![command]).await?.pop().map(list).unwrap_or_default();
    let mut fields = values.into_iter().map(|value| text(value).unwrap_or_default());
    let mut next = || fields.next().unwrap_or_default();
    let Ok(lived) = next().parse().map(Duration::from_millis) else { return Ok(Record::default()) };
    let (at, latest, id) = (next().parse().ok(), next().parse().ok(), next());
    let uptime = next().parse().ok().map(Duration::from_millis);
    let boot = uptime.filter(|_| !id.is_empty()).map(|uptime| Boot { id, uptime });
    Ok(Record { lived, at, latest, boot })
}

impl RedisStore {
    /// This instance's process has ended, so nothing that it had leased is being sent.
    async fn take_back_own(&self) -> Result<(), QueueError> {
        for shard in self.layout.all_shards() {
            let mut all = cmd("ZRANGE");
            all.arg(self.layout.leases(shard, &self.instance)).arg(0).arg(-1);
            let members = self.link.read(shard, vec![all]).await?.pop().map(texts).unwrap_or_default();
            for (id, fence, lane) in members.iter().filter_map(|member| split_lease_member(member)) {
                let make = |mut record: MessageRecord| {
                    record.take_back(lane, fence, true).then_some(NextRecord { record, answer: () })
                };
                self.change(MessagePlace { shard, id }, make, |_, ()| {}).await?;
            }
        }
        Ok(())
    }
}
