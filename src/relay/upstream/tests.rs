//! How long a dead upstream can hold up mail that another one would accept, under paused time.

use super::*;
use crate::relay::{ConnectionLimits, Endpoint, Port, TlsMode};
use rustls::pki_types::ServerName;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::JoinSet;

const TIME_OUT: Duration = Duration::from_secs(10);
/// The additional time that is allowed.
const MORE: Duration = Duration::from_secs(2);

fn upstream(address: SocketAddr, connections: usize) -> Upstream {
    upstream_with(address, connections, Vec::new())
}

fn upstream_with(address: SocketAddr, connections: usize, fallback_ports: Vec<Port>) -> Upstream {
    let options = UpstreamOptions {
        name: "company".into(),
        endpoint: Endpoint {
            host: address.ip().to_string(),
            port: address.port(),
            tls: TlsMode::StartTls,
            fallback_ports,
            server_name: ServerName::try_from("localhost").expect("a name"),
            ca: Vec::new(),
            tls_config: crate::tls::client(&[]).expect("a configuration"),
            client_certificate: None,
            source_address: None,
        },
        redaction: Arc::default(),
        credentials: None,
        ehlo_name: "gateway.example".to_owned(),
        limits: ConnectionLimits {
            max_connections: connections,
            max_messages_per_connection: 100,
            connect_timeout: TIME_OUT,
            command_timeout: Duration::from_secs(300),
            data_timeout: Duration::from_secs(600),
            idle_timeout: Duration::from_secs(30),
            connect_retries: 1,
        },
        slow_down: &[],
    };
    Upstream::with_addresses(options, Account::new(connections), vec![address])
}

fn listener(backlog: i32) -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
    socket.listen(backlog).expect("listening");
    let address = socket.local_addr().expect("an address").as_socket().expect("an IP address");
    (socket, address)
}

/// Accepts connections, in the kernel, and never sends anything.
fn silent() -> (Vec<Socket>, SocketAddr) {
    let (socket, address) = listener(128);
    (vec![socket], address)
}

/// Its backlog is full: it does not answer.
fn deaf() -> (Vec<Socket>, SocketAddr) {
    let (socket, address) = listener(0);
    let fill = |_| {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        filler.set_nonblocking(true).expect("set");
        let _in_progress = filler.connect(&address.into());
        filler
    };
    (std::iter::once(socket).chain((0..8).map(fill)).collect(), address)
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_a_connect_may_take_and_later_callers_do_not_wait() {
    for (_sockets, address) in [silent(), deaf()] {
        let upstream = upstream(address, 2);
        let wanted = ConnectionRequest { has_alternative: true, ..ConnectionRequest::by(Deadline::NONE) };
        let start = Instant::now();
        let mut callers = JoinSet::new();
        for _ in 0..20 {
            let upstream = upstream.clone();
            callers.spawn(async move { upstream.ready(wanted).await.map(drop) });
        }
        for gone_on in callers.join_all().await {
            assert!(gone_on.is_err());
        }
        let held_up = start.elapsed();
        assert!(held_up >= TIME_OUT / 2 && held_up <= TIME_OUT + MORE, "{held_up:?}");
        let later = Instant::now();
        let reason = upstream.ready(wanted).await.map(drop).expect_err("it is left alone");
        assert!(reason.is_untried() && Instant::now() == later, "{reason}");
    }
}

/// Probes continue, each at the cost of one message's patience.
#[tokio::test(start_paused = true)]
async fn in_an_hour_of_silence_few_messages_are_held_up_and_all_others_go_on_at_once() {
    let (_sockets, address) = silent();
    let upstream = upstream(address, 2);
    let wanted = ConnectionRequest { has_alternative: true, ..ConnectionRequest::by(Deadline::NONE) };
    let mut held_up = 0;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3600) {
        let before = Instant::now();
        assert!(upstream.ready(wanted).await.is_err());
        held_up += usize::from(Instant::now() > before);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!((8..40).contains(&held_up), "{held_up}");
}

/// A firewall drops what goes to a port that it allowed before.
#[tokio::test(start_paused = true)]
async fn a_port_that_fell_silent_is_forgotten_but_not_for_a_caller_in_a_hurry() {
    let (_sockets, address) = deaf();
    let (_others, other) = deaf();
    let port = |address: SocketAddr| Port { number: address.port(), tls: TlsMode::StartTls };
    let upstream = upstream_with(address, 1, vec![port(other)]);
    for (given, kept) in [(Deadline::after(TIME_OUT / 4), Some(port(other))), (Deadline::NONE, None)] {
        upstream.0.port.remember(port(other));
        upstream.cut_pause();
        let reason =
            upstream.ready(ConnectionRequest::by(given)).await.map(drop).expect_err("nobody answers").to_string();
        assert!(reason.contains(&format!("{other}: no answer in time")), "{reason}");
        assert_eq!(upstream.0.port.held(), kept, "{reason}");
    }
}
