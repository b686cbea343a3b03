//! Puts and outcomes whose answers are lost: nothing that a client was told is stored may be missing, and nothing that it was
//! told is not stored may be delivered.

use super::*;
use crate::queue::conformance::plain;
use crate::queue::redis::testing::RedisProxy;
use crate::queue::{Deduplication, IdempotencyKey, NewMail};
use tempfile::TempDir;

fn behind(proxy: &RedisProxy) -> RedisPlace {
    RedisPlace::Single(ServerAddress::Unix(proxy.socket()))
}

#[tokio::test]
async fn a_put_whose_answer_is_lost_is_stored_once_and_acknowledged() {
    let server = redis();
    let proxy = RedisProxy::before(server.socket());
    let folder = TempDir::new().unwrap();
    let queue = opened(options_at(behind(&proxy), folder.path())).await;
    queue.put(plain(0, 0)).await.unwrap();
    for number in 1..=200 {
        proxy.swallow_next();
        queue.put(plain(number, 0)).await.unwrap();
    }
    assert!(proxy.swallowed() >= 200, "{}", proxy.swallowed());
    assert_eq!(leased(&queue).await.len(), 201);
}

#[tokio::test]
async fn mail_that_was_refused_is_never_leased_whatever_redis_stored_of_it() {
    let server = redis();
    let proxy = RedisProxy::before(server.socket());
    let folder = TempDir::new().unwrap();
    let queue = opened(impatient(behind(&proxy), folder.path())).await;
    let key = IdempotencyKey([7; 32]);
    let keyed = |number| {
        let deduplication = Some(Deduplication { key, window: Duration::from_secs(600) });
        NewMail { deduplication, ..plain(number, 0) }
    };
    queue.put(plain(1, 0)).await.unwrap();
    proxy.swallow_all(true);
    let refused = queue.put_once(keyed(2)).await;
    assert!(matches!(refused, Err(QueueError::Storage(_) | QueueError::Away(_))), "{refused:?}");
    let stored = server.command(&["KEYS", "*:m:*"]).lines().count();
    assert_eq!(stored, 2, "Redis stored it, which nobody was told");
    proxy.swallow_all(false);
    // Leased by the same process, and by the next one.
    let ids_now =
        eventually("it answers again", async || queue.lease(&Lane::new("a"), now(), 9, u64::MAX).await.ok()).await;
    assert_eq!(ids_now.iter().map(|leased| leased.accepted.id).collect::<Vec<_>>(), [plain(1, 0).accepted.id]);
    assert_eq!(queue.put_once(keyed(3)).await.unwrap(), None, "what was refused is not known by its key");
    drop(queue);
    let queue = opened(impatient(behind(&proxy), folder.path())).await;
    assert_eq!(ids(&queue).await, BTreeSet::from([plain(1, 0).accepted.id, plain(3, 0).accepted.id]));
}

#[tokio::test]
async fn a_refusal_outlives_the_process_that_gave_it() {
    let server = redis();
    let proxy = RedisProxy::before(server.socket());
    let folder = TempDir::new().unwrap();
    let queue = opened(impatient(behind(&proxy), folder.path())).await;
    queue.put(plain(1, 0)).await.unwrap();
    proxy.swallow_all(true);
    queue.put(plain(2, 0)).await.unwrap_err();
    drop(queue);
    proxy.swallow_all(false);
    let queue = opened(impatient(on_socket(&server), folder.path())).await;
    assert_eq!(ids(&queue).await, BTreeSet::from([plain(1, 0).accepted.id]));
}

#[tokio::test]
async fn the_outcome_of_a_delivery_is_kept_while_redis_is_away() {
    let mut server = redis();
    let folder = TempDir::new().unwrap();
    let queue = opened(impatient(on_socket(&server), folder.path())).await;
    for number in 1..=3 {
        queue.put(plain(number, 0)).await.unwrap();
    }
    let out = leased(&queue).await;
    server.kill();
    queue.settle(out[0].lease, vec![delivered()], later()).await.expect("kept in the journal");
    assert!(is_storage(&queue.put(plain(4, 0)).await));
    drop(queue);
    server.restart();
    // The next process tells it, before anything is leased.
    let queue = opened(impatient(on_socket(&server), folder.path())).await;
    let again = leased(&queue).await;
    let ids: Vec<_> = again.iter().map(|leased| leased.accepted.id).collect();
    assert_eq!(ids, [out[1].accepted.id, out[2].accepted.id]);
    assert!(again.iter().all(|leased| leased.possible_duplicate));
    // And so does the same process, when Redis is back.
    server.kill();
    queue.settle(again[0].lease, vec![delivered()], later()).await.expect("kept in the journal");
    server.restart();
    eventually("it is told", async || queue.store.journal.is_empty().then_some(())).await;
    queue.settle(again[1].lease, vec![delivered()], later()).await.unwrap();
    assert_eq!(server.command(&["KEYS", "*:m:*"]), "");
}
