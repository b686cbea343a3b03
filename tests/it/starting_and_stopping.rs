//! Signals, and restarts while clients submit mail: no mail is refused because of them.

use crate::support::application::{SENDER, hand_in, mail, queued_in_front_of};
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::upstream::{Action, At, ScriptedUpstream};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_orderly_and_the_user_signals_change_nothing() {
    let provider = ScriptedUpstream::builder().always(At::Dot, Action::Stall).start().await;
    let setup = queued_in_front_of(&provider, "", "").config_with("unsigned", "drain = \"2s\"\nunsigned");
    let mut gateway = setup.start(1);
    for name in ["USR1", "USR2"] {
        gateway.signal(name);
        gateway.wait_for_line(&[&format!("SIG{name}"), "ignored"]);
    }
    let reply = hand_in(gateway.address(), &["you@example.net"], &mail("kept")).await;
    assert!(reply.starts_with("250 "), "{reply}");
    provider.until_heard("\r\n.\r\n").await;
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code(), Some(0));
    gateway.wait_for_line(&["SIGTERM: finishing mail in progress"]);
    gateway.wait_for_line(&["\"stopped\""]);
}

/// `nohup waxseal run &`, and the terminal is closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_that_is_ignored_at_the_start_stays_ignored() {
    let provider = ScriptedUpstream::start().await;
    let setup = queued_in_front_of(&provider, "", "").wrapped(&["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"]);
    let mut gateway = setup.start(1);
    gateway.signal("HUP");
    let reply = hand_in(gateway.address(), &["you@example.net"], &mail("on")).await;
    assert!(reply.starts_with("250 ") && gateway.is_alive(), "{reply}");
    let (status, log, _) = gateway.stop();
    assert!(status.success() && !log.iter().any(|line| line.contains("SIGHUP:")));
}

/// As systemd does: the socket is descriptor 3 and stays open between two runs.
fn started_on(setup: Setup, socket: &TcpListener) -> Gateway {
    let mut command = setup.command(&["run"]);
    command.stdin(OwnedFd::from(socket.try_clone().unwrap()));
    setup.start_by(command, 1, Duration::from_secs(60))
}

fn with_a_socket_passed(provider: &ScriptedUpstream, address: SocketAddr) -> Setup {
    const PASS: &str = "exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\"";
    queued_in_front_of(provider, "", "")
        .config_with("127.0.0.1:0", &address.to_string())
        .wrapped(&["sh", "-c", PASS, "sh"])
}

/// Hands in one mail over a connection of its own, as most applications do. Any step that fails fails the test: they
/// do not try again.
async fn hand_in_once(gateway: SocketAddr, number: usize) {
    let mut client = Client::connect(gateway).await;
    client.greet().await;
    for line in [format!("MAIL FROM:<{SENDER}>"), "RCPT TO:<you@example.net>".to_owned(), "DATA".to_owned()] {
        let reply = client.ask(&line).await;
        assert!(reply.starts_with("250 ") || reply.starts_with("354 "), "mail {number}: {line}: {reply}");
    }
    let reply = client.ask(&format!("{}.", mail(&number.to_string()))).await;
    assert!(reply.starts_with("250 2.0.0 Queued as "), "mail {number}: {reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_under_load_on_an_inherited_socket_refuse_no_client() {
    let provider = ScriptedUpstream::start().await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut gateway = started_on(with_a_socket_passed(&provider, address), &socket);
    let enough = CancellationToken::new();
    let mut clients = JoinSet::new();
    for first in (0..4).map(|client| client * 100_000) {
        let enough = enough.clone();
        clients.spawn(async move {
            let mut number = first;
            while !enough.is_cancelled() {
                hand_in_once(address, number).await;
                number += 1;
            }
            number - first
        });
    }
    for round in 0..5 {
        provider.until_messages(20 * (round + 1)).await;
        let (status, log, setup) = gateway.stop();
        assert!(status.success(), "{}", log.join("\n"));
        gateway = started_on(setup, &socket);
    }
    enough.cancel();
    let handed_in: usize = clients.join_all().await.into_iter().sum();
    provider.until_messages(handed_in).await;
    assert_eq!(provider.messages().len(), handed_in);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passed_socket_that_no_listener_names_keeps_the_gateway_from_starting() {
    let provider = ScriptedUpstream::start().await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let setup = with_a_socket_passed(&provider, address).config_with(&address.to_string(), "127.0.0.1:0");
    let mut command = setup.command(&["run"]);
    let output = command.stdin(OwnedFd::from(socket)).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{told}");
    for words in [&address.to_string(), "LISTEN_FDS", "add the listener"] {
        assert!(told.contains(words), "no {words:?} in {told}");
    }
}
