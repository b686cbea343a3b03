//! Which client certificates the scripted provider asks for.

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use std::sync::Arc;

pub struct Clients {
    authority: String,
    required: bool,
    versions: &'static [&'static SupportedProtocolVersion],
}

impl Clients {
    /// Only those with a certificate of this authority (PEM) get through the handshake.
    pub fn required(authority: &str) -> Self {
        Self { authority: authority.to_owned(), required: true, versions: rustls::ALL_VERSIONS }
    }

    /// Those without one as well.
    pub fn optional(authority: &str) -> Self {
        Self { required: false, ..Self::required(authority) }
    }

    pub fn tls_1_2(self) -> Self {
        static OLD: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
        Self { versions: OLD, ..self }
    }

    pub fn config(self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in waxseal::pem::certificates(self.authority.as_bytes()).unwrap() {
            roots.add(certificate).unwrap();
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let verifier = if self.required { verifier } else { verifier.allow_unauthenticated() }.build().unwrap();
        let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(self.versions).unwrap();
        Arc::new(config.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap())
    }
}
