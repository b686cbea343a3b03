//! Who shares the queue and what each holds; and one that is gone for good is forgotten, with its leases and its permits.

use super::*;
use crate::queue::conformance::plain;
use crate::queue::redis::store::RedisStore;
use crate::queue::redis::{claim, open};
use crate::queue::{Filter, Forgotten, InstanceRow, Operator, RecipientState};
use crate::rate::shared::{PermitRequest, SharedLimits};
use std::sync::Arc;
use tempfile::TempDir;

struct Shared {
    server: RedisServer,
    folders: [TempDir; 2],
}

impl Shared {
    fn new() -> Self {
        Self { server: redis(), folders: [TempDir::new().unwrap(), TempDir::new().unwrap()] }
    }

    fn options(&self, at: usize) -> RedisQueueOptions {
        let mut options = options_at(on_socket(&self.server), self.folders[at].path());
        options.redis.instance = Some(["one", "two"][at].to_owned());
        options
    }

    /// One that does nothing by itself, as if it were frozen.
    async fn frozen(&self) -> Arc<RedisStore> {
        Arc::new(open::open(self.options(0)).await.unwrap())
    }

    /// As if it had not shown itself for long.
    fn age(&self, instance: &str) {
        self.server.command(&["HSET", "{wax:0}:inst", instance, r#"{"name":"one","seen":1}"#]);
    }
}

async fn rows(queue: &RedisQueue) -> Vec<InstanceRow> {
    queue.instances().await.unwrap().expect("shared")
}

fn wants(need: usize) -> PermitRequest {
    PermitRequest { cap: 4, held: 0, need, idle_timeout: Duration::from_secs(300), is_leaving: false }
}

#[tokio::test]
async fn a_vanished_instance_is_forgotten_with_its_leases_and_its_permits_and_a_running_one_is_not() {
    let shared = Shared::new();
    let frozen = shared.frozen().await;
    let second = opened(shared.options(1)).await;
    for number in 0..2 {
        frozen.put(&plain(number, 0), false, false).await.unwrap();
    }
    let held = claim::lease(&frozen, Lane::new("a"), now(), 9, u64::MAX).await.unwrap();
    let limits = super::super::limits::RedisLimits::new(frozen.clone());
    assert_eq!(limits.permits("account:x", wants(4)).await.unwrap().permits, 4);

    let seen = rows(&second).await;
    let brief = |row: &InstanceRow| (row.name.clone(), row.is_own, row.is_alive, row.leases, row.connections());
    let [one, two] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(brief(one), ("one".to_owned(), false, true, 2, 4));
    assert_eq!(brief(two), ("two".to_owned(), true, true, 0, 0));
    assert!(two.started.is_some() && one.permits[0].account == "account:x");
    let listed = second.list(&Filter::default(), None, 9).await.unwrap().rows;
    let shown = second.show(held[0].accepted.id).await.unwrap().unwrap().row;
    for row in listed.iter().chain([&shown]) {
        assert_eq!(row.recipients[0].instance.as_deref(), Some("one"), "{row:?}");
    }

    assert_eq!(second.forget(&one.id).await.unwrap(), Forgotten::Alive);
    assert_eq!(second.forget("nobody").await.unwrap(), Forgotten::Unknown);
    assert!(leased(&second).await.is_empty(), "nothing was taken from it");
    shared.age(&one.id);
    assert!(!rows(&second).await[0].is_alive);
    assert_eq!(second.forget(&one.id).await.unwrap(), Forgotten::Done { leases: 2, permits: 4 });
    assert_eq!(second.forget(&one.id).await.unwrap(), Forgotten::Unknown);
    assert_eq!(rows(&second).await.len(), 1);
    assert_eq!(second.limits.permits("account:x", wants(4)).await.unwrap().permits, 4);
    let again = leased(&second).await;
    assert!(again.len() == 2 && again.iter().all(|leased| leased.possible_duplicate), "{again:?}");

    // It was only frozen: it is in the list again, and what it says of its former leases does not count.
    frozen.say_alive().await.unwrap();
    assert_eq!(rows(&second).await.len(), 2);
    let late = frozen.settle(held[0].lease, vec![delivered()], later()).await;
    assert!(matches!(late, Err(QueueError::NoSuchLease)), "{late:?}");
    let listed = second.list(&Filter { state: Some(RecipientState::Leased), ..Filter::default() }, None, 9).await;
    assert_eq!(listed.unwrap().rows[0].recipients[0].instance.as_deref(), Some("two"));
}

#[tokio::test]
async fn a_command_is_not_shown_among_the_instances() {
    let shared = Shared::new();
    let gateway = opened(shared.options(1)).await;
    let command = opened(RedisQueueOptions { is_gateway: false, ..shared.options(0) }).await;
    let seen = rows(&command).await;
    assert_eq!(seen.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["two"]);
    assert!(rows(&gateway).await[0].is_own);
}
