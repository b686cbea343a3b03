//! A port that does not answer, as behind many hosters' firewalls: the next port is tried with the same permit.

use crate::support::black_hole::BlackHole;
use crate::support::log_lines::LogLines;
use crate::support::mail::{envelope, numbered};
use crate::support::ports::ReservedPort;
use crate::support::relay::{not_ready, ready, send, upstream};
use crate::support::upstream::ScriptedUpstream;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use waxseal::message::RelayStep;
use waxseal::relay::{Port, TlsMode, UpstreamOptions};

/// Options whose first ports are closed ones.
fn behind(scripted: &ScriptedUpstream, tls: TlsMode, closed: &[ReservedPort]) -> UpstreamOptions {
    let mut options = scripted.options("company");
    let there = Port { number: options.endpoint.port, tls };
    let mut ports: Vec<_> =
        closed.iter().map(|port| Port { number: port.number, tls: TlsMode::StartTls }).chain([there]).collect();
    let first = ports.remove(0);
    (options.endpoint.port, options.endpoint.tls, options.endpoint.fallback_ports) = (first.number, first.tls, ports);
    options.limits.max_connections = 1;
    options.limits.max_messages_per_connection = 1;
    options
}

#[tokio::test]
async fn the_next_port_is_tried_and_the_one_that_works_is_kept() {
    let scripted = ScriptedUpstream::builder().implicit_tls().start().await;
    let closed = [ReservedPort::take(), ReservedPort::take()];
    let lines = LogLines::default();
    let logging = lines.capture(tracing::Level::INFO);
    let upstream = upstream(behind(&scripted, TlsMode::Implicit, &closed));
    send(&upstream, &envelope(&["b@example.net"]), &numbered(1)).await.unwrap();
    // A server that listens there now is not asked: the port that worked is kept.
    let late = TcpListener::bind(("127.0.0.1", closed[0].number)).unwrap();
    late.set_nonblocking(true).unwrap();
    send(&upstream, &envelope(&["b@example.net"]), &numbered(2)).await.unwrap();
    assert!(late.accept().is_err(), "nobody came");
    drop(logging);
    assert_eq!((scripted.messages().len(), scripted.counts().total, scripted.counts().max), (2, 2, 1));
    let log = lines.text();
    let told = format!("nothing answers at 127.0.0.1 on port {}, {}", closed[0].number, closed[1].number);
    assert_eq!(log.matches(&told).count(), 1, "said once: {log}");
    assert!(log.contains(&format!("port {} is used from now on", scripted.address().port())), "{log}");
}

#[tokio::test]
async fn a_port_that_is_blocked_later_is_left_for_the_others_again() {
    let closed = ReservedPort::take();
    let first = ScriptedUpstream::start().await;
    let lines = LogLines::default();
    let logging = lines.capture(tracing::Level::INFO);
    let upstream = upstream(behind(&first, TlsMode::StartTls, &[closed]));
    send(&upstream, &envelope(&["b@example.net"]), &numbered(1)).await.unwrap();
    let address = first.address();
    let lost = format!("on port {} any more", first.address().port());
    drop(first);
    until_closed(address).await;
    let reason = not_ready(&upstream).await.to_string();
    assert!(reason.contains(&format!("{address}: connection refused")), "{reason}");
    assert!(reason.matches("refused").count() == 1, "the one that was kept: {reason}");
    let reason = not_ready(&upstream).await.to_string();
    assert!(reason.matches("connection refused").count() == 2, "every port is tried again: {reason}");
    drop(logging);
    assert_eq!(lines.text().matches(&lost).count(), 1, "said once: {}", lines.text());
}

/// A server that was dropped closes its listener when its task ends.
async fn until_closed(address: SocketAddr) {
    for _ in 0..1000 {
        if TcpStream::connect(address).is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{address} is still listened on");
}

/// A firewall that drops packets to a port: each port gets its share of the time.
#[tokio::test]
async fn a_silent_port_leaves_time_for_the_next() {
    let scripted = ScriptedUpstream::builder().address((std::net::Ipv6Addr::LOCALHOST, 0).into()).start().await;
    let hole = BlackHole::open();
    let mut options = scripted.options("company");
    options.limits.connect_timeout = Duration::from_secs(2);
    options.limits.max_connections = 1;
    options.endpoint.fallback_ports = vec![Port { number: options.endpoint.port, tls: options.endpoint.tls }];
    options.endpoint.port = hole.address.port();
    let upstream = upstream(options);
    send(&upstream, &envelope(&["b@example.net"]), &numbered(1)).await.unwrap();
    assert_eq!((scripted.messages().len(), upstream.connections_open()), (1, 1));
}

#[tokio::test]
async fn the_first_port_is_kept_where_it_answers() {
    let scripted = ScriptedUpstream::start().await;
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    other.set_nonblocking(true).unwrap();
    let mut options = scripted.options("company");
    options.endpoint.fallback_ports = vec![Port { number: other.local_addr().unwrap().port(), tls: TlsMode::StartTls }];
    let lines = LogLines::default();
    let logging = lines.capture(tracing::Level::INFO);
    drop(ready(&upstream(options)).await.unwrap());
    drop(logging);
    assert!(other.accept().is_err() && lines.text().is_empty(), "{}", lines.text());
}

#[tokio::test]
async fn a_port_that_speaks_and_refuses_is_not_left_for_another() {
    let scripted = ScriptedUpstream::builder().always(crate::support::upstream::At::Greeting, "554 no").start().await;
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    other.set_nonblocking(true).unwrap();
    let mut options = scripted.options("company");
    options.endpoint.fallback_ports = vec![Port { number: other.local_addr().unwrap().port(), tls: TlsMode::StartTls }];
    let reason = not_ready(&upstream(options)).await;
    assert_eq!(reason.step, RelayStep::Greeting, "{reason}");
    assert!(other.accept().is_err(), "nobody came");
}

#[tokio::test]
async fn where_no_port_answers_each_is_named() {
    let scripted = ScriptedUpstream::start().await;
    let closed = [ReservedPort::take(), ReservedPort::take(), ReservedPort::take()];
    let mut options = behind(&scripted, TlsMode::StartTls, &closed);
    options.endpoint.fallback_ports.pop();
    let upstream = upstream(options);
    let reason = not_ready(&upstream).await.to_string();
    for port in &closed {
        assert!(reason.contains(&format!("127.0.0.1:{}: connection refused", port.number)), "{reason}");
    }
    assert_eq!(upstream.connections_open(), 0);
    // Nothing is known yet, so all are tried again.
    let back = ScriptedUpstream::builder().address(([127, 0, 0, 1], closed[1].number).into()).start().await;
    assert_eq!(
        not_ready(&upstream).await.step,
        RelayStep::TlsHandshake,
        "it got through, to a server of another authority"
    );
    drop(back);
}
