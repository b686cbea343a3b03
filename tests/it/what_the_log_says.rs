//! What an operator finds in the log about one mail: accepted, refused, deferred, failed, delivered; one line each, which a
//! program can read. In addition, every gateway of every test has its lines compared with docs/log.md
//! (`support/log_fields.rs`).

use crate::support::application::{SENDER, hand_in, in_front_of, mail, queued_in_front_of};
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::ports::ReservedPort;
use crate::support::upstream::{At, ScriptedUpstream};
use serde_json::Value;
use std::process::Command;
use waxseal::inbound::users::hash_password;
use waxseal::observe::Secret;

const LOGIN: &str = "AUTH PLAIN AHBsYXVzaWJsZQByaWdodA==";

fn user() -> String {
    let hash = hash_password(&Secret::new("right"));
    format!("[[user]]\nname = \"plausible\"\npassword = \"{hash}\"\nsenders = [\"*@example.com\"]\n")
}

/// The only line with this message and this text.
fn event(gateway: &Gateway, message: &str, words: &str) -> Value {
    let name = format!("\"message\":\"{message}\"");
    gateway.wait_for_line(&[&name, words]);
    let log = gateway.log();
    let found: Vec<_> = log.iter().filter(|line| line.contains(&name) && line.contains(words)).collect();
    assert_eq!(found.len(), 1, "{found:#?}");
    serde_json::from_str(found[0]).unwrap()
}

fn texts<const N: usize>(event: &Value, names: [&str; N]) -> [String; N] {
    names.map(|name| event[name].as_str().unwrap_or_else(|| panic!("{name} in {event}")).to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_can_be_found_by_all_that_its_application_knows() {
    for delivery in ["queued", "received; its client waits for the delivery"] {
        let scripted = ScriptedUpstream::start().await;
        let setup = if delivery == "queued" {
            queued_in_front_of(&scripted, &user(), "")
        } else {
            in_front_of(&scripted, &user())
        };
        let gateway = setup.start(1);
        let mut client = Client::connect(gateway.address()).await;
        client.greet().await;
        assert!(client.ask(LOGIN).await.starts_with("235 "));
        for line in [&format!("MAIL FROM:<{SENDER}>"), "RCPT TO:<you@example.net>", "RCPT TO:<b@example.net>", "DATA"] {
            client.ask(line).await;
        }
        client.send(format!("Message-ID: <one@example.com>\r\n{}.\r\n", mail("found")).as_bytes()).await;
        let reply = client.reply().await.unwrap();
        assert!(reply.starts_with("250 "), "{reply}");

        let taken = event(&gateway, delivery, "one@example.com");
        let names = ["from", "to", "user", "listener", "message_id"];
        let to = "you@example.net,b@example.net".to_owned();
        let expected = [SENDER.into(), to, "plausible".into(), "127.0.0.1:0".into(), "<one@example.com>".into()];
        assert_eq!(texts(&taken, names), expected);
        assert!(taken["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{taken}");
        assert_eq!((&taken["recipients"], taken["size"].is_u64()), (&Value::from(2), true), "{taken}");
        let sent = event(&gateway, "delivered", taken["id"].as_str().unwrap());
        assert_eq!((&sent["code"], &sent["upstream"]), (&Value::from(250), &Value::from("company")), "{sent}");
        assert_eq!(texts(&sent, ["enhanced", "to"]), ["2.0.0", "you@example.net,b@example.net"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_refuses_has_its_codes_and_its_upstream_in_fields() {
    let scripted = ScriptedUpstream::builder()
        .recipient("gone@", "550 5.1.1 no such user")
        .recipient("full@", "452 4.2.2 mailbox full")
        .recipient("old@", "450 try later")
        .start()
        .await;
    let gateway = queued_in_front_of(&scripted, "", "retry = { first = \"1h\", longest = \"2h\" }").start(1);
    let to = ["gone@example.net", "full@example.net", "old@example.net", "you@example.net"];
    hand_in(gateway.address(), &to, &mail("four")).await;
    for (what, to, code, enhanced, reason) in [
        ("failed", "gone@example.net", 550, Some("5.1.1"), "RCPT TO: 550 5.1.1 no such user"),
        ("deferred", "full@example.net", 452, Some("4.2.2"), "RCPT TO: 452 4.2.2 mailbox full"),
        ("deferred", "old@example.net", 450, None, "RCPT TO: 450 try later"),
    ] {
        let line = event(&gateway, what, to);
        assert_eq!(texts(&line, ["to", "upstream", "reason"]), [to, "company", reason], "the upstream is named once");
        assert_eq!((&line["code"], line["enhanced"].as_str()), (&Value::from(code), enhanced), "{line}");
        assert!(line["ms"].is_u64(), "{line}");
    }
}

/// It names the upstream and the cause once each.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_fails_is_told_once_a_line() {
    let scripted = ScriptedUpstream::start().await;
    let port = ReservedPort::take();
    let gateway = queued_in_front_of(&scripted, "", "")
        .config_with(&format!("port = {}\n", scripted.address().port()), &format!("port = {}\n", port.number))
        .start(1);
    hand_in(gateway.address(), &["you@example.net"], &mail("nobody there")).await;
    let name = "\"message\":\"deferred\"";
    let line: Value = serde_json::from_str(&gateway.wait_for_line(&[name, "connection refused"])).unwrap();
    let [upstream, reason] = texts(&line, ["upstream", "reason"]);
    assert_eq!((upstream.as_str(), reason.matches("refused").count()), ("company", 1), "{reason}");
    assert!(!reason.contains("company") && line.get("code").is_none() && line.get("enhanced").is_none(), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_expires_is_not_said_to_be_deferred_as_well() {
    let scripted = ScriptedUpstream::builder().always(At::Mail, "451 4.3.0 not today").start().await;
    let queue = "retry = { first = \"1s\", longest = \"1s\" }\nexpire = \"1s\"\n";
    let gateway = queued_in_front_of(&scripted, "", queue).start(1);
    hand_in(gateway.address(), &["you@example.net"], &mail("too old")).await;
    let failed = event(&gateway, "failed", "you@example.net");
    assert_eq!(texts(&failed, ["upstream", "enhanced"]), ["company", "4.3.0"]);
    assert!(failed["reason"].as_str().unwrap().starts_with("expired after 1 second: MAIL FROM: 451 "), "{failed}");
    let deferred = gateway.log().iter().filter(|line| line.contains("\"message\":\"deferred\"")).count();
    assert_eq!(deferred + 1, scripted.count("MAIL"), "one line for each attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_the_sender_and_the_login() {
    let scripted = ScriptedUpstream::start().await;
    let limits = "max_message_size = \"1 KiB\"\nmax_recipients = 1\naddress = \"127.0.0.1:0\"\n";
    let gateway = in_front_of(&scripted, &user()).config_with("address = \"127.0.0.1:0\"\n", limits).start(1);
    let mut client = Client::connect(gateway.address()).await;
    client.greet().await;
    assert!(client.ask(LOGIN).await.starts_with("235 "));
    let mail_from = format!("MAIL FROM:<{SENDER}>");
    for (lines, refusal, from) in [
        (&["MAIL FROM:<a@example.org>"][..], "refused: 550 ", "a@example.org"),
        (&["MAIL FROM:<big@example.com> SIZE=999999"], "refused: 552 5.3.4 ", "big@example.com"),
        (&[&mail_from, "RCPT TO:<bad"], "refused: 501 5.1.3 ", SENDER),
        (&["RCPT TO:<a@example.net>", "RCPT TO:<b@example.net>"], "refused: 452 4.5.3 ", SENDER),
    ] {
        for line in lines {
            client.ask(line).await;
        }
        let line: Value = serde_json::from_str(&gateway.wait_for_line(&[refusal, from])).unwrap();
        assert_eq!(texts(&line, ["from", "user", "listener"]), [from, "plausible", "127.0.0.1:0"], "{line}");
    }
    client.ask("DATA").await;
    client.send(format!("Subject: a\r\n\r\n{}\r\n.\r\n", "long\r\n".repeat(400)).as_bytes()).await;
    assert!(client.reply().await.unwrap().starts_with("552 "), "too large");
    gateway.wait_for_line(&["refused: 552 5.3.4 ", SENDER, "plausible"]);
    // At the final dot, by intake: the Message-ID is known by then.
    let forged = "From: a@example.org\r\nMessage-ID: <two@example.com>\r\nSubject: a\r\n\r\nHello.\r\n";
    for line in [&mail_from, "RCPT TO:<you@example.net>", "DATA"] {
        client.ask(line).await;
    }
    client.send(format!("{forged}.\r\n").as_bytes()).await;
    assert!(client.reply().await.unwrap().starts_with("550 "), "not this login's domain");
    let line = event(&gateway, "refused a message", "two@example.com");
    assert_eq!(texts(&line, ["from", "to", "message_id"]), [SENDER, "you@example.net", "<two@example.com>"]);
    assert_eq!((&line["code"], line["reply"].as_str().unwrap().starts_with("550 ")), (&Value::from(550), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_warns_once_and_not_of_each_mail() {
    let config = "hostname = \"gateway.example.com\"\nunsigned = \"send\"\n[log]\nformat = \"json\"\n\
        [[listener]]\naddress = \"127.0.0.1:0\"\n[[upstream]]\nname = \"try\"\nprovider = \"sandbox\"\n";
    let gateway = Setup::new(Some(config)).start(1);
    for number in 0..3 {
        hand_in(gateway.address(), &["you@example.net"], &mail(&format!("number {number}"))).await;
    }
    let kept = || gateway.log().into_iter().filter(|line| line.contains("kept in the sandbox, NOT sent"));
    crate::support::until("three mails", || kept().count() == 3).await;
    assert!(kept().all(|line| line.contains("\"level\":\"INFO\"")), "{:#?}", kept().collect::<Vec<_>>());
    let is_warning = |line: &String| line.contains("\"WARN\"") && line.contains("sandbox");
    assert_eq!(gateway.log().iter().filter(|line| is_warning(line)).count(), 1);
}

/// Behind a terminal of its own.
fn on_a_terminal(no_color: Option<&str>) -> String {
    let config = "hostname = \"gateway.example.com\"\nunsigned = \"send\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
        [[upstream]]\nname = \"try\"\nprovider = \"sandbox\"\n";
    let setup = Setup::new(Some(config)).env("TERM", "xterm");
    let setup = match no_color {
        Some(value) => setup.env("NO_COLOR", value),
        None => setup,
    };
    let spawn = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";
    let gateway = setup.wrapped(&["python3", "-c", spawn]).try_start(0).unwrap_or_else(|(log, _)| panic!("{log:?}"));
    gateway.wait_for_line(&["listening"])
}

#[test]
fn no_color_is_obeyed() {
    if !Command::new("python3").arg("-V").output().is_ok_and(|it| it.status.success()) {
        eprintln!("python3 is missing: not tested");
        assert!(std::env::var_os("CI").is_none());
        return;
    }
    for (no_color, coloured) in [(None, true), (Some(""), true), (Some("1"), false), (Some("0"), false)] {
        let line = on_a_terminal(no_color);
        assert_eq!(line.contains('\u{1b}'), coloured, "NO_COLOR={no_color:?}: {line:?}");
    }
}
