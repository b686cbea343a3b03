//! What the relay trusts: the platform's authorities and the certificates in `ca`, and nothing else.
//!
//! A certificate that is itself listed is trusted as a server's, even if it is marked CA:TRUE, as `openssl req -x509`
//! does; its dates and names are still checked. Errors contain what a person needs in order to act. RFC 5280 §6, RFC
//! 9525.

use super::TlsError;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use std::sync::Arc;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

/// Why a server's certificate is not trusted. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Distrust {
    #[error("the server's certificate is self-signed and not listed in `ca` (\"{subject}\")")]
    SelfSigned { subject: String },
    #[error("the server's certificate was issued by \"{issuer}\", which is not trusted here")]
    UnknownIssuer { issuer: String },
    #[error("the server's certificate names {}, not the expected server", .names.join(", "))]
    WrongName { names: Vec<String> },
    #[error("the server's certificate has only the common name \"{subject}\" and no subjectAltName")]
    CommonNameOnly { subject: String },
    #[error("the server's certificate expired on {}", date(*.not_after))]
    Expired { not_after: i64 },
    #[error("the server's certificate is not valid before {}", date(*.not_before))]
    NotYetValid { not_before: i64 },
}

#[derive(Debug)]
pub(super) struct Verifier {
    /// `None` if neither the system nor `ca` has a root.
    roots: Option<rustls_platform_verifier::Verifier>,
    listed: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(ca: &[CertificateDer<'static>], provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let mut roots = Vec::new();
        for (index, certificate) in ca.iter().enumerate() {
            if may_issue(certificate).map_err(|reason| TlsError::Certificate { number: index + 1, reason })? {
                roots.push(certificate.clone());
            }
        }
        let algorithms = provider.signature_verification_algorithms;
        let roots = match rustls_platform_verifier::Verifier::new_with_extra_roots(roots, provider) {
            Ok(verifier) => Some(verifier),
            Err(_) if ca.is_empty() => return Err(TlsError::NoRoots),
            // The system has no roots, and `ca` holds only servers' own certificates.
            Err(_) => None,
        };
        Ok(Self { roots, listed: ca.to_vec(), algorithms })
    }

    fn verify_listed(&self, certificate: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Verified {
        let (_, parsed) =
            x509_parser::parse_x509_certificate(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now > parsed.validity().not_after.timestamp() {
            return Err(CertificateError::Expired.into());
        }
        if now < parsed.validity().not_before.timestamp() {
            return Err(CertificateError::NotValidYet.into());
        }
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        Ok(ServerCertVerified::assertion())
    }
}

type Verified = Result<ServerCertVerified, rustls::Error>;

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Verified {
        let verified = match &self.roots {
            _ if self.listed.iter().any(|listed| listed.as_ref() == certificate.as_ref()) => {
                self.verify_listed(certificate, name, now)
            }
            Some(roots) => roots.verify_server_cert(certificate, intermediates, name, ocsp_response, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        verified.map_err(|error| with_details(error, certificate))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// True if other certificates may be trusted because this one signed them. A server's own certificate that is listed to
/// be trusted itself must not become an authority. RFC 5280 §4.2.1.9; a version 1 certificate cannot tell.
fn may_issue(certificate: &CertificateDer<'static>) -> Result<bool, String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
    RootCertStore::empty().add(certificate.clone()).map_err(|error| error.to_string())?;
    let constraints = parsed.basic_constraints().map_err(|error| error.to_string())?;
    Ok(constraints.map_or(parsed.version().0 < 2, |constraints| constraints.value.ca))
}

fn with_details(error: rustls::Error, certificate: &CertificateDer<'_>) -> rustls::Error {
    let rustls::Error::InvalidCertificate(cause) = &error else { return error };
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return error };
    match distrust(cause, &parsed) {
        Some(distrust) => CertificateError::Other(OtherError(Arc::new(distrust))).into(),
        None => error,
    }
}

fn distrust(cause: &CertificateError, certificate: &X509Certificate<'_>) -> Option<Distrust> {
    use CertificateError::*;
    let subject = certificate.subject().to_string();
    let issuer = certificate.issuer().to_string();
    let self_signed = certificate.subject() == certificate.issuer();
    Some(match cause {
        Expired | ExpiredContext { .. } => {
            Distrust::Expired { not_after: certificate.validity().not_after.timestamp() }
        }
        NotValidYet | NotValidYetContext { .. } => {
            Distrust::NotYetValid { not_before: certificate.validity().not_before.timestamp() }
        }
        NotValidForName | NotValidForNameContext { .. } => match alternative_names(certificate) {
            names if names.is_empty() => Distrust::CommonNameOnly { subject },
            names => Distrust::WrongName { names },
        },
        // webpki refuses a CA:TRUE certificate as a server's before it looks for an issuer.
        UnknownIssuer | Other(_) if self_signed => Distrust::SelfSigned { subject },
        // The signature is wrong: another authority of the same name is trusted.
        UnknownIssuer | BadSignature => Distrust::UnknownIssuer { issuer },
        _ => return None,
    })
}

pub(super) fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let address = |octets: &[u8]| match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(|octets| std::net::Ipv4Addr::from(octets).to_string()),
        _ => <[u8; 16]>::try_from(octets).ok().map(|octets| std::net::Ipv6Addr::from(octets).to_string()),
    };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(octets) => address(octets),
            _ => None,
        })
        .collect()
}

pub(super) fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| "an unknown date".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string())
}
