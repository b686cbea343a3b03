//! `DnsRecord`: the TXT record that publishes a key, as text to paste and as a line for a zone file.
//!
//! Reading such records back from a file is in `record_file.rs`. RFC 6376 §3.6.1, RFC 8463 §4, RFC 1035 §5.1.

use super::key::SigningKey;
use super::sealed::SignatureAlgorithm;
use base64::{Engine, engine::general_purpose::STANDARD};
use std::fmt;

/// Octets of one character-string. RFC 1035 §3.3.
const MAX_STRING: usize = 255;

/// Invariant: the text is printable ASCII without quotes and backslashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsRecord {
    name: String,
    text: String,
}

impl DnsRecord {
    pub fn of(key: &SigningKey) -> Self {
        let kind = match key.algorithm() {
            SignatureAlgorithm::RsaSha256 => "rsa",
            SignatureAlgorithm::Ed25519Sha256 => "ed25519",
        };
        let text = format!("v=DKIM1; k={kind}; p={}", STANDARD.encode(key.public_key()));
        Self { name: key.dns_name(), text }
    }

    /// Any other TXT record. The text must keep the invariant, and the name be without its final dot.
    pub fn txt(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// Without the final dot.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// For a zone file: one record, its text split into strings of at most 255 octets.
    pub fn zone_line(&self) -> String {
        let strings: Vec<_> = self
            .text
            .as_bytes()
            .chunks(MAX_STRING)
            .map(|part| format!("\"{}\"", String::from_utf8_lossy(part)))
            .collect();
        match strings.as_slice() {
            [only] => format!("{}. IN TXT {only}", self.name),
            _ => format!("{}. IN TXT (\n  {} )", self.name, strings.join("\n  ")),
        }
    }
}

/// For a DNS provider's form.
impl fmt::Display for DnsRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name:  {}\nType:  TXT\nValue: {}", self.name, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dkim::Selector;
    use crate::smtp::Domain;

    fn record(pem: &str) -> DnsRecord {
        let domain = Domain::parse("example.com").expect("a domain");
        let selector = Selector::parse("wax1").expect("a selector");
        DnsRecord::of(&SigningKey::from_pem(domain, selector, pem.as_bytes()).expect("a key"))
    }

    #[test]
    fn ed25519_publishes_the_bare_key() {
        let record = record(include_str!("testdata/ed25519.pem"));
        let p = record.text().strip_prefix("v=DKIM1; k=ed25519; p=").expect("the tags");
        assert_eq!(STANDARD.decode(p).expect("base64").len(), 32);
        assert_eq!(record.zone_line(), format!("wax1._domainkey.example.com. IN TXT \"{}\"", record.text()));
        assert_eq!(
            record.to_string(),
            format!("Name:  wax1._domainkey.example.com\nType:  TXT\nValue: {}", record.text())
        );
    }

    #[test]
    fn rsa_is_split_for_zone_files() {
        let record = record(include_str!("testdata/rsa2048.pem"));
        // What `openssl pkey -pubout` prints.
        let public: String =
            include_str!("testdata/rsa2048.pub").lines().filter(|line| !line.starts_with('-')).collect();
        assert_eq!(record.text(), format!("v=DKIM1; k=rsa; p={public}"));
        let line = record.zone_line();
        let strings: Vec<_> = line.split('"').skip(1).step_by(2).collect();
        assert_eq!(strings.iter().map(|string| string.len()).collect::<Vec<_>>(), [255, record.text().len() - 255]);
        assert_eq!(strings.concat(), record.text());
    }
}
