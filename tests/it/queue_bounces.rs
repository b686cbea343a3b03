//! `[queue] bounce`: who gets a bounce, what it looks like, and that no bounce is ever answered by another.

use crate::support::application::{configuration, field, hand_in, mail, queued_in_front_of};
use crate::support::client::Client;
use crate::support::gateway::Setup;
use crate::support::upstream::{Message, Rules, ScriptedUpstream};
use mail_parser::{MessageParser, MimeHeaders};

async fn refusing() -> ScriptedUpstream {
    ScriptedUpstream::builder().recipient("gone@", "550 5.1.1 no such user").start().await
}

fn text(message: &Message) -> String {
    String::from_utf8(message.data.clone()).expect("seven bits")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sender_gets_one_bounce_for_all_failed_recipients() {
    let scripted = refusing().await;
    let gateway = queued_in_front_of(&scripted, "", "bounce = \"sender\"").start(1);
    let recipients = ["gone@example.net", "you@example.net", "gone@example.org"];
    let reply = hand_in(gateway.address(), &recipients, &mail("half of it")).await;
    let id = reply.rsplit(' ').next().unwrap();
    scripted.until_messages(2).await;
    gateway.wait_for_line(&["queued a bounce", id, "reports@example.com"]);
    let messages = scripted.messages();
    let bounce = messages.iter().find(|message| message.mail.starts_with("<>")).expect("a bounce");
    assert_eq!(bounce.recipients, ["reports@example.com"]);
    assert_eq!(field(&bounce.data, "From"), "Mail Delivery System <MAILER-DAEMON@example.com>");
    let parsed = MessageParser::new().parse(&bounce.data).expect("a message");
    assert_eq!(parsed.content_type().and_then(|of| of.attribute("report-type")), Some("delivery-status"));
    let bounce = text(bounce);
    for part in ["gone@example.net", "gone@example.org", "Status: 5.1.1", "550 5.1.1 no such user", "half of it", id] {
        assert!(bounce.contains(part), "{part}\n{bounce}");
    }
    assert!(!bounce.contains("Final-Recipient: rfc822; you@example.net"), "{bounce}");
    assert!(!bounce.contains("Hello."), "the body stays here: {bounce}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postmaster_gets_the_bounce_and_a_domain_with_a_key_signs_it() {
    let scripted = refusing().await;
    let pem = waxseal::dkim::generate(waxseal::dkim::KeyAlgorithm::Ed25519).unwrap();
    let key = "[[dkim]]\ndomain = \"example.com\"\nselector = \"wax1\"\nprivate_key = \"key.pem\"\n";
    let setup = queued_in_front_of(&scripted, key, "bounce = \"postmaster@example.org\"");
    let gateway = setup.file("key.pem", pem.reveal()).start(1);
    hand_in(gateway.address(), &["gone@example.net"], &mail("none of it")).await;
    scripted.until_messages(1).await;
    let bounce = scripted.messages().remove(0);
    assert_eq!((bounce.mail.starts_with("<>"), bounce.recipients), (true, vec!["postmaster@example.org".to_owned()]));
    assert!(bounce.data.starts_with(b"DKIM-Signature: "), "{}", String::from_utf8_lossy(&bounce.data));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bounce_answers_a_bounce_or_other_mail_from_the_null_path() {
    for to in ["sender", "gone@example.com"] {
        let scripted = refusing().await;
        let gateway = queued_in_front_of(&scripted, "", &format!("bounce = \"{to}\"")).start(1);
        let mut client = Client::connect(gateway.address()).await;
        client.greet().await;
        for line in ["MAIL FROM:<>", "RCPT TO:<gone@example.net>", "DATA"] {
            client.ask(line).await;
        }
        assert!(client.ask(&format!("{}.", mail("a bounce of somebody's"))).await.starts_with("250 "));
        gateway.wait_for_line(&["\"failed\"", "gone@example.net"]);
        // The last of the lane: anything caused by the earlier failure would have arrived before it.
        hand_in(gateway.address(), &["you@example.net"], &mail("the last")).await;
        scripted.until_messages(1).await;
        assert_eq!(field(&scripted.messages()[0].data, "Subject"), "the last");
        assert!(!gateway.log().iter().any(|line| line.contains("queued a bounce")), "{to}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounce_that_fails_itself_is_the_end_of_it() {
    let scripted = refusing().await;
    let gateway = queued_in_front_of(&scripted, "", "bounce = \"gone@example.com\"").start(1);
    hand_in(gateway.address(), &["gone@example.net"], &mail("lost")).await;
    gateway.wait_for_line(&["\"failed\"", "gone@example.net"]);
    gateway.wait_for_line(&["\"failed\"", "gone@example.com"]);
    hand_in(gateway.address(), &["you@example.net"], &mail("the last")).await;
    scripted.until_messages(1).await;
    let bounces = gateway.log().iter().filter(|line| line.contains("queued a bounce")).count();
    assert_eq!(bounces, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_mode_bounces_for_whom_the_250_did_not_mean() {
    let scripted = refusing().await;
    let config = configuration(scripted.address(), "direct", "", "bounce = \"sender\"");
    let gateway = Setup::new(Some(&config)).file("ca.pem", scripted.ca()).start(1);
    let none = hand_in(gateway.address(), &["gone@example.net"], &mail("refused")).await;
    assert!(none.starts_with("550 5.1.1 "), "the application is told, and nobody else: {none}");
    let some = hand_in(gateway.address(), &["gone@example.net", "you@example.net"], &mail("half")).await;
    assert!(some.starts_with("250 "), "{some}");
    scripted.until_messages(2).await;
    let bounces: Vec<_> = scripted.messages().into_iter().filter(|message| message.mail.starts_with("<>")).collect();
    let [bounce] = bounces.as_slice() else { panic!("{bounces:?}") };
    assert!(text(bounce).contains("Subject: half"), "{}", text(bounce));
}

/// Amazon SES: each sender must be a verified one, in the envelope and in From, and nobody verifies the null path.
async fn verifying() -> ScriptedUpstream {
    fn unverified(message: &[u8]) -> Option<&'static str> {
        let from = field(message, "From");
        (!from.contains("@example.com>") && !from.ends_with("@example.com"))
            .then_some("554 Message rejected: Email address is not verified")
    }
    let rules = Rules {
        sender: |mail| mail.starts_with("<>").then_some("501 Invalid MAIL FROM address provided"),
        message: unverified,
        ..Rules::default()
    };
    let keywords = ["PIPELINING", "8BITMIME", "AUTH PLAIN LOGIN"];
    let builder = ScriptedUpstream::builder().rules(rules, &keywords);
    builder.recipient("gone@", "550 5.1.1 no such user").start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_refuses_the_null_sender_gets_bounces_from_an_address() {
    for to in ["sender", "gone@example.com"] {
        let scripted = verifying().await;
        let queue = format!("bounce = \"{to}\"\nbounce_sender = \"postmaster@example.com\"");
        let gateway = queued_in_front_of(&scripted, "", &queue).start(1);
        hand_in(gateway.address(), &["gone@example.net"], &mail("none of it")).await;
        gateway.wait_for_line(&["queued a bounce"]);
        if to == "sender" {
            scripted.until_messages(1).await;
            let bounce = scripted.messages().remove(0);
            assert!(bounce.mail.starts_with("<postmaster@example.com>"), "{}", bounce.mail);
            assert_eq!(bounce.recipients, ["reports@example.com"]);
            assert_eq!(field(&bounce.data, "From"), "Mail Delivery System <postmaster@example.com>");
            assert_eq!(field(&bounce.data, "Auto-Submitted"), "auto-replied");
        } else {
            gateway.wait_for_line(&["\"message\":\"failed\"", "gone@example.com"]);
        }
        hand_in(gateway.address(), &["you@example.net"], &mail("the last")).await;
        gateway.wait_for_line(&["\"message\":\"delivered\"", "you@example.net"]);
        let bounces = gateway.log().iter().filter(|line| line.contains("queued a bounce")).count();
        assert_eq!(bounces, 1, "{to}: no bounce of a bounce");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounce_that_is_refused_for_its_null_sender_names_the_key_to_set() {
    let scripted = verifying().await;
    let gateway = queued_in_front_of(&scripted, "", "bounce = \"sender\"").start(1);
    hand_in(gateway.address(), &["gone@example.net"], &mail("none of it")).await;
    gateway.wait_for_line(&["\"message\":\"failed\"", "501 Invalid MAIL FROM", "`bounce_sender`"]);
}

/// Another gateway's bounce, from an address too: an answer to it would go round in circles.
#[tokio::test(flavor = "multi_thread")]
async fn no_bounce_answers_a_delivery_report_from_an_address() {
    let scripted = refusing().await;
    let queue = "bounce = \"sender\"\nbounce_sender = \"postmaster@example.com\"";
    let gateway = queued_in_front_of(&scripted, "", queue).start(1);
    let report = mail("a report").replacen(
        "\r\n\r\n",
        "\r\nMIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\
         Auto-Submitted: auto-replied\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b\r\n\
         Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n\r\n--b--\r\n",
        1,
    );
    hand_in(gateway.address(), &["gone@example.net"], &report).await;
    gateway.wait_for_line(&["\"message\":\"failed\"", "gone@example.net"]);
    hand_in(gateway.address(), &["you@example.net"], &mail("the last")).await;
    scripted.until_messages(1).await;
    assert!(!gateway.log().iter().any(|line| line.contains("queued a bounce")));
}
