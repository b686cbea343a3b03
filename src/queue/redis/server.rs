//! What a server promises about what it acknowledges, asked of the server itself: at every connection, and with every group
//! of changes, since CONFIG SET and a failover change it while mail is accepted.

use super::answers::{list, text, texts};
use super::options::{RedisOptions, ServerAddress};
use crate::queue::QueueError;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisError, Value, cmd};
use std::collections::HashMap;
use std::time::Duration;

/// The first version that knows WAITAOF. Valkey says that it is 7.2.4.
const WAITAOF: (u32, u32) = (7, 2);
/// The first version with the flags of scripts that this program uses.
const OLDEST: (u32, u32) = (7, 0);

/// Settings that a server without WAITAOF must have, each with its value and what is lost otherwise.
const REQUIRED: [(&str, &str, &str); 3] = [
    ("appendonly", "yes", "everything since the last snapshot is lost when it ends"),
    ("appendfsync", "always", "the last seconds are lost when its machine fails"),
    ("no-appendfsync-on-rewrite", "no", "up to 30 seconds are lost when its machine fails while it rewrites its file"),
];

/// What builds the 250.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// The number that WAITAOF returns.
    Waitaof,
    /// The settings, read after each group of changes.
    Settings,
    /// The operator accepts that acknowledged mail can be lost.
    None,
}

/// What a server said of itself.
#[derive(Debug, Clone)]
pub(super) struct Examined {
    pub proof: Proof,
    pub run_id: String,
    pub used_memory: u64,
    /// 0: no limit.
    pub max_memory: u64,
    /// Microseconds since 1970 by its clock.
    pub time: i64,
    /// What can be lost, if the operator accepts that.
    pub losses: Vec<String>,
}

/// Why a server is not used.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Unusable {
    /// It does not answer, or not yet.
    #[error("{0}")]
    Away(String),
    #[error("{0}")]
    Unreachable(String),
    #[error("it is a replica, not the master")]
    Replica,
    #[error("it is version {0}; waxseal needs Redis 7.0 or later, or Valkey")]
    TooOld(String),
    #[error(
        "it may not be asked for its settings: allow the user `+config|get +info`, or use a server that knows WAITAOF (Redis 7.2, Valkey)"
    )]
    Forbidden,
    #[error("it can lose mail that it acknowledged: {}; change that, or set accept_data_loss = true", .0.join("; "))]
    Weak(Vec<String>),
}

impl Unusable {
    /// `address`: of the server.
    pub(super) fn at(&self, address: &ServerAddress) -> QueueError {
        let text = format!("Redis at {address}: {self}");
        match self {
            // A replica that was the master, or is about to be.
            Self::Away(_) | Self::Replica => QueueError::Away(text),
            _ => QueueError::Storage(text),
        }
    }
}

pub(super) async fn examine(
    connection: &MultiplexedConnection,
    options: &RedisOptions,
    address: &ServerAddress,
) -> Result<Examined, Unusable> {
    let mut pipeline = Pipeline::new();
    pipeline.add_command(cmd("INFO")).add_command(cmd("TIME")).add_command(settings());
    let sent = connection.clone().send_packed_commands(&pipeline, 0, 3).await;
    let answers = sent.map_err(|error| unreachable(address, &error))?;
    let mut answers = answers.into_iter();
    let info = match answers.next() {
        Some(Value::ServerError(error)) if error.code() == "NOPERM" => return Err(Unusable::Forbidden),
        Some(Value::ServerError(error)) => return Err(unreachable(address, &error.into())),
        info => fields(&info.and_then(text).unwrap_or_default()),
    };
    let field = |name: &str| info.get(name).map(String::as_str).unwrap_or_default();
    let time = answers.next().map(texts).unwrap_or_default();
    let part = |at: usize| time.get(at).and_then(|part| part.parse::<i64>().ok()).unwrap_or_default();
    if field("role") == "slave" {
        return Err(Unusable::Replica);
    }
    let version = version_of(field("redis_version"));
    if version < OLDEST {
        return Err(Unusable::TooOld(field("redis_version").to_owned()));
    }
    let settings = answers.next().unwrap_or(Value::Nil);
    let (proof, mut losses) = if version >= WAITAOF {
        let is_on = field("aof_enabled") == "1";
        (Proof::Waitaof, if is_on { Vec::new() } else { vec![loss(&REQUIRED[0], "no")] })
    } else if matches!(settings, Value::ServerError(_)) && !options.accept_data_loss {
        return Err(Unusable::Forbidden);
    } else {
        (Proof::Settings, weaknesses(settings))
    };
    if field("maxmemory_policy") != "noeviction" && field("maxmemory") != "0" {
        let policy = field("maxmemory_policy");
        losses.push(format!(
            "maxmemory-policy is {policy:?}, not \"noeviction\": it deletes mail when its memory is full"
        ));
    }
    if !losses.is_empty() && !options.accept_data_loss {
        return Err(Unusable::Weak(losses));
    }
    let size = |name: &str| field(name).parse().unwrap_or_default();
    Ok(Examined {
        proof: if options.accept_data_loss { Proof::None } else { proof },
        run_id: field("run_id").to_owned(),
        used_memory: size("used_memory"),
        max_memory: size("maxmemory"),
        time: part(0).saturating_mul(1_000_000).saturating_add(part(1)),
        losses,
    })
}

/// A server that answers with an error, or whose certificate is not accepted, is not away.
pub(super) fn unreachable(address: &ServerAddress, error: &RedisError) -> Unusable {
    let text = format!("{address}: {}", plain(error));
    let is_away = error.is_timeout() || error.is_io_error() || error.is_connection_dropped() || is_busy(error);
    if is_away { Unusable::Away(text) } else { Unusable::Unreachable(text) }
}

/// It starts, or is being replaced.
fn is_busy(error: &RedisError) -> bool {
    matches!(error.code(), Some("LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN"))
}

pub(super) fn plain(error: &RedisError) -> String {
    if error.is_timeout() { "it timed out".to_owned() } else { error.to_string() }
}

/// The command that goes behind a group of changes.
pub(super) fn proving(proof: Proof, patience: Duration) -> Option<Cmd> {
    match proof {
        Proof::Waitaof => {
            let mut command = cmd("WAITAOF");
            // It must give up before the connection does.
            command.arg(1).arg(0).arg((patience.as_millis() / 2).max(1) as u64);
            Some(command)
        }
        Proof::Settings => Some(settings()),
        Proof::None => None,
    }
}

/// Whether its answer proves that the group is on the disk.
pub(super) fn is_proven(proof: Proof, answer: Value) -> Result<(), Unusable> {
    match proof {
        Proof::None => Ok(()),
        Proof::Waitaof => match list(answer).into_iter().next() {
            Some(Value::Int(1..)) => Ok(()),
            _ => Err(Unusable::Weak(vec!["it did not sync its file in time".to_owned()])),
        },
        Proof::Settings => match weaknesses(answer) {
            losses if losses.is_empty() => Ok(()),
            losses => Err(Unusable::Weak(losses)),
        },
    }
}

fn settings() -> Cmd {
    let mut command = cmd("CONFIG");
    command.arg("GET");
    REQUIRED.iter().for_each(|(name, ..)| {
        command.arg(*name);
    });
    command
}

fn weaknesses(settings: Value) -> Vec<String> {
    let words = match settings {
        Value::Map(pairs) => pairs.into_iter().flat_map(|(name, value)| [text(name), text(value)]).flatten().collect(),
        other => texts(other),
    };
    let value = |name: &str| words.chunks(2).find(|pair| pair[0] == name).and_then(|pair| pair.get(1));
    let weak = REQUIRED.iter().filter(|(name, required, _)| value(name).is_none_or(|value| value != required));
    weak.map(|required| loss(required, value(required.0).map_or("", String::as_str))).collect()
}

fn loss((name, required, loss): &(&str, &str, &str), found: &str) -> String {
    format!("{name} is {found:?}, not {required:?}: {loss}")
}

fn fields(info: &str) -> HashMap<String, String> {
    let field = |line: &str| line.trim().split_once(':').map(|(name, value)| (name.to_owned(), value.to_owned()));
    info.lines().filter_map(field).collect()
}

fn version_of(text: &str) -> (u32, u32) {
    let mut numbers = text.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings_of(pairs: &[(&str, &str)]) -> Value {
        let octets = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        Value::Array(pairs.iter().flat_map(|(name, value)| [octets(name), octets(value)]).collect())
    }

    #[test]
    fn each_weak_setting_is_named_and_none_may_be_missing() {
        let strong = [("appendonly", "yes"), ("appendfsync", "always"), ("no-appendfsync-on-rewrite", "no")];
        assert!(is_proven(Proof::Settings, settings_of(&strong)).is_ok());
        for at in 0..strong.len() {
            let mut weak = strong;
            weak[at].1 = "everysec";
            let error = is_proven(Proof::Settings, settings_of(&weak)).unwrap_err().to_string();
            assert!(error.contains(strong[at].0) && error.contains("everysec"), "{error}");
            let missing: Vec<_> = strong.iter().copied().filter(|pair| pair.0 != strong[at].0).collect();
            assert!(is_proven(Proof::Settings, settings_of(&missing)).is_err(), "{}", strong[at].0);
        }
    }

    #[test]
    fn only_the_number_that_waitaof_returns_counts() {
        for (answer, is_ok) in [
            (Value::Array(vec![Value::Int(1), Value::Int(0)]), true),
            (Value::Array(vec![Value::Int(0), Value::Int(0)]), false),
            (Value::Array(vec![]), false),
            (Value::Okay, false),
        ] {
            assert_eq!(is_proven(Proof::Waitaof, answer.clone()).is_ok(), is_ok, "{answer:?}");
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(version_of("7.0.15") >= OLDEST && version_of("7.0.15") < WAITAOF);
        assert!(version_of("7.2.4") >= WAITAOF && version_of("10.0.0") >= WAITAOF && version_of("6.2.1") < OLDEST);
    }
}
