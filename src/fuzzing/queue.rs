//! A queue whose rows and stored originals contain arbitrary octets, and lines of the control socket: damage is set
//! aside or reported, never leased, and the writer thread survives.

use super::{scratch, take};
use crate::control::{ControlRequest, ControlResponse};
use crate::intake::rerun;
use crate::message::MailId;
use crate::message::rewrite::{AddressMap, Original, Rule, RuleActions, RuleConditions, Rules};
use crate::observe::Clock;
use crate::queue::sqlite::{SqliteOptions, SqliteQueue, cover_all};
use crate::queue::{Filter, Lane, LaneOf, Leased, Operator as _, Queue as _, QueueError, Settlement};
use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use parking_lot::Mutex;
use rusqlite::{Connection, Params, params};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Fills the rows; the same octets are also read as a line of the control socket, and as a stored original.
pub fn queue(bytes: &[u8]) {
    if let Ok(request) = ControlRequest::from_line(bytes) {
        assert_eq!(ControlRequest::from_line(&request.to_line()).ok(), Some(request));
    }
    let _no_panic = ControlResponse::from_line(bytes);
    if let Ok(original) = Original::decode(bytes) {
        assert_eq!(Original::decode(&original.encode()), Ok(original));
    }
    static HARNESS: LazyLock<Mutex<QueueHarness>> = LazyLock::new(|| Mutex::new(QueueHarness::new()));
    let harness = HARNESS.lock();
    let ids = harness.fill(bytes).expect("rows that the tables allow");
    harness.runtime.block_on(use_it(&harness.queue, &ids));
}

struct QueueHarness {
    queue: SqliteQueue,
    raw: Connection,
    runtime: Runtime,
    folder: PathBuf,
}

impl QueueHarness {
    fn new() -> Self {
        let folder = scratch("queue");
        let options = SqliteOptions {
            data_dir: folder.clone(),
            cache_octets: 0,
            min_free_space: 0,
            schedule: Default::default(),
            clock: Clock::System,
            metrics: Default::default(),
        };
        let queue = SqliteQueue::open(options).expect("a queue");
        let raw = Connection::open(folder.join("queue.sqlite")).expect("the same database");
        raw.set_prepared_statement_cache_capacity(32);
        raw.execute_batch("PRAGMA synchronous = OFF").expect("nothing to lose");
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { queue, raw, runtime, folder }
    }

    /// Replaces what was there.
    fn fill(&self, mut bytes: &[u8]) -> rusqlite::Result<Vec<MailId>> {
        let bytes = &mut bytes;
        self.raw.execute_batch(
            "BEGIN; DELETE FROM message; DELETE FROM content; DELETE FROM job; DELETE FROM recipient;
             DELETE FROM attempt; DELETE FROM history; DELETE FROM hold; DELETE FROM original;",
        )?;
        let mut ids = Vec::new();
        for key in 1..=2 {
            let id = MailId::new(Timestamp::UNIX_EPOCH, key);
            ids.push(id);
            self.message(key, id, bytes)?;
            self.recipients(key, bytes)?;
        }
        for key in 1..=2 {
            self.beside(key, bytes)?;
        }
        // Code after the digest checks needs testing too, so most rows match their digests, whatever they contain.
        if take::<1>(bytes) != [0] {
            let _rows_that_cannot_be_read_have_none = cover_all(&self.raw);
        }
        self.raw.execute_batch("COMMIT")?;
        Ok(ids)
    }

    /// The statement is compiled once.
    fn row(&self, sql: &str, values: impl Params) -> rusqlite::Result<()> {
        self.raw.prepare_cached(sql)?.execute(values).map(|_| ())
    }

    fn message(&self, key: u32, id: MailId, bytes: &mut &[u8]) -> rusqlite::Result<()> {
        let [what] = take(bytes);
        let id = if what & 1 == 0 { id.to_string() } else { format!("{}{key}", text(bytes)) };
        let sender = (what & 2 == 0).then(|| text(bytes));
        self.row(
            "INSERT OR IGNORE INTO message (key, id, received_at, since, sender, eight_bit, smtputf8, size, subject)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                key,
                id,
                number(bytes),
                number(bytes),
                sender,
                number(bytes),
                number(bytes),
                number(bytes),
                text(bytes)
            ],
        )?;
        let header = text(bytes);
        let body = (what & 4 == 0).then(|| text(bytes));
        let right = digest(&SHA256, [header.as_bytes(), body.as_deref().unwrap_or("").as_bytes()].concat().as_slice());
        let kept = if what & 8 == 0 { right.as_ref().to_vec() } else { text(bytes).into_bytes() };
        self.row(
            "INSERT INTO content (message, header, body, digest) VALUES (?1, ?2, ?3, ?4)",
            params![key, header.as_bytes(), body.as_ref().map(String::as_bytes), kept],
        )?;
        self.row(
            "INSERT INTO history (id, received_at, sender, recipients, subject, size, at, upstream, reply, milliseconds)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                id,
                number(bytes),
                sender,
                text(bytes),
                text(bytes),
                number(bytes),
                number(bytes),
                text(bytes),
                text(bytes),
                number(bytes)
            ],
        )
    }

    fn recipients(&self, key: u32, bytes: &mut &[u8]) -> rusqlite::Result<()> {
        let [count, lane] = take(bytes);
        let lane = if lane & 1 == 0 { "a".to_owned() } else { text(bytes) };
        self.row(
            "INSERT INTO job (message, lane, domain, due, state, suspect) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![key, lane, text(bytes), number(bytes), number(bytes) & 3, number(bytes)],
        )?;
        for position in 0..count % 3 {
            let [failed] = take(bytes);
            self.row(
                "INSERT INTO recipient (message, position, address, lane, failed_at, attempts, upstream, reason)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    key,
                    position,
                    text(bytes),
                    lane,
                    (failed & 1 == 1).then(|| number(bytes)),
                    number(bytes),
                    (failed & 2 == 2).then(|| text(bytes)),
                    (failed & 4 == 4).then(|| text(bytes))
                ],
            )?;
        }
        self.row(
            "INSERT INTO attempt (message, number, at, upstream, text, possible_duplicate) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![key, number(bytes), number(bytes), text(bytes), text(bytes), number(bytes)],
        )
    }

    /// Parts that most messages do not have.
    fn beside(&self, key: u32, bytes: &mut &[u8]) -> rusqlite::Result<()> {
        let [what] = take(bytes);
        if what & 1 == 1 {
            self.row("UPDATE message SET marks = ?2 WHERE key = ?1", params![key, text(bytes)])?;
        }
        if what & 2 == 2 {
            let values = params![key, text(bytes), text(bytes)];
            self.row("UPDATE message SET listener = ?2, user = ?3 WHERE key = ?1", values)?;
        }
        if what & 4 == 4 {
            // NULL: in a file, which does not exist.
            let data = (what & 8 == 0).then(|| text(bytes).into_bytes());
            self.row("INSERT INTO original (message, data) VALUES (?1, ?2)", params![key, data])?;
        }
        Ok(())
    }
}

impl Drop for QueueHarness {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_dir_all(&self.folder);
    }
}

/// A length and that many octets.
fn text(bytes: &mut &[u8]) -> String {
    let [length] = take(bytes);
    let (head, rest) = bytes.split_at(usize::from(length).min(bytes.len()));
    *bytes = rest;
    String::from_utf8_lossy(head).into_owned()
}

/// Mostly small numbers, and those at the limits.
fn number(bytes: &mut &[u8]) -> i64 {
    match take(bytes) {
        [0xff] => i64::MAX,
        [0xfe] => i64::MIN,
        [0xfd] => i64::from_be_bytes(take(bytes)),
        [small] => i64::from(small),
    }
}

/// Calls everything that reads stored data.
async fn use_it(queue: &SqliteQueue, ids: &[MailId]) {
    let now = Timestamp::from_second(1_795_000_000).expect("in range");
    let lane = Lane::new("a");
    let leased = lives(queue.lease(&lane, now, 10, u64::MAX).await).unwrap_or_default();
    for leased in &leased {
        check(leased);
    }
    lives(queue.list(&Filter::default(), None, 100).await);
    lives(queue.history(None, 100).await);
    for id in ids {
        lives(queue.show(*id).await);
        lives(queue.content(*id).await);
    }
    settle_untried(queue, leased, now).await;
    lives(queue.next_due(&lane, now).await);
    let to_a: LaneOf = Arc::new(|_| Lane::new("a"));
    let to_b: LaneOf = Arc::new(|_| Lane::new("b"));
    for (fingerprint, lane_of) in [("other", to_b), ("first", to_a.clone())] {
        let mut next = None;
        while let Some(reassigned) = lives(queue.reassign_lanes(fingerprint, lane_of.clone(), next).await)
            && reassigned.next.is_some()
        {
            next = reassigned.next;
        }
    }
    lives(queue.retry(ids, None, now).await);
    for id in ids {
        lives(rerun(queue, &RULES, &to_a, *id, now).await);
    }
    let again = lives(queue.lease(&lane, now, 10, u64::MAX).await).unwrap_or_default();
    again.iter().for_each(check);
    settle_untried(queue, again, now).await;
    lives(queue.statistics().await);
    lives(queue.remove(ids).await);
    lives(queue.prune(Duration::ZERO, Duration::ZERO).await);
}

async fn settle_untried(queue: &SqliteQueue, leased: Vec<Leased>, now: Timestamp) {
    for leased in leased {
        let settlements = vec![Settlement::Untried; leased.accepted.envelope.recipients.len()];
        lives(queue.settle(leased.lease, settlements, now).await);
    }
}

/// Later rules: their result replaces what is stored.
static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let map_recipients = AddressMap::parse([("c@*", "*@new.example")]).expect("a map");
    let add_headers = vec![("X-Again".to_owned(), "yes".to_owned())];
    let actions = RuleActions { map_recipients, add_headers, ..RuleActions::default() };
    Rules(Arc::new([Rule { name: "rule".into(), conditions: RuleConditions::default(), actions }]))
});

/// Nothing has panicked, and the writer still runs. Damage is a valid answer, too.
fn lives<T>(answer: Result<T, QueueError>) -> Option<T> {
    answer
        .inspect_err(|error| {
            let text = error.to_string();
            assert!(!matches!(error, QueueError::Closed) && text != QueueError::fault().to_string(), "{text}");
        })
        .ok()
}

/// A leased message can be delivered.
fn check(leased: &Leased) {
    let envelope = &leased.accepted.envelope;
    assert!(!envelope.recipients.is_empty());
    for mailbox in envelope.recipients.iter().chain(envelope.sender.mailbox()) {
        super::command(format!("RCPT TO:<{mailbox}>").as_bytes());
    }
}
