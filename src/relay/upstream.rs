//! One upstream: provides ready connections in order of arrival, keeps idle ones, and closes them in time.
//!
//! A permit is held from before the first TCP attempt until after the socket is closed, whatever happens between. Rates
//! and the upstream's health are checked first, so nothing is sent to a provider that is paused.

mod probe;

pub use probe::ProbeReport;

use super::UpstreamOptions;
use super::account::Account;
use super::breaker::Capacity;
use super::connect::{Dialer, Family, WorkingPort};
use super::connection::{PooledConnection, retire};
use super::deadline::{Deadline, Expired};
use super::gate::{RateToken, TokenDenied};
use super::health::{Health, MonitoredAttempt, NotAdmitted, SharedHealth};
use super::ledger::AWAY_RETRY;
use super::obstacle::UpstreamObstacle;
use super::pool::{Claim, PoolGrant, PoolMember, PutBack, Reuse};
use super::smtp::{self, ClientSession, OpeningNotes, Secured};
use super::socket::ConnectionPermit;
use super::surplus::{OpeningConnection, may_be_surplus};
use crate::message::outcome::{Cause, Outcome, Reason, RelayStep, Signal, Unavailable};
use crate::observe::log::Clean;
use crate::rate::{Load, QuotaUsage, Rate};
use crate::text::roughly;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::{debug, error, warn};

/// Between quick retries of a connect.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// When to try again if nothing better is known; the second one is for failing storage.
const SHORT_RETRY: Duration = Duration::from_secs(1);
const STORAGE_RETRY: Duration = Duration::from_secs(10);

/// A caller's request: one connection for one transaction.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionRequest {
    pub deadline: Deadline,
    pub reuse: Reuse,
    /// Number of recipients of the transaction.
    pub recipients: usize,
    /// Another upstream would accept the mail, so no wait here is longer than making a connection may take.
    pub has_alternative: bool,
}

impl ConnectionRequest {
    /// For one recipient, without an alternative upstream.
    pub fn by(deadline: Deadline) -> Self {
        Self { deadline, reuse: Reuse::Allowed, recipients: 1, has_alternative: false }
    }
}

/// A connection for one message, with the attempt and the token under which it goes out.
pub(super) struct CheckedOut {
    pub connection: PooledConnection,
    pub attempt: MonitoredAttempt,
    pub token: RateToken,
    /// How long the server may take for its first reply, if that is less than usual.
    pub first_reply_timeout: Option<Duration>,
}

/// Cheap to clone. When the last clone is gone, idle connections are closed.
#[derive(Debug, Clone)]
pub struct Upstream(Arc<UpstreamInner>);

#[derive(Debug)]
struct UpstreamInner {
    options: Arc<UpstreamOptions>,
    account: Account,
    member: Arc<PoolMember>,
    health: Arc<Health>,
    /// Set if they need not be looked up.
    addresses: Option<Vec<SocketAddr>>,
    family: Family,
    port: WorkingPort,
    /// As last logged.
    is_used_up: AtomicBool,
}

impl Upstream {
    pub fn new(options: UpstreamOptions, account: Account) -> Self {
        Self::build(options, account, None)
    }

    /// For a host whose addresses are known: nothing is looked up, and the ports are those given here.
    pub fn with_addresses(options: UpstreamOptions, account: Account, addresses: Vec<SocketAddr>) -> Self {
        Self::build(options, account, Some(addresses))
    }

    fn build(options: UpstreamOptions, account: Account, addresses: Option<Vec<SocketAddr>>) -> Self {
        let name = || options.ledger_name().into();
        let shared = account.ledger.clone().map(|ledger| SharedHealth { ledger, name: name() });
        let health = Health::new(options.name.clone(), account.pool.cap(), shared);
        let options = Arc::new(options);
        let member = PoolMember::new();
        let family = Family::default();
        let port = WorkingPort::default();
        let is_used_up = AtomicBool::new(false);
        Self(Arc::new(UpstreamInner { options, account, member, health, addresses, family, port, is_used_up }))
    }

    pub fn name(&self) -> &str {
        &self.0.options.name
    }

    /// Whether both are clones of one.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub fn belongs_to(&self, account: &Account) -> bool {
        self.0.account.is(account)
    }

    /// Its account may have another number of connections now.
    pub fn follow_account(&self) {
        self.0.health.set_cap(self.0.account.pool.cap());
    }

    pub fn options(&self) -> &UpstreamOptions {
        &self.0.options
    }

    /// Connections that exist for this upstream: being made, in use, idle, or being closed.
    pub fn connections_open(&self) -> usize {
        self.0.member.open()
    }

    /// How many messages could be under way now, or until when the upstream is paused.
    pub fn capacity(&self) -> Capacity {
        if self.ledger_trouble().is_some() {
            return Capacity::After(Instant::now() + AWAY_RETRY);
        }
        match self.quota_used_up() {
            Some((_, until)) => Capacity::After(until),
            None => match self.0.health.capacity() {
                Capacity::Slots(slots) => Capacity::Slots(slots.min(self.0.account.most_connections())),
                after @ Capacity::After(_) => after,
            },
        }
    }

    /// Why nothing may be begun; `None`: something may.
    pub fn pause(&self) -> Option<UpstreamObstacle> {
        if let Some(trouble) = self.ledger_trouble() {
            return Some(UpstreamObstacle::Ledger { trouble });
        }
        if let Some((rate, until)) = self.quota_used_up() {
            return Some(UpstreamObstacle::Quota { rate, until });
        }
        let (reason, until) = self.0.health.pause()?;
        Some(UpstreamObstacle::Breaker { reason, until })
    }

    /// Why no more messages are under way than there are, while something may be begun.
    pub fn bottleneck(&self) -> UpstreamObstacle {
        let allowed = self.0.account.connections.allowed();
        match self.0.health.capacity() {
            _ if self.0.account.gate.has_waiting() => UpstreamObstacle::Rate,
            Capacity::Slots(slots) if slots < allowed => UpstreamObstacle::Recovery,
            _ => match self.0.account.ledger.as_ref().map_or(0, |ledger| ledger.elsewhere()) {
                0 => UpstreamObstacle::Connections(allowed),
                elsewhere => UpstreamObstacle::OtherGateways { allowed, elsewhere },
            },
        }
    }

    /// Connections that are allowed now.
    pub fn connections_allowed(&self) -> usize {
        self.0.account.connections.allowed()
    }

    /// After a failure, it gets fewer messages at once than its connections could carry.
    pub fn is_recovering(&self) -> bool {
        matches!(self.0.health.capacity(), Capacity::Slots(slots) if slots < self.0.account.pool.cap())
    }

    /// How much of each of the account's quotas is used.
    pub fn quota_usage(&self) -> Vec<QuotaUsage> {
        self.0.account.gate.quota_usage()
    }

    /// Why the limits that the gateways share cannot be checked.
    fn ledger_trouble(&self) -> Option<String> {
        self.0.account.ledger.as_ref()?.trouble()
    }

    /// For how long it has been unavailable; zero if it is available.
    pub fn unavailable_for(&self) -> Duration {
        self.0.health.unavailable_for()
    }

    /// The most recipients that one transaction may have by the rates; `None` if they do not count recipients.
    pub fn most_recipients(&self) -> Option<usize> {
        let most = self.0.account.gate.most_recipients()?;
        Some(usize::try_from(most).unwrap_or(usize::MAX))
    }

    /// Ends the pause, because the operator knows more than the last failure says: one message is tried at once.
    pub fn cut_pause(&self) {
        self.0.health.cut_pause();
    }

    /// The parts of what [`Upstream::ready`] returns.
    pub(super) async fn check_out(&self, wanted: ConnectionRequest) -> Result<CheckedOut, Reason> {
        if let Some(trouble) = self.ledger_trouble() {
            return Err(self.unshared(&trouble));
        }
        if let Some((rate, until)) = self.quota_used_up() {
            return Err(self.used_up(rate, until));
        }
        let refused = |refused| match refused {
            NotAdmitted::Unavailable { why, wait } => self.unavailable(why, wait),
            NotAdmitted::Full => self.unavailable("it is recovering; other messages go first".to_owned(), SHORT_RETRY),
        };
        let mut attempt = self.0.health.admit(wanted.deadline, wanted.has_alternative).await.map_err(refused)?;
        if self.0.account.ledger.is_some() {
            self.0.health.may_probe(&attempt).await.map_err(refused)?;
        }
        let opened = tokio::select! {
            biased;
            (why, wait) = attempt.overtaken() => Err(self.unavailable(why, wait)),
            opened = self.open_for(&wanted, &attempt) => opened,
        };
        match opened {
            Ok((connection, token)) => {
                let first_reply_timeout = self.first_reply_timeout(&wanted);
                Ok(CheckedOut { connection, attempt, token, first_reply_timeout })
            }
            Err(reason) => {
                // An attempt of a caller that had no time left says nothing about the server.
                let hurried = wanted.deadline.has_passed() && attempt.elapsed() < self.0.options.limits.connect_timeout;
                if !hurried {
                    self.failed(&mut attempt, &reason);
                }
                Err(reason)
            }
        }
    }

    /// Opens no new connections, closes idle ones with QUIT, and records quota usage. Returns when no connection is
    /// left, or at the deadline.
    pub async fn close(&self, deadline: Deadline) {
        for connection in self.0.account.pool.close(&self.0.member) {
            retire(connection);
        }
        let mut open = self.0.member.watch();
        let _all_closed_or_late = deadline.limit(open.wait_for(|&open| open == 0)).await.map(drop);
        if let Ok(Err(error)) = deadline.limit(self.0.account.close()).await {
            error!(upstream = self.name(), "recorded quota usage is slightly too high: {error}");
        }
    }

    /// The rate token comes before the permit, so no connection is held while waiting for it.
    async fn open_for(
        &self,
        wanted: &ConnectionRequest,
        attempt: &MonitoredAttempt,
    ) -> Result<(PooledConnection, RateToken), Reason> {
        smtp::check_credentials(&self.0.options)?;
        let token = self.token(wanted).await?;
        loop {
            let grant = match self.claim(wanted).await {
                Err(reason) if wanted.has_alternative && !attempt.upstream_succeeded() => {
                    return Err(reason.upstream_wide());
                }
                other => other?,
            };
            let (permit, opening) = match grant {
                PoolGrant::Permit(permit) => (permit, self.0.account.connections.opening()),
                PoolGrant::Connection(mut connection) => {
                    if connection.session.is_quiet() {
                        return Ok((connection, token));
                    }
                    debug!(upstream = %self.name(), "the server closed an idle connection; reconnecting");
                    drop(connection.working);
                    let opening = self.0.account.connections.opening();
                    (Box::pin(connection.session.into_permit()).await, opening)
                }
            };
            // Boxed, because most messages find an open connection.
            if let Some(connection) = Box::pin(self.open_or_learn(permit, opening, wanted)).await? {
                return Ok((connection, token));
            }
        }
    }

    /// `None`: the provider refused the connection because it serves others of the account; the caller waits for those.
    async fn open_or_learn(
        &self,
        permit: ConnectionPermit,
        opening: OpeningConnection,
        wanted: &ConnectionRequest,
    ) -> Result<Option<PooledConnection>, Reason> {
        // Held until the meaning of the refusal is known, so that no other caller runs into it meanwhile.
        let held = permit.clone();
        let reason = match self.open(permit, self.patience(wanted)).await {
            Ok(session) => return Ok(Some(PooledConnection { session, messages: 0, working: opening.works() })),
            Err(reason) => reason,
        };
        let patience = self.patience(wanted).capped(self.0.options.limits.connect_timeout);
        if !may_be_surplus(&reason) || !opening.refused(patience).await {
            return Err(reason);
        }
        debug!(upstream = %self.name(), reason = %Clean(&reason), "one connection too many; waiting for another one");
        self.0.account.limit_connections().into_iter().for_each(retire);
        self.announce_limit();
        drop(held);
        Ok(None)
    }

    fn announce_limit(&self) {
        if let Some(allowed) = self.0.account.connections.to_announce() {
            let upstream = self.name();
            let max_connections = self.0.account.pool.cap();
            warn!(
                upstream,
                max_connections,
                allowed,
                "the provider refuses more connections than it allows: set `max_connections` to {allowed}; \
                 until then mail waits for the connections that work"
            );
        }
    }

    async fn token(&self, wanted: &ConnectionRequest) -> Result<RateToken, Reason> {
        let load = Load::of_one(wanted.recipients);
        self.0.account.gate.token(load, wanted.deadline).await.map_err(|late| match late {
            TokenDenied::UsedUp { rate, until } => self.used_up(rate, until),
            TokenDenied::NotInTime(wait) => {
                let long = wait.map_or_else(String::new, |wait| format!(" for {}", roughly(wait)));
                let text = format!("`rate` would delay it{long}, which is longer than the client can wait");
                self.unavailable(text, wait.unwrap_or(SHORT_RETRY))
            }
            TokenDenied::Unshared(error) => self.unshared(&error),
            TokenDenied::Unwritten(error) => {
                self.unavailable(format!("its quota usage cannot be recorded: {error}"), STORAGE_RETRY)
            }
        })
    }

    async fn claim(&self, wanted: &ConnectionRequest) -> Result<PoolGrant<PooledConnection>, Reason> {
        let closed = || {
            let enhanced = crate::smtp::EnhancedCode::new(4, 3, 2);
            self.reason(RelayStep::Permit, Cause::Local { enhanced, text: "this upstream is being closed".to_owned() })
        };
        self.0.account.limit_connections().into_iter().for_each(retire);
        let mut ticket = match self.0.account.pool.claim(&self.0.member, wanted.reuse) {
            Claim::Granted(grant) => return Ok(grant),
            Claim::Closed => return Err(closed()),
            Claim::Wait(ticket, evicted) => {
                if let Some(connection) = evicted {
                    retire(connection);
                }
                self.0.account.notify_need();
                ticket
            }
        };
        match self.patience(wanted).limit(ticket.granted()).await {
            Ok(granted) => granted.ok_or_else(closed),
            Err(Expired) => Err(self.busy()),
        }
    }

    fn patience(&self, wanted: &ConnectionRequest) -> Deadline {
        match self.first_reply_timeout(wanted) {
            Some(patience) => wanted.deadline.capped(patience),
            None => wanted.deadline,
        }
    }

    /// How long the server may stay silent, if there is an alternative upstream.
    fn first_reply_timeout(&self, wanted: &ConnectionRequest) -> Option<Duration> {
        wanted.has_alternative.then_some(self.0.options.limits.connect_timeout)
    }

    fn busy(&self) -> Reason {
        let text = match self.0.account.pool.cap() {
            1 => format!("the one connection of upstream \"{}\" is in use (`max_connections`)", self.name()),
            cap => format!("all {cap} connections of upstream \"{}\" are in use (`max_connections`)", self.name()),
        };
        let enhanced = crate::smtp::EnhancedCode::new(4, 3, 2);
        self.reason(RelayStep::Permit, Cause::Local { enhanced, text })
    }

    /// Logged once when it begins: nothing else reports it while mail waits.
    fn quota_used_up(&self) -> Option<(Rate, Instant)> {
        let used_up = self.0.account.gate.exhausted_quota();
        let was_said = self.0.is_used_up.swap(used_up.is_some(), Ordering::Relaxed);
        if let (Some((rate, until)), false) = (used_up, was_said) {
            let wait = roughly(until.saturating_duration_since(Instant::now()));
            warn!(upstream = self.name(), %rate, "the quota is reached; next slot in {wait}");
        }
        used_up
    }

    fn used_up(&self, rate: Rate, until: Instant) -> Reason {
        let wait = until.saturating_duration_since(Instant::now());
        self.unavailable(format!("its quota of {rate} is reached; next slot in {}", roughly(wait)), wait)
    }

    fn unshared(&self, trouble: &str) -> Reason {
        self.unavailable(format!("the limits that the gateways share cannot be checked: {trouble}"), SHORT_RETRY)
    }

    fn unavailable(&self, text: String, wait: Duration) -> Reason {
        self.reason(
            RelayStep::Permit,
            Cause::Unavailable(Box::new(Unavailable { text, wait, lasting: self.unavailable_for() })),
        )
    }

    /// All quick retries together take no longer than one connect may.
    async fn open(&self, mut permit: ConnectionPermit, deadline: Deadline) -> Result<ClientSession<Secured>, Reason> {
        let UpstreamInner { options, account, member, addresses, family, port, .. } = &*self.0;
        let dialer = Dialer { options, pool: &account.pool, member, addresses: addresses.as_deref(), family, port };
        let connected = deadline.capped(options.limits.connect_timeout);
        let mut retries = options.limits.connect_retries;
        let (socket, port) = loop {
            match dialer.dial(permit, connected).await {
                Ok(connected) => break connected,
                Err((reason, back)) => {
                    let late = connected.remaining().is_some_and(|remaining| remaining <= RETRY_PAUSE);
                    if retries == 0 || late {
                        return Err(reason);
                    }
                    retries -= 1;
                    permit = back;
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        };
        smtp::open(socket, port.tls, options, deadline, &mut OpeningNotes::default()).await
    }

    fn failed(&self, attempt: &mut MonitoredAttempt, reason: &Reason) {
        let signal = attempt.failed(reason, self.0.options.slow_down);
        self.adapt(attempt, signal);
    }

    /// After a transaction.
    pub(super) fn finished(&self, attempt: &mut MonitoredAttempt, outcomes: &[Outcome]) {
        let signal = attempt.finished(outcomes, self.0.options.slow_down);
        self.announce_limit();
        self.adapt(attempt, signal);
    }

    /// Refusals that a login or a client certificate would have spared. `advice`: what to set, if the server has a way to
    /// learn who the gateway is and no login is configured.
    pub(super) fn without_login(&self, outcomes: Vec<Outcome>, advice: Option<String>) -> Vec<Outcome> {
        let Some(advice) = advice else { return outcomes };
        let was_served =
            self.0.health.has_delivered() || outcomes.iter().any(|outcome| matches!(outcome, Outcome::Delivered(_)));
        outcomes.into_iter().map(|outcome| outcome.deferred_without_login(was_served, &advice)).collect()
    }

    /// Results of attempts that began before the last failure are stale.
    fn adapt(&self, attempt: &MonitoredAttempt, signal: Signal) {
        if attempt.is_current() {
            self.0.account.adapt(signal).into_iter().for_each(retire);
        }
    }

    /// After use. An unsound connection is closed at once; one that has carried its maximum of messages is closed with
    /// QUIT.
    pub(super) fn put_back(&self, connection: PooledConnection) {
        let UpstreamInner { options, account, .. } = &*self.0;
        if !connection.session.is_sound() {
            return drop(connection);
        }
        account.connections.served();
        if connection.messages >= options.limits.max_messages_per_connection.max(1) {
            return retire(connection);
        }
        let until = Instant::now() + options.limits.idle_timeout;
        match account.pool.put_back(connection, until) {
            PutBack::HandedOn | PutBack::Idle { needs_reaper: false } => {}
            PutBack::Idle { needs_reaper: true } => {
                if let Ok(runtime) = Handle::try_current() {
                    runtime.spawn(reap(Arc::downgrade(&self.0)));
                }
            }
            PutBack::Surplus(connection) => retire(connection),
        }
    }

    fn reason(&self, step: RelayStep, cause: Cause) -> Reason {
        Reason::new(Some(self.name()), step, cause)
    }
}

impl Drop for UpstreamInner {
    fn drop(&mut self) {
        for connection in self.account.pool.close(&self.member) {
            retire(connection);
        }
    }
}

/// Closes connections that were idle for too long; ends when none is idle.
async fn reap(upstream: Weak<UpstreamInner>) {
    loop {
        let next = {
            let Some(inner) = upstream.upgrade() else { return };
            let (expired, next) = inner.account.pool.take_expired(&inner.member, Instant::now());
            expired.into_iter().for_each(retire);
            next
        };
        match next {
            Some(at) => tokio::time::sleep_until(at).await,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests;
