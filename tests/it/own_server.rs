//! A company's own server as the provider: Postfix, with STARTTLS required, a login, and a private CA.

use crate::support::certificate::{Authority, Issued};
use crate::support::dkim::{Records, Verdict, verify_dkimpy, verify_opendkim};
use crate::support::gateway::{Gateway, Setup};
use crate::support::keys::{self, TestKey};
use crate::support::postfix::{PASSWORD, Postfix, USER};
use crate::support::provider_servers::without_field;
use crate::support::real_clients::{Load, smtp_source, swaks};
use std::fs;
use std::path::PathBuf;
use waxseal::dkim::KeyAlgorithm;

struct Company {
    postfix: Postfix,
    gateway: Gateway,
    records: Records,
}

/// `delivery`: the listener's; `upstream`: further lines of the table.
fn company(port: impl Fn(&Postfix) -> u16, delivery: &str, upstream: &str, password: &str) -> Option<Company> {
    company_with(&[], port, delivery, upstream, password)
}

/// `settings`: further lines of Postfix's main.cf.
fn company_with(
    settings: &[(&str, &str)],
    port: impl Fn(&Postfix) -> u16,
    delivery: &str,
    upstream: &str,
    password: &str,
) -> Option<Company> {
    company_of(settings, port, delivery, |_| upstream.to_owned(), password)
}

fn company_of(
    settings: &[(&str, &str)],
    port: impl Fn(&Postfix) -> u16,
    delivery: &str,
    upstream: impl Fn(&Postfix) -> String,
    password: &str,
) -> Option<Company> {
    let authority = Authority::new();
    let postfix = Postfix::start_with(&authority.issue(&["mx.company.test"]), settings)?;
    let keys = [TestKey::new("rsa", KeyAlgorithm::Rsa2048), TestKey::new("ed", KeyAlgorithm::Ed25519)];
    let tables = keys::tables(&keys);
    let config = format!(
        "hostname = \"gateway.example.com\"\n[[listener]]\naddress = \"127.0.0.1:0\"\ndelivery = \"{delivery}\"\n{tables}\
         [[upstream]]\nname = \"company\"\nprovider = \"smtp\"\nhost = \"127.0.0.1\"\nserver_name = \"mx.company.test\"\n\
         port = {}\nca = \"ca.pem\"\nusername = \"{USER}\"\npassword = {{ env = \"RELAY_PASSWORD\" }}\n{upstream}\n\
         [log]\nformat = \"json\"\n",
        port(&postfix),
        upstream = upstream(&postfix),
    );
    let setup = Setup::new(Some(&config)).env("RELAY_PASSWORD", password).file("ca.pem", authority.pem());
    let records = keys.iter().map(TestKey::record).collect();
    Some(Company { postfix, gateway: keys::with_files(setup, &keys).start(1), records })
}

fn send(gateway: &Gateway) -> Option<crate::support::peers::Finished> {
    let server = gateway.address().to_string();
    swaks(&["--server", &server, "--from", "reports@example.com", "--to", "you@example.net", "--body", "Hello."])
}

fn verify_arrivals(company: &Company, count: usize) {
    let folder = tempfile::tempdir().unwrap();
    let arrivals = company.postfix.arrivals(count);
    assert_eq!(arrivals.len(), count);
    let files: Vec<PathBuf> = arrivals
        .iter()
        .enumerate()
        .map(|(number, arrival)| {
            let path = folder.path().join(format!("{number}.eml"));
            fs::write(&path, &arrival.message).unwrap();
            path
        })
        .collect();
    let paths: Vec<_> = files.iter().map(PathBuf::as_path).collect();
    let passes = |verdicts: &[Verdict]| verdicts.iter().filter(|verdict| verdict.passed).count();
    if let Some(results) = verify_dkimpy(&company.records, &paths) {
        results.iter().for_each(|verdicts| assert_eq!(passes(verdicts), 2, "{verdicts:?}"));
    }
    if let Some(results) = verify_opendkim(&company.records, &paths) {
        results.iter().for_each(|verdicts| assert_eq!(passes(verdicts), 2, "{verdicts:?}"));
    }
}

#[test]
fn mail_reaches_postfix_over_starttls_with_a_login_and_verifies() {
    let Some(company) = company(|postfix| postfix.submission, "direct", "", PASSWORD) else { return };
    let Some(sent) = send(&company.gateway) else { return };
    assert!(sent.success && sent.stdout.contains("queued as"), "the provider's own words: {sent:?}");
    verify_arrivals(&company, 1);
    assert!(company.postfix.arrivals(1)[0].received.contains("with ESMTPSA"));
    let line = company.gateway.wait_for_line(&["\"delivered\"", "queued as"]);
    assert!(line.contains("\"upstream\":\"company\"") && line.contains("\"tls\":\"TLSv1.3\""), "{line}");
}

#[test]
fn mail_reaches_postfix_over_implicit_tls() {
    let Some(company) = company(|postfix| postfix.smtps, "queue", "tls = \"implicit\"", PASSWORD) else { return };
    let Some(sent) = send(&company.gateway) else { return };
    assert!(sent.success, "{sent:?}");
    verify_arrivals(&company, 1);
}

/// One mail to two people, whose routes lead to different ports of the same server.
#[test]
fn the_same_mail_arrives_over_starttls_and_over_implicit_tls() {
    let second = |postfix: &Postfix| {
        format!(
            "[[upstream]]\nname = \"smtps\"\nprovider = \"smtp\"\nhost = \"127.0.0.1\"\nserver_name = \"mx.company.test\"\n\
             port = {}\ntls = \"implicit\"\nca = \"ca.pem\"\nusername = \"{USER}\"\npassword = {{ env = \"RELAY_PASSWORD\" }}\n\
             share_limits_with = \"company\"\n\
             [[route]]\nname = \"one\"\nrecipients = [\"*@implicit.test\"]\nupstreams = [\"smtps\"]\n\
             [[route]]\nname = \"rest\"\nupstreams = [\"company\"]",
            postfix.smtps
        )
    };
    let Some(company) = company_of(&[], |postfix| postfix.submission, "queue", second, PASSWORD) else { return };
    let server = company.gateway.address().to_string();
    let to = "a@starttls.test,b@implicit.test";
    let Some(sent) = swaks(&["--server", &server, "--from", "reports@example.com", "--to", to, "--body", "Hello."])
    else {
        return;
    };
    assert!(sent.success, "{sent:?}");
    verify_arrivals(&company, 2);
    for upstream in ["company", "smtps"] {
        company.gateway.wait_for_line(&["\"delivered\"", &format!("\"upstream\":\"{upstream}\"")]);
    }
    let arrivals = company.postfix.arrivals(2);
    assert!(arrivals.iter().all(|arrival| arrival.received.contains("with ESMTPSA")), "each with a login, in TLS");
    let log = company.postfix.log();
    assert_eq!(log.matches("sasl_username=relay").count(), 2, "{log}");
    let [one, other] =
        [0, 1].map(|at| without_field(&without_field(&arrivals[at].message, "DKIM-Signature:"), "Received:"));
    assert_eq!(String::from_utf8_lossy(&one), String::from_utf8_lossy(&other));
}

/// A real server that offers less than others: no 8BITMIME, no SMTPUTF8, only AUTH LOGIN, three recipients at once.
#[test]
fn what_an_old_server_cannot_do_is_not_asked_of_it() {
    let settings = [
        ("smtpd_discard_ehlo_keywords", "8bitmime, smtputf8, pipelining"),
        ("smtpd_sasl_mechanism_filter", "login"),
        ("smtpd_recipient_limit", "3"),
    ];
    let limits = "max_recipients = 3";
    let Some(company) = company_with(&settings, |postfix| postfix.submission, "queue", limits, PASSWORD) else {
        return;
    };
    let folder = company.gateway.folder();
    let message = "From: reports@example.com\nTo: you@example.net\nSubject: s\nMIME-Version: 1.0\n\
                   Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nGr\u{fc}\u{df}e aus K\u{f6}ln\n";
    fs::write(folder.join("mail.eml"), message).unwrap();
    let server = company.gateway.address().to_string();
    let data = folder.join("mail.eml").display().to_string();
    let to = (0..7).map(|number| format!("r{number}@example.net")).collect::<Vec<_>>().join(",");
    let arguments = ["--server", &server, "--from", "reports@example.com", "--to", &to, "--data", &format!("@{data}")];
    let Some(sent) = swaks(&arguments) else { return };
    assert!(sent.success, "{sent:?}");
    verify_arrivals(&company, 7);
    for arrival in company.postfix.arrivals(7) {
        let text = String::from_utf8(arrival.message).expect("ASCII");
        assert!(text.is_ascii() && text.contains("Gr=C3=BC=C3=9Fe aus K=C3=B6ln"), "{text}");
    }
    let log = company.postfix.log();
    assert!(log.contains("sasl_method=LOGIN") && !log.contains("too many recipients"), "{log}");
    assert_eq!(log.matches(": client=").count(), 3, "seven people in three transactions: {log}");
}

/// Relaying for a client that is known by its certificate's fingerprint, and for nobody else.
#[test]
fn postfix_knows_the_gateway_by_its_certificate() {
    let client = Authority::new().issue(&["gateway.example.com"]);
    let chain = waxseal::pem::certificates(client.certificate.as_bytes()).unwrap();
    let key = waxseal::pem::private_key(client.private_key.as_bytes()).unwrap();
    let fingerprint = waxseal::tls::ClientIdentity::new(chain, key).unwrap().certificate.fingerprint;
    let by_certificate = |listed: &str| {
        [
            ("smtpd_tls_ask_ccert", "yes".to_owned()),
            ("smtpd_tls_fingerprint_digest", "sha256".to_owned()),
            ("relay_clientcerts", format!("inline:{{ {{ {listed} = the gateway }} }}")),
            ("smtpd_relay_restrictions", "permit_tls_clientcerts, reject".to_owned()),
            ("smtpd_sasl_auth_enable", "no".to_owned()),
        ]
    };
    let other = fingerprint.replace(['0', '1'], "2");
    let certified = "certificate = \"client.crt\"\nprivate_key = \"client.key\"";
    for (listed, lines, expected) in [
        (&fingerprint, certified, "250 "),
        (&other, certified, "have it allowed there"),
        (&fingerprint, "", "set its `certificate` and `private_key`"),
    ] {
        let Some(postfix) = known_by_certificate(&by_certificate(listed), lines, &client) else { return };
        let Some(sent) = send(&postfix.gateway) else { return };
        if expected == "250 " {
            assert!(sent.success, "{sent:?}");
            verify_arrivals(&postfix, 1);
            continue;
        }
        let reply = sent.stdout.lines().find(|line| line.contains(" 451 ")).unwrap_or_else(|| panic!("{sent:?}"));
        assert!(reply.contains("554"), "{reply}");
        postfix.gateway.wait_for_line(&["\"deferred\"", expected]);
    }
}

#[test]
fn a_postfix_that_demands_a_certificate_is_understood() {
    let client = Issued::self_signed(&["gateway.example.com"]);
    let demands = [("smtpd_tls_req_ccert", "yes".to_owned())];
    let Some(without) = known_by_certificate(&demands, "", &client) else { return };
    let Some(sent) = send(&without.gateway) else { return };
    assert!(sent.stdout.contains(" 451 "), "{sent:?}");
    without.gateway.wait_for_line(&["\"deferred\"", "set its `certificate` and `private_key`"]);
}

/// No login, direct mode.
fn known_by_certificate(settings: &[(&str, String)], lines: &str, client: &Issued) -> Option<Company> {
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let authority = Authority::new();
    let postfix = Postfix::start_with(&authority.issue(&["mx.company.test"]), &settings)?;
    let keys = [TestKey::new("rsa", KeyAlgorithm::Rsa2048), TestKey::new("ed", KeyAlgorithm::Ed25519)];
    let config = format!(
        "hostname = \"gateway.example.com\"\n[[listener]]\naddress = \"127.0.0.1:0\"\ndelivery = \"direct\"\n{tables}\
         [[upstream]]\nname = \"company\"\nprovider = \"smtp\"\nhost = \"127.0.0.1\"\nserver_name = \"mx.company.test\"\n\
         port = {port}\ntls = \"starttls\"\nca = \"ca.pem\"\n{lines}\n[log]\nformat = \"json\"\n",
        tables = keys::tables(&keys),
        port = postfix.submission,
    );
    let setup = Setup::new(Some(&config)).file("ca.pem", authority.pem());
    let setup = setup.file("client.crt", &client.certificate).file("client.key", &client.private_key);
    let records = keys.iter().map(TestKey::record).collect();
    Some(Company { postfix, gateway: keys::with_files(setup, &keys).start(1), records })
}

#[test]
fn tls_1_2_is_enough_and_anything_older_is_not() {
    let only = |version| [("smtpd_tls_mandatory_protocols", version), ("smtpd_tls_mandatory_ciphers", "low")];
    let Some(company) = company_with(&only("TLSv1.2"), |postfix| postfix.submission, "direct", "", PASSWORD) else {
        return;
    };
    let Some(sent) = send(&company.gateway) else { return };
    assert!(sent.success, "{sent:?}");
    verify_arrivals(&company, 1);
    company.gateway.wait_for_line(&["\"delivered\"", "\"tls\":\"TLSv1.2\""]);

    let company =
        company_with(&only("TLSv1.1"), |postfix| postfix.submission, "direct", "", PASSWORD).expect("Postfix again");
    let sent = send(&company.gateway).expect("swaks again");
    let reply = sent.stdout.lines().find(|line| line.contains(" 451 ")).unwrap_or_else(|| panic!("{sent:?}"));
    assert!(reply.contains("TLS handshake") && reply.contains("TLS 1.2"), "{reply}");
    assert!(!company.postfix.log().contains("sasl_username"), "{}", company.postfix.log());
}

/// Replies of a real server, not of a script.
#[test]
fn what_postfix_refuses_is_reported_in_its_words() {
    let settings = [("message_size_limit", "50000"), ("smtpd_sender_restrictions", "reject_unlisted_sender, reject")];
    let Some(company) = company_with(&settings, |postfix| postfix.submission, "direct", "", PASSWORD) else { return };
    let Some(sent) = send(&company.gateway) else { return };
    assert!(!sent.success && sent.stdout.contains(" 554 5.7.1 ") && sent.stdout.contains("Access denied"), "{sent:?}");
    let folder = company.gateway.folder();
    fs::write(folder.join("large.txt"), "a line of a large mail\n".repeat(4000)).unwrap();
    let server = company.gateway.address().to_string();
    let body = folder.join("large.txt").display().to_string();
    let envelope = ["--server", &server, "--from", "reports@example.com", "--to", "you@example.net"];
    let large = swaks(&[&envelope[..], &["--body", &format!("@{body}")]].concat()).expect("swaks again");
    assert!(!large.success && large.stdout.contains(" 552 5.3.4 "), "{large:?}");
    assert!(large.stdout.contains("accepts at most 50000"), "{large:?}");
}

#[test]
fn a_hundred_mails_at_once_reach_postfix_over_four_connections() {
    let Some(company) = company(|postfix| postfix.submission, "queue", "max_connections = 4", PASSWORD) else { return };
    let load =
        Load { sessions: 20, messages: 100, size: 4500, sender: "reports@example.com", recipient: "you@example.net" };
    let Some(sent) = smtp_source(&company.gateway.address().to_string(), &load) else { return };
    assert!(sent.success, "{sent:?}");
    verify_arrivals(&company, 100);
    let connections = company.postfix.log().matches("TLS connection established from").count();
    assert!((1..=4).contains(&connections), "100 mails over {connections} connections");
}

#[test]
fn a_login_that_postfix_refuses_is_a_451_and_never_its_535() {
    let Some(company) = company(|postfix| postfix.submission, "direct", "", "not-the-password-canary") else { return };
    let Some(sent) = send(&company.gateway) else { return };
    assert!(!sent.success, "{sent:?}");
    let reply = sent.stdout.lines().find(|line| line.contains(" 451 ")).unwrap_or_else(|| panic!("{sent:?}"));
    assert!(reply.contains("AUTH") && reply.contains("company"), "step and upstream: {reply}");
    let line = company.gateway.wait_for_line(&["\"deferred\"", "AUTH"]);
    assert!(line.contains("535"), "the provider's words are in the log: {line}");
    let log = company.gateway.log().join("\n");
    assert!(!log.contains("canary") && !sent.stdout.contains("canary"), "no password anywhere");
}
