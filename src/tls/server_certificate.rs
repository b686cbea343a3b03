//! A server's certificate as people recognise it, and the kind of fault that a handshake ended with. Decides nothing.

use super::explain::is_about_client_certificate;
use super::verify::{Distrust, alternative_names, date};
use crate::text::cleaned;
use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};
use serde::{Deserialize, Serialize};
use std::io;

/// Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerCertificate {
    /// From subjectAltName: names and addresses.
    pub names: Vec<String>,
    pub issuer: String,
    /// Nobody else vouches for it.
    pub is_self_signed: bool,
    pub not_before: i64,
    pub not_after: i64,
}

impl ServerCertificate {
    /// `None`: it cannot be parsed.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        Some(Self {
            names: alternative_names(&parsed).iter().map(|name| cleaned(name)).collect(),
            issuer: cleaned(&parsed.issuer().to_string()),
            is_self_signed: parsed.subject() == parsed.issuer(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        })
    }

    /// For people.
    pub fn end(&self) -> String {
        date(self.not_after)
    }

    /// Whole days from `now`, in seconds since 1970; negative once it is over.
    pub fn days_left(&self, now: i64) -> i64 {
        (self.not_after - now).div_euclid(24 * 60 * 60)
    }
}

/// Why a handshake failed, by the part that has to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFault {
    /// The certificate is for another name.
    Name,
    /// Nobody who is trusted vouches for the certificate.
    Issuer,
    /// The certificate is over, or not valid yet.
    Expiry,
    /// The server wants a client certificate, or does not accept ours.
    Client,
    /// The server does not speak TLS on this connection.
    NotTls,
    /// No common version or cipher.
    Version,
    Other,
}

pub fn fault(error: &io::Error) -> TlsFault {
    use AlertDescription::*;
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else { return TlsFault::Other };
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => match other.0.downcast_ref::<Distrust>() {
            Some(Distrust::WrongName { .. } | Distrust::CommonNameOnly { .. }) => TlsFault::Name,
            Some(Distrust::Expired { .. } | Distrust::NotYetValid { .. }) => TlsFault::Expiry,
            Some(Distrust::SelfSigned { .. } | Distrust::UnknownIssuer { .. }) => TlsFault::Issuer,
            None => TlsFault::Other,
        },
        Error::InvalidMessage(_) => TlsFault::NotTls,
        Error::AlertReceived(ProtocolVersion | HandshakeFailure)
        | Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13 | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => TlsFault::Version,
        Error::AlertReceived(alert) if is_about_client_certificate(*alert) => TlsFault::Client,
        _ => TlsFault::Other,
    }
}
