//! Filters over a large queue find rows wherever they are, without examining each message.

use super::Folder;
use crate::message::MailId;
use crate::queue::conformance::{after, mail};
use crate::queue::{Filter, Operator, Queue, RecipientState};

/// Number of rows to create: more than one search examines.
const MANY: i64 = 120_000;

#[tokio::test]
async fn the_last_of_many_is_found_by_any_filter() {
    let folder = Folder::new(0);
    let queue = folder.open();
    queue.put(mail(1, 0, "a@example.com", &["crowd@example.net"], "a")).await.unwrap();
    let raw = crate::queue::sqlite::schema::open_writer(&folder.path().join("queue.sqlite")).unwrap();
    for sql in [
        "INSERT INTO message (key, id, received_at, since, sender, eight_bit, smtputf8, size, subject)
         SELECT value + 1, 'copy' || value, received_at + 1000 * 3600, since, sender, 0, 0, 1, '' FROM message, numbers",
        "INSERT INTO recipient (message, position, address, lane, attempts) SELECT value + 1, 0, 'crowd@example.net', 'a', 0
         FROM numbers",
    ] {
        let numbers = format!(
            "WITH RECURSIVE numbers(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM numbers WHERE value < {MANY})"
        );
        raw.execute_batch(&format!("{numbers} {sql}")).unwrap();
    }
    queue.put(mail(2, 1, "a@example.com", &["Needle@Example.org"], "b")).await.unwrap();
    for filter in [
        Filter { recipient: Some("eedle@example.O".into()), ..Filter::default() },
        Filter { upstream: Some("b".into()), ..Filter::default() },
        Filter { upstream: Some("b".into()), state: Some(RecipientState::Waiting), ..Filter::default() },
        Filter { recipient: Some("needle".into()), received_before: Some(after(2)), ..Filter::default() },
    ] {
        let mut found = Vec::new();
        let mut cursor = None;
        let mut pages = 0;
        loop {
            let page = queue.list(&filter, cursor, 100).await.unwrap();
            found.extend(page.rows.into_iter().map(|row| row.recipients[0].address.clone()));
            (cursor, pages) = (page.next, pages + 1);
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(found, ["Needle@Example.org"], "{filter:?}");
        assert!(pages <= 4, "{pages} pages: it goes through rows, not message by message");
    }
    let young = Filter { received_before: Some(after(0)), ..Filter::default() };
    assert!(queue.list(&young, None, 100).await.unwrap().rows.is_empty());
}

/// The index has a group for each 1,024 keys.
#[tokio::test]
async fn a_message_id_is_found_in_every_part_of_a_long_queue() {
    let folder = Folder::new(0);
    let queue = folder.open();
    queue.put(mail(1, 0, "a@example.com", &["first@example.net"], "a")).await.unwrap();
    let raw = crate::queue::sqlite::schema::open_writer(&folder.path().join("queue.sqlite")).unwrap();
    let last = 3_000 * 1024;
    let copies = [2, 1023, 1024, 1025, 2047, 2048, 5000, 9999, last - 1, last];
    for key in copies {
        let id = MailId::new(after(key), 0);
        let form = if key % 2 == 0 { "<same@example.com>" } else { "same@example.com" };
        raw.execute(
            "INSERT INTO message (key, id, received_at, since, sender, eight_bit, smtputf8, size, subject, message_id)
             SELECT ?1, ?2, received_at, since, sender, 0, 0, 1, '', ?3 FROM message WHERE key = 1",
            (key, id.as_str(), form),
        )
        .unwrap();
        raw.execute(
            "INSERT INTO recipient (message, position, address, lane, attempts) VALUES (?1, 0, ?1 || '@example.net', 'a', 0)",
            [key],
        )
        .unwrap();
    }
    let expected: Vec<_> = copies.iter().map(|key| format!("{key}@example.net")).collect();
    for (text, limit) in [("same@example.com", 1), ("<same@example.com>", 3), ("same@example.com", 100)] {
        let filter = Filter { message_id: Some(text.into()), ..Filter::default() };
        let (mut found, mut cursor) = (Vec::new(), None);
        for _ in 0..=copies.len() {
            let page = queue.list(&filter, cursor, limit).await.unwrap();
            found.extend(page.rows.into_iter().map(|row| row.recipients[0].address.clone()));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!((found, cursor), (expected.clone(), None), "{text}, {limit} a page");
    }
}
