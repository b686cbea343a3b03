//! Signing: chooses the fields, and signs exactly the bytes that will be sent.
//!
//! relaxed/relaxed, never `l=`. mail-auth provides the cryptography and the canonical forms; it receives the fields and
//! the body separately, so that it never looks for the end of the header itself. RFC 6376 §3.4, §5.4.

use super::key::SigningKey;
use super::sealed::{Seal, Sealed, SignatureAlgorithm};
use super::signature::{self, SignatureField};
use super::tidy;
use crate::message::RawMessage;
use crate::message::headers::{FieldChange, FieldRef, Fields, changed};
use crate::observe::clock::seconds_since_epoch;
use mail_auth::common::crypto::{HashAlgorithm, SigningKey as _};
use mail_auth::dkim::Canonicalization::Relaxed;
use std::sync::Arc;

/// Signed once more than they occur, so that no one can add another that mail readers would show. RFC 6376 §8.15.
const OVERSIGNED: [&str; 10] = [
    "From",
    "Subject",
    "To",
    "Cc",
    "Date",
    "Reply-To",
    "Message-ID",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
];

/// Signed as often as they occur. RFC 8058 §4 requires the first two.
const SIGNED_IF_PRESENT: [&str; 5] =
    ["List-Unsubscribe", "List-Unsubscribe-Post", "In-Reply-To", "References", "Sender"];

/// A name is listed in `h=` for each of its fields; real mail has one.
const MAX_SAME_NAME: usize = 100;

/// Octets of a DKIM-Signature field with RSA, about.
const SIGNATURE_ROOM: usize = 1024;

/// Whether a message with a From header has a form that [`seal`] can sign with any key: a message that cannot be signed
/// today cannot be signed later either.
pub fn check_sealable(message: &RawMessage) -> Result<(), SealError> {
    let mut counts = [0; OVERSIGNED.len() + SIGNED_IF_PRESENT.len()];
    for field in message.fields() {
        for (name, count) in signed_names().zip(&mut counts).filter(|(name, _)| field.is(name)) {
            *count += 1;
            check_count(name, *count)?;
        }
    }
    Ok(())
}

fn check_count(name: &'static str, count: usize) -> Result<(), SealError> {
    if count > MAX_SAME_NAME { Err(SealError::TooManyFields(name)) } else { Ok(()) }
}

fn signed_names() -> impl Iterator<Item = &'static str> {
    OVERSIGNED.into_iter().chain(SIGNED_IF_PRESENT)
}

#[derive(Debug, Clone, Copy, Default)]
pub struct SealOptions<'a> {
    /// Fields that the provider rewrites, such as "Date"; a signature over them would break. From is always signed.
    pub provider_rewrites: &'a [&'a str],
    /// The provider refuses a second DKIM-Signature: only the first RSA key signs (or else the first key), and the
    /// message's own signatures are removed.
    pub one_signature: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("no key was given to sign with")]
    NoKey,
    #[error("the message has no From header, and a signature must cover it")]
    NoFrom,
    #[error("the message has more than 100 {0} headers")]
    TooManyFields(&'static str),
    #[error("signing with {key} failed: {reason}")]
    Signing { key: String, reason: String },
}

/// Signs with every key; each signature covers the message without the others.
///
/// Bytes on which verifiers disagree are normalised first (`tidy`); otherwise header and body stay as they are, and the
/// body is shared.
pub fn seal(message: &RawMessage, keys: &[Arc<SigningKey>], options: &SealOptions<'_>) -> Result<Sealed, SealError> {
    let keys = if options.one_signature { preferred(keys) } else { keys };
    if keys.is_empty() {
        return Err(SealError::NoKey);
    }
    let mut block = tidy::header(message, is_signed);
    if options.one_signature {
        block = changed(&block, without_signature).unwrap_or(block);
    }
    let body = tidy::body(message.body());
    let covered = SignedFields::new(&block, options)?;
    let body_hash = HashAlgorithm::Sha256.hash(Relaxed.canonical_body(&body, u64::MAX));
    let time = seconds_since_epoch();
    let mut header = Vec::with_capacity(block.len() + keys.len() * SIGNATURE_ROOM);
    for key in keys {
        let field = SignatureField::new(key, &covered.names, body_hash.as_ref(), time);
        header.extend_from_slice(sign(key, field, &covered.canonical)?.as_bytes());
    }
    header.extend_from_slice(&block);
    let names = keys.iter().map(|key| key.name().clone()).collect();
    Ok(Sealed::new(RawMessage::from_parts(header, body), Seal::Signed(names)))
}

/// Every verifier knows RSA.
fn preferred(keys: &[Arc<SigningKey>]) -> &[Arc<SigningKey>] {
    let rsa = keys.iter().position(|key| key.algorithm() == SignatureAlgorithm::RsaSha256).unwrap_or_default();
    keys.get(rsa..).and_then(|rest| rest.get(..1)).unwrap_or_default()
}

fn without_signature(field: &FieldRef<'_>) -> FieldChange {
    if field.is(signature::NAME) { FieldChange::Remove } else { FieldChange::Keep }
}

fn sign(key: &SigningKey, field: SignatureField, covered: &[u8]) -> Result<String, SealError> {
    let own = [(signature::NAME.as_bytes(), field.value())];
    let mut canonical = Vec::with_capacity(covered.len() + SIGNATURE_ROOM);
    canonical.extend_from_slice(covered);
    Relaxed.canonicalize_headers(own.into_iter(), &mut canonical);
    match key.signer.sign(canonical.as_slice()) {
        Ok(signature) => Ok(field.complete(&signature)),
        Err(error) => Err(SealError::Signing { key: key.to_string(), reason: error.to_string() }),
    }
}

/// The fields that a signature covers.
struct SignedFields {
    /// `h=`
    names: Vec<&'static str>,
    canonical: Vec<u8>,
}

impl SignedFields {
    fn new(block: &[u8], options: &SealOptions<'_>) -> Result<Self, SealError> {
        let fields: Vec<_> = Fields::new(block).collect();
        let rewritten = |name: &str| {
            name != "From" && options.provider_rewrites.iter().any(|rewrite| rewrite.eq_ignore_ascii_case(name))
        };
        let mut names = Vec::with_capacity(OVERSIGNED.len() * 2);
        let mut canonical = Vec::with_capacity(block.len());
        let wanted = OVERSIGNED.map(|name| (name, 1)).into_iter().chain(SIGNED_IF_PRESENT.map(|name| (name, 0)));
        for (name, extra) in wanted.filter(|(name, _)| !rewritten(name)) {
            // RFC 6376 §5.4.2: of several, the lowest first.
            let present: Vec<_> = fields.iter().rev().filter(|field| field.is(name)).map(name_and_value).collect();
            if present.is_empty() && name == "From" {
                return Err(SealError::NoFrom);
            }
            check_count(name, present.len())?;
            names.extend(std::iter::repeat_n(name, present.len() + extra));
            Relaxed.canonicalize_headers(present.into_iter(), &mut canonical);
        }
        Ok(Self { names, canonical })
    }
}

fn is_signed(field: &FieldRef<'_>) -> bool {
    signed_names().any(|name| field.is(name))
}

// The text after the colon, with the final CRLF, which is how mail-auth represents a field.
fn name_and_value<'a>(field: &FieldRef<'a>) -> (&'a [u8], &'a [u8]) {
    let raw = field.raw();
    let colon = raw.iter().position(|&byte| byte == b':').unwrap_or(raw.len() - 1);
    (field.name(), &raw[colon + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dkim::{Records, Selector, verify};
    use crate::smtp::Domain;

    fn key(selector: &str, pem: &str) -> Arc<SigningKey> {
        let domain = Domain::parse("Example.com").expect("a domain");
        let selector = Selector::parse(selector).expect("a selector");
        Arc::new(SigningKey::from_pem(domain, selector, pem.as_bytes()).expect("a key"))
    }

    fn both_keys() -> [Arc<SigningKey>; 2] {
        [key("wax1", include_str!("testdata/rsa2048.pem")), key("wax2", include_str!("testdata/ed25519.pem"))]
    }

    fn message(data: &'static str) -> RawMessage {
        RawMessage::from_data(data.into()).expect("a message")
    }

    fn wire(sealed: &Sealed) -> Vec<u8> {
        [sealed.message().header(), b"\r\n", sealed.message().body()].concat()
    }

    // The names in the first signature's h=.
    fn names(sealed: &Sealed) -> String {
        let field = Fields::new(sealed.message().header()).next().expect("a field").unfolded();
        let text: String = String::from_utf8_lossy(&field).split_whitespace().collect();
        text.split(';').find_map(|tag| tag.strip_prefix("h=")).expect("h=").to_owned()
    }

    fn passes(data: &[u8], keys: &[Arc<SigningKey>]) -> Vec<bool> {
        let records = Records::of_keys(keys.iter().map(Arc::as_ref));
        verify(data, &records).iter().map(|verification| verification.is_pass()).collect()
    }

    #[test]
    fn every_signature_covers_the_message_without_the_others() {
        let keys = both_keys();
        let message = message("From: a@example.com\r\nTo: b@x\r\nTo: c@x\r\nSubject:\r\n\r\nbody\r\n");
        let sealed = seal(&message, &keys, &SealOptions::default()).expect("sealed");
        assert_eq!(
            sealed.seal().to_string(),
            "signed wax1._domainkey.Example.com (rsa-sha256), wax2._domainkey.Example.com (ed25519-sha256)"
        );
        let signed = wire(&sealed);
        assert_eq!(passes(&signed, &keys), [true, true]);
        assert!(signed.ends_with(&message.to_bytes()));
        assert_eq!(sealed.message().body().as_ptr(), message.body().as_ptr(), "the body is shared");
        // Each one verifies even if the other is removed.
        let second = memchr::memmem::rfind(&signed, b"DKIM-Signature:").expect("a second one");
        assert_eq!(passes(&signed[second..], &keys), [true]);
        assert!(sealed.message().header()[..second].split(|&b| b == b'\n').all(|line| line.len() <= 80));
    }

    #[test]
    fn what_a_reader_sees_is_signed_once_more_than_it_occurs() {
        let keys = &both_keys()[..1];
        let header =
            "Received: r\r\nFROM: a@example.com\r\nTo: b@x\r\nto: c@x\r\nList-Unsubscribe: <u>\r\nX-Other: o\r\n";
        let message = message([header, "Sender: s@x\r\nsender: t@x\r\n\r\nbody"].concat().leak());
        let sealed = seal(&message, keys, &SealOptions::default()).expect("sealed");
        assert_eq!(
            names(&sealed),
            "From:From:Subject:To:To:To:Cc:Date:Reply-To:Message-ID:MIME-Version:Content-Type:\
             Content-Transfer-Encoding:List-Unsubscribe:Sender:Sender"
        );
        let signed = wire(&sealed);
        for added in
            ["From: evil@x\r\n", "Subject: evil\r\n", "To: evil@x\r\n", "Content-Type: text/html\r\n", "Cc: e@x\r\n"]
        {
            assert_eq!(passes(&[added.as_bytes(), &signed].concat(), keys), [false], "{added}");
        }
        assert_eq!(passes(&[b"Received: later\r\nSender: later\r\n", &signed[..]].concat(), keys), [true]);
    }

    #[test]
    fn what_the_provider_rewrites_is_left_out() {
        let keys = &both_keys()[..1];
        let message = message("From: a@example.com\r\nDate: d\r\nMessage-ID: <m>\r\nSender: s@x\r\n\r\nbody\r\n");
        let provider_rewrites = &["Message-ID", "date", "From", "Sender"];
        let options = SealOptions { provider_rewrites, ..SealOptions::default() };
        let sealed = seal(&message, keys, &options).expect("sealed");
        assert_eq!(
            names(&sealed),
            "From:From:Subject:To:Cc:Reply-To:MIME-Version:Content-Type:Content-Transfer-Encoding"
        );
        let rewritten = String::from_utf8(wire(&sealed)).expect("UTF-8").replace("Date: d", "Date: e");
        assert_eq!(passes(rewritten.as_bytes(), keys), [true]);
    }

    #[test]
    fn an_earlier_signature_stays_and_is_not_covered() {
        let keys = both_keys();
        let once = seal(&message("From: a@example.com\r\n\r\nbody\r\n"), &keys[..1], &SealOptions::default());
        let once = RawMessage::from_data(wire(&once.expect("sealed")).into()).expect("a message");
        let twice = seal(&once, &keys[1..], &SealOptions::default()).expect("sealed");
        assert_eq!(passes(&wire(&twice), &keys), [true, true]);
    }

    #[test]
    fn where_one_signature_is_allowed_there_is_one() {
        let [rsa, ed25519] = both_keys();
        let keys = [ed25519.clone(), rsa.clone()];
        let options = SealOptions { one_signature: true, ..SealOptions::default() };
        let own = "DKIM-Signature: v=1; b=x\r\nFrom: a@example.com\r\ndkim-signature:\r\n y\r\nTo: b@x\r\n\r\nbody\r\n";
        for (keys, name) in [(&keys[..], "wax1"), (&keys[..1], "wax2")] {
            let sealed = seal(&message(own), keys, &options).expect("sealed");
            assert!(sealed.seal().to_string().starts_with(&format!("signed {name}._domainkey")), "{}", sealed.seal());
            assert_eq!(passes(&wire(&sealed), keys), [true], "the application's are gone");
            assert!(sealed.message().header().ends_with(b"\r\nFrom: a@example.com\r\nTo: b@x\r\n"));
        }
        assert_eq!(seal(&message(own), &[], &options).map(|_| ()), Err(SealError::NoKey));
    }

    #[test]
    fn refusals_name_the_reason() {
        let sealed = |header: String, keys: &[Arc<SigningKey>]| {
            let message = RawMessage::from_data(format!("{header}\r\n").into()).expect("a message");
            seal(&message, keys, &SealOptions::default()).map(|_| ())
        };
        assert_eq!(sealed("From: a@b\r\n".to_owned(), &[]), Err(SealError::NoKey));
        assert_eq!(sealed("To: a@b\r\n".to_owned(), &both_keys()), Err(SealError::NoFrom));
        assert_eq!(sealed(String::new(), &both_keys()), Err(SealError::NoFrom));
        let many = format!("From: a@b\r\n{}", "References: x\r\n".repeat(5000));
        assert_eq!(sealed(many, &both_keys()), Err(SealError::TooManyFields("References")));
    }

    #[test]
    fn what_is_said_to_be_sealable_is_sealed_and_nothing_else() {
        for name in signed_names().filter(|name| *name != "From") {
            for (count, expected) in [(MAX_SAME_NAME, Ok(())), (MAX_SAME_NAME + 1, Err(SealError::TooManyFields(name)))]
            {
                let header = format!("{} : x\r\n", name.to_lowercase()).repeat(count);
                let message = RawMessage::from_data(format!("From: a@b\r\n{header}\r\n").into()).expect("a message");
                assert_eq!(check_sealable(&message), expected, "{name}");
                let sealed = seal(&message, &both_keys(), &SealOptions::default()).map(|_| ());
                assert_eq!(sealed, expected, "{name}");
            }
        }
    }
}
