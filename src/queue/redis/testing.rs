//! Queues in servers of the tests' own.

#[path = "../../../tests/it/support/peers.rs"]
#[allow(dead_code, reason = "integration tests use the rest")]
mod peers;
#[path = "../../../tests/it/support/ports.rs"]
#[allow(dead_code, reason = "integration tests use the rest")]
mod ports;
#[path = "../../../tests/it/support/redis.rs"]
mod server;

pub(super) use server::RedisServer;

use super::options::{Fallback, RedisOptions, RedisPlace, ServerAddress};
use super::{RedisQueue, RedisQueueOptions};
use crate::observe::Clock;
use crate::queue::Backend;
use crate::queue::conformance::Factory;
use crate::queue::schedule::Schedule;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

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

pub(super) fn options_at(place: RedisPlace, clock: Clock) -> RedisQueueOptions {
    RedisQueueOptions {
        redis: redis_at(place),
        instance: "first".into(),
        lease_length: Duration::from_secs(60),
        schedule: Schedule::default(),
        clock,
    }
}

/// A server, and queues that are opened in it.
pub(super) struct OwnServer {
    server: RedisServer,
    place: RedisPlace,
}

impl OwnServer {
    pub(super) fn single() -> Self {
        Self::on_socket(RedisServer::start().expect("redis-server: run tests/peers/install"))
    }

    pub(super) fn on_socket(server: RedisServer) -> Self {
        let place = RedisPlace::Single(ServerAddress::Unix(server.socket()));
        Self { server, place }
    }
}

#[async_trait]
impl Factory for OwnServer {
    async fn open(&self, clock: Clock) -> Arc<dyn Backend> {
        Arc::new(RedisQueue::open(options_at(self.place.clone(), clock)).await.expect("opened"))
    }
}
