//! Which databases are opened, migrated or refused.

use super::Folder;
use crate::queue::conformance::{after, plain, with_message_id};
use crate::queue::sqlite::{SqliteQueue, schema};
use crate::queue::{Filter, Lane, Operator, Queue, Settlement};
use std::fs;
use std::sync::Arc;

fn database(folder: &Folder) -> rusqlite::Connection {
    rusqlite::Connection::open(folder.path().join("queue.sqlite")).unwrap()
}

fn refused(folder: &Folder) -> String {
    let text = SqliteQueue::open(folder.options()).unwrap_err().to_string();
    assert!(text.contains("queue.sqlite"), "names the file: {text}");
    text
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let folder = Folder::new(0);
    let queue = folder.open();
    queue.put(plain(1, 0)).await.unwrap();
    drop(queue);
    let version: i64 = database(&folder).pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    database(&folder).pragma_update(None, "user_version", version + 1).unwrap();
    let text = refused(&folder);
    assert!(text.contains("newer waxseal") && text.contains(&format!("version {}", version + 1)), "{text}");
    database(&folder).pragma_update(None, "user_version", version).unwrap();
    assert_eq!(folder.open().statistics().await.unwrap().waiting, 1);
}

/// Turns the database into what the last released version left.
fn back_to_version_3(folder: &Folder) {
    database(folder)
        .execute_batch(
            "DROP TABLE deduplication; DROP INDEX message_by_message_id; ALTER TABLE message DROP COLUMN message_id;
             ALTER TABLE history DROP COLUMN message_id; DROP TABLE lifetime; DROP INDEX history_lived; ALTER TABLE history DROP COLUMN lived;
             ALTER TABLE message DROP COLUMN lived; CREATE INDEX history_at ON history (at);
             ALTER TABLE message DROP COLUMN digest; ALTER TABLE message DROP COLUMN recipients;
             ALTER TABLE recipient DROP COLUMN digest; PRAGMA user_version = 3;",
        )
        .unwrap();
}

/// Their ages were counted by the wall clock, which may have been wrong when the mail came, or may be wrong now.
#[tokio::test]
async fn ages_from_an_older_schema_are_believed_within_bounds() {
    const DAY: i64 = 24 * 3600;
    let folder = Folder::new(0);
    let queue = folder.open();
    let table = [(1, -7 * 365 * DAY, 2 * DAY), (2, -4 * DAY, 2 * DAY), (3, -DAY, DAY), (4, 0, 0), (5, 300 * DAY, 0)];
    for (number, ..) in table {
        queue.put(plain(number, i64::from(number))).await.unwrap();
    }
    queue.close().await;
    back_to_version_3(&folder);
    let now = jiff::Timestamp::now().as_second();
    for (number, received, _) in table {
        let since = (now + received) * 1000;
        database(&folder).execute("UPDATE message SET since = ?2 WHERE key = ?1", (number, since)).unwrap();
    }
    let queue = folder.open();
    let leased = queue.lease(&Lane::new("a"), after(9), 9, u64::MAX).await.unwrap();
    assert_eq!(leased.len(), table.len());
    for (leased, (number, _, expected)) in leased.iter().zip(table) {
        // The test itself takes a while.
        let age = leased.age.as_secs() as i64;
        assert!((expected..expected + 3600).contains(&age), "{number}: {age} s, not {expected}");
        queue.settle(leased.lease, vec![Settlement::Untried], after(9)).await.unwrap();
    }
    let two_days = std::time::Duration::from_secs(2 * DAY as u64);
    let (old, _) = queue.lease_expired(&Lane::new("a"), two_days, None, 9, u64::MAX).await.unwrap();
    assert_eq!(old.len(), 2, "and none of them hides the others");
}

#[tokio::test]
async fn an_older_schema_is_migrated_with_its_mail() {
    let folder = Folder::new(0);
    let queue = folder.open();
    let mut mail = plain(1, 0);
    Arc::make_mut(&mut mail.accepted).message = with_message_id("<one@example.com>");
    queue.put(mail.clone()).await.unwrap();
    drop(queue);
    back_to_version_3(&folder);
    for column in ["listener", "user", "marks"] {
        database(&folder).execute_batch(&format!("ALTER TABLE message DROP COLUMN {column}")).unwrap();
    }
    database(&folder).execute_batch("DROP TABLE quota").unwrap();
    database(&folder).pragma_update(None, "user_version", 1).unwrap();
    let queue = folder.open();
    let leased = queue.lease(&Lane::new("a"), after(1), 1, u64::MAX).await.unwrap();
    assert_eq!(leased[0].accepted.message, mail.accepted.message);
    assert!(leased[0].accepted.marks.is_empty());
    let named = Filter { message_id: Some("one@example.com".into()), ..Filter::default() };
    assert_eq!(queue.list(&named, None, 10).await.unwrap().rows.len(), 1, "also what came before there were names");
}

#[test]
fn a_file_that_is_not_a_queue_is_refused() {
    let folder = Folder::new(0);
    database(&folder).execute_batch("CREATE TABLE other (a)").unwrap();
    assert!(refused(&folder).contains("another program"));
    let folder = Folder::new(0);
    fs::write(folder.path().join("queue.sqlite"), "not a database at all ".repeat(1000)).unwrap();
    assert!(refused(&folder).contains("not a database"), "{}", refused(&folder));
    let folder = Folder::new(0);
    fs::create_dir(folder.path().join("queue.sqlite")).unwrap();
    assert!(refused(&folder).contains("directory"), "{}", refused(&folder));
    let folder = Folder::new(0);
    fs::remove_dir(folder.path()).unwrap();
    assert!(refused(&folder).contains("No such file"), "{}", refused(&folder));
}

#[test]
fn every_connection_is_set_up_as_the_promise_needs() {
    let folder = Folder::new(0);
    drop(folder.open());
    let writer = schema::open_writer(&folder.path().join("queue.sqlite")).unwrap();
    let number = |name: &str| writer.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    let mode: String = writer.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!((mode.as_str(), number("synchronous"), number("auto_vacuum")), ("wal", 2, 2));
    let reader = schema::open_reader(&folder.path().join("queue.sqlite")).unwrap();
    reader.execute_batch("DELETE FROM message").unwrap_err();
}

#[tokio::test]
async fn an_empty_file_is_a_start_that_was_interrupted() {
    let folder = Folder::new(0);
    fs::write(folder.path().join("queue.sqlite"), "").unwrap();
    folder.open().put(plain(1, 0)).await.unwrap();
    assert_eq!(folder.open().statistics().await.unwrap().waiting, 1);
}

/// A reader that came back after the writer had gone left the log behind, and the next start took it for the rest of a crash.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_closed_while_it_is_read_leaves_no_log() {
    for _ in 0..20 {
        let folder = Folder::new(0);
        let queue = Arc::new(folder.open());
        queue.put(plain(1, 0)).await.unwrap();
        let read = |queue: Arc<SqliteQueue>| async move {
            for _ in 0..200 {
                if queue.list(&Filter::default(), None, 10).await.is_err() {
                    break;
                }
            }
        };
        let reads: Vec<_> = (0..8).map(|_| tokio::spawn(read(queue.clone()))).collect();
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        queue.close().await;
        for read in reads {
            read.await.unwrap();
        }
        drop(queue);
        assert!(crate::queue::sqlite::is_settled(&folder.path()).unwrap());
    }
}
