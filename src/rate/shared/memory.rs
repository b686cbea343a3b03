//! The common ledger in memory, for tests: the reference for what a ledger decides, over time that is passed in.

use super::*;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::Instant;

/// Microseconds.
type Time = u64;

/// One bucket of a window is filled for this part of it.
const PARTS: Time = 100;

#[derive(Debug, Default)]
pub(crate) struct MemoryLedger {
    accounts: BTreeMap<String, AccountRecord>,
}

#[derive(Debug, Default)]
struct AccountRecord {
    gateways: BTreeMap<String, GatewayRecord>,
    /// Nobody gets more until then, so that every gateway can say first what it has.
    grace_until: Time,
    windows: BTreeMap<Time, WindowRecord>,
    breakers: BTreeMap<String, SharedBreakerState>,
}

#[derive(Debug, Clone, Copy)]
struct GatewayRecord {
    count: usize,
    need: usize,
    cap: usize,
    beat: Time,
    hold: Time,
}

#[derive(Debug, Default)]
struct WindowRecord {
    /// Number, units, when the last of them ended.
    buckets: BTreeMap<Time, (u64, Time)>,
    flights: BTreeMap<String, u64>,
    next: Time,
}

#[derive(Debug, Default)]
struct SharedBreakerState {
    generation: u64,
    open: Option<(Time, Time, u32, String)>,
    probe: Option<(String, Time)>,
}

impl MemoryLedger {
    /// `is_known`: the gateway has had an answer before.
    pub(crate) fn permits(
        &mut self,
        now: Time,
        (who, is_known): (&str, bool),
        account: &str,
        asked: PermitRequest,
    ) -> PermitGrant {
        let account = self.accounts.entry(account.to_owned()).or_default();
        account.forget_vanished(now, who);
        if is_known && !account.gateways.contains_key(who) {
            account.grace_until = now + micros(GONE);
        }
        let others: Vec<_> = account.gateways.iter().filter(|(id, _)| *id != who).collect();
        let is_live = |other: &GatewayRecord| now < other.beat + micros(GONE);
        let live = || others.iter().filter(|(_, other)| is_live(other));
        let elsewhere: usize = others.iter().map(|(_, other)| other.count).sum();
        let vanished = elsewhere - live().map(|(_, other)| other.count).sum::<usize>();
        let cap = live().map(|(_, other)| other.cap).fold(asked.cap, usize::min);
        let room = cap.saturating_sub(vanished);
        let divided = |need: usize| {
            let mut needs: Vec<(&str, usize)> = live().map(|(id, other)| (id.as_str(), other.need)).collect();
            needs.push((who, need));
            needs.sort_unstable();
            let shares = divide(&needs, room, now / micros(TURN));
            let mine = needs.iter().position(|(id, _)| *id == who).map_or(0, |at| shares[at]);
            (mine, room - shares.iter().sum::<usize>())
        };
        let need = if asked.is_leaving { 0 } else { asked.need };
        let (mine, left) = divided(need);
        let keeps = if asked.is_leaving { 0 } else { left.min(asked.held.saturating_sub(mine)) };
        let mut permits = (mine + keeps).min(cap.saturating_sub(elsewhere));
        if now < account.grace_until {
            permits = permits.min(asked.held);
        }
        let share = if asked.is_leaving { 0 } else { divided(cap).0 };
        let count = permits.max(asked.held);
        let is_contended = need > count || live().any(|(_, other)| other.need > other.count);
        if asked.is_leaving && asked.held == 0 {
            account.remove(who, now);
        } else {
            let record = GatewayRecord { count, need, cap: asked.cap, beat: now, hold: micros(asked.idle_timeout) };
            account.gateways.insert(who.to_owned(), record);
        }
        for state in account.breakers.values_mut() {
            if let Some((by, until)) = &mut state.probe
                && by == who
            {
                *until = now + micros(GONE);
            }
        }
        let known = account.breakers.iter().filter(|(_, state)| state.generation > 0);
        let breakers = known.map(|(name, state)| (name.clone(), state.record(now))).collect();
        PermitGrant { permits, share, elsewhere, is_contended, breakers }
    }

    pub(crate) fn rates(&mut self, now: Time, who: &str, account: &str, asked: &RateRequest) -> RateAnswer {
        let account = self.accounts.entry(account.to_owned()).or_default();
        let mut pace = 0;
        let (mut later, mut in_flight) = (0, false);
        let mut used_up = None;
        let mut used = Vec::new();
        for (place, rate) in asked.rates.iter().enumerate() {
            let window = account.windows.entry(micros(rate.period)).or_default();
            window.report(now, who, rate);
            used.push(window.used());
            let ready = window.next.saturating_sub(micros(rate.tolerance));
            pace = pace.max(if rate.is_quota { 0 } else { ready });
            match (window.full(rate), rate.is_quota) {
                (Some(until), true) => {
                    let until = until.unwrap_or(now + 1_000_000);
                    used_up = used_up.or(Some((place, until)));
                }
                (Some(until), false) => {
                    in_flight |= until.is_none();
                    later = later.max(until.unwrap_or(0)).max(ready);
                }
                (None, false) => later = later.max(ready),
                (None, true) => {}
            }
        }
        let wait = |until: Time| Duration::from_micros(until.saturating_sub(now));
        let verdict = match used_up {
            _ if !asked.takes => RateVerdict::Granted,
            Some((place, until)) => RateVerdict::UsedUp(place, wait(until)),
            None if later > now => RateVerdict::Later(wait(later)),
            None if in_flight => RateVerdict::InFlight,
            None => {
                pace = pace.max(account.take(now, who, asked));
                RateVerdict::Granted
            }
        };
        RateAnswer { verdict, pace: wait(pace), used }
    }

    pub(crate) fn breaker(
        &mut self,
        now: Time,
        who: &str,
        (account, upstream): (&str, &str),
        change: &BreakerChange,
    ) -> BreakerAnswer {
        let account = self.accounts.entry(account.to_owned()).or_default();
        let state = account.breakers.entry(upstream.to_owned()).or_default();
        let is_probed_elsewhere = state.probe.as_ref().is_some_and(|(by, until)| by != who && now < *until);
        let mut may_probe = false;
        match change {
            BreakerChange::Opened(OpenBreaker { pause, urgent_pause, failures, reason }) => {
                let (until, urgent, failed) = state.open.as_ref().map_or((0, 0, 0), |open| (open.0, open.1, open.2));
                let until = until.max(now + micros(*pause));
                let urgent = urgent.max(now + micros(*urgent_pause));
                state.open = Some((until, urgent, failed.max(*failures), reason.clone()));
                state.generation += 1;
                state.end_probe(who);
            }
            BreakerChange::Closed => {
                state.generation += u64::from(state.open.take().is_some());
                state.end_probe(who);
            }
            BreakerChange::Probe => {
                let is_paused = state.open.as_ref().is_some_and(|(_, urgent, ..)| now < *urgent);
                may_probe = !is_probed_elsewhere && !is_paused;
                if may_probe && state.open.is_some() {
                    state.probe = Some((who.to_owned(), now + micros(GONE)));
                }
            }
            BreakerChange::Released => state.end_probe(who),
            BreakerChange::Cut => {
                if let Some((until, urgent, ..)) = &mut state.open {
                    *until = now.min(*until);
                    *urgent = now.min(*urgent);
                    state.generation += 1;
                }
            }
        }
        BreakerAnswer { record: state.record(now), may_probe }
    }

    /// Of all gateways together.
    pub(crate) fn permits_of(&self, account: &str) -> usize {
        self.accounts.get(account).map_or(0, |account| account.gateways.values().map(|gateway| gateway.count).sum())
    }
}

impl AccountRecord {
    fn forget_vanished(&mut self, now: Time, who: &str) {
        let is_over = |other: &GatewayRecord| now >= other.beat + micros(GONE) + other.hold;
        let over: Vec<String> =
            self.gateways.iter().filter(|(id, other)| *id != who && is_over(other)).map(|(id, _)| id.clone()).collect();
        over.iter().for_each(|id| self.remove(id, now));
    }

    /// Its transactions under way count as ended now.
    fn remove(&mut self, who: &str, now: Time) {
        self.gateways.remove(who);
        for (period, window) in &mut self.windows {
            let ended = window.flights.remove(who).unwrap_or(0);
            window.end(ended, *period, now);
        }
    }

    /// Returns when the next unit is allowed by the pace.
    fn take(&mut self, now: Time, who: &str, asked: &RateRequest) -> Time {
        let mut pace = 0;
        let mut taken = Vec::new();
        for rate in &asked.rates {
            let period = micros(rate.period);
            let Some(window) = self.windows.get_mut(&period) else { continue };
            if taken.contains(&period) {
                continue;
            }
            taken.push(period);
            *window.flights.entry(who.to_owned()).or_default() += rate.units;
            if !rate.is_quota {
                window.next = window.next.max(now) + micros(rate.span);
                pace = pace.max(window.next.saturating_sub(micros(rate.tolerance)));
            }
        }
        pace
    }
}

impl WindowRecord {
    fn report(&mut self, now: Time, who: &str, rate: &SharedRate) {
        let period = micros(rate.period);
        let known = self.flights.insert(who.to_owned(), rate.in_flight).unwrap_or(0);
        self.end(known.saturating_sub(rate.in_flight + rate.returned), period, now);
        self.next = self.next.saturating_sub(micros(rate.returned_span));
        self.buckets.retain(|_, (_, last)| *last + period > now);
    }

    fn end(&mut self, units: u64, period: Time, now: Time) {
        if units > 0 {
            let bucket = self.buckets.entry(now / (period / PARTS)).or_default();
            *bucket = (bucket.0 + units, now);
        }
    }

    fn used(&self) -> u64 {
        self.flights.values().sum::<u64>() + self.buckets.values().map(|(units, _)| units).sum::<u64>()
    }

    /// `Some(None)`: only transactions under way prevent it.
    fn full(&self, rate: &SharedRate) -> Option<Option<Time>> {
        let limit = rate.limit?;
        let used = self.used();
        let mut over = (used + rate.units.min(limit)).saturating_sub(limit);
        if over == 0 {
            return None;
        }
        for (units, last) in self.buckets.values() {
            over = over.saturating_sub(*units);
            if over == 0 {
                return Some(Some(last + micros(rate.period)));
            }
        }
        Some(None)
    }
}

impl SharedBreakerState {
    fn end_probe(&mut self, who: &str) {
        self.probe = self.probe.take().filter(|(by, _)| by != who);
    }

    fn record(&self, now: Time) -> BreakerRecord {
        let wait = |until: Time| Duration::from_micros(until.saturating_sub(now));
        let open = self.open.as_ref().map(|(until, urgent, failures, reason)| OpenBreaker {
            pause: wait(*until),
            urgent_pause: wait(*urgent),
            failures: *failures,
            reason: reason.clone(),
        });
        BreakerRecord { generation: self.generation, open }
    }
}

/// Nobody gets more than it needs, and nobody gets less than another while it needs more; what cannot be divided goes
/// to those whose turn it is.
fn divide(needs: &[(&str, usize)], room: usize, turn: Time) -> Vec<usize> {
    let mut shares = vec![0; needs.len()];
    let mut left = room;
    loop {
        let short: Vec<usize> = (0..needs.len()).filter(|&at| shares[at] < needs[at].1).collect();
        if short.is_empty() || left == 0 {
            return shares;
        }
        let each = left / short.len();
        if each == 0 {
            let first = (turn % short.len() as Time) as usize;
            short.iter().cycle().skip(first).take(left).for_each(|&at| shares[at] += 1);
            return shares;
        }
        for at in short {
            let more = each.min(needs[at].1 - shares[at]);
            shares[at] += more;
            left -= more;
        }
    }
}

fn micros(time: Duration) -> Time {
    time.as_micros() as Time
}

/// One gateway's way to a ledger in memory, over the runtime's time.
#[derive(Debug)]
pub(crate) struct MemoryLimits {
    pub ledger: Arc<Mutex<MemoryLedger>>,
    who: &'static str,
    origin: Instant,
    /// The accounts for which it had an answer.
    known: Mutex<BTreeSet<String>>,
    /// The ledger does not answer.
    pub is_away: AtomicBool,
}

impl MemoryLimits {
    /// `origin`: the same for all of one ledger.
    pub(crate) fn new(ledger: &Arc<Mutex<MemoryLedger>>, who: &'static str, origin: Instant) -> Arc<Self> {
        Arc::new(Self { ledger: ledger.clone(), who, origin, known: Mutex::default(), is_away: AtomicBool::new(false) })
    }

    fn now(&self) -> Result<Time, String> {
        let is_away = self.is_away.load(Ordering::Relaxed);
        if is_away { Err("no answer".to_owned()) } else { Ok(micros(self.origin.elapsed()) + 1_000_000_000_000) }
    }
}

#[async_trait]
impl SharedLimits for MemoryLimits {
    async fn permits(&self, account: &str, request: PermitRequest) -> Result<PermitGrant, String> {
        let now = self.now()?;
        let is_known = !self.known.lock().insert(account.to_owned());
        Ok(self.ledger.lock().permits(now, (self.who, is_known), account, request))
    }

    async fn rates(&self, account: &str, request: &RateRequest) -> Result<RateAnswer, String> {
        Ok(self.ledger.lock().rates(self.now()?, self.who, account, request))
    }

    async fn breaker(&self, account: &str, upstream: &str, change: &BreakerChange) -> Result<BreakerAnswer, String> {
        Ok(self.ledger.lock().breaker(self.now()?, self.who, (account, upstream), change))
    }
}
