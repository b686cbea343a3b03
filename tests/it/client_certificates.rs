//! A provider that asks who the client is: the certificate is shown, is the login where there is no other, and what is
//! missing or refused is named with the key to set.

use crate::support::application::{further, hand_in, mail, queued_in_front_of};
use crate::support::canaries;
use crate::support::certificate::{Authority, Issued};
use crate::support::gateway::Setup;
use crate::support::mail::{envelope, numbered};
use crate::support::relay::{assert_told, not_ready, ready, send, told, upstream};
use crate::support::upstream::{Action, At, Builder, Clients, ScriptedUpstream};
use rcgen::date_time_ymd;
use waxseal::message::RelayStep;
use waxseal::relay::{Account, Upstream, UpstreamOptions};
use waxseal::tls::{self, ClientIdentity};

/// The options of a client with this certificate and no login.
fn as_client(scripted: &ScriptedUpstream, issued: Option<&Issued>) -> UpstreamOptions {
    let mut options = scripted.options("company");
    options.credentials = None;
    let ca = waxseal::pem::certificates(scripted.ca().as_bytes()).unwrap();
    let identity = issued.map(identity);
    options.endpoint.tls_config = tls::client_with(&ca, identity.as_ref()).unwrap();
    options.endpoint.client_certificate = identity.map(|identity| identity.certificate);
    options
}

fn identity(issued: &Issued) -> ClientIdentity {
    canaries::learn(&issued.private_key);
    let chain = waxseal::pem::certificates(issued.certificate.as_bytes()).unwrap();
    ClientIdentity::new(chain, waxseal::pem::private_key(issued.private_key.as_bytes()).unwrap()).unwrap()
}

fn der(issued: &Issued) -> Vec<u8> {
    waxseal::pem::certificates(issued.certificate.as_bytes()).unwrap()[0].to_vec()
}

/// Each combination of STARTTLS or implicit TLS, and TLS 1.2 or 1.3.
fn each_way(clients: impl Fn() -> Clients) -> Vec<(Builder, String)> {
    let way = |implicit: bool, old: bool| {
        let clients = if old { clients().tls_1_2() } else { clients() };
        let builder = ScriptedUpstream::builder().clients(clients);
        let builder = if implicit { builder.implicit_tls() } else { builder };
        (builder, format!("implicit: {implicit}, TLS 1.2: {old}"))
    };
    vec![way(false, false), way(false, true), way(true, false), way(true, true)]
}

#[tokio::test]
async fn the_certificate_is_shown_and_the_mail_arrives() {
    let authority = Authority::new();
    let client = authority.issue(&["gateway.example.com"]);
    for (builder, way) in each_way(|| Clients::required(&authority.pem())) {
        let scripted = builder.start().await;
        let upstream = upstream(as_client(&scripted, Some(&client)));
        assert_told(&send(&upstream, &envelope(&["b@example.net"]), &numbered(1)).await.unwrap(), &["delivered"]);
        assert_eq!(scripted.messages()[0].certificate, der(&client), "{way}");
        assert!(scripted.logins().is_empty(), "{way}: PLAIN and LOGIN are not for certificates");
    }
}

/// In TLS 1.3 the alert arrives after the client's side of the handshake is complete.
#[tokio::test]
async fn a_server_that_demands_a_certificate_is_told_apart_from_one_that_is_away() {
    let authority = Authority::new();
    for (builder, way) in each_way(|| Clients::required(&authority.pem())) {
        let scripted = builder.start().await;
        let reason = not_ready(&upstream(as_client(&scripted, None))).await;
        assert_eq!(reason.step, RelayStep::TlsHandshake, "{way}: {reason}");
        let text = reason.to_string();
        assert!(text.contains("the server demands a client certificate"), "{way}: {text}");
        assert!(
            text.contains("`certificate` and `private_key`") && text.contains("WAXSEAL_CLIENT_CERTIFICATE"),
            "{text}"
        );
        assert_eq!(scripted.count("MAIL"), 0);
    }
}

#[tokio::test]
async fn a_certificate_that_the_server_refuses_is_named_by_its_fingerprint() {
    let authority = Authority::new();
    let expired = authority.issue_with(&["gateway.example.com"], |it| it.not_after = date_time_ymd(2020, 2, 3));
    let stranger = Authority::new().issue(&["gateway.example.com"]);
    for client in [expired, stranger, Issued::self_signed(&["gateway.example.com"])] {
        for (builder, way) in each_way(|| Clients::required(&authority.pem())) {
            let scripted = builder.start().await;
            let reason = not_ready(&upstream(as_client(&scripted, Some(&client)))).await;
            assert_eq!(reason.step, RelayStep::TlsHandshake, "{way}: {reason}");
            let (text, fingerprint) = (reason.to_string(), identity(&client).certificate.fingerprint);
            assert!(text.contains("does not accept the client certificate"), "{way}: {text}");
            assert!(text.contains(&fingerprint) && text.contains("`certificate`"), "{way}: {text}");
        }
    }
}

/// Postfix with smtpd_tls_req_ccert, Exim and others say it in SMTP.
#[tokio::test]
async fn a_server_that_demands_a_certificate_in_words_gets_the_same_advice() {
    let authority = Authority::new();
    for says in [
        Action::say_and_close("421 4.7.1 mx.example Error: No client certificate presented"),
        Action::say_and_close("550 5.7.1 a client certificate is required"),
        Action::Close,
    ] {
        let builder = ScriptedUpstream::builder().clients(Clients::optional(&authority.pem()));
        let scripted = builder.always(At::EhloInTls, says.clone()).start().await;
        let reason = not_ready(&upstream(as_client(&scripted, None))).await;
        assert!(reason.to_string().contains("`certificate` and `private_key`"), "{says:?}: {reason}");
    }
    // A server that never asked and closes is not said to want one.
    let scripted = ScriptedUpstream::builder().always(At::EhloInTls, Action::Close).start().await;
    let reason = not_ready(&upstream(as_client(&scripted, None))).await;
    assert!(!reason.to_string().contains("certificate"), "{reason}");
}

#[tokio::test]
async fn mail_that_is_refused_for_want_of_a_certificate_waits() {
    let authority = Authority::new();
    let builder = ScriptedUpstream::builder().clients(Clients::optional(&authority.pem())).keywords(&["PIPELINING"]);
    let scripted = builder.recipient("b@", "554 5.7.1 <b@example.net>: Relay access denied").start().await;
    let outcomes = send(&upstream(as_client(&scripted, None)), &envelope(&["b@example.net"]), &numbered(1)).await;
    let text = told(&outcomes.unwrap()[0]);
    assert!(text.starts_with("deferred: ") && text.contains("`certificate` and `private_key`"), "{text}");
    // With one, the server does not know it yet.
    let client = authority.issue(&["gateway.example.com"]);
    let known = upstream(as_client(&scripted, Some(&client)));
    let outcomes = send(&known, &envelope(&["b@example.net"]), &numbered(1)).await;
    let (text, fingerprint) = (told(&outcomes.unwrap()[0]), identity(&client).certificate.fingerprint);
    assert!(text.starts_with("deferred: ") && text.contains(&fingerprint), "{text}");
    // A server that asks nobody for a certificate refuses the recipient.
    let scripted = ScriptedUpstream::builder().keywords(&["PIPELINING"]);
    let scripted = scripted.recipient("b@", "554 5.7.1 <b@example.net>: Relay access denied").start().await;
    let outcomes = send(&upstream(as_client(&scripted, None)), &envelope(&["b@example.net"]), &numbered(1)).await;
    assert!(told(&outcomes.unwrap()[0]).starts_with("failed: "));
}

#[tokio::test]
async fn the_certificate_is_the_login_where_the_server_offers_external() {
    let authority = Authority::new();
    let client = authority.issue(&["gateway.example.com"]);
    let offering = || {
        let builder = ScriptedUpstream::builder().clients(Clients::optional(&authority.pem()));
        builder.keywords(&["PIPELINING", "AUTH PLAIN LOGIN EXTERNAL"])
    };
    for builder in [offering(), offering().once(At::Auth, "334 ")] {
        let scripted = builder.start().await;
        ready(&upstream(as_client(&scripted, Some(&client)))).await.unwrap();
        assert_eq!(scripted.logins(), [("EXTERNAL".to_owned(), String::new(), String::new())]);
    }
    // A login that is configured is the one that is used, and without a certificate there is none.
    let scripted = offering().start().await;
    let with_login = scripted.options("company").credentials;
    let options = UpstreamOptions { credentials: with_login, ..as_client(&scripted, Some(&client)) };
    ready(&upstream(options)).await.unwrap();
    ready(&upstream(as_client(&scripted, None))).await.unwrap();
    let mechanisms: Vec<_> = scripted.logins().into_iter().map(|(mechanism, ..)| mechanism).collect();
    assert_eq!(mechanisms, ["PLAIN"]);
}

/// It may know the certificate all the same; a temporary failure waits.
#[tokio::test]
async fn a_server_that_refuses_external_is_sent_the_mail() {
    let authority = Authority::new();
    let client = authority.issue(&["gateway.example.com"]);
    for refusal in ["535 5.7.8 no", "504 5.5.4 no", "503 5.5.1 no"] {
        let builder = ScriptedUpstream::builder().clients(Clients::optional(&authority.pem()));
        let builder = builder.keywords(&["PIPELINING", "AUTH EXTERNAL"]).always(At::Auth, refusal);
        let scripted = builder.start().await;
        let upstream = upstream(as_client(&scripted, Some(&client)));
        for _ in 0..2 {
            assert_told(&send(&upstream, &envelope(&["b@example.net"]), &numbered(1)).await.unwrap(), &["delivered"]);
        }
        assert_eq!(scripted.counts().total, 1, "{refusal}: the connection is kept");
    }
    let builder = ScriptedUpstream::builder().clients(Clients::optional(&authority.pem()));
    let builder = builder.keywords(&["PIPELINING", "AUTH EXTERNAL"]).always(At::Auth, "454 4.7.0 later");
    let reason = not_ready(&upstream(as_client(&builder.start().await, Some(&client)))).await;
    assert_eq!(reason.step, RelayStep::Auth, "{reason}");
}

/// Not even within one account, and no session is resumed under another certificate.
#[tokio::test]
async fn connections_of_different_certificates_are_never_shared() {
    let authority = Authority::new();
    let clients = [authority.issue(&["one.example.com"]), authority.issue(&["two.example.com"])];
    let scripted = ScriptedUpstream::builder().clients(Clients::required(&authority.pem())).start().await;
    let account = Account::new(1);
    let upstreams = clients.each_ref().map(|client| {
        let mut options = as_client(&scripted, Some(client));
        options.limits.max_connections = 1;
        Upstream::new(options, account.clone())
    });
    for turn in 0..6 {
        let outcomes = send(&upstreams[turn % 2], &envelope(&["b@example.net"]), &numbered(1)).await.unwrap();
        assert_told(&outcomes, &["delivered"]);
        assert_eq!(scripted.messages()[turn].certificate, der(&clients[turn % 2]), "mail {turn}");
    }
    assert_eq!(scripted.counts().max, 1, "the account's limit is the account's");
}

fn certified(setup: Setup, name: &str, client: &Issued) -> Setup {
    setup.file(&format!("{name}.crt"), &client.certificate).file(&format!("{name}.key"), &client.private_key)
}

const CERTIFIED: &str = "certificate = \"client.crt\"\nprivate_key = \"client.key\"";

#[tokio::test(flavor = "multi_thread")]
async fn the_program_shows_its_certificate_and_never_its_key() {
    let authority = Authority::new();
    let client = authority.issue(&["gateway.example.com"]);
    let scripted = ScriptedUpstream::builder().clients(Clients::required(&authority.pem())).start().await;
    let setup = certified(queued_in_front_of(&scripted, CERTIFIED, ""), "client", &client);
    let checked = setup.output(&["check"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(said.contains(&identity(&client).certificate.fingerprint), "{said}");
    let json = setup.output(&["check", "--json"]);
    assert!(String::from_utf8_lossy(&json.stdout).contains("\"client_certificate\": {"), "{json:?}");
    let gateway = setup.start(1);
    assert!(hand_in(gateway.address(), &["you@example.net"], &mail("certified")).await.starts_with("250 "));
    scripted.until_messages(1).await;
    assert_eq!(scripted.messages()[0].certificate, der(&client));
}

/// Two tables for one server, each with its own certificate.
#[tokio::test(flavor = "multi_thread")]
async fn each_upstream_has_its_own_certificate() {
    let authority = Authority::new();
    let clients = [authority.issue(&["one.example.com"]), authority.issue(&["two.example.com"])];
    let scripted = ScriptedUpstream::builder().clients(Clients::required(&authority.pem())).start().await;
    let other = further("other", &scripted, "certificate = \"other.crt\"\nprivate_key = { env = \"OTHER_KEY\" }");
    let routes = "[[route]]\nname = \"o\"\nrecipients = [\"*@other.test\"]\nupstreams = [\"other\"]\n\
                  [[route]]\nname = \"rest\"\nupstreams = [\"company\"]\n";
    let setup = queued_in_front_of(&scripted, &format!("{CERTIFIED}\n{other}{routes}"), "");
    let setup = certified(setup, "client", &clients[0]).file("other.crt", &clients[1].certificate);
    let setup = setup.file("other.pem", scripted.ca()).env("OTHER_KEY", &clients[1].private_key);
    let gateway = setup.start(1);
    for (recipient, client) in [("a@company.test", 0), ("a@other.test", 1), ("b@company.test", 0)] {
        let before = scripted.messages().len();
        assert!(hand_in(gateway.address(), &[recipient], &mail("certified")).await.starts_with("250 "));
        scripted.until_messages(before + 1).await;
        assert_eq!(scripted.messages()[before].certificate, der(&clients[client]), "{recipient}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_waits_for_a_certificate_and_the_log_names_the_key_to_set() {
    let authority = Authority::new();
    let scripted = ScriptedUpstream::builder().clients(Clients::required(&authority.pem())).start().await;
    let gateway = queued_in_front_of(&scripted, "", "").start(1);
    assert!(hand_in(gateway.address(), &["you@example.net"], &mail("waits")).await.starts_with("250 "));
    gateway.wait_for_line(&["\"deferred\"", "demands a client certificate", "set its `certificate` and `private_key`"]);
    assert!(!gateway.log().iter().any(|line| line.contains("\"message\":\"failed\"")));
}
