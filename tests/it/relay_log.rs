//! The relay's log at its most detailed level: it shows the dialogue, but no secret and no content of the mail.

use crate::support::log_lines::LogLines;
use crate::support::mail::{envelope, numbered};
use crate::support::relay::{send, upstream};
use crate::support::upstream::ScriptedUpstream;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

#[tokio::test]
async fn the_dialogue_is_logged_without_secrets_and_mail() {
    let lines = LogLines::default();
    let logging = lines.capture(tracing::Level::TRACE);
    for auth in ["AUTH PLAIN", "AUTH LOGIN"] {
        let scripted = ScriptedUpstream::builder().keywords(&["PIPELINING", auth]).start().await;
        send(&upstream(scripted.options("company")), &envelope(&["b@example.net"]), &numbered(1)).await.unwrap();
        scripted.until_alone().await;
    }
    drop(logging);
    let log = lines.text();
    for shown in ["C: AUTH PLAIN ***", "C: AUTH LOGIN", "C: ***", "C: RCPT TO:<b@example.net>", "S: 250 2.0.0 queued"] {
        assert!(log.contains(shown), "{shown} is missing in {log}");
    }
    let password = "relay-canary-password";
    let plain = STANDARD.encode(format!("\0relay-user\0{password}"));
    for hidden in [password, &plain, &STANDARD.encode(password), &STANDARD.encode("relay-user"), "body-linnet"] {
        assert!(!log.contains(hidden), "{hidden} is in {log}");
    }
}
