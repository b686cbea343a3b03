//! How far the opening of a connection came, for probes. Mail is sent without looking at it.

use crate::smtp::{Extensions, Reply};
use crate::tls::{ServerCertificate, TlsFault};

/// What was learned before the connection was open, or failed.
#[derive(Debug, Default)]
pub struct OpeningNotes {
    /// Whether the certificate is worth keeping.
    pub wants_certificate: bool,
    pub greeting: Option<Reply>,
    /// EHLO was answered before TLS.
    pub was_introduced: bool,
    pub began_tls: bool,
    /// "TLSv1.2" or "TLSv1.3", after a handshake.
    pub tls_version: Option<&'static str>,
    pub certificate: Option<ServerCertificate>,
    /// Why there was no TLS.
    pub tls_fault: Option<TlsFault>,
    /// As offered inside TLS.
    pub extensions: Option<Extensions>,
}
