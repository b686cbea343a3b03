//! What a user sees who has just found the project: the shipped configuration, a mail, and where it went.

use crate::support::eventually;
use crate::support::gateway::Setup;
use crate::support::real_clients::{Load, smtp_source, smtplib, swaks};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The shipped configuration on free ports, with a log that the tests can read.
fn shipped() -> Setup {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml")).unwrap();
    let listeners = text.replace("\"127.0.0.1:2525\"", "\"127.0.0.1:0\"").replace("\"[::1]:2525\"", "\"[::1]:0\"");
    assert_ne!(listeners, text, "the shipped configuration listens on 2525");
    let readable = listeners.replace("# format = \"pretty\"", "format = \"json\"");
    assert_ne!(readable, listeners, "the shipped configuration shows the default format");
    Setup::new(Some(&readable))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Waits until there are this many: for a moment there may be one more than is kept.
fn kept(folder: &Path, count: usize) -> Vec<PathBuf> {
    let mails = || -> Vec<PathBuf> {
        let paths = fs::read_dir(folder.join("data/sandbox")).unwrap().map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "eml")).collect()
    };
    eventually("mail in the sandbox", || mails().len() == count);
    mails()
}

#[test]
fn swaks_gets_a_250_and_the_mail_lies_in_the_sandbox_verified_and_private() {
    let gateway = shipped().start(2);
    let server = gateway.address().to_string();
    let Some(sent) = swaks(&["--server", &server, "--from", "reports@example.com", "--to", "you@example.net"]) else {
        return;
    };
    assert!(sent.success, "{sent:?}");
    assert!(sent.stdout.contains("250 2.0.0 Queued as "), "{sent:?}");

    for words in ["Name:  wax1._domainkey.example.com", "Value: v=DKIM1; k=rsa; p=", "kept in the sandbox and NOT sent"]
    {
        gateway.wait_for_line(&[words]);
    }
    let line = gateway.wait_for_line(&["kept in the sandbox, NOT sent", "\"id\":\""]);
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(event["ms"].is_u64() && event["size"].is_u64(), "numbers are numbers: {line}");
    for part in [
        "\"from\":\"reports@example.com\"",
        "\"to\":\"you@example.net\"",
        "\"size\":",
        "\"upstream\":\"sandbox\"",
        "\"tls\":\"TLSv1.3\"",
        "signed wax1._domainkey.example.com (rsa-sha256)",
        "NOT sent; DKIM pass (wax1._domainkey.example.com)",
        "DKIM pass (wax1._domainkey.example.com)",
        "\"ms\":",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }

    let folder = gateway.folder();
    let files = kept(&folder, 1);
    assert_eq!((mode(&folder.join("data")), mode(&files[0])), (0o700, 0o600));
    assert_eq!(mode(&folder.join("certs/dkim/example.com.wax1.pem")), 0o600);
    let mail = fs::read_to_string(&files[0]).unwrap();
    assert!(mail.starts_with("Return-Path: <reports@example.com>\r\nDelivered-To: you@example.net\r\n"), "{mail}");
}

#[test]
fn a_second_start_signs_with_the_same_key_and_prints_no_record() {
    let first = shipped().start(2);
    let folder = first.folder();
    let key = fs::read(folder.join("certs/dkim/example.com.wax1.pem")).unwrap();
    let again = shipped().file("certs/dkim/example.com.wax1.pem", &key).start(2);
    assert_eq!(fs::read(again.folder().join("certs/dkim/example.com.wax1.pem")).unwrap(), key);
    assert!(!again.log().join("\n").contains("v=DKIM1"), "{:?}", again.log());
}

#[test]
fn both_address_families_are_served() {
    let gateway = shipped().start(2);
    let [v4, v6] = gateway.addresses() else { panic!("two listeners") };
    assert!(v4.is_ipv4() && v6.is_ipv6());
    let message = gateway.folder().join("mail.eml");
    fs::write(&message, "From: reports@example.com\r\nSubject: hello\r\n\r\nHello.\r\n").unwrap();
    for address in [v4, v6] {
        let host = address.ip().to_string();
        let port = address.port().to_string();
        let envelope = ["--from", "reports@example.com", "--to", "you@example.net", message.to_str().unwrap()];
        let Some(sent) = smtplib(&[&["--host", &host, "--port", &port][..], &envelope].concat()) else { return };
        assert!(sent.success, "{sent:?}");
    }
    kept(&gateway.folder(), 2);
}

#[test]
fn smtp_source_brings_a_hundred_mails_over_ten_connections() {
    let gateway = shipped().start(2);
    let load =
        Load { sessions: 10, messages: 100, size: 5000, sender: "reports@example.com", recipient: "you@example.net" };
    let Some(sent) = smtp_source(&gateway.address().to_string(), &load) else { return };
    assert!(sent.success, "{sent:?}");
    for file in kept(&gateway.folder(), 100) {
        let mail = fs::read_to_string(&file).unwrap();
        let header = mail.to_ascii_lowercase();
        for name in ["dkim-signature: ", "\r\ndate: ", "\r\nmessage-id: ", "\r\nreceived: "] {
            assert!(header.contains(name), "{name} in {mail}");
        }
    }
}

#[test]
fn smtplib_gets_an_error_for_each_wrong_recipient_and_sender() {
    let gateway = shipped().start(2);
    let folder = tempfile::tempdir().unwrap();
    let message = folder.path().join("mail.eml");
    fs::write(&message, "From: reports@example.com\r\nSubject: hello\r\n\r\nHello.\r\n").unwrap();
    let host = gateway.address().ip().to_string();
    let port = gateway.address().port().to_string();
    let send = |from: &str, to: &str| {
        smtplib(&["--host", &host, "--port", &port, "--from", from, "--to", to, message.to_str().unwrap()])
    };
    let Some(sent) = send("reports@example.com", "you@example.net") else { return };
    assert!(sent.success, "{sent:?}");
    let foreign = send("someone@example.org", "you@example.net").unwrap();
    assert!(!foreign.success && foreign.stdout.contains("5.7.1"), "{foreign:?}");
    assert!(foreign.stdout.contains("senders"), "the reply names the setting: {foreign:?}");
    kept(&gateway.folder(), 1);
}

#[test]
fn the_sandbox_keeps_the_newest_thousand() {
    let gateway = shipped().start(2);
    let send = |messages, sender| {
        let load = Load { sessions: 20, messages, size: 300, sender, recipient: "you@example.net" };
        smtp_source(&gateway.address().to_string(), &load)
    };
    let Some(first) = send(10, "first@example.com") else { return };
    assert!(first.success, "{first:?}");
    kept(&gateway.folder(), 10);
    assert!(send(1000, "later@example.com").is_some_and(|sent| sent.success));
    let is_first = |file: &PathBuf| fs::read_to_string(file).is_ok_and(|mail| mail.starts_with("Return-Path: <first@"));
    eventually("the oldest to be gone", || {
        let files = kept(&gateway.folder(), 1000);
        !files.iter().any(is_first)
    });
}
