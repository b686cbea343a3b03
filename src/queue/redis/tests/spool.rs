//! While Redis does not answer, new mail is kept in the data folder, and afterwards each message is in Redis once: whatever ends
//! when, whatever Redis has of it, and whatever is asked meanwhile.

use super::*;
use crate::queue::conformance::{plain, reassign_all};
use crate::queue::portable::{ImportSource, Transfer};
use crate::queue::redis::options::Fallback;
use crate::queue::redis::testing::RedisProxy;
use crate::queue::{
    Deduplication, Filter, IdempotencyKey, LaneOf, NewMail, Operator, QuotaLedger, QuotaRow, RecipientState, Row,
};
use std::sync::Arc;
use tempfile::TempDir;

fn with_spool(place: RedisPlace, data_dir: &Path) -> RedisQueueOptions {
    let mut options = impatient(place, data_dir);
    options.redis.fallback = Fallback::Sqlite;
    options
}

fn expected(numbers: impl IntoIterator<Item = u32>) -> BTreeSet<MailId> {
    numbers.into_iter().map(|number| plain(number, 0).accepted.id).collect()
}

/// After another one in the same process, whose tasks may hold the folder for a moment.
async fn reopened(options: RedisQueueOptions) -> RedisQueue {
    eventually("it opens", async || RedisQueue::open(options.clone()).await.ok()).await
}

async fn rows(queue: &RedisQueue) -> Vec<Row> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = queue.list(&Filter::default(), after, 2).await.expect("a page");
        rows.extend(page.rows);
        after = page.next;
        if after.is_none() {
            return rows;
        }
    }
}

async fn spooled(queue: &RedisQueue) -> u64 {
    queue.spool().await.expect("figures").expect("a spool").recipients
}

async fn moved(queue: &RedisQueue) {
    eventually("the spool is empty", async || {
        let figures = queue.spool().await.expect("figures").expect("a spool");
        (figures.recipients == 0 && figures.away.is_none()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn mail_is_taken_while_redis_is_away_and_is_in_redis_once_when_it_is_back() {
    let mut server = redis();
    let folder = TempDir::new().unwrap();
    let queue = opened(with_spool(on_socket(&server), folder.path())).await;
    queue.put(plain(1, 0)).await.unwrap();
    server.kill();
    for number in 2..=5 {
        queue.put(plain(number, 0)).await.unwrap();
    }
    queue.admit(1000).unwrap();
    let figures = queue.spool().await.unwrap().expect("a spool");
    assert!(figures.recipients == 4 && figures.octets > 0 && figures.away.is_some(), "{figures:?}");
    let seen = rows(&queue).await;
    assert!(seen.len() == 4 && seen.iter().all(|row| row.is_spooled), "{seen:?}");
    assert_eq!(queue.statistics().await.unwrap().waiting, 4);
    let id = plain(2, 0).accepted.id;
    assert!(queue.show(id).await.unwrap().expect("there").row.is_spooled);
    assert!(queue.content(id).await.unwrap().is_some());
    assert!(queue.lease(&Lane::new("a"), now(), 9, u64::MAX).await.is_err(), "nothing is delivered from the spool");
    // Operators change it as any other mail.
    assert_eq!(queue.remove(&[plain(3, 0).accepted.id]).await.unwrap(), 1);
    assert_eq!(queue.retry(&[id], None, Timestamp::now()).await.unwrap(), 1);

    server.restart();
    moved(&queue).await;
    let seen = rows(&queue).await;
    assert!(seen.len() == 4 && seen.iter().all(|row| !row.is_spooled), "{seen:?}");
    assert_eq!(ids(&queue).await, expected([1, 2, 4, 5]));
    assert!(leased(&queue).await.is_empty(), "each once");
}

#[tokio::test]
async fn a_gateway_starts_and_ends_without_redis_and_loses_nothing() {
    let mut server = redis();
    let folder = TempDir::new().unwrap();
    let options = || with_spool(on_socket(&server), folder.path());
    let lived = opened(options()).await.lived();
    let place = on_socket(&server);
    server.kill();
    let options = || with_spool(place.clone(), folder.path());
    let queue = reopened(options()).await;
    assert!(queue.lived() + Duration::from_secs(1) >= lived, "the clock goes on");
    queue.put(plain(1, 0)).await.unwrap();
    // It crashes.
    drop(queue);
    let queue = reopened(options()).await;
    queue.put(plain(2, 0)).await.unwrap();
    assert_eq!(spooled(&queue).await, 2);
    queue.close().await;
    drop(queue);
    // A command does not move it.
    server.restart();
    let command = reopened(RedisQueueOptions { is_gateway: false, ..options() }).await;
    assert_eq!((rows(&command).await.len(), spooled(&command).await), (2, 2));
    drop(command);
    // Without the fallback, what is left still moves.
    let queue = reopened(impatient(place.clone(), folder.path())).await;
    moved(&queue).await;
    assert_eq!(ids(&queue).await, expected([1, 2]));
    server.kill();
    let refused = queue.put(plain(3, 0)).await;
    assert!(matches!(refused, Err(QueueError::Away(_))), "{refused:?}");
}

/// A crash between the two steps of a move, and a put whose answer was lost.
#[tokio::test]
async fn what_redis_has_already_or_has_delivered_is_not_stored_again() {
    let mut server = redis();
    let (folder, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let queue = opened(with_spool(on_socket(&server), folder.path())).await;
    server.kill();
    for number in 1..=3 {
        queue.put(plain(number, 0)).await.unwrap();
    }
    let copies = {
        let spool = queue.spool.as_ref().expect("a spool");
        let mut copies = Vec::new();
        for number in 1..=2 {
            copies.push(spool.queue().portable(plain(number, 0).accepted.id).await.unwrap().expect("there"));
        }
        copies
    };
    drop(queue);
    server.restart();
    let second = opened(impatient(on_socket(&server), other.path())).await;
    for copy in copies {
        second.import(copy, ImportSource::OwnSpool).await.unwrap();
    }
    let sent = second.lease(&Lane::new("a"), now(), 1, u64::MAX).await.unwrap();
    second.settle(sent[0].lease, vec![delivered()], later()).await.unwrap();
    let queue = reopened(with_spool(on_socket(&server), folder.path())).await;
    moved(&queue).await;
    let mut left = expected(1..=3);
    left.remove(&sent[0].accepted.id);
    assert_eq!(ids(&queue).await, left);
}

#[tokio::test]
async fn a_put_whose_answer_is_lost_goes_into_the_spool_and_is_there_once() {
    let server = redis();
    let proxy = RedisProxy::before(server.socket());
    let folder = TempDir::new().unwrap();
    let queue = opened(with_spool(RedisPlace::Single(ServerAddress::Unix(proxy.socket())), folder.path())).await;
    proxy.swallow_all(true);
    for number in 1..=3 {
        queue.put(plain(number, 0)).await.unwrap();
    }
    proxy.swallow_all(false);
    moved(&queue).await;
    assert_eq!(ids(&queue).await, expected(1..=3));
    assert!(leased(&queue).await.is_empty());
    assert_eq!(server.command(&["ZCARD", "{wax:0}:revoked"]), "0");
}

#[tokio::test]
async fn a_frozen_redis_is_away_and_what_it_had_taken_is_not_doubled() {
    let server = redis();
    let folder = TempDir::new().unwrap();
    let queue = opened(with_spool(on_socket(&server), folder.path())).await;
    server.freeze();
    for number in 1..=3 {
        queue.put(plain(number, 0)).await.unwrap();
    }
    assert_eq!(spooled(&queue).await, 3);
    server.thaw();
    moved(&queue).await;
    assert_eq!(ids(&queue).await, expected(1..=3));
}

/// Somebody has to act, so nothing may pile up unnoticed.
#[tokio::test]
async fn a_redis_that_answers_is_not_away_whatever_is_wrong_with_it() {
    let server = redis();
    let (folder, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let options = |folder: &TempDir| with_spool(on_socket(&server), folder.path());
    let queue = opened(options(&folder)).await;
    queue.put(plain(1, 0)).await.unwrap();
    let refused = async |what: &str| {
        eventually(what, async || queue.put(plain(100, 0)).await.err()).await;
        eventually(what, async || queue.admit(1000).err()).await;
        assert_eq!(spooled(&queue).await, 0, "{what}");
    };
    server.config_set("appendfsync", "everysec");
    refused("weak").await;
    let start = RedisQueue::open(options(&other)).await;
    assert!(matches!(start, Err(QueueError::Storage(_))), "{start:?}");
    server.config_set("appendfsync", "always");
    eventually("it is as it must be again", async || queue.put(plain(2, 0)).await.ok()).await;
    server.config_set("maxmemory", "1");
    refused("full").await;
    server.config_set("maxmemory", "0");
    eventually("there is room again", async || queue.put(plain(3, 0)).await.ok()).await;
    server.command(&["FLUSHALL"]);
    refused("empty").await;
    drop(queue);
    eventually("a start is refused, too", async || match RedisQueue::open(options(&folder)).await {
        Err(QueueError::Moved(_)) => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn a_message_that_is_submitted_again_is_stored_once_by_one_gateway_or_by_two() {
    let mut server = redis();
    let (folder, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let keyed = |number, key| {
        let deduplication = Some(Deduplication { key: IdempotencyKey([key; 32]), window: Duration::from_secs(600) });
        NewMail { deduplication, ..plain(number, 0) }
    };
    let first = opened(with_spool(on_socket(&server), folder.path())).await;
    server.kill();
    let id = plain(1, 0).accepted.id;
    assert_eq!(first.put_once(keyed(1, 7)).await.unwrap(), None);
    assert_eq!(first.put_once(keyed(2, 7)).await.unwrap(), Some(id));
    assert_eq!(first.put_once(keyed(3, 8)).await.unwrap(), None);
    // It must be stored even if another message has its key.
    first.put(keyed(4, 7)).await.unwrap();
    assert_eq!(first.stored_under(IdempotencyKey([7; 32])).await.unwrap(), Some(id));
    assert_eq!(first.stored_under(IdempotencyKey([9; 32])).await.unwrap(), None);
    drop(first);
    server.restart();
    let second = opened(impatient(on_socket(&server), other.path())).await;
    assert_eq!(second.put_once(keyed(5, 8)).await.unwrap(), None, "the other gateway's spool is not known");
    let first = reopened(with_spool(on_socket(&server), folder.path())).await;
    moved(&first).await;
    assert_eq!(second.put_once(keyed(6, 7)).await.unwrap(), Some(id), "the key has moved, too");
    assert_eq!(ids(&second).await, expected([1, 4, 5]), "the third was submitted to both");
}

#[tokio::test]
async fn mail_of_the_spool_comes_onto_the_lanes_of_routes_that_changed_meanwhile() {
    let mut server = redis();
    let folder = TempDir::new().unwrap();
    let queue = opened(with_spool(on_socket(&server), folder.path())).await;
    let to = |lane: &'static str| -> LaneOf { Arc::new(move |_| Lane::new(lane)) };
    reassign_all(&queue, "old", to("a")).await.unwrap();
    queue.put(plain(1, 0)).await.unwrap();
    server.kill();
    queue.put(plain(2, 0)).await.unwrap();
    let told = reassign_all(&queue, "new", to("b")).await;
    assert!(matches!(told, Err(QueueError::Away(_))), "{told:?}");
    server.restart();
    moved(&queue).await;
    let early = queue.lease(&Lane::new("a"), now(), 9, u64::MAX).await;
    assert!(early.is_err(), "nothing is leased on a lane that is not its own: {early:?}");
    assert_eq!(reassign_all(&queue, "new", to("b")).await.unwrap(), 1);
    let found = queue.lease(&Lane::new("b"), now(), 9, u64::MAX).await.unwrap();
    assert_eq!(found.iter().map(|leased| leased.accepted.id).collect::<BTreeSet<_>>(), expected([1, 2]));
}

#[tokio::test]
async fn held_mail_and_rates_are_kept_without_redis() {
    let mut server = redis();
    let folder = TempDir::new().unwrap();
    let queue = opened(with_spool(on_socket(&server), folder.path())).await;
    server.kill();
    let mut held = plain(1, 0);
    held.initial_states = vec![crate::queue::InitialState::Held { lane: Lane::new("a"), reason: "a storm".into() }];
    queue.put(held).await.unwrap();
    let usage = QuotaRow { number: 3, at: Duration::from_secs(9), units: 4 };
    queue.spend("user:x", vec![usage], 0).await.unwrap();
    server.restart();
    moved(&queue).await;
    assert_eq!(queue.spent("user:x").await.unwrap(), [usage]);
    assert_eq!(rows(&queue).await[0].recipients[0].state, RecipientState::Held);
    assert!(leased(&queue).await.is_empty());
    assert_eq!(queue.release(&[plain(1, 0).accepted.id]).await.unwrap(), 1);
    assert_eq!(ids(&queue).await, expected([1]));
}
