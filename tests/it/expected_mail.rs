//! `[[expect]]`: mail that should come and does not is a warning in the log, in the metrics and in `waxseal status`, until
//! it comes again; a restart forgets nothing.

use crate::support::application::{
    SENDER, further, hand_in, hand_in_many, in_front_of, mail, queued_in_front_of, subjects,
};
use crate::support::gateway::{Gateway, Setup};
use crate::support::keys::{TestKey, tables, with_files};
use crate::support::upstream::{At, ScriptedUpstream};
use crate::support::{eventually, until};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use waxseal::dkim::KeyAlgorithm;

const EXPECT: &str = "[[expect]]\nsender = \"reports@example.com\"\nevery = \"2s\"\n";
const RARE: &str = "[[expect]]\nname = \"rare\"\nsender = [\"r@example.com\", \"*@example.net\"]\nevery = \"300d\"\n";

fn with_admin(setup: Setup) -> Setup {
    setup.env("WAXSEAL_ADMIN_ADDRESS", "127.0.0.1:0").env("WAXSEAL_DOCTOR_AT_START", "false")
}

fn page(gateway: &Gateway, path: &str) -> String {
    let line = gateway.wait_for_line(&["serving health and metrics"]);
    let address = line.split_once("admin\":\"").unwrap().1.split('"').next().unwrap().to_owned();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn status(gateway: &Gateway) -> (Option<i32>, Value) {
    let output = gateway.output(&["status", "--json"]);
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

fn is_silent(gateway: &Gateway) -> bool {
    status(gateway).1["live"]["expected"][0]["is_silent"] == true
}

fn lines(log: &[String], words: &str) -> usize {
    log.iter().filter(|line| line.contains(words)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_does_not_come_is_a_warning_everywhere_until_it_comes_again() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = with_admin(queued_in_front_of(&scripted, &format!("{EXPECT}{RARE}"), "")).start(1);
    tokio::task::block_in_place(|| {
        eventually("it is silent", || is_silent(&gateway));
        let (code, value) = status(&gateway);
        assert_eq!((code, &value["problems"][0]["id"]), (Some(1), &"silence".into()), "{value}");
        assert_eq!(value["live"]["expected"][1]["is_silent"], false, "{value}");
        let text = String::from_utf8(gateway.output(&["status"]).stdout).unwrap();
        for words in [
            "Expected mail reports@example.com, every 2 s: none has come in ",
            "; it is LATE",
            "Expected mail rare, every 300 d: none has come in ",
            "  no mail from reports@example.com for ",
            "; it is expected every 2 seconds ([[expect]] \"reports@example.com\")",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let metrics = page(&gateway, "/metrics");
        assert!(metrics.contains("waxseal_expected_silent{expect=\"reports@example.com\"} 1\n"), "{metrics}");
        assert!(metrics.contains("waxseal_expected_silent{expect=\"rare\"} 0\n"), "{metrics}");
        let ready = page(&gateway, "/readyz");
        assert!(ready.starts_with("HTTP/1.1 200 "), "a missing report does not make the gateway unready: {ready}");
    });
    hand_in_many(gateway.address(), "other@example.com", "you@example.net", &["no report".to_owned()]).await;
    assert!(tokio::task::block_in_place(|| is_silent(&gateway)), "other mail does not end it");
    hand_in_many(gateway.address(), SENDER, "you@example.net", &["a report".to_owned()]).await;
    tokio::task::block_in_place(|| {
        gateway.wait_for_line(&["mail from reports@example.com comes again, after "]);
        let text = String::from_utf8(gateway.output(&["status"]).stdout).unwrap();
        assert!(text.contains("Expected mail reports@example.com, every 2 s: the last one came "), "{text}");
        let (_, log, _) = gateway.stop();
        let began = lines(&log, "no mail from reports@example.com for ");
        let ended = lines(&log, "comes again");
        assert!(began >= 1 && began - ended <= 1, "one line for each: {began} {ended}");
        assert_eq!(lines(&log, "\"expect\":\"rare\""), 0);
    });
}

/// The client waits for the provider, and what the provider refuses was not accepted.
#[tokio::test(flavor = "multi_thread")]
async fn only_accepted_mail_counts() {
    let scripted = ScriptedUpstream::builder().recipient("gone", "550 5.1.1 no such user").start().await;
    let rule = "[[rewrite]]\nheader = { Subject = \"discard*\" }\ndiscard = true\n";
    let lines = format!("{RARE}{rule}").replace("r@example.com", SENDER);
    for is_direct in [true, false] {
        let setup = if is_direct { in_front_of(&scripted, &lines) } else { queued_in_front_of(&scripted, &lines, "") };
        let gateway = setup.env("WAXSEAL_DOCTOR_AT_START", "false").start(1);
        let has_come = || tokio::task::block_in_place(|| status(&gateway).1["live"]["expected"][0]["has_come"] == true);
        until("the first look", || {
            tokio::task::block_in_place(|| status(&gateway).1["live"]["expected"][0].is_object())
        })
        .await;
        assert!(hand_in(gateway.address(), &["you@example.net"], &mail("discard this")).await.starts_with("250 "));
        if is_direct {
            assert!(hand_in(gateway.address(), &["gone@example.net"], &mail("refused")).await.starts_with("550 "));
        }
        assert!(!has_come(), "direct: {is_direct}");
        assert!(hand_in(gateway.address(), &["you@example.net"], &mail("a report")).await.starts_with("250 "));
        assert!(has_come(), "direct: {is_direct}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_and_a_reload_keep_what_has_come() {
    let scripted = ScriptedUpstream::start().await;
    let lines = RARE.replace("r@example.com", SENDER);
    let gateway = with_admin(queued_in_front_of(&scripted, &lines, "")).start(1);
    hand_in_many(gateway.address(), SENDER, "you@example.net", &["a report".to_owned()]).await;
    tokio::task::block_in_place(|| {
        let (_, _, setup) = gateway.stop();
        let gateway = setup.start(1);
        let expected = |gateway: &Gateway| status(gateway).1["live"]["expected"].clone();
        eventually("it is loaded", || expected(&gateway)[0]["has_come"] == true);
        let path = gateway.folder().join("config.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let reload = |text: &str| {
            let new = path.with_extension("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(&new, &path).unwrap();
            let output = gateway.output(&["reload"]);
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let told = reload(&text.replace("300d", "200d"));
        assert!(told.contains("expected mail changed"), "{told}");
        let value = expected(&gateway);
        assert_eq!((&value[0]["has_come"], &value[0]["every_seconds"]), (&true.into(), &(200 * 86_400).into()));
        assert!(page(&gateway, "/metrics").contains("waxseal_expected_silent{expect=\"rare\"} 0\n"));
        reload(&text.replace(&lines, ""));
        assert_eq!(expected(&gateway).as_array().unwrap().len(), 0);
        let metrics = page(&gateway, "/metrics");
        assert!(!metrics.contains("waxseal_expected_silent{"), "what is not expected has no series: {metrics}");
    });
}

/// The usual provider may be the reason for the silence.
#[tokio::test(flavor = "multi_thread")]
async fn a_silence_is_told_by_one_signed_mail_through_another_upstream_and_its_failure_causes_no_mail() {
    let company = ScriptedUpstream::start().await;
    let backup = ScriptedUpstream::builder().once(At::Rcpt, "550 5.1.1 nobody of that name").start().await;
    let keys = [TestKey::new("wax1", KeyAlgorithm::Ed25519)];
    let notify = "notify = \"ops@example.net\"\nnotify_upstream = \"backup\"\n";
    let added = format!("{}{EXPECT}{notify}{}", further("backup", &backup, ""), tables(&keys));
    let setup = queued_in_front_of(&company, &added, "bounce = \"postmaster@example.net\"")
        .file("backup.pem", backup.ca())
        .config_with("unsigned = \"send\"\n", "");
    let gateway = with_files(setup, &keys).start(1);
    tokio::task::block_in_place(|| {
        gateway.wait_for_line(&["queued a mail about the silence", "ops@example.net"]);
        gateway.wait_for_line(&["nobody of that name"]);
        assert!(gateway.output(&["status"]).status.code() == Some(1));
    });
    hand_in_many(gateway.address(), SENDER, "you@example.net", &["a report".to_owned()]).await;
    company.until_messages(1).await;
    backup.until_messages(1).await;
    let message = String::from_utf8(backup.messages()[0].data.to_vec()).unwrap();
    for part in [
        "DKIM-Signature: ",
        "d=example.com",
        "From: Mail Gateway <MAILER-DAEMON@example.com>",
        "To: <ops@example.net>",
        "Auto-Submitted: auto-generated",
        "No mail from reports@example.com has come for",
    ] {
        assert!(message.contains(part), "{part}\n{message}");
    }
    tokio::task::block_in_place(|| {
        let (_, log, _) = gateway.stop();
        let (began, told) = (lines(&log, "no mail from reports@example.com for "), lines(&log, "queued a mail about"));
        assert_eq!(began, told, "one for each silence");
    });
    assert_eq!(subjects(&company), ["a report"], "no bounce, and nothing about the silence");
}
