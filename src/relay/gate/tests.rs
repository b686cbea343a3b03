//! Waiting at the gate, under paused time.

use super::*;
use crate::rate::{QuotaBucket, QuotaStore};
use async_trait::async_trait;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::timeout;

const SECOND: Duration = Duration::from_secs(1);

fn rates(texts: &[&str]) -> Vec<Rate> {
    texts.iter().map(|text| Rate::parse(text).expect("a rate")).collect()
}

fn gate(texts: &[&str]) -> Arc<Gate> {
    Gate::new(&rates(texts), Counting::RECIPIENTS, None)
}

async fn token(gate: &Arc<Gate>) -> RateToken {
    let mut token = gate.token(Load::of_one(1), Deadline::NONE).await.expect("a token");
    token.begin();
    token
}

#[tokio::test(start_paused = true)]
async fn without_rates_nobody_waits() {
    let (gate, start) = (gate(&[]), Instant::now());
    for _ in 0..1000 {
        token(&gate).await;
    }
    assert_eq!((Instant::now(), gate.most_recipients()), (start, None));
}

#[tokio::test(start_paused = true)]
async fn turns_come_in_order_of_arrival() {
    let (gate, order) = (gate(&["1/s"]), Arc::new(Mutex::new(Vec::new())));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..5 {
        let (gate, order) = (gate.clone(), order.clone());
        tasks.spawn(async move {
            token(&gate).await;
            order.lock().push(number);
        });
        tokio::task::yield_now().await;
    }
    tasks.join_all().await;
    assert_eq!(*order.lock(), [0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_comes_too_late_is_refused_at_once() {
    let gate = gate(&["1/s"]);
    token(&gate).await;
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            tokio::spawn({
                let gate = gate.clone();
                async move { token(&gate).await }
            })
        })
        .collect();
    tokio::task::yield_now().await;
    let start = Instant::now();
    let refused = gate.token(Load::of_one(1), Deadline::after(5 * SECOND)).await.expect_err("ten are before it");
    assert!(matches!(refused, TokenDenied::NotInTime(Some(wait)) if wait > 10 * SECOND), "{refused:?}");
    assert_eq!(Instant::now(), start);
    drop(waiting);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_leaves_its_place_to_the_next() {
    let gate = gate(&["1/min"]);
    token(&gate).await;
    assert!(timeout(SECOND, gate.token(Load::of_one(1), Deadline::NONE)).await.is_err());
    let unused = gate.token(Load::of_one(1), Deadline::NONE).await.expect("after a minute");
    drop(unused);
    let start = Instant::now();
    token(&gate).await;
    assert_eq!(Instant::now(), start, "what was not used is there for the next");
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_goes_on_holds_the_next_one_up() {
    let gate = gate(&["1/s"]);
    let long = token(&gate).await;
    let next = tokio::spawn({
        let gate = gate.clone();
        async move { token(&gate).await }
    });
    tokio::time::sleep(10 * SECOND).await;
    assert!(!next.is_finished());
    let end = Instant::now();
    drop(long);
    next.await.expect("a token");
    assert!(Instant::now() - end >= SECOND);
}

#[tokio::test(start_paused = true)]
async fn slowed_down_to_a_quarter_it_takes_four_times_as_long() {
    let gate = gate(&["10/s"]);
    for _ in 0..2 {
        gate.slow_down();
    }
    let start = Instant::now();
    for _ in 0..21 {
        token(&gate).await;
    }
    let took = Instant::now() - start;
    assert!(took >= 8 * SECOND && took < 9 * SECOND, "{took:?}");
}

/// Keeps what it is given, unless it is broken or hangs. Its clock follows the test's.
#[derive(Debug)]
struct FakeQuotaStore {
    began: Instant,
    rows: Mutex<std::collections::HashMap<String, Vec<QuotaBucket>>>,
    broken: AtomicBool,
    hangs: AtomicBool,
}

impl Default for FakeQuotaStore {
    fn default() -> Self {
        let (rows, broken, hangs) = (Mutex::default(), AtomicBool::default(), AtomicBool::default());
        Self { began: Instant::now(), rows, broken, hangs }
    }
}

#[async_trait]
impl QuotaStore for FakeQuotaStore {
    fn now(&self) -> Duration {
        PAST + self.began.elapsed()
    }

    async fn load(&self, quota: &str) -> Result<Vec<QuotaBucket>, String> {
        Ok(self.rows.lock().get(quota).cloned().unwrap_or_default())
    }

    async fn write(&self, quota: &str, rows: Vec<QuotaBucket>, oldest: i64) -> Result<(), String> {
        if self.broken.load(Ordering::Relaxed) {
            return Err("the disk is full".to_owned());
        }
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let mut store = self.rows.lock();
        let kept = store.entry(quota.to_owned()).or_default();
        kept.retain(|old| old.number >= oldest && rows.iter().all(|new| new.number != old.number));
        kept.extend(rows);
        Ok(())
    }
}

async fn kept(store: &Arc<FakeQuotaStore>, account: &str, texts: &[&str]) -> Arc<Gate> {
    let kept = StoredUsage { ledger: store.clone(), name: account.into(), former: account.into() };
    let gate = Gate::new(&rates(texts), Counting::RECIPIENTS, Some(kept));
    gate.restore().await.expect("what was kept");
    gate
}

#[tokio::test(start_paused = true)]
async fn a_used_up_quota_is_said_at_once_and_remembered_by_account() {
    let store = Arc::new(FakeQuotaStore::default());
    let gate = kept(&store, "company", &["3/day"]).await;
    for _ in 0..3 {
        token(&gate).await;
    }
    let refused = gate.token(Load::of_one(1), Deadline::NONE).await.expect_err("used up");
    let TokenDenied::UsedUp { rate, until } = refused else { panic!("{refused:?}") };
    assert_eq!(rate.to_string(), "3/day");
    assert!(until > Instant::now() + 86_000 * SECOND);
    assert_eq!(gate.exhausted_quota().map(|(rate, _)| rate), Some(rate));
    // The process ends without closing it.
    drop(gate);
    assert!(kept(&store, "company", &["4/day"]).await.token(Load::of_one(2), Deadline::NONE).await.is_err());
    assert!(kept(&store, "another", &["3/day"]).await.token(Load::of_one(3), Deadline::NONE).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_by_a_tables_name_is_the_accounts_from_then_on() {
    let store = Arc::new(FakeQuotaStore::default());
    for _ in 0..3 {
        token(&kept(&store, "company", &["3/day"]).await).await;
    }
    let named = |former: &'static str| {
        let kept = StoredUsage { ledger: store.clone(), name: "account:1".into(), former: former.into() };
        Gate::new(&rates(&["3/day"]), Counting::RECIPIENTS, Some(kept))
    };
    for former in ["company", "renamed"] {
        let gate = named(former);
        gate.restore().await.expect("what was kept");
        assert!(gate.token(Load::of_one(1), Deadline::NONE).await.is_err(), "as {former}");
    }
    let successor = kept(&store, "company", &["3/day"]).await;
    assert!(
        successor.token(Load::of_one(3), Deadline::NONE).await.is_ok(),
        "another account of that name starts empty"
    );
}

/// The rest of the last quota after these restarts, each with its rates and the number of units used; then this much
/// time passes.
async fn left(restarts: &[(&[&str], usize, Duration)], last: &[&str], is_closed: bool) -> usize {
    let store = Arc::new(FakeQuotaStore::default());
    for (rates, used, pause) in restarts {
        let gate = kept(&store, "company", rates).await;
        for _ in 0..*used {
            token(&gate).await;
        }
        if is_closed {
            gate.close().await.expect("it is written down");
        }
        tokio::time::sleep(*pause).await;
    }
    let gate = kept(&store, "company", last).await;
    let mut left = 0;
    while let Ok(mut token) = gate.token(Load::of_one(1), Deadline::NONE).await {
        token.begin();
        left += 1;
    }
    left
}

/// An hourly quota that replaced a daily one started empty, and the account was used twice over.
#[tokio::test(start_paused = true)]
async fn a_quota_of_another_period_counts_what_was_used_within_it() {
    const HOUR: Duration = Duration::from_secs(3600);
    let (soon, day, hour): (_, &[&str], &[&str]) = (SECOND, &["10/day"], &["10/h"]);
    let both: &[&str] = &["10/h", "20/day"];
    for (what, restarts, last, expected) in [
        ("another limit", &[(day, 3, soon)][..], &["20/day"][..], 17),
        ("a lower limit than was used", &[(day, 8, soon)], &["5/day"], 0),
        ("an hour's after a day's", &[(day, 3, soon)], hour, 7),
        ("of a day, the last hour", &[(day, 3, 3 * HOUR), (day, 2, soon)], hour, 8),
        ("a day's after an hour's", &[(hour, 4, soon)], day, 6),
        ("and back", &[(day, 3, soon), (hour, 4, soon)], day, 3),
        ("and back by the other way", &[(hour, 3, soon), (day, 4, soon)], hour, 3),
        ("several times", &[(day, 1, soon), (hour, 1, soon), (day, 1, soon), (hour, 1, soon)], day, 6),
        ("one more", &[(day, 3, soon)], both, 7),
        ("one less", &[(both, 3, soon)], day, 7),
        ("both, over and over", &[(both, 1, soon), (both, 1, soon), (both, 1, 90 * SECOND), (both, 1, soon)], both, 6),
        ("both, with a pause", &[(both, 6, 3 * HOUR), (both, 0, soon)], both, 10),
    ] {
        assert_eq!(left(restarts, last, true).await, expected, "{what}");
        // Killed: never more, and less by at most the amount reserved ahead.
        let left = left(restarts, last, false).await;
        assert!(left <= expected && left + 1 >= expected, "{what}: {left} of {expected}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_is_not_taken() {
    let store = Arc::new(FakeQuotaStore::default());
    let gate = kept(&store, "company", &["3/day"]).await;
    store.broken.store(true, Ordering::Relaxed);
    let refused = gate.token(Load::of_one(1), Deadline::NONE).await.expect_err("not written");
    assert_eq!(refused, TokenDenied::Unwritten("the disk is full".to_owned()));
    store.broken.store(false, Ordering::Relaxed);
    token(&gate).await;
}

/// Callers further back in the line have deadlines too, and the next one finds the line free.
#[tokio::test(start_paused = true)]
async fn storage_that_hangs_keeps_nobody_beyond_the_deadline() {
    let store = Arc::new(FakeQuotaStore::default());
    let gate = kept(&store, "company", &["3/day"]).await;
    store.hangs.store(true, Ordering::Relaxed);
    let within = |seconds| gate.token(Load::of_one(1), Deadline::after(seconds * SECOND));
    let asked = tokio::time::timeout(60 * SECOND, async { tokio::join!(within(25), within(5)) });
    let (first, second) = asked.await.expect("an answer at the deadline");
    assert_eq!(first.expect_err("hangs"), TokenDenied::Unwritten("the storage gives no answer in time".to_owned()));
    assert_eq!(second.expect_err("behind it"), TokenDenied::NotInTime(None));
    store.hangs.store(false, Ordering::Relaxed);
    for _ in 0..3 {
        token(&gate).await;
    }
    gate.token(Load::of_one(1), Deadline::NONE).await.expect_err("no more than the quota");
}
