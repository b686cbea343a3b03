//! What the gateway says of its upstreams before the first mail, and what it tells the operator to put into Plausible.

use crate::support::application::queued_in_front_of;
use crate::support::gateway::Setup;
use crate::support::upstream::{Action, At, ScriptedUpstream};

const ON: &str = "WAXSEAL_DOCTOR_AT_START";

fn probing(scripted: &ScriptedUpstream, lines: &str) -> Setup {
    queued_in_front_of(scripted, lines, "").env(ON, "true")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_before_the_first_mail() {
    let refusal = "535 5.7.8 Authentication credentials invalid";
    let scripted = ScriptedUpstream::builder().always(At::Auth, refusal).start().await;
    let gateway = probing(&scripted, "").start(1);
    let line = gateway.wait_for_line(&["mail for this upstream will wait"]);
    for part in ["WARN", "upstream.auth", refusal, "check `username` and `password`"] {
        assert!(line.contains(part), "{line}");
    }
    assert_eq!(scripted.count("MAIL"), 0);
    assert!(!gateway.log().iter().any(|line| line.contains("canary")), "no password is logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_well_is_logged_in_to_and_left_at_once() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = probing(&scripted, "").start(1);
    gateway.wait_for_line(&["the upstream answers and accepts the login"]);
    scripted.until_alone().await;
    assert_eq!((scripted.counts().total, scripted.logins().len()), (1, 1));
    assert_eq!((scripted.count("QUIT"), scripted.count("MAIL")), (1, 0));
    let (_, log, _) = gateway.stop();
    assert!(!log.iter().any(|line| line.contains("WARN") && line.contains("upstream")), "{}", log.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_login_of_a_provider_is_tried() {
    let scripted = ScriptedUpstream::start().await;
    let other = "[[upstream.credentials]]\ndomain = \"example.org\"\nusername = \"other\"\npassword = \"other-canary-password\"\n";
    let gateway = probing(&scripted, &format!("max_connections = 1\n{other}")).start(1);
    crate::support::until("both logins", || scripted.logins().len() == 2).await;
    scripted.until_alone().await;
    assert_eq!(scripted.counts().max, 1, "the cap holds");
    drop(gateway);
}

/// What a configuration gets wrong is named by the check that it belongs to.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named() {
    let told = |line: &str| Action::say_and_close(line);
    for (at, action, check) in [
        (At::Greeting, told("554 5.7.1 no service for this address"), "upstream.greeting"),
        (At::Greeting, told("421 4.7.0 too many connections from your address"), "upstream.connections"),
        (At::EhloInTls, told("550 5.7.1 no such client"), "upstream.ehlo"),
        (At::StartTls, told("454 4.7.0 TLS not available"), "upstream.tls.mode"),
        (At::Auth, told("535 5.7.139 SmtpClientAuthentication is disabled"), "upstream.auth"),
    ] {
        let scripted = ScriptedUpstream::builder().always(at, action).start().await;
        let gateway = probing(&scripted, "").start(1);
        let line = gateway.wait_for_line(&["mail for this upstream will wait"]);
        assert!(line.contains(check), "{check}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_tried_if_that_is_turned_off() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = queued_in_front_of(&scripted, "", "[doctor]\nat_start = true\n").env(ON, "false").start(1);
    gateway.stop();
    assert_eq!(scripted.counts().total, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_for_plausible_is_printed_with_the_port_that_is_open() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = queued_in_front_of(&scripted, "", "").start(1);
    let port = format!("  SMTP_HOST_PORT={}", gateway.address().port());
    gateway.wait_for_line(&[&port]);
    gateway.wait_for_line(&["  SMTP_HOST_SSL_ENABLED=false"]);
    let printed = gateway.log();
    for line in ["  SMTP_HOST_ADDR=127.0.0.1", "  SMTP_HOST_SSL_ENABLED=false"] {
        assert!(printed.iter().any(|printed| printed == line), "{line}\n{}", printed.join("\n"));
    }
    assert!(!gateway.standard_output().iter().any(|line| line.contains("SMTP_HOST_PORT")), "that is the log's");
}
