//! The normal case of one message over one connection: two round trips, and the same bytes on the other side.

use crate::support::mail::{envelope, envelope_from, numbered, unsigned};
use crate::support::relay::{assert_told, ready, send, upstream};
use crate::support::upstream::ScriptedUpstream;
use waxseal::message::Envelope;
use waxseal::smtp::ReversePath;

#[tokio::test]
async fn a_warm_connection_needs_two_round_trips() {
    let scripted = ScriptedUpstream::start().await;
    let upstream = upstream(scripted.options("company"));
    let envelope = envelope(&["b@example.net", "c@example.net"]);
    for number in 1..=3 {
        assert_eq!(ready(&upstream).await.unwrap().is_reused(), number > 1, "a dropped one goes back");
        let outcomes = send(&upstream, &envelope, &numbered(number)).await.unwrap();
        assert_told(&outcomes, &["delivered", "delivered"]);
        assert_eq!((scripted.round_trips(), scripted.segments()), (2 * number, 2 * number));
    }
    assert_eq!((scripted.counts().total, scripted.count("RSET")), (1, 0));
    assert_eq!(scripted.messages()[2].recipients, ["b@example.net", "c@example.net"]);
}

#[tokio::test]
async fn without_pipelining_each_command_waits_for_its_reply() {
    let scripted = ScriptedUpstream::builder().without("PIPELINING").start().await;
    let upstream = upstream(scripted.options("company"));
    let envelope = envelope(&["b@example.net", "c@example.net"]);
    assert_told(&send(&upstream, &envelope, &numbered(1)).await.unwrap(), &["delivered", "delivered"]);
    assert_eq!((scripted.round_trips(), scripted.segments()), (5, 5), "MAIL, RCPT, RCPT, DATA, data");
}

#[tokio::test]
async fn awkward_messages_arrive_as_they_left() {
    let scripted = ScriptedUpstream::start().await;
    let upstream = upstream(scripted.options("company"));
    let header = "From: a@example.com\r\nSubject: s\r\n";
    let long_line = "x".repeat(998);
    let large = format!(".{}\r\n", "y".repeat(70)).repeat(25 * 1024 * 1024 / 73);
    let bodies =
        ["", "\r\n\r\n", ".\r\n", "..\r\n.a\r\n", "a \t\r\n\r\n.\r\n", &format!("{long_line}\r\n"), "bödy\r\n", &large];
    let envelope = envelope(&["b@example.net"]);
    for body in bodies {
        let message = format!("{header}\r\n{body}");
        assert_told(&send(&upstream, &envelope, &unsigned(message.as_str())).await.unwrap(), &["delivered"]);
        let arrived = scripted.messages().pop().unwrap();
        assert!(arrived.data == message.as_bytes(), "{} octets became {}", message.len(), arrived.data.len());
        assert!(arrived.mail.contains(&format!("SIZE={}", message.len())), "{}", arrived.mail);
        assert_eq!(arrived.mail.contains("BODY=8BITMIME"), !message.is_ascii());
    }
    assert_eq!(scripted.counts().total, 1);
}

#[tokio::test]
async fn a_thousand_recipients_do_not_block_both_sides() {
    let scripted = ScriptedUpstream::start().await;
    let upstream = upstream(scripted.options("company"));
    let recipients: Vec<String> = (0..1000).map(|number| format!("{number}{}@example.net", "r".repeat(50))).collect();
    let envelope = envelope(&recipients.iter().map(String::as_str).collect::<Vec<_>>());
    let outcomes = send(&upstream, &envelope, &numbered(1)).await.unwrap();
    assert_told(&outcomes, &vec!["delivered"; 1000]);
    assert_eq!(scripted.messages()[0].recipients, recipients);
}

#[tokio::test]
async fn the_null_sender_and_odd_addresses_travel_verbatim() {
    let scripted = ScriptedUpstream::start().await;
    let upstream = upstream(scripted.options("company"));
    let mut null = Envelope::new(ReversePath::Null);
    null.recipients = envelope(&[r#""a b"@example.net"#, "a@[127.0.0.1]"]).recipients;
    send(&upstream, &null, &numbered(1)).await.unwrap();
    send(&upstream, &envelope_from("jürgen@example.com", &["b@example.net"]), &numbered(2)).await.unwrap();
    let messages = scripted.messages();
    assert!(messages[0].mail.starts_with("<> ") && !messages[0].mail.contains("SMTPUTF8"));
    assert_eq!(messages[0].recipients, [r#""a b"@example.net"#, "a@[127.0.0.1]"]);
    assert!(messages[1].mail.starts_with("<jürgen@example.com> ") && messages[1].mail.contains("SMTPUTF8"));
}
