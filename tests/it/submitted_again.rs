//! `deduplicate`: an application that did not see the 250 submits the same mail again, and each recipient gets it once.

use crate::support::application::{
    NO_REPAIR, hand_in, in_front_of, mail, numbered, queued_in_front_of, subjects, up_to_data,
};
use crate::support::provider::Provider;
use crate::support::upstream::{At, ScriptedUpstream};
use std::net::SocketAddr;

const ON: &str = "deduplicate = \"10m\"";

fn named(message_id: &str, subject: &str) -> String {
    format!("Message-ID: <{message_id}@app.example>\r\n{}", mail(subject))
}

/// The reply is on its way, and no one reads it.
async fn hand_in_and_leave(gateway: SocketAddr, recipient: &str, message: &str) {
    let mut client = up_to_data(gateway, &[recipient]).await;
    client.send(format!("{message}.\r\n").as_bytes()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_applications_that_did_not_see_the_250_send_each_mail_once() {
    let scripted = ScriptedUpstream::start().await;
    let setup = queued_in_front_of(&scripted, "", &format!("{ON}\n{NO_REPAIR}"));
    let gateway = setup.start(1);
    let address = gateway.address();
    let all = numbered(1000);
    let mut applications = tokio::task::JoinSet::new();
    for some in all.chunks(50) {
        let some = some.to_vec();
        applications.spawn(async move {
            for subject in some {
                let message = named(&subject, &subject);
                let recipient = format!("r{subject}@example.net");
                hand_in_and_leave(address, &recipient, &message).await;
                let reply = hand_in(address, &[&recipient], &message).await;
                assert!(reply.starts_with("250 2.0.0 Queued as "), "{reply}");
                assert_eq!(hand_in(address, &[&recipient], &message).await, reply, "the same name each time");
            }
        });
    }
    applications.join_all().await;
    scripted.until_messages(all.len()).await;
    gateway.stop();
    assert_eq!(subjects(&scripted), all, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_before_a_stop_or_a_kill_is_known_after_it() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = queued_in_front_of(&scripted, "", ON).start(1);
    let first = hand_in(gateway.address(), &["you@example.net"], &named("1", "first")).await;
    let (_, setup) = tokio::task::spawn_blocking(|| gateway.kill()).await.unwrap();
    let gateway = setup.start(1);
    assert_eq!(hand_in(gateway.address(), &["you@example.net"], &named("1", "first")).await, first);
    let (_, _, setup) = tokio::task::spawn_blocking(|| gateway.stop()).await.unwrap();
    let gateway = setup.start(1);
    assert_eq!(hand_in(gateway.address(), &["you@example.net"], &named("1", "first")).await, first);
    gateway.wait_for_line(&["submitted again", first.rsplit(' ').next().unwrap()]);
    hand_in(gateway.address(), &["you@example.net"], &named("2", "second")).await;
    scripted.until_messages(2).await;
    gateway.stop();
    assert_eq!(subjects(&scripted), ["first", "second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_mail_is_sent_whatever_it_is_called() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = queued_in_front_of(&scripted, "", ON).start(1);
    let keyed = |key: &str, subject: &str| format!("Idempotency-Key: {key}\r\n{}", mail(subject));
    let sent = [
        ("you@example.net", named("1", "a: one name")),
        ("me@example.net", named("1", "a: one name")),
        ("you@example.net", named("1", "b: the same name, another subject")),
        ("you@example.net", mail("d: no name")),
        ("you@example.net", mail("d: no name")),
        ("you@example.net", keyed("k", "e: a key")),
        ("you@example.net", keyed("k", "f: the same key")),
    ];
    let mut replies = Vec::new();
    for (recipient, message) in &sent {
        replies.push(hand_in(gateway.address(), &[recipient], message).await);
    }
    replies.sort_unstable();
    replies.dedup();
    assert_eq!(replies.len(), sent.len(), "each has a name of its own: {replies:?}");
    scripted.until_messages(sent.len()).await;
}

/// Off unless it is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_key_every_mail_that_is_submitted_is_sent() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = queued_in_front_of(&scripted, "", "").start(1);
    for _ in 0..2 {
        hand_in(gateway.address(), &["you@example.net"], &named("1", "twice")).await;
    }
    scripted.until_messages(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_connections_at_once_hand_in_one_mail() {
    let provider = Provider::away();
    let gateway = provider.queued("", ON).start(1);
    let message = named("1", "once");
    let to = ["you@example.net"];
    for _ in 0..20 {
        let (one, other) =
            tokio::join!(hand_in(gateway.address(), &to, &message), hand_in(gateway.address(), &to, &message));
        assert_eq!(one, other);
        assert!(one.starts_with("250 2.0.0 Queued as "), "{one}");
    }
    let scripted = provider.start().await;
    scripted.until_messages(1).await;
    gateway.stop();
    assert_eq!(subjects(&scripted), ["once"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_direct_mode_a_second_connection_waits_for_the_first_and_gets_its_250() {
    let scripted = ScriptedUpstream::start().await;
    let setup = in_front_of(&scripted, "").config_with("[queue]", &format!("[queue]\n{ON}"));
    let gateway = setup.start(1);
    let message = named("1", "once");
    let to = ["you@example.net"];
    let (one, other) =
        tokio::join!(hand_in(gateway.address(), &to, &message), hand_in(gateway.address(), &to, &message));
    assert!(one.starts_with("250 ") && other.starts_with("250 "), "{one}\n{other}");
    let (_, setup) = tokio::task::spawn_blocking(|| gateway.kill()).await.unwrap();
    let gateway = setup.start(1);
    let again = hand_in(gateway.address(), &to, &message).await;
    assert!(again.starts_with("250 2.0.0 Delivered as "), "{again}");
    gateway.stop();
    assert_eq!(subjects(&scripted), ["once"]);
}

/// What was refused was not sent: the next try is a try.
#[tokio::test(flavor = "multi_thread")]
async fn in_direct_mode_what_was_refused_is_tried_again() {
    let scripted = ScriptedUpstream::builder().once(At::Dot, "451 4.3.0 not now").start().await;
    let gateway = in_front_of(&scripted, "").config_with("[queue]", &format!("[queue]\n{ON}")).start(1);
    let message = named("1", "in the end");
    let to = ["you@example.net"];
    let first = hand_in(gateway.address(), &to, &message).await;
    assert!(first.starts_with("451 "), "{first}");
    let second = hand_in(gateway.address(), &to, &message).await;
    assert!(second.starts_with("250 "), "{second}");
    assert_eq!(subjects(&scripted), ["in the end"]);
}
