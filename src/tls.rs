//! The only place that builds rustls configurations, for both directions.
//!
//! TLS 1.2 and 1.3 with aws-lc-rs. A client configuration always verifies: there is no switch that turns it off.
//! RFC 8996, RFC 9325 §3.1.1.

mod client_certificate;
mod explain;
mod server_certificate;
mod verify;

pub(crate) use client_certificate::noting_request;
pub use client_certificate::{ClientCertificate, ClientIdentity};
pub(crate) use explain::{BROKEN_OFF, ClientSide, explain, explain_late_alert};
pub(crate) use server_certificate::fault;
pub use server_certificate::{ServerCertificate, TlsFault};

use client_certificate::Presenter;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, InconsistentKeys, ServerConfig, SupportedProtocolVersion};
use std::sync::Arc;
use verify::Verifier;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("this system has no root certificates; install the package \"ca-certificates\", or set `ca`")]
    NoRoots,
    /// Counted from 1, in the order of the file.
    #[error("certificate number {number} cannot be used: {reason}")]
    Certificate { number: usize, reason: String },
    #[error("the private key does not belong to the first certificate")]
    KeyMismatch,
    #[error("the private key is not of a supported kind: RSA from 2048 bits, ECDSA (P-256, P-384, P-521) or Ed25519")]
    UnsupportedKey,
    #[error("{0}")]
    Rustls(rustls::Error),
}

/// `chain` begins with the certificate that the key belongs to.
fn certified(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<CertifiedKey, TlsError> {
    let key = provider().key_provider.load_private_key(key).map_err(|_| TlsError::UnsupportedKey)?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // The kind of key does not tell.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::KeyMismatch),
        Err(other) => Err(TlsError::Rustls(other)),
    }
}

/// For connections to an upstream: trusts the system's roots and `ca`, which may also hold the server's own
/// certificate.
pub fn client(ca: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, TlsError> {
    client_with(ca, None)
}

/// The same, and shows `identity` to a server that asks for it. Sessions are resumed only under the configuration that
/// began them, so never under another certificate.
#[expect(clippy::disallowed_methods, reason = "the verifier adds `ca` to the platform's checks and takes none away")]
pub fn client_with(
    ca: &[CertificateDer<'static>],
    identity: Option<&ClientIdentity>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = Verifier::new(ca, provider())?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(TlsError::Rustls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(Presenter::of(identity)));
    Ok(Arc::new(config))
}

/// For a listener. `chain` begins with the server's own certificate.
pub fn server(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Arc<ServerConfig>, TlsError> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(TlsError::Rustls)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified(chain, key)?)));
    Ok(Arc::new(config))
}

static VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
