//! TLS towards an upstream or Redis: which certificates are trusted, and the client certificate that a server may ask for.
//! The private key is never shown. RFC 5280.

use super::Resolver;
use crate::config::input::{Reported, Resolved, Typed};
use crate::config::pem_source::PemSource;
use crate::config::problem::Place;
use crate::tls::{self, ClientCertificate, ClientIdentity, TlsError};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use std::sync::Arc;

/// The keys of one table that say how TLS is begun.
pub(super) struct ClientTlsKeys<'a> {
    pub place: &'a Place,
    pub ca: &'a Typed<PemSource>,
    pub certificate: &'a Typed<PemSource>,
    pub private_key: &'a Typed<PemSource>,
}

pub(super) struct UpstreamTls {
    pub ca: Vec<CertificateDer<'static>>,
    pub config: Arc<ClientConfig>,
    pub certificate: Option<ClientCertificate>,
}

impl<'a> ClientTlsKeys<'a> {
    /// Each key with its place, and whether it was typed.
    pub(super) fn given(&self) -> [(&'static str, &'a Place, bool); 3] {
        [("ca", self.ca), ("certificate", self.certificate), ("private_key", self.private_key)]
            .map(|(key, typed)| (key, &typed.place, typed.is_given()))
    }
}

impl Resolver<'_> {
    pub(super) fn client_tls(&mut self, typed: &ClientTlsKeys<'_>) -> Resolved<UpstreamTls> {
        let ca = self.trusted(typed);
        let identity = self.client_identity(typed);
        let ca = ca?;
        let identity = identity?;
        match tls::client_with(&ca, identity.as_ref()) {
            Ok(config) => Ok(UpstreamTls { ca, config, certificate: identity.map(|identity| identity.certificate) }),
            Err(error) if typed.ca.is_given() => {
                self.findings.error(&typed.ca.place, format!("`ca` cannot be used: {error}"));
                Err(Reported)
            }
            Err(error) => {
                self.findings.error(typed.place, format!("no TLS: {error}"));
                Err(Reported)
            }
        }
    }

    fn trusted(&mut self, typed: &ClientTlsKeys<'_>) -> Resolved<Vec<CertificateDer<'static>>> {
        if !typed.ca.is_given() {
            return Ok(Vec::new());
        }
        let source = self.pem_source("ca", typed.ca)?;
        self.certificates("ca", &source, &typed.ca.place)
    }

    fn client_identity(&mut self, typed: &ClientTlsKeys<'_>) -> Resolved<Option<ClientIdentity>> {
        let ClientTlsKeys { certificate, private_key, .. } = *typed;
        if !certificate.is_given() && !private_key.is_given() {
            return Ok(None);
        }
        let source = self.half("certificate", certificate, "private_key", private_key);
        let key_source = self.half("private_key", private_key, "certificate", certificate);
        let chain = source.and_then(|source| self.certificates("certificate", &source, &certificate.place));
        let key = key_source.and_then(|source| self.private_key("private_key", &source, &private_key.place));
        let identity = match ClientIdentity::new(chain?, key?) {
            Ok(identity) => identity,
            Err(error) => {
                self.unusable_identity(typed, &error);
                return Err(Reported);
            }
        };
        for (text, help) in identity.warnings(jiff::Timestamp::now().as_second()) {
            self.findings.warning(&certificate.place, format!("`certificate`: {text}")).help(help);
        }
        Ok(Some(identity))
    }

    /// One half of the identity; of no use without the other.
    fn half(
        &mut self,
        key: &str,
        typed: &Typed<PemSource>,
        other_key: &str,
        other: &Typed<PemSource>,
    ) -> Resolved<PemSource> {
        if typed.is_given() && other.is_given() {
            return self.pem_source(key, typed);
        }
        if typed.is_given() {
            self.findings
                .error(&typed.place, format!("`{key}` needs `{other_key}` too: a client certificate is both"))
                .help("give both, or neither");
        }
        Err(Reported)
    }

    fn unusable_identity(&mut self, typed: &ClientTlsKeys<'_>, error: &TlsError) {
        match error {
            TlsError::KeyMismatch => {
                self.findings
                    .error(
                        &typed.private_key.place,
                        "`private_key` does not belong to the first certificate in `certificate`",
                    )
                    .help("the gateway's own certificate comes first, then those of its issuers");
            }
            TlsError::UnsupportedKey => {
                self.findings.error(&typed.private_key.place, format!("`private_key` cannot be used: {error}"));
            }
            error => {
                self.findings.error(&typed.certificate.place, format!("`certificate` cannot be used: {error}"));
            }
        }
    }
}
