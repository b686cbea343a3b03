//! The limits of the gateways that share the queue, in Redis: permits for connections, usage of rates, and pauses of upstreams.
//!
//! Each request is one script and is answered by the server's clock. A request carries the gateway's run and its number
//! within it: one that was delayed on its way and arrives after a later one is refused, and changes nothing. Nothing here
//! is repeated, because the next request states the whole position again.

use super::answers::{list, number, text, texts};
use super::layout::Layout;
use super::link::Link;
use super::store::RedisStore;
use crate::queue::{AccountPermits, QueueError};
use crate::rate::shared::{
    BreakerAnswer, BreakerChange, BreakerRecord, GONE, OpenBreaker, PermitGrant, PermitRequest, RateAnswer,
    RateRequest, RateVerdict, SharedLimits, TURN,
};
use async_trait::async_trait;
use parking_lot::Mutex;
use redis::{Cmd, Value, cmd};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::OnceCell;

const PERMITS: &str = include_str!("permits.lua");
const RATES: &str = include_str!("rates.lua");
const BREAKER: &str = include_str!("breaker.lua");
/// Begins a run of a gateway; a later run has a higher number.
const BEGIN_RUN: &str = "#!lua flags=allow-oom\nreturn redis.call('HINCRBY', KEYS[1], ARGV[1], 1)";

/// As one gateway uses them. Every key is in shard 0.
#[derive(Debug)]
pub(crate) struct RedisLimits {
    store: Arc<RedisStore>,
    run: OnceCell<u64>,
    next_number: AtomicU64,
    /// The accounts for which there was an answer.
    known: Mutex<HashSet<String>>,
    /// In place of the server's clock, in microseconds.
    #[cfg(test)]
    simulated: Option<Arc<AtomicU64>>,
}

impl RedisLimits {
    pub(super) fn new(store: Arc<RedisStore>) -> Self {
        Self {
            store,
            run: OnceCell::new(),
            next_number: AtomicU64::new(1),
            known: Mutex::default(),
            #[cfg(test)]
            simulated: None,
        }
    }

    fn link(&self) -> &Link {
        &self.store.link
    }

    fn layout(&self) -> &Layout {
        &self.store.layout
    }

    /// Empty: the server's clock.
    fn now(&self) -> String {
        #[cfg(test)]
        if let Some(now) = &self.simulated {
            return now.load(Ordering::Relaxed).to_string();
        }
        String::new()
    }

    /// The instance's run, which is one process.
    async fn run(&self) -> Result<u64, String> {
        let begin = async || {
            let runs = [self.layout().limit_runs()];
            let arguments = |command: &mut Cmd| {
                command.arg(&self.store.instance);
            };
            let answer = self.link().call(0, BEGIN_RUN, &runs, arguments).await;
            number(answer.map_err(|error| words(error.into()))?).ok_or_else(unknown)
        };
        self.run.get_or_try_init(begin).await.copied()
    }

    async fn call(&self, script: &str, keys: &[String], arguments: impl Fn(&mut Cmd)) -> Result<Value, String> {
        self.link().call(0, script, keys, arguments).await.map_err(|error| words(error.into()))
    }
}

#[async_trait]
impl SharedLimits for RedisLimits {
    async fn permits(&self, account: &str, request: PermitRequest) -> Result<PermitGrant, String> {
        let run = self.run().await?;
        let sequence = self.next_number.fetch_add(1, Ordering::Relaxed);
        let is_known = self.known.lock().contains(account);
        let PermitRequest { cap, held, need, idle_timeout, is_leaving } = request;
        let arguments = |command: &mut Cmd| {
            command.arg(self.now()).arg(account).arg(&self.store.instance).arg(run).arg(sequence);
            command.arg(u8::from(is_known)).arg(cap).arg(held).arg(need).arg(micros(idle_timeout));
            command.arg(if is_leaving { "leave" } else { "renew" }).arg(micros(GONE)).arg(micros(TURN));
        };
        let answer = self.call(PERMITS, &keys_of(self.layout(), account), arguments).await?;
        let grant = grant_of(answer).ok_or_else(unknown)?;
        let mut known = self.known.lock();
        if is_leaving {
            known.remove(account)
        } else {
            known.insert(account.to_owned())
        };
        Ok(grant)
    }

    async fn rates(&self, account: &str, request: &RateRequest) -> Result<RateAnswer, String> {
        let run = self.run().await?;
        let sequence = self.next_number.fetch_add(1, Ordering::Relaxed);
        let arguments = |command: &mut Cmd| {
            command.arg(self.now()).arg(&self.store.instance).arg(run).arg(sequence).arg(u8::from(request.takes));
            for rate in &request.rates {
                let limit = rate.limit.and_then(|limit| i64::try_from(limit).ok()).unwrap_or(-1);
                command.arg(micros(rate.period)).arg(limit).arg(u8::from(rate.is_quota));
                command.arg(rate.units).arg(rate.in_flight).arg(rate.returned);
                command.arg(micros(rate.span)).arg(micros(rate.returned_span)).arg(micros(rate.tolerance));
            }
        };
        let answer = self.call(RATES, &[self.layout().rates(account)], arguments).await?;
        rates_of(answer).ok_or_else(unknown)
    }

    async fn breaker(&self, account: &str, upstream: &str, change: &BreakerChange) -> Result<BreakerAnswer, String> {
        let none =
            OpenBreaker { pause: Duration::ZERO, urgent_pause: Duration::ZERO, failures: 0, reason: String::new() };
        let (what, open) = match change {
            BreakerChange::Opened(open) => ("open", open),
            BreakerChange::Closed => ("close", &none),
            BreakerChange::Probe => ("probe", &none),
            BreakerChange::Released => ("release", &none),
            BreakerChange::Cut => ("cut", &none),
        };
        let arguments = |command: &mut Cmd| {
            command.arg(self.now()).arg(&self.store.instance).arg(upstream).arg(what);
            command.arg(micros(open.pause)).arg(micros(open.urgent_pause)).arg(open.failures).arg(&open.reason);
            command.arg(micros(GONE));
        };
        let answer = self.call(BREAKER, &[self.layout().breakers(account)], arguments).await?;
        let mut values = list(answer).into_iter();
        let record = breaker_of(&mut values).ok_or_else(unknown)?;
        let may_probe = values.next().and_then(number::<u8>).ok_or_else(unknown)? == 1;
        Ok(BreakerAnswer { record, may_probe })
    }
}

/// Connections that each instance may have open, by account.
pub(super) async fn permits(store: &RedisStore) -> Result<BTreeMap<String, Vec<AccountPermits>>, QueueError> {
    let mut all = BTreeMap::new();
    for account in accounts(store).await? {
        for (instance, record) in store.fields(0, store.layout.permits(&account)).await? {
            let permits = record.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or_default();
            // What begins with an exclamation mark is the ledger's own.
            if permits > 0 && !instance.starts_with('!') {
                let held: &mut Vec<AccountPermits> = all.entry(instance).or_default();
                held.push(AccountPermits { account: account.clone(), permits });
            }
        }
    }
    Ok(all)
}

/// Frees the permits of an instance that is gone for good; returns how many. If it is not, it counts as new when it asks again.
pub(super) async fn forget(store: &RedisStore, instance: &str) -> Result<u64, QueueError> {
    let held = permits(store).await?.remove(instance).unwrap_or_default();
    for account in accounts(store).await? {
        let arguments = |command: &mut Cmd| {
            command.arg("").arg(&account).arg(instance).arg(0).arg(0).arg(0).arg(0).arg(0).arg(0).arg(0);
            command.arg("forget").arg(micros(GONE)).arg(micros(TURN));
        };
        store.link.call(0, PERMITS, &keys_of(&store.layout, &account), arguments).await?;
    }
    Ok(held.iter().map(|account| account.permits).sum())
}

/// Those of which any instance has permits.
async fn accounts(store: &RedisStore) -> Result<Vec<String>, QueueError> {
    let mut members = cmd("SMEMBERS");
    members.arg(store.layout.limited_accounts());
    let mut accounts = store.link.read(0, vec![members]).await?.pop().map(texts).unwrap_or_default();
    accounts.sort_unstable();
    Ok(accounts)
}

fn keys_of(layout: &Layout, account: &str) -> [String; 4] {
    [layout.permits(account), layout.rates(account), layout.breakers(account), layout.limited_accounts()]
}

fn grant_of(answer: Value) -> Option<PermitGrant> {
    let mut values = list(answer).into_iter();
    let permits = number(values.next()?)?;
    let share = number(values.next()?)?;
    let elsewhere = number(values.next()?)?;
    let is_contended = number::<u8>(values.next()?)? == 1;
    let breaker = |value: Value| {
        let mut values = list(value).into_iter();
        Some((text(values.next()?)?, breaker_of(&mut values)?))
    };
    let mut breakers: Vec<_> = list(values.next()?).into_iter().map(breaker).collect::<Option<_>>()?;
    breakers.sort_by(|one, other| one.0.cmp(&other.0));
    Some(PermitGrant { permits, share, elsewhere, is_contended, breakers })
}

fn breaker_of(values: &mut impl Iterator<Item = Value>) -> Option<BreakerRecord> {
    let generation = number(values.next()?)?;
    let is_open = number::<u8>(values.next()?)? == 1;
    let pause = Duration::from_micros(number(values.next()?)?);
    let urgent_pause = Duration::from_micros(number(values.next()?)?);
    let failures = number(values.next()?)?;
    let reason = text(values.next()?)?;
    let open = is_open.then_some(OpenBreaker { pause, urgent_pause, failures, reason });
    Some(BreakerRecord { generation, open })
}

fn rates_of(answer: Value) -> Option<RateAnswer> {
    let mut values = list(answer).into_iter();
    let verdict = text(values.next()?)?;
    let place = number(values.next()?)?;
    let wait = Duration::from_micros(number(values.next()?)?);
    let pace = Duration::from_micros(number(values.next()?)?);
    let used = list(values.next()?).into_iter().map(number).collect::<Option<_>>()?;
    let verdict = match verdict.as_str() {
        "granted" => RateVerdict::Granted,
        "later" => RateVerdict::Later(wait),
        "flight" => RateVerdict::InFlight,
        "used" => RateVerdict::UsedUp(place, wait),
        _ => return None,
    };
    Some(RateAnswer { verdict, pace, used })
}

fn words(error: QueueError) -> String {
    error.to_string()
}

fn unknown() -> String {
    "Redis gave an answer that this program does not know".to_owned()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX >> 12).min(u64::MAX >> 12)
}

#[cfg(test)]
mod tests;
