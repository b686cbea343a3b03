//! `Sealed`: a message in its final form, and how it is signed.
//!
//! The only thing that the relay accepts. It cannot be changed, so the signed bytes are the bytes sent; sending without
//! a signature is an explicit decision, never an omission.

use super::selector::Selector;
use crate::message::RawMessage;
use crate::smtp::Domain;
use std::fmt;

/// How a message left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seal {
    /// At least one signature, top to bottom.
    Signed(Vec<SignatureName>),
    /// The policy allows this author's domain to send unsigned mail.
    Unsigned,
    /// The provider reassembles mail and signs it itself.
    LeftToProvider,
}

/// A signature, by the name of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureName {
    pub domain: Domain,
    pub selector: Selector,
    pub algorithm: SignatureAlgorithm,
}

/// The `a=` of a signature. RFC 8301 §3.1, RFC 8463 §3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignatureAlgorithm {
    RsaSha256,
    Ed25519Sha256,
}

/// "signed wax1._domainkey.example.com (rsa-sha256)", for a log line.
impl fmt::Display for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signed(signatures) => {
                for (at, signature) in signatures.iter().enumerate() {
                    write!(f, "{}{signature}", if at == 0 { "signed " } else { ", " })?;
                }
                Ok(())
            }
            Self::Unsigned => f.write_str("unsigned"),
            Self::LeftToProvider => f.write_str("left to the provider to sign"),
        }
    }
}

impl fmt::Display for SignatureName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}._domainkey.{} ({})", self.selector, self.domain, self.algorithm)
    }
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RsaSha256 => "rsa-sha256",
            Self::Ed25519Sha256 => "ed25519-sha256",
        })
    }
}

/// Invariant: the header consists of whole CRLF lines, signatures first; the octets never change again.
#[derive(Debug, Clone)]
pub struct Sealed {
    message: RawMessage,
    seal: Seal,
    eight_bit: bool,
    header_eight_bit: bool,
}

impl Sealed {
    /// By policy: this domain has no key, and may send unsigned mail.
    pub fn unsigned(message: &RawMessage) -> Self {
        Self::new(message.clone(), Seal::Unsigned)
    }

    /// By policy: every upstream that may get it signs mail itself.
    pub fn left_to_provider(message: &RawMessage) -> Self {
        Self::new(message.clone(), Seal::LeftToProvider)
    }

    pub(super) fn new(message: RawMessage, seal: Seal) -> Self {
        let eight_bit = message.body_is_eight_bit();
        let header_eight_bit = message.header_is_eight_bit();
        Self { message, seal, eight_bit, header_eight_bit }
    }

    /// With the signatures on top. Its size is what SIZE announces.
    pub fn message(&self) -> &RawMessage {
        &self.message
    }

    /// True if the body needs 8BITMIME. RFC 6152.
    pub fn is_eight_bit(&self) -> bool {
        self.eight_bit
    }

    /// True if the header needs SMTPUTF8. RFC 6532.
    pub fn header_is_eight_bit(&self) -> bool {
        self.header_eight_bit
    }

    pub fn seal(&self) -> &Seal {
        &self.seal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn the_message_is_carried_as_it_is() {
        let data = Bytes::from_static(b"From: a@example.com\r\n\r\n\r\nb\xc3\xb6dy");
        let sealed = Sealed::unsigned(&RawMessage::from_data(data.clone()).expect("a message"));
        assert_eq!(sealed.message().header(), b"From: a@example.com\r\n");
        assert_eq!(&sealed.message().body()[..], b"\r\nb\xc3\xb6dy");
        assert_eq!(
            (sealed.message().size(), sealed.is_eight_bit(), sealed.header_is_eight_bit()),
            (data.len(), true, false)
        );
        assert_eq!(sealed.message().body().as_ptr(), data[23..].as_ptr(), "the body is shared");
    }

    #[test]
    fn a_seal_is_readable() {
        let name = |selector, algorithm| SignatureName {
            domain: Domain::parse("example.com").expect("a domain"),
            selector: Selector::parse(selector).expect("a selector"),
            algorithm,
        };
        let both = Seal::Signed(vec![
            name("wax1", SignatureAlgorithm::RsaSha256),
            name("wax2", SignatureAlgorithm::Ed25519Sha256),
        ]);
        assert_eq!(
            both.to_string(),
            "signed wax1._domainkey.example.com (rsa-sha256), wax2._domainkey.example.com (ed25519-sha256)"
        );
        assert_eq!(Seal::Unsigned.to_string(), "unsigned");
        assert_eq!(Seal::LeftToProvider.to_string(), "left to the provider to sign");
    }
}
