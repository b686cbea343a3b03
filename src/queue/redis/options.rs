//! Where a shared queue is, and what it is asked for: the resolved `[queue.redis]`. Everything is checked; nothing is
//! looked up or connected here.

use crate::observe::Secret;
use rustls::ClientConfig;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The number of shards of a cluster unless configured otherwise. Each is one hash slot.
pub const CLUSTER_SHARDS: u16 = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisOptions {
    pub place: RedisPlace,
    /// `None`: the server asks for no login.
    pub login: Option<RedisLogin>,
    /// The number of the database; 0 in a cluster.
    pub database: u32,
    /// `None`: no TLS. Applies to Sentinels too.
    pub tls: Option<RedisTls>,
    /// The beginning of every key, before its shard.
    pub prefix: String,
    /// This gateway's name in lists of instances. `None`: the machine's.
    pub instance: Option<String>,
    /// For one command, and for connecting.
    pub timeout: Duration,
    /// A server that may lose acknowledged mail is accepted.
    pub accept_data_loss: bool,
    pub fallback: Fallback,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisPlace {
    Single(ServerAddress),
    /// The master of this name, as any of the Sentinels names it.
    Sentinel {
        master: String,
        addresses: Vec<ServerAddress>,
        /// At the Sentinels, which do not have the server's users.
        login: Option<RedisLogin>,
    },
    /// The nodes from which the others are learned.
    Cluster {
        addresses: Vec<ServerAddress>,
        shards: u16,
    },
}

impl RedisPlace {
    /// Every address that is configured.
    pub fn addresses(&self) -> &[ServerAddress] {
        match self {
            Self::Single(address) => std::slice::from_ref(address),
            Self::Sentinel { addresses, .. } | Self::Cluster { addresses, .. } => addresses,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// A name or an IP address, without brackets.
    Tcp {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

impl ServerAddress {
    /// What is sent there stays on this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => match host.parse::<IpAddr>() {
                Ok(address) => address.to_canonical().is_loopback(),
                Err(_) => host.eq_ignore_ascii_case("localhost"),
            },
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisLogin {
    /// `None`: the server's default user.
    pub user: Option<String>,
    pub password: Secret,
}

/// Always verifies the server's certificate.
#[derive(Debug, Clone)]
pub struct RedisTls {
    pub config: Arc<ClientConfig>,
}

/// Only a clone is equal: what a configuration verifies cannot be compared.
impl PartialEq for RedisTls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }
}

impl Eq for RedisTls {}

/// What becomes of new mail while Redis is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// Clients get a 451.
    Off,
    /// It is stored in a database in the data folder, and moved into Redis when that is back.
    Sqlite,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stays_on_this_machine_is_local() {
        let tcp = |host: &str| ServerAddress::Tcp { host: host.to_owned(), port: 6379 };
        for host in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "localhost", "LocalHost"] {
            assert!(tcp(host).is_local(), "{host}");
        }
        for host in ["10.0.0.1", "redis", "localhost.example.com", "0.0.0.0", "::", "2001:db8::1"] {
            assert!(!tcp(host).is_local(), "{host}");
        }
        assert!(ServerAddress::Unix("/run/redis.sock".into()).is_local());
        assert_eq!(tcp("::1").to_string(), "[::1]:6379");
    }
}
