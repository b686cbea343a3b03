//! STARTTLS towards clients: nothing sent in plain text has an effect after it, earlier state is discarded, and nothing
//! worth stealing is sent without it. RFC 3207 §4.2, CVE-2011-0411, CVE-2021-3618.

use crate::support::certificate::Authority;
use crate::support::client::Client;
use crate::support::listener::{Listening, Recorder, budget, options, server_tls};
use crate::support::tally::Tally;
use waxseal::inbound::users::{Password, Users};
use waxseal::inbound::{ListenerOptions, Tls};
use waxseal::observe::Secret;

const MAIL: &[u8] = b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nevil\r\n.\r\n";

/// What follows STARTTLS in the same segment.
const INJECTED: &[&[u8]] =
    &[b"EHLO evil\r\n", b"EHL", b"\r\n", b"\n", b"\0", b" ", MAIL, b"GET / HTTP/1.1\r\n\r\n", b"RSET\r\nQUIT\r\n"];

/// Input in place of the handshake: the last is a hello of TLS 1.1, as far as its version.
const NO_HANDSHAKE: &[&[u8]] = &[
    b"EHLO evil\r\n",
    MAIL,
    b"GET / HTTP/1.1\r\n\r\n",
    &[0; 64],
    &[0xff; 64],
    b"\x16\x03\x02\x00\x2d\x01\x00\x00\x29\x03\x02abcdefghijklmnopqrstuvwxyz012345\x00\x00\x02\x00\x2f\x01\x00",
];

async fn greeted(listening: &Listening<Recorder>) -> Client {
    let mut client = Client::connect(listening.address).await;
    client.greet().await;
    client
}

async fn secured(listening: &Listening<Recorder>, authority: &Authority) -> Client {
    let mut client = greeted(listening).await;
    assert!(client.ask("STARTTLS").await.starts_with("220 "));
    client.start_tls(authority).await.expect("a handshake")
}

/// Until the end of the connection.
async fn rest(client: &mut Client) -> Vec<String> {
    let mut said = Vec::new();
    while let Some(reply) = client.try_reply().await {
        said.push(reply);
    }
    said
}

async fn attacks(tally: &mut Tally, listening: &Listening<Recorder>) {
    for injected in INJECTED {
        let mut client = greeted(listening).await;
        client.send(&[b"STARTTLS\r\n", *injected].concat()).await;
        let said = rest(&mut client).await;
        tally.case(said.len() <= 1, || format!("{}: {said:?}", injected.escape_ascii()));
    }
    for instead in NO_HANDSHAKE {
        let mut client = greeted(listening).await;
        assert!(client.ask("STARTTLS").await.starts_with("220 "));
        client.send(instead).await;
        client.send(MAIL).await;
        client.close_sending().await;
        // A TLS alert is not a reply.
        let said = rest(&mut client).await;
        let replies = said.iter().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count();
        tally.case(replies == 0, || format!("{}: {said:?}", instead.escape_ascii()));
    }
}

/// Each line with the beginning of its reply; before TLS and inside it.
const BEFORE: &[(&str, &str)] = &[
    ("MAIL FROM:<a@example.com>", "530 5.7.0 "),
    ("RCPT TO:<b@example.net>", "503 "),
    ("DATA", "503 "),
    ("AUTH PLAIN AHVzZXIAcGFzc3dvcmQ=", "538 5.7.11 "),
    ("AUTH LOGIN", "538 5.7.11 "),
    ("STARTTLS now", "501 "),
    ("NOOP", "250 "),
];
const INSIDE: &[(&str, &str)] = &[
    ("MAIL FROM:<a@example.com>", "503 "),
    ("AUTH PLAIN AHVzZXIAcGFzc3dvcmQ=", "503 "),
    ("STARTTLS", "503 "),
    ("EHLO again.example", "250-"),
    ("STARTTLS", "503 "),
    ("AUTH PLAIN AHVzZXIAcGFzc3dvcmQ=", "235 "),
    ("MAIL FROM:<a@example.com>", "250 "),
    ("STARTTLS", "503 "),
    ("RCPT TO:<b@example.net>", "250 "),
];

async fn rules(tally: &mut Tally, listening: &Listening<Recorder>, authority: &Authority) {
    let mut client = greeted(listening).await;
    for (line, expected) in BEFORE {
        let reply = client.ask(line).await;
        tally.case(reply.starts_with(expected), || format!("in clear, {line}: {reply}"));
    }
    assert!(client.ask("STARTTLS").await.starts_with("220 "));
    let mut client = client.start_tls(authority).await.expect("a handshake");
    for (line, expected) in INSIDE {
        let reply = client.ask(line).await;
        tally.case(reply.starts_with(expected) && !reply.contains("STARTTLS\n"), || format!("inside, {line}: {reply}"));
    }
    let mut client = secured(listening, authority).await;
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let said = rest(&mut client).await;
    tally.case(said.len() == 1 && said[0].starts_with("421 4.7.0 "), || format!("HTTP inside TLS: {said:?}"));
    let mut client = secured(listening, authority).await;
    client.send(&b"FOO\r\n".repeat(30)).await;
    let said = rest(&mut client).await;
    let right = said.len() == 20 && said[19].starts_with("421 4.7.0 ");
    tally.case(right, || format!("bad commands inside TLS: {said:?}"));
}

#[tokio::test]
async fn nothing_said_in_clear_is_heard_inside() {
    let mut tally = Tally::new("starttls-in", "listener");
    let authority = Authority::new();
    let users = Users::new([("user".into(), Password::Plain(Secret::new("password")))]);
    let tls = Tls::StartTls(server_tls(&authority));
    let listening = Listening::start(ListenerOptions { tls, ..options() }, users, budget(), Recorder::default());
    attacks(&mut tally, &listening).await;
    rules(&mut tally, &listening, &authority).await;
    // A well-behaved client is still served.
    let mut client = secured(&listening, &authority).await;
    for line in ["EHLO honest.example", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>", "DATA", "honest\r\n."] {
        let reply = client.ask(line).await;
        tally.case(reply.starts_with('2') || reply.starts_with("354 "), || format!("{line}: {reply}"));
    }
    let taken = listening.intake.take();
    let right = taken.len() == 1 && &taken[0].data[..] == b"honest\r\n" && taken[0].client.tls.is_some();
    tally.case(right, || format!("{taken:?}"));
    tally.finish();
}
