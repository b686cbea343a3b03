//! One upstream: hands out ready connections in order of arrival, keeps idle ones, closes them in time.
//!
//! A permit is held from before the first TCP attempt until after the socket is closed, whatever happens between. What the
//! account's rates allow and the upstream's health come first: nothing is asked of a provider that is to be left alone.

use super::Options;
use super::account::Account;
use super::breaker::{Room, Sign};
use super::connect::{Dialer, Family, KnownPort};
use super::deadline::{Deadline, Expired};
use super::health::{Attempt, Health, Refused};
use super::limits::{Denied, Load, Rate, Token};
use super::pool::{Claim, Grant, Kept, Member, Pooled, Reuse};
use super::ready::Ready;
use super::smtp::{self, Secured, Session};
use super::socket::Permit;
use crate::message::outcome::{Away, Cause, Outcome, Reason, Step};
use crate::observe::roughly;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::{debug, error, warn};

/// Between quick retries of a connect.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// After which to ask again where nothing better is known; the second where storage fails.
const SOON: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(10);

/// What a caller wants of an upstream: one connection for one transaction.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub deadline: Deadline,
    pub reuse: Reuse,
    /// Of the transaction.
    pub recipients: usize,
    /// Another upstream would take the mail: here nothing is waited for longer than a connection may take to be made.
    pub has_alternative: bool,
}

impl Wanted {
    /// For one recipient, and nobody else to go to.
    pub fn by(deadline: Deadline) -> Self {
        Self { deadline, reuse: Reuse::Allowed, recipients: 1, has_alternative: false }
    }
}

/// Cheap to clone. When the last clone is gone, idle connections are closed.
#[derive(Debug, Clone)]
pub struct Upstream(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: Arc<Options>,
    account: Account,
    member: Arc<Member>,
    health: Arc<Health>,
    /// If they need not be looked up.
    addresses: Option<Vec<SocketAddr>>,
    family: Family,
    port: KnownPort,
    /// As it was said last.
    is_used_up: AtomicBool,
}

/// A session and how many messages it was used for.
#[derive(Debug)]
pub(super) struct Connection {
    pub session: Session<Secured>,
    pub messages: usize,
}

impl Pooled for Connection {
    fn permit(&self) -> &Permit {
        self.session.permit()
    }
}

impl Upstream {
    pub fn new(options: Options, account: Account) -> Self {
        Self::build(options, account, None)
    }

    /// For a host whose addresses are known: nothing is looked up, and the ports are those given here.
    pub fn with_addresses(options: Options, account: Account, addresses: Vec<SocketAddr>) -> Self {
        Self::build(options, account, Some(addresses))
    }

    fn build(options: Options, account: Account, addresses: Option<Vec<SocketAddr>>) -> Self {
        let health = Health::new(options.name.clone(), account.pool.cap());
        let (options, member) = (Arc::new(options), Member::new());
        let (family, port) = (Family::default(), KnownPort::default());
        let is_used_up = AtomicBool::new(false);
        Self(Arc::new(Inner { options, account, member, health, addresses, family, port, is_used_up }))
    }

    pub fn name(&self) -> &str {
        &self.0.options.name
    }

    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// Connections that exist for this upstream: being made, in use, idle, or being closed.
    pub fn connections_open(&self) -> usize {
        self.0.member.open()
    }

    /// How many messages could be under way now, or until when it is left alone.
    pub fn room(&self) -> Room {
        match self.quota_used_up() {
            Some((_, until)) => Room::After(until),
            None => self.0.health.room(),
        }
    }

    /// For how long it has taken nothing, because it is away; zero if it is not.
    pub fn away_for(&self) -> Duration {
        self.0.health.away_for()
    }

    /// The most recipients that one transaction may have by the rates; `None` if they do not count recipients.
    pub fn most_recipients(&self) -> Option<usize> {
        let most = self.0.account.gate.most_recipients()?;
        Some(usize::try_from(most).unwrap_or(usize::MAX))
    }

    /// Somebody knows more than the last failure tells: what is left alone is tried again at once, by one message.
    pub fn cut_pause(&self) {
        self.0.health.cut_pause();
    }

    /// A connection that is encrypted, verified, greeted and logged in. Callers are served in order of arrival. Whoever waits
    /// when the upstream turns out away waits no longer.
    pub async fn ready(&self, wanted: Wanted) -> Result<Ready, Reason> {
        if let Some((rate, until)) = self.quota_used_up() {
            return Err(self.used_up(rate, until));
        }
        let admitted = self.0.health.admit(wanted.deadline, wanted.has_alternative).await;
        let mut attempt = admitted.map_err(|refused| match refused {
            Refused::Away { why, wait } => self.away(why, wait),
            Refused::Full => self.away("it is on its way back, and other messages go first".to_owned(), SOON),
        })?;
        let opened = tokio::select! {
            biased;
            (why, wait) = attempt.overtaken() => Err(self.away(why, wait)),
            opened = self.open_for(&wanted, &attempt) => opened,
        };
        match opened {
            Ok((connection, token)) => {
                Ok(Ready::new(self.clone(), connection, attempt, token, self.first_word(&wanted)))
            }
            Err(reason) => {
                // A caller that had no time left says nothing about the server.
                let hurried = wanted.deadline.has_passed() && attempt.lasted() < self.0.options.connect_timeout;
                if !hurried {
                    self.failed(&mut attempt, &reason);
                }
                Err(reason)
            }
        }
    }

    /// No new connections; idle ones are closed with QUIT, and what was used of quotas is written down. Returns when none is
    /// left, or at the deadline.
    pub async fn close(&self, deadline: Deadline) {
        for connection in self.0.account.pool.close(&self.0.member) {
            retire(connection);
        }
        let mut open = self.0.member.watch();
        let _all_closed_or_late = deadline.limit(open.wait_for(|&open| open == 0)).await.map(drop);
        if let Ok(Err(error)) = deadline.limit(self.0.account.close()).await {
            error!(upstream = self.name(), "quotas are remembered a little too high: {error}");
        }
    }

    /// What the account's rates allow comes before the permit: nobody holds a connection while waiting.
    async fn open_for(&self, wanted: &Wanted, attempt: &Attempt) -> Result<(Connection, Token), Reason> {
        smtp::check_credentials(&self.0.options)?;
        let token = self.token(wanted).await?;
        let grant = match self.claim(wanted).await {
            Err(reason) if wanted.has_alternative && !attempt.saw_success() => return Err(reason.upstream_wide()),
            other => other?,
        };
        let permit = match grant {
            Grant::Permit(permit) => permit,
            Grant::Connection(mut connection) => {
                if connection.session.is_quiet() {
                    return Ok((connection, token));
                }
                debug!(upstream = %self.name(), "an idle connection was closed by the server; connecting anew");
                connection.session.into_permit().await
            }
        };
        let session = self.open(permit, self.patience(wanted)).await?;
        Ok((Connection { session, messages: 0 }, token))
    }

    async fn token(&self, wanted: &Wanted) -> Result<Token, Reason> {
        let load = Load::of_one(wanted.recipients);
        self.0.account.gate.token(load, wanted.deadline).await.map_err(|late| match late {
            Denied::UsedUp { rate, until } => self.used_up(rate, until),
            Denied::NotInTime(wait) => {
                let long = wait.map_or_else(String::new, |wait| format!(" for {}", roughly(wait)));
                let text = format!("by `rate` it would have to wait{long}, which is too long for whoever waits");
                self.away(text, wait.unwrap_or(SOON))
            }
            Denied::Unwritten(error) => {
                self.away(format!("what was used of its quota cannot be written down: {error}"), LATER)
            }
        })
    }

    async fn claim(&self, wanted: &Wanted) -> Result<Grant<Connection>, Reason> {
        let closed = || {
            let enhanced = crate::smtp::EnhancedCode::new(4, 3, 2);
            self.reason(Step::Permit, Cause::Local { enhanced, text: "this upstream is being closed".to_owned() })
        };
        let mut ticket = match self.0.account.pool.claim(&self.0.member, wanted.reuse) {
            Claim::Granted(grant) => return Ok(grant),
            Claim::Closed => return Err(closed()),
            Claim::Wait(ticket, evicted) => {
                if let Some(connection) = evicted {
                    retire(connection);
                }
                ticket
            }
        };
        match self.patience(wanted).limit(ticket.granted()).await {
            Ok(granted) => granted.ok_or_else(closed),
            Err(Expired) => Err(self.busy()),
        }
    }

    fn patience(&self, wanted: &Wanted) -> Deadline {
        match self.first_word(wanted) {
            Some(patience) => wanted.deadline.capped(patience),
            None => wanted.deadline,
        }
    }

    /// How long the server may keep silent, if there is somebody else to go to.
    fn first_word(&self, wanted: &Wanted) -> Option<Duration> {
        wanted.has_alternative.then_some(self.0.options.connect_timeout)
    }

    fn busy(&self) -> Reason {
        let text = match self.0.account.pool.cap() {
            1 => format!("the one connection of upstream \"{}\" is in use (`max_connections`)", self.name()),
            cap => format!("all {cap} connections of upstream \"{}\" are in use (`max_connections`)", self.name()),
        };
        let enhanced = crate::smtp::EnhancedCode::new(4, 3, 2);
        self.reason(Step::Permit, Cause::Local { enhanced, text })
    }

    /// Said in the log when it begins: nothing else tells of it while mail waits.
    fn quota_used_up(&self) -> Option<(Rate, Instant)> {
        let used_up = self.0.account.gate.used_up();
        let was_said = self.0.is_used_up.swap(used_up.is_some(), Ordering::Relaxed);
        if let (Some((rate, until)), false) = (used_up, was_said) {
            let wait = roughly(until.saturating_duration_since(Instant::now()));
            warn!(upstream = self.name(), %rate, "the quota is used up; there is room again in {wait}");
        }
        used_up
    }

    fn used_up(&self, rate: Rate, until: Instant) -> Reason {
        let wait = until.saturating_duration_since(Instant::now());
        self.away(format!("its quota of {rate} is used up; there is room again in {}", roughly(wait)), wait)
    }

    fn away(&self, text: String, wait: Duration) -> Reason {
        self.reason(Step::Permit, Cause::Away(Box::new(Away { text, wait, lasting: self.away_for() })))
    }

    /// Quick retries are quick: all of them together take no longer than one connect may.
    async fn open(&self, mut permit: Permit, deadline: Deadline) -> Result<Session<Secured>, Reason> {
        let Inner { options, account, member, addresses, family, port, .. } = &*self.0;
        let dialer = Dialer { options, pool: &account.pool, member, addresses: addresses.as_deref(), family, port };
        let connected = deadline.capped(options.connect_timeout);
        let mut retries = options.connect_retries;
        let (socket, port) = loop {
            match dialer.dial(permit, connected).await {
                Ok(connected) => break connected,
                Err((reason, back)) => {
                    let late = connected.remaining().is_some_and(|remaining| remaining <= RETRY_PAUSE);
                    if retries == 0 || late {
                        return Err(reason);
                    }
                    (retries, permit) = (retries - 1, back);
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        };
        smtp::open(socket, port.tls, options, deadline).await
    }

    fn failed(&self, attempt: &mut Attempt, reason: &Reason) {
        let sign = attempt.failed(reason, self.0.options.slow_down);
        self.adapt(attempt, sign);
    }

    /// After a transaction.
    pub(super) fn told(&self, attempt: &mut Attempt, outcomes: &[Outcome]) {
        let sign = attempt.told(outcomes, self.0.options.slow_down);
        self.adapt(attempt, sign);
    }

    /// What was begun before the last failure is old news.
    fn adapt(&self, attempt: &Attempt, sign: Sign) {
        if attempt.is_current() {
            self.0.account.adapt(sign).into_iter().for_each(retire);
        }
    }

    /// After use. An unsound connection is closed at once, a worn one with QUIT.
    pub(super) fn put_back(&self, connection: Connection) {
        let Inner { options, account, .. } = &*self.0;
        if !connection.session.is_sound() {
            return drop(connection);
        }
        if connection.messages >= options.max_messages_per_connection.max(1) {
            return retire(connection);
        }
        let until = Instant::now() + options.idle_timeout;
        match account.pool.put_back(connection, until) {
            Kept::HandedOn | Kept::Idle { needs_reaper: false } => {}
            Kept::Idle { needs_reaper: true } => {
                if let Ok(runtime) = Handle::try_current() {
                    runtime.spawn(reap(Arc::downgrade(&self.0)));
                }
            }
            Kept::Surplus(connection) => retire(connection),
        }
    }

    fn reason(&self, step: Step, cause: Cause) -> Reason {
        Reason::new(Some(self.name()), step, cause)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for connection in self.account.pool.close(&self.member) {
            retire(connection);
        }
    }
}

/// Says QUIT in the background; the permit is held until the connection is closed.
fn retire(connection: Connection) {
    connection.permit().leave();
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(connection.session.quit());
    }
}

/// Closes connections that were idle for too long; ends when none is idle.
async fn reap(upstream: Weak<Inner>) {
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
