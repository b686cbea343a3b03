//! Never more connections to a provider than `max_connections`, counted by the provider itself.

use crate::support::application::{hand_in, in_front_of, mail};
use crate::support::upstream::ScriptedUpstream;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clients_at_once_share_three_connections() {
    const CLIENTS: usize = 200;
    const PER_CONNECTION: usize = 40;
    let scripted = ScriptedUpstream::start().await;
    let lines = format!("max_connections = 3\nmax_messages_per_connection = {PER_CONNECTION}");
    let gateway = in_front_of(&scripted, &lines).start(1);
    let address = gateway.address();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(async move { hand_in(address, &["you@example.net"], &mail(&format!("number {number}"))).await });
    }
    for reply in clients.join_all().await {
        assert!(reply.starts_with("250 "), "{reply}");
    }
    let mut subjects: Vec<_> = scripted
        .messages()
        .iter()
        .map(|message| {
            let text = String::from_utf8_lossy(&message.data).into_owned();
            text.lines().find(|line| line.starts_with("Subject: ")).expect("a subject").to_owned()
        })
        .collect();
    subjects.sort_unstable();
    subjects.dedup();
    assert_eq!((subjects.len(), scripted.messages().len()), (CLIENTS, CLIENTS), "each once");
    let counts = scripted.counts();
    assert!(counts.max <= 3, "{counts:?}");
    assert!(counts.total <= CLIENTS / PER_CONNECTION + 3, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_connection_needs_two_round_trips_for_each_message() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = in_front_of(&scripted, "").start(1);
    for number in 1..=5 {
        let reply = hand_in(gateway.address(), &["you@example.net", "b@example.net"], &mail("warm")).await;
        assert!(reply.starts_with("250 "), "{reply}");
        assert_eq!((scripted.round_trips(), scripted.segments()), (2 * number, 2 * number));
    }
    assert_eq!((scripted.counts().total, scripted.logins().len()), (1, 1));
}
