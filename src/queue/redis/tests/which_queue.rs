//! A Redis that does not hold the queue any more, or an older state of it, gets no mail until an operator adopts it.

use super::*;
use crate::queue::conformance::plain;
use tempfile::TempDir;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Refused while it runs and at a start, until it is adopted, which says how many are missing.
async fn refuses_until_adopted(queue: RedisQueue, options: RedisQueueOptions, missing: u64) {
    let refused = eventually("it is seen", async || match queue.put(plain(100, 0)).await {
        Err(error @ QueueError::Moved(_)) => Some(error),
        _ => None,
    });
    let refused = refused.await.to_string();
    assert!(refused.contains(&format!("{missing} acknowledged")) && refused.contains("adopt"), "{refused}");
    assert!(queue.admit(1).is_err() && queue.lease(&Lane::new("a"), now(), 1, 1).await.is_err());
    drop(queue);
    let error = RedisQueue::open(options.clone()).await.unwrap_err();
    assert!(matches!(error, QueueError::Moved(_)), "{error}");
    assert_eq!(RedisQueue::adopt(options.clone()).await.unwrap(), missing);
    let queue = opened(options).await;
    queue.put(plain(101, 0)).await.unwrap();
    assert!(ids(&queue).await.contains(&plain(101, 0).accepted.id));
}

#[tokio::test]
async fn a_redis_that_was_emptied_gets_no_mail_until_it_is_adopted() {
    let server = redis();
    let folder = TempDir::new().unwrap();
    let options = impatient(on_socket(&server), folder.path());
    let queue = opened(options.clone()).await;
    for number in 0..3 {
        queue.put(plain(number, 0)).await.unwrap();
    }
    server.command(&["FLUSHALL"]);
    refuses_until_adopted(queue, options, 3).await;
}

#[tokio::test]
async fn an_old_backup_gets_no_mail_until_it_is_adopted() {
    let mut server = redis();
    let folder = TempDir::new().unwrap();
    let options = impatient(on_socket(&server), folder.path());
    let queue = opened(options.clone()).await;
    for number in 0..3 {
        queue.put(plain(number, 0)).await.unwrap();
    }
    let (files, backup) = (server.folder().join("appendonlydir"), folder.path().join("backup"));
    copy(&files, &backup);
    for number in 3..5 {
        queue.put(plain(number, 0)).await.unwrap();
    }
    server.kill();
    std::fs::remove_dir_all(&files).unwrap();
    copy(&backup, &files);
    server.restart();
    refuses_until_adopted(queue, options, 2).await;
}

#[tokio::test]
async fn a_second_instance_follows_an_adoption_and_a_new_one_may_join() {
    let server = redis();
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap()];
    let options = |at: usize| impatient(on_socket(&server), folders[at].path());
    let first = opened(options(0)).await;
    let second = opened(options(1)).await;
    first.put(plain(1, 0)).await.unwrap();
    second.put(plain(2, 0)).await.unwrap();
    server.command(&["FLUSHALL"]);
    assert!(first.put(plain(3, 0)).await.is_err() && second.put(plain(4, 0)).await.is_err());
    drop(first);
    RedisQueue::adopt(options(0)).await.unwrap();
    eventually("it follows", async || second.put(plain(5, 0)).await.ok()).await;
    opened(options(2)).await.put(plain(6, 0)).await.unwrap();
    let expected: BTreeSet<_> = [5, 6].map(|number| plain(number, 0).accepted.id).into();
    assert_eq!(ids(&second).await, expected);
}
