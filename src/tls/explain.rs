//! Explains a failed TLS handshake for people, with a remedy. Decides nothing. The texts name certificates and
//! settings, never the contents of the connection. RFC 8446 §6, RFC 9525.

use super::verify::Distrust;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};
use std::io;

/// What [`explain`] says of a connection that ended in the middle of the handshake.
pub const BROKEN_OFF: &str = "the server closed the connection during the TLS handshake";

/// What happened, and what the reader can do about it, if something is known. `inspect`: a command that shows the server's
/// certificates.
pub fn explain(error: &io::Error, expected: &ServerName<'_>, inspect: &str) -> (String, Option<String>) {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return (explain_io(error), None);
    };
    let expected = expected.to_str();
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
