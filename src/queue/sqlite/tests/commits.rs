//! Group commit: operations that wait at the same time share one commit. Counted, not timed.

use super::Folder;
use crate::message::accepted::Addressed;
use crate::queue::conformance::{after, plain, reassign_all};
use crate::queue::sqlite::schema;
use crate::queue::{Lane, LaneOf, Operator, Queue, Settlement};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_that_wait_together_share_a_commit() {
    let folder = Folder::new(1 << 20);
    let queue = std::sync::Arc::new(folder.open());
    let before = queue.commits();
    // Another connection's write transaction holds the writer up until all are waiting.
    let blocker = schema::open_writer(&folder.path().join("queue.sqlite")).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut puts = tokio::task::JoinSet::new();
    for number in 0..200 {
        let queue = queue.clone();
        puts.spawn(async move { queue.put(plain(number, 0)).await });
    }
    // The first batch is what the writer received before it was held up, so this waits until 200 are waiting or in that
    // batch.
    while queue.store.writer.asked() < 200 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(queue.commits(), before, "nobody is answered before the commit");
    blocker.execute_batch("COMMIT").unwrap();
    while let Some(put) = puts.join_next().await {
        put.unwrap().unwrap();
    }
    let commits = queue.commits() - before;
    assert!((1..=2).contains(&commits), "{commits} commits for 200 puts");
    assert_eq!(queue.statistics().await.unwrap().waiting, 200);
}

/// Some mail is on the lanes of routes that were never completely applied, and nothing delivers those lanes.
#[tokio::test]
async fn new_routes_that_came_half_way_are_undone_by_the_old_ones() {
    let folder = Folder::new(0);
    let queue = folder.open();
    for number in 0..501 {
        queue.put(plain(number, 0)).await.unwrap();
    }
    let to_a: LaneOf = Arc::new(|_| Lane::new("a"));
    assert_eq!(reassign_all(&queue, "old", to_a.clone()).await.unwrap(), 0);
    let asked = AtomicU64::new(0);
    let ends_in_the_second_step = move |_: &Addressed<'_>| {
        assert!(asked.fetch_add(1, Ordering::Relaxed) < 500, "scripted");
        Lane::new("b")
    };
    assert!(reassign_all(&queue, "new", Arc::new(ends_in_the_second_step)).await.is_err());
    drop(queue);
    let queue = folder.open();
    assert_eq!(reassign_all(&queue, "old", to_a.clone()).await.unwrap(), 500);
    assert_eq!(reassign_all(&queue, "old", to_a).await.unwrap(), 0);
    assert_eq!(queue.lease(&Lane::new("a"), after(0), 999, u64::MAX).await.unwrap().len(), 501);
}

#[tokio::test]
async fn a_lease_that_nobody_waits_for_any_more_goes_back() {
    let folder = Folder::new(0);
    let queue = folder.open();
    queue.put(plain(1, 0)).await.unwrap();
    let blocker = schema::open_writer(&folder.path().join("queue.sqlite")).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let lane = Lane::new("a");
    let asked = queue.store.writer.asked();
    tokio::select! {
        biased;
        _ = queue.lease(&lane, after(0), 1, u64::MAX) => panic!("the writer is held up"),
        () = async { while queue.store.writer.asked() == asked { tokio::task::yield_now().await } } => {}
    }
    blocker.execute_batch("COMMIT").unwrap();
    let leased = loop {
        let leased = queue.lease(&lane, after(0), 1, u64::MAX).await.unwrap();
        if let Some(leased) = leased.into_iter().next() {
            break leased;
        }
        tokio::task::yield_now().await;
    };
    assert!(!leased.possible_duplicate && leased.attempts == 0, "as if it had not been leased");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_could_not_be_given_back_at_first_is_given_back_later() {
    let folder = Folder::new(0);
    let queue = folder.open();
    queue.put(plain(1, 0)).await.unwrap();
    let leased = queue.lease(&Lane::new("a"), after(0), 1, u64::MAX).await.unwrap().remove(0);
    let blocker = schema::open_writer(&folder.path().join("queue.sqlite")).unwrap();
    queue.store.writer.call(|work| Ok(work.first("PRAGMA busy_timeout = 1", [], |_| Ok(()))?)).await.unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    queue.store.release(leased.lease, Settlement::Untried, after(0)).await;
    assert_eq!(queue.statistics().await.unwrap().leased, 1, "it cannot be written down");
    blocker.execute_batch("ROLLBACK").unwrap();
    while queue.statistics().await.unwrap().leased == 1 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!queue.lease(&Lane::new("a"), after(0), 1, u64::MAX).await.unwrap()[0].possible_duplicate);
}
