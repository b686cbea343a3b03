//! One upstream: hands out ready connections in order of arrival, keeps idle ones, closes them in time.
//!
//! A permit is held from before the first TCP attempt until after the socket is closed, whatever happens between.

use super::connect::{Dialer, Family};
use super::deadline::{Deadline, Expired};
use super::pool::{Claim, Grant, Kept, Member, Pool, Pooled, Reuse};
use super::ready::Ready;
use super::smtp::{self, Secured, Session};
use super::socket::Permit;
use super::{Options, Port};
use crate::message::outcome::{Cause, Reason, Step};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::debug;

/// Between quick retries of a connect.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// So many connections at once, no more; to be given to each upstream that shares the limit. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Permits(Arc<Pool<Connection>>);

impl Permits {
    /// 0 counts as 1.
    pub fn new(connections: usize) -> Self {
        Self(Pool::new(connections))
    }
}

/// Cheap to clone. When the last clone is gone, idle connections are closed.
#[derive(Debug, Clone)]
pub struct Upstream(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: Arc<Options>,
    pool: Arc<Pool<Connection>>,
    member: Arc<Member>,
    /// If they need not be looked up.
    addresses: Option<Vec<SocketAddr>>,
    family: Family,
    /// The port that worked, once one has.
    port: OnceLock<Port>,
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
    pub fn new(options: Options, permits: Permits) -> Self {
        Self::build(options, permits, None)
    }

    /// For a host whose addresses are known: nothing is looked up, and the ports are those given here.
    pub fn with_addresses(options: Options, permits: Permits, addresses: Vec<SocketAddr>) -> Self {
        Self::build(options, permits, Some(addresses))
    }

    fn build(options: Options, permits: Permits, addresses: Option<Vec<SocketAddr>>) -> Self {
        let (options, member) = (Arc::new(options), Member::new());
        let (family, port) = (Family::default(), OnceLock::new());
        Self(Arc::new(Inner { options, pool: permits.0, member, addresses, family, port }))
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

    /// A connection that is encrypted, verified, greeted and logged in. Callers are served in order of arrival.
    pub async fn ready(&self, deadline: Deadline, reuse: Reuse) -> Result<Ready, Reason> {
        smtp::check_credentials(&self.0.options)?;
        let permit = match self.claim(deadline, reuse).await? {
            Grant::Permit(permit) => permit,
            Grant::Connection(mut connection) => {
                if connection.session.is_quiet() {
                    return Ok(Ready::new(self.clone(), connection));
                }
                debug!(upstream = %self.name(), "an idle connection was closed by the server; connecting anew");
                connection.session.into_permit().await
            }
        };
        let session = self.open(permit, deadline).await?;
        Ok(Ready::new(self.clone(), Connection { session, messages: 0 }))
    }

    /// No new connections; idle ones are closed with QUIT. Returns when none is left, or at the deadline.
    pub async fn close(&self, deadline: Deadline) {
        for connection in self.0.pool.close(&self.0.member) {
            retire(connection);
        }
        let mut open = self.0.member.watch();
        let _all_closed_or_late = deadline.limit(open.wait_for(|&open| open == 0)).await;
    }

    async fn claim(&self, deadline: Deadline, reuse: Reuse) -> Result<Grant<Connection>, Reason> {
        let closed = || {
            let enhanced = crate::smtp::EnhancedCode::new(4, 3, 2);
            self.reason(Step::Permit, Cause::Local { enhanced, text: "this upstream is being closed".to_owned() })
        };
        let mut ticket = match self.0.pool.claim(&self.0.member, reuse) {
            Claim::Granted(grant) => return Ok(grant),
            Claim::Closed => return Err(closed()),
            Claim::Wait(ticket, evicted) => {
                if let Some(connection) = evicted {
                    retire(connection);
                }
                ticket
            }
        };
        match deadline.limit(ticket.granted()).await {
            Ok(granted) => granted.ok_or_else(closed),
            Err(Expired) => Err(self.busy()),
        }
    }

    fn busy(&self) -> Reason {
        let text = match self.0.pool.cap() {
            1 => format!("the one connection of upstream \"{}\" is in use (`max_connections`)", self.name()),
            cap => format!("all {cap} connections of upstream \"{}\" are in use (`max_connections`)", self.name()),
        };
        let enhanced = crate::smtp::EnhancedCode::new(4, 3, 2);
        self.reason(Step::Permit, Cause::Local { enhanced, text })
    }

    async fn open(&self, mut permit: Permit, deadline: Deadline) -> Result<Session<Secured>, Reason> {
        let Inner { options, pool, member, addresses, family, port } = &*self.0;
        let dialer = Dialer { options, pool, member, addresses: addresses.as_deref(), family, port };
        let mut retries = options.connect_retries;
        let (socket, port) = loop {
            match dialer.dial(permit, deadline).await {
                Ok(connected) => break connected,
                Err((reason, back)) => {
                    let late = deadline.remaining().is_some_and(|remaining| remaining <= RETRY_PAUSE);
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

    /// After use. An unsound connection is closed at once, a worn one with QUIT.
    pub(super) fn put_back(&self, connection: Connection) {
        let Inner { options, pool, .. } = &*self.0;
        if !connection.session.is_sound() {
            return drop(connection);
        }
        if connection.messages >= options.max_messages_per_connection.max(1) {
            return retire(connection);
        }
        let until = Instant::now() + options.idle_timeout;
        match pool.put_back(connection, until) {
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
        for connection in self.pool.close(&self.member) {
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
            let (expired, next) = inner.pool.take_expired(&inner.member, Instant::now());
            expired.into_iter().for_each(retire);
            next
        };
        match next {
            Some(at) => tokio::time::sleep_until(at).await,
            None => return,
        }
    }
}
