//! Servers and Sentinels that speak nothing but TLS: with the right authority and name the queue is used as any other, and with
//! wrong ones nothing is sent to them.

use super::*;
use crate::queue::conformance::plain;
use crate::queue::redis::options::{Fallback, RedisTls};
use crate::queue::redis::testing::certificate::Authority;
use crate::queue::redis::testing::{Program, Sentinels, TlsFiles};
use tempfile::TempDir;

struct Issued {
    folder: TempDir,
    authority: Authority,
}

impl Issued {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), authority: Authority::new() }
    }

    /// Of a server with these names.
    fn files(&self, names: &[&str]) -> TlsFiles {
        let issued = self.authority.issue(names);
        let write = |name: &str, text: &str| {
            let path = self.folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        TlsFiles {
            certificate: write("server.pem", &issued.certificate),
            private_key: write("server.key", &issued.private_key),
            ca: write("ca.pem", &self.authority.pem()),
        }
    }

    fn client(&self) -> RedisTls {
        let ca = crate::pem::certificates(self.authority.pem().as_bytes()).expect("a certificate");
        RedisTls { config: crate::tls::client(&ca).expect("a configuration") }
    }
}

fn tcp(host: &str, port: u16) -> ServerAddress {
    ServerAddress::Tcp { host: host.into(), port }
}

fn over_tls(place: RedisPlace, data_dir: &Path, issued: &Issued) -> RedisQueueOptions {
    let mut options = impatient(place, data_dir);
    options.redis.tls = Some(issued.client());
    options
}

async fn takes_and_gives(queue: &RedisQueue, number: u32) {
    queue.put(plain(number, 0)).await.unwrap();
    let found = leased(queue).await;
    assert_eq!(found.len(), 1);
    queue.settle(found[0].lease, vec![delivered()], later()).await.unwrap();
}

#[tokio::test]
async fn a_queue_is_used_over_tls() {
    let issued = Issued::new();
    let Some(server) = RedisServer::start_tls(&issued.files(&["127.0.0.1", "localhost"]), None) else { return };
    for host in ["127.0.0.1", "localhost"] {
        let folder = TempDir::new().unwrap();
        let place = RedisPlace::Single(tcp(host, server.port()));
        let queue = opened(over_tls(place.clone(), folder.path(), &issued)).await;
        takes_and_gives(&queue, 1).await;
        drop(queue);
        let clear = RedisQueue::open(impatient(place, folder.path())).await;
        assert!(clear.is_err(), "it speaks nothing else: {clear:?}");
    }
}

/// Nor are they away: a local store would only hide what is wrong.
#[tokio::test]
async fn a_server_that_another_authority_or_name_vouches_for_gets_nothing() {
    let (issued, other) = (Issued::new(), Issued::new());
    let Some(server) = RedisServer::start_tls(&issued.files(&["redis.example.com"]), None) else { return };
    for (port, trusted, what) in
        [(server.port(), &other, "another authority"), (server.port(), &issued, "another name")]
    {
        let folder = TempDir::new().unwrap();
        let mut options = over_tls(RedisPlace::Single(tcp("127.0.0.1", port)), folder.path(), trusted);
        options.redis.fallback = Fallback::Sqlite;
        let refused = RedisQueue::open(options).await;
        let Err(error @ QueueError::Storage(_)) = refused else { panic!("{what}: {refused:?}") };
        assert!(error.to_string().contains(&port.to_string()), "{what}: {error}");
    }
    assert!(!server.command(&["KEYS", "*"]).contains("wax"));
    // It waits for more of a command, so it is as good as silent.
    let clear = RedisServer::start_on_port(Program::Redis, &[]).expect("it is installed");
    let folder = TempDir::new().unwrap();
    let place = RedisPlace::Single(tcp("127.0.0.1", clear.port()));
    let refused = RedisQueue::open(over_tls(place, folder.path(), &issued)).await;
    assert!(matches!(refused, Err(QueueError::Away(_))), "no TLS: {refused:?}");
}

#[tokio::test]
async fn sentinels_are_asked_over_tls_and_a_failover_is_followed() {
    let issued = Issued::new();
    let files = issued.files(&["127.0.0.1"]);
    let Some(master) = RedisServer::start_tls(&files, None) else { return };
    let Some(_replica) = RedisServer::start_tls(&files, Some(master.port())) else { return };
    let Some(sentinels) = Sentinels::watch_over(&master, 3, Some(&files)) else { return };
    let addresses: Vec<ServerAddress> = sentinels
        .addresses()
        .iter()
        .map(|address| {
            tcp("127.0.0.1", address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port"))
        })
        .collect();
    let place = RedisPlace::Sentinel { master: Sentinels::MASTER.into(), addresses, login: None };
    let folder = TempDir::new().unwrap();
    let queue = opened(over_tls(place.clone(), folder.path(), &issued)).await;
    takes_and_gives(&queue, 1).await;
    // What is acknowledged is replicated by then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    sentinels.fail_over();
    eventually("it goes on", async || queue.put(plain(2, 0)).await.ok()).await;
    let other = TempDir::new().unwrap();
    let refused = RedisQueue::open(over_tls(place, other.path(), &Issued::new())).await;
    assert!(matches!(refused, Err(QueueError::Storage(_))), "{refused:?}");
}
