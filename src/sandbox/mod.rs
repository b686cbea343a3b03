//! The embedded provider: a real SMTP server inside the process, for a first run without a provider account.
//!
//! It is `inbound`'s listener (on loopback, with STARTTLS and a login required, and its own CA created at start) with
//! its own Intake, which verifies the DKIM signature of arriving mail and keeps it. It never sends anything.

mod certificate;
mod intake;
mod store;

#[cfg(any(test, fuzzing))]
pub(crate) use intake::SandboxIntake;
pub use store::{SandboxLimits, SandboxStore, StoreError};

use crate::dkim::Records;
use crate::inbound::users::{Password, Users};
use crate::inbound::{AuthMode, BindError, LineEndings, Listener, Tls};
use crate::message::MemoryBudget;
use crate::observe::metrics::ListenerMetrics;
use crate::observe::{Clock, Secret};
use crate::{inbound, tls};
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The name in its certificate.
const SERVER_NAME: &str = "sandbox.localhost";
const USERNAME: &str = "sandbox";
/// Octets that the gateway's own header fields may add to a message.
const HEADROOM: u64 = 1024 * 1024;

#[derive(Debug)]
pub struct SandboxOptions {
    /// The public keys to verify against.
    pub records: Records,
    /// The folder for the .eml files; created if missing, mode 0700.
    pub folder: PathBuf,
    pub limits: SandboxLimits,
    /// In octets; as much as a listener can ever accept.
    pub max_message_size: u64,
    pub clock: Clock,
}

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("the sandbox could not make its certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("the sandbox could not use its certificate: {0}")]
    Tls(#[from] tls::TlsError),
    #[error("the sandbox's name is not a valid server name: {0}")]
    Name(#[from] InvalidDnsNameError),
    #[error("the sandbox could not make its password: {0}")]
    Password(String),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Bound, but not serving yet.
#[derive(Debug)]
pub struct Sandbox {
    listener: Listener,
    access: SandboxAccess,
}

/// What those need that send to a sandbox.
#[derive(Debug, Clone)]
pub struct SandboxAccess {
    pub address: SocketAddr,
    /// The CA that a client must trust.
    pub ca: CertificateDer<'static>,
    /// The server name that a client must expect.
    pub server_name: ServerName<'static>,
    pub username: &'static str,
    pub password: Secret,
    intake: Arc<intake::SandboxIntake>,
}

impl SandboxAccess {
    /// From now on it verifies against these.
    pub fn set_records(&self, records: Records) {
        self.intake.set_records(records);
    }
}

impl Sandbox {
    pub fn bind(options: SandboxOptions) -> Result<Self, SandboxError> {
        let identity = certificate::generate(SERVER_NAME)?;
        let password = random_password().map_err(SandboxError::Password)?;
        let users = Users::new([(USERNAME.into(), Password::Plain(password.clone()))]);
        let server = tls::server(vec![identity.certificate], identity.key)?;
        let largest = options.max_message_size.saturating_add(HEADROOM);
        let listener_options = inbound::ListenerOptions {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            hostname: SERVER_NAME.to_owned(),
            tls: Tls::StartTls(server),
            allow: Vec::new(),
            auth: AuthMode::Required,
            line_endings: LineEndings::Reject,
            max_message_size: largest,
            max_recipients: 1000,
            max_connections: 1000,
            max_connections_per_address: 1000,
            proxy_protocol: Vec::new(),
            timeout: Duration::from_secs(300),
            rates: inbound::SubmissionRates::default(),
            metrics: ListenerMetrics::default(),
        };
        let budget = MemoryBudget::new(largest.saturating_mul(4));
        let listener = Listener::bind(listener_options, users, budget)?;
        let store = SandboxStore::open(options.folder, options.limits)?;
        let intake = Arc::new(intake::SandboxIntake::new(store, options.records, options.clock));
        let server_name = ServerName::try_from(SERVER_NAME)?;
        let address = listener.local_address();
        let access = SandboxAccess { address, ca: identity.ca, server_name, username: USERNAME, password, intake };
        Ok(Self { listener, access })
    }

    pub fn access(&self) -> &SandboxAccess {
        &self.access
    }

    /// Runs until the token is cancelled and the last connection has ended.
    pub async fn serve(self, shutdown: CancellationToken) {
        self.listener.serve(self.access.intake, shutdown).await;
    }
}

fn random_password() -> Result<Secret, String> {
    let mut bytes = [0; 24];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|error| error.to_string())?;
    Ok(Secret::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}
