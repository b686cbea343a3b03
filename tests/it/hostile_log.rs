//! Whatever a client or a provider puts into names, addresses and replies: one event is one log line, and no line
//! affects the terminal that shows it.

use crate::support::application::{in_front_of, mail};
use crate::support::certificate::Authority;
use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::tally::Tally;
use crate::support::upstream::{Action, At, ScriptedUpstream};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::net::SocketAddr;
use waxseal::inbound::users::hash_password;
use waxseal::observe::Secret;

/// Colours, a forged event, another direction of reading, non-ASCII line breaks.
const EVIL: &str = "\u{1b}[31m\u{202e}\u{2028}\u{85}\",\"level\":\"FORGED\"}\u{7}";

/// What a command may contain: no control characters.
const MEAN: &str = "\u{202e}\u{2066}\",\"level\":\"FORGED\"}";

fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}')
}

/// A provider whose every reply is hostile, and whose answers to the final dot differ.
async fn evil_provider() -> ScriptedUpstream {
    let say = |code: &str| Action::Raw(format!("{code} {EVIL}\rcr\r\n").into_bytes());
    ScriptedUpstream::builder()
        .always(At::Greeting, say("220"))
        .always(At::StartTls, say("220"))
        .always(At::Auth, say("235"))
        .once(At::Rcpt, say("550 5.1.1"))
        .once(At::Rcpt, say("450 4.2.1"))
        .always(At::Rcpt, say("250 2.1.5"))
        .once(At::Dot, say("554 5.7.1"))
        .once(At::Dot, Action::RawAndClose(format!("nonsense {EVIL}\n250 ok\r\n").into_bytes()))
        .always(At::Dot, say("250 2.0.0"))
        .start()
        .await
}

/// Sends all this to the gateway, whatever it answers.
async fn evil_client(gateway: SocketAddr) {
    let login = STANDARD.encode(format!("\0{EVIL}\r\nname\0wrong"));
    for recipient in
        ["you@example.net", "you@example.net", "\u{202e}you@example.net", "you@example.net", "last@example.net"]
    {
        let mut client = Client::connect(gateway).await;
        client.reply().await;
        for line in [
            format!("EHLO {EVIL}\rcr"),
            format!("EHLO {MEAN}"),
            format!("{EVIL}FOO\rBAR"),
            format!("FOO {MEAN}"),
            format!("AUTH PLAIN {login}"),
            format!("MAIL FROM:{EVIL} <a@example.com>"),
            format!("MAIL FROM:{MEAN} <a@example.com>"),
            format!("MAIL FROM:<a@example.com> {MEAN}=1"),
            "MAIL FROM:<a@\u{202e}example.org>".to_owned(),
            "MAIL FROM:<\u{202e}a@example.com>".to_owned(),
            format!("RCPT TO:<{EVIL}@example.net>"),
            format!("RCPT TO:<{MEAN}@example.net>"),
            format!("RCPT TO:<{recipient}>"),
            "DATA".to_owned(),
        ] {
            client.ask(&line).await;
        }
        client.ask(&format!("Message-ID: <{EVIL}>\r\nX: {EVIL}\r\n{}.", mail(EVIL))).await;
        // Another author than the allowed one, and none at all.
        for from in ["From: \u{202e}a@example.org", &format!("From: {EVIL}")] {
            for line in ["RSET", "MAIL FROM:<a\u{202e}@example.com>", "RCPT TO:<you@example.net>", "DATA"] {
                client.ask(line).await;
            }
            client.ask(&format!("{from}\r\n\r\n.")).await;
        }
    }
}

async fn attacked(format: &str) -> Vec<String> {
    let scripted = evil_provider().await;
    let senders = "address = \"127.0.0.1:0\"\nsenders = [\"*@example.com\"]\n";
    let hash = hash_password(&Secret::new("right"));
    let setup = in_front_of(&scripted, &format!("[[user]]\nname = \"a\"\npassword = \"{hash}\"\n"))
        .config_with("format = \"json\"", &format!("format = \"{format}\"\nlevel = \"trace\""))
        .config_with("address = \"127.0.0.1:0\"\n", senders);
    let mut gateway: Gateway = setup.start(1);
    evil_client(gateway.address()).await;
    gateway.signal("TERM");
    gateway.wait();
    assert_eq!(scripted.not_accepted().len(), 3, "mail goes on all the same; {}", gateway.log().join("\n"));
    gateway.standard_output()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_in_json_parses_and_is_harmless_once_decoded() {
    let mut tally = Tally::new("log-injection", "json");
    let lines = attacked("json").await;
    let mut levels = Vec::new();
    let mut said = Vec::new();
    for line in &lines {
        let event: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let event = event.as_object().expect("an object");
        assert!(event.contains_key("timestamp") && event.contains_key("message"), "{line}");
        levels.push(event["level"].as_str().unwrap_or_default().to_owned());
        for (key, value) in event {
            let text = value.to_string();
            let text = value.as_str().unwrap_or(&text);
            // TLS's own events at "trace" have several lines of text; JSON keeps them in one.
            assert!(!text.chars().any(|c| is_harmful(c) && c != '\n'), "{key} in {line}");
            said.push(text.to_owned());
        }
        tally.right(1);
    }
    levels.sort_unstable();
    levels.dedup();
    assert_eq!(levels, ["DEBUG", "ERROR", "INFO", "TRACE", "WARN"]);
    // Each of these was tried.
    for part in
        ["refused: 501", "login refused", "S: 220", "550 5.1.1", "450 4.2.1", "554 5.7.1", "250 2.0.0", "Not allowed"]
    {
        assert!(said.iter().any(|text| text.contains(part)), "{part} in {}", said.join("\n"));
    }
    tally.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_for_humans_is_one_event_and_harmless() {
    let mut tally = Tally::new("log-injection", "pretty");
    for line in attacked("pretty").await {
        assert!(!line.chars().any(is_harmful), "{}", line.escape_debug());
        let stamp: Vec<_> = line.bytes().take(11).collect();
        assert!(stamp.len() == 11 && stamp[4] == b'-' && stamp[7] == b'-' && stamp[10] == b'T', "no event: {line}");
        tally.right(1);
    }
    tally.finish();
}

/// Log lines about a refusal.
async fn refusals_noted(tables: &str, before: &[&str], flood: &str, reply: &str) -> Vec<String> {
    let scripted = ScriptedUpstream::start().await;
    let auth = format!("address = \"127.0.0.1:0\"\n{tables}");
    let hash = hash_password(&Secret::new("right"));
    let gateway = in_front_of(&scripted, &format!("[[user]]\nname = \"a\"\npassword = \"{hash}\"\n"))
        .config_with("address = \"127.0.0.1:0\"\n", &auth)
        .start(1);
    let mut client = Client::connect(gateway.address()).await;
    client.greet().await;
    for line in before {
        client.ask(line).await;
    }
    for _ in 0..300 {
        let said = client.ask(flood).await;
        assert!(said.starts_with(reply), "{said}");
    }
    drop(client);
    let (_, log, _setup) = gateway.stop();
    log.into_iter().filter(|line| line.contains("\"refused: ") && line.contains("\"WARN\"")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_do_not_flood_the_log() {
    let noted = refusals_noted("auth = \"required\"\n", &[], "RCPT TO:<bad>", "503 5.5.1").await;
    assert!(noted.is_empty(), "an unauthenticated client's: {noted:#?}");
    let noted = refusals_noted("", &["MAIL FROM:<a@example.com>"], "RCPT TO:<bad>", "501 5.1.3").await;
    assert_eq!(noted.len(), 101);
    assert!(noted[100].contains("further lines about this network are logged at"), "{}", noted[100]);
}

/// One listener, for logins only, its log at "info".
async fn for_logins_only(tls: &str) -> Gateway {
    let scripted = ScriptedUpstream::start().await;
    let issued = Authority::new().issue(&["localhost"]);
    let listener = format!(
        "address = \"127.0.0.1:0\"\nauth = \"required\"\ntls = \"{tls}\"\ncertificate = \"gateway.pem\"\nprivate_key = \"gateway.key\"\n"
    );
    let hash = hash_password(&Secret::new("right"));
    in_front_of(&scripted, &format!("[[user]]\nname = \"a\"\npassword = \"{hash}\"\n"))
        .config_with("format = \"json\"", "format = \"json\"\nlevel = \"info\"")
        .config_with("address = \"127.0.0.1:0\"\n", &listener)
        .file("gateway.pem", &issued.certificate)
        .file("gateway.key", &issued.private_key)
        .start(1)
}

/// Each on a separate connection, three hundred times: everything logged that an unauthenticated client can cause.
const FLOODS: [(&str, &[u8]); 7] = [
    ("implicit", b"no TLS at all\r\n\r\n"),
    // rustls itself would log a line about a warning.
    ("implicit", b"\x15\x03\x03\x00\x02\x01\x28\x15\x03\x03\x00\x02\x02\x28"),
    ("starttls", b"EHLO x\r\nSTARTTLS\r\nMAIL FROM:<a@b>\r\n"),
    ("starttls", b"EHLO x\r\nAUTH PLAIN AGEAYg==\r\nMAIL FROM:<a@b>\r\n"),
    ("off", b"EHLO x\r\nAUTH PLAIN AGEAYg==\r\nAUTH PLAIN AGIAYg==\r\nAUTH PLAIN =\r\n"),
    ("off", b"EHLO x\r\nMAIL FROM:<a@b>\r\nMAIL FROM:<a@b>\r\nGET / HTTP/1.1\r\n"),
    ("off", b"A\nB\r\nAUTH CRAM-MD5\r\nEHLO\r\n\x00\r\n\xff\r\n"),
];

#[tokio::test(flavor = "multi_thread")]
async fn repeated_unauthenticated_connections_do_not_flood_the_log() {
    for (tls, flood) in FLOODS {
        let gateway = for_logins_only(tls).await;
        let before = gateway.log().len();
        for _ in 0..300 {
            let mut client = Client::connect(gateway.address()).await;
            client.send(flood).await;
            client.close_sending().await;
            while client.try_reply().await.is_some() {}
        }
        let (_, log, _setup) = gateway.stop();
        let caused: Vec<_> = log[before..].iter().filter(|line| !line.contains("\"stopp")).collect();
        let shown = flood.escape_ascii();
        // A slow machine needs more than one minute for it.
        assert!((2..=80).contains(&caused.len()), "{} lines for {shown}: {caused:#?}", caused.len());
        let counted = |line: &&&String| line.contains("\"too many refusals") && line.contains("\"127.0.0.1/32\"");
        assert!(caused.iter().any(|line| counted(&line)), "{shown}: {caused:#?}");
    }
}
