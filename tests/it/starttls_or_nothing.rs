//! Whatever a provider, or an attacker in between, does about STARTTLS: through the built gateway the application gets
//! a 451 with step and reason, the log has the same, and nobody could read the login or the mail.

use crate::support::application::{further, hand_in, in_front_of, mail, queued_in_front_of};
use crate::support::certificate::{Authority, Issued};
use crate::support::eventually;
use crate::support::tally::Tally;
use crate::support::upstream::{Action, At, Builder, ScriptedUpstream};
use rcgen::date_time_ymd;

struct Case {
    name: &'static str,
    provider: Builder,
    /// Into the upstream's table.
    lines: &'static str,
    words: &'static [&'static str],
    /// What the provider may hear inside TLS.
    inside: &'static str,
}

fn case(name: &'static str, provider: Builder, words: &'static [&'static str]) -> Case {
    Case { name, provider, lines: "", words, inside: "" }
}

fn script(at: At, action: impl Into<Action>) -> Builder {
    ScriptedUpstream::builder().always(at, action)
}

fn raw(octets: &[u8]) -> Action {
    Action::Raw(octets.to_vec())
}

/// A provider with this certificate, and a gateway that trusts `ca`.
fn certificate(issued: Issued, ca: &str) -> Builder {
    ScriptedUpstream::builder().identity(issued, ca)
}

fn refusals() -> Vec<Case> {
    let offered = |keywords: &[&str]| ScriptedUpstream::builder().keywords_in_clear(keywords);
    vec![
        case("refused for now", script(At::StartTls, "454 4.7.0 no TLS now"), &["STARTTLS", "454 4.7.0 no TLS now"]),
        case("unknown", script(At::StartTls, "500 5.5.1 what"), &["STARTTLS", "500 5.5.1 what"]),
        case("a goodbye", script(At::StartTls, "221 2.0.0 bye"), &["STARTTLS", "221 2.0.0 bye"]),
        case("closed", script(At::StartTls, Action::Close), &["STARTTLS", "closed"]),
        case("keyword missing", offered(&["PIPELINING", "AUTH PLAIN LOGIN"]), &["STARTTLS"]),
        case("keyword mangled", offered(&["PIPELINING", "XXXXXXXA", "AUTH PLAIN LOGIN"]), &["STARTTLS"]),
        case("EHLO refused", script(At::Ehlo, "500 5.5.1 what"), &["EHLO", "500 5.5.1 what"]),
    ]
}

fn attacks() -> Vec<Case> {
    vec![
        case("plain text after the 220", script(At::Handshake, raw(b"250 in clear\r\n")), &["TLS handshake"]),
        case("closed after the 220", script(At::Handshake, Action::Close), &["TLS handshake"]),
        case(
            "replies injected behind the 220",
            script(At::StartTls, raw(b"220 2.0.0 go\r\n250-scripted.example\r\n250 AUTH PLAIN\r\n")),
            &["STARTTLS"],
        ),
        case(
            "a login accepted before it was asked for",
            script(At::StartTls, raw(b"220 2.0.0 go\r\n235 2.7.0 welcome\r\n250 ok\r\n250 ok\r\n354 go\r\n250 ok\r\n")),
            &["STARTTLS"],
        ),
    ]
}

fn certificates() -> Vec<Case> {
    let authority = Authority::new();
    let names: &[&str] = &["localhost", "127.0.0.1"];
    let expired = authority.issue_with(names, |params| params.not_after = date_time_ymd(2020, 1, 1));
    let not_yet = authority.issue_with(names, |params| params.not_before = date_time_ymd(2090, 1, 1));
    vec![
        case("another name", certificate(authority.issue(&["mx.example.com"]), &authority.pem()), &["mx.example.com"]),
        case("expired", certificate(expired, &authority.pem()), &["expired"]),
        case("not yet valid", certificate(not_yet, &authority.pem()), &["not valid before"]),
        case("unknown authority", certificate(Authority::new().issue(names), &authority.pem()), &["authority"]),
        case("self-signed", certificate(Issued::self_signed(names), &authority.pem()), &["`ca`"]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_and_the_application_gets_the_reason() {
    let mut tally = Tally::new("starttls-out", "through the gateway");
    for Case { name, provider, words, .. } in refusals().into_iter().chain(attacks()).chain(certificates()) {
        let scripted = provider.start().await;
        let mut gateway = in_front_of(&scripted, "").start(1);
        let reply = hand_in(gateway.address(), &["you@example.net"], &mail("body-linnet")).await;
        assert!(reply.starts_with("451 4."), "{name}: {reply}");
        let log = gateway.wait_for_line(&["\"deferred\"", "you@example.net"]);
        for word in [&["company"], words].concat() {
            assert!(reply.contains(word) && log.contains(word), "{name}: no {word:?} in {reply}\n{log}");
        }
        gateway.signal("TERM");
        assert_eq!(gateway.wait().code(), Some(0), "{name}");
        assert_nothing_was_heard(name, &scripted, "");
        tally.right(1);
    }
    tally.finish();
}

fn assert_nothing_was_heard(name: &str, scripted: &ScriptedUpstream, inside: &str) {
    let in_clear = scripted.heard_in_clear();
    // From the client's first TLS record on it is not text.
    let text = in_clear.split(|&octet| octet == 0x16).next().unwrap_or_default();
    for line in String::from_utf8_lossy(text).split_terminator("\r\n") {
        assert!(["EHLO gateway.example.com", "STARTTLS", "QUIT"].contains(&line), "{name}: in clear: {line}");
    }
    let heard = String::from_utf8_lossy(&scripted.heard_inside_tls()).replace(inside, "");
    assert_eq!(heard, "", "{name}: inside TLS");
    assert!(scripted.logins().is_empty() && scripted.messages().is_empty(), "{name}");
}

/// What the codes and the shapes of a refusal cannot change.
fn more_refusals() -> Vec<Case> {
    const TLS_1_1_ONLY: [u8; 7] = [21, 3, 1, 0, 2, 2, 70];
    let builder = ScriptedUpstream::builder;
    let mut cases: Vec<_> =
        ["501 5.5.4 no", "502 5.5.1 no", "530 5.7.0 no", "554 5.7.3 no", "421 4.3.2 no", "354 no", "250 no"]
            .map(|reply| case(reply, script(At::StartTls, reply), &["STARTTLS"]))
            .into();
    cases.extend([
        case("TLS 1.1 only", script(At::Handshake, raw(&TLS_1_1_ONLY)), &["TLS 1.1"]),
        case("closed with the 220", script(At::StartTls, Action::say_and_close("220 go")), &["closed"]),
        case("endless replies", script(At::Ehlo, Action::Endless("250-X-AGAIN")), &["not SMTP"]),
        case("no reply at all", script(At::Greeting, raw(&[b'2'; 5000])), &["not SMTP"]),
        case("codes that differ", script(At::Ehlo, raw(b"250-a\r\n550 b\r\n")), &["not SMTP"]),
        case("a login offered in clear alone", builder().keywords_in_clear(&["AUTH PLAIN LOGIN"]), &["STARTTLS"]),
    ]);
    cases.extend(silences());
    let in_clear =
        builder().keywords_in_clear(&["STARTTLS", "PIPELINING", "AUTH PLAIN LOGIN"]).keywords(&["PIPELINING"]);
    cases.push(Case {
        inside: "EHLO gateway.example.com\r\n",
        ..case("what was offered before TLS alone", in_clear, &["AUTH", "offers no AUTH"])
    });
    cases
}

/// A server that says nothing more, or half of it.
fn silences() -> impl Iterator<Item = Case> {
    let half = script(At::Ehlo, raw(b"250-scripted.example\r\n250-START"));
    [
        case("silent instead of the 220", script(At::StartTls, Action::Stall), &["STARTTLS", "no answer in time"]),
        case("silent after the 220", script(At::Handshake, Action::Stall), &["TLS handshake", "no answer in time"]),
        case("half an answer to EHLO", half, &["EHLO", "no answer in time"]),
    ]
    .into_iter()
    .map(|case| Case { lines: "connect_timeout = \"2s\"\ncommand_timeout = \"2s\"\n", ..case })
}

/// Told in the log and by `queue show`, and tried again; nothing has failed.
async fn is_deferred(Case { name, provider, lines, words, inside }: Case) -> Result<(), String> {
    let scripted = provider.start().await;
    let gateway = queued_in_front_of(&scripted, lines, "").start(1);
    let reply = hand_in(gateway.address(), &["you@example.net"], &mail("body-linnet")).await;
    let id = reply.strip_prefix("250 2.0.0 Queued as ").ok_or(format!("{name}: {reply}"))?.to_owned();
    gateway.wait_for_line(&["\"deferred\"", &id]);
    let show = || String::from_utf8_lossy(&gateway.output(&["queue", "show", &id]).stdout).into_owned();
    // The log is ahead of the queue.
    eventually("the attempt is in the queue", || !show().contains("not tried yet"));
    let shown = show();
    let (status, log, _) = gateway.stop();
    let log = log.join("\n");
    let told = words.iter().all(|word| log.contains(word) && shown.contains(word));
    let failed = log.contains("\"message\":\"failed\"") || shown.contains("failed");
    assert_nothing_was_heard(name, &scripted, inside);
    if told && !failed && status.success() { Ok(()) } else { Err(format!("{name}: {words:?} in\n{shown}\n{log}")) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_queued_is_deferred_and_the_reason_is_shown() {
    let mut tally = Tally::new("starttls-out", "queue");
    // One after the other: each waits for its log without giving the thread away.
    for case in refusals().into_iter().chain(attacks()).chain(certificates()).chain(more_refusals()) {
        let result = is_deferred(case).await;
        tally.case(result.is_ok(), || result.unwrap_err());
    }
    tally.finish();
}

/// One account, one cap, one idle connection: an upstream with another authority or login gets none of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_of_another_policy_or_login_is_not_used() {
    let mut tally = Tally::new("starttls-out", "pooled");
    // The second login is refused.
    let provider = ScriptedUpstream::builder().once(At::Auth, "235 2.7.0 in").always(At::Auth, "535 5.7.8 not you");
    let scripted = provider.start().await;
    let shared = "share_limits_with = \"company\"\nusername = \"someone-else\"\npassword = \"another-canary\"\n";
    let route = |to: &str, upstream: &str| {
        format!("[[route]]\nname = \"{upstream}\"\nrecipients = [\"*@{to}\"]\nupstreams = [\"{upstream}\"]\n")
    };
    let tables = [
        further("strict", &scripted, shared),
        further("stranger", &scripted, shared),
        route("strict.example", "strict"),
        route("stranger.example", "stranger"),
        route("*", "company"),
    ];
    let gateway = queued_in_front_of(&scripted, &format!("max_connections = 2\n{}", tables.concat()), "")
        .file("strict.pem", Authority::new().pem())
        .file("stranger.pem", scripted.ca())
        .start(1);
    hand_in(gateway.address(), &["you@example.net"], &mail("first")).await;
    gateway.wait_for_line(&["\"delivered\"", "you@example.net"]);
    for (recipient, upstream, words) in [
        ("a@strict.example", "strict", ["TLS handshake", "authority"]),
        ("b@stranger.example", "stranger", ["AUTH", "535 5.7.8 not you"]),
    ] {
        let reply = hand_in(gateway.address(), &[recipient], &mail("second")).await;
        let id = reply.strip_prefix("250 2.0.0 Queued as ").expect("taken").to_owned();
        let log = gateway.wait_for_line(&["\"deferred\"", &id]);
        let show = || String::from_utf8_lossy(&gateway.output(&["queue", "show", &id]).stdout).into_owned();
        eventually("the attempt is in the queue", || !show().contains("not tried yet"));
        let shown = show();
        let names_it = log.contains(&format!("\"upstream\":\"{upstream}\"")) && shown.contains(upstream);
        let right = names_it && words.iter().all(|word| log.contains(word) && shown.contains(word));
        tally.case(right, || format!("{recipient}: {log}\n{shown}"));
    }
    let users: Vec<_> = scripted.logins().into_iter().map(|(_, user, _)| user).collect();
    tally.case(users.iter().filter(|user| *user == "relay-user").count() == 1, || format!("{users:?}"));
    tally.case(scripted.messages().len() == 1, || format!("{:?}", scripted.messages()));
    tally.finish();
}
