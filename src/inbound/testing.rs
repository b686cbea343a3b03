//! What the tests of this module share: options, TLS, an intake that records.

use super::{AuthMode, Client, Intake, LineEndings, Options, Received, Tls};
use crate::message::Budget;
use crate::smtp::{EnhancedCode, Reply, ReversePath};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

pub(super) fn options() -> Options {
    Options {
        address: ([127, 0, 0, 1], 0).into(),
        hostname: "gateway.example".into(),
        tls: Tls::Off,
        allow: vec!["127.0.0.0/8".parse().expect("a network")],
        auth: AuthMode::Optional,
        line_endings: LineEndings::Normalize,
        max_message_size: 100_000,
        max_recipients: 5,
        max_connections: 10,
        max_connections_per_address: 10,
        timeout: Duration::from_secs(300),
    }
}

pub(super) fn budget() -> Budget {
    Budget::new(10 * 1024 * 1024)
}

/// Of one certificate for all tests of the process.
pub(super) fn server_tls() -> Arc<rustls::ServerConfig> {
    static CONFIG: LazyLock<Arc<rustls::ServerConfig>> = LazyLock::new(|| {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = crate::pem::private_key(own.signing_key.serialize_pem().as_bytes()).expect("its key");
        crate::tls::server(vec![own.cert.der().clone()], key).expect("a configuration")
    });
    Arc::clone(&CONFIG)
}

/// Takes every message; refuses the sender `refused@…`.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    pub(super) taken: Mutex<Vec<Received>>,
}

impl Recorder {
    pub(super) fn count(&self) -> usize {
        self.taken.lock().expect("no panic").len()
    }
}

impl Intake for Recorder {
    fn admit(&self, _client: &Client, sender: &ReversePath, _size: Option<u64>) -> Result<(), Reply> {
        if sender.to_string().starts_with("refused@") {
            Err(Reply::new(550, EnhancedCode::new(5, 7, 1), "Not you"))
        } else {
            Ok(())
        }
    }

    async fn accept(&self, received: Received) -> Reply {
        self.taken.lock().expect("no panic").push(received);
        Reply::ok()
    }
}
