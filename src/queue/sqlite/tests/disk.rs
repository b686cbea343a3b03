//! A disk that is full, or will not be written to; and that it is over when it is over.

use super::Folder;
use crate::message::RawMessage;
use crate::observe::Clock;
use crate::queue::conformance::{after, plain};
use crate::queue::sqlite::{Options, SqliteQueue};
use crate::queue::{Delivered, Lane, NewMail, Queue, QueueError, Settlement};
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

/// Puts until the disk is full; returns how many were taken.
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

/// Everything that was acknowledged is there, and can be delivered; then there is room again.
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

/// The folder to work in, set by the test that runs this one inside a mount of its own.
const FOLDER: &str = "WAXSEAL_TEST_SMALL_DISK";

/// Runs an ignored test of this file with a file system of its own at `FOLDER`, made by `mounts`.
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

fn options(folder: &Path) -> Options {
    Options { data_dir: folder.to_owned(), cache_octets: 0, schedule: Default::default(), clock: Clock::System }
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
