//! Verifies signatures against given records; never queries DNS.
//!
//! mail-auth reads the message and does the cryptography; the order of the checks is RFC 6376 §6.1's.

use super::key::SigningKey;
use super::record::DnsRecord;
use super::record_file::{self, NoRecord};
use super::tidy;
use crate::message::headers::without_spaces_around;
use crate::observe::clock::seconds_since_epoch;
use mail_auth::common::crypto::{Algorithm, HashAlgorithm};
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use mail_auth::dkim::{Canonicalization, DkimError, Signature};
use mail_auth::{AuthenticatedMessage, Error};
use std::collections::HashMap;

/// The result for one DKIM-Signature field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureCheck {
    /// As the signature claims; empty if it cannot be read.
    pub domain: String,
    pub selector: String,
    /// "rsa-sha256", "ed25519-sha256" or, long since broken, "rsa-sha1".
    pub algorithm: &'static str,
    pub result: VerificationResult,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerificationResult {
    Pass,
    /// The reason, for the person who wants it to pass.
    Fail(String),
}

impl SignatureCheck {
    pub fn is_pass(&self) -> bool {
        self.result == VerificationResult::Pass
    }
}

/// TXT records by name.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// Lower case, without the final dot; "wax1._domainkey" matches every domain.
    named: HashMap<String, String>,
    /// Used for every name that is not above.
    nameless: Option<String>,
}

impl Records {
    /// The records that publish these keys.
    pub fn of_keys<'a>(keys: impl IntoIterator<Item = &'a SigningKey>) -> Self {
        let mut records = Self::default();
        for record in keys.into_iter().map(DnsRecord::of) {
            records.insert(record.name(), record.text());
        }
        records
    }

    /// The records in a file, in any form that `record_file` reads; a record without a name is used for every
    /// signature.
    pub fn from_file(file: &str) -> Result<Self, NoRecord> {
        let mut records = Self::default();
        for record in record_file::parse(file)? {
            match record.name {
                Some(name) => records.insert(&name, &record.text),
                None => records.nameless = Some(record.text),
            }
        }
        Ok(records)
    }

    pub fn insert(&mut self, name: &str, text: &str) {
        self.named.insert(name.trim_end_matches('.').to_ascii_lowercase(), text.to_owned());
    }

    fn text(&self, selector: &str, domain: &str) -> Option<&str> {
        let relative = format!("{selector}._domainkey");
        self.named
            .get(&format!("{relative}.{domain}"))
            .or_else(|| self.named.get(&relative))
            .or(self.nameless.as_ref())
            .map(String::as_str)
    }
}

/// One result per DKIM-Signature field, top to bottom, with unreadable ones last; empty if there is none.
///
/// `message` must have CRLF line endings.
pub fn verify(message: &[u8], records: &Records) -> Vec<SignatureCheck> {
    let Some(mut message) = AuthenticatedMessage::parse(message) else {
        return Vec::new();
    };
    // RFC 6376 §3.4.2: white space before the colon does not count; mail-auth would take it as part of the name.
    for (name, _) in &mut message.headers {
        *name = without_spaces_around(name);
    }
    let read = message.dkim_headers.iter().map(|field| {
        let signature = &field.header;
        let covered = without_signature(field.value);
        let result = check(&message, signature, field.name, &covered, records);
        SignatureCheck {
            domain: signature.d.clone(),
            selector: signature.s.clone(),
            algorithm: signature.a.name(),
            result: result.map_or_else(VerificationResult::Fail, |()| VerificationResult::Pass),
        }
    });
    let unread = message.errors.iter().filter(|field| field.name.eq_ignore_ascii_case(b"DKIM-Signature"));
    read.chain(unread.map(|field| unreadable(&field.header))).collect()
}

fn unreadable(error: &Error) -> SignatureCheck {
    let reason = match error {
        Error::Dkim(DkimError::SignatureLength) => "it covers only a part of the body (l=)".to_owned(),
        Error::Dkim(error) => error.to_string(),
        _ => "the signature cannot be read".to_owned(),
    };
    SignatureCheck {
        domain: String::new(),
        selector: String::new(),
        algorithm: "unknown",
        result: VerificationResult::Fail(reason),
    }
}

fn check(
    message: &AuthenticatedMessage<'_>,
    signature: &Signature,
    field_name: &[u8],
    covered: &[u8],
    records: &Records,
) -> Result<(), String> {
    // RFC 8301 §3.1
    if signature.a == Algorithm::RsaSha1 {
        return Err("rsa-sha1 is no longer safe, receivers ignore it".to_owned());
    }
    if !signature.h.iter().any(|name| name.eq_ignore_ascii_case("From")) {
        return Err("it does not cover the From header".to_owned());
    }
    if signature.x != 0 && (signature.x <= signature.t || signature.x <= seconds_since_epoch()) {
        return Err("it has expired (x=)".to_owned());
    }
    let name = format!("{}._domainkey.{}", signature.s, signature.d);
    let text = records.text(&signature.s, &signature.d).ok_or_else(|| format!("no record for {name} is at hand"))?;
    let record = DomainKey::parse(text.as_bytes()).map_err(|error| match error {
        Error::Dkim(DkimError::RevokedPublicKey) => {
            format!("the record for {name} says that the key is revoked (p= is empty)")
        }
        _ => format!("the record for {name} holds no DKIM key"),
    })?;
    if record.p.public_key_bits() < 1024 {
        return Err(format!("the record for {name} holds an RSA key shorter than 1024 bits"));
    }
    if !is_identity_within(signature, text) {
        return Err("its i= is not within its d=".to_owned());
    }
    if body_hash(message, signature.cb) != signature.bh {
        return Err("the body was changed after it was signed".to_owned());
    }
    let mut fields = message.signed_headers(&signature.h, field_name, covered);
    record.p.verify(&mut fields, &signature.b, signature.ch, signature.a).map_err(|_| {
        format!("a signed header was changed or added after it was signed, or {name} publishes another key")
    })
}

// mail-auth's own hash counts white space on the last lines, which RFC 6376 §3.4.4 ignores.
fn body_hash(message: &AuthenticatedMessage<'_>, form: Canonicalization) -> Vec<u8> {
    let body = message.raw_message.get(message.body_offset as usize..).unwrap_or_default();
    let body = match form {
        Canonicalization::Relaxed => &body[..tidy::end_of_text(body)],
        Canonicalization::Simple => body,
    };
    HashAlgorithm::Sha256.hash(form.canonical_body(body, u64::MAX)).as_ref().to_vec()
}

// RFC 6376 §3.5 "i=", §3.6.1 "t=s".
fn is_identity_within(signature: &Signature, record: &str) -> bool {
    let Some((_, identity)) = signature.i.rsplit_once('@') else {
        return signature.i.is_empty();
    };
    let exact = record
        .split(';')
        .filter_map(|tag| tag.split_once('='))
        .any(|(name, flags)| name.trim_ascii() == "t" && flags.split(':').any(|flag| flag.trim_ascii() == "s"));
    let identity = identity.to_ascii_lowercase();
    let domain = signature.d.to_ascii_lowercase();
    identity == domain || (!exact && identity.strip_suffix(&domain).is_some_and(|head| head.ends_with('.')))
}

// RFC 6376 §3.7: the field itself is signed with an empty b= and without its last CRLF.
fn without_signature(value: &[u8]) -> Vec<u8> {
    let value = value.strip_suffix(b"\r\n").unwrap_or(value);
    let tags: Vec<_> = value
        .split(|&byte| byte == b';')
        .map(|tag| match tag.iter().position(|&byte| byte == b'=') {
            Some(equals) if tag[..equals].trim_ascii() == b"b" => &tag[..=equals],
            _ => tag,
        })
        .collect();
    tags.join(&b';')
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 8463 appendix A: both kinds of signature over one message.
    const SIGNED: &str = "\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
";
    const ED25519: &str = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    const RSA: &str = "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6\
Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzB\
fO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB";

    fn records() -> Records {
        let mut records = Records::default();
        records.insert("brisbane._domainkey.football.example.com.", ED25519);
        records.insert("Test._domainkey.football.example.com", RSA);
        records
    }

    fn results(message: &str, records: &Records) -> Vec<String> {
        let verified = verify(message.replace('\n', "\r\n").as_bytes(), records);
        verified
            .into_iter()
            .map(|one| match one.result {
                VerificationResult::Pass => format!("{} pass", one.algorithm),
                VerificationResult::Fail(reason) => format!("{} {reason}", one.algorithm),
            })
            .collect()
    }

    #[test]
    fn the_example_of_the_rfc_passes() {
        assert_eq!(results(SIGNED, &records()), ["ed25519-sha256 pass", "rsa-sha256 pass"]);
        // The end of the body is canonicalized as RFC 6376 §3.4.4 says, the name as §3.4.2 says.
        let oddly = SIGNED.replace("Joe.\n", "Joe. \t\n \n\t\n\n").replace("\nSubject:", "\nsubject \t:");
        assert_eq!(results(&oddly, &records()), ["ed25519-sha256 pass", "rsa-sha256 pass"]);
    }

    #[test]
    fn failures_say_why() {
        let changed = |from: &str, to: &str| {
            assert!(SIGNED.contains(from), "{from}");
            results(&SIGNED.replace(from, to), &records()).join(" | ")
        };
        for (from, to, reason) in [
            ("hungry", "angry", "the body was changed"),
            ("dinner", "lunch", "a signed header was changed"),
            ("From: Joe", "From: evil@example.org\nFrom: Joe", "a signed header was changed or added"),
            ("s=brisbane", "s=perth", "no record for perth._domainkey.football.example.com"),
            ("from :", "sender :", "does not cover the From header"),
            ("t=1528637909;", "t=1528637909; x=1528637910;", "expired"),
            ("t=1528637909;", "t=1528637909; l=10;", "only a part of the body"),
            ("i=@football.", "i=@tennis.", "its i= is not within its d="),
            ("a=rsa-sha256", "a=rsa-sha1", "rsa-sha1 is no longer safe"),
            ("bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;", "", "cannot be read"),
            ("v=1; a=ed", "v=2; a=ed", "Unsupported version"),
        ] {
            assert!(changed(from, to).contains(reason), "{from} -> {to}: {}", changed(from, to));
        }
        // A different header for a reader that handles white space correctly.
        for odd in ['\x0b', '\x0c', '\u{a0}', '\u{2028}'] {
            assert!(changed("\nSubject:", &format!("\nSubject{odd}:")).contains("a signed header"), "{odd:?}");
        }
        assert_eq!(results("From: a@b\n\nbody\n", &records()), Vec::<String>::new());
        assert_eq!(results("", &records()), Vec::<String>::new());
    }

    #[test]
    fn records_may_come_from_files() {
        for (file, expected) in [
            (ED25519.to_owned(), ["pass", "a signed header"]),
            (format!("brisbane._domainkey IN TXT \"{ED25519}\"\n"), ["pass", "no record for test."]),
            (format!("brisbane._domainkey IN TXT \"{ED25519}\"\n\"{RSA}\"\n"), ["pass", "pass"]),
            ("v=DKIM1; p=".to_owned(), ["revoked", "revoked"]),
            ("v=DKIM1; k=rsa; p=%%%".to_owned(), ["holds no DKIM key", "holds no DKIM key"]),
            (format!("{RSA}; t=s"), ["a signed header", "pass"]),
        ] {
            let records = Records::from_file(&file).expect(&file);
            for (result, expected) in results(SIGNED, &records).iter().zip(expected) {
                assert!(result.contains(expected), "{file}: {result}");
            }
        }
        let mut exact = records();
        exact.insert("test._domainkey.football.example.com", &format!("{RSA}; t=y:s"));
        let below = SIGNED.replace("i=@football", "i=@a.football");
        let mut odd = records();
        odd.insert("test._domainkey.football.example.com", &format!("{RSA}; \u{a0}t=s"));
        assert!(results(&below, &odd)[1].contains("a signed header"), "no tag that mail-auth knows");
        assert!(results(&below, &exact)[1].contains("its i="), "{:?}", results(&below, &exact));
        assert!(results(&below, &records())[1].contains("a signed header"));
    }
}
