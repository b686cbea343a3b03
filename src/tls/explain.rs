//! Explains a failed TLS handshake for people, with a remedy. Decides nothing. The texts name certificates and
//! settings, never the contents of the connection. RFC 8446 §6, RFC 9525.

use super::client_certificate::ClientCertificate;
use super::verify::Distrust;
use crate::message::outcome::MISSING_CERTIFICATE;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};
use std::io;

/// What [`explain`] says of a connection that ended in the middle of the handshake.
pub const BROKEN_OFF: &str = "the server closed the connection during the TLS handshake";

/// The client's side of a handshake.
#[derive(Debug, Clone, Copy)]
pub struct ClientSide<'a> {
    /// The server asked for a certificate.
    pub was_asked: bool,
    /// What it was shown.
    pub certificate: Option<&'a ClientCertificate>,
}

/// What happened, and what the reader can do about it, if something is known. `inspect`: a command that shows the server's
/// certificates.
pub fn explain(
    error: &io::Error,
    expected: &ServerName<'_>,
    inspect: &str,
    client: ClientSide<'_>,
) -> (String, Option<String>) {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return (explain_io(error), None);
    };
    let expected = expected.to_str();
    if let Some((text, advice)) = explain_refused_client(error, client) {
        return (text, Some(advice));
    }
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => match other.0.downcast_ref::<Distrust>() {
            Some(distrust) => (explain_distrust(distrust, &expected), Some(advise(distrust, &expected, inspect))),
            None => (format!("the server's certificate is not accepted: {}", other.0), None),
        },
        Error::InvalidCertificate(other) => (format!("the server's certificate is not accepted: {other}"), None),
        Error::AlertReceived(AlertDescription::ProtocolVersion)
        | Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13 | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => (
            "the server speaks only TLS 1.1 or older, which is not safe any more".to_owned(),
            Some("the server must be updated to offer TLS 1.2 or 1.3".to_owned()),
        ),
        Error::AlertReceived(AlertDescription::HandshakeFailure) => (
            "the server and waxseal have no TLS version, cipher or signature algorithm in common".to_owned(),
            Some("the server's TLS settings are too old or too narrow; they need TLS 1.2 or 1.3".to_owned()),
        ),
        Error::AlertReceived(alert) => (format!("the server broke off the TLS handshake ({alert:?})"), None),
        Error::InvalidMessage(_) => (
            "the server answered the TLS handshake with something that is not TLS".to_owned(),
            Some("check `port` and `tls`: does this port speak TLS from the start, or STARTTLS?".to_owned()),
        ),
        other => (other.to_string(), None),
    }
}

/// In TLS 1.3 a server can refuse the client's certificate, or its absence, only after the client's side of the handshake
/// is complete: the first read fails. `None` for any other error. RFC 8446 §4.4.2.4.
pub fn explain_late_alert(error: &io::Error, client: ClientSide<'_>) -> Option<(String, String)> {
    explain_refused_client(error.get_ref()?.downcast_ref::<Error>()?, client)
}

pub(super) fn is_about_client_certificate(alert: AlertDescription) -> bool {
    use AlertDescription::*;
    matches!(
        alert,
        CertificateRequired
            | BadCertificate
            | UnsupportedCertificate
            | CertificateRevoked
            | CertificateExpired
            | CertificateUnknown
            | NoCertificate
            | UnknownCA
            | AccessDenied
    )
}

/// An alert that is about the client's certificate. With TLS 1.2 some servers report its absence by a general one.
fn explain_refused_client(error: &Error, client: ClientSide<'_>) -> Option<(String, String)> {
    use AlertDescription::*;
    let Error::AlertReceived(alert) = error else { return None };
    let is_about_certificates = is_about_client_certificate(*alert);
    match client.certificate {
        None if *alert == CertificateRequired || (client.was_asked && is_about_certificates) => {
            Some(("the server demands a client certificate".to_owned(), MISSING_CERTIFICATE.to_owned()))
        }
        None if client.was_asked && *alert == HandshakeFailure => Some((
            "the server asked for a client certificate and broke off the TLS handshake".to_owned(),
            MISSING_CERTIFICATE.to_owned(),
        )),
        Some(certificate) if *alert == CertificateRequired => Some((
            "the server demands a client certificate, and cannot use this one".to_owned(),
            format!("it may not support the kind of key that `certificate` has ({certificate})"),
        )),
        // A wrong signature on it, as by another authority of the same name, is a DecryptError.
        Some(certificate) if is_about_certificates || (client.was_asked && *alert == DecryptError) => Some((
            format!("the server does not accept the client certificate ({alert:?})"),
            format!("the server must trust `certificate` ({certificate}) or the authority that issued it"),
        )),
        _ => None,
    }
}

fn explain_io(error: &io::Error) -> String {
    use io::ErrorKind::*;
    match error.kind() {
        UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe => BROKEN_OFF.to_owned(),
        _ => error.to_string(),
    }
}

fn explain_distrust(distrust: &Distrust, expected: &str) -> String {
    match distrust {
        Distrust::WrongName { names } => {
            format!("the server's certificate is for {}, not for {expected}", list(names))
        }
        other => other.to_string(),
    }
}

fn advise(distrust: &Distrust, expected: &str, inspect: &str) -> String {
    match distrust {
        Distrust::SelfSigned { .. } | Distrust::UnknownIssuer { .. } => format!(
            "if this is your own server, look at its certificates with `{inspect}`, compare the fingerprint with the \
             server's, save the last one as a file and name that file in `ca`"
        ),
        Distrust::WrongName { names } => match names.iter().find(|name| !name.contains('*')) {
            Some(name) => format!("if that is the server you mean, set server_name = \"{name}\""),
            None => {
                "if that is the server you mean, set `server_name` to a name that the certificate covers".to_owned()
            }
        },
        Distrust::CommonNameOnly { .. } => format!(
            "common names have not counted since RFC 9525: reissue the certificate with \
             -addext \"subjectAltName=DNS:{expected}\""
        ),
        Distrust::Expired { .. } => "the server's operator must renew it; is this machine's clock right?".to_owned(),
        Distrust::NotYetValid { .. } => "is this machine's clock right?".to_owned(),
    }
}

/// At most a handful, because certificates of shared hosters have a hundred names.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}
