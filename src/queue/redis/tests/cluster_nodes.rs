//! A cluster of three masters, over which the shards are spread, one of which fails and is replaced by its replica.

use super::*;
use crate::queue::conformance::plain;
use crate::queue::redis::testing::{Program, RedisServer};
use crate::queue::{Filter, Operator};
use tempfile::TempDir;

const SHARDS: u16 = 16;

/// Its port and that of its bus are free when it starts.
fn node(bus: u16) -> RedisServer {
    let bus = bus.to_string();
    let settings = [
        ("cluster-enabled", "yes"),
        ("cluster-port", &*bus),
        ("cluster-node-timeout", "1500"),
        ("cluster-replica-validity-factor", "0"),
    ];
    RedisServer::start_on_port(Program::Redis, &settings).expect("redis-server: run tests/peers/install")
}

/// Three masters, and a replica of the first.
async fn cluster(buses: &[u16; 4]) -> Vec<RedisServer> {
    let nodes: Vec<RedisServer> = buses.iter().map(|bus| node(*bus)).collect();
    for (node, (first, last)) in nodes.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
        node.command(&["CLUSTER", "ADDSLOTSRANGE", first, last]);
    }
    for (node, bus) in nodes.iter().zip(buses).skip(1) {
        nodes[0].command(&["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string(), &bus.to_string()]);
    }
    eventually("they know each other", async || {
        let known = |node: &RedisServer| node.command(&["CLUSTER", "INFO"]).contains("cluster_known_nodes:4");
        nodes.iter().all(known).then_some(())
    })
    .await;
    let first = nodes[0].command(&["CLUSTER", "MYID"]);
    nodes[3].command(&["CLUSTER", "REPLICATE", first.trim()]);
    eventually("it serves every slot, and the replica follows", async || {
        let is_well = |node: &RedisServer| node.command(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
        let follows = nodes[3].command(&["INFO", "replication"]).contains("master_link_status:up");
        (follows && nodes.iter().all(is_well)).then_some(())
    })
    .await;
    nodes
}

/// The replica has all that the first master has.
async fn replicated(nodes: &[RedisServer]) {
    let offset = |node: &RedisServer, field: &str| {
        let info = node.command(&["INFO", "replication"]);
        info.lines().find_map(|line| line.strip_prefix(field)?.trim().parse::<u64>().ok())
    };
    eventually("the replica has it", async || {
        let master = offset(&nodes[0], "master_repl_offset:");
        (master.is_some() && offset(&nodes[3], "slave_repl_offset:") >= master).then_some(())
    })
    .await;
}

#[tokio::test]
async fn shards_on_three_nodes_are_one_queue_and_a_node_that_fails_is_followed_to_its_replica() {
    let buses: [_; 4] = std::array::from_fn(|_| crate::queue::redis::testing::reserved_port());
    let mut nodes = cluster(&buses.each_ref().map(|bus| bus.number)).await;
    let addresses = nodes[1..3].iter().map(|node| ServerAddress::Tcp { host: "127.0.0.1".into(), port: node.port() });
    let folder = TempDir::new().unwrap();
    let place = RedisPlace::Cluster { addresses: addresses.collect(), shards: SHARDS };
    let queue = opened(options_at(place, folder.path())).await;
    let all: BTreeSet<MailId> = (0..60).map(|number| plain(number, 0).accepted.id).collect();
    for number in 0..60 {
        queue.put(plain(number, 0)).await.unwrap();
    }
    for node in &nodes[..3] {
        assert!(!node.command(&["KEYS", "*:m:*"]).trim().is_empty(), "each node has some of it");
    }
    let mut listed = BTreeSet::new();
    let mut after = None;
    loop {
        let page = queue.list(&Filter::default(), after, 7).await.unwrap();
        listed.extend(page.rows.iter().map(|row| row.id.parse::<MailId>().unwrap()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(listed, all);
    let some = queue.lease(&Lane::new("a"), now(), 20, u64::MAX).await.unwrap();
    assert_eq!(some.len(), 20);
    for leased in &some[..10] {
        queue.settle(leased.lease, vec![delivered()], later()).await.unwrap();
    }
    replicated(&nodes).await;
    nodes[0].kill();
    eventually("the replica is the master", async || nodes[3].command(&["ROLE"]).starts_with("master").then_some(()))
        .await;
    // One message for each shard, so each node is written to.
    for number in 60..100 {
        eventually("it goes on", async || queue.put(plain(number, 0)).await.ok()).await;
    }
    for leased in &some[10..] {
        queue.settle(leased.lease, vec![delivered()], later()).await.unwrap();
    }
    let expected: BTreeSet<MailId> = (0..100).map(|number| plain(number, 0).accepted.id).collect();
    let sent: BTreeSet<MailId> = some.iter().map(|leased| leased.accepted.id).collect();
    let rest =
        eventually("the rest is leased", async || queue.lease(&Lane::new("a"), now(), 1000, u64::MAX).await.ok()).await;
    let rest: BTreeSet<MailId> = rest.iter().map(|leased| leased.accepted.id).collect();
    assert_eq!(rest, expected.difference(&sent).copied().collect());
    assert_eq!(queue.statistics().await.unwrap().leased, 80);
}
