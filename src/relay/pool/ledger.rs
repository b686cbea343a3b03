//! The pools of several gateways on one ledger, on random walks: requests that are answered late or never, gateways that
//! are stopped and come back, caps that are lowered. Together they never hold more than the cap, and every caller is
//! served in the end.

use super::tests::Fake;
use super::*;
use crate::rate::shared::memory::MemoryLedger;
use crate::rate::shared::{GONE, GOOD_FOR, PermitGrant, PermitRequest, TURN};
use proptest::prelude::*;
use std::time::Duration;

const GATEWAYS: [&str; 3] = ["one", "two", "three"];
const IDLE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy)]
enum Step {
    Begin(usize),
    /// Ends the oldest transaction; `true`: its connection may be reused.
    End(usize, bool),
    GiveUp(usize),
    /// A connection that was being closed is gone.
    Closed(usize),
    /// Sends a request, which the ledger executes.
    Ask(usize),
    /// The answer to it arrives.
    Answer(usize),
    /// It does not.
    NoAnswer(usize),
    /// Stops the process, as SIGSTOP does, or lets it run again.
    Stop(usize),
    /// Kills the process and starts it again.
    Restart(usize),
    Cap(usize, usize),
    Pass(u64),
}

struct Gateway {
    name: &'static str,
    pool: Arc<Pool<Fake>>,
    member: Arc<PoolMember>,
    cap: usize,
    busy: Vec<Fake>,
    waiting: Vec<Ticket<Fake>>,
    closing: Vec<Fake>,
    /// A request under way: when it was sent, and its answer.
    asked: Option<(Duration, PermitGrant)>,
    good_until: Duration,
    is_known: bool,
    is_stopped: bool,
}

struct Gateways {
    ledger: MemoryLedger,
    gateways: Vec<Gateway>,
    now: Duration,
}

impl Gateway {
    fn new(name: &'static str, cap: usize) -> Self {
        Self {
            name,
            pool: Pool::shared(cap),
            member: PoolMember::new(),
            cap,
            busy: Vec::new(),
            waiting: Vec::new(),
            closing: Vec::new(),
            asked: None,
            good_until: Duration::ZERO,
            is_known: false,
            is_stopped: false,
        }
    }

    fn ask(&mut self, ledger: &mut MemoryLedger, now: Duration) {
        let demand = self.pool.freeze();
        let in_use = demand.held - demand.idle - demand.closing;
        let need = in_use + demand.waiting;
        let request = PermitRequest { cap: self.cap, held: demand.held, need, idle_timeout: IDLE, is_leaving: false };
        let time = now.as_micros() as u64;
        let grant = ledger.permits(time, (self.name, self.is_known), "account", request);
        self.is_known = true;
        self.asked = Some((now, grant));
    }

    fn granted(&mut self, permits: usize) {
        self.closing.extend(self.pool.set_granted(permits));
        self.granted_now();
    }

    /// Waiting callers that were served hold their permits now.
    fn granted_now(&mut self) {
        for mut ticket in std::mem::take(&mut self.waiting) {
            match ticket.grant.try_recv() {
                Ok(PoolGrant::Permit(permit)) => self.busy.push(Fake(permit)),
                Ok(PoolGrant::Connection(connection)) => self.busy.push(connection),
                Err(_) => self.waiting.push(ticket),
            }
        }
    }

    fn answer(&mut self, now: Duration) {
        let Some((sent, grant)) = self.asked.take() else { return };
        if now < sent + GOOD_FOR {
            self.good_until = sent + GOOD_FOR;
            self.granted(grant.permits);
        } else {
            self.granted(0);
        }
    }

    fn begin(&mut self, now: Duration) {
        if now >= self.good_until {
            return;
        }
        match self.pool.claim(&self.member, Reuse::Allowed) {
            Claim::Granted(PoolGrant::Permit(permit)) => self.busy.push(Fake(permit)),
            Claim::Granted(PoolGrant::Connection(connection)) => self.busy.push(connection),
            Claim::Wait(ticket, evicted) => {
                self.closing.extend(evicted);
                self.waiting.push(ticket);
            }
            Claim::Closed => panic!("nobody closes it"),
        }
    }

    fn end(&mut self, is_sound: bool) {
        if self.busy.is_empty() {
            return;
        }
        let connection = self.busy.remove(0);
        if !is_sound {
            connection.permit().start_closing();
            self.closing.push(connection);
        } else if let PutBack::Surplus(connection) = self.pool.put_back(connection, Instant::now() + IDLE) {
            self.closing.push(connection);
        }
    }

    /// The provider has closed every connection.
    fn lose_connections(&mut self) {
        self.busy.clear();
        self.closing.clear();
        self.closing.extend(self.pool.set_granted(0));
        self.closing.clear();
        self.waiting.clear();
    }
}

impl Gateways {
    fn new(cap: usize) -> Self {
        let gateways = GATEWAYS.into_iter().map(|name| Gateway::new(name, cap)).collect();
        Self { ledger: MemoryLedger::default(), gateways, now: Duration::from_secs(1_000_000) }
    }

    fn act(&mut self, step: Step) {
        let now = self.now;
        if let Step::Pass(milliseconds) = step {
            self.now += Duration::from_millis(milliseconds);
            return self.pass();
        }
        let (Step::Begin(at)
        | Step::End(at, _)
        | Step::GiveUp(at)
        | Step::Closed(at)
        | Step::Ask(at)
        | Step::Answer(at)
        | Step::NoAnswer(at)
        | Step::Stop(at)
        | Step::Restart(at)
        | Step::Cap(at, _)) = step
        else {
            return;
        };
        let gateway = &mut self.gateways[at];
        if gateway.is_stopped && !matches!(step, Step::Stop(_) | Step::Restart(_)) {
            return;
        }
        match step {
            Step::Begin(_) => gateway.begin(now),
            Step::End(_, is_sound) => gateway.end(is_sound),
            Step::GiveUp(_) => drop(gateway.waiting.pop()),
            Step::Closed(_) => drop(gateway.closing.pop()),
            Step::Ask(_) if gateway.asked.is_none() => gateway.ask(&mut self.ledger, now),
            Step::Answer(_) => gateway.answer(now),
            Step::NoAnswer(_) if gateway.asked.take().is_some() => gateway.granted(0),
            Step::Stop(_) => gateway.is_stopped = !gateway.is_stopped,
            // The kernel closes the sockets of the old process before the new one can run.
            Step::Restart(_) => *gateway = Gateway::new(gateway.name, gateway.cap),
            Step::Cap(_, cap) => gateway.cap = cap.min(gateway.pool.cap()),
            _ => {}
        }
        gateway.granted_now();
        self.check();
    }

    /// Connections without a renewal end at the latest when their permits are free.
    fn pass(&mut self) {
        for gateway in &mut self.gateways {
            if self.now >= gateway.good_until + (GONE - GOOD_FOR) + IDLE {
                gateway.lose_connections();
            }
        }
        self.check();
    }

    fn check(&self) {
        let open: usize = self.gateways.iter().map(|gateway| gateway.member.open()).sum();
        let cap = self.gateways.iter().map(|gateway| gateway.pool.cap()).max().unwrap_or(0);
        assert!(open <= cap, "{open} connections, {cap} allowed");
    }

    /// Everybody runs, renews and ends what it begins: each caller must be served, and a lowered cap must be obeyed.
    fn finish(mut self) {
        let cap = self.gateways.iter().map(|gateway| gateway.cap).min().unwrap_or(1);
        for at in 0..self.gateways.len() {
            self.gateways[at].is_stopped = false;
            self.act(Step::Begin(at));
        }
        // What vanished is free by then, and each has had its turn.
        let rounds = (GONE + IDLE + GONE + 2 * TURN * self.gateways.len() as u32).as_millis() / 250;
        let mut served = [false; GATEWAYS.len()];
        for round in 0..2 * rounds {
            for (at, served) in served.iter_mut().enumerate() {
                for step in [Step::Ask(at), Step::Answer(at), Step::Closed(at), Step::Begin(at)] {
                    self.act(step);
                }
                let gateway = &mut self.gateways[at];
                *served |= round > rounds && !gateway.busy.is_empty();
                gateway.end(true);
                gateway.granted_now();
            }
            self.act(Step::Pass(250));
        }
        assert_eq!(served, [true; GATEWAYS.len()], "somebody starves");
        let open: usize = self.gateways.iter().map(|gateway| gateway.member.open()).sum();
        assert!(open <= cap && self.ledger.permits_of("account") <= cap, "{open} connections, the cap is {cap}");
    }
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0..GATEWAYS.len();
    prop_oneof![
        8 => at().prop_map(Step::Begin),
        5 => (at(), any::<bool>()).prop_map(|(at, sound)| Step::End(at, sound)),
        1 => at().prop_map(Step::GiveUp),
        4 => at().prop_map(Step::Closed),
        8 => at().prop_map(Step::Ask),
        8 => at().prop_map(Step::Answer),
        1 => at().prop_map(Step::NoAnswer),
        1 => at().prop_map(Step::Stop),
        1 => at().prop_map(Step::Restart),
        1 => (at(), 1..5_usize).prop_map(|(at, cap)| Step::Cap(at, cap)),
        6 => (0..3000_u64).prop_map(Step::Pass),
        1 => (0..60_000_u64).prop_map(Step::Pass),
    ]
}

proptest! {
    // Each case is minutes of three gateways.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn gateways_on_one_ledger_never_exceed_the_cap_and_none_starves(
        cap in 1..5_usize,
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let mut gateways = Gateways::new(cap);
        steps.into_iter().for_each(|step| gateways.act(step));
        gateways.finish();
    }
}
