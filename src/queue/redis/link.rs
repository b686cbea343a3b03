//! `Link`: the connections to the servers of the queue. Connects when something is to be sent, again after any failure, and
//! says of each call whether it was not done or may have been.

use super::commit::{Committed, RecordChange};
use super::connect::{Task, connect};
use super::options::{RedisOptions, ServerAddress};
use crate::queue::QueueError;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use bytes::Bytes;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisError, ServerErrorKind, Value, cmd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug)]
pub(super) struct Link {
    address: ServerAddress,
    options: RedisOptions,
    node: tokio::sync::Mutex<Option<Arc<Node>>>,
    /// The queue's identity and generation, which every change names.
    pub generation: Mutex<String>,
    is_closed: AtomicBool,
}

/// One connection to one server.
#[derive(Debug)]
pub(super) struct Node {
    connection: MultiplexedConnection,
    is_broken: AtomicBool,
    _driver: Task,
}

/// Why there is no answer.
#[derive(Debug, Clone)]
pub(super) enum CallError {
    /// Nothing was done.
    NotDone(QueueError),
    /// It was done, or it was not.
    Unanswered(String),
}

impl From<CallError> for QueueError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NotDone(error) => error,
            CallError::Unanswered(reason) => Self::Storage(reason),
        }
    }
}

impl Link {
    pub(super) fn new(options: RedisOptions) -> Self {
        let address = options.place.addresses().first().cloned();
        Self {
            address: address.unwrap_or(ServerAddress::Unix(std::path::PathBuf::new())),
            options,
            node: tokio::sync::Mutex::default(),
            generation: Mutex::default(),
            is_closed: AtomicBool::new(false),
        }
    }

    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    async fn node(&self, _shard: u16) -> Result<Arc<Node>, CallError> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(CallError::NotDone(QueueError::Closed));
        }
        let mut current = self.node.lock().await;
        if let Some(node) = current.as_ref().filter(|node| !node.is_broken.load(Ordering::Relaxed)) {
            return Ok(node.clone());
        }
        *current = None;
        let (connection, driver) = connect(&self.address, &self.options)
            .await
            .map_err(|error| CallError::NotDone(QueueError::Storage(format!("Redis at {}: {error}", self.address))))?;
        let node = Arc::new(Node { connection, is_broken: AtomicBool::new(false), _driver: driver });
        *current = Some(node.clone());
        Ok(node)
    }

    /// Commands that change nothing, all on one shard. They are sent again if a connection breaks under them.
    pub(super) async fn read(&self, shard: u16, commands: Vec<Cmd>) -> Result<Vec<Value>, QueueError> {
        let first = self.send(shard, &commands).await;
        let answers = match first {
            Err(CallError::Unanswered(_)) => self.send(shard, &commands).await,
            other => other,
        };
        answers?.into_iter().map(|value| self.checked(value).map_err(QueueError::from)).collect()
    }

    /// One change. It is not repeated.
    pub(super) async fn commit(&self, script: &'static str, change: &RecordChange<'_>) -> Result<Committed, CallError> {
        let generation = self.generation.lock().clone();
        let value = self.call(change.shard, script, &change.keys, |command| {
            command.arg(&generation).arg(change.shard).arg(change.layout.shards);
            for step in &change.steps {
                command.arg(&step[..]);
            }
        });
        committed(value.await?)
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
            let mut values = self.send(shard, &[command]).await?;
            match values.pop() {
                Some(Value::ServerError(error)) if error.kind() == Some(ServerErrorKind::NoScript) => {}
                Some(value) => return self.checked(value),
                None => break,
            }
        }
        Err(CallError::Unanswered("Redis gave no answer".into()))
    }

    async fn send(&self, shard: u16, commands: &[Cmd]) -> Result<Vec<Value>, CallError> {
        let node = self.node(shard).await?;
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command(command.clone());
        }
        let sent = node.connection.clone().send_packed_commands(&pipeline, 0, commands.len()).await;
        sent.map_err(|error| {
            node.is_broken.store(true, Ordering::Relaxed);
            CallError::Unanswered(format!("Redis at {} did not answer: {}", self.address, plain(&error)))
        })
    }

    /// An answer that is an error means that nothing was done.
    fn checked(&self, value: Value) -> Result<Value, CallError> {
        let Value::ServerError(error) = value else { return Ok(value) };
        let text = format!("{} {}", error.code(), error.details().unwrap_or_default());
        let refused = match error.code() {
            "OOM" => QueueError::Full("Redis has no memory left (maxmemory)".into()),
            _ => QueueError::Storage(format!("Redis at {} refuses: {}", self.address, text.trim())),
        };
        Err(CallError::NotDone(refused))
    }
}

fn plain(error: &RedisError) -> String {
    if error.is_timeout() { "it timed out".to_owned() } else { error.to_string() }
}

/// As EVALSHA names it.
fn name_of(script: &str) -> String {
    super::layout::hexadecimal(digest(&SHA1_FOR_LEGACY_USE_ONLY, script.as_bytes()).as_ref())
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
    CallError::Unanswered("Redis gave an answer that this program does not know".into())
}

/// The octets of an answer; `None`: there is no such value.
pub(super) fn octets(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(octets) => Some(octets.into()),
        Value::SimpleString(text) => Some(text.into()),
        Value::Int(number) => Some(number.to_string().into()),
        _ => None,
    }
}

pub(super) fn text(value: Value) -> Option<String> {
    String::from_utf8(octets(value)?.to_vec()).ok()
}

pub(super) fn number<T: std::str::FromStr>(value: Value) -> Option<T> {
    text(value)?.parse().ok()
}

/// The elements of a list.
pub(super) fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values,
        _ => Vec::new(),
    }
}

/// The texts of a list.
pub(super) fn texts(value: Value) -> Vec<String> {
    list(value).into_iter().filter_map(text).collect()
}

/// The members of a sorted set with their scores.
pub(super) fn scored(value: Value) -> Vec<(String, i64)> {
    let mut found = Vec::new();
    let mut values = list(value).into_iter();
    while let (Some(member), Some(score)) = (values.next(), values.next()) {
        found.extend(text(member).zip(number(score)));
    }
    found
}
