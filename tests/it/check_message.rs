//! `waxseal check --message`: its output for recorded mail under a set of rules, and that it changes nothing.

use crate::support::gateway::Setup;
use regex::Regex;
use serde_json::{Value, json};
use std::process::Output;
use waxseal::dkim::{KeyAlgorithm, generate};

const CONFIG: &str = r#"
hostname = "gateway.example.com"

[[listener]]
address = "127.0.0.1:2525"

[[listener]]
address = "127.0.0.1:2526"
auth = "required"

[[listener]]
address = "127.0.0.1:2527"
auth = "off"
allow = ["172.16.0.0/12"]

[[user]]
name = "plausible"
password = { env = "PLAUSIBLE" }

[[dkim]]
domain = "example.com"
selector = "wax1"
private_key = "key.pem"

[[upstream]]
name = "postmark"
provider = "postmark"
password = "server-canary-token"

[[upstream]]
name = "company"
provider = "smtp"
host = "smtp.example.com"

[[route]]
name = "reports"
tag = "report"
upstreams = ["postmark", "company"]

[[route]]
name = "rest"
recipients = ["*@example.net", "*@example.com"]
upstreams = ["company"]

[[rewrite]]
name = "sender"
map_sender = { "reports@example.com" = "bounces@example.com" }
set_from = "Numbers <reports@example.com>"
keep_from_as_reply_to = true

[[rewrite]]
name = "reports"
body_contains = "/unsubscribe?email="
list_unsubscribe = "/[/](weekly|monthly)-report[/]unsubscribe[?]/"
tag = "report"
metadata = { kind = "weekly" }

[[rewrite]]
name = "tests vanish"
recipients = ["nobody@example.net"]
discard = true

[[rewrite]]
name = "no competitors"
recipients = ["*@example.org"]
refuse = "no mail to example.org from here"

[[rewrite]]
name = "in staging"
user = "plausible"
map_recipients = { "*" = "staging@example.com" }
subject_prefix = "[staging] "
"#;

fn setup() -> Setup {
    let key = generate(KeyAlgorithm::Ed25519).unwrap();
    Setup::new(Some(CONFIG)).file("key.pem", key.reveal()).env("PLAUSIBLE", "a-canary-of-a-password")
}

fn recorded(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/wire/mail/{name}.eml", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

fn check(setup: &Setup, arguments: &[&str]) -> Output {
    setup.output(&[&["check", "--message", "mail.eml"], arguments].concat())
}

/// Without the parts that differ every time, and without warnings about the configuration.
fn shown(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    [
        (r"(?s)(with ESMTPA? id )\w+;\s.*? \+0000", "$1[id]; [date]"),
        (r"(?m)^\+Date: .*", "+Date: [date]"),
        (r"(?m)^\+Message-ID: <.*@gateway.example.com>", "+Message-ID: <[id]@gateway.example.com>"),
    ]
    .iter()
    .fold(text, |text, (pattern, with)| Regex::new(pattern).unwrap().replace_all(&text, *with).into_owned())
}

/// Up to the first line of the body.
fn head(text: &str) -> String {
    text.lines()
        .take_while(|line| !line.starts_with("+--") || line.starts_with("+++"))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn recorded_mail_is_shown_before_and_after() {
    for (name, arguments) in [
        ("mua-activation-code", &[][..]),
        ("oldmua-password-reset-no-name", &["--from", "<>", "--to", "a@example.net", "--to", "b@example.net"]),
        ("smtpadapter-invitation", &["--user", "plausible", "--listener", "127.0.0.1:2526"]),
    ] {
        let setup = setup().file("mail.eml", recorded(name));
        let output = check(&setup, arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        insta::assert_snapshot!(name, shown(&output));
    }
    let setup = setup().file("mail.eml", recorded("mua-weekly-report"));
    insta::assert_snapshot!("mua-weekly-report", head(&shown(&check(&setup, &[]))));
}

#[test]
fn it_only_looks() {
    let setup = setup().file("mail.eml", recorded("mua-activation-code"));
    let files = || {
        let mut names: Vec<_> = std::fs::read_dir(setup.folder()).unwrap().map(|it| it.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = files();
    check(&setup, &[]);
    assert_eq!(files(), before);
}

#[test]
fn what_becomes_of_it_is_the_exit_status() {
    let to = |address: &'static str| vec!["--to", address];
    for (arguments, status, result, words) in [
        (vec![], 0, "accepted", ""),
        (to("nobody@example.net"), 0, "discarded", ""),
        (to("you@example.org"), 1, "refused", "550 5.7.1 no mail to example.org from here"),
        (vec!["--from", "a@example.org"], 1, "refused", "matches none of the `senders`"),
        (vec!["--listener", "127.0.0.1:2526"], 1, "refused", "530 5.7.0 "),
        (vec!["--listener", "127.0.0.1:2526", "--user", "plausible"], 0, "accepted", ""),
        (vec!["--client", "127.9.9.9"], 0, "accepted", ""),
        (
            vec!["--client", "192.0.2.1"],
            1,
            "refused",
            "530 5.7.0 Authentication required: this client's address is not",
        ),
        (vec!["--client", "192.0.2.1", "--user", "plausible"], 0, "accepted", ""),
        (vec!["--listener", "127.0.0.1:2527"], 0, "accepted", ""),
        (
            vec!["--listener", "127.0.0.1:2527", "--client", "127.0.0.1"],
            1,
            "refused",
            "and logins are turned off on this listener",
        ),
        (vec!["--listener", "127.0.0.1:2527", "--user", "plausible"], 1, "refused", "502 5.5.1 "),
    ] {
        let setup = setup().file("mail.eml", recorded("mua-activation-code"));
        let output = check(&setup, &[arguments.as_slice(), &["--json"]].concat());
        let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!((output.status.code(), &value["result"]), (Some(status), &json!(result)), "{arguments:?}");
        assert!(value["reply"].as_str().unwrap_or_default().contains(words), "{arguments:?}: {value}");
    }
}

#[test]
fn json_output_says_the_same() {
    let setup = setup().file("mail.eml", recorded("mua-weekly-report"));
    let output = check(&setup, &["--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["before"], json!({ "from": "reports@example.com", "to": ["empfaenger@example.net"] }));
    assert_eq!(value["after"]["from"], "bounces@example.com");
    assert_eq!(value["marks"], json!({ "tag": "report", "metadata": { "kind": "weekly" } }));
    let way =
        json!([{ "address": "empfaenger@example.net", "route": "reports", "upstreams": ["postmark", "company"] }]);
    assert_eq!(value["recipients"], way);
    let upstreams = value["upstreams"].as_array().unwrap();
    assert!(upstreams[0]["headers"].as_array().unwrap().contains(&json!("X-PM-Tag: report")), "{upstreams:?}");
    assert_eq!(upstreams[1]["seal"], "signed wax1._domainkey.example.com (ed25519-sha256)");
    assert!(value["diff"].as_str().unwrap().contains("\n+List-Unsubscribe: <https://"), "{value}");
    assert_eq!(value["rules"][4]["unmet"], "it did not come in with the login plausible");
}

/// Only if it matters: most mail needs nothing.
#[test]
fn what_a_server_must_offer_is_said_where_the_message_needs_it() {
    const EIGHT: &str =
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n";
    const SIGNED: &str = "MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=b\r\n";
    let seven_bits = "company: if its server offers 8BITMIME; else it is converted to 7 bits";
    let sealed = "company: if its server offers 8BITMIME; else it is not sent: ";
    for (fields, body, to, needs, said) in [
        ("", "plain", "you@example.net", json!([]), ""),
        (EIGHT, "gr\u{fc}n", "you@example.net", json!(["8BITMIME"]), seven_bits),
        (SIGNED, "--b\r\n\r\ngr\u{fc}n\r\n--b--", "you@example.net", json!(["8BITMIME"]), sealed),
        ("", "plain", "j\u{f6}rg@example.net", json!(["SMTPUTF8"]), "company: if its server offers SMTPUTF8, which"),
    ] {
        let mail = format!("From: reports@example.com\r\nTo: you@example.net\r\n{fields}\r\n{body}\r\n");
        let setup = setup().file("mail.eml", mail);
        let output = check(&setup, &["--to", to, "--json"]);
        let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!(value["upstreams"][0]["needs"], needs, "{value}");
        let shown = shown(&check(&setup, &["--to", to]));
        assert!(shown.contains(said) && shown.contains(" offers ") != said.is_empty(), "{shown}");
    }
}

#[test]
fn wrong_usage_says_what_is_right() {
    for (message, arguments, words) in [
        ("From: a@example.com\r\n\r\n", &[][..], "names no recipient; add --to"),
        (
            "To: you@example.net\r\n\r\n",
            &["--listener", "127.0.0.1:99"],
            "there is 127.0.0.1:2525, 127.0.0.1:2526, 127.0.0.1:2527",
        ),
        ("To: you@example.net\r\n\r\n", &["--user", "plausibel"], "no [[user]] of that name"),
        ("", &["--defaults"], "cannot be used with"),
        ("", &["--from", "Reports <a@example.com>"], "--from"),
    ] {
        let setup = setup().file("mail.eml", message);
        let output = check(&setup, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(words), "{arguments:?}: {output:?}");
    }
    let output = setup().output(&["check", "--to", "you@example.net"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

/// In the form that Unix programs save, and from a pipe.
#[test]
fn line_ends_of_the_file_are_no_matter() {
    let text = "From: reports@example.com\nTo: you@example.net\nDate: Tue, 24 Nov 2026 03:15:56 +0000\n\
                Message-ID: <1@example.com>\nMIME-Version: 1.0\nSubject: s\n\nHello.\n.\n";
    let setup = setup();
    let output = setup.output_with_input(&["check", "--message", "-"], text);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown = shown(&output);
    assert!(!shown.contains("repaired") && shown.contains("\n+From: Numbers <reports@example.com>\n"), "{shown}");
}
