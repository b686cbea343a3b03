//! A provider that allows fewer connections than `max_connections`: this does not count as an outage. The mail uses the
//! connections that work, the limit is learned and logged once, and one more connection is tried later.

use crate::support::application::{hand_in, hand_in_many, in_front_of, mail, numbered, queued_in_front_of};
use crate::support::upstream::{Action, At, ScriptedUpstream};
use std::time::Duration;
use tokio::task::JoinSet;
use waxseal::relay::{Account, ConnectionRequest, Deadline, Upstream};

const CLIENTS: usize = 50;

/// What providers do with one connection too many.
fn refusals() -> Vec<(&'static str, At, Action)> {
    let told = |line| Action::say_and_close(line);
    vec![
        ("421 at the greeting", At::Greeting, told("421 4.7.0 too many connections from your address")),
        ("closed at the greeting", At::Greeting, Action::Close),
        ("554 that names it", At::Greeting, told("554 5.7.0 Too many concurrent connections")),
        ("432 at AUTH", At::Auth, told("432 4.3.2 Concurrent connections limit exceeded")),
        ("454 at AUTH", At::Auth, told("454 4.7.0 Too many login attempts")),
    ]
}

fn naming_the_limit(log: &[String]) -> Vec<&String> {
    log.iter().filter(|line| line.contains("set `max_connections` to")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_waiting_clients_are_served_by_the_connections_that_work() {
    for allowed in 1..=3 {
        for (what, at, action) in refusals() {
            let provider = ScriptedUpstream::builder().connections(allowed, at, action).start().await;
            let gateway = in_front_of(&provider, "max_connections = 4\n").start(1);
            let address = gateway.address();
            let mut clients = JoinSet::new();
            for number in 0..CLIENTS {
                clients.spawn(async move { hand_in(address, &["you@example.net"], &mail(&number.to_string())).await });
            }
            for reply in clients.join_all().await {
                assert!(reply.starts_with("250 "), "{what}, {allowed} allowed: {reply}");
            }
            assert_eq!(provider.messages().len(), CLIENTS, "{what}, {allowed} allowed");
            let (_, log, _) = gateway.stop();
            let named = naming_the_limit(&log);
            assert_eq!(named.len(), 1, "{what}, {allowed} allowed: {named:?}");
            assert!(named[0].contains(&format!("set `max_connections` to {allowed};")), "{what}: {}", named[0]);
            assert!(!log.iter().any(|line| line.contains("upstream unavailable")), "{what}: {}", log.join("\n"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_mail_is_not_deferred_for_it() {
    let refusal = Action::say_and_close("421 4.7.0 too many connections");
    let provider = ScriptedUpstream::builder().connections(1, At::Greeting, refusal).start().await;
    let gateway = queued_in_front_of(&provider, "max_connections = 4", "").start(1);
    hand_in_many(gateway.address(), "reports@example.com", "you@example.net", &numbered(CLIENTS)).await;
    provider.until_messages(CLIENTS).await;
    let (_, log, _) = gateway.stop();
    assert!(!log.iter().any(|line| line.contains("\"deferred\"") || line.contains("upstream unavailable")));
    assert!(naming_the_limit(&log).len() <= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_refuses_every_connection_is_away() {
    let provider = ScriptedUpstream::builder().always(At::Greeting, Action::say_and_close("421 4.3.2 shutting down"));
    let provider = provider.start().await;
    let gateway = in_front_of(&provider, "max_connections = 4\n").start(1);
    let reply = hand_in(gateway.address(), &["you@example.net"], &mail("away")).await;
    assert!(reply.starts_with("451 ") && reply.contains("shutting down"), "{reply}");
    gateway.wait_for_line(&["upstream unavailable", "shutting down"]);
    let (_, log, _) = gateway.stop();
    assert_eq!(naming_the_limit(&log), Vec::<&String>::new());
}

/// The clock is stopped once the limit is known; an hour later the provider allows more.
#[tokio::test]
async fn one_more_is_tried_again_within_an_hour() {
    let refusal = Action::say_and_close("421 4.7.0 too many connections");
    let provider = ScriptedUpstream::builder().connections(1, At::Greeting, refusal).start().await;
    let upstream = Upstream::new(provider.options("company"), Account::new(3));
    let first = upstream.ready(ConnectionRequest::by(Deadline::NONE)).await.expect("the one that works");
    let waiting = tokio::spawn({
        let upstream = upstream.clone();
        async move { upstream.ready(ConnectionRequest::by(Deadline::NONE)).await }
    });
    while provider.counts().total < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!waiting.is_finished());
    drop(first);
    let first = waiting.await.unwrap().expect("the same connection, once it is free");
    assert_eq!(upstream.connections_open(), 1);
    provider.allow_connections(3);
    tokio::time::pause();
    for connections in 2..=3 {
        tokio::time::advance(Duration::from_secs(3600)).await;
        tokio::time::resume();
        let another = upstream.ready(ConnectionRequest::by(Deadline::NONE)).await.expect("one more");
        assert_eq!(upstream.connections_open(), connections);
        std::mem::forget(another);
        tokio::time::pause();
    }
    drop(first);
}
