//! `delivery = "queue"` and a provider that is unavailable, refuses the login, or asks for patience: mail is accepted
//! anyway, none of it fails, and when the provider returns, all of it is delivered within the cap.

use crate::support::application::{SENDER, hand_in, hand_in_many, mail, numbered, queued_in_front_of, subjects};
use crate::support::provider::Provider;
use crate::support::real_clients::{Load, smtp_source};
use crate::support::upstream::{Action, At, Message, ScriptedUpstream};
use tokio::task::JoinSet;

/// `count` mails over several connections at once.
async fn hand_in_load(gateway: std::net::SocketAddr, subjects: &[String]) {
    let mut clients = JoinSet::new();
    for part in subjects.chunks(subjects.len().div_ceil(8)) {
        let part = part.to_vec();
        clients.spawn(async move { hand_in_many(gateway, SENDER, "you@example.net", &part).await });
    }
    clients.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_250_comes_although_the_provider_is_away_and_the_mail_arrives_when_it_is_back() {
    let provider = Provider::away();
    let gateway = provider.queued("", "").start(1);
    let reply = hand_in(gateway.address(), &["you@example.net"], &mail("patience")).await;
    assert!(reply.starts_with("250 2.0.0 Queued as "), "{reply}");
    let id = reply.rsplit(' ').next().unwrap().to_owned();
    gateway.wait_for_line(&["\"queued\"", &id, "\"size\":"]);
    gateway.wait_for_line(&["\"deferred\"", &id, "connect", &provider.address().to_string()]);
    gateway.wait_for_line(&["upstream unavailable", "\"upstream\":\"company\"", "connect"]);
    let scripted = provider.start().await;
    scripted.until_messages(1).await;
    let delivered = gateway.wait_for_line(&["\"delivered\"", &id]);
    assert!(delivered.contains("\"upstream\":\"company\"") && delivered.contains("\"ms\":"), "{delivered}");
    assert_eq!(subjects(&scripted), ["patience"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_fails_none_of_a_thousand_mails_and_recovery_causes_no_burst() {
    const MAILS: usize = 1000;
    let scripted = ScriptedUpstream::builder().always(At::Auth, "535 5.7.8 wrong password").start().await;
    let gateway = queued_in_front_of(&scripted, "max_connections = 3", "").start(1);
    hand_in_load(gateway.address(), &numbered(MAILS)).await;
    gateway.wait_for_line(&["\"deferred\"", "AUTH", "535"]);
    gateway.wait_for_line(&["upstream unavailable", "AUTH", "535"]);
    let logins = scripted.logins().len();
    assert!(logins < 40, "{logins} logins with a wrong password");
    scripted.always(At::Auth, "235 2.7.0 welcome");
    scripted.until_messages(MAILS).await;
    assert_eq!(subjects(&scripted), numbered(MAILS), "everything, once");
    assert!(scripted.counts().max <= 3, "{:?}", scripted.counts());
    let log = gateway.log();
    assert!(!log.iter().any(|line| line.contains("\"message\":\"failed\"")), "nothing failed");
    gateway.wait_for_line(&["upstream available again"]);
}

/// One attempt a pause judged one message a pause: with forty of them the last would have failed hours late.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_never_comes_back_fails_everything_on_time() {
    const MAILS: usize = 40;
    let provider = Provider::away();
    let gateway = provider.queued("", "expire = \"3s\"").start(1);
    hand_in_load(gateway.address(), &numbered(MAILS)).await;
    let failed = || gateway.log().iter().filter(|line| line.contains("\"message\":\"failed\"")).count();
    let deadline = tokio::time::Instant::now() + crate::support::client::HANG_GUARD;
    while failed() < MAILS {
        assert!(tokio::time::Instant::now() < deadline, "only {} of {MAILS} have failed", failed());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let untried = gateway.wait_for_line(&["\"message\":\"failed\"", "waiting for capacity"]);
    assert!(untried.contains("expired after 3") && untried.contains("connect"), "{untried}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_421_in_the_middle_slows_the_upstream_down_and_fails_nothing() {
    const MAILS: usize = 60;
    let bye = || Action::say_and_close("421 4.7.0 too many messages, slow down");
    let builder = (0..3).fold(ScriptedUpstream::builder(), |builder, _| builder.once(At::Mail, bye()));
    let scripted = builder.start().await;
    let gateway = queued_in_front_of(&scripted, "max_connections = 3", "").start(1);
    hand_in_load(gateway.address(), &numbered(MAILS)).await;
    scripted.until_messages(MAILS).await;
    assert_eq!(subjects(&scripted), numbered(MAILS));
    gateway.wait_for_line(&["upstream unavailable", "421"]);
    assert!(!gateway.log().iter().any(|line| line.contains("\"message\":\"failed\"")));
    assert!(scripted.counts().max <= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn smtp_sources_burst_arrives_once_and_within_the_cap_after_the_provider_was_away() {
    const MAILS: usize = 400;
    let provider = Provider::away();
    let gateway = provider.queued("max_connections = 4", "").start(1);
    let address = gateway.address().to_string();
    let load =
        Load { sessions: 20, messages: MAILS, size: 4500, sender: "reports@example.com", recipient: "you@example.net" };
    let Some(sent) = tokio::task::spawn_blocking(move || smtp_source(&address, &load)).await.unwrap() else { return };
    assert!(sent.success, "{sent:?}");
    gateway.wait_for_line(&["upstream unavailable"]);
    let scripted = provider.start().await;
    scripted.until_messages(MAILS).await;
    // smtp-source gives every mail the same Message-ID; the gateway's own names are in the trace.
    let own_name = |message: &Message| {
        let text = String::from_utf8_lossy(&message.data).into_owned();
        text.split_once(" id ").and_then(|(_, rest)| rest.split_once(';')).map(|(id, _)| id.to_owned())
    };
    let mut ids: Vec<_> = scripted.messages().iter().map(|message| own_name(message).expect("a trace")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), scripted.messages().len()), (MAILS, MAILS), "each once");
    assert!(scripted.counts().max <= 4, "{:?}", scripted.counts());
}
