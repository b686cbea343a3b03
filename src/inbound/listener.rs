//! The listening socket: binds, accepts, counts, and ends once all its connections have ended.
//!
//! Keeps serving: if accept() fails (for example because no file descriptors are left), it waits and tries again.

use super::connection::{self, ListenerService};
use super::limits::{ConnectionCounter, ConnectionRefusal, ConnectionSlot};
use super::load_balancer::{self, NoClient};
use super::log_limit::{LogAbout, LogLimiter, LogPeer};
use super::sockets::{self, BindError, Ipv4Clients};
use super::users::Users;
use super::{AuthMode, CurrentRole, Intake, ListenerOptions, ListenerRole, Tls};
use crate::message::MemoryBudget;
use crate::observe::fault::Fault;
use crate::smtp::Reply;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

/// One connection in this many is reserved for clients that need no login, so that unauthenticated clients cannot lock
/// them out.
const RESERVED_SHARE: usize = 4;
/// Pause after accept() failed.
const PAUSE: Duration = Duration::from_millis(200);
const MINUTE: Duration = Duration::from_secs(60);

/// One bound listener. Clients queue up in the kernel until [`Listener::serve`] runs.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    local_address: SocketAddr,
    options: Arc<ListenerOptions>,
    users: Users,
    budget: MemoryBudget,
}

impl Listener {
    /// Binds a new socket. Needs a tokio runtime.
    pub fn bind(options: ListenerOptions, users: Users, budget: MemoryBudget) -> Result<Self, BindError> {
        let socket = sockets::open(options.address, Ipv4Clients::LeftToOthers)?;
        Self::on(socket, options, users, budget)
    }

    /// Uses a socket that is already listening. Needs a tokio runtime.
    pub fn on(
        socket: std::net::TcpListener,
        options: ListenerOptions,
        users: Users,
        budget: MemoryBudget,
    ) -> Result<Self, BindError> {
        let ready = socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket));
        let bound = ready.and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (local_address, socket) = bound.map_err(|error| BindError::new(options.address, error))?;
        Ok(Self { socket, local_address, options: Arc::new(options), users, budget })
    }

    /// The actual address: includes the real port if port 0 was requested.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// The role that its options and users give it.
    pub fn role<I>(&self, intake: Arc<I>) -> ListenerRole<I> {
        ListenerRole { options: self.options.clone(), users: self.users.clone(), intake }
    }

    /// As `serve_as`, in one role.
    pub async fn serve<I: Intake>(self, intake: Arc<I>, stop: CancellationToken) {
        let role = watch::Sender::new(Arc::new(self.role(intake)));
        self.serve_as(role.subscribe(), stop).await;
    }

    /// Serves until `stop` is cancelled and every connection has ended. Dropping the future cuts the connections off,
    /// but messages that the intake already has are still finished.
    pub async fn serve_as<I: Intake>(self, role: CurrentRole<I>, stop: CancellationToken) {
        let Self { socket, budget, .. } = self;
        let mut changes = role.clone();
        let log_limiter = Arc::new(LogLimiter::default());
        let in_role = |current: &ListenerRole<I>| {
            let (options, users) = (current.options.clone(), current.users.clone());
            let (budget, stop, log_limiter) = (budget.clone(), stop.clone(), log_limiter.clone());
            Arc::new(ListenerService { options, users, budget, role: role.clone(), stop, log_limiter })
        };
        let mut service = in_role(&changes.borrow_and_update().clone());
        let mut limits = counter(&service.options, &ConnectionCounter::new(0, 0, 0));
        // Connections whose client is not known yet.
        let mut awaiting = Arc::new(Semaphore::new(service.options.max_connections));
        let mut open = JoinSet::new();
        let mut failures = AcceptFailures::default();
        let mut minute = interval_at(Instant::now() + MINUTE, MINUTE);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = open.join_next() => report(ended),
                Ok(()) = changes.changed() => {
                    service = in_role(&changes.borrow_and_update().clone());
                    limits = counter(&service.options, &limits);
                    awaiting = Arc::new(Semaphore::new(service.options.max_connections));
                }
                _ = minute.tick() => {
                    limits.next_minute();
                    service.log_limiter.next_minute();
                    failures.next_minute(&service.options);
                }
                accepted = socket.accept() => match accepted {
                    Ok((client, peer)) => {
                        // An IPv4 client has the same address on listeners of both families.
                        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                        let service = Arc::clone(&service);
                        if !service.options.is_load_balancer(peer.ip()) {
                            if let Some((client, slot)) = admit(client, peer, &limits, &service) {
                                open.spawn(run(client, peer, slot, service));
                            }
                        } else if let Ok(header) = awaiting.clone().try_acquire_owned() {
                            open.spawn(run_proxied(client, peer, header, limits.clone(), service));
                        } else {
                            debug!(%peer, "connection closed: too many load balancers' connections without their PROXY header");
                        }
                    }
                    Err(error) => {
                        failures.note(&error, &service.options);
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
        drop(socket);
        while let Some(ended) = open.join_next().await {
            report(ended);
        }
        service.log_limiter.next_minute();
    }
}

/// By these options, with the connections that `former` has counted.
fn counter(options: &ListenerOptions, former: &ConnectionCounter) -> ConnectionCounter {
    // If everyone needs a login, no connections have to be reserved.
    let has_regulars = options.auth != AuthMode::Required && !options.allow.is_empty();
    let kept = if has_regulars { options.max_connections / RESERVED_SHARE } else { 0 };
    former.with(options.max_connections, kept, options.max_connections_per_address)
}

/// Failures of accept() within a minute: unauthenticated clients can use up the file descriptors.
#[derive(Debug, Default)]
struct AcceptFailures(u32);

impl AcceptFailures {
    fn note(&mut self, error: &io::Error, options: &ListenerOptions) {
        if self.0 == 0 {
            warn!(listener = %options.address, "cannot accept a connection: {error}");
        } else {
            debug!(listener = %options.address, "cannot accept a connection: {error}");
        }
        self.0 += 1;
    }

    fn next_minute(&mut self, options: &ListenerOptions) {
        let more = std::mem::take(&mut self.0).saturating_sub(1);
        if more > 0 {
            warn!(listener = %options.address, more, "could not accept a connection, several times within a minute");
        }
    }
}

async fn run<I: Intake>(client: TcpStream, peer: SocketAddr, slot: ConnectionSlot, service: Arc<ListenerService<I>>) {
    // Replies are collected before they are written, so a further delay would not help.
    let _best_effort = client.set_nodelay(true);
    connection::serve(client, peer, slot, &service).await;
}

/// The client's slot, or `None` after it was refused.
fn admit<I>(
    client: TcpStream,
    peer: SocketAddr,
    limits: &ConnectionCounter,
    service: &ListenerService<I>,
) -> Option<(TcpStream, ConnectionSlot)> {
    match limits.admit(peer.ip(), service.options.needs_no_login(peer.ip())) {
        Ok(slot) => Some((client, slot)),
        Err(refusal) => {
            reject(client, peer, refusal, service);
            None
        }
    }
}

/// A load balancer's connection: the limits are those of the client that its header names.
async fn run_proxied<I: Intake>(
    mut socket: TcpStream,
    load_balancer: SocketAddr,
    awaited: OwnedSemaphorePermit,
    limits: ConnectionCounter,
    service: Arc<ListenerService<I>>,
) {
    let named = tokio::select! {
        biased;
        () = service.stop.cancelled() => return,
        named = Box::pin(load_balancer::client(&mut socket, load_balancer)) => named,
    };
    drop(awaited);
    match named {
        Ok(peer) => {
            debug!(%peer, %load_balancer, "a load balancer's client");
            if let Some((socket, slot)) = admit(socket, peer, &limits, &service) {
                run(socket, peer, slot, service).await;
            }
        }
        Err(end @ (NoClient::Closed | NoClient::Broken(_))) => {
            debug!(peer = %load_balancer, "connection closed: {end}")
        }
        Err(end @ (NoClient::Header(_) | NoClient::Slow)) => {
            let log_peer = LogPeer {
                listener: service.options.address,
                peer: load_balancer,
                needs_no_login: true,
                may_send: false,
            };
            let why = format_args!(
                "connection dropped: {end}; this address is in `proxy_protocol`, so each of its connections must begin with one"
            );
            service.log_limiter.warn(log_peer, LogAbout::default(), why);
        }
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(failure) = ended {
        error!("a connection failed: {}", Fault(&failure));
    }
}

/// Sends the reason and closes, without a task and without waiting: the reply fits into the new socket's buffer.
fn reject<I>(client: TcpStream, peer: SocketAddr, refusal: ConnectionRefusal, service: &ListenerService<I>) {
    let (reply, limit) = match refusal {
        ConnectionRefusal::Total => (Reply::too_many_connections(), "`max_connections` is reached"),
        ConnectionRefusal::Unauthenticated => (
            Reply::too_many_connections(),
            "`max_connections` is reached, less what is kept for clients inside `allow`",
        ),
        ConnectionRefusal::Address => {
            (Reply::too_many_connections_from_address(), "`max_connections_per_address` is reached")
        }
        ConnectionRefusal::Waiting => {
            (Reply::too_many_without_login(), "`max_connections_per_address` is reached by half, all without a login")
        }
        ConnectionRefusal::Abandoned => {
            (Reply::too_many_without_login(), "limit of a minute for connections that never log in is reached")
        }
    };
    let needs_no_login = service.options.needs_no_login(peer.ip());
    let log_peer = LogPeer { listener: service.options.address, peer, needs_no_login, may_send: needs_no_login };
    service.log_limiter.warn(log_peer, LogAbout::default(), format_args!("connection refused: the listener's {limit}"));
    // A client that expects TLS could not read it.
    if matches!(service.options.tls, Tls::Implicit(_)) {
        return;
    }
    let mut bytes = Vec::new();
    reply.write_to(&mut bytes);
    let _best_effort = client.into_std().and_then(|mut client| client.write_all(&bytes));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::testing::{Recorder, budget, options};
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

    fn bind(address: &str) -> Result<Listener, BindError> {
        let options = ListenerOptions { address: address.parse().expect("an address"), ..options() };
        Listener::bind(options, Users::none(), budget())
    }

    #[tokio::test]
    async fn a_taken_port_and_a_foreign_address_are_named() {
        let first = bind("127.0.0.1:0").expect("a free port");
        let taken = bind(&first.local_address().to_string()).expect_err("taken");
        assert!(matches!(taken, BindError::InUse { .. }), "{taken}");
        assert!(taken.to_string().contains(&first.local_address().to_string()), "{taken}");
        let foreign = bind("192.0.2.1:0").expect_err("documentation address");
        assert!(matches!(foreign, BindError::NoSuchAddress { .. }), "{foreign}");
    }

    /// Sends a line, or reads the greeting, and returns the last line of the reply.
    async fn ask(client: &mut BufReader<TcpStream>, line: &str) -> String {
        client.get_mut().write_all(line.as_bytes()).await.expect("a connection");
        loop {
            let mut reply = String::new();
            client.read_line(&mut reply).await.expect("a reply");
            if reply.as_bytes().get(3) != Some(&b'-') {
                return reply;
            }
        }
    }

    #[tokio::test]
    async fn another_role_counts_for_new_connections_and_for_the_next_message_of_open_ones() {
        let address = "127.0.0.1:0".parse().expect("an address");
        let listener =
            Listener::bind(ListenerOptions { address, ..options() }, Users::none(), budget()).expect("bound");
        let address = listener.local_address();
        let first = Arc::new(Recorder::default());
        let second = Arc::new(Recorder::default());
        let roles = watch::Sender::new(Arc::new(listener.role(first.clone())));
        let stop = CancellationToken::new();
        let serving = tokio::spawn(listener.serve_as(roles.subscribe(), stop.clone()));
        let connect = async || BufReader::new(TcpStream::connect(address).await.expect("a connection"));
        let mut open = connect().await;
        ask(&mut open, "").await;
        ask(&mut open, "EHLO client.example\r\n").await;
        let submit = async |client: &mut BufReader<TcpStream>| {
            let reply = ask(client, "MAIL FROM:<a@example.com>\r\n").await;
            if !reply.starts_with("250") {
                return reply;
            }
            ask(client, "RCPT TO:<b@example.net>\r\n").await;
            ask(client, "DATA\r\n").await;
            ask(client, "Subject: x\r\n\r\nx\r\n.\r\n").await
        };
        assert!(submit(&mut open).await.starts_with("250"));

        let change = |change: &dyn Fn(&mut ListenerOptions)| {
            let mut options = options();
            change(&mut options);
            let intake = second.clone();
            roles.send_replace(Arc::new(ListenerRole { options: Arc::new(options), users: Users::none(), intake }));
        };
        change(&|options| {
            options.hostname = "renamed.example.com".to_owned();
            options.max_connections = 1;
        });
        assert!(submit(&mut open).await.starts_with("250"), "the open connection goes on");
        assert_eq!((first.count(), second.count()), (1, 1), "to the new intake");
        assert!(ask(&mut connect().await, "").await.starts_with("421"), "by the new limit it is one too many");
        change(&|options| options.hostname = "renamed.example.com".to_owned());
        assert!(ask(&mut connect().await, "").await.contains("renamed.example.com"));
        change(&|options| options.allow.clear());
        assert!(submit(&mut open).await.starts_with("530"), "it may not send any more");
        drop(open);
        stop.cancel();
        serving.await.expect("an orderly end");
    }

    #[tokio::test]
    async fn an_ipv6_listener_leaves_ipv4_to_others() {
        match bind("[::1]:0") {
            Ok(listener) => {
                assert!(socket2::SockRef::from(&listener.socket).only_v6().expect("an IPv6 socket"));
                bind(&format!("127.0.0.1:{}", listener.local_address().port())).expect("the other family");
            }
            Err(BindError::NoSuchAddress { .. } | BindError::NoIpv6 { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}
