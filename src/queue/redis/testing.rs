//! Queues in servers of the tests' own.

#[path = "../../../tests/it/support/peers.rs"]
#[allow(dead_code, reason = "integration tests use the rest")]
mod peers;
#[path = "../../../tests/it/support/ports.rs"]
#[allow(dead_code, reason = "integration tests use the rest")]
mod ports;
#[path = "../../../tests/it/support/redis_proxy.rs"]
mod proxy;
#[path = "../../../tests/it/support/redis.rs"]
mod server;

#[path = "../../../tests/it/support/certificate.rs"]
#[allow(dead_code, reason = "integration tests use the rest")]
pub(super) mod certificate;

pub(super) use proxy::RedisProxy;
pub(super) use server::{Program, RedisServer, Sentinels, TlsFiles};

use super::options::{Fallback, RedisOptions, RedisPlace, ServerAddress};
use super::{RedisQueue, RedisQueueOptions};
use crate::observe::Clock;
use crate::queue::Backend;
use crate::queue::conformance::Factory;
use crate::queue::schedule::Schedule;
use async_trait::async_trait;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

pub(super) fn redis_at(place: RedisPlace) -> RedisOptions {
    RedisOptions {
        place,
        login: None,
        database: 0,
        tls: None,
        prefix: "wax".into(),
        instance: None,
        timeout: Duration::from_secs(20),
        accept_data_loss: false,
        fallback: Fallback::Off,
    }
}

pub(super) fn reserved_port() -> ports::ReservedPort {
    ports::ReservedPort::take()
}

/// An instance with this data folder.
pub(super) fn options_at(place: RedisPlace, data_dir: &Path) -> RedisQueueOptions {
    RedisQueueOptions::new(redis_at(place), data_dir.to_owned(), Schedule::default())
}

/// A server, and queues that are opened in it.
pub(super) struct OwnServer {
    _server: RedisServer,
    place: RedisPlace,
    fallback: Fallback,
    data_dir: TempDir,
}

impl OwnServer {
    pub(super) fn single() -> Self {
        Self::on_socket(RedisServer::start().expect("redis-server: run tests/peers/install"))
    }

    /// A cluster of one server, which refuses keys of several slots in one script, and keys that a script does not name.
    pub(super) fn cluster() -> Self {
        let server = RedisServer::start_cluster().expect("redis-server: run tests/peers/install");
        // Its nodes are named by their ports.
        let addresses = vec![ServerAddress::Tcp { host: "127.0.0.1".into(), port: server.port() }];
        Self::at(RedisPlace::Cluster { addresses, shards: 1 }, server)
    }

    pub(super) fn with_spool() -> Self {
        Self { fallback: Fallback::Sqlite, ..Self::single() }
    }

    pub(super) fn on_socket(server: RedisServer) -> Self {
        Self::at(RedisPlace::Single(ServerAddress::Unix(server.socket())), server)
    }

    fn at(place: RedisPlace, server: RedisServer) -> Self {
        Self { _server: server, place, fallback: Fallback::Off, data_dir: TempDir::new().expect("a folder") }
    }
}

#[async_trait]
impl Factory for OwnServer {
    async fn open(&self, clock: Clock) -> Arc<dyn Backend> {
        let mut options = RedisQueueOptions { clock, ..options_at(self.place.clone(), self.data_dir.path()) };
        options.redis.fallback = self.fallback;
        for _ in 0..100 {
            match RedisQueue::open(options.clone()).await {
                Ok(queue) => return Arc::new(queue),
                // The tasks of the one before hold its folder for a moment.
                Err(_) if self.fallback == Fallback::Sqlite => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("it does not open");
    }
}
