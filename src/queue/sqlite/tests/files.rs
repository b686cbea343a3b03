//! Large bodies beside the database, litter, and damage.

use super::Folder;
use crate::message::RawMessage;
use crate::queue::conformance::{after, mail, plain};
use crate::queue::sqlite::SqliteQueue;
use crate::queue::{
    Deduplication, Filter, IdempotencyKey, Lane, Leased, NewMail, Operator, Queue, QueueError, RecipientState,
    Revision, Settlement, Statistics,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn with_body(mut mail: NewMail, size: usize) -> NewMail {
    let mut accepted = (*mail.accepted).clone();
    accepted.message = RawMessage::from_parts(accepted.message.header().to_vec(), vec![b'x'; size].into());
    mail.accepted = Arc::new(accepted);
    mail
}

fn files(folder: &Path) -> Vec<String> {
    files_in(&folder.join("bodies"))
}

fn files_in(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}

async fn lease(queue: &SqliteQueue, limit: usize) -> Vec<Leased> {
    queue.lease(&Lane::new("a"), after(100), limit, u64::MAX).await.unwrap()
}

#[tokio::test]
async fn only_what_is_large_has_a_file_and_only_as_long_as_it_waits() {
    let folder = Folder::new(0);
    let queue = folder.open();
    let small = with_body(plain(1, 0), 256 * 1024);
    let mut large = with_body(plain(2, 1), 256 * 1024 + 1);
    large.original = Some(vec![b'y'; 300_000].into());
    queue.put(small).await.unwrap();
    queue.put(large.clone()).await.unwrap();
    let id = large.accepted.id.to_string();
    assert_eq!(files(&folder.path()), [id.clone(), format!("{id}.original")]);
    let mut broken = with_body(plain(3, 2), 300_000);
    broken.initial_states.clear();
    queue.put(broken).await.unwrap_err();
    assert_eq!(files(&folder.path()).len(), 2, "a put that fails takes its file back");
    for leased in lease(&queue, 2).await {
        let initial_state = Settlement::Delivered(crate::queue::Delivered {
            at: after(1),
            upstream: "company".into(),
            reply: "250 ok".into(),
            milliseconds: 1,
        });
        queue.settle(leased.lease, vec![initial_state], after(1)).await.unwrap();
    }
    assert_eq!(files(&folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn the_file_of_an_original_goes_with_the_form_that_it_was_of() {
    let folder = Folder::new(0);
    let queue = folder.open();
    let mut mail = with_body(plain(1, 0), 300_000);
    mail.original = Some(vec![b'y'; 300_000].into());
    queue.put(mail.clone()).await.unwrap();
    let accepted = &mail.accepted;
    let revision = Revision {
        id: accepted.id,
        replaces: accepted.envelope.recipients.clone(),
        envelope: accepted.envelope.clone(),
        lanes: vec![Lane::new("a")],
        header: b"Subject: revised\r\n".to_vec(),
        marks: accepted.marks.clone(),
        original: Some(vec![b'z'; 300_000].into()),
        subject: "revised".into(),
    };
    assert!(queue.replace(revision.clone(), after(1)).await.unwrap());
    assert_eq!(files(&folder.path()), [accepted.id.to_string()], "the body stays, the original is in the database");
    drop(queue);
    let stored = folder.open().stored(accepted.id).await.unwrap().unwrap();
    assert_eq!((stored.original, stored.accepted.message.body()), (revision.original, accepted.message.body()));
}

#[tokio::test]
async fn everything_is_for_the_owner_alone() {
    let folder = Folder::new(0);
    let queue = folder.open();
    queue.put(with_body(plain(1, 0), 300_000)).await.unwrap();
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    for name in ["queue.sqlite", "queue.sqlite-wal", "queue.sqlite-shm"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    assert_eq!(mode("bodies"), 0o700);
    assert_eq!(mode(&format!("bodies/{}", files(&folder.path())[0])), 0o600);
}

#[tokio::test]
async fn files_that_no_message_names_go_at_the_next_start() {
    let folder = Folder::new(0);
    let queue = folder.open();
    let kept = with_body(plain(1, 0), 300_000);
    queue.put(kept.clone()).await.unwrap();
    let inline = plain(2, 0);
    queue.put(inline.clone()).await.unwrap();
    drop(queue);
    let never_acknowledged = plain(3, 0).accepted.id.to_string();
    let foreign = "notes.txt".to_owned();
    let kept = kept.accepted.id.to_string();
    for name in [&never_acknowledged, &inline.accepted.id.to_string(), &foreign, &format!("{kept}.original")] {
        fs::write(folder.path().join("bodies").join(name), "half a mess").unwrap();
    }
    let queue = folder.open();
    assert_eq!(files(&folder.path()), [kept, foreign]);
    assert_eq!(lease(&queue, 10).await.len(), 2);
}

#[tokio::test]
async fn damaged_messages_are_set_aside_and_the_others_go_on() {
    let folder = Folder::new(0);
    let queue = folder.open();
    let mails: Vec<_> = (0..6).map(|number| with_body(plain(number, i64::from(number)), 300_000)).collect();
    for mail in &mails {
        queue.put(mail.clone()).await.unwrap();
    }
    let inline = plain(6, 6);
    queue.put(inline.clone()).await.unwrap();
    let body = |number: usize| folder.path().join("bodies").join(mails[number].accepted.id.as_str());
    fs::remove_file(body(0)).unwrap();
    fs::write(body(1), vec![b'x'; 299_999]).unwrap();
    fs::write(body(2), vec![b'y'; 300_000]).unwrap();
    spoil(&folder, "UPDATE message SET sender = 'not an address' WHERE subject = 'mail 3'");
    spoil(
        &folder,
        "UPDATE recipient SET address = 'nor this' WHERE message = (SELECT key FROM message WHERE subject = 'mail 4')",
    );
    spoil(&folder, "UPDATE content SET header = x'41' WHERE body IS NOT NULL");
    let leased = lease(&queue, 10).await;
    let ids: Vec<_> = leased.iter().map(|leased| leased.accepted.id).collect();
    assert_eq!(ids, [mails[5].accepted.id]);
    assert_eq!(queue.statistics().await.unwrap(), Statistics { leased: 1, damaged: 6, ..Statistics::default() });
    assert!(lease(&queue, 10).await.is_empty(), "not tried again");
    let damaged = Filter { state: Some(RecipientState::Damaged), ..Filter::default() };
    assert_eq!(queue.list(&damaged, None, 10).await.unwrap().rows.len(), 6);
    drop(queue);
    let queue = folder.open();
    assert_eq!(queue.statistics().await.unwrap().damaged, 6, "and not after a start");
    assert!(queue.show(inline.accepted.id).await.unwrap().is_some(), "what can be read is shown");
    queue.content(inline.accepted.id).await.unwrap_err();

    // The file reappears.
    fs::write(body(0), vec![b'x'; 300_000]).unwrap();
    assert_eq!(queue.retry(&[mails[0].accepted.id, mails[1].accepted.id], None, after(9)).await.unwrap(), 2);
    let ids: Vec<_> = lease(&queue, 10).await.iter().map(|leased| leased.accepted.id).collect();
    assert!(ids.contains(&mails[0].accepted.id) && !ids.contains(&mails[1].accepted.id));
    assert_eq!(queue.remove(&[mails[1].accepted.id]).await.unwrap(), 1);
    assert_eq!(queue.statistics().await.unwrap().damaged, 4);
}

/// A change to `bodies/`, and how to undo it.
type Change = fn(&Path);

/// Large mail was set aside as damaged because its folder was missing for a moment.
#[tokio::test]
async fn large_mail_waits_while_its_folder_is_away_and_is_lent_when_it_is_back() {
    let away = |folder: &Path| fs::rename(folder.join("bodies"), folder.join("away")).unwrap();
    let back = |folder: &Path| fs::rename(folder.join("away"), folder.join("bodies")).unwrap();
    let cases: [(&str, Change, Change); 3] = [
        ("moved away", away, back),
        (
            "replaced by an empty one",
            |folder| {
                fs::rename(folder.join("bodies"), folder.join("away")).unwrap();
                fs::create_dir(folder.join("bodies")).unwrap();
            },
            |folder| {
                fs::remove_dir(folder.join("bodies")).unwrap();
                fs::rename(folder.join("away"), folder.join("bodies")).unwrap();
            },
        ),
        (
            "replaced by one with another file of that name",
            |folder| {
                fs::rename(folder.join("bodies"), folder.join("away")).unwrap();
                fs::create_dir(folder.join("bodies")).unwrap();
                files_in(&folder.join("away")).iter().for_each(|name| {
                    fs::write(folder.join("bodies").join(name), "old").unwrap();
                });
            },
            |folder| {
                fs::remove_dir_all(folder.join("bodies")).unwrap();
                fs::rename(folder.join("away"), folder.join("bodies")).unwrap();
            },
        ),
    ];
    for (what, change, undo) in cases {
        let folder = Folder::new(0);
        let queue = folder.open();
        let mut large = with_body(plain(1, 0), 300_000);
        let small = plain(2, 1);
        large.original = Some(vec![b'y'; 300_000].into());
        queue.put(large.clone()).await.unwrap();
        queue.put(small.clone()).await.unwrap();
        change(&folder.path());
        let id = large.accepted.id;
        let ids: Vec<_> = lease(&queue, 2).await.iter().map(|leased| leased.accepted.id).collect();
        assert_eq!(ids, [small.accepted.id], "{what}: other mail goes on");
        let refused = queue.lease(&Lane::new("a"), after(200), 2, u64::MAX).await.unwrap_err();
        assert!(matches!(refused, QueueError::Moved(_)) && refused.to_string().contains("bodies"), "{what}: {refused}");
        assert!(matches!(queue.content(id).await, Err(QueueError::Moved(_))), "{what}");
        assert!(matches!(queue.stored(id).await, Err(QueueError::Moved(_))), "{what}");
        assert_eq!(queue.statistics().await.unwrap(), Statistics { leased: 1, waiting: 1, ..Statistics::default() });
        undo(&folder.path());
        let leased = queue.lease(&Lane::new("a"), after(300), 2, u64::MAX).await.unwrap().remove(0);
        assert!(leased.accepted.message == large.accepted.message, "{what}");
        assert_eq!((leased.attempts, leased.possible_duplicate), (0, false), "{what}");
        assert_eq!(queue.stored(id).await.unwrap().unwrap().original, large.original, "{what}");
    }
}

/// It stayed the oldest due message, so with one slot nothing after it was ever leased.
#[tokio::test]
async fn what_cannot_be_read_just_now_does_not_hold_up_the_others() {
    let folder = Folder::new(0);
    let queue = folder.open();
    let mails: Vec<_> = (0..3).map(|number| with_body(plain(number, i64::from(number)), 300_000)).collect();
    for mail in &mails {
        queue.put(mail.clone()).await.unwrap();
    }
    let body = folder.path().join("bodies").join(mails[0].accepted.id.as_str());
    let aside = folder.path().join("aside");
    fs::rename(&body, &aside).unwrap();
    fs::create_dir(&body).unwrap();
    let lane = Lane::new("a");
    queue.lease(&lane, after(100), 1, u64::MAX).await.unwrap_err();
    for behind in &mails[1..] {
        let leased = queue.lease(&lane, after(100), 1, u64::MAX).await.unwrap();
        assert_eq!(leased[0].accepted.id, behind.accepted.id);
    }
    assert_eq!(queue.statistics().await.unwrap(), Statistics { leased: 2, waiting: 1, ..Statistics::default() });
    fs::remove_dir(&body).unwrap();
    fs::rename(&aside, &body).unwrap();
    let due = queue.next_due(&lane, after(100)).await.unwrap().unwrap();
    assert!(due > after(100), "not before a while");
    let leased = queue.lease(&lane, due, 1, u64::MAX).await.unwrap().remove(0);
    assert_eq!((leased.accepted.id, leased.attempts, leased.possible_duplicate), (mails[0].accepted.id, 0, false));
}

#[tokio::test]
async fn a_message_damaged_while_leased_does_not_block_its_slot() {
    let folder = Folder::new(0);
    let queue = folder.open();
    queue.put(mail(1, 0, "a@example.com", &["b@example.net"], "a")).await.unwrap();
    let leased = lease(&queue, 1).await.remove(0);
    spoil(&folder, "DELETE FROM recipient");
    let initial_state =
        crate::queue::Delivered { at: after(1), upstream: "u".into(), reply: "250".into(), milliseconds: 1 };
    queue.settle(leased.lease, vec![Settlement::Delivered(initial_state)], after(1)).await.unwrap();
    assert!(lease(&queue, 1).await.is_empty());
}

#[tokio::test]
async fn pages_full_of_rubbish_end_in_errors_or_damage_but_never_in_a_loop() {
    let folder = Folder::new(0);
    let queue = folder.open();
    for number in 0..300 {
        queue.put(with_body(plain(number, 0), 3000)).await.unwrap();
    }
    queue.close().await;
    drop(queue);
    let pages: Vec<i64> = {
        let connection = crate::queue::sqlite::schema::open_reader(&folder.path().join("queue.sqlite")).unwrap();
        let mut leaves = connection
            .prepare("SELECT pageno FROM dbstat WHERE name = 'content' AND pagetype = 'leaf' ORDER BY pageno")
            .unwrap();
        leaves.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let path = folder.path().join("queue.sqlite");
    let mut bytes = fs::read(&path).unwrap();
    for page in pages.iter().skip(10).take(20) {
        let start = (*page as usize - 1) * 4096;
        bytes[start..start + 4096].fill(0xa5);
    }
    fs::write(&path, bytes).unwrap();
    let queue = folder.open();
    let mut lent = 0;
    for _ in 0..300 {
        let leased = lease(&queue, 10).await;
        if leased.is_empty() {
            break;
        }
        lent += leased.len();
    }
    let statistics = queue.statistics().await.unwrap();
    assert_eq!((statistics.waiting, statistics.leased), (0, lent as u64), "{statistics:?}");
    assert!(statistics.damaged >= 20 && lent > 100, "{statistics:?}");
    assert_eq!(queue.list(&Filter::default(), None, 1000).await.unwrap().rows.len(), 300);
}

fn spoil(folder: &Folder, sql: &str) {
    let connection = crate::queue::sqlite::schema::open_writer(&folder.path().join("queue.sqlite")).unwrap();
    connection.execute_batch(sql).unwrap();
}

/// The refused message is submitted again: it must not be taken for one that is stored.
#[tokio::test]
async fn what_is_refused_because_the_files_have_moved_is_not_remembered() {
    let window = Duration::from_secs(600);
    let keyed = |number: u32, key: u8| {
        let deduplication = Some(Deduplication { key: IdempotencyKey([key; 32]), window });
        NewMail { deduplication, ..plain(number, 0) }
    };
    let folder = Folder::new(0);
    let queue = folder.open();
    let first = keyed(1, 1);
    let id = first.accepted.id;
    assert_eq!(queue.put_once(first).await.unwrap(), None);
    let database = folder.path().join("queue.sqlite");
    let aside = folder.path().join("aside");
    fs::rename(&database, &aside).unwrap();
    for (number, key) in [(2, 1), (3, 2), (4, 2)] {
        let refused = queue.put_once(keyed(number, key)).await;
        assert!(matches!(refused, Err(QueueError::Moved(_))), "{number}: {refused:?}");
    }
    fs::rename(&aside, &database).unwrap();
    assert_eq!(queue.put_once(keyed(5, 1)).await.unwrap(), Some(id), "it is stored");
    assert_eq!(queue.put_once(keyed(6, 2)).await.unwrap(), None, "it was refused");
    assert_eq!(queue.statistics().await.unwrap().waiting, 2);
}
