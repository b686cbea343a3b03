//! The peers themselves: before a test trusts what they say about the gateway, they are shown to accept valid input and
//! to refuse invalid input.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{KeyPair, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData, RsaKeySize};
use tempfile::TempDir;

use crate::support::certificate::Authority;
use crate::support::dkim::{Records, Verdict, verify_dkimpy, verify_opendkim};
use crate::support::peers;
use crate::support::ports::{ReservedPort, greets};
use crate::support::postfix::{PASSWORD, Postfix, USER};
use crate::support::real_clients::{Load, smtp_source, smtplib, swaks};
use crate::support::redis::{Program, RedisServer, Sentinels};
use crate::support::running::Running;

const AWKWARD: &[u8] = b"From: Reports <reports@example.com>\r\nTo: you@example.net,\r\n\tother@example.org\r\n\
    Bcc: hidden@example.net\r\nSubject: \xc3\xbc \t folded \r\n  twice \r\nX-Empty:\r\n\r\n\
    .\r\n..two dots\r\n\r\ntrailing \t\r\n8-bit \xfc\xff\r\nlast line\r\n\r\n\r\n";

#[test]
fn redis_keeps_what_it_answered_when_it_is_killed() {
    let Some(mut redis) = RedisServer::start() else { return };
    assert_eq!(redis.command(&["SET", "key", "value"]), "OK");
    redis.kill();
    redis.restart();
    assert_eq!(redis.command(&["GET", "key"]), "value");
    redis.stop();
    redis.restart();
    assert_eq!(redis.command(&["GET", "key"]), "value");
}

#[test]
fn a_redis_that_is_frozen_answers_when_it_goes_on() {
    let Some(redis) = RedisServer::start_with(&[("maxmemory", "100mb")]) else { return };
    redis.freeze();
    redis.thaw();
    assert_eq!(redis.command(&["CONFIG", "GET", "maxmemory"]), "maxmemory\n104857600");
    redis.config_set("appendfsync", "everysec");
    assert_eq!(redis.command(&["CONFIG", "GET", "appendfsync"]), "appendfsync\neverysec");
}

#[test]
fn valkey_knows_waitaof_and_debians_redis_does_not() {
    let (Some(redis), Some(valkey)) = (RedisServer::start(), RedisServer::start_valkey()) else { return };
    assert!(redis.command(&["COMMAND", "DOCS", "waitaof"]).is_empty(), "then docs/scale.md says too little");
    assert_eq!(valkey.command(&["WAITAOF", "1", "0", "1000"]), "1\n0");
}

#[test]
fn a_cluster_of_one_refuses_keys_in_several_slots() {
    let Some(cluster) = RedisServer::start_cluster() else { return };
    assert!(cluster.command(&["MSET", "{a}1", "x", "{b}1", "x"]).starts_with("CROSSSLOT"));
    assert_eq!(cluster.command(&["MSET", "{a}1", "x", "{a}2", "x"]), "OK");
}

#[test]
fn sentinels_make_the_replica_the_master() {
    let Some(master) = RedisServer::start_on_port(Program::Redis, &[]) else { return };
    let Some(replica) = master.start_replica() else { return };
    let Some(sentinels) = Sentinels::watch(&master, 3) else { return };
    assert_eq!(sentinels.master_port(), Some(master.port()));
    sentinels.fail_over();
    assert_eq!(sentinels.master_port(), Some(replica.port()));
}

#[test]
fn postfix_keeps_what_swaks_sent_over_starttls_with_a_login() {
    let authority = Authority::new();
    let folder = TempDir::new().expect("a folder");
    let Some(postfix) = Postfix::start(&authority.issue(&["mx.provider.test"])) else { return };
    let ca = written(&folder, "ca.pem", authority.pem().as_bytes());
    let server = format!("127.0.0.1:{}", postfix.submission);
    let to_it = ["--server", &server, "--from", "reports@example.com", "--to", "you@example.net"];
    let over_tls = ["--tls", "--tls-verify", "--tls-ca-path", text(&ca)];
    let login = |password| ["--auth", "LOGIN", "--auth-user", USER, "--auth-password", password];

    let Some(in_clear) = swaks(&to_it) else { return };
    assert!(in_clear.stdout.contains("530 5.7.0 Must issue a STARTTLS"), "{in_clear:?}");
    let nobody = swaks(&[&to_it[..], &over_tls].concat()).expect("swaks was there");
    assert!(nobody.stdout.contains("554 5.7.1"), "{nobody:?}");
    let wrong = swaks(&[&to_it[..], &over_tls, &login("wrong")].concat()).expect("swaks was there");
    assert!(wrong.stdout.contains("535 5.7.8"), "{wrong:?}");
    assert!(!in_clear.success && !nobody.success && !wrong.success);

    let right = swaks(&[&to_it[..], &over_tls, &login(PASSWORD), &["--body", "as it is"]].concat());
    let right = right.expect("swaks was there");
    assert!(right.success, "{right:?}");
    let arrivals = postfix.arrivals(1);
    assert_eq!(arrivals.len(), 1, "only the mail with a login: {}", postfix.log());
    assert_eq!(arrivals[0].sender, "reports@example.com");
    assert_eq!(arrivals[0].recipient, "you@example.net");
    assert!(arrivals[0].received.contains("with ESMTPSA"), "{}", arrivals[0].received);
    let message = arrivals[0].message.escape_ascii().to_string();
    assert!(message.contains(r"\r\n\r\nas it is\r\n"), "{message}");
}

#[test]
fn postfix_keeps_every_octet_that_smtplib_sent() {
    let authority = Authority::new();
    let folder = TempDir::new().expect("a folder");
    let only_tls12 = [("smtpd_tls_mandatory_protocols", "TLSv1.2")];
    let Some(postfix) = Postfix::start_with(&authority.issue(&["localhost"]), &only_tls12) else { return };
    let ca = written(&folder, "ca.pem", authority.pem().as_bytes());
    let message = written(&folder, "awkward.eml", AWKWARD);
    let ports = [("starttls", postfix.submission), ("implicit", postfix.smtps)];
    for (tls, port) in ports {
        let port = port.to_string();
        let mut arguments = vec!["--host", "localhost", "--port", &port, "--tls", tls, "--ca", text(&ca)];
        arguments.extend(["--login", USER, PASSWORD, "--option", "BODY=8BITMIME", "--from", "a@example.com"]);
        arguments.extend(["--to", "b@example.net", "--to", "c@example.org", text(&message)]);
        let Some(sent) = smtplib(&arguments) else { return };
        assert!(sent.success, "{sent:?}");
    }
    let arrivals = postfix.arrivals(4);
    let mut recipients: Vec<_> = arrivals.iter().map(|arrival| arrival.recipient.as_str()).collect();
    recipients.sort_unstable();
    assert_eq!(recipients, ["b@example.net", "b@example.net", "c@example.org", "c@example.org"]);
    for arrival in &arrivals {
        assert_eq!(arrival.message.escape_ascii().to_string(), AWKWARD.escape_ascii().to_string());
    }
    assert!(postfix.log().contains("TLSv1.2 with cipher"), "{}", postfix.log());
}

#[test]
fn smtp_source_is_content_only_when_every_mail_was_taken() {
    let load = Load { sessions: 4, messages: 20, size: 3000, sender: "a@example.com", recipient: "b@example.net" };
    let table: [(&[&str], bool); 2] = [(&[], true), (&["-r", "rcpt"], false)];
    for (behaviour, taken) in table {
        let port = ReservedPort::take();
        let address = format!("127.0.0.1:{}", port.number);
        let Some(mut sink) = peers::command("smtp-sink") else { return };
        let account: &[&str] = if peers::is_root() { &["-u", "daemon"] } else { &[] };
        sink.args(account).args(behaviour).args([&address, "100"]);
        let mut sink = Running::start(&mut sink);
        while !greets(port.number) {
            assert!(sink.try_wait().expect("a child").is_none(), "smtp-sink did not start");
        }
        let sent = smtp_source(&address, &load).expect("it comes with smtp-sink");
        assert_eq!(sent.success, taken, "{sent:?}");
    }
}

#[test]
fn both_verifiers_pass_good_signatures_and_fail_changed_messages() {
    let folder = TempDir::new().expect("a folder");
    let rsa = signer(&folder, "rsa");
    let ed25519 = signer(&folder, "ed25519");
    let records = Records::from([rsa.record.clone(), ed25519.record.clone()]);
    let message = written(&folder, "plain.eml", b"From: a@example.com\r\nSubject: Hi\r\n\r\n100 euros\r\n.\r\n");
    let Some(by_rsa) = rsa.sign(&message) else { return };
    let by_both = ed25519.sign(&by_rsa).expect("dkimpy was there");
    let mixed = changed(&by_both, "s=ed25519", "s=missing");
    let with_second_from = written(&folder, "from.eml", &[b"From: b@example.com\r\n", &read(&by_both)[..]].concat());
    let table: [(PathBuf, &[(&str, bool)]); 7] = [
        (message.clone(), &[]),
        (by_rsa.clone(), &[("rsa", true)]),
        (by_both.clone(), &[("ed25519", true), ("rsa", true)]),
        (changed(&by_both, "100 euros", "900 euros"), &[("ed25519", false), ("rsa", false)]),
        (changed(&by_both, "Subject: Hi", "Subject: Ho"), &[("ed25519", false), ("rsa", false)]),
        (mixed, &[("missing", false), ("rsa", true)]),
        (with_second_from, &[("ed25519", false), ("rsa", false)]),
    ];
    let paths: Vec<&Path> = table.iter().map(|(path, _)| path.as_path()).collect();
    for verify in [verify_dkimpy, verify_opendkim] {
        let Some(verdicts) = verify(&records, &paths) else { return };
        assert_eq!(verdicts.len(), table.len());
        for ((path, expected), verdicts) in table.iter().zip(&verdicts) {
            let found: Vec<_> = verdicts.iter().map(|v| (v.selector.as_str(), v.passed)).collect();
            assert_eq!(&found, expected, "{}: {verdicts:#?}", path.display());
        }
        let reason = String::new();
        let algorithm = "ed25519-sha256".to_owned();
        let domain = "example.com".to_owned();
        let selector = "ed25519".to_owned();
        assert_eq!(verdicts[2][0], Verdict { domain, selector, algorithm, passed: true, reason });
        assert!(!verdicts[3][0].reason.is_empty(), "a failure says why");
    }
}

/// A key for dkimpy's signer, and the record that publishes it.
struct Signer {
    algorithm: String,
    selector: &'static str,
    key: PathBuf,
    record: (String, String),
}

fn signer(folder: &TempDir, selector: &'static str) -> Signer {
    let (pair, key, public) = if selector == "rsa" {
        let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("an RSA key");
        let public = pair.subject_public_key_info();
        let key = pair.serialize_pem();
        (pair, key, public)
    } else {
        let pair = KeyPair::generate_for(&PKCS_ED25519).expect("an Ed25519 key");
        // RFC 8410 §7: in PKCS #8 the 32 octets of the seed follow a head of 16.
        let key = BASE64_STANDARD.encode(&pair.serialized_der()[16..48]);
        let public = pair.der_bytes().to_vec();
        (pair, key, public)
    };
    drop(pair);
    let name = format!("{selector}._domainkey.example.com");
    let record = format!("v=DKIM1; k={selector}; p={}", BASE64_STANDARD.encode(public));
    let key = written(folder, &format!("{selector}.key"), key.as_bytes());
    Signer { algorithm: format!("{selector}-sha256"), selector, key, record: (name, record) }
}

impl Signer {
    fn sign(&self, message: &Path) -> Option<PathBuf> {
        let mut python = peers::python("dkimpy_sign.py")?;
        python.args([&self.algorithm, text(&self.key), self.selector, "example.com"]).arg(message);
        let signed = peers::run(&mut python);
        assert!(signed.success, "{signed:?}");
        let path = message.with_extension(format!("{}.eml", self.selector));
        fs::write(&path, signed.stdout).expect("a new file");
        Some(path)
    }
}

/// A copy with the first `old` replaced.
fn changed(message: &Path, old: &str, new: &str) -> PathBuf {
    let before = String::from_utf8(read(message)).expect("ASCII");
    let after = before.replacen(old, new, 1);
    assert_ne!(before, after);
    let path = message.with_extension(format!("{}.eml", new.replace(' ', "-")));
    fs::write(&path, after).expect("a new file");
    path
}

fn written(folder: &TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, content).expect("a new file");
    path
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).expect("a file of this test")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of this test")
}
