//! Logging in at a provider: with PLAIN or LOGIN, whichever it offers, and never with a secret in a reason.

use crate::support::mail::{envelope, numbered};
use crate::support::relay::{assert_told, not_ready, ready, send, told, upstream};
use crate::support::upstream::{Action, At, Builder, ScriptedUpstream};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use waxseal::message::{Outcome, Reason, RelayStep};
use waxseal::observe::Secret;
use waxseal::relay::Credentials;

const PASSWORD: &str = "relay-canary-password";

fn offering(auth: &str) -> Builder {
    ScriptedUpstream::builder().keywords(&["PIPELINING", auth])
}

async fn logged_in(builder: Builder, mechanism: &str) {
    let scripted = builder.start().await;
    ready(&upstream(scripted.options("company"))).await.unwrap();
    assert_eq!(scripted.logins(), [(mechanism.to_owned(), "relay-user".to_owned(), PASSWORD.to_owned())]);
}

async fn refused(builder: Builder) -> Reason {
    let scripted = builder.start().await;
    let reason = not_ready(&upstream(scripted.options("company"))).await;
    assert_eq!(reason.step, RelayStep::Auth, "{reason}");
    assert!(!format!("{reason} {reason:?}").contains(PASSWORD));
    assert_eq!(scripted.count("MAIL"), 0);
    reason
}

#[tokio::test]
async fn the_mechanism_that_is_offered() {
    logged_in(offering("AUTH PLAIN LOGIN"), "PLAIN").await;
    logged_in(offering("AUTH LOGIN PLAIN XOAUTH2"), "PLAIN").await;
    logged_in(offering("auth cram-md5 login"), "LOGIN").await;
    logged_in(offering("AUTH=PLAIN"), "PLAIN").await;
    logged_in(offering("AUTH=LOGIN"), "LOGIN").await;
}

#[tokio::test]
async fn login_whatever_the_prompts_say() {
    let odd = |at, prompt: &str| offering("AUTH LOGIN").once(at, prompt);
    logged_in(odd(At::Auth, "334 Username:").once(At::AuthAnswer, "334 "), "LOGIN").await;
    logged_in(odd(At::Auth, "334 dXNlcm5hbWU6").once(At::AuthAnswer, "334 cGFzc3dvcmQ6"), "LOGIN").await;
}

#[tokio::test]
async fn a_server_that_overlooks_the_initial_response() {
    logged_in(offering("AUTH PLAIN").once(At::Auth, "334 "), "PLAIN").await;
}

#[tokio::test]
async fn a_refused_login_is_about_the_upstream() {
    let reason = refused(offering("AUTH PLAIN").always(At::Auth, "535 5.7.8 wrong")).await;
    assert!(reason.to_string().contains("535 5.7.8 wrong") && reason.to_string().contains("`username`"), "{reason}");
    let reason = refused(offering("AUTH LOGIN").always(At::AuthAnswer, "535-5.7.8 no\r\n535 5.7.8 really")).await;
    assert!(reason.to_string().contains("535 5.7.8 no really"), "{reason}");
    refused(offering("AUTH PLAIN").always(At::Auth, "454 4.7.0 later")).await;
    refused(offering("AUTH PLAIN").always(At::Auth, "250 odd")).await;
    refused(offering("AUTH PLAIN").always(At::Auth, Action::Close)).await;
    refused(offering("AUTH PLAIN").always(At::Auth, "334 ").always(At::AuthAnswer, "334 again")).await;
}

/// Some servers say back what they did not understand.
#[tokio::test]
async fn a_server_that_quotes_the_login_does_not_get_it_into_a_reason() {
    let base64 = STANDARD.encode(format!("\0relay-user\0{PASSWORD}"));
    for quoted in [PASSWORD, &base64, &base64[..30], &STANDARD.encode(PASSWORD)] {
        let reply = format!("535-5.7.8 \"{quoted}\"\r\n535 5.7.8 I do not know {quoted}");
        let reason = refused(offering("AUTH PLAIN").always(At::Auth, reply.as_str())).await;
        assert!(!reason.to_string().contains(quoted) && reason.to_string().contains("I do not know ***"), "{reason}");
    }
}

#[tokio::test]
async fn neither_is_offered() {
    let reason = refused(offering("AUTH CRAM-MD5 XOAUTH2")).await;
    assert!(reason.to_string().contains("offers AUTH CRAM-MD5 XOAUTH2; waxseal speaks PLAIN and LOGIN"), "{reason}");
    let reason = refused(offering("SIZE")).await;
    assert!(reason.to_string().contains("offers no AUTH"), "{reason}");
}

#[tokio::test]
async fn without_credentials_there_is_no_login() {
    let scripted = ScriptedUpstream::start().await;
    let mut options = scripted.options("company");
    options.credentials = None;
    ready(&upstream(options)).await.unwrap();
    assert_eq!((scripted.logins(), scripted.count("AUTH")), (vec![], 0));
}

/// As a 5yz it would fail each mail for good, with the provider's words about the sender or the recipient.
#[tokio::test]
async fn a_refusal_for_want_of_a_login_makes_the_mail_wait_and_names_the_keys() {
    for (at, line) in [
        (At::Mail, "530 5.7.0 Must issue AUTH first"),
        (At::Mail, "550 5.7.1 Sender not permitted"),
        (At::Rcpt, "554 5.7.1 <b@example.net>: Relay access denied"),
        (At::Rcpt, "550 relay not permitted"),
        (At::Dot, "554 no"),
    ] {
        let scripted = offering("AUTH PLAIN").once(at, line).always(At::Dot, "250 2.0.0 Ok").start().await;
        let mut options = scripted.options("company");
        options.credentials = None;
        let upstream = upstream(options);
        let refused = send(&upstream, &envelope(&["b@example.net"]), &numbered(1)).await.unwrap();
        let Outcome::Deferred(reason) = &refused[0] else { panic!("{line}: {}", told(&refused[0])) };
        assert!(reason.is_about_upstream(), "{reason}");
        let told = reason.to_string();
        for words in [line, "the server offers AUTH", "`username` and `password`", "SMTP_USER_NAME"] {
            assert!(told.contains(words), "{words}: {told}");
        }
    }
}

#[tokio::test]
async fn a_refusal_is_what_it_says_with_a_login_or_where_there_is_none_to_have() {
    let spam = "550 5.7.1 spam";
    for (auth, has_login) in [("AUTH PLAIN", true), ("SIZE", false)] {
        let scripted = offering(auth).always(At::Dot, spam).start().await;
        let mut options = scripted.options("company");
        options.credentials = options.credentials.filter(|_| has_login);
        let outcomes = send(&upstream(options), &envelope(&["b@example.net"]), &numbered(1)).await.unwrap();
        assert_told(&outcomes, &["failed: upstream \"company\", final dot: 550 5.7.1 spam"]);
    }
    // It took mail without a login: this one is refused for itself.
    let scripted = offering("AUTH PLAIN").once(At::Dot, "250 2.0.0 Ok").always(At::Dot, spam).start().await;
    let mut options = scripted.options("company");
    options.credentials = None;
    let upstream = upstream(options);
    for told in ["delivered", "failed: upstream \"company\", final dot: 550 5.7.1 spam"] {
        assert_told(&send(&upstream, &envelope(&["b@example.net"]), &numbered(1)).await.unwrap(), &[told]);
    }
}

#[tokio::test]
async fn a_line_break_in_a_login_is_refused_before_anything_is_sent() {
    for (username, password) in [("user\r\nRSET", "p"), ("user", "from-a-file\n"), ("us\0er", "p")] {
        let scripted = ScriptedUpstream::start().await;
        let mut options = scripted.options("company");
        let username = username.to_owned();
        let password = Secret::new(password);
        options.credentials = Some(Credentials { username, password, secret_key: None });
        let reason = not_ready(&upstream(options)).await;
        assert!(reason.to_string().contains("line break or NUL"), "{reason}");
        assert!(!reason.to_string().contains("from-a-file"));
        assert_eq!(scripted.counts().total, 0);
    }
}
