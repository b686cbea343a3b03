//! Leases of several instances: nobody leases what another one holds, what a vanished one held is tried again, and what it
//! says afterwards counts only while nobody else has leased it.

use super::*;
use crate::queue::conformance::plain;
use crate::queue::redis::{claim, open};
use std::sync::Arc;
use tempfile::TempDir;

const SHORT: Duration = Duration::from_millis(700);

struct Instances {
    server: RedisServer,
    folders: [TempDir; 2],
}

impl Instances {
    fn new() -> Self {
        Self { server: redis(), folders: [TempDir::new().unwrap(), TempDir::new().unwrap()] }
    }

    fn options(&self, at: usize) -> RedisQueueOptions {
        RedisQueueOptions { lease_length: SHORT, ..options_at(on_socket(&self.server), self.folders[at].path()) }
    }

    /// One that renews nothing, as if it were frozen.
    async fn frozen(&self, at: usize) -> Arc<super::super::store::RedisStore> {
        Arc::new(open::open(self.options(at)).await.unwrap())
    }
}

async fn lease_of(store: &Arc<super::super::store::RedisStore>) -> Vec<Leased> {
    claim::lease(store, Lane::new("a"), now(), 9, u64::MAX).await.unwrap()
}

#[tokio::test]
async fn a_running_instance_keeps_its_leases_and_a_vanished_ones_are_tried_again() {
    let instances = Instances::new();
    let first = opened(instances.options(0)).await;
    let second = opened(instances.options(1)).await;
    for number in 0..2 {
        first.put(plain(number, 0)).await.unwrap();
    }
    let held = first.lease(&Lane::new("a"), now(), 1, u64::MAX).await.unwrap();
    tokio::time::sleep(SHORT * 5).await;
    let other = leased(&second).await;
    assert_eq!(other.len(), 1, "what the first one holds is not leased by the second");
    second.settle(other[0].lease, vec![delivered()], later()).await.unwrap();
    drop(first);
    let taken = eventually("it is taken over", async || leased(&second).await.pop()).await;
    assert_eq!((taken.accepted.id, taken.possible_duplicate), (held[0].accepted.id, true));
    second.settle(taken.lease, vec![delivered()], later()).await.unwrap();
}

#[tokio::test]
async fn the_outcome_of_an_overtaken_lease_counts_until_somebody_leases_the_message_again() {
    let instances = Instances::new();
    let frozen = instances.frozen(0).await;
    let second = instances.frozen(1).await;
    for number in 0..2 {
        frozen.put(&plain(number, 0), false, false).await.unwrap();
    }
    let held = lease_of(&frozen).await;
    assert_eq!(held.len(), 2);
    eventually("they are taken over", async || {
        second.take_over().await.unwrap();
        let number = instances.server.command(&["HGET", "{wax:0}:counts", "waiting:a"]);
        (number == "2").then_some(())
    })
    .await;
    frozen.settle(held[0].lease, vec![delivered()], later()).await.expect("nobody has it, so it counts");
    let again = lease_of(&second).await;
    assert_eq!(again.len(), 1);
    assert!(again[0].possible_duplicate);
    let late = frozen.settle(held[1].lease, vec![delivered()], later()).await;
    assert!(matches!(late, Err(QueueError::NoSuchLease)), "{late:?}");
    second.settle(again[0].lease, vec![delivered()], later()).await.unwrap();
    assert_eq!(instances.server.command(&["KEYS", "*:m:*"]), "");
}

#[tokio::test]
async fn no_lease_is_taken_over_soon_after_redis_was_away() {
    let mut instances = Instances::new();
    let frozen = instances.frozen(0).await;
    let second = instances.frozen(1).await;
    frozen.put(&plain(1, 0), false, false).await.unwrap();
    assert_eq!(lease_of(&frozen).await.len(), 1);
    tokio::time::sleep(SHORT * 3).await;
    instances.server.kill();
    instances.server.restart();
    // It has ended, but its holder could not renew it.
    let looked = eventually("Redis is back", async || second.link.look().await.ok()).await;
    assert!(!looked.run_id.is_empty());
    second.take_over().await.unwrap();
    assert!(lease_of(&second).await.is_empty());
    eventually("it is renewed", async || frozen.renew().await.ok()).await;
}

#[tokio::test]
async fn a_holder_stops_before_its_lease_ends() {
    let instances = Instances::new();
    let mut options = instances.options(0);
    options.redis.timeout = SHORT / 2;
    let frozen = Arc::new(open::open(options).await.unwrap());
    frozen.put(&plain(1, 0), false, false).await.unwrap();
    let held = lease_of(&frozen).await;
    assert!(frozen.still_holds(held[0].lease));
    frozen.renew().await.unwrap();
    assert!(frozen.still_holds(held[0].lease));
    tokio::time::sleep(SHORT).await;
    assert!(!frozen.still_holds(held[0].lease), "it was not renewed");
    assert!(!frozen.still_holds(crate::queue::LeaseId(-1)));
}

#[tokio::test]
async fn new_mail_of_another_instance_wakes_the_loops() {
    let instances = Instances::new();
    let first = opened(instances.options(0)).await;
    let second = opened(instances.options(1)).await;
    let lane = second.wakeups().of(&Lane::new("a"));
    let mut number = 0;
    for _ in 0..100 {
        // Its subscription may not be there yet.
        number += 1;
        first.put(plain(number, 0)).await.unwrap();
        if tokio::time::timeout(Duration::from_millis(100), lane.mail.notified()).await.is_ok() {
            return;
        }
    }
    panic!("nothing wakes it");
}
