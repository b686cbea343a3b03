//! Describes for the log clients that are configured for another kind of listener: TLS instead of plain text, plain
//! text instead of TLS, or AUTH or STARTTLS where it is not offered. Their users see a timeout or a parse error at
//! best.
//!
//! Pure: examines bytes, errors and options, and words the finding with its remedy.

use super::{AuthMode, ListenerOptions, Tls, proxy, starttls};
use std::fmt;
use std::io;

/// What the client expected and the listener does not offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mismatch {
    TlsToPlain {
        offers_starttls: bool,
    },
    /// From an address from which none is expected, or a second one.
    ProxyHeader,
    PlainToTls,
    SilentAtTls,
    LeftWithoutMail {
        starttls_missing: bool,
        auth: MissingAuth,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MissingAuth {
    /// `auth = "off"`
    Off,
    AfterStartTls,
    Offered,
}

impl Mismatch {
    /// A TLS handshake record (RFC 8446 §5.1) or a PROXY header where a command is expected.
    pub(super) fn of_input(input: &[u8], tls: &Tls) -> Option<Self> {
        if proxy::begins_header(input) {
            return Some(Self::ProxyHeader);
        }
        let offers_starttls = starttls::is_offered(tls, None);
        matches!(input, [0x16, 0x03, ..]).then_some(Self::TlsToPlain { offers_starttls })
    }

    /// A handshake that failed at its start.
    pub(super) fn of_handshake(error: &io::Error) -> Option<Self> {
        let reason = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match reason {
            Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => Some(Self::PlainToTls),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Some(Self::SilentAtTls),
            _ => None,
        }
    }

    /// A client that said EHLO, saw what `options` offer, and left without doing anything else.
    pub(super) fn of_departure(options: &ListenerOptions, tls: Option<&str>) -> Option<Self> {
        let starttls_missing = tls.is_none() && !starttls::is_offered(&options.tls, tls);
        let auth = match options.auth {
            AuthMode::Off => MissingAuth::Off,
            _ if !starttls::allows_auth(&options.tls, tls) => MissingAuth::AfterStartTls,
            AuthMode::Optional | AuthMode::Required => MissingAuth::Offered,
        };
        let is_complete = !starttls_missing && auth == MissingAuth::Offered;
        (!is_complete).then_some(Self::LeftWithoutMail { starttls_missing, auth })
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TlsToPlain { offers_starttls: true } => out.write_str(
                "the client began with a TLS handshake, and this listener begins in plain text: set the client to STARTTLS, \
                 or the listener to tls = \"implicit\"",
            ),
            Self::TlsToPlain { offers_starttls: false } => out.write_str(
                "the client began with a TLS handshake, and this listener speaks plain text: turn TLS off in the client, \
                 or set the listener to tls = \"implicit\"",
            ),
            Self::ProxyHeader => out.write_str(
                "the client sent a PROXY header, which this listener accepts from load balancers alone, and once: list the load \
                 balancer's network in `proxy_protocol`, or turn the PROXY protocol off there",
            ),
            Self::PlainToTls => out.write_str(
                "the client spoke plain text, and this listener expects TLS from the first byte: set the client to implicit \
                 TLS (SMTPS), or the listener to tls = \"starttls\"; a load balancer that sends a PROXY header belongs in \
                 `proxy_protocol`",
            ),
            Self::SilentAtTls => out.write_str(
                "the client left without a TLS handshake. If it waits for a greeting in plain text: this listener expects TLS \
                 from the first byte; set the client to implicit TLS (SMTPS), or the listener to tls = \"starttls\"",
            ),
            Self::LeftWithoutMail { starttls_missing, auth } => {
                out.write_str("the client left after EHLO without a message.")?;
                if *starttls_missing {
                    out.write_str(
                        " If it insists on STARTTLS: this listener does not offer it; turn it off in the client, or set \
                         tls = \"starttls\".",
                    )?;
                }
                match auth {
                    MissingAuth::Off => out.write_str(
                        " If it insists on AUTH: this listener does not offer it; remove the login from the client, or set \
                         auth = \"optional\".",
                    ),
                    MissingAuth::AfterStartTls => {
                        out.write_str(" If it insists on AUTH: this listener offers it after STARTTLS only.")
                    }
                    MissingAuth::Offered => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::testing::{options, server_tls};

    #[test]
    fn only_a_handshake_record_is_taken_for_tls() {
        let finding = |input: &[u8]| Mismatch::of_input(input, &Tls::Off);
        assert_eq!(finding(b"\x16\x03\x01\x02\x00\x01"), Some(Mismatch::TlsToPlain { offers_starttls: false }));
        assert_eq!([finding(b""), finding(b"\x16"), finding(b"EHLO a\r\n"), finding(b"PROXY")], [None; 4]);
        assert_eq!(finding(b"PROXY TCP4 1.2.3.4"), Some(Mismatch::ProxyHeader));
        assert_eq!(finding(b"\r\n\r\n\0\r\nQUIT\n\x21"), Some(Mismatch::ProxyHeader));
        let offering = Mismatch::of_input(b"\x16\x03\x01", &Tls::StartTls(server_tls()));
        assert_eq!(offering, Some(Mismatch::TlsToPlain { offers_starttls: true }));
    }

    /// Each combination of TLS and AUTH, with what the log line must name as missing.
    #[test]
    fn a_client_that_leaves_is_told_what_was_not_offered() {
        let starttls = Tls::StartTls(server_tls());
        let implicit = Tls::Implicit(server_tls());
        let table = [
            (Tls::Off, None, AuthMode::Off, "STARTTLS: this listener does not,AUTH: this listener does not"),
            (Tls::Off, None, AuthMode::Optional, "STARTTLS: this listener does not"),
            (starttls.clone(), None, AuthMode::Off, "AUTH: this listener does not"),
            (starttls.clone(), None, AuthMode::Required, "after STARTTLS only"),
            (starttls, Some("TLSv1.3"), AuthMode::Required, ""),
            (implicit.clone(), Some("TLSv1.3"), AuthMode::Off, "AUTH: this listener does not"),
            (implicit, Some("TLSv1.3"), AuthMode::Optional, ""),
        ];
        for (tls, active, auth, named) in table {
            let options = ListenerOptions { tls, auth, ..options() };
            let text = Mismatch::of_departure(&options, active).map(|found| found.to_string()).unwrap_or_default();
            for part in ["STARTTLS: this listener does not", "AUTH: this listener does not", "after STARTTLS only"] {
                assert_eq!(text.contains(part), named.contains(part), "{part}: {text}");
            }
            assert_eq!(text.is_empty(), named.is_empty(), "{text}");
        }
    }
}
