//! `Link`: the servers of the queue. Finds and connects them when something is to be sent, and again after any failure or
//! failover; refuses one that is weak or does not hold the queue that this instance knows; says of each call whether it was
//! not done or may have been.

use super::answers::{list, number, octets, text};
use super::commit::{Committed, RecordChange};
use super::identity::{ShardIdentity, judge};
use super::known::{AcceptedCount, KnownFile, KnownQueue, QueueGeneration};
use super::layout::{Layout, hexadecimal};
use super::node::{CallError, Node};
use super::options::{RedisOptions, ServerAddress};
use super::places::locate;
use crate::observe::metrics::QueueMetrics;
use crate::queue::QueueError;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use parking_lot::Mutex;
use redis::{Cmd, ServerErrorKind, Value, cmd};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::time::sleep;
use tracing::warn;

/// Pause before a server that is just changing its role is asked again.
const A_MOMENT: Duration = Duration::from_millis(100);
/// For so long a failure to connect answers all calls.
const NO_USE_YET: Duration = Duration::from_millis(250);

/// In a full Redis, too.
const ADOPT: &str = "#!lua flags=allow-oom\nreturn redis.call('HSET', KEYS[1], 'gen', ARGV[1])";

#[derive(Debug)]
pub(super) struct Link {
    pub options: RedisOptions,
    pub layout: Layout,
    pub known: KnownFile,
    /// Records each change that is known to be on the disk.
    metrics: QueueMetrics,
    servers: tokio::sync::Mutex<Servers>,
    is_closed: AtomicBool,
    /// Since when no connection was lost, or made.
    calm_since: Mutex<Instant>,
    /// Why the servers cannot be used at the moment.
    trouble: Mutex<Option<QueueError>>,
}

#[derive(Debug, Default)]
struct Servers {
    /// By shard; empty: not known.
    places: Vec<ServerAddress>,
    nodes: HashMap<ServerAddress, Arc<Node>>,
    failed_at: Option<Instant>,
}

impl Link {
    pub(super) fn new(options: RedisOptions, layout: Layout, known: KnownFile, metrics: QueueMetrics) -> Self {
        Self {
            options,
            layout,
            known,
            metrics,
            servers: tokio::sync::Mutex::default(),
            is_closed: AtomicBool::new(false),
            calm_since: Mutex::new(Instant::now()),
            trouble: Mutex::default(),
        }
    }

    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// How long all servers have answered without a break.
    pub(super) fn calm(&self) -> Duration {
        self.calm_since.lock().elapsed()
    }

    pub(super) fn trouble(&self) -> Option<QueueError> {
        self.trouble.lock().clone()
    }

    /// Why no server answers. A server that is weak, or does not hold this queue, answers.
    pub(super) fn away(&self) -> Option<String> {
        match self.trouble() {
            Some(QueueError::Away(reason)) => Some(reason),
            _ => None,
        }
    }

    /// The server of a shard, which has been examined and holds this queue.
    pub(super) async fn node(&self, shard: u16) -> Result<Arc<Node>, CallError> {
        if self.is_closed() {
            return Err(CallError::NotDone(QueueError::Closed));
        }
        let mut servers = self.servers.lock().await;
        let node = servers.places.get(usize::from(shard)).and_then(|place| servers.nodes.get(place));
        if let Some(node) = node.filter(|node| !node.is_broken()) {
            return Ok(node.clone());
        }
        if servers.failed_at.is_some_and(|at| at.elapsed() < NO_USE_YET)
            && let Some(trouble) = self.trouble()
        {
            return Err(CallError::NotDone(trouble));
        }
        *self.calm_since.lock() = Instant::now();
        let connected = self.connect(&mut servers, shard).await;
        if connected.is_err() {
            servers.places.clear();
        }
        servers.failed_at = connected.is_err().then(Instant::now);
        *self.trouble.lock() = connected.as_ref().err().cloned();
        connected.map_err(CallError::NotDone)
    }

    async fn connect(&self, servers: &mut Servers, shard: u16) -> Result<Arc<Node>, QueueError> {
        servers.nodes.retain(|_, node| !node.is_broken());
        if servers.places.is_empty() {
            servers.places = locate(&self.options, &self.layout).await?;
        }
        let address = servers.places.get(usize::from(shard)).cloned().unwrap_or_else(|| servers.places[0].clone());
        if let Some(node) = servers.nodes.get(&address) {
            return Ok(node.clone());
        }
        let node = Node::connect(&address, &self.options).await.map_err(|error| error.at(&address))?;
        let losses = node.examined.lock().losses.clone();
        if !losses.is_empty() {
            warn!(%address, "acknowledged mail can be lost, which accept_data_loss = true accepts: {}", losses.join("; "));
        }
        for shard in self.layout.all_shards().filter(|shard| servers.places.get(usize::from(*shard)) == Some(&address))
        {
            self.identify(&node, shard).await?;
        }
        let node = Arc::new(node);
        servers.nodes.insert(address, node.clone());
        Ok(node)
    }

    /// Whether a server holds the queue that this instance knows; creates it in an empty one if nothing can be missing.
    async fn identify(&self, node: &Node, shard: u16) -> Result<(), QueueError> {
        // From before the question: a put that is answered meanwhile may not be part of the answer.
        let known = self.known.read();
        let mut stored = self.identity_at(node, shard).await?;
        match judge(&known, shard, self.layout.shards, stored.as_ref()) {
            Ok(None) => {}
            Ok(Some(new)) => {
                let mut create = cmd("HSETNX");
                create.arg(self.layout.control(shard)).arg("gen").arg(new.encode());
                checked(node, node.write(create).await?)?;
                // Another instance may have been faster.
                stored = self.identity_at(node, shard).await?;
                judge(&known, shard, self.layout.shards, stored.as_ref())
                    .map_err(|error| QueueError::Moved(error.to_string()))?;
            }
            Err(error) => return Err(QueueError::Moved(format!("Redis at {}: {error}", node.address))),
        }
        if let Some(stored) = stored {
            say_missing(&known, shard, &stored);
            self.known.learn(shard, stored.generation, stored.accepted);
        }
        Ok(())
    }

    async fn identity_at(&self, node: &Node, shard: u16) -> Result<Option<ShardIdentity>, QueueError> {
        let mut read = cmd("HMGET");
        let own = format!("accepted:{}", self.known.read().instance);
        read.arg(self.layout.control(shard)).arg("gen").arg("accepted").arg(own);
        let value = node.read(&[read]).await?.pop().unwrap_or(Value::Nil);
        let mut fields = list(checked(node, value)?).into_iter();
        let generation = fields.next().and_then(text).and_then(|stored| QueueGeneration::decode(&stored));
        let mut count = || fields.next().and_then(number).unwrap_or_default();
        let accepted = AcceptedCount { all: count(), own: count() };
        Ok(generation.map(|generation| ShardIdentity { generation, accepted }))
    }

    /// Asks every server again what it promises and holds. Returns the clock and the memory of the first shard's.
    pub(super) async fn look(&self) -> Result<super::server::Examined, QueueError> {
        let mut first = None;
        for shard in self.layout.all_shards() {
            let node = self.node(shard).await?;
            if shard == 0 || first.is_none() {
                let examined = node.examine(&self.options).await;
                first = Some(examined.map_err(|error| error.at(&node.address))?);
            }
            self.identify(&node, shard).await.inspect_err(|_| node.set_broken())?;
        }
        first.ok_or(QueueError::Closed)
    }

    /// What Redis holds now is this queue from now on, whatever this instance remembers. Returns how many acknowledged
    /// messages are missing.
    pub(super) async fn adopt(&self) -> Result<u64, QueueError> {
        let mut missing = 0;
        let known = self.known.read();
        let places = locate(&self.options, &self.layout).await?;
        let mut adopted = Vec::new();
        let mut next: Option<QueueGeneration> = None;
        for (shard, address) in self.layout.all_shards().zip(&places) {
            let node = Node::connect(address, &self.options).await;
            let node = node.map_err(|error| error.at(address))?;
            let stored = self.identity_at(&node, shard).await?;
            let accepted = stored.as_ref().map_or_else(AcceptedCount::default, |stored| stored.accepted);
            let remembered = known.accepted.get(usize::from(shard)).copied().unwrap_or_default();
            missing += remembered.missing_in(accepted);
            let next = next.get_or_insert_with(|| super::identity::after(&known, stored.as_ref(), self.layout.shards));
            let mut set = cmd("EVAL");
            set.arg(ADOPT).arg(1).arg(self.layout.control(shard)).arg(next.encode());
            checked(&node, node.write(set).await?)?;
            adopted.push(accepted);
        }
        self.known.change(|known| {
            known.generation = next;
            known.accepted = adopted;
        });
        self.known.keep().map_err(|error| QueueError::Storage(error.to_string()))?;
        self.servers.lock().await.nodes.values().for_each(|node| node.set_broken());
        Ok(missing)
    }

    /// Commands that change nothing, all on one shard. They are sent again if a connection breaks under them.
    pub(super) async fn read(&self, shard: u16, commands: Vec<Cmd>) -> Result<Vec<Value>, QueueError> {
        let asked = Instant::now();
        loop {
            let node = self.node(shard).await?;
            let answers = match node.read(&commands).await {
                Ok(answers) => answers,
                Err(error) if asked.elapsed() > self.options.timeout => return Err(error.into()),
                Err(_) => continue,
            };
            match answers.iter().find(|answer| passes(answer)) {
                Some(_) if asked.elapsed() < self.options.timeout => self.wait_for_another(&node).await,
                _ => {
                    return answers
                        .into_iter()
                        .map(|answer| checked(&node, answer).map_err(QueueError::from))
                        .collect();
                }
            }
        }
    }

    /// One change. It is repeated only if it was certainly not done.
    pub(super) async fn commit(&self, script: &'static str, change: &RecordChange<'_>) -> Result<Committed, CallError> {
        let asked = Instant::now();
        let generation = self.known.read().generation.map(|generation| generation.encode()).unwrap_or_default();
        let value = self.call(change.shard, script, &change.keys, |command| {
            command.arg(&generation).arg(change.shard).arg(change.layout.shards);
            for step in &change.steps {
                command.arg(&step[..]);
            }
        });
        let committed = committed(value.await?)?;
        if matches!(committed, Committed::Done(_)) {
            self.metrics.committed(asked.elapsed());
        }
        if committed == Committed::OtherIdentity
            && let Ok(node) = self.node(change.shard).await
        {
            // Connecting again says what is wrong with it.
            node.set_broken();
        }
        Ok(committed)
    }

    /// Runs a script; its keys lie in one shard.
    pub(super) async fn call(
        &self,
        shard: u16,
        script: &str,
        keys: &[String],
        arguments: impl Fn(&mut Cmd),
    ) -> Result<Value, CallError> {
        let with = |name: &str, script: &str| {
            let mut command = cmd(name);
            command.arg(script).arg(keys.len());
            command.arg(keys);
            arguments(&mut command);
            command
        };
        // The cache of scripts is empty after a restart and on another server.
        for command in [with("EVALSHA", &name_of(script)), with("EVAL", script)] {
            match self.write(shard, command).await {
                Ok(Value::ServerError(error)) if error.kind() == Some(ServerErrorKind::NoScript) => {}
                other => return other,
            }
        }
        Err(CallError::Unanswered(QueueError::Storage("Redis forgets scripts at once".into())))
    }

    async fn write(&self, shard: u16, command: Cmd) -> Result<Value, CallError> {
        let asked = Instant::now();
        loop {
            let node = self.node(shard).await?;
            let answer = node.write(command.clone()).await?;
            if passes(&answer) && asked.elapsed() < self.options.timeout {
                self.wait_for_another(&node).await;
                continue;
            }
            return match answer {
                Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript) => {
                    Ok(Value::ServerError(error))
                }
                other => checked(&node, other),
            };
        }
    }

    /// The server is not the one any more, or not yet.
    async fn wait_for_another(&self, node: &Node) {
        node.set_broken();
        self.servers.lock().await.places.clear();
        sleep(A_MOMENT).await;
    }
}

/// After another instance has adopted a state of the queue.
fn say_missing(known: &KnownQueue, shard: u16, stored: &ShardIdentity) {
    let remembered = known.accepted.get(usize::from(shard)).copied().unwrap_or_default();
    let missing = remembered.missing_in(stored.accepted);
    if missing > 0 && known.generation.as_ref().is_some_and(|generation| generation.queue == stored.generation.queue) {
        warn!("another instance has adopted the shared queue; {missing} acknowledged messages are missing in it");
    }
}

/// An answer that says that nothing was done, and that another server or the same one will do it soon.
fn passes(answer: &Value) -> bool {
    let Value::ServerError(error) = answer else { return false };
    matches!(
        error.code(),
        "READONLY" | "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN" | "LOADING" | "UNBLOCKED"
    )
}

/// An answer that is an error means that nothing was done.
fn checked(node: &Node, value: Value) -> Result<Value, CallError> {
    let Value::ServerError(error) = value else { return Ok(value) };
    let details = error.details().unwrap_or_default();
    let refused = match error.code() {
        "OOM" => QueueError::Full("Redis has no memory left (maxmemory)".into()),
        "READONLY" | "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN" | "LOADING" | "UNBLOCKED" => {
            QueueError::Away(format!("Redis at {} is not ready: {} {details}", node.address, error.code()))
        }
        code => QueueError::Storage(format!("Redis at {} refuses: {code} {details}", node.address)),
    };
    Err(CallError::NotDone(refused))
}

/// As EVALSHA names it.
fn name_of(script: &str) -> String {
    hexadecimal(digest(&SHA1_FOR_LEGACY_USE_ONLY, script.as_bytes()).as_ref())
}

fn committed(value: Value) -> Result<Committed, CallError> {
    let Value::Array(values) = value else { return Err(unexpected()) };
    let mut values = values.into_iter().map(octets);
    let reason = values.next().flatten().unwrap_or_default();
    Ok(match &reason[..] {
        b"done" => Committed::Done(values.collect()),
        b"changed" => Committed::Changed,
        b"stored" => Committed::Stored,
        b"taken" => Committed::Taken,
        b"revoked" => Committed::Revoked,
        b"held" => Committed::Held,
        b"epoch" => Committed::OtherEpoch,
        b"running" => Committed::Running,
        b"identity" => Committed::OtherIdentity,
        b"known" => {
            let id = values.next().flatten().and_then(|id| std::str::from_utf8(&id).ok()?.parse().ok());
            Committed::Known(id.ok_or_else(unexpected)?)
        }
        _ => return Err(unexpected()),
    })
}

fn unexpected() -> CallError {
    CallError::Unanswered(QueueError::Storage("Redis gave an answer that this program does not know".into()))
}
