//! What the relay's log shows at its most talkative: the dialogue, and neither a secret nor a word of the mail.

use crate::support::mail::{envelope, numbered};
use crate::support::relay::{send, upstream};
use crate::support::upstream::ScriptedUpstream;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::Write;
use std::sync::{Arc, Mutex};
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn the_dialogue_is_logged_without_secrets_and_mail() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(lines.clone());
    let logging = tracing::subscriber::set_default(subscriber.with_ansi(false).finish());
    for auth in ["AUTH PLAIN", "AUTH LOGIN"] {
        let scripted = ScriptedUpstream::builder().keywords(&["PIPELINING", auth]).start().await;
        send(&upstream(scripted.options("company")), &envelope(&["b@example.net"]), &numbered(1)).await.unwrap();
        scripted.until_alone().await;
    }
    drop(logging);
    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for shown in ["C: AUTH PLAIN ***", "C: AUTH LOGIN", "C: ***", "C: RCPT TO:<b@example.net>", "S: 250 2.0.0 queued"] {
        assert!(log.contains(shown), "{shown} is missing in {log}");
    }
    let password = "relay-canary-password";
    let plain = STANDARD.encode(format!("\0relay-user\0{password}"));
    for hidden in [password, &plain, &STANDARD.encode(password), &STANDARD.encode("relay-user"), "body-canary"] {
        assert!(!log.contains(hidden), "{hidden} is in {log}");
    }
}
