//! The Redis backend against real servers: the conformance suite, and what only a queue in Redis promises.

mod cluster_nodes;
mod durability;
mod instances;
mod leases;
mod lost_answers;
mod places;
mod spool;
mod tls;
mod which_queue;

use super::options::{RedisPlace, ServerAddress};
use super::testing::{RedisServer, options_at};
use super::{RedisQueue, RedisQueueOptions};
use crate::message::MailId;
use crate::queue::conformance::{after, start};
use crate::queue::{Delivered, Lane, Leased, Queue, QueueError, Settlement};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

mod single {
    use crate::queue::conformance::conformance;
    use crate::queue::redis::testing::OwnServer;

    conformance!(OwnServer::single());
}

mod cluster {
    use crate::queue::conformance::conformance;
    use crate::queue::redis::testing::OwnServer;

    conformance!(OwnServer::cluster());
}

mod with_a_spool {
    use crate::queue::conformance::conformance;
    use crate::queue::redis::testing::OwnServer;

    conformance!(OwnServer::with_spool());
}

fn redis() -> RedisServer {
    RedisServer::start().expect("redis-server: run tests/peers/install")
}

fn on_socket(server: &RedisServer) -> RedisPlace {
    RedisPlace::Single(ServerAddress::Unix(server.socket()))
}

/// Impatient, so that a test of what is lost does not wait.
fn impatient(place: RedisPlace, data_dir: &Path) -> RedisQueueOptions {
    let mut options = options_at(place, data_dir);
    options.redis.timeout = Duration::from_secs(2);
    options.put_patience = Duration::from_secs(1);
    options
}

async fn opened(options: RedisQueueOptions) -> RedisQueue {
    RedisQueue::open(options).await.expect("opened")
}

/// The latest time that the tests' mail is due.
fn now() -> Timestamp {
    Timestamp::now() + Duration::from_secs(3600)
}

async fn leased(queue: &RedisQueue) -> Vec<Leased> {
    queue.lease(&Lane::new("a"), now(), 10_000, u64::MAX).await.expect("a lease")
}

async fn ids(queue: &RedisQueue) -> BTreeSet<MailId> {
    leased(queue).await.iter().map(|leased| leased.accepted.id).collect()
}

fn delivered() -> Settlement {
    let reply = "250 2.0.0 taken".to_owned();
    Settlement::Delivered(Delivered { at: start(), upstream: "company".into(), reply, milliseconds: 12 })
}

/// Repeats what another process decides, and fails after a minute.
async fn eventually<T>(what: &str, attempt: impl AsyncFn() -> Option<T>) -> T {
    for _ in 0..1200 {
        if let Some(found) = attempt().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("timed out waiting: {what}")
}

fn is_storage(result: &Result<(), QueueError>) -> bool {
    matches!(result, Err(QueueError::Storage(_) | QueueError::Away(_)))
}

fn later() -> Timestamp {
    after(60)
}
