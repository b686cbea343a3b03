//! Whatever a server, or an attacker in between, does about STARTTLS: nothing secret is sent, and the reason is reported.

use crate::support::mail::{envelope, numbered};
use crate::support::relay::{not_ready, send, upstream};
use crate::support::upstream::{Action, At, Builder, ScriptedUpstream};
use std::time::Duration;
use waxseal::message::RelayStep;
use waxseal::relay::{Deadline, UpstreamOptions};

struct Case {
    name: &'static str,
    upstream: Builder,
    step: RelayStep,
    /// Part of the reason's text.
    told: &'static str,
}

fn case(name: &'static str, at: At, action: impl Into<Action>, step: RelayStep, told: &'static str) -> Case {
    Case { name, upstream: ScriptedUpstream::builder().always(at, action), step, told }
}

fn raw(octets: &[u8]) -> Action {
    Action::Raw(octets.to_vec())
}

/// Only for cases in which the server falls silent; everything before that must fit in.
const SHORT: Duration = Duration::from_secs(3);

async fn nothing_leaves(case: Case, adjust: impl FnOnce(&mut UpstreamOptions)) {
    let Case { name, upstream: builder, step, told } = case;
    let scripted = builder.start().await;
    let mut options = scripted.options("company");
    adjust(&mut options);
    let upstream = upstream(options);
    let reason = not_ready(&upstream).await;
    assert_eq!(reason.step, step, "{name}: {reason}");
    assert!(reason.to_string().contains(told), "{name}: {reason}");
    assert!(reason.to_string().starts_with("upstream \"company\", "), "{name}: {reason}");
    upstream.close(Deadline::NONE).await;
    scripted.until_alone().await;
    let mut in_clear = scripted.heard_in_clear();
    assert!(memchr::memmem::find(&in_clear, b"canary").is_none() && memchr::memmem::find(&in_clear, b"MAIL").is_none());
    // A TLS record: the client's hello, which is as it should be.
    in_clear.truncate(memchr::memmem::find(&in_clear, &[22, 3, 1]).unwrap_or(in_clear.len()));
    for line in String::from_utf8(in_clear).unwrap().split_terminator("\r\n") {
        assert!(line == "EHLO gateway.example" || line == "STARTTLS", "{name}: in clear: {line}");
    }
    assert_eq!(scripted.heard_inside_tls().escape_ascii().to_string(), "", "{name}");
    assert!(scripted.logins().is_empty() && scripted.messages().is_empty(), "{name}");
}

#[tokio::test]
async fn starttls_refused() {
    for refusal in [
        "454 4.7.0 TLS not available",
        "500 5.5.1 what",
        "501 5.5.4 no parameters",
        "502 5.5.1 not implemented",
        "530 5.7.0 no",
        "554 5.7.3 cannot",
        "421 4.3.2 later",
        "354 odd",
        "221 2.0.0 bye",
        "250 2.0.0 fine, go on in clear",
    ] {
        nothing_leaves(case(refusal, At::StartTls, refusal, RelayStep::StartTls, refusal), |_| {}).await;
    }
}

#[tokio::test]
async fn starttls_not_offered() {
    for keywords in [&[][..], &["XXXXXXXA"], &["PIPELINING", "STARTTLSX", "8BITMIME"], &["START TLS"]] {
        let upstream = ScriptedUpstream::builder().keywords_in_clear(keywords);
        let told = "does not offer STARTTLS";
        nothing_leaves(Case { name: "keyword", upstream, step: RelayStep::StartTls, told }, |_| {}).await;
    }
}

#[tokio::test]
async fn ehlo_refused_does_not_mean_plaintext() {
    for refusal in ["500 5.5.1 what", "502 5.5.1 not implemented", "421 4.3.2 later", "550 5.7.1 go away"] {
        nothing_leaves(case(refusal, At::Ehlo, refusal, RelayStep::Ehlo, refusal), |_| {}).await;
    }
}

#[tokio::test]
async fn the_greeting_is_not_a_greeting() {
    for greeting in ["421 4.3.2 busy", "554 5.7.1 no service", "250 odd"] {
        nothing_leaves(case(greeting, At::Greeting, greeting, RelayStep::Greeting, greeting), |_| {}).await;
    }
    nothing_leaves(case("closed", At::Greeting, Action::Close, RelayStep::Greeting, "closed the connection"), |_| {})
        .await;
}

/// CVE-2021-38371, CVE-2021-22947.
#[tokio::test]
async fn replies_injected_behind_the_220_are_an_attack() {
    for injected in [
        &b"220 go\r\n250 injected\r\n"[..],
        b"220 go\r\n250-injected\r\n250 AUTH PLAIN\r\n235 2.7.0 in\r\n250 ok\r\n",
        b"220 go\r\n2",
        b"220 go\r\n\r\n",
    ] {
        let case = case("injected", At::StartTls, raw(injected), RelayStep::StartTls, "sent more in clear");
        nothing_leaves(case, |_| {}).await;
    }
}

#[tokio::test]
async fn what_follows_the_220_is_not_tls() {
    let plain = "something that is not TLS";
    let cases = [
        case("plain text", At::Handshake, "250 let us go on in clear", RelayStep::TlsHandshake, plain),
        case("binary noise", At::Handshake, raw(&[0xff; 40]), RelayStep::TlsHandshake, plain),
        case(
            "close",
            At::Handshake,
            Action::Close,
            RelayStep::TlsHandshake,
            "closed the connection during the TLS handshake",
        ),
        case(
            "close early",
            At::StartTls,
            Action::say_and_close("220 go"),
            RelayStep::TlsHandshake,
            "closed the connection",
        ),
        case("alert", At::Handshake, raw(&PROTOCOL_VERSION_ALERT), RelayStep::TlsHandshake, "only TLS 1.1 or older"),
        case("TLS 1.1", At::Handshake, raw(&TLS_1_1_SERVER_HELLO), RelayStep::TlsHandshake, "only TLS 1.1 or older"),
    ];
    for case in cases {
        nothing_leaves(case, |_| {}).await;
    }
}

/// What OpenSSL sends when nothing above TLS 1.1 is enabled.
const PROTOCOL_VERSION_ALERT: [u8; 7] = [21, 3, 1, 0, 2, 2, 70];

/// A server that always answers with TLS 1.1.
const TLS_1_1_SERVER_HELLO: [u8; 47] = {
    let mut record = [0; 47];
    let start = [22, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2];
    let mut at = 0;
    while at < start.len() {
        record[at] = start[at];
        at += 1;
    }
    // Behind 32 random octets: no session, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, no compression.
    record[44] = 0xc0;
    record[45] = 0x13;
    record
};

#[tokio::test]
async fn the_server_falls_silent() {
    let short = |options: &mut UpstreamOptions| {
        (options.limits.command_timeout, options.limits.connect_timeout) = (SHORT, SHORT)
    };
    let silent = "no answer in time";
    tokio::join!(
        nothing_leaves(case("greeting", At::Greeting, Action::Stall, RelayStep::Greeting, silent), short),
        nothing_leaves(case("EHLO", At::Ehlo, Action::Stall, RelayStep::Ehlo, silent), short),
        nothing_leaves(case("STARTTLS", At::StartTls, Action::Stall, RelayStep::StartTls, silent), short),
        nothing_leaves(case("handshake", At::Handshake, Action::Stall, RelayStep::TlsHandshake, silent), short),
        nothing_leaves(case("half", At::Ehlo, raw(b"250-half\r\n250-"), RelayStep::Ehlo, silent), short),
    );
}

#[tokio::test]
async fn endless_and_malformed_replies() {
    let not_smtp = "this is not SMTP";
    let cases = [
        case("endless", At::Ehlo, Action::Endless("250-X-AGAIN"), RelayStep::Ehlo, not_smtp),
        case("endless 220", At::Greeting, Action::Endless("220-hello"), RelayStep::Greeting, not_smtp),
        case("no end of line", At::Greeting, raw(&[b'2'; 5000]), RelayStep::Greeting, not_smtp),
        case("no code", At::Greeting, "hello", RelayStep::Greeting, not_smtp),
        case("HTTP", At::Greeting, "HTTP/1.1 400 Bad Request", RelayStep::Greeting, not_smtp),
        case("code out of range", At::Ehlo, "999 x", RelayStep::Ehlo, not_smtp),
        case("mixed codes", At::Ehlo, raw(b"250-a\r\n550 b\r\n"), RelayStep::Ehlo, not_smtp),
        case("an answer too many", At::Ehlo, raw(b"250 STARTTLS\r\n250 x\r\n"), RelayStep::StartTls, ""),
        case(
            "says 2 lines",
            At::Greeting,
            raw(b"220 hello\r\n250 STARTTLS\r\n"),
            RelayStep::Ehlo,
            "more than it was asked",
        ),
    ];
    for case in cases {
        nothing_leaves(case, |_| {}).await;
    }
}

#[tokio::test]
async fn what_was_offered_before_tls_does_not_count() {
    let scripted = ScriptedUpstream::builder()
        .keywords_in_clear(&["STARTTLS", "PIPELINING", "8BITMIME", "SIZE 1000000", "AUTH PLAIN LOGIN"])
        .keywords(&[])
        .start()
        .await;
    let with_login = upstream(scripted.options("company"));
    let reason = not_ready(&with_login).await;
    assert_eq!((reason.step, scripted.logins()), (RelayStep::Auth, vec![]), "{reason}");
    let mut options = scripted.options("company");
    options.credentials = None;
    let without = upstream(options);
    send(&without, &envelope(&["b@example.net"]), &numbered(1)).await.unwrap();
    assert_eq!(scripted.messages()[0].mail, "<a@example.com>");
    assert_eq!(scripted.segments(), 4, "MAIL, RCPT, DATA and the data go one by one");
}

#[tokio::test]
async fn implicit_tls_to_a_port_that_speaks_first_says_what_to_change() {
    let scripted = ScriptedUpstream::start().await;
    let mut options = scripted.options("company");
    options.endpoint.tls = waxseal::relay::TlsMode::Implicit;
    let reason = not_ready(&upstream(options)).await;
    assert_eq!(reason.step, RelayStep::TlsHandshake);
    assert!(reason.advice.as_ref().is_some_and(|advice| advice.contains("STARTTLS")), "{reason}");
    assert!(scripted.heard_inside_tls().is_empty());
}

#[tokio::test]
async fn implicit_tls_delivers() {
    let scripted = ScriptedUpstream::builder().implicit_tls().start().await;
    let upstream = upstream(scripted.options("company"));
    send(&upstream, &envelope(&["b@example.net"]), &numbered(1)).await.unwrap();
    assert_eq!((scripted.messages().len(), scripted.heard_in_clear().len()), (1, 0));
}
