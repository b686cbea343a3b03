//! The cap, reuse, fairness, and the end of connections.

use crate::support::black_hole::BlackHole;
use crate::support::client::HANG_GUARD;
use crate::support::mail::{envelope, numbered};
use crate::support::ports::ReservedPort;
use crate::support::relay::{assert_told, not_ready, ready, send, upstream};
use crate::support::upstream::{Action, At, ScriptedUpstream};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::timeout;
use waxseal::message::RelayStep;
use waxseal::relay::{Account, ConnectionRequest, Deadline, Upstream};

/// Sends `number` messages at once, and says what their subjects were upstream.
async fn send_at_once(upstream: &Upstream, number: usize) {
    let mut sending = tokio::task::JoinSet::new();
    for number in 0..number {
        let upstream = upstream.clone();
        sending.spawn(async move { send(&upstream, &envelope(&["b@example.net"]), &numbered(number)).await });
    }
    while let Some(outcomes) = timeout(HANG_GUARD, sending.join_next()).await.expect("sending hangs") {
        assert_told(&outcomes.unwrap().unwrap(), &["delivered"]);
    }
}

fn assert_each_arrived_once(scripted: &ScriptedUpstream, number: usize) {
    let messages = scripted.messages();
    let distinct: HashSet<&[u8]> = messages.iter().map(|message| &message.data[..]).collect();
    assert_eq!((messages.len(), distinct.len()), (number, number));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_senders_share_three_connections() {
    let scripted = ScriptedUpstream::start().await;
    let mut options = scripted.options("company");
    options.limits.max_messages_per_connection = 20;
    let upstream = upstream(options);
    send_at_once(&upstream, 200).await;
    assert_each_arrived_once(&scripted, 200);
    let counts = scripted.counts();
    assert!(counts.max <= 3, "{counts:?}");
    assert!(counts.total <= 200 / 20 + 3, "{counts:?}");
    let messages = scripted.messages();
    for connection in 0..counts.total {
        assert!(messages.iter().filter(|message| message.connection == connection).count() <= 20);
    }
    upstream.close(Deadline::NONE).await;
    scripted.until_alone().await;
    assert_eq!(scripted.count("QUIT"), counts.total);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cap_holds_while_connections_fail_and_break() {
    let scripted = ScriptedUpstream::start().await;
    for number in 0..30 {
        let at = [At::Greeting, At::StartTls, At::EhloInTls, At::Auth, At::Mail, At::Dot, At::Quit][number % 7];
        let action = match number % 3 {
            0 => Action::Close,
            1 => Action::Say("421 4.7.0 busy".to_owned()),
            _ => Action::say_and_close("451 4.3.0 later"),
        };
        scripted.once(at, action);
    }
    let mut options = scripted.options("company");
    options.limits.max_messages_per_connection = 3;
    let upstream = upstream(options);
    let mut sending = tokio::task::JoinSet::new();
    for number in 0..100 {
        let upstream = upstream.clone();
        sending.spawn(async move {
            while !send(&upstream, &envelope(&["b@example.net"]), &numbered(number))
                .await
                .is_ok_and(|outcomes| crate::support::relay::told(&outcomes[0]) == "delivered")
            {}
        });
    }
    while let Some(done) = timeout(HANG_GUARD, sending.join_next()).await.expect("sending hangs") {
        done.unwrap();
    }
    assert_each_arrived_once(&scripted, 100);
    assert!(scripted.counts().max <= 3, "{:?}", scripted.counts());
    upstream.close(Deadline::NONE).await;
    assert_eq!(upstream.connections_open(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_senders_give_their_connections_back_to_the_cap() {
    let scripted = ScriptedUpstream::builder().always(At::Dot, Action::Late(Duration::from_millis(5))).start().await;
    let mut options = scripted.options("company");
    options.limits.max_messages_per_connection = 5;
    let upstream = upstream(options);
    let mut sending = tokio::task::JoinSet::new();
    for number in 0..100u64 {
        let upstream = upstream.clone();
        sending.spawn(async move {
            let envelope = envelope(&["b@example.net"]);
            let sealed = numbered(0);
            let attempt = send(&upstream, &envelope, &sealed);
            // Some are cancelled while waiting, connecting, in the middle of the transaction.
            let _cut_short = timeout(Duration::from_millis(number), attempt).await;
        });
    }
    while let Some(done) = timeout(HANG_GUARD, sending.join_next()).await.expect("sending hangs") {
        done.unwrap();
    }
    assert!(scripted.counts().max <= 3, "{:?}", scripted.counts());
    assert_told(&send(&upstream, &envelope(&["b@example.net"]), &numbered(1)).await.unwrap(), &["delivered"]);
    upstream.close(Deadline::NONE).await;
    assert_eq!(upstream.connections_open(), 0);
    scripted.until_alone().await;
}

#[tokio::test]
async fn a_caller_that_waits_gets_the_connection_that_becomes_free_in_order() {
    let scripted = ScriptedUpstream::start().await;
    let mut options = scripted.options("company");
    options.limits.max_connections = 1;
    let upstream = upstream(options);
    let held = ready(&upstream).await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..5 {
        let upstream = upstream.clone();
        let order = Arc::clone(&order);
        waiting.spawn(async move {
            let ready = ready(&upstream).await.unwrap();
            order.lock().unwrap().push(number);
            drop(ready);
        });
        // Each task has run up to its wait before the next one starts.
        tokio::task::yield_now().await;
    }
    drop(held);
    while let Some(done) = timeout(HANG_GUARD, waiting.join_next()).await.expect("waiting hangs") {
        done.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
    assert_eq!(scripted.counts().total, 1);
}

#[tokio::test]
async fn waiting_for_a_connection_ends_at_the_deadline() {
    let scripted = ScriptedUpstream::start().await;
    let upstream = upstream(scripted.options("company"));
    let _held = [ready(&upstream).await.unwrap(), ready(&upstream).await.unwrap(), ready(&upstream).await.unwrap()];
    let reason = upstream.ready(ConnectionRequest::by(Deadline::after(Duration::from_millis(50)))).await.unwrap_err();
    assert_eq!(reason.step, RelayStep::Permit);
    assert!(reason.to_string().contains("all 3 connections of upstream \"company\" are in use"), "{reason}");
    assert_eq!(scripted.counts().total, 3);
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closed_is_not_used() {
    let scripted = ScriptedUpstream::start().await;
    let upstream = upstream(scripted.options("company"));
    scripted.once(At::Dot, Action::say_and_close("250 2.0.0 queued, and goodbye"));
    send(&upstream, &envelope(&["b@example.net"]), &numbered(1)).await.unwrap();
    scripted.until_alone().await;
    assert_told(&send(&upstream, &envelope(&["b@example.net"]), &numbered(2)).await.unwrap(), &["delivered"]);
    assert_eq!(scripted.counts().total, 2);
}

#[tokio::test]
async fn a_connection_that_dies_at_mail_is_stale_only_if_it_was_used_before() {
    for action in [Action::Close, Action::say_and_close("421 4.4.2 idle for too long")] {
        let scripted = ScriptedUpstream::start().await;
        let upstream = upstream(scripted.options("company"));
        send(&upstream, &envelope(&["b@example.net"]), &numbered(1)).await.unwrap();
        scripted.once(At::Mail, action.clone());
        assert_told(&send(&upstream, &envelope(&["b@example.net"]), &numbered(2)).await.unwrap(), &["delivered"]);
        assert_eq!(scripted.counts().total, 2);
        scripted.always(At::Mail, action);
        let outcomes = send(&upstream, &envelope(&["b@example.net"]), &numbered(3)).await.unwrap();
        assert_told(&outcomes, &["deferred: upstream \"company\", MAIL FROM: "]);
    }
}

#[tokio::test]
async fn idle_connections_are_closed_with_quit() {
    let scripted = ScriptedUpstream::start().await;
    let mut options = scripted.options("company");
    options.limits.idle_timeout = Duration::from_millis(100);
    let upstream = upstream(options);
    for round in 1..=2 {
        let _both = (ready(&upstream).await.unwrap(), ready(&upstream).await.unwrap());
        drop(_both);
        scripted.until_alone().await;
        assert_eq!(scripted.count("QUIT"), 2 * round);
    }
}

#[tokio::test]
async fn a_dropped_upstream_says_goodbye() {
    let scripted = ScriptedUpstream::start().await;
    let upstream = upstream(scripted.options("company"));
    drop(ready(&upstream).await.unwrap());
    drop(upstream);
    scripted.until_alone().await;
    assert_eq!(scripted.count("QUIT"), 1);
}

#[tokio::test]
async fn closing_lets_messages_under_way_finish_and_takes_no_more() {
    let scripted = ScriptedUpstream::builder().once(At::Dot, Action::Late(Duration::from_millis(200))).start().await;
    let upstream = upstream(scripted.options("company"));
    let _idle = ready(&upstream).await.unwrap();
    let under_way = ready(&upstream).await.unwrap();
    drop(_idle);
    let closing = async {
        scripted.until_messages(1).await;
        upstream.close(Deadline::NONE).await;
        assert_eq!((scripted.messages().len(), upstream.connections_open()), (1, 0));
    };
    let mail = numbered(1);
    let to = envelope(&["b@example.net"]);
    let sending = under_way.send(&to, &to.recipients, &mail, Deadline::NONE);
    timeout(HANG_GUARD, async { tokio::join!(sending, closing) }).await.expect("closing hangs");
    let reason = not_ready(&upstream).await;
    assert!(reason.to_string().contains("is being closed"), "{reason}");
    assert_eq!(scripted.count("QUIT"), 2);
}

#[tokio::test]
async fn two_upstreams_of_one_account_share_the_cap_and_no_session() {
    let scripted = ScriptedUpstream::start().await;
    let permits = Account::new(1);
    let mut other = scripted.options("other");
    other.credentials.as_mut().unwrap().username = "other-user".to_owned();
    let first = Upstream::new(scripted.options("company"), permits.clone());
    let second = Upstream::new(other, permits);
    for _ in 0..3 {
        for upstream in [&first, &second] {
            // The other's idle connection gives way.
            assert_told(&send(upstream, &envelope(&["b@example.net"]), &numbered(1)).await.unwrap(), &["delivered"]);
        }
    }
    let users: Vec<String> = scripted.logins().into_iter().map(|(_, user, _)| user).collect();
    assert_eq!(users, ["relay-user", "other-user"].repeat(3));
    assert_eq!(scripted.counts().max, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_upstreams_of_one_account_do_not_starve_each_other() {
    let scripted = ScriptedUpstream::start().await;
    let permits = Account::new(2);
    let first = Upstream::new(scripted.options("company"), permits.clone());
    let second = Upstream::new(scripted.options("other"), permits);
    tokio::join!(send_at_once(&first, 50), send_at_once(&second, 50));
    assert_eq!(scripted.messages().len(), 100);
    assert!(scripted.counts().max <= 2, "{:?}", scripted.counts());
}

#[tokio::test]
async fn with_a_cap_of_one_a_dead_address_family_delays_but_never_doubles() {
    let scripted = ScriptedUpstream::start().await;
    let hole = BlackHole::open();
    let mut options = scripted.options("company");
    options.limits.max_connections = 1;
    options.limits.max_messages_per_connection = 1;
    // Half of it goes to the address that does not answer.
    options.limits.connect_timeout = Duration::from_secs(4);
    let upstream = Upstream::with_addresses(options, Account::new(1), vec![hole.address, scripted.address()]);
    let done = AtomicBool::new(false);
    let watching = async {
        while !done.load(Ordering::Relaxed) {
            assert!(upstream.connections_open() <= 1);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let sending = async {
        // The second finds the family that worked, and does not wait for the dead one.
        for number in 0..2 {
            send(&upstream, &envelope(&["b@example.net"]), &numbered(number)).await.unwrap();
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(watching, sending);
    assert_eq!((scripted.messages().len(), scripted.counts().max), (2, 1));
}

#[tokio::test]
async fn with_a_free_permit_the_second_family_is_tried_beside_the_first() {
    let scripted = ScriptedUpstream::start().await;
    let hole = BlackHole::open();
    let options = scripted.options("company");
    let upstream = Upstream::with_addresses(options, Account::new(2), vec![hole.address, scripted.address()]);
    send(&upstream, &envelope(&["b@example.net"]), &numbered(1)).await.unwrap();
    assert_eq!(scripted.messages().len(), 1);
    assert_eq!(upstream.connections_open(), 1, "the attempt that lost has given its permit back");
}

#[tokio::test]
async fn nobody_answers() {
    let scripted = ScriptedUpstream::start().await;
    let hole = BlackHole::open();
    let reserved = ReservedPort::take();
    let closed = SocketAddr::from(([127, 0, 0, 1], reserved.number));
    let mut options = scripted.options("company");
    options.limits.connect_timeout = Duration::from_secs(1);
    options.endpoint.port = 465;
    let upstream = Upstream::with_addresses(options, Account::new(1), vec![hole.address, closed]);
    let reason = not_ready(&upstream).await;
    let told =
        format!("upstream \"company\", connect: {}: no answer in time, {closed}: connection refused", hole.address);
    assert!(reason.to_string().starts_with(&told), "{reason}");
    assert!(reason.advice.as_ref().is_some_and(|advice| advice.contains("many hosters block ports 25 and 465")));
    assert_eq!(upstream.connections_open(), 0);
}

#[tokio::test]
async fn a_name_that_does_not_exist() {
    let scripted = ScriptedUpstream::start().await;
    let mut options = scripted.options("company");
    options.endpoint.host = "no-such-host.invalid".to_owned();
    let reason = not_ready(&upstream(options)).await;
    assert_eq!(reason.step, RelayStep::Resolve, "{reason}");
    assert!(reason.to_string().contains("no-such-host.invalid"), "{reason}");
}

#[tokio::test]
async fn quick_retries_bridge_a_restart() {
    let reserved = ReservedPort::take();
    let closed = SocketAddr::from(([127, 0, 0, 1], reserved.number));
    let template = ScriptedUpstream::start().await;
    let mut options = template.options("company");
    (options.endpoint.port, options.limits.connect_retries) = (closed.port(), 1);
    let reason = not_ready(&upstream(options.clone())).await;
    assert!(reason.to_string().contains("connection refused"), "{reason}");
    options.limits.connect_retries = 1000;
    let upstream = upstream(options);
    let (reason, _scripted) = tokio::join!(not_ready(&upstream), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        ScriptedUpstream::builder().address(closed).start().await
    });
    assert_eq!(reason.step, RelayStep::TlsHandshake, "it got through, to a server of another authority: {reason}");
}

#[tokio::test]
async fn the_source_address_is_the_one_that_was_asked_for() {
    let scripted = ScriptedUpstream::start().await;
    let mut options = scripted.options("company");
    options.endpoint.source_address = Some([127, 0, 0, 1].into());
    send(&upstream(options.clone()), &envelope(&["b@example.net"]), &numbered(1)).await.unwrap();
    options.endpoint.source_address = Some(std::net::Ipv6Addr::LOCALHOST.into());
    let reason = not_ready(&upstream(options.clone())).await;
    assert!(reason.to_string().contains("no address of the family of `source_address`"), "{reason}");
    options.endpoint.source_address = Some([192, 0, 2, 1].into());
    let reason = not_ready(&upstream(options)).await;
    assert!(reason.to_string().contains("is not an address of this machine"), "{reason}");
}
