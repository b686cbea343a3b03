//! Connections to a provider: never in plain text, never unverified, never above the cap.
//!
//! An [`Upstream`] provides a [`Ready`] connection, which holds its permit until the socket is closed; `smtp` is the
//! client, whose types make a plaintext MAIL or AUTH unwritable. Accepts only `dkim::Sealed`. RFC 5321, 3207, 4954,
//! 2920, 8314.

mod account;
pub(crate) mod breaker;
mod connect;
mod connection;
mod deadline;
mod diagnosis;
mod examination;
mod gate;
mod health;
mod ledger;
mod obstacle;
mod pool;
pub(crate) mod provider;
mod ready;
mod renewal;
mod smtp;
mod socket;
mod surplus;
mod upstream;

pub use account::{Account, SharedAccount};
pub(crate) use breaker::Capacity;
pub use deadline::Deadline;
pub use diagnosis::Diagnosis;
pub use examination::UpstreamExamination;
pub(crate) use obstacle::UpstreamObstacle;
pub use pool::Reuse;
pub use ready::{Ready, Sent};
pub use smtp::OpeningNotes;
pub use upstream::{ConnectionRequest, ProbeReport, Upstream};

use crate::message::outcome::SlowDown;
use crate::observe::{Redaction, Secret};
use crate::tls::ClientCertificate;
use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, ServerName};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// One upstream, with one login. Everything is resolved except the host's addresses.
#[derive(Debug, Clone)]
pub struct UpstreamOptions {
    pub name: Arc<str>,
    pub endpoint: Endpoint,
    pub credentials: Option<Credentials>,
    /// Covers these credentials and all other logins of the upstream.
    pub redaction: Arc<Redaction>,
    /// The gateway's name in EHLO.
    pub ehlo_name: String,
    pub limits: ConnectionLimits,
    pub slow_down: &'static [SlowDown],
}

impl UpstreamOptions {
    /// Names the provider's server and the login, whatever the table is called. A digest, because a login may be a secret.
    fn ledger_name(&self) -> String {
        let port = self.endpoint.port.to_string();
        let login = self.credentials.as_ref().map_or("", |credentials| &credentials.username);
        let certificate = self.endpoint.client_certificate.as_ref().map_or("", |shown| &shown.fingerprint);
        let host = self.endpoint.host.to_ascii_lowercase();
        let digest = digest(&SHA256, ["waxseal upstream", &host, &port, login, certificate].join("\0").as_bytes());
        digest.as_ref().iter().take(16).map(|octet| format!("{octet:02x}")).collect()
    }
}

/// An upstream's address, and the identity that it must prove.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    pub tls: TlsMode,
    /// Tried in order if nothing answers on `port`; the one that works is used for as long as it does.
    pub fallback_ports: Vec<Port>,
    /// The name that the certificate must contain.
    pub server_name: ServerName<'static>,
    /// Trusted besides the system's roots.
    pub ca: Vec<CertificateDer<'static>>,
    /// Trusts `ca`, and shows the client certificate.
    pub tls_config: Arc<rustls::ClientConfig>,
    /// The one that `tls_config` shows to a server that asks.
    pub client_certificate: Option<ClientCertificate>,
    /// The local address to use; `None` for the system's choice.
    pub source_address: Option<IpAddr>,
}

impl Endpoint {
    /// Whether both lead to the same server, and trust it for the same reasons.
    pub fn is_same(&self, other: &Self) -> bool {
        let Self {
            host,
            port,
            tls,
            fallback_ports,
            server_name,
            ca,
            tls_config: _,
            client_certificate,
            source_address,
        } = self;
        *host == other.host
            && *port == other.port
            && *tls == other.tls
            && *fallback_ports == other.fallback_ports
            && *server_name == other.server_name
            && *ca == other.ca
            && *client_certificate == other.client_certificate
            && *source_address == other.source_address
    }
}

/// How an upstream's connections are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimits {
    pub max_connections: usize,
    pub max_messages_per_connection: usize,
    /// For the name and all its addresses together; the TLS handshake has the same limit again.
    pub connect_timeout: Duration,
    pub command_timeout: Duration,
    /// For the reply to the final dot.
    pub data_timeout: Duration,
    /// An unused connection is closed after this time.
    pub idle_timeout: Duration,
    /// Immediate reconnects before an attempt counts as deferred.
    pub connect_retries: u32,
}

/// There is no variant without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    StartTls,
    Implicit,
}

/// A port and how TLS begins there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub number: u16,
    pub tls: TlsMode,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: Secret,
    /// Set if the password was derived from it.
    pub secret_key: Option<Secret>,
}

impl Credentials {
    /// For people: some providers use one token as both, and then the name is a secret.
    pub fn shown_username(&self) -> &str {
        if self.username == self.password.reveal() { "***" } else { &self.username }
    }
}

/// Redacts replies of the upstream that has these logins. User names stay readable, as elsewhere in the log; their
/// encoded forms do not, since they contain the login.
pub fn redaction<'a>(logins: impl IntoIterator<Item = &'a Credentials>) -> Redaction {
    let mut redaction = Redaction::default();
    for Credentials { username, password, secret_key } in logins {
        [Some(password), secret_key.as_ref()]
            .into_iter()
            .flatten()
            .for_each(|secret| redaction.add_secret(secret.reveal()));
        redaction.add_encoded(username.as_bytes());
        // RFC 4616 §2.
        redaction.add_encoded(format!("\0{username}\0{}", password.reveal()).as_bytes());
    }
    redaction
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.shown_username()).finish_non_exhaustive()
    }
}
