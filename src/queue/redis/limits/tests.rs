//! The scripts against real servers: they decide as the ledger in memory does, permits of a gateway that vanished stay
//! taken and come back, and no limit is exceeded under load, at a restart of Redis, or by a request that was late.

use super::*;
use crate::queue::redis::RedisQueue;
use crate::queue::redis::options::{RedisPlace, ServerAddress};
use crate::queue::redis::testing::{RedisServer, options_at};
use crate::rate::shared::SharedRate;
use crate::rate::shared::memory::MemoryLedger;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio::task::JoinSet;

const NAMES: [&str; 3] = ["one", "three", "two"];
const SECOND: Duration = Duration::from_secs(1);
const HOLD: Duration = Duration::from_secs(30);

/// One process of an instance.
async fn gateway(server: &RedisServer, name: &str, simulated: Option<&Arc<AtomicU64>>) -> RedisLimits {
    let place = RedisPlace::Single(ServerAddress::Unix(server.socket()));
    let data_dir = server.folder().join(name);
    std::fs::create_dir_all(&data_dir).expect("a folder");
    let known = data_dir.join("redis-queue.json");
    if !known.exists() {
        let json = format!(r#"{{"instance":"{name}","generation":null,"accepted":[]}}"#);
        std::fs::write(known, json).expect("written");
    }
    let queue = RedisQueue::open(options_at(place, &data_dir)).await.expect("opened");
    RedisLimits { simulated: simulated.cloned(), ..RedisLimits::new(queue.store.clone()) }
}

async fn gateways(server: &RedisServer, simulated: Option<&Arc<AtomicU64>>) -> Vec<RedisLimits> {
    let mut all = Vec::new();
    for name in NAMES {
        all.push(gateway(server, name, simulated).await);
    }
    all
}

fn server() -> RedisServer {
    RedisServer::start().expect("redis-server: run tests/peers/install")
}

fn wants(cap: usize, held: usize, need: usize) -> PermitRequest {
    PermitRequest { cap, held, need, idle_timeout: HOLD, is_leaving: false }
}

fn start_time() -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(1_700_000_000_000_000))
}

fn pass(time: &AtomicU64, more: Duration) {
    time.fetch_add(micros(more), Ordering::Relaxed);
}

#[derive(Debug, Clone)]
enum Request {
    Permits(PermitRequest),
    Rates(RateRequest),
    Breaker(&'static str, BreakerChange),
    Pass(u64),
}

fn request() -> impl Strategy<Value = Request> {
    let permits = (1..6_usize, 0..5_usize, 0..7_usize, 0..40_u64, prop::bool::weighted(0.1)).prop_map(
        |(cap, held, need, hold, is_leaving)| {
            Request::Permits(PermitRequest { cap, held, need, idle_timeout: SECOND * hold as u32, is_leaving })
        },
    );
    let rate = (0..4_usize, prop::option::of(1..6_u64), 0..3_u64, 0..4_u64, 0..2_u64);
    let rate = rate.prop_map(|(period, limit, units, in_flight, returned)| {
        let period = SECOND * [1, 60, 3600, 86_400][period];
        let is_quota = period > 60 * SECOND;
        let pace = if is_quota { Duration::ZERO } else { period / 7 };
        SharedRate {
            period,
            limit,
            is_quota,
            units,
            in_flight,
            returned,
            span: pace * units as u32,
            returned_span: pace * returned as u32,
            tolerance: pace * 2,
        }
    });
    let rates = (prop::collection::vec(rate, 1..4), any::<bool>())
        .prop_map(|(rates, takes)| Request::Rates(RateRequest { rates, takes }));
    let open = (0..30_u64, 0..5_u64, 0..9_u32).prop_map(|(pause, urgent, failures)| {
        let (pause, urgent_pause) = (SECOND * pause as u32, SECOND * urgent as u32);
        BreakerChange::Opened(OpenBreaker { pause, urgent_pause, failures, reason: "421 4.7.0 später\n more".into() })
    });
    let change = prop_oneof![
        open,
        Just(BreakerChange::Closed),
        Just(BreakerChange::Probe),
        Just(BreakerChange::Probe),
        Just(BreakerChange::Released),
        Just(BreakerChange::Cut),
    ];
    let breaker = (prop::sample::select(vec!["first", "second:x"]), change)
        .prop_map(|(upstream, change)| Request::Breaker(upstream, change));
    let time = prop_oneof![0..3_000_000_u64, 0..60_000_000_u64, 0..4_000_000_000_u64].prop_map(Request::Pass);
    prop_oneof![4 => permits, 4 => rates, 2 => breaker, 3 => time]
}

/// The same requests get the same answers.
async fn agree(server: &RedisServer, cases: usize) {
    let time = start_time();
    let gateways = gateways(server, Some(&time)).await;
    let mut runner = TestRunner::deterministic();
    for case in 0..cases {
        let requests = prop::collection::vec((0..NAMES.len(), request()), 1..60);
        let requests = requests.new_tree(&mut runner).expect("a case").current();
        let account = format!("account {case}");
        let mut memory = MemoryLedger::default();
        let mut known = [false; NAMES.len()];
        for (step, (at, request)) in requests.iter().enumerate() {
            let now = time.load(Ordering::Relaxed);
            let who = NAMES[*at];
            let context = || format!("case {case}, step {step}: {who} {request:?}, of {requests:#?}");
            match request {
                Request::Permits(asked) => {
                    let expected = memory.permits(now, (who, known[*at]), &account, *asked);
                    known[*at] = !asked.is_leaving;
                    let answer = gateways[*at].permits(&account, *asked).await.expect("an answer");
                    assert_eq!(answer, expected, "{}", context());
                }
                Request::Rates(asked) => {
                    let expected = memory.rates(now, who, &account, asked);
                    let answer = gateways[*at].rates(&account, asked).await.expect("an answer");
                    assert_eq!(answer, expected, "{}", context());
                }
                Request::Breaker(upstream, change) => {
                    let expected = memory.breaker(now, who, (&account, upstream), change);
                    let answer = gateways[*at].breaker(&account, upstream, change).await.expect("an answer");
                    assert_eq!(answer, expected, "{}", context());
                }
                Request::Pass(more) => drop(time.fetch_add(*more, Ordering::Relaxed)),
            }
        }
    }
}

#[tokio::test]
async fn the_scripts_decide_as_the_ledger_in_memory_does() {
    agree(&server(), 40).await;
}

#[tokio::test]
async fn the_scripts_run_on_a_cluster_and_on_valkey() {
    agree(&RedisServer::start_cluster().expect("redis-server: run tests/peers/install"), 5).await;
    if let Some(valkey) = RedisServer::start_valkey() {
        agree(&valkey, 5).await;
    }
}

#[tokio::test]
async fn permits_of_a_gateway_that_vanished_stay_taken_for_the_idle_timeout() {
    let (server, time) = (server(), start_time());
    let gateways = gateways(&server, Some(&time)).await;
    let [frozen, other, _] = &gateways[..] else { panic!("three") };
    assert_eq!(frozen.permits("account", wants(4, 0, 4)).await.expect("an answer").permits, 4);
    let until = GONE + HOLD;
    let mut passed = Duration::ZERO;
    while passed < until {
        let grant = other.permits("account", wants(4, 0, 4)).await.expect("an answer");
        assert_eq!((grant.permits, grant.elsewhere), (0, 4), "after {passed:?}");
        pass(&time, 2 * SECOND);
        passed += 2 * SECOND;
    }
    assert_eq!(other.permits("account", wants(4, 0, 4)).await.expect("an answer").permits, 4);
    // It runs again, and still has its connections: it gets no more, and counts until they are closed.
    let grant = frozen.permits("account", wants(4, 4, 4)).await.expect("an answer");
    assert_eq!((grant.permits, grant.elsewhere), (0, 4));
}

#[tokio::test]
async fn permits_are_free_at_once_if_the_same_instance_is_back_or_is_forgotten_or_left() {
    let (server, time) = (server(), start_time());
    let all = gateways(&server, Some(&time)).await;
    let other = &all[1];
    let takes_all = async || other.permits("account", wants(4, 0, 4)).await.expect("an answer").permits;
    let gives_back = async || other.permits("account", wants(4, 0, 0)).await.expect("an answer").permits;
    assert_eq!(all[0].permits("account", wants(4, 0, 4)).await.expect("an answer").permits, 4);
    pass(&time, GONE);
    assert_eq!(takes_all().await, 0);
    let back = gateway(&server, NAMES[0], Some(&time)).await;
    assert_eq!(back.permits("account", wants(4, 0, 0)).await.expect("an answer").permits, 0);
    assert_eq!(takes_all().await, 4);
    // The process that was killed cannot speak any more, but what it had sent may come late.
    let late = all[0].permits("account", wants(4, 4, 4)).await.expect_err("its run is over");
    assert!(late.contains("STALE"), "{late}");
    assert_eq!(gives_back().await, 0);
    assert_eq!(back.permits("account", wants(4, 0, 4)).await.expect("an answer").permits, 4);
    forget(&other.store, NAMES[0]).await.expect("forgotten");
    assert_eq!(takes_all().await, 4);
    let leaves = PermitRequest { is_leaving: true, ..wants(4, 0, 0) };
    other.permits("account", leaves).await.expect("an answer");
    assert_eq!(all[2].permits("account", wants(4, 0, 4)).await.expect("an answer").permits, 4);
}

#[tokio::test]
async fn a_request_that_arrives_after_a_later_one_changes_nothing() {
    let (server, time) = (server(), start_time());
    let gateway = gateway(&server, "one", Some(&time)).await;
    gateway.next_number.store(7, Ordering::Relaxed);
    assert_eq!(gateway.permits("account", wants(4, 0, 3)).await.expect("an answer").permits, 3);
    let request = RateRequest { rates: Vec::new(), takes: true };
    gateway.rates("account", &request).await.expect("an answer");
    gateway.next_number.store(3, Ordering::Relaxed);
    assert!(gateway.permits("account", wants(4, 0, 0)).await.expect_err("late").contains("STALE"));
    assert!(gateway.rates("account", &request).await.expect_err("late").contains("STALE"));
}

#[tokio::test]
async fn after_a_restart_of_redis_nobody_gets_more_until_all_have_said_what_they_have() {
    let (mut server, time) = (server(), start_time());
    let gateways = gateways(&server, Some(&time)).await;
    assert_eq!(gateways[0].permits("account", wants(4, 0, 2)).await.expect("an answer").permits, 2);
    assert_eq!(gateways[1].permits("account", wants(4, 0, 1)).await.expect("an answer").permits, 1);
    server.kill();
    gateways[0].permits("account", wants(4, 2, 4)).await.expect_err("Redis is away");
    server.restart();
    let after = async |at: usize, held, need| {
        let answer = gateways[at].permits("account", wants(4, held, need)).await;
        answer.map(|grant| grant.permits)
    };
    // The first request finds out that the connection is gone.
    let _ = after(1, 1, 2).await;
    assert_eq!(after(1, 1, 2).await, Ok(1), "before the first one has renewed its own");
    let _ = after(0, 2, 2).await;
    assert_eq!(after(0, 2, 2).await, Ok(2));
    pass(&time, GONE);
    let _ = after(2, 0, 0).await;
    assert_eq!((after(0, 2, 2).await, after(1, 1, 2).await), (Ok(2), Ok(2)));
    // Everything is lost: the same.
    server.command(&["FLUSHALL"]);
    assert_eq!(after(1, 2, 4).await, Ok(2), "the other one has two that the ledger does not know");
}

/// Each gateway renews, takes and gives back permits at random; `held` of all together never exceeds the cap.
#[tokio::test]
async fn three_gateways_under_load_never_have_more_than_the_cap() {
    let server = server();
    let open = Arc::new(Mutex::new(([0_usize; 3], 0)));
    let mut loads = JoinSet::new();
    const CAP: usize = 5;
    for (at, gateway) in gateways(&server, None).await.into_iter().enumerate() {
        let open = open.clone();
        loads.spawn(async move {
            let mut granted_in_all = 0;
            let mut held = 0;
            for round in 0..400_usize {
                let need = (round * 7 + at * 3) % 9;
                let grant = gateway.permits("account", wants(CAP, held, need)).await.expect("an answer");
                // Closes what is too much, and opens what is granted.
                held = grant.permits;
                granted_in_all += grant.permits;
                {
                    let mut open = open.lock();
                    open.0[at] = held;
                    open.1 = open.1.max(open.0.iter().sum());
                }
                tokio::task::yield_now().await;
                // Before the ledger hears of fewer, there must be fewer.
                held = held.min((round * 5 + at) % 6);
                open.lock().0[at] = held;
            }
            granted_in_all
        });
    }
    let granted = loads.join_all().await;
    assert!(granted.iter().all(|granted| *granted > 0), "{granted:?}");
    assert!(open.lock().1 <= CAP, "{} at once", open.lock().1);
}

/// With the server's own clock, and answers that are lost.
#[tokio::test]
async fn three_gateways_under_load_never_take_more_than_a_rate() {
    const UNITS: u64 = 40;
    let server = server();
    let taken = Arc::new(AtomicU64::new(0));
    let mut loads = JoinSet::new();
    for (at, gateway) in gateways(&server, None).await.into_iter().enumerate() {
        let taken = taken.clone();
        loads.spawn(async move {
            let mut in_flight = 0;
            for round in 0..60 {
                let rate = SharedRate {
                    period: 3600 * SECOND,
                    limit: Some(UNITS),
                    is_quota: true,
                    units: 1,
                    in_flight,
                    returned: 0,
                    span: Duration::ZERO,
                    returned_span: Duration::ZERO,
                    tolerance: Duration::ZERO,
                };
                let answer = gateway.rates("account", &RateRequest { rates: vec![rate], takes: true }).await;
                if answer.expect("an answer").verdict == RateVerdict::Granted && (round + at) % 5 > 0 {
                    taken.fetch_add(1, Ordering::Relaxed);
                    in_flight += 1;
                }
                in_flight -= u64::from(round % 3 == 0 && in_flight > 0);
            }
        });
    }
    loads.join_all().await;
    let taken = taken.load(Ordering::Relaxed);
    assert!((UNITS / 2..=UNITS).contains(&taken), "{taken} of {UNITS}");
}
