//! `delivery = "queue"`: each recipient of a message is settled on its own.

use crate::support::application::{hand_in, in_front_of, mail, queued_in_front_of};
use crate::support::upstream::{At, ScriptedUpstream};

#[tokio::test(flavor = "multi_thread")]
async fn only_deferred_recipients_are_retried() {
    let scripted = ScriptedUpstream::builder()
        .recipient("gone@", "550 5.1.1 no such user")
        .once(At::Rcpt, "250 2.1.5 ok")
        .once(At::Rcpt, "450 4.2.1 greylisted")
        .start()
        .await;
    let gateway = queued_in_front_of(&scripted, "", "").start(1);
    let recipients = ["gone@example.net", "you@example.net", "grey@example.net"];
    let reply = hand_in(gateway.address(), &recipients, &mail("mixed")).await;
    assert!(reply.starts_with("250 2.0.0 Queued as "), "one 250 for all: {reply}");
    scripted.until_messages(2).await;
    let sent: Vec<_> = scripted.messages().into_iter().map(|message| message.recipients).collect();
    assert_eq!(sent, [vec!["you@example.net"], vec!["grey@example.net"]]);
    let failed = gateway.wait_for_line(&["\"failed\"", "gone@example.net", "550 5.1.1 no such user"]);
    assert!(failed.contains("\"ERROR\""), "{failed}");
    gateway.wait_for_line(&["\"deferred\"", "grey@example.net", "450 4.2.1 greylisted"]);
    gateway.wait_for_line(&["\"delivered\"", "grey@example.net"]);
    let asked = scripted.commands().into_iter().filter(|line| line.contains("gone@")).count();
    assert_eq!(asked, 1, "who failed is not asked for again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_recipients_go_in_as_many_transactions_as_the_provider_wants() {
    const AT_ONCE: usize = 30;
    let mut builder = ScriptedUpstream::builder();
    for round in 0..4 {
        for _ in 0..AT_ONCE.min(100 - round * AT_ONCE) {
            builder = builder.once(At::Rcpt, "250 2.1.5 ok");
        }
        for _ in 0..100usize.saturating_sub((round + 1) * AT_ONCE) {
            builder = builder.once(At::Rcpt, "452 4.5.3 too many recipients");
        }
    }
    let scripted = builder.start().await;
    let gateway = queued_in_front_of(&scripted, "", "").start(1);
    let recipients: Vec<String> = (0..100).map(|number| format!("r{number:03}@example.net")).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    hand_in(gateway.address(), &recipients, &mail("many")).await;
    scripted.until_messages(4).await;
    let sent: Vec<_> = scripted.messages().into_iter().map(|message| message.recipients).collect();
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [30, 30, 30, 10]);
    assert_eq!(sent.concat(), recipients, "everybody once, in order");
    gateway.wait_for_line(&["\"delivered\"", "r099@example.net"]);
    assert!(!gateway.log().iter().any(|line| line.contains("\"message\":\"deferred\"")), "within one attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_no_key_can_seal_is_refused_at_the_dot_in_both_modes() {
    let scripted = ScriptedUpstream::start().await;
    let pem = waxseal::dkim::generate(waxseal::dkim::KeyAlgorithm::Ed25519).unwrap();
    let key = "[[dkim]]\ndomain = \"example.com\"\nselector = \"wax1\"\nprivate_key = \"key.pem\"\n";
    let message = "References: <x@example.com>\r\n".repeat(101) + &mail("too many of them");
    for setup in [queued_in_front_of(&scripted, key, ""), in_front_of(&scripted, key)] {
        let gateway = setup.file("key.pem", pem.reveal()).start(1);
        let reply = hand_in(gateway.address(), &["you@example.net"], &message).await;
        assert!(reply.starts_with("550 5.6.0 ") && reply.contains("more than 100 References"), "{reply}");
    }
    assert!(scripted.messages().is_empty());
}
