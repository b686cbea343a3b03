//! What `waxseal check` says of the queue: its schedule, where it is stored, and what a 250 then promises. Shows no
//! secret and asks no server.

use crate::config::{BackendSettings, QueueSettings};
use crate::delivery::Bounce;
use crate::queue::redis::options::{Fallback, RedisOptions, RedisPlace, ServerAddress};
use crate::text::in_words;
use serde::{Serialize, Serializer};
use std::fmt::{self, Display};
use std::time::Duration;

#[derive(Debug, Serialize)]
pub(super) struct QueueSummary {
    #[serde(rename = "retry_first_seconds", serialize_with = "seconds")]
    first: Duration,
    #[serde(rename = "retry_longest_seconds", serialize_with = "seconds")]
    longest: Duration,
    #[serde(rename = "expire_seconds", serialize_with = "seconds")]
    expire: Duration,
    #[serde(rename = "keep_failed_seconds", serialize_with = "seconds")]
    keep_failed: Duration,
    /// As in the configuration.
    bounce: String,
    /// `None`: the null path.
    bounce_sender: Option<String>,
    #[serde(rename = "deduplicate_seconds", serialize_with = "optional_seconds")]
    deduplicate: Option<Duration>,
}

impl QueueSummary {
    pub(super) fn of(queue: &QueueSettings) -> Self {
        Self {
            first: queue.schedule.first,
            longest: queue.schedule.longest,
            expire: queue.schedule.expire,
            keep_failed: queue.keep_failed,
            bounce_sender: queue.bounce_sender.mailbox().map(ToString::to_string),
            bounce: match &queue.bounce {
                Bounce::Off => "off".to_owned(),
                Bounce::Sender => "sender".to_owned(),
                Bounce::Address(address) => address.to_string(),
            },
            deduplicate: queue.deduplicate,
        }
    }
}

impl Display for QueueSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = in_words(self.first);
        let longest = in_words(self.longest);
        let expire = in_words(self.expire);
        let keep_failed = in_words(self.keep_failed);
        write!(
            f,
            "retries after {first}, then up to {longest} apart, for {expire}; keeps failed mail for {keep_failed}; "
        )?;
        match self.bounce.as_str() {
            "off" => f.write_str("no bounces are sent"),
            "sender" => f.write_str("bounces go to the sender"),
            address => write!(f, "bounces go to {address}"),
        }?;
        if let (Some(sender), true) = (&self.bounce_sender, self.bounce != "off") {
            write!(f, ", from {sender}")?;
        }
        match self.deduplicate {
            Some(window) => write!(f, "; mail that is submitted again within {} is sent once", in_words(window)),
            None => Ok(()),
        }
    }
}

/// Where the queue is stored, and what that means.
#[derive(Debug, Serialize)]
pub(super) struct QueuePlaceSummary {
    backend: &'static str,
    /// In words; without any login.
    place: String,
    /// What a 250 means.
    promise: &'static str,
    /// What happens to new mail while the storage cannot be reached.
    away: &'static str,
    /// What the configuration accepts to lose.
    can_be_lost: Option<&'static str>,
}

impl QueuePlaceSummary {
    pub(super) fn of(backend: &BackendSettings) -> Self {
        match backend {
            BackendSettings::Sqlite => Self {
                backend: "sqlite",
                place: "a database in the data folder".to_owned(),
                promise: "a 250 means that the message is synced to this machine's disk",
                away: "while the disk is full, new mail gets a 452",
                can_be_lost: None,
            },
            BackendSettings::Redis(options) => Self::of_redis(options),
        }
    }

    fn of_redis(options: &RedisOptions) -> Self {
        let accepted = "accept_data_loss = true: a Redis that does not sync each write is accepted, and its crash then loses \
                        acknowledged mail";
        Self {
            backend: "redis",
            place: place(options),
            promise: match options.place {
                RedisPlace::Single(_) => "a 250 means that this Redis has synced the message to its disk",
                RedisPlace::Sentinel { .. } | RedisPlace::Cluster { .. } => {
                    "a 250 means that the master has synced the message to its disk; a failover can lose the last messages that \
                     its replica had not received, and the log then says how many are missing"
                }
            },
            away: match options.fallback {
                Fallback::Off => "while Redis is away, new mail gets a 451",
                Fallback::Sqlite => {
                    "while Redis is away, new mail is stored in the data folder, and moved into Redis when it is back"
                }
            },
            can_be_lost: options.accept_data_loss.then_some(accepted),
        }
    }
}

impl Display for QueuePlaceSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, promise, away, .. } = self;
        write!(f, "{place}; {promise}; {away}")?;
        self.can_be_lost.map_or(Ok(()), |lost| write!(f, "; {lost}"))
    }
}

fn place(options: &RedisOptions) -> String {
    let named = |addresses: &[ServerAddress]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut text = match &options.place {
        RedisPlace::Single(address) => format!("Redis at {address}"),
        RedisPlace::Sentinel { master, addresses, .. } => {
            format!("Redis, the master \"{master}\" of the Sentinels at {}", named(addresses))
        }
        RedisPlace::Cluster { addresses, shards } => {
            format!("Redis Cluster with {shards} shards, found through {}", named(addresses))
        }
    };
    text += match (&options.tls, options.place.addresses().iter().all(ServerAddress::is_local)) {
        (Some(_), _) => ", over TLS",
        (None, true) => ", on this machine without TLS",
        (None, false) => ", without TLS",
    };
    text += &match &options.login {
        None => ", without a login".to_owned(),
        Some(login) => format!(", as {}", login.user.as_deref().unwrap_or("the default user")),
    };
    if options.database != 0 {
        text += &format!(", database {}", options.database);
    }
    text + &format!(", keys from \"{}\"", options.prefix)
}

fn optional_seconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs()).serialize(serializer)
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Secret;
    use crate::queue::redis::options::RedisLogin;

    #[test]
    fn what_a_250_promises_depends_on_where_the_queue_is() {
        let tcp = |host: &str| ServerAddress::Tcp { host: host.to_owned(), port: 6379 };
        let options = RedisOptions {
            place: RedisPlace::Single(tcp("::1")),
            login: Some(RedisLogin { user: None, password: Secret::new("canary") }),
            database: 3,
            tls: None,
            prefix: "wax".to_owned(),
            instance: None,
            timeout: Duration::from_secs(5),
            accept_data_loss: false,
            fallback: Fallback::Off,
        };
        let single = QueuePlaceSummary::of_redis(&options).to_string();
        let expected = "Redis at [::1]:6379, on this machine without TLS, as the default user, database 3, keys from \"wax\"; a \
                        250 means that this Redis has synced the message to its disk; while Redis is away, new mail gets a 451";
        assert_eq!(single, expected);
        let place = RedisPlace::Sentinel { master: "m".to_owned(), addresses: vec![tcp("a"), tcp("b")], login: None };
        let options = RedisOptions { place, accept_data_loss: true, fallback: Fallback::Sqlite, ..options };
        let watched = QueuePlaceSummary::of_redis(&options).to_string();
        for part in [
            "the master \"m\" of the Sentinels at a:6379, b:6379",
            "a failover can lose",
            "accept_data_loss = true",
            "moved into Redis",
        ] {
            assert!(watched.contains(part), "{part}: {watched}");
        }
        assert!(!format!("{watched}{:?}", QueuePlaceSummary::of_redis(&options)).contains("canary"));
    }
}
