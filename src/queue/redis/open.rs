//! Opens the queue: creates its identity if Redis is empty, reads its clock, and takes back what this instance had leased
//! when it last ended.

use super::answers::{list, text};
use super::journal::Journal;
use super::known::KnownFile;
use super::layout::Layout;
use super::link::Link;
use super::memory::Memory;
use super::options::{Fallback, RedisOptions, RedisPlace};
use super::spool::SpoolOptions;
use super::store::RedisStore;
use super::times::Times;
use crate::observe::Clock;
use crate::observe::clock::Boot;
use crate::observe::metrics::QueueMetrics;
use crate::queue::lifetime::{Lifetime, Record};
use crate::queue::schedule::Schedule;
use crate::queue::{Handoffs, QueueError, Wakeups};
use parking_lot::Mutex;
use redis::cmd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;
use tracing::warn;

/// Options for opening a queue in Redis.
#[derive(Debug, Clone)]
pub(crate) struct RedisQueueOptions {
    pub redis: RedisOptions,
    /// What this instance must remember itself is there. The caller holds the folder's lock.
    pub data_dir: PathBuf,
    pub lease_length: Duration,
    /// How long a put whose answer is lost is repeated; shorter than clients wait.
    pub put_patience: Duration,
    /// False: a command, which is not shown among the instances, takes over nothing, and moves nothing from the spool.
    pub is_gateway: bool,
    pub spool: SpoolOptions,
    /// Records each change that is known to be on the disk.
    pub metrics: QueueMetrics,
    pub schedule: Schedule,
    pub clock: Clock,
}

impl RedisQueueOptions {
    pub(crate) fn new(redis: RedisOptions, data_dir: PathBuf, schedule: Schedule) -> Self {
        Self {
            redis,
            data_dir,
            schedule,
            lease_length: Duration::from_secs(60),
            put_patience: Duration::from_secs(30),
            is_gateway: true,
            spool: SpoolOptions::default(),
            metrics: QueueMetrics::default(),
            clock: Clock::System,
        }
    }
}

pub(super) async fn open(options: RedisQueueOptions) -> Result<RedisStore, QueueError> {
    let known = KnownFile::open(&options.data_dir).map_err(|error| of_io(&options.data_dir, &error))?;
    let store = unopened(options, known)?;
    match store.begun().await {
        Err(QueueError::Away(reason)) if store.has_spool => {
            warn!(
                reason,
                "Redis does not answer; new mail is stored in the spool, and nothing is delivered until it does"
            );
        }
        begun => begun?,
    }
    Ok(store)
}

/// To read what is there, beside a gateway that uses the folder or without one. Nothing is stored.
pub(super) async fn peek(options: RedisQueueOptions) -> Result<RedisStore, QueueError> {
    let known = KnownFile::peek(&options.data_dir).map_err(|error| of_io(&options.data_dir, &error))?;
    let store = unopened(options, known)?;
    store.look_and_measure().await?;
    Ok(store)
}

fn of_io(data_dir: &Path, error: &std::io::Error) -> QueueError {
    QueueError::Storage(format!("{}: {error}", data_dir.display()))
}

/// Connects to nothing.
pub(super) fn unopened(options: RedisQueueOptions, known: KnownFile) -> Result<RedisStore, QueueError> {
    let layout = layout_of(&options.redis);
    let journal = Journal::open(&options.data_dir).map_err(|error| of_io(&options.data_dir, &error))?;
    let instance = known.read().instance;
    let host = || gethostname::gethostname().to_string_lossy().into_owned();
    let name = options.redis.instance.clone().unwrap_or_else(host);
    let (has_spool, timeout) = (options.redis.fallback == Fallback::Sqlite, options.redis.timeout);
    let link = Link::new(options.redis, layout.clone(), known, options.metrics);
    let times = Times::new(options.clock.clone());
    let record = link.known.read().clock.map(Record::from).unwrap_or_default();
    Ok(RedisStore {
        has_begun: tokio::sync::OnceCell::new(),
        clock: options.clock.clone(),
        link,
        layout,
        times,
        lifetime: Lifetime::resume(&record, options.clock.clone(), options.schedule.expire),
        schedule: options.schedule,
        instance,
        name,
        is_gateway: options.is_gateway,
        started: options.clock.now(),
        memory: Memory::default(),
        journal,
        telling: tokio::sync::Mutex::default(),
        unanswered: Mutex::default(),
        unsure: Mutex::default(),
        // With a spool nobody waits for a server that does not answer.
        put_patience: if has_spool { options.put_patience.min(timeout) } else { options.put_patience },
        has_spool,
        lease_length: options.lease_length,
        leases: Mutex::default(),
        next_lease: AtomicI64::new(1),
        next_shard: AtomicU16::new(0),
        turns: Mutex::default(),
        searches: Mutex::default(),
        reassignment: Mutex::default(),
        lanes_are_old: AtomicBool::new(false),
        epoch: AtomicU64::new(0),
        routes: Mutex::default(),
        wakeups: Wakeups::default(),
        handoffs: Handoffs::default(),
    })
}

impl RedisStore {
    /// Nothing is leased before this has returned `Ok` once: it takes back what this instance had leased when it last ended.
    pub(super) async fn begun(&self) -> Result<(), QueueError> {
        self.has_begun.get_or_try_init(async || self.begin().await).await.map(drop)
    }

    async fn begin(&self) -> Result<(), QueueError> {
        self.look_and_measure().await?;
        if self.is_gateway {
            // For a start while Redis is away.
            self.keep_lifetime(true).await?;
        }
        self.link.known.keep().map_err(|error| QueueError::Storage(format!("what is known of the queue: {error}")))?;
        self.epoch.store(self.counter(0, "epoch").await?.unsigned_abs(), Ordering::Relaxed);
        self.say_alive().await?;
        self.replay().await?;
        self.take_back_own().await
    }

    async fn look_and_measure(&self) -> Result<(), QueueError> {
        let examined = self.link.look().await?;
        self.times.measure(examined.time);
        self.memory.learn(examined.used_memory, examined.max_memory);
        let record = read_lifetime(&self.link, &self.layout).await?;
        let shared = Lifetime::resume(&record, self.clock.clone(), self.schedule.expire);
        self.lifetime.catch_up(shared.now());
        Ok(())
    }
}

/// The caller holds the lock of the data folder, so no queue is open there.
pub(super) async fn adopt(options: RedisQueueOptions) -> Result<u64, QueueError> {
    let layout = layout_of(&options.redis);
    let known = KnownFile::open(&options.data_dir);
    let known = known.map_err(|error| QueueError::Storage(format!("{}: {error}", options.data_dir.display())))?;
    Link::new(options.redis, layout, known, options.metrics).adopt().await
}

fn layout_of(options: &RedisOptions) -> Layout {
    let shards = match options.place {
        RedisPlace::Cluster { shards, .. } => shards,
        RedisPlace::Single(_) | RedisPlace::Sentinel { .. } => 1,
    };
    Layout::new(&options.prefix, shards)
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
