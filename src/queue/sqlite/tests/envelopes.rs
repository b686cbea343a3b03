//! Digests cover everything that decides where and how mail is sent: whatever is changed in the database, no changed
//! mail is sent.

use super::Folder;
use crate::message::{Mark, Marks};
use crate::queue::conformance::{after, mail, plain, reassign_all};
use crate::queue::sqlite::{SqliteQueue, schema};
use crate::queue::{Attempted, Correction, Delivered, Lane, Leased, NewMail, Operator, Queue, Settlement, Statistics};
use crate::smtp::Mailbox;
use std::sync::Arc;

fn spoil(folder: &Folder, sql: &str) {
    let connection = schema::open_writer(&folder.path().join("queue.sqlite")).unwrap();
    assert!(connection.execute(sql, []).unwrap() > 0, "{sql}");
}

async fn lease(queue: &SqliteQueue, lane: &str) -> Vec<Leased> {
    queue.lease(&Lane::new(lane), after(100), 10, u64::MAX).await.unwrap()
}

/// A message that uses every column.
fn full(number: u32) -> NewMail {
    let mut mail = mail(number, 0, "a@example.com", &["b@example.net", "c@example.net"], "a");
    let mut accepted = (*mail.accepted).clone();
    accepted.origin.listener = Some("127.0.0.1:2525".into());
    accepted.origin.user = Some("plausible".into());
    accepted.marks = Marks { tag: Mark::new("report").ok(), upstream: Mark::new("backup").ok(), ..Marks::default() };
    mail.accepted = Arc::new(accepted);
    mail
}

fn attempt() -> Attempted {
    Attempted { at: after(1), upstream: Some("company".into()), text: "550 no".into(), possible_duplicate: false }
}

fn delivered() -> Settlement {
    Settlement::Delivered(Delivered { at: after(1), upstream: "company".into(), reply: "250".into(), milliseconds: 1 })
}

/// Each is a value that parses, so that only the digest can detect it.
const CHANGES: [&str; 25] = [
    "UPDATE message SET sender = 'b@example.com' WHERE key = 1",
    "UPDATE message SET sender = NULL WHERE key = 1",
    "UPDATE message SET eight_bit = 1 - eight_bit WHERE key = 1",
    "UPDATE message SET smtputf8 = 1 - smtputf8 WHERE key = 1",
    "UPDATE message SET id = '0000000000000009' WHERE key = 1",
    "UPDATE message SET received_at = received_at + 1 WHERE key = 1",
    "UPDATE message SET subject = 'another' WHERE key = 1",
    "UPDATE message SET size = size + 1 WHERE key = 1",
    "UPDATE message SET listener = '127.0.0.1:2526' WHERE key = 1",
    "UPDATE message SET user = NULL WHERE key = 1",
    "UPDATE message SET user = 'somebody' WHERE key = 1",
    "UPDATE message SET marks = NULL WHERE key = 1",
    "UPDATE message SET marks = replace(marks, 'backup', 'backuq') WHERE key = 1",
    "UPDATE message SET digest = NULL WHERE key = 1",
    "UPDATE message SET recipients = recipients + 1 WHERE key = 1",
    "UPDATE recipient SET address = 'd@example.net' WHERE message = 1 AND position = 1",
    "UPDATE recipient SET lane = 'b' WHERE message = 1 AND position = 1",
    "UPDATE recipient SET failed_at = 1 WHERE message = 1 AND position = 1",
    "UPDATE recipient SET position = 2 WHERE message = 1 AND position = 1",
    "UPDATE recipient SET digest = NULL WHERE message = 1 AND position = 1",
    // This value is not valid text: one such row must not stop its whole lane.
    "UPDATE recipient SET address = CAST(x'61ff40622e6e6574' AS TEXT) WHERE message = 1 AND position = 1",
    "UPDATE message SET sender = CAST(x'61ff40622e6e6574' AS TEXT) WHERE key = 1",
    "UPDATE message SET marks = CAST(x'ff' AS TEXT) WHERE key = 1",
    "DELETE FROM recipient WHERE message = 1 AND position = 1",
    "UPDATE content SET (header, body, digest) = (SELECT header, body, digest FROM content WHERE message = 2)
     WHERE message = 1",
];

#[tokio::test]
async fn no_message_is_sent_whose_envelope_was_changed() {
    for cache_octets in [0, 1 << 20] {
        for change in CHANGES {
            if cache_octets > 0 && change.starts_with("UPDATE content") {
                // It is sent from memory, as it was accepted.
                continue;
            }
            let folder = Folder::new(cache_octets);
            let queue = folder.open();
            for number in 1..=2 {
                queue.put(full(number)).await.unwrap();
            }
            spoil(&folder, change);
            let leased = lease(&queue, "a").await;
            let ids: Vec<_> = leased.iter().map(|leased| leased.accepted.id).collect();
            assert_eq!(ids, [full(2).accepted.id], "{change}");
            assert!(lease(&queue, "b").await.is_empty());
            let damaged = queue.statistics().await.unwrap().damaged;
            assert!(damaged > 0, "{change}: it is said");
            queue.stored(full(1).accepted.id).await.map(|stored| assert!(stored.is_none(), "{change}")).ok();
            // Retrying does not repair it.
            queue.retry(&[full(1).accepted.id], None, after(2)).await.unwrap();
            let to_c = Arc::new(|_: &crate::message::accepted::Addressed<'_>| Lane::new("c"));
            reassign_all(&queue, "other", to_c).await.unwrap();
            for lane in ["a", "b", "c"] {
                for leased in lease(&queue, lane).await {
                    assert_eq!(leased.accepted.envelope, full(1).accepted.envelope, "{change}: on {lane}");
                    // The only change that a retry undoes.
                    assert!(change.contains("failed_at"), "{change}: on {lane}");
                }
            }
        }
    }
}

#[tokio::test]
async fn everything_that_changes_a_row_keeps_its_digest_right() {
    let folder = Folder::new(0);
    let queue = folder.open();
    let id = full(1).accepted.id;
    queue.put(full(1)).await.unwrap();
    let first = lease(&queue, "a").await.remove(0);
    queue
        .settle(first.lease, vec![Settlement::Failed(attempt()), Settlement::Deferred(attempt())], after(2))
        .await
        .unwrap();
    let to_b = Arc::new(|_: &crate::message::accepted::Addressed<'_>| Lane::new("b"));
    reassign_all(&queue, "new", to_b).await.unwrap();
    let second = lease(&queue, "b").await.remove(0);
    assert_eq!(second.accepted.envelope.recipients.len(), 1, "one failed");
    queue.settle(second.lease, vec![delivered()], after(3)).await.unwrap();
    assert_eq!(queue.retry(&[id], None, after(4)).await.unwrap(), 1);
    let third = lease(&queue, "b").await.remove(0);
    queue.settle(third.lease, vec![Settlement::Failed(attempt())], after(5)).await.unwrap();
    let to = Mailbox::parse("jürgen@example.net").unwrap();
    let correction = Correction { to: to.clone(), lane_of: Some(Arc::new(|_| Lane::new("c"))) };
    assert_eq!(queue.retry(&[id], Some(&correction), after(6)).await.unwrap(), 1);
    let fourth = lease(&queue, "c").await.remove(0);
    assert_eq!(fourth.accepted.envelope.recipients, [to]);
    assert!(fourth.accepted.envelope.smtputf8);
    assert_eq!(fourth.accepted.marks, full(1).accepted.marks);
    assert_eq!(queue.statistics().await.unwrap(), Statistics { leased: 1, ..Statistics::default() });
}

#[tokio::test]
async fn a_damaged_address_is_repaired_by_naming_the_right_one() {
    let folder = Folder::new(0);
    let queue = folder.open();
    queue.put(plain(1, 0)).await.unwrap();
    spoil(&folder, "UPDATE recipient SET address = 'x@example.net'");
    assert!(lease(&queue, "a").await.is_empty());
    let correction = Correction { to: Mailbox::parse("b@example.net").unwrap(), lane_of: None };
    assert_eq!(queue.retry(&[plain(1, 0).accepted.id], Some(&correction), after(2)).await.unwrap(), 1);
    assert_eq!(lease(&queue, "a").await.len(), 1);
}
