//! Compares a queue of one million messages with one of a thousand: the cost of a backlog in rate, memory, start,
//! lists, and what a gateway answers about it.
//!
//! `make bench`. Both queues are measured in the same run, alternately, each time in a separate process; the ratios
//! matter. WAXSEAL_BENCH_MESSAGES sets another size, WAXSEAL_BENCH_FOLDER another disk than that of target/.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark ends where it fails")]

#[path = "../../tests/it/support/ports.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod ports;
mod served;

use jiff::Timestamp;
use served::{Served, served};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use waxseal::message::accepted::{Accepted, Origin};
use waxseal::message::{Author, Envelope, MailId, Marks, RawMessage};
use waxseal::observe::Clock;
use waxseal::queue::sqlite::{SqliteOptions, SqliteQueue};
use waxseal::queue::{Delivered, Filter, InitialState, Lane, NewMail, Operator, Queue, RecipientState, Settlement};
use waxseal::smtp::{Mailbox, ReversePath};

/// Measured operations of each kind, per process.
const MEASURED: u32 = 10_000;
/// Puts that wait at the same time.
const CLIENTS: u32 = 64;
/// Messages being delivered at the same time.
const SLOTS: usize = 32;
/// Octets of a body.
const BODY: usize = 1_500;
const ROUNDS: usize = 3;

const MAX_RATIO: f64 = 1.2;
const MAX_MORE_MEMORY: f64 = 32.0;
const MAX_START: f64 = 5_000.0;
/// What a person perceives as immediate.
const MAX_PAGE: f64 = 100.0;
/// A small part of the usual 15 s between two scrapes, and of the two CPUs.
const MAX_SCRAPE: f64 = 20.0;

/// One process's measurements; rates per second, times in milliseconds, memory in MiB.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
struct Measured {
    start: f64,
    puts: f64,
    deliveries: f64,
    page: f64,
    search: f64,
    memory: f64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let folder_after = |word: &str| Some(Path::new(&arguments[arguments.iter().position(|it| it == word)? + 1]));
    if let Some(folder) = folder_after("measure") {
        println!("{}", serde_json::to_string(&measure(folder)).unwrap());
    } else if let Some(folder) = folder_after("interrupt") {
        runtime().block_on(put_until_killed(folder));
    } else {
        return compare();
    }
    ExitCode::SUCCESS
}

fn compare() -> ExitCode {
    let large: u32 = std::env::var("WAXSEAL_BENCH_MESSAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let parent = std::env::var("WAXSEAL_BENCH_FOLDER").unwrap_or_else(|_| "target".into());
    let folder = tempfile::tempdir_in(parent).unwrap();
    let queues = [(1_000, folder.path().join("small")), (large, folder.path().join("large"))];
    for (messages, path) in &queues {
        let filled = Instant::now();
        runtime().block_on(fill(path, *messages));
        println!("{messages} messages stored in {:.0} s", filled.elapsed().as_secs_f64());
    }
    let mut rounds = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (queue, (_, path)) in queues.iter().enumerate() {
            rounds[queue].push(in_a_process(path));
        }
    }
    let [small, mut large] = rounds.map(median);
    let answered = [&queues[0].1, &queues[1].1].map(|path| served(path));
    large.start = start_after_a_kill(&queues[1].1);
    let lines = rows((small, large), answered);
    report(queues[0].0, queues[1].0, &lines)
}

/// What is measured, with few and with many messages, what is compared, its bound and its unit.
type Line = (&'static str, f64, f64, f64, f64, &'static str);

fn rows((small, large): (Measured, Measured), [few, many]: [Served; 2]) -> [Line; 9] {
    [
        ("puts per second", small.puts, large.puts, small.puts / large.puts, MAX_RATIO, "times fewer"),
        (
            "deliveries per second",
            small.deliveries,
            large.deliveries,
            small.deliveries / large.deliveries,
            MAX_RATIO,
            "times fewer",
        ),
        ("peak memory, MiB", small.memory, large.memory, large.memory - small.memory, MAX_MORE_MEMORY, "MiB more"),
        ("start (the large one: after a kill), ms", small.start, large.start, large.start, MAX_START, "ms"),
        ("slowest page of a list, ms", small.page, large.page, large.page, MAX_PAGE, "ms"),
        ("slowest search for a Message-ID, ms", small.search, large.search, large.search, MAX_PAGE, "ms"),
        ("scrape of /metrics, ms", few.scrape, many.scrape, many.scrape, MAX_SCRAPE, "ms"),
        ("waxseal status, ms", few.status, many.status, many.status, MAX_PAGE, "ms"),
        ("waxseal queue list, first page, ms", few.list, many.list, many.list, MAX_PAGE, "ms"),
    ]
}

fn report(few: u32, many: u32, lines: &[Line]) -> ExitCode {
    println!("{:40} {few:>12} {many:>12}   {:>10}  bound", "messages waiting", "");
    let mut all_kept = true;
    for &(what, small, large, compared, bound, unit) in lines {
        let kept = compared <= bound;
        all_kept &= kept;
        let verdict = if kept { "" } else { "   NOT KEPT" };
        println!("{what:40} {small:12.1} {large:12.1}   {compared:10.2}  at most {bound} {unit}{verdict}");
    }
    if all_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn median(mut rounds: Vec<Measured>) -> Measured {
    let mut middle = |of: fn(&Measured) -> f64| {
        rounds.sort_by(|a, b| of(a).total_cmp(&of(b)));
        of(&rounds[rounds.len() / 2])
    };
    Measured {
        start: middle(|one| one.start),
        puts: middle(|one| one.puts),
        deliveries: middle(|one| one.deliveries),
        page: middle(|one| one.page),
        search: middle(|one| one.search),
        memory: middle(|one| one.memory),
    }
}

fn in_a_process(path: &Path) -> Measured {
    let output = Command::new(std::env::current_exe().unwrap()).arg("measure").arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// In milliseconds: a process that stores mail is killed in the middle of it, and the next one opens the queue.
fn start_after_a_kill(path: &Path) -> f64 {
    let mut starts: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let mut interrupted = Command::new(std::env::current_exe().unwrap())
                .arg("interrupt")
                .arg(path)
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            // It says when it has stored as many as the write-ahead log holds.
            std::io::Read::read_exact(&mut interrupted.stdout.take().unwrap(), &mut [0; 1]).unwrap();
            interrupted.kill().unwrap();
            interrupted.wait().unwrap();
            in_a_process(path).start
        })
        .collect();
    starts.sort_by(f64::total_cmp);
    starts[ROUNDS / 2]
}

async fn put_until_killed(path: &Path) {
    let queue = open(path);
    put(&queue, MEASURED, CLIENTS, Timestamp::now()).await;
    println!("stored");
    put(&queue, u32::MAX, CLIENTS, Timestamp::now()).await;
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn open(path: &Path) -> Arc<SqliteQueue> {
    let options = SqliteOptions {
        data_dir: path.to_owned(),
        cache_octets: 16 << 20,
        min_free_space: 0,
        schedule: Default::default(),
        clock: Clock::System,
        metrics: Default::default(),
    };
    Arc::new(SqliteQueue::open(options).unwrap())
}

async fn fill(path: &Path, messages: u32) {
    std::fs::create_dir_all(path).unwrap();
    let queue = open(path);
    put(&queue, messages, 4 * CLIENTS, start()).await;
    queue.close().await;
}

/// The measurement leaves the queue as it was: as many messages are delivered as were put.
fn measure(path: &Path) -> Measured {
    let opened = Instant::now();
    let queue = open(path);
    let start_took = opened.elapsed();
    runtime().block_on(async {
        let puts = rate(put(&queue, MEASURED, CLIENTS, Timestamp::now())).await;
        let deliveries = rate(deliver(&queue)).await;
        let page = slowest_page(&queue).await;
        let search = slowest_search(&queue).await;
        let memory = peak_memory();
        queue.close().await;
        Measured {
            start: start_took.as_secs_f64() * 1000.0,
            puts,
            deliveries,
            page: page.as_secs_f64() * 1000.0,
            search: search.as_secs_f64() * 1000.0,
            memory,
        }
    })
}

async fn rate(work: impl Future<Output = ()>) -> f64 {
    let began = Instant::now();
    work.await;
    f64::from(MEASURED) / began.elapsed().as_secs_f64()
}

fn start() -> Timestamp {
    "2026-11-24T03:00:00Z".parse().unwrap()
}

async fn put(queue: &Arc<SqliteQueue>, messages: u32, clients: u32, received_at: Timestamp) {
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let queue = queue.clone();
        tasks.spawn(async move {
            for number in (client..messages).step_by(clients as usize) {
                queue.put(mail(number, received_at)).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

/// A hundred sender domains, one lane.
fn mail(number: u32, received_at: Timestamp) -> NewMail {
    let mut envelope =
        Envelope::new(ReversePath::Mailbox(Mailbox::parse(&format!("reports@d{}.example", number % 100)).unwrap()));
    envelope.add_recipient(Mailbox::parse(&format!("reader{number}@example.net")).unwrap());
    let body = "All is well.\r\n".repeat(BODY / 14);
    let message_id = message_id(number, received_at);
    let text = format!(
        "Message-ID: <{message_id}>\r\nFrom: <reports@example.com>\r\nTo: <reader{number}@example.net>\r\n\
        Subject: Report {number}\r\n\r\n{body}"
    );
    let message = RawMessage::from_data(text.into()).unwrap();
    let author = Author::of(&message).ok();
    let id = MailId::new(received_at, number);
    let accepted = Arc::new(Accepted {
        id,
        received_at,
        origin: Origin::default(),
        envelope,
        message,
        author,
        marks: Marks::default(),
    });
    NewMail {
        accepted,
        initial_states: vec![InitialState::Waiting(lane())],
        original: None,
        subject: format!("Report {number}"),
        deduplication: None,
    }
}

/// In no order, as mail libraries make them.
fn message_id(number: u32, received_at: Timestamp) -> String {
    let mut hash = DefaultHasher::new();
    (number, received_at.as_millisecond()).hash(&mut hash);
    format!("{:016x}.reports@example.com", hash.finish())
}

fn lane() -> Lane {
    Lane::new("default")
}

async fn deliver(queue: &Arc<SqliteQueue>) {
    let mut left = MEASURED as usize;
    while left > 0 {
        let leased = queue.lease(&lane(), Timestamp::now(), left.min(SLOTS), u64::MAX).await.unwrap();
        left -= leased.len();
        let mut tasks = JoinSet::new();
        for leased in leased {
            let queue = queue.clone();
            tasks.spawn(async move {
                let now = Timestamp::now();
                let taken = Delivered { at: now, upstream: "company".into(), reply: "250 ok".into(), milliseconds: 1 };
                queue.settle(leased.lease, vec![Settlement::Delivered(taken)], now).await.unwrap();
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    }
}

async fn slowest_page(queue: &SqliteQueue) -> Duration {
    let failed = Filter { state: Some(RecipientState::Failed), ..Filter::default() };
    let nobody = Filter { recipient: Some("nobody".into()), ..Filter::default() };
    let mut slowest = Duration::ZERO;
    for filter in [Filter::default(), failed, nobody] {
        let mut after = None;
        for _ in 0..10 {
            let began = Instant::now();
            let page = queue.list(&filter, after, 50).await.unwrap();
            slowest = slowest.max(began.elapsed());
            after = page.next;
        }
    }
    slowest
}

/// The first message's, and one that is not there.
async fn slowest_search(queue: &SqliteQueue) -> Duration {
    let mut slowest = Duration::ZERO;
    for (message_id, expected) in [(message_id(0, start()), 1), ("nowhere@example.com".into(), 0)] {
        let filter = Filter { message_id: Some(message_id), ..Filter::default() };
        let began = Instant::now();
        let page = queue.list(&filter, None, 50).await.unwrap();
        slowest = slowest.max(began.elapsed());
        assert!(page.rows.len() <= expected && page.next.is_none());
    }
    slowest
}

/// VmHWM of this process.
fn peak_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}
