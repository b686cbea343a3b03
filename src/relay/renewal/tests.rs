//! Accounts of several gateways on one ledger, under paused time: connections, rates and pauses are theirs together, and
//! nothing begins while the ledger does not answer.

use super::*;
use crate::message::outcome::{Cause, Reason, RelayStep, Signal};
use crate::rate::shared::memory::{MemoryLedger, MemoryLimits};
use crate::rate::{Counting, Load, Rate};
use crate::relay::account::{Account, SharedAccount};
use crate::relay::deadline::Deadline;
use crate::relay::gate::TokenDenied;
use crate::relay::health::{Health, NotAdmitted, SharedHealth};
use crate::relay::pool::{Claim, Permit, PoolGrant, PoolMember, Reuse};
use parking_lot::Mutex;
use std::sync::atomic::Ordering;
use tokio::task::JoinSet;

const SECOND: Duration = Duration::from_secs(1);
const NAMES: [&str; 3] = ["one", "two", "three"];

struct Gateways {
    accounts: Vec<Account>,
    ways: Vec<Arc<MemoryLimits>>,
}

impl Gateways {
    async fn start(cap: usize, rates: &[&str]) -> Self {
        let ledger = Arc::new(Mutex::new(MemoryLedger::default()));
        let origin = Instant::now();
        let rates: Vec<Rate> = rates.iter().map(|text| Rate::parse(text).expect("a rate")).collect();
        let mut gateways = Self { accounts: Vec::new(), ways: Vec::new() };
        for name in NAMES {
            let limits = MemoryLimits::new(&ledger, name, origin);
            let shared =
                SharedAccount { limits: limits.clone(), name: "account".into(), idle_timeout: Duration::from_secs(30) };
            let account = Account::shared(cap, &rates, Counting::RECIPIENTS, shared);
            account.restore().await.expect("a ledger");
            gateways.accounts.push(account);
            gateways.ways.push(limits);
        }
        gateways
    }
}

/// Waits for a permit, as a message does.
async fn permit(account: &Account, member: &Arc<PoolMember>) -> Permit<PooledConnection> {
    match account.pool.claim(member, Reuse::Allowed) {
        Claim::Granted(PoolGrant::Permit(permit)) => permit,
        Claim::Wait(mut ticket, _) => {
            account.ledger.as_ref().expect("shared").changed.notify_one();
            match ticket.granted().await {
                Some(PoolGrant::Permit(permit)) => permit,
                _ => panic!("no permit"),
            }
        }
        _ => panic!("no permit"),
    }
}

#[tokio::test(start_paused = true)]
async fn together_they_have_no_more_connections_than_the_cap_and_each_delivers() {
    for cap in [1, 2, 4, 7] {
        let gateways = Gateways::start(cap, &[]).await;
        let open = Arc::new(Mutex::new((0, 0)));
        let mut senders = JoinSet::new();
        for (at, account) in gateways.accounts.iter().enumerate() {
            for _ in 0..cap {
                let (account, open) = (account.clone(), open.clone());
                senders.spawn(async move {
                    let member = PoolMember::new();
                    let start = Instant::now();
                    let mut sent = 0;
                    while start.elapsed() < 60 * SECOND {
                        let permit = permit(&account, &member).await;
                        {
                            let mut open = open.lock();
                            open.0 += 1;
                            open.1 = open.1.max(open.0);
                        }
                        tokio::time::sleep(SECOND / 4).await;
                        open.lock().0 -= 1;
                        drop(permit);
                        sent += 1;
                    }
                    (at, sent)
                });
            }
        }
        let mut sent = [0; NAMES.len()];
        for (at, count) in senders.join_all().await {
            sent[at] += count;
        }
        assert_eq!(open.lock().1, cap, "most at once");
        let all: usize = sent.iter().sum();
        assert!(all > 60 * 4 * cap / 2, "{sent:?} with {cap}");
        assert!(sent.iter().all(|&sent| sent > all / 10), "{sent:?} with {cap}");
    }
}

#[tokio::test(start_paused = true)]
async fn unused_permits_go_to_a_gateway_that_needs_them() {
    let gateways = Gateways::start(4, &[]).await;
    let member = PoolMember::new();
    let mut all = Vec::new();
    for account in gateways.accounts.iter().take(2) {
        for _ in 0..2 {
            all.push(permit(account, &member).await);
        }
    }
    let third = &gateways.accounts[2];
    assert!(third.ledger.as_ref().expect("shared").elsewhere() <= 4);
    drop(all);
    for _ in 0..4 {
        let permit = permit(third, &member);
        std::mem::forget(tokio::time::timeout(3 * SECOND, permit).await.expect("a permit soon"));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_begins_while_the_ledger_does_not_answer_and_it_recovers_by_itself() {
    let gateways = Gateways::start(4, &["10/s"]).await;
    let account = &gateways.accounts[0];
    let member = PoolMember::new();
    let held = permit(account, &member).await;
    gateways.ways[0].is_away.store(true, Ordering::Relaxed);
    tokio::time::sleep(3 * SECOND).await;
    let ledger = account.ledger.clone().expect("shared");
    assert_eq!(ledger.trouble().as_deref(), Some("no answer"));
    let late = tokio::time::timeout(20 * SECOND, permit(account, &member)).await;
    assert!(late.is_err(), "a permit without the ledger");
    let denied = account.gate.token(Load::of_one(1), Deadline::NONE).await.expect_err("no ledger");
    assert_eq!(denied, TokenDenied::Unshared("no answer".to_owned()));
    gateways.ways[0].is_away.store(false, Ordering::Relaxed);
    tokio::time::timeout(12 * SECOND, permit(account, &member)).await.expect("it recovers");
    assert_eq!(ledger.trouble(), None);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_was_stopped_for_long_does_not_begin_with_its_old_permits() {
    let gateways = Gateways::start(2, &[]).await;
    let account = &gateways.accounts[0];
    let ledger = account.ledger.clone().expect("shared");
    let sent = Instant::now();
    tokio::time::advance(GOOD_FOR).await;
    // The process runs again, and an old answer is the first thing that it reads.
    assert!(!ledger.grant(&PermitGrant { permits: 2, ..PermitGrant::default() }, sent));
    assert!(ledger.trouble().is_some());
}

#[tokio::test(start_paused = true)]
async fn together_they_never_send_more_than_a_rate_allows() {
    for (text, units, period) in [("14/s", 14, SECOND), ("30/min", 30, 60 * SECOND), ("20/h", 20, 3600 * SECOND)] {
        let gateways = Gateways::start(4, &[text]).await;
        let (sent, start) = (Arc::new(Mutex::new(Vec::new())), Instant::now());
        let mut senders = JoinSet::new();
        for account in gateways.accounts.iter().cloned() {
            let sent = sent.clone();
            senders.spawn(async move {
                while start.elapsed() < 3 * period {
                    match account.gate.token(Load::of_one(1), Deadline::NONE).await {
                        Ok(mut token) => {
                            token.begin();
                            tokio::time::sleep(SECOND / 100).await;
                            sent.lock().push(Instant::now());
                            drop(token);
                        }
                        Err(TokenDenied::UsedUp { until, .. }) => tokio::time::sleep_until(until).await,
                        Err(other) => panic!("{other:?}"),
                    }
                }
            });
        }
        senders.join_all().await;
        let mut sent = sent.lock().clone();
        sent.sort_unstable();
        for window in sent.windows(units + 1) {
            assert!(window[units] - window[0] >= period, "{text}: {units} and one more within {period:?}");
        }
        assert!(sent.len() > 2 * units, "{text}: only {} in three periods", sent.len());
    }
}

fn health(account: &Account) -> Arc<Health> {
    let ledger = account.ledger.clone().expect("shared");
    Health::new("company".into(), 4, Some(SharedHealth { ledger, name: "company".into() }))
}

fn failure() -> Reason {
    Reason::new(Some("company"), RelayStep::Connect, Cause::Network("it is down".to_owned()))
}

#[tokio::test(start_paused = true)]
async fn a_failure_pauses_every_gateway_and_one_of_them_probes() {
    let gateways = Gateways::start(4, &[]).await;
    let health: Vec<_> = gateways.accounts.iter().map(health).collect();
    // Several failures, so that the pause is longer than the time in which others hear of it.
    for _ in 0..5 {
        loop {
            match health[0].admit(Deadline::NONE, false).await {
                Ok(mut attempt) => {
                    health[0].may_probe(&attempt).await.expect("nobody else probes");
                    assert_eq!(attempt.failed(&failure(), &[]), Signal::Unavailable);
                    break;
                }
                Err(NotAdmitted::Unavailable { wait, .. }) => tokio::time::sleep(wait).await,
                Err(NotAdmitted::Full) => panic!("nothing else is under way"),
            }
        }
    }
    tokio::time::sleep(3 * SECOND).await;
    for other in &health[1..] {
        let (why, _) = other.pause().expect("paused as well");
        assert!(why.contains("it is down"), "{why}");
    }
    tokio::time::sleep(60 * SECOND).await;
    let first = health[1].admit(Deadline::NONE, false).await.expect("the pause is over");
    health[1].may_probe(&first).await.expect("the first one probes");
    let second = health[2].admit(Deadline::NONE, false).await.expect("the pause is over");
    assert!(health[2].may_probe(&second).await.is_err(), "two probes at once");
    drop(second);
    let mut first = first;
    let outcome = crate::message::Outcome::Failed(Reason::new(Some("company"), RelayStep::Local, Cause::Stopping));
    assert_eq!(first.finished(&[outcome], &[]), Signal::None);
    drop(first);
    tokio::time::sleep(3 * SECOND).await;
    let third = health[0].admit(Deadline::NONE, false).await.expect("the pause is over");
    health[0].may_probe(&third).await.expect("the right to probe is free again");
}
