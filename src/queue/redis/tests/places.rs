//! Servers that are not where they were: a cluster, and a master that Sentinel names.

use super::*;
use crate::queue::conformance::plain;
use crate::queue::redis::testing::{Program, Sentinels};
use tempfile::TempDir;

fn tcp(port: u16) -> ServerAddress {
    ServerAddress::Tcp { host: "127.0.0.1".into(), port }
}

#[tokio::test]
async fn a_cluster_has_one_slot_for_each_shard_and_no_script_crosses_them() {
    let Some(server) = RedisServer::start_cluster() else { return };
    let folder = TempDir::new().unwrap();
    let place = |shards| RedisPlace::Cluster { addresses: vec![tcp(server.port())], shards };
    let queue = opened(options_at(place(4), folder.path())).await;
    let all: BTreeSet<_> = (0..40).map(|number| plain(number, 0).accepted.id).collect();
    for number in 0..40 {
        queue.put(plain(number, 0)).await.unwrap();
    }
    let mut found = BTreeSet::new();
    for _ in 0..10 {
        let some = queue.lease(&Lane::new("a"), now(), 4, u64::MAX).await.unwrap();
        assert_eq!(some.len(), 4);
        for leased in some {
            found.insert(leased.accepted.id);
            queue.settle(leased.lease, vec![delivered()], later()).await.unwrap();
        }
    }
    assert_eq!(found, all);
    assert!(leased(&queue).await.is_empty());
    drop(queue);
    let error = RedisQueue::open(options_at(place(5), folder.path())).await.unwrap_err().to_string();
    assert!(error.contains("set 4"), "{error}");
}

#[tokio::test]
async fn after_a_failover_the_queue_goes_on_at_the_new_master() {
    let Some(master) = RedisServer::start_on_port(Program::Redis, &[]) else { return };
    let Some(_replica) = master.start_replica() else { return };
    let Some(sentinels) = Sentinels::watch(&master, 3) else { return };
    let folder = TempDir::new().unwrap();
    let addresses = sentinels.addresses().into_iter().map(|address| {
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        tcp(port.expect("a port"))
    });
    let place = RedisPlace::Sentinel { master: Sentinels::MASTER.into(), addresses: addresses.collect(), login: None };
    let queue = opened(options_at(place, folder.path())).await;
    queue.put(plain(1, 0)).await.unwrap();
    // What is acknowledged is replicated by then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    sentinels.fail_over();
    eventually("it goes on", async || queue.put(plain(2, 0)).await.ok()).await;
    let expected: BTreeSet<_> = [1, 2].map(|number| plain(number, 0).accepted.id).into();
    assert_eq!(ids(&queue).await, expected);
}
