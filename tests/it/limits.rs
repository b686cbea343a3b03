//! `max_message_size` and `max_memory`: a message that fits arrives complete, one that does not is refused with a
//! reason, and then work continues.

use crate::support::application::{SENDER, hand_in, hand_in_octets, in_front_of, mail};
use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::upstream::{Action, At, ScriptedUpstream};
use std::sync::Arc;
use tokio::sync::Semaphore;

const RECIPIENTS: &[&str] = &["you@example.net"];
const MIB: usize = 1024 * 1024;

/// A message of exactly this many octets, every line different.
fn message_of(octets: usize) -> Vec<u8> {
    let mut message = mail("large").into_bytes();
    for number in 0.. {
        let line = format!("{number:0>74}\r\n");
        if message.len() + 2 * line.len() > octets {
            break;
        }
        message.extend_from_slice(line.as_bytes());
    }
    message.resize(octets - 2, b'x');
    message.extend_from_slice(b"\r\n");
    message
}

fn body(message: &[u8]) -> &[u8] {
    &message[memchr::memmem::find(message, b"\r\n\r\n").expect("a body")..]
}

/// How often it arrived, octet for octet.
fn arrived(scripted: &ScriptedUpstream, message: &[u8]) -> usize {
    scripted.messages().iter().filter(|arrived| body(&arrived.data) == body(message)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_message_arrives_whole_and_one_octet_more_is_refused() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = in_front_of(&scripted, "").start(1);
    let largest = message_of(25 * MIB);
    let reply = hand_in_octets(gateway.address(), RECIPIENTS, &largest).await;
    assert!(reply.starts_with("250 "), "{reply}");
    let reply = hand_in_octets(gateway.address(), RECIPIENTS, &message_of(25 * MIB + 1)).await;
    assert!(reply.starts_with("552 5.3.4 ") && reply.contains("`max_message_size`"), "{reply}");
    assert_eq!((arrived(&scripted, &largest), scripted.messages().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_too_large_size_at_mail_is_refused_early_and_without_one_the_session_stays_in_step() {
    let scripted = ScriptedUpstream::start().await;
    let limit = "[[listener]]\nmax_message_size = \"64 KiB\"\n";
    let gateway = in_front_of(&scripted, "").config_with("[[listener]]\n", limit).start(1);
    let mut client = Client::connect(gateway.address()).await;
    assert!(client.reply().await.is_some());
    assert!(client.ask("EHLO client.example").await.contains("SIZE 65536"));
    let reply = client.ask(&format!("MAIL FROM:<{SENDER}> SIZE=65537")).await;
    assert!(reply.starts_with("552 5.3.4 "), "{reply}");
    for (octets, code) in [(65_536, "250 "), (65_537, "552 5.3.4 "), (3_000_000, "552 5.3.4 "), (65_536, "250 ")] {
        for line in [&format!("MAIL FROM:<{SENDER}>"), "RCPT TO:<you@example.net>"] {
            assert!(client.ask(line).await.starts_with("250 "));
        }
        assert!(client.ask("DATA").await.starts_with("354 "));
        client.send(&message_of(octets)).await;
        let reply = client.ask(".").await;
        assert!(reply.starts_with(code), "{octets}: {reply}");
    }
    assert_eq!((arrived(&scripted, &message_of(65_536)), scripted.messages().len()), (2, 2));
}

/// Half of it is for incoming mail.
fn with_memory(scripted: &ScriptedUpstream, memory: &str, message: &str) -> Gateway {
    in_front_of(scripted, "")
        .config_with("[log]\n", &format!("max_memory = \"{memory}\"\n[log]\n"))
        .config_with("[[listener]]\n", &format!("[[listener]]\nmax_message_size = \"{message}\"\n"))
        .start(1)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_into_memory_is_to_come_back_and_nothing_else_suffers() {
    let scripted = ScriptedUpstream::start().await;
    let permits = Arc::new(Semaphore::new(0));
    let gateway = with_memory(&scripted, "4 MiB", "1 MiB");
    let address = gateway.address();
    let large = message_of(MIB);
    let half = message_of(MIB / 2);
    let mut waiting = Vec::new();
    for (number, message) in [&large, &half].into_iter().enumerate() {
        scripted.once(At::Dot, Action::OnceAllowed(Arc::clone(&permits)));
        let message = message.clone();
        waiting.push(tokio::spawn(async move { hand_in_octets(address, RECIPIENTS, &message).await }));
        scripted.until_messages(number + 1).await;
    }
    // The provider has them and has not answered: the gateway must keep them.
    let reply = hand_in_octets(address, RECIPIENTS, &large).await;
    assert!(reply.starts_with("452 4.3.1 ") && reply.contains("try again later"), "{reply}");
    let mut client = Client::connect(address).await;
    client.greet().await;
    let reply = client.ask(&format!("MAIL FROM:<{SENDER}> SIZE={MIB}")).await;
    assert!(reply.starts_with("452 4.3.1 "), "{reply}");
    let reply = hand_in(address, RECIPIENTS, &mail("small")).await;
    assert!(reply.starts_with("250 "), "a small one fits: {reply}");

    permits.add_permits(2);
    for reply in waiting {
        assert!(reply.await.unwrap().starts_with("250 "));
    }
    let reply = hand_in_octets(address, RECIPIENTS, &large).await;
    assert!(reply.starts_with("250 "), "there is room again: {reply}");
    assert_eq!((arrived(&scripted, &large), arrived(&scripted, &half)), (2, 1));
    assert_eq!(scripted.messages().len(), 4, "and the small one");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_for_one_message_is_enough_for_one_message() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = with_memory(&scripted, "2176 KiB", "1 MiB");
    for _ in 0..2 {
        let reply = hand_in_octets(gateway.address(), RECIPIENTS, &message_of(MIB)).await;
        assert!(reply.starts_with("250 "), "{reply}");
    }
    assert_eq!(arrived(&scripted, &message_of(MIB)), 2);
}

/// If all the memory would not suffice for a repair, trying again later would not help.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_memory_is_enough_to_repair_is_taken_as_it_is() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = with_memory(&scripted, "2176 KiB", "1 MiB");
    let size = 900 * 1024;
    let text = "\u{43f}\u{440}\u{438}\u{432}\u{435}\u{442}\r\n".repeat(size / 14);
    let html = "<p>short</p>\r\n".repeat(size / 14);
    // Its one line is too long for any server.
    let base64 = "QUJD".repeat(size / 4);
    let head = "Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n";
    let message = format!("From: a@example.com\r\n{head}\r\n{base64}\r\n");
    let reply = hand_in_octets(gateway.address(), RECIPIENTS, message.as_bytes()).await;
    assert!(reply.starts_with("550 5.6.0 Refused: line 1 of the body has 921600 octets"), "{reply}");
    for (what, head, body, says) in [
        ("8-bit text that says so", "Content-Transfer-Encoding: 8bit\r\n", text.clone(), false),
        ("8-bit text that does not", "", text, true),
        ("HTML alone", "Content-Type: text/html; charset=utf-8\r\n", html, true),
    ] {
        let number = scripted.messages().len();
        let message = format!("From: a@example.com\r\nSubject: =?UTF-8?Q?plain?=\r\n{head}\r\n{body}");
        let reply = hand_in_octets(gateway.address(), RECIPIENTS, message.as_bytes()).await;
        assert!(reply.starts_with("250 "), "{what}: {reply}");
        let arrived = scripted.messages().get(number).expect("a message").data.clone();
        assert!(arrived.ends_with(format!("\r\n\r\n{body}").as_bytes()), "{what}: the body is another");
        let header = String::from_utf8_lossy(&arrived[..arrived.len() - body.len()]).into_owned();
        assert!(header.contains("\r\nSubject: plain\r\n") && header.contains("\r\nDate: "), "{what}: {header}");
        if says {
            gateway.wait_for_line(&["too little to repair its body"]);
        }
    }
}

/// A repair is not worth it either if it would leave none for the rules.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_repair_would_leave_no_memory_for_the_rules_is_taken_as_it_is() {
    let scripted = ScriptedUpstream::start().await;
    let rule =
        "[[rewrite]]\nname = \"links\"\nbody_contains = \"plain\"\nset_headers = { X-Rule = \"followed\" }\n[log]\n";
    let gateway = in_front_of(&scripted, "")
        .config_with("[log]\n", &format!("max_memory = \"6 MiB\"\n{rule}"))
        .config_with("[[listener]]\n", "[[listener]]\nmax_message_size = \"512 KiB\"\n")
        .start(1);
    // In quoted-printable it is six tenths larger, and then the rules read it into memory of their own.
    let body = "\u{43f}\u{440}\u{438}\u{432}\u{435}\u{442} and something plain......\r\n".repeat(12_500);
    let reply = hand_in(gateway.address(), RECIPIENTS, &format!("From: a@example.com\r\n\r\n{body}")).await;
    assert!(reply.starts_with("250 "), "{reply}");
    gateway.wait_for_line(&["too little to repair its body"]);
    let arrived = &scripted.messages()[0].data;
    assert!(arrived.ends_with(format!("\r\n\r\n{body}").as_bytes()), "the body is another");
    assert!(memchr::memmem::find(arrived, b"\r\nX-Rule: followed\r\n").is_some());
}
