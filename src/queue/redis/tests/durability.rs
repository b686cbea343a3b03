//! What a 250 rests on: the server's settings or its WAITAOF, at the start and with every group of changes.

use super::*;
use crate::queue::conformance::{mail, plain};
use tempfile::TempDir;

#[tokio::test]
async fn a_server_that_can_lose_mail_is_refused_unless_the_operator_accepts_that() {
    let weak = [
        ("appendonly", "no"),
        ("appendfsync", "everysec"),
        ("appendfsync", "no"),
        ("no-appendfsync-on-rewrite", "yes"),
        ("maxmemory-policy", "allkeys-lru"),
    ];
    for (name, value) in weak {
        let server = RedisServer::start_with(&[(name, value), ("maxmemory", "200mb")]).expect("redis-server");
        let folder = TempDir::new().unwrap();
        let options = options_at(on_socket(&server), folder.path());
        let error = RedisQueue::open(options.clone()).await.unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("accept_data_loss"), "{error}");
        let mut accepting = options;
        accepting.redis.accept_data_loss = true;
        opened(accepting).await.put(plain(1, 0)).await.unwrap();
    }
}

#[tokio::test]
async fn a_setting_that_is_weakened_while_it_runs_stops_acknowledgements_at_once() {
    let server = redis();
    let folder = TempDir::new().unwrap();
    let queue = opened(impatient(on_socket(&server), folder.path())).await;
    for (number, (name, weak, strong)) in (0..).step_by(2).zip([
        ("appendfsync", "everysec", "always"),
        ("no-appendfsync-on-rewrite", "yes", "no"),
        ("appendonly", "no", "yes"),
    ]) {
        server.config_set(name, weak);
        let refused = queue.put(plain(number, 0)).await;
        assert!(is_storage(&refused), "{name} {weak}: {refused:?}");
        server.config_set(name, strong);
        eventually("it is strong again", async || queue.put(plain(number + 1, 0)).await.ok()).await;
    }
    let expected: BTreeSet<_> = [1, 3, 5].map(|number| plain(number, 0).accepted.id).into();
    assert_eq!(ids(&queue).await, expected, "what was refused is not delivered");
}

#[tokio::test]
async fn a_server_that_may_not_be_asked_is_refused_and_the_permission_is_named() {
    let server = redis();
    let acl = ["ACL", "SETUSER", "wax", "on", ">secret", "~*", "&*", "+@all", "-config"];
    assert_eq!(server.command(&acl), "OK");
    let folder = TempDir::new().unwrap();
    let mut options = options_at(on_socket(&server), folder.path());
    let login = |password: &str| super::super::options::RedisLogin {
        user: Some("wax".into()),
        password: crate::observe::Secret::new(password),
    };
    options.redis.login = Some(login("secret"));
    let error = RedisQueue::open(options.clone()).await.unwrap_err().to_string();
    assert!(error.contains("+config|get"), "{error}");
    server.command(&["ACL", "SETUSER", "wax", "+config|get"]);
    opened(options.clone()).await.put(plain(1, 0)).await.unwrap();
    options.redis.login = Some(login("wrong"));
    let error = RedisQueue::open(options).await.unwrap_err().to_string();
    assert!(error.contains("WRONGPASS") || error.contains("auth"), "{error}");
    assert!(!error.contains("wrong"), "{error}");
}

#[tokio::test]
async fn nothing_that_was_acknowledged_is_lost_when_redis_is_killed() {
    let mut server = redis();
    let folder = TempDir::new().unwrap();
    let options = impatient(on_socket(&server), folder.path());
    let mut acknowledged = BTreeSet::new();
    for round in 0..10 {
        let queue = std::sync::Arc::new(opened(options.clone()).await);
        let mut putting = tokio::task::JoinSet::new();
        for at in 0..30 {
            let queue = queue.clone();
            putting.spawn(async move {
                let mut stored = Vec::new();
                for number in 0..20 {
                    let mail = plain(10_000 * round + 100 * at + number, 0);
                    let id = mail.accepted.id;
                    match queue.put(mail).await {
                        Ok(()) => stored.push(id),
                        Err(_) => break,
                    }
                }
                stored
            });
        }
        // Some of them are under way.
        tokio::time::sleep(Duration::from_millis(u64::from(7 * round))).await;
        server.kill();
        acknowledged.extend(putting.join_all().await.into_iter().flatten());
        drop(queue);
        server.restart();
    }
    let queue = opened(options).await;
    let found = ids(&queue).await;
    assert!(!acknowledged.is_empty());
    let lost: Vec<_> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "{} of {} are lost", lost.len(), acknowledged.len());
    let refused = found.difference(&acknowledged).count();
    assert_eq!(refused, 0, "delivered though their clients were told that they are not stored");
}

/// Where the server knows WAITAOF, the number that it returns decides, and `everysec` is safe.
#[tokio::test]
async fn a_server_with_waitaof_may_sync_every_second() {
    let Some(mut server) = RedisServer::start_valkey() else { return };
    let folder = TempDir::new().unwrap();
    let options = options_at(on_socket(&server), folder.path());
    server.config_set("appendfsync", "everysec");
    let queue = opened(options.clone()).await;
    let puts = (0..20).map(|number| queue.put(plain(number, 0)));
    for put in puts.map(Box::pin) {
        put.await.unwrap();
    }
    drop(queue);
    server.kill();
    server.restart();
    assert_eq!(ids(&opened(options).await).await.len(), 20);
    server.config_set("appendonly", "no");
    let refused = RedisQueue::open(options_at(on_socket(&server), folder.path())).await.unwrap_err().to_string();
    assert!(refused.contains("appendonly"), "{refused}");
}

#[tokio::test]
async fn a_full_redis_refuses_new_mail_early_and_still_delivers_what_it_has() {
    let server = RedisServer::start_with(&[("maxmemory", "8mb")]).expect("redis-server");
    let folder = TempDir::new().unwrap();
    let queue = opened(impatient(on_socket(&server), folder.path())).await;
    let mut stored = 0_u32;
    let full = loop {
        let mut noise = u64::from(stored) + 1;
        let body: Vec<u8> = std::iter::repeat_with(|| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise as u8
        })
        .take(40_000)
        .collect();
        let mut mail = mail(stored, 0, "a@example.com", &["b@example.net"], "a");
        let mut accepted = (*mail.accepted).clone();
        accepted.message = crate::message::RawMessage::from_parts(accepted.message.header().to_vec(), body.into());
        mail.accepted = std::sync::Arc::new(accepted);
        match queue.put(mail).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 1000, "it never fills");
    };
    assert!(matches!(full, QueueError::Full(_)), "{full:?}");
    assert!(matches!(queue.admit(100_000), Err(QueueError::Full(_))));
    // Whatever else takes the rest of the memory.
    server.config_set("maxmemory", "1mb");
    let mut left = stored as usize;
    while left > 0 {
        let leased = queue.lease(&Lane::new("a"), now(), 10, u64::MAX).await.unwrap();
        assert!(!leased.is_empty(), "{left} are left");
        for leased in leased {
            queue.settle(leased.lease, vec![delivered()], later()).await.unwrap();
            left -= 1;
        }
    }
    assert_eq!(server.command(&["KEYS", "*:m:*"]), "");
}
