//! A disk that is full or read-only, and what happens once that is over.

use super::Folder;
use crate::message::RawMessage;
use crate::observe::Clock;
use crate::queue::conformance::{after, plain};
use crate::queue::sqlite::{SqliteOptions, SqliteQueue, put, schema};
use crate::queue::{Delivered, Filter, Lane, NewMail, Operator, Queue, QueueError, Settlement};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

fn of_size(number: u32, size: usize) -> NewMail {
    let mut mail = plain(number, 0);
    let mut accepted = (*mail.accepted).clone();
    accepted.message = RawMessage::from_parts(accepted.message.header().to_vec(), vec![b'x'; size].into());
    mail.accepted = Arc::new(accepted);
    mail
}

async fn set(queue: &SqliteQueue, pragma: &'static str) {
    queue.store.writer.call(move |work| Ok(work.first(pragma, [], |_| Ok(()))?)).await.unwrap();
}

fn taken() -> Settlement {
    Settlement::Delivered(Delivered { at: after(1), upstream: "u".into(), reply: "250".into(), milliseconds: 1 })
}

/// Puts messages until the disk is full; returns how many were accepted.
async fn fill(queue: &SqliteQueue, size: usize) -> u32 {
    for number in 0..100_000 {
        match queue.put(of_size(number, size)).await {
            Ok(()) => {}
            Err(QueueError::Full(_)) => return number,
            Err(other) => panic!("{other} is not about room"),
        }
    }
    panic!("the disk never filled up");
}

/// All acknowledged mail is there and can be delivered; then there is space again.
async fn drain_and_go_on(queue: &SqliteQueue, acknowledged: u32) {
    assert_eq!(queue.statistics().await.unwrap().waiting, u64::from(acknowledged));
    let mut delivered = 0;
    loop {
        let leased = queue.lease(&Lane::new("a"), after(1), 5, u64::MAX).await.unwrap();
        if leased.is_empty() {
            break;
        }
        for leased in leased {
            queue.settle(leased.lease, vec![taken()], after(1)).await.unwrap();
            delivered += 1;
        }
    }
    assert_eq!(delivered, acknowledged);
    queue.put(of_size(200_000, 3000)).await.unwrap();
}

#[tokio::test]
async fn a_quota_refuses_mail_and_delivery_goes_on() {
    let folder = Folder::new(1 << 20);
    let queue = folder.open();
    set(&queue, "PRAGMA max_page_count = 200").await;
    let acknowledged = fill(&queue, 3000).await;
    assert!(acknowledged > 20, "{acknowledged}");
    drain_and_go_on(&queue, acknowledged).await;
}

#[tokio::test]
async fn space_that_a_backlog_took_is_given_back() {
    let folder = Folder::new(0);
    let queue = folder.open();
    let ids: Vec<_> = (0..400).map(|number| of_size(number, 250_000)).collect();
    for mail in &ids {
        queue.put(mail.clone()).await.unwrap();
    }
    let ids: Vec<_> = ids.iter().map(|mail| mail.accepted.id).collect();
    assert_eq!(queue.remove(&ids).await.unwrap(), 400);
    queue.put(plain(1000, 0)).await.unwrap();
    let pages = async || {
        let count =
            queue.store.writer.call(|work| Ok(work.first("PRAGMA page_count", [], |row| row.get::<_, i64>(0))?));
        count.await.unwrap().unwrap()
    };
    let before = pages().await;
    assert_eq!(queue.prune(Duration::ZERO, Duration::ZERO).await.unwrap(), 0);
    let after_it = pages().await;
    assert!(before > 24_000 && after_it < 17_000, "{before} pages, then {after_it}");
    assert_eq!(queue.statistics().await.unwrap().waiting, 1);
}

#[tokio::test]
async fn one_that_does_not_fit_refuses_nobody_else() {
    let folder = Folder::new(0);
    let queue = folder.open();
    set(&queue, "PRAGMA max_page_count = 60").await;
    let (small, large, other) =
        tokio::join!(queue.put(of_size(1, 100)), queue.put(of_size(2, 250_000)), queue.put(of_size(3, 100)));
    assert!(small.is_ok() && other.is_ok());
    assert!(matches!(large, Err(QueueError::Full(_))), "{large:?}");
    assert_eq!(queue.statistics().await.unwrap().waiting, 2);
}

#[tokio::test]
async fn a_database_that_cannot_be_written_refuses_and_recovers() {
    let folder = Folder::new(1 << 20);
    let queue = folder.open();
    queue.put(plain(1, 0)).await.unwrap();
    let leased = queue.lease(&Lane::new("a"), after(0), 1, u64::MAX).await.unwrap().remove(0);
    let blocker = crate::queue::sqlite::schema::open_writer(&folder.path().join("queue.sqlite")).unwrap();
    set(&queue, "PRAGMA busy_timeout = 1").await;
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    for _ in 0..3 {
        let refused = queue.put(of_size(2, 300_000)).await;
        assert!(matches!(refused, Err(QueueError::Storage(_))), "{refused:?}");
        let refused = queue.settle(leased.lease, vec![taken()], after(1)).await;
        assert!(matches!(refused, Err(QueueError::Storage(_))), "{refused:?}");
    }
    assert_eq!(queue.statistics().await.unwrap().leased, 1, "it can still be read");
    blocker.execute_batch("ROLLBACK").unwrap();
    queue.put(of_size(2, 300_000)).await.unwrap();
    queue.settle(leased.lease, vec![taken()], after(1)).await.unwrap();
    assert_eq!(queue.statistics().await.unwrap().waiting, 1);
}

/// The folder to work in, set by the test that runs this one inside its own mount.
const FOLDER: &str = "WAXSEAL_TEST_SMALL_DISK";

/// Runs an ignored test of this file with its own file system at `FOLDER`, created by `mounts`.
fn inside_a_mount(test: &str, mounts: &str) {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("{mounts} && exec \"$0\" --exact --ignored --nocapture \"$1\"");
    let name = format!("queue::sqlite::tests::disk::{test}");
    let program = std::env::current_exe().unwrap();
    let namespace = ["--user", "--map-root-user", "--mount"];
    if !Command::new("unshare").args(namespace).arg("true").status().is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "unshare is missing or forbidden");
        eprintln!("SKIPPED {test}: unshare is missing or forbidden here");
        return;
    }
    let ran = Command::new("unshare")
        .args(namespace)
        .args(["sh", "-c", &script])
        .args([program.as_os_str(), name.as_ref()])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && output.contains("1 passed"), "{output}");
}

fn options(folder: &Path) -> SqliteOptions {
    let clock = Clock::System;
    SqliteOptions {
        data_dir: folder.to_owned(),
        cache_octets: 0,
        min_free_space: 0,
        schedule: Default::default(),
        clock,
        metrics: Default::default(),
    }
}

#[test]
fn a_full_disk_refuses_mail_and_recovers() {
    inside_a_mount("within_a_small_disk", &format!("mount -t tmpfs -o size=40m none \"${FOLDER}\""));
}

#[tokio::test]
#[ignore = "run by a_full_disk_refuses_mail_and_recovers"]
async fn within_a_small_disk() {
    let folder = std::path::PathBuf::from(std::env::var_os(FOLDER).expect("a folder"));
    let ballast = folder.join("ballast");
    std::fs::write(&ballast, vec![0; 8 << 20]).unwrap();
    let queue = SqliteQueue::open(options(&folder)).unwrap();
    let acknowledged = fill(&queue, 3000).await;
    assert!(acknowledged > 100, "{acknowledged}");
    assert!(
        matches!(queue.put(of_size(150_000, 10_000_000)).await, Err(QueueError::Full(_))),
        "a file that does not fit"
    );
    assert_eq!(std::fs::read_dir(folder.join("bodies")).unwrap().count(), 0, "and nothing is left of it");
    std::fs::remove_file(ballast).unwrap();
    drain_and_go_on(&queue, acknowledged).await;
    drop(queue);
    assert_eq!(SqliteQueue::open(options(&folder)).unwrap().statistics().await.unwrap().waiting, 1);
}

#[test]
fn a_read_only_disk_is_refused_at_the_start() {
    let mounts = format!("mount -t tmpfs -o size=4m none \"${FOLDER}\" && mount -o remount,ro \"${FOLDER}\"");
    inside_a_mount("within_a_read_only_disk", &mounts);
}

#[test]
#[ignore = "run by a_read_only_disk_is_refused_at_the_start"]
fn within_a_read_only_disk() {
    let folder = std::path::PathBuf::from(std::env::var_os(FOLDER).expect("a folder"));
    let text = SqliteQueue::open(options(&folder)).unwrap_err().to_string();
    assert!(text.contains("queue.sqlite") && text.contains("Read-only file system"), "{text}");
}

/// The client got 452, but the next start after a crash had the mail: the last page of a commit is written to the log
/// before the log's index has space for it.
#[test]
fn mail_that_a_full_disk_refused_is_not_there_after_a_crash() {
    inside_a_mount(
        "within_a_disk_without_room_for_the_index",
        &format!("mount -t tmpfs -o size=60m none \"${FOLDER}\""),
    );
}

/// Number of pages that the first part of the index covers (wal.c: HASHTABLE_NPAGE_ONE).
const FIRST_PART: u64 = 4062;

#[tokio::test]
#[ignore = "run by mail_that_a_full_disk_refused_is_not_there_after_a_crash"]
async fn within_a_disk_without_room_for_the_index() {
    let folder = std::path::PathBuf::from(std::env::var_os(FOLDER).expect("a folder"));
    // Without a reserve, which would provide space.
    let queue = SqliteQueue::open(SqliteOptions { min_free_space: u64::MAX, ..options(&folder) }).unwrap();
    set(&queue, "PRAGMA wal_autocheckpoint = 0").await;
    // A long-running reader lets the log grow.
    let reader = schema::open_reader(&folder.join("queue.sqlite")).unwrap();
    reader.execute_batch("BEGIN; SELECT COUNT(*) FROM message").unwrap();
    let pages = || std::fs::metadata(folder.join("queue.sqlite-wal")).unwrap().len() / 4120;
    let mut acknowledged = 0;
    while pages() < FIRST_PART - 150 {
        put_unasked(&queue, of_size(acknowledged, 250_000)).await.unwrap();
        acknowledged += 1;
    }
    let mut refused = 0;
    for _ in 0..60 {
        let outcome = put_with_all_room_but(&folder, &queue, acknowledged, &mut refused).await;
        acknowledged += u32::from(outcome);
        if pages() > FIRST_PART + 20 {
            break;
        }
    }
    assert!(pages() > FIRST_PART && refused > 10, "{} pages, {refused} refused", pages());
}

/// Puts with one page of free space, then with two, until it fits. After each refusal it inspects a copy, as a crash
/// would leave it.
async fn put_with_all_room_but(folder: &Path, queue: &SqliteQueue, acknowledged: u32, refused: &mut u32) -> bool {
    for free in 0..40 {
        let ballast = std::fs::File::create(folder.join("ballast")).unwrap();
        let mut all = &ballast;
        let mut block = 1 << 20;
        while block >= 4096 {
            while std::io::Write::write_all(&mut all, &vec![0; block]).is_ok() {}
            block /= 2;
        }
        let length = ballast.metadata().unwrap().len() / 4096 * 4096;
        ballast.set_len(length.saturating_sub(free * 4096)).unwrap();
        match put_unasked(queue, of_size(100_000 + acknowledged + *refused, 100)).await {
            Ok(()) => return true,
            Err(QueueError::Full(_)) => {
                *refused += 1;
                assert_eq!(after_a_crash(folder), acknowledged, "with {free} pages free");
            }
            Err(other) => panic!("{other}"),
        }
    }
    false
}

fn after_a_crash(folder: &Path) -> u32 {
    let copy = tempfile::tempdir_in("/var/tmp").unwrap();
    for name in ["queue.sqlite", "queue.sqlite-wal"] {
        std::fs::copy(folder.join(name), copy.path().join(name)).unwrap();
    }
    let found = schema::open_writer(&copy.path().join("queue.sqlite")).unwrap();
    found.query_row("SELECT COUNT(*) FROM message", [], |row| row.get(0)).unwrap()
}

/// Puts without asking first whether there is space.
async fn put_unasked(queue: &SqliteQueue, mail: NewMail) -> Result<(), QueueError> {
    let message = &mail.accepted.message;
    let digest = put::digest(message.header(), message.body());
    let prepared =
        put::PreparedPut { digest, lived: 0, mail, body_in_file: false, original_in_file: false, is_awaited: false };
    queue.store.writer.call(move |work| put::put(work, &prepared).map(drop)).await
}

/// While someone was reading, and each reader began before the last one ended, the log grew without end.
#[tokio::test(flavor = "multi_thread")]
async fn readers_that_follow_upon_each_other_do_not_keep_the_log_from_ending() {
    let folder = Folder::new(0);
    let queue = Arc::new(folder.open());
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let queue = queue.clone();
        let stop = stop.clone();
        readers.spawn(async move {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                queue.list(&Filter::default(), None, 1000).await.unwrap();
            }
        });
    }
    let mut longest = 0;
    for number in 0..3000 {
        queue.put(of_size(number, 20_000)).await.unwrap();
        longest = longest.max(std::fs::metadata(folder.path().join("queue.sqlite-wal")).unwrap().len());
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    readers.join_all().await;
    assert!(longest <= 2000 * 4120, "{longest} octets");
}
