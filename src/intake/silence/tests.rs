//! What begins and ends a silence, and what is remembered: by a simulated clock, with SQLite's ledger and one that counts.

use super::*;
use crate::delivery::{Routes, SettlementPolicy, UNROUTED};
use crate::message::accepted::Origin;
use crate::message::{Author, Envelope, MailId, Mark, Marks, RawMessage};
use crate::observe::Clock;
use crate::observe::clock::{EARLIEST, Simulated};
use crate::queue::Operator as _;
use crate::queue::schedule::Schedule;
use crate::queue::sqlite::{SqliteOptions, SqliteQueue};
use crate::smtp::{Mailbox, ReversePath};
use async_trait::async_trait;
use jiff::SignedDuration;
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn expectation(name: &str, sender: &str, every: Duration) -> Expectation {
    Expectation { name: name.into(), senders: SenderPatterns::parse([sender]).expect("a pattern"), every, notice: None }
}

fn weekly() -> Vec<Expectation> {
    vec![expectation("weekly", "reports@example.com", 8 * DAY)]
}

/// From this envelope sender (empty: the null path), with this From header.
fn message(sender: &str, from: &str) -> Accepted {
    let sender = match sender {
        "" => ReversePath::Null,
        address => ReversePath::Mailbox(Mailbox::parse(address).expect("an address")),
    };
    let received_at = jiff::Timestamp::UNIX_EPOCH;
    let message = RawMessage::from_data(format!("From: {from}\r\n\r\nx\r\n").into()).expect("a message");
    let author = Author::of(&message).ok();
    let (id, origin, marks) = (MailId::new(received_at, 1), Origin::default(), Marks::default());
    Accepted { id, received_at, origin, envelope: Envelope::new(sender), message, author, marks }
}

fn report() -> Accepted {
    message("reports@example.com", "reports@example.com")
}

/// A ledger in memory. Clones share it, as gateways share a queue.
#[derive(Debug, Clone, Default)]
struct Ledger(Arc<LedgerState>);

#[derive(Debug, Default)]
struct LedgerState {
    lived: Mutex<Duration>,
    rows: Mutex<HashMap<String, Vec<QuotaRow>>>,
    writes: AtomicU64,
    is_broken: AtomicBool,
}

#[async_trait]
impl QuotaLedger for Ledger {
    fn lived(&self) -> Duration {
        *self.0.lived.lock()
    }

    async fn spent(&self, quota: &str) -> Result<Vec<QuotaRow>, QueueError> {
        if self.0.is_broken.load(Ordering::Relaxed) {
            return Err(QueueError::Closed);
        }
        Ok(self.0.rows.lock().get(quota).cloned().unwrap_or_default())
    }

    async fn spend(&self, quota: &str, rows: Vec<QuotaRow>, _: i64) -> Result<(), QueueError> {
        if self.0.is_broken.load(Ordering::Relaxed) {
            return Err(QueueError::Closed);
        }
        self.0.writes.fetch_add(1, Ordering::Relaxed);
        self.0.rows.lock().insert(quota.to_owned(), rows);
        Ok(())
    }
}

impl Ledger {
    fn pass(&self, time: Duration) {
        *self.0.lived.lock() += time;
    }

    fn writes(&self) -> u64 {
        self.0.writes.load(Ordering::Relaxed)
    }
}

/// After a look.
async fn looked(watch: &SilenceWatch, ledger: &dyn QuotaLedger) -> ExpectedStatus {
    watch.look(ledger, Look::Regular).await;
    watch.statuses(ledger.lived()).remove(0)
}

async fn is_silent(watch: &SilenceWatch, ledger: &dyn QuotaLedger) -> bool {
    looked(watch, ledger).await.is_silent
}

#[tokio::test]
async fn a_report_that_does_not_come_is_a_silence_until_one_comes() {
    let ledger = Ledger::default();
    let watch = SilenceWatch::new(&weekly(), None);
    assert_eq!(watch.statuses(ledger.lived()), [], "nothing is known before the first look");
    let first = looked(&watch, &ledger).await;
    assert_eq!((first.is_silent, first.has_come, first.every_seconds), (false, false, 8 * 86_400));
    for week in 0..3 {
        ledger.pass(7 * DAY);
        watch.accepted(&report());
        let now = watch.statuses(ledger.lived()).remove(0);
        assert_eq!((now.quiet_seconds, now.has_come), (0, true), "week {week}: known before the next look");
        assert!(!is_silent(&watch, &ledger).await, "week {week}");
    }
    ledger.pass(8 * DAY - Duration::from_secs(1));
    assert!(!is_silent(&watch, &ledger).await);
    ledger.pass(Duration::from_secs(1));
    let late = looked(&watch, &ledger).await;
    assert_eq!((late.is_silent, late.quiet_seconds), (true, 8 * 86_400));
    ledger.pass(DAY);
    assert!(is_silent(&watch, &ledger).await);
    watch.accepted(&report());
    assert!(!watch.statuses(ledger.lived())[0].is_silent, "known before the next look");
    assert!(!is_silent(&watch, &ledger).await);
}

#[tokio::test]
async fn counting_begins_when_the_gateway_first_sees_the_expectation() {
    let ledger = Ledger::default();
    ledger.pass(300 * DAY);
    let watch = SilenceWatch::new(&weekly(), None);
    assert!(!is_silent(&watch, &ledger).await);
    ledger.pass(8 * DAY);
    let late = looked(&watch, &ledger).await;
    assert_eq!((late.is_silent, late.has_come), (true, false), "one that never comes is late too");
}

#[tokio::test]
async fn mail_counts_by_its_envelope_sender_or_its_author_and_other_mail_does_not() {
    let expected = [
        expectation("one", "reports@example.com", DAY),
        expectation("domain", "*@example.com", DAY),
        expectation("any", "*", DAY),
    ];
    for (sender, from, counts) in [
        ("reports@example.com", "reports@example.com", [true, true, true]),
        ("bounces@example.net", "Reports <reports@EXAMPLE.com>", [true, true, true]),
        ("reports@example.com", "a@example.net", [true, true, true]),
        ("", "reports@example.com", [true, true, true]),
        ("other@example.com", "other@example.com", [false, true, true]),
        ("reports@sub.example.com", "reports@sub.example.com", [false, false, true]),
        ("", "a@example.net", [false, false, true]),
        ("", "nobody", [false, false, false]),
    ] {
        let ledger = Ledger::default();
        let watch = SilenceWatch::new(&expected, None);
        watch.look(&ledger, Look::Regular).await;
        watch.accepted(&message(sender, from));
        let found: Vec<_> = watch.statuses(ledger.lived()).iter().map(|status| status.has_come).collect();
        assert_eq!(found, counts, "{sender} {from}");
    }
}

#[tokio::test]
async fn a_reload_keeps_what_is_known_by_name() {
    let ledger = Ledger::default();
    let first = SilenceWatch::new(&weekly(), None);
    assert!(!is_silent(&first, &ledger).await);
    ledger.pass(9 * DAY);
    assert!(is_silent(&first, &ledger).await);
    let longer = SilenceWatch::new(&[expectation("weekly", "r@example.com", 30 * DAY)], Some(&first));
    let status = looked(&longer, &ledger).await;
    assert_eq!((status.is_silent, status.quiet_seconds), (false, 9 * 86_400));
    let renamed = SilenceWatch::new(&[expectation("reports", "r@example.com", DAY)], Some(&longer));
    assert_eq!(looked(&renamed, &ledger).await.quiet_seconds, 0);
    // Mail in progress may still be accepted under the former configuration.
    first.accepted(&report());
    assert!(longer.statuses(ledger.lived())[0].has_come);
}

#[tokio::test]
async fn the_ledger_is_written_once_an_hour_and_when_something_changes() {
    let ledger = Ledger::default();
    let watch = SilenceWatch::new(&weekly(), None);
    for minute in 0..48 * 60_u64 {
        watch.accepted(&report());
        assert!(!is_silent(&watch, &ledger).await, "{minute}");
        ledger.pass(Duration::from_secs(60));
    }
    let writes = ledger.writes();
    assert!((48..=50).contains(&writes), "{writes}");
    for _ in 0..20 * 24 {
        ledger.pass(HOUR);
        watch.look(&ledger, Look::Regular).await;
    }
    assert!(ledger.writes() <= writes + 2, "a silence, and at most one more: {}", ledger.writes());
}

#[tokio::test]
async fn the_end_of_the_process_loses_nothing_and_its_crash_at_most_an_hour() {
    let ledger = Ledger::default();
    let watch = SilenceWatch::new(&weekly(), None);
    for _ in 0..90 {
        watch.accepted(&report());
        watch.look(&ledger, Look::Regular).await;
        ledger.pass(Duration::from_secs(60));
    }
    let after_a_crash = SilenceWatch::new(&weekly(), None);
    let status = looked(&after_a_crash, &ledger).await;
    assert!(status.has_come && status.quiet_seconds <= 3600, "{status:?}");
    watch.accepted(&report());
    watch.close(&ledger).await;
    let after_a_stop = SilenceWatch::new(&weekly(), None);
    assert_eq!(looked(&after_a_stop, &ledger).await.quiet_seconds, 0);
}

/// Gateways that share a queue share the ledger.
#[tokio::test]
async fn mail_through_another_gateway_of_the_queue_ends_the_silence() {
    let ledger = Ledger::default();
    let (here, there) = (SilenceWatch::new(&weekly(), None), SilenceWatch::new(&weekly(), None));
    for watch in [&here, &there] {
        assert!(!is_silent(watch, &ledger).await);
    }
    ledger.pass(7 * DAY);
    there.accepted(&report());
    assert!(!is_silent(&there, &ledger).await);
    ledger.pass(2 * DAY);
    let status = looked(&here, &ledger).await;
    assert_eq!((status.is_silent, status.has_come, status.quiet_seconds), (false, true, 2 * 86_400));
    ledger.pass(7 * DAY);
    assert!(is_silent(&here, &ledger).await && is_silent(&there, &ledger).await);
    there.accepted(&report());
    assert!(!is_silent(&there, &ledger).await);
    assert!(!is_silent(&here, &ledger).await);
}

#[tokio::test]
async fn mail_still_counts_while_the_ledger_fails() {
    let ledger = Ledger::default();
    let watch = SilenceWatch::new(&weekly(), None);
    ledger.0.is_broken.store(true, Ordering::Relaxed);
    watch.accepted(&report());
    watch.look(&ledger, Look::Regular).await;
    assert_eq!(watch.statuses(ledger.lived()), []);
    ledger.0.is_broken.store(false, Ordering::Relaxed);
    assert!(looked(&watch, &ledger).await.has_come);
    ledger.pass(7 * DAY);
    ledger.0.is_broken.store(true, Ordering::Relaxed);
    watch.accepted(&report());
    watch.look(&ledger, Look::Regular).await;
    ledger.pass(7 * DAY);
    ledger.0.is_broken.store(false, Ordering::Relaxed);
    assert!(!is_silent(&watch, &ledger).await);
    assert_eq!(ledger.0.rows.lock()["expect:weekly"][0].at, 7 * DAY, "it was stored later");
}

/// A queue on a disk, on a machine whose clocks the test moves.
struct Machine {
    folder: tempfile::TempDir,
    clocks: Arc<Mutex<Simulated>>,
}

impl Machine {
    fn new() -> Self {
        let clocks = Arc::new(Mutex::new(Simulated::starting(EARLIEST + 400 * DAY, true)));
        Self { folder: tempfile::tempdir().expect("a folder"), clocks }
    }

    fn open(&self) -> Arc<SqliteQueue> {
        self.open_in(self.folder.path())
    }

    fn open_elsewhere(&self) -> Arc<SqliteQueue> {
        let folder = self.folder.path().join("elsewhere");
        std::fs::create_dir(&folder).expect("a folder");
        self.open_in(&folder)
    }

    fn open_in(&self, folder: &std::path::Path) -> Arc<SqliteQueue> {
        let options = SqliteOptions {
            data_dir: folder.to_owned(),
            cache_octets: 1 << 20,
            min_free_space: 0,
            schedule: Schedule::default(),
            clock: Clock::Simulated(self.clocks.clone()),
            metrics: Default::default(),
        };
        Arc::new(SqliteQueue::open(options).expect("a queue"))
    }

    fn pass(&self, time: Duration) {
        self.clocks.lock().pass(time);
    }
}

async fn closed(queue: Arc<SqliteQueue>) {
    crate::queue::Queue::close(&*queue).await;
}

#[tokio::test]
async fn a_clock_that_is_set_neither_raises_nor_hides_a_silence() {
    let machine = Machine::new();
    let queue = machine.open();
    let watch = SilenceWatch::new(&weekly(), None);
    watch.accepted(&report());
    assert!(!is_silent(&watch, &*queue).await);
    for years in [3, -1, -5, 40] {
        machine.clocks.lock().jump(SignedDuration::from_hours(years * 8766));
        assert!(!is_silent(&watch, &*queue).await, "{years} years");
    }
    machine.clocks.lock().jump(SignedDuration::from_hours(-37 * 8766));
    machine.pass(8 * DAY);
    machine.clocks.lock().jump(SignedDuration::from_hours(-300));
    assert!(is_silent(&watch, &*queue).await);
    closed(queue).await;
}

#[tokio::test]
async fn what_is_known_outlives_restarts_and_a_stop_has_time_to_be_made_up_for() {
    let machine = Machine::new();
    let queue = machine.open();
    let daily = [expectation("daily", "reports@example.com", 20 * HOUR)];
    let watch = SilenceWatch::new(&daily, None);
    watch.look(&*queue, Look::Regular).await;
    machine.pass(HOUR);
    watch.accepted(&report());
    watch.close(&*queue).await;
    closed(queue).await;
    machine.pass(19 * HOUR);

    let queue = machine.open();
    let watch = SilenceWatch::new(&daily, None);
    let status = looked(&watch, &*queue).await;
    assert!(status.has_come && !status.is_silent && status.quiet_seconds.abs_diff(19 * 3600) < 30, "{status:?}");
    closed(queue).await;
    machine.pass(10 * HOUR);

    let queue = machine.open();
    let watch = SilenceWatch::new(&daily, None);
    assert!(!is_silent(&watch, &*queue).await, "the application may submit now what it could not before");
    machine.pass(HOUR);
    assert!(is_silent(&watch, &*queue).await);
    closed(queue).await;

    let queue = machine.open();
    let watch = SilenceWatch::new(&daily, None);
    assert!(is_silent(&watch, &*queue).await, "a silence that was logged stays one");
    closed(queue).await;
}

/// The task: it looks by itself, follows a reload, and ends with the gateway.
#[tokio::test(start_paused = true)]
async fn the_task_looks_follows_a_reload_and_ends() {
    let ledger = Ledger::default();
    let first = SilenceWatch::new(&weekly(), None);
    let current = watch::Sender::new(first.clone());
    let stop = CancellationToken::new();
    let task = tokio::spawn(SilenceWatch::run(current.subscribe(), Arc::new(ledger.clone()), stop.clone()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(first.statuses(ledger.lived()).len(), 1);
    ledger.pass(8 * DAY);
    tokio::time::sleep(LONGEST_LOOK).await;
    assert!(first.statuses(ledger.lived())[0].is_silent);
    let both = [expectation("weekly", "reports@example.com", 8 * DAY), expectation("more", "*@example.net", DAY)];
    let second = SilenceWatch::new(&both, Some(&first));
    current.send_replace(second.clone());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let silent: Vec<_> = second.statuses(ledger.lived()).iter().map(|status| status.is_silent).collect();
    assert_eq!(silent, [true, false]);
    stop.cancel();
    task.await.expect("it ends");
}

/// To this address through the upstream "backup", and otherwise as the routes say, of which there are none.
fn writer(queue: &Arc<SqliteQueue>, machine: &Machine) -> NoticeWriter {
    let clock = Clock::Simulated(machine.clocks.clone());
    let routes = Arc::new(Routes::new(Vec::new(), vec!["company".into(), "backup".into()]));
    NoticeWriter {
        sender: ReversePath::Null,
        from: Mailbox::parse("MAILER-DAEMON@example.com").expect("an address"),
        hostname: "gateway.example.com".into(),
        settlement: SettlementPolicy { schedule: Schedule::default(), routes, clock },
        queue: queue.clone(),
    }
}

fn noticed(upstream: Option<&str>) -> Vec<Expectation> {
    let notice = NoticeOptions {
        to: Mailbox::parse("ops@example.net").expect("an address"),
        upstream: upstream.map(|name| Mark::new(name).expect("a name")),
    };
    weekly().into_iter().map(|it| Expectation { notice: Some(notice.clone()), ..it }).collect()
}

/// How many wait, and on which lanes.
async fn notices(queue: &SqliteQueue) -> (u64, Vec<String>) {
    let figures = queue.figures().await.expect("figures");
    let lanes = figures.lanes.iter().filter(|lane| lane.waiting > 0).map(|lane| lane.lane.clone()).collect();
    (queue.statistics().await.expect("statistics").waiting, lanes)
}

#[tokio::test]
async fn a_silence_is_one_mail_however_many_gateways_notice_it_and_whatever_restarts() {
    let machine = Machine::new();
    let queue = machine.open();
    let expected = noticed(Some("backup"));
    let gateway = || SilenceWatch::new(&expected, None).notifying(writer(&queue, &machine));
    let (one, other) = (gateway(), gateway());
    for watch in [&one, &other] {
        watch.look(&*queue, Look::Regular).await;
    }
    machine.pass(8 * DAY);
    for _ in 0..3 {
        assert!(is_silent(&one, &*queue).await && is_silent(&other, &*queue).await, "it does not end its own silence");
        machine.pass(HOUR);
    }
    assert_eq!(notices(&queue).await, (1, vec!["upstream:backup".to_owned()]));
    let restarted = gateway();
    assert!(is_silent(&restarted, &*queue).await);
    assert_eq!(notices(&queue).await.0, 1, "after a restart");
    restarted.accepted(&report());
    assert!(!is_silent(&restarted, &*queue).await);
    machine.pass(8 * DAY);
    assert!(is_silent(&restarted, &*queue).await);
    assert_eq!(notices(&queue).await.0, 2, "the next silence");
    closed(queue).await;
}

/// The gateway crashed between the mail and the record of it.
#[tokio::test]
async fn a_mail_whose_record_was_lost_is_not_sent_again() {
    let machine = Machine::new();
    let queue = machine.open();
    let ledger = Ledger::default();
    let expected = noticed(None);
    let gateway = || SilenceWatch::new(&expected, None).notifying(writer(&queue, &machine));
    gateway().look(&ledger, Look::Regular).await;
    ledger.pass(8 * DAY);
    let watch = gateway();
    watch.look(&ledger, Look::Regular).await;
    ledger.pass(HOUR);
    ledger.0.is_broken.store(true, Ordering::Relaxed);
    watch.look(&ledger, Look::Regular).await;
    assert_eq!(notices(&queue).await.0, 0, "whether it is a silence is not known");
    ledger.0.is_broken.store(false, Ordering::Relaxed);
    watch.look(&ledger, Look::Regular).await;
    assert_eq!(notices(&queue).await, (1, vec![UNROUTED.to_owned()]));
    for row in ledger.0.rows.lock().values_mut().flatten() {
        assert_eq!(row.units & 8, 8);
        row.units &= !8;
    }
    gateway().look(&ledger, Look::Regular).await;
    assert_eq!(notices(&queue).await.0, 1);
    closed(queue).await;
}

/// No space is left: it is stored once there is some.
#[tokio::test]
async fn a_mail_that_cannot_be_stored_is_tried_again() {
    let machine = Machine::new();
    let queue = machine.open();
    let ledger = Ledger::default();
    let expected = noticed(None);
    let gone = machine.open_elsewhere();
    closed(gone.clone()).await;
    let watch = SilenceWatch::new(&expected, None).notifying(writer(&gone, &machine));
    watch.look(&ledger, Look::Regular).await;
    ledger.pass(8 * DAY);
    assert!(is_silent(&watch, &ledger).await, "it is a silence all the same");
    let watch = SilenceWatch::new(&expected, Some(&watch)).notifying(writer(&queue, &machine));
    assert!(is_silent(&watch, &ledger).await);
    assert_eq!(notices(&queue).await.0, 1);
    closed(queue).await;
}
