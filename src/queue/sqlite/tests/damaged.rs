//! Databases with flipped octets, zeroed pages, truncated ends and damaged logs are opened, or refused and salvaged. No
//! changed mail is ever leased, and each message is leased, listed as damaged or lost, or counted as missing.

use super::Folder;
use crate::message::RawMessage;
use crate::queue::conformance::{after, mail, plain};
use crate::queue::sqlite::{Finding, SqliteQueue, check, salvage, wal};
use crate::queue::{Deduplication, Delivered, Filter, IdempotencyKey, Lane, NewMail, Operator, Queue, Settlement};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

const MAILS: u32 = 60;

/// Messages of different senders, sizes and numbers of recipients.
fn one(number: u32) -> NewMail {
    let recipients: Vec<String> = (0..=number % 3).map(|to| format!("to{to}.{number}@example.net")).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let mut mail = mail(number, i64::from(number), &format!("from{number}@example.com"), &recipients, "a");
    let mut accepted = (*mail.accepted).clone();
    let size = if number % 20 == 7 { 300_000 } else { 200 + 400 * (number as usize % 17) };
    let body: Vec<u8> = (0..size).map(|at| b'a' + ((at as u32 * 7 + number) % 26) as u8).collect();
    accepted.message = RawMessage::from_parts(accepted.message.header().to_vec(), body.into());
    mail.accepted = Arc::new(accepted);
    mail
}

static ALL: LazyLock<Vec<NewMail>> = LazyLock::new(|| (0..MAILS).map(one).collect());

/// A fixed sequence, so that a failure can be reproduced.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % end.max(1)
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("bodies")).unwrap();
    for name in ["queue.sqlite", "queue.sqlite-wal"] {
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
    for entry in fs::read_dir(from.join("bodies")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join("bodies").join(entry.file_name())).unwrap();
    }
}

/// Returns what it did, for the message of a failure.
fn damage(folder: &Path, chance: &mut Chance, round: usize) -> String {
    let with_log = fs::metadata(folder.join("queue.sqlite-wal")).is_ok_and(|log| log.len() > 0);
    let name = if with_log && round.is_multiple_of(2) { "queue.sqlite-wal" } else { "queue.sqlite" };
    let mut bytes = fs::read(folder.join(name)).unwrap();
    let kind = round % 5;
    let pages = bytes.len() / 4096;
    let what = match kind {
        0 | 1 => {
            let mut at: Vec<usize> = (0..1 << (round % 6)).map(|_| chance.below(bytes.len())).collect();
            // If the last transaction of a log is damaged, it looks like one that was not acknowledged.
            at.retain(|at| !name.ends_with("-wal") || *at < bytes.len() / 2);
            at.iter().for_each(|at| bytes[*at] ^= 1 << (at % 8));
            format!("flipped {at:?}")
        }
        2 => {
            let page = chance.below(pages / 2);
            bytes[page * 4096..(page + 1) * 4096].fill(0);
            format!("emptied page {}", page + 1)
        }
        3 if name == "queue.sqlite" => {
            let pages = pages / 2 + chance.below(pages / 2);
            bytes.truncate(pages * 4096 + chance.below(4096));
            format!("cut behind page {pages}")
        }
        _ => {
            let page = chance.below(pages / 2);
            let octet = chance.below(256) as u8;
            bytes[page * 4096 + 100..(page + 1) * 4096].fill(octet);
            format!("filled page {} with {octet}", page + 1)
        }
    };
    fs::write(folder.join(name), bytes).unwrap();
    format!("round {round}: {name}: {what}")
}

/// Leases everything; each message must be what was put.
async fn lent(queue: &SqliteQueue, what: &str) -> BTreeSet<(String, String)> {
    let mut lent = BTreeSet::new();
    for _ in 0..3 * MAILS {
        // The error comes from the database and has been logged.
        let leased = match queue.lease(&Lane::new("a"), after(10_000), 10, u64::MAX).await {
            Ok(leased) => leased,
            Err(error) => {
                eprintln!("{what}: {error}");
                break;
            }
        };
        if leased.is_empty() {
            break;
        }
        for leased in leased {
            let got = &leased.accepted;
            let put = ALL.iter().find(|mail| mail.accepted.id == got.id).expect("a known name");
            assert_eq!(got.envelope.sender, put.accepted.envelope.sender, "{what}");
            assert!(got.message == put.accepted.message, "{what}: another content");
            assert_eq!(got.envelope.recipients, put.accepted.envelope.recipients, "{what}");
            let to = got.envelope.recipients.iter().map(|to| (got.id.to_string(), to.to_string()));
            assert!(to.into_iter().all(|one| lent.insert(one)), "{what}: twice");
        }
    }
    lent
}

/// What a finding names: the message, and its recipients, which are different for each. If the id was hit in its row and in its
/// index, they alone say which message it is.
fn named(finding: &Finding) -> impl Iterator<Item = String> {
    std::iter::once(finding.id.clone()).chain(finding.recipients.iter().cloned())
}

/// Number of recipients that are neither leased nor reported.
async fn untold(folder: &Folder, what: &str) -> usize {
    let mut told = BTreeSet::new();
    let mut missing = 0;
    let queue = match SqliteQueue::open(folder.options()) {
        Ok(queue) => queue,
        Err(error) => {
            let error = error.to_string();
            assert!(error.contains("queue salvage") && error.contains("queue check"), "{what}: {error}");
            assert!(!check(&folder.path(), |_, _| {}).unwrap().is_well(), "{what}: the check sees it too");
            let salvaged = salvage(&folder.path(), after(500), |_, _| {}).unwrap();
            assert!(salvaged.kept_as.exists(), "{what}");
            told.extend(salvaged.damaged.iter().chain(&salvaged.lost).flat_map(named));
            missing = salvaged.missing_recipients.map_or(usize::MAX, |missing| usize::try_from(missing).unwrap());
            SqliteQueue::open(folder.options()).unwrap_or_else(|error| panic!("{what}: after the salvage: {error}"))
        }
    };
    let lent = lent(&queue, what).await;
    let mut after = None;
    while let Ok(page) = queue.list(&Filter::default(), after, 100).await {
        told.extend(page.rows.into_iter().map(|row| row.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    queue.close().await;
    drop(queue);
    let checked = check(&folder.path(), |_, _| {}).unwrap();
    told.extend(checked.damaged.iter().flat_map(named));
    if let (Some(_), _) | (_, false) = (&checked.unreadable, checked.integrity.is_empty()) {
        // The check reports it, and the salvage reports more.
        return 0;
    }
    let all = ALL.iter().flat_map(|mail| {
        let id = mail.accepted.id.to_string();
        mail.accepted.envelope.recipients.iter().map(|to| (id.clone(), to.to_string())).collect::<Vec<_>>()
    });
    let left: Vec<_> =
        all.filter(|one| !lent.contains(one) && !told.contains(&one.0) && !told.contains(&one.1)).collect();
    let left = left.len().saturating_sub(missing);
    if left > 0 {
        eprintln!("{what}: lent {}, told {}, missing {missing}, {checked:?}", lent.len(), told.len());
    }
    let by_count = checked.ledger != checked.counted;
    if by_count { 0 } else { left }
}

async fn base(with_log: bool) -> Folder {
    let folder = Folder::new(0);
    let source = Folder::new(0);
    let queue = source.open();
    for mail in ALL.iter() {
        queue.put(mail.clone()).await.unwrap();
    }
    if !with_log {
        queue.close().await;
    }
    copy(&source.path(), &folder.path());
    folder
}

/// `CRASH=full` asks for the long version.
fn rounds_of(short: usize) -> usize {
    if std::env::var("CRASH").as_deref() == Ok("full") { 20 * short } else { short }
}

async fn rounds(with_log: bool, rounds: usize) {
    let base = base(with_log).await;
    let mut chance = Chance(if with_log { 7 } else { 11 });
    let mut refused = 0;
    for round in 0..rounds {
        let folder = Folder::new(0);
        copy(&base.path(), &folder.path());
        let what = damage(&folder.path(), &mut chance, round);
        let left = untold(&folder, &what).await;
        assert_eq!(left, 0, "{what}: recipients that nobody tells of");
        refused += usize::from(fs::read_dir(folder.path()).unwrap().count() > 6);
    }
    println!("{rounds} databases, {refused} salvaged");
}

#[tokio::test]
async fn a_damaged_database_lends_nothing_changed_and_tells_what_is_lost() {
    rounds(false, rounds_of(24)).await;
}

#[tokio::test]
async fn a_damaged_log_is_not_passed_over() {
    rounds(true, rounds_of(20)).await;
}

/// Damages the log's header alone, then also the first frame's, then also the first page: SQLite would take the log for
/// empty.
#[tokio::test]
async fn a_log_whose_beginning_is_damaged_is_not_taken_for_empty() {
    for (what, from, to) in [("header", 0, 32), ("first frame", 0, 56), ("first page", 0, 4096), ("a salt", 16, 17)] {
        let folder = base(true).await;
        let path = folder.path().join("queue.sqlite-wal");
        let mut log = fs::read(&path).unwrap();
        log[from..to].iter_mut().for_each(|octet| *octet = if what == "a salt" { !*octet } else { 0 });
        fs::write(path, log).unwrap();
        let error = SqliteQueue::open(folder.options()).expect_err(what).to_string();
        assert!(error.contains("queue salvage"), "{what}: {error}");
        assert!(!check(&folder.path(), |_, _| {}).unwrap().is_well(), "{what}");
        assert_eq!(untold(&folder, what).await, 0, "{what}");
    }
}

#[tokio::test]
async fn a_well_database_is_salvaged_whole() {
    for with_log in [false, true] {
        let folder = base(with_log).await;
        let bodies = fs::read_dir(folder.path().join("bodies")).unwrap().count();
        assert!(check(&folder.path(), |_, _| {}).unwrap().is_well());
        let salvaged = salvage(&folder.path(), after(500), |_, _| {}).unwrap();
        assert_eq!(
            (salvaged.whole, salvaged.damaged.len(), salvaged.lost.len()),
            (u64::from(MAILS), 0, 0),
            "{salvaged:?}"
        );
        assert_eq!(salvaged.missing_recipients, Some(0));
        let checked = check(&folder.path(), |_, _| {}).unwrap();
        assert!(checked.is_well(), "{checked:?}");
        let queue = folder.open();
        assert_eq!(
            lent(&queue, "salvaged").await.len(),
            (0..MAILS).map(|number| 1 + number as usize % 3).sum::<usize>()
        );
        assert_eq!(fs::read_dir(folder.path().join("bodies")).unwrap().count(), bodies);
    }
}

/// An application that submits its mail again after the salvage: what is there is not stored twice, and what is lost or
/// damaged is stored.
#[tokio::test]
async fn a_salvage_remembers_the_mail_that_it_saves_and_no_other() {
    let keyed = |number: u32, key: u8| {
        let deduplication = Some(Deduplication { key: IdempotencyKey([key; 32]), window: Duration::from_secs(600) });
        NewMail { deduplication, ..plain(number, 0) }
    };
    let folder = Folder::new(0);
    let queue = folder.open();
    for number in 1..=4 {
        assert_eq!(queue.put_once(keyed(number, number as u8)).await.unwrap(), None);
    }
    let delivered = queue.lease(&Lane::new("a"), after(100), 1, u64::MAX).await.unwrap().remove(0);
    let settlement = Delivered { at: after(1), upstream: "company".into(), reply: "250 ok".into(), milliseconds: 1 };
    queue.settle(delivered.lease, vec![Settlement::Delivered(settlement)], after(1)).await.unwrap();
    drop(queue);
    let ids: Vec<_> = (1..=4).map(|number| keyed(number, 0).accepted.id).collect();
    let is_done = ids.iter().position(|id| *id == delivered.accepted.id).unwrap();
    let others: Vec<usize> = (0..4).filter(|at| *at != is_done).collect();
    let sql = rusqlite::Connection::open(folder.path().join("queue.sqlite")).unwrap();
    sql.execute(
        "UPDATE content SET header = x'41' WHERE message = (SELECT key FROM message WHERE id = ?1)",
        [ids[others[0]].as_str()],
    )
    .unwrap();
    for table in ["content", "recipient", "job"] {
        let of_it = "(SELECT key FROM message WHERE id = ?1)";
        sql.execute(&format!("DELETE FROM {table} WHERE message = {of_it}"), [ids[others[1]].as_str()]).unwrap();
    }
    sql.execute("DELETE FROM message WHERE id = ?1", [ids[others[1]].as_str()]).unwrap();
    drop(sql);
    let _salvaged = salvage(&folder.path(), after(500), |_, _| {}).unwrap();
    let queue = folder.open();
    for (at, known) in [(is_done, true), (others[0], false), (others[1], false), (others[2], true)] {
        let first = queue.put_once(keyed(10 + at as u32, 1 + at as u8)).await.unwrap();
        assert_eq!(first, known.then_some(ids[at]), "{at}");
    }
}

/// Leaves an unfinished transaction as a power failure does: its last page is on the disk, another one is not.
fn tear_the_last_transaction(folder: &Path) {
    let path = folder.join("queue.sqlite-wal");
    let frames = wal::Frames::open(&path).unwrap().unwrap().map(Result::unwrap);
    let commits: Vec<usize> =
        frames.enumerate().filter(|(_, frame)| frame.is_sound && frame.is_commit).map(|(number, _)| number).collect();
    let first = commits.iter().rev().nth(1).map_or(0, |before| before + 1);
    let mut log = fs::read(&path).unwrap();
    log[32 + first * (24 + 4096) + 24..][..4096].fill(0);
    fs::write(path, log).unwrap();
}

/// The rest of the first one followed the second one in the log, and the start was refused although the log was not
/// damaged.
#[tokio::test]
async fn power_cuts_that_follow_upon_each_other_are_not_taken_for_damage() {
    let mut folders = vec![Folder::new(0)];
    for (number, size) in [(0, 100), (1, 90_000), (2, 20_000), (3, 100), (4, 90_000), (5, 100)] {
        let folder = folders.last().unwrap();
        let queue = folder.open();
        let waiting = queue.statistics().await.unwrap().waiting;
        assert_eq!(waiting, u64::from(number > 0), "what was never acknowledged is gone");
        let mut mail = plain(number, 0);
        let mut accepted = (*mail.accepted).clone();
        accepted.message = RawMessage::from_parts(accepted.message.header().to_vec(), vec![b'x'; size].into());
        mail.accepted = Arc::new(accepted);
        queue.put(mail).await.unwrap();
        let next = Folder::new(0);
        copy(&folder.path(), &next.path());
        assert!(check(&next.path(), |_, _| {}).unwrap().is_well());
        if number > 0 {
            tear_the_last_transaction(&next.path());
            let checked = check(&next.path(), |_, _| {}).unwrap();
            assert!(checked.is_well(), "after mail {number}: {checked:?}");
        }
        folders.push(next);
    }
}

/// Its database would have replaced one that is moved away much later.
#[tokio::test]
async fn a_salvage_that_was_cut_off_before_its_last_step_is_forgotten() {
    let folder = base(true).await;
    let salvaged = base(false).await;
    let complete = folder.path().join("queue.sqlite.salvaged");
    fs::copy(salvaged.path().join("queue.sqlite"), &complete).unwrap();
    drop(folder.open());
    assert!(!complete.exists());
    let again = salvage(&folder.path(), after(500), |_, _| {}).unwrap();
    assert_eq!((again.whole, complete.exists()), (u64::from(MAILS), false));
    let second = salvage(&folder.path(), after(500), |_, _| {}).unwrap();
    assert!(second.kept_as != again.kept_as && again.kept_as.exists() && second.kept_as.exists(), "{second:?}");
}

/// Between the moment when the damaged database is moved aside and the moment when the new one replaces it.
#[tokio::test]
async fn a_salvage_that_was_cut_off_is_finished_by_the_next_start() {
    let folder = base(true).await;
    let salvaged = base(false).await;
    let at = |name: &str| folder.path().join(name);
    fs::copy(salvaged.path().join("queue.sqlite"), at("queue.sqlite.salvaged")).unwrap();
    fs::rename(at("queue.sqlite"), at("queue.sqlite.damaged-20260101T000000")).unwrap();
    assert!(crate::queue::sqlite::exists(&folder.path()).unwrap());
    assert!(!lent(&folder.open(), "finished").await.is_empty());
    assert!(at("queue.sqlite.damaged-20260101T000000-wal").exists(), "its log goes with it");
}
