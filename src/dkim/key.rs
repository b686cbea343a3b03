//! `SigningKey`: a private key with the name under which it is published; also creates new keys.
//!
//! Keys come in as PEM bytes and leave as PEM text; their files are not known here. Only RSA-SHA256 and Ed25519-SHA256:
//! RFC 8301 forbids SHA-1 and short keys, RFC 8463 adds Ed25519.

use super::sealed::{SignatureAlgorithm, SignatureName};
use super::selector::Selector;
use crate::observe::Secret;
use crate::pem::{self, PemError};
use crate::smtp::Domain;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, RsaKeyPair};
use base64::{Engine, engine::general_purpose::STANDARD};
use mail_auth::common::crypto::{DkimKey, Ed25519Key, RsaKey};
use rustls::pki_types::PrivateKeyDer;
use std::fmt;

/// In octets of text form, without the final dot. RFC 1035 §2.3.4.
const MAX_DNS_NAME: usize = 253;
/// RFC 8301 §3.2: verifiers need not accept longer keys.
const LONGEST_COMMON_RSA: usize = 4096;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{0} is an address literal; a DKIM key belongs to a domain name")]
    AddressLiteral(Domain),
    #[error("{0} is not possible in DNS: it is not a valid internationalized domain name")]
    InvalidDomain(Domain),
    #[error("{0} is longer than the 253 characters that DNS allows; choose a shorter selector")]
    NameTooLong(String),
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error("it is neither an RSA nor an Ed25519 key, and DKIM knows no other; make one with `waxseal dkim generate`")]
    WrongKind,
    // RFC 8301 §3.2 forbids keys under 1024 bits and advises against those under 2048; our cryptography (AWS-LC) does
    // not sign with either.
    #[error(
        "the RSA key is shorter than 2048 bits, which is no longer safe; make a new one under another selector with \
         `waxseal dkim generate`, publish its record, then put it in here"
    )]
    TooShort,
    #[error("the RSA key is longer than 8192 bits")]
    TooLong,
    #[error("the key is damaged ({0})")]
    Damaged(String),
    #[error("the system gave no random numbers")]
    Generation,
}

/// The kinds of keys that `generate` creates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAlgorithm {
    Rsa2048,
    Rsa4096,
    Ed25519,
}

/// A new private key: PKCS#8 in PEM, which `openssl pkey` reads too.
pub fn generate(algorithm: KeyAlgorithm) -> Result<Secret, KeyError> {
    let der = match algorithm {
        KeyAlgorithm::Rsa2048 => rsa(KeySize::Rsa2048)?,
        KeyAlgorithm::Rsa4096 => rsa(KeySize::Rsa4096)?,
        KeyAlgorithm::Ed25519 => pkcs8(&Ed25519KeyPair::generate().map_err(|_| KeyError::Generation)?)?,
    };
    let mut text = String::from("-----BEGIN PRIVATE KEY-----\n");
    let base64 = STANDARD.encode(der.as_ref());
    for at in (0..base64.len()).step_by(64) {
        text.push_str(&base64[at..base64.len().min(at + 64)]);
        text.push('\n');
    }
    text.push_str("-----END PRIVATE KEY-----\n");
    Ok(Secret::new(text))
}

fn rsa(size: KeySize) -> Result<Pkcs8V1Der<'static>, KeyError> {
    pkcs8(&RsaKeyPair::generate(size).map_err(|_| KeyError::Generation)?)
}

fn pkcs8(pair: &impl AsDer<Pkcs8V1Der<'static>>) -> Result<Pkcs8V1Der<'static>, KeyError> {
    pair.as_der().map_err(|_| KeyError::Generation)
}

/// Invariant: domain and selector form a valid DNS name, in lower-case ASCII.
pub struct SigningKey {
    name: SignatureName,
    // Spelled as in DNS and in `d=`.
    domain: String,
    pub(super) signer: DkimKey,
    public_key: Vec<u8>,
    bits: usize,
}

impl SigningKey {
    /// RSA (PKCS#1 or PKCS#8) or Ed25519 (PKCS#8). An internationalized domain signs under its `xn--` form.
    pub fn from_pem(domain: Domain, selector: Selector, pem: &[u8]) -> Result<Self, KeyError> {
        let ascii = dns_domain(&domain)?;
        let (signer, public_key, bits) = match pem::private_key(pem)? {
            PrivateKeyDer::Pkcs1(der) => rsa_key(der.into())?,
            PrivateKeyDer::Pkcs8(der) if has_algorithm(der.secret_pkcs8_der(), RSA_ENCRYPTION) => rsa_key(der.into())?,
            PrivateKeyDer::Pkcs8(der) if has_algorithm(der.secret_pkcs8_der(), ED25519) => {
                ed25519_key(der.secret_pkcs8_der())?
            }
            _ => return Err(KeyError::WrongKind),
        };
        let algorithm = match signer {
            DkimKey::Rsa(_) => SignatureAlgorithm::RsaSha256,
            DkimKey::Ed25519(_) => SignatureAlgorithm::Ed25519Sha256,
        };
        let key = Self { name: SignatureName { domain, selector, algorithm }, domain: ascii, signer, public_key, bits };
        if key.dns_name().len() > MAX_DNS_NAME { Err(KeyError::NameTooLong(key.dns_name())) } else { Ok(key) }
    }

    pub fn name(&self) -> &SignatureName {
        &self.name
    }

    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.name.algorithm
    }

    /// Lower-case ASCII.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    pub fn selector(&self) -> &Selector {
        &self.name.selector
    }

    /// Where the record is published, without the final dot. RFC 6376 §3.6.2.1.
    pub fn dns_name(&self) -> String {
        format!("{}._domainkey.{}", self.name.selector, self.domain)
    }

    /// The `p=` of the record before base64: SubjectPublicKeyInfo for RSA (RFC 6376 §3.6.1), the bare 32 octets for
    /// Ed25519 (RFC 8463 §4).
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// A warning about a key that is allowed but will cause trouble.
    pub fn warning(&self) -> Option<String> {
        (self.bits > LONGEST_COMMON_RSA).then(|| {
            format!("the RSA key has {} bits; receivers need not verify more than 4096 (RFC 8301 §3.2)", self.bits)
        })
    }
}

/// "wax1._domainkey.example.com (rsa-sha256)"
impl fmt::Display for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({self})")
    }
}

/// A domain in lower case with its U-labels as A-labels. RFC 5890 §2.3.2.1.
pub fn dns_domain(domain: &Domain) -> Result<String, KeyError> {
    if domain.is_literal() {
        return Err(KeyError::AddressLiteral(domain.clone()));
    }
    if domain.as_str().is_ascii() {
        return Ok(domain.as_str().to_ascii_lowercase());
    }
    idna::domain_to_ascii(domain.as_str()).map_err(|_| KeyError::InvalidDomain(domain.clone()))
}

type Parts = (DkimKey, Vec<u8>, usize);

fn rsa_key(der: PrivateKeyDer<'_>) -> Result<Parts, KeyError> {
    let pair = match &der {
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
        _ => return Err(KeyError::WrongKind),
    }
    .map_err(|rejected| match rejected.to_string().as_str() {
        "TooSmall" => KeyError::TooShort,
        "TooLarge" => KeyError::TooLong,
        other => KeyError::Damaged(other.to_owned()),
    })?;
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(damaged)?;
    let public = public.as_ref().to_vec();
    let bits = pair.public_modulus_len() * 8;
    let key = RsaKey::from_key_der(der).map_err(damaged)?;
    Ok((key.into(), public, bits))
}

fn ed25519_key(der: &[u8]) -> Result<Parts, KeyError> {
    // "Unchecked" because openssl omits the public half, so there is nothing to check the private one against.
    let key = Ed25519Key::from_pkcs8_maybe_unchecked_der(der).map_err(damaged)?;
    let public = key.public_key();
    Ok((key.into(), public, 256))
}

fn damaged(error: impl fmt::Display) -> KeyError {
    KeyError::Damaged(error.to_string())
}

/// 1.2.840.113549.1.1.1
const RSA_ENCRYPTION: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// 1.3.101.112
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

// RFC 5208 §5: SEQUENCE { version INTEGER, algorithm SEQUENCE { OBJECT IDENTIFIER, … }, … }; the two headers before the
// algorithm take at most 11 octets for any key we can use.
fn has_algorithm(pkcs8: &[u8], oid: &[u8]) -> bool {
    memchr::memmem::find(&pkcs8[..pkcs8.len().min(24)], oid).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(pem: &str) -> Result<SigningKey, KeyError> {
        let domain = Domain::parse("Example.com").expect("a domain");
        SigningKey::from_pem(domain, Selector::parse("wax1").expect("a selector"), pem.as_bytes())
    }

    #[test]
    fn generated_keys_load() {
        for (algorithm, signature, public) in [
            (KeyAlgorithm::Rsa2048, SignatureAlgorithm::RsaSha256, 294),
            (KeyAlgorithm::Ed25519, SignatureAlgorithm::Ed25519Sha256, 32),
        ] {
            let pem = generate(algorithm).expect("a key");
            assert!(pem.reveal().lines().all(|line| line.len() <= 64));
            let key = load(pem.reveal()).expect("a key");
            assert_eq!((key.algorithm(), key.public_key().len()), (signature, public), "{algorithm:?}");
            assert_eq!(key.dns_name(), "wax1._domainkey.example.com");
            assert_eq!(key.warning(), None);
            assert!(!format!("{key:?}").contains(&pem.reveal()[40..60]));
        }
    }

    #[test]
    fn unusable_keys_say_why() {
        let error = |pem: &str| load(pem).expect_err("refused").to_string();
        assert!(error(include_str!("testdata/rsa1024.pem")).contains("shorter than 2048 bits"));
        assert!(error(include_str!("testdata/rsa1024-pkcs1.pem")).contains("shorter than 2048 bits"));
        assert!(error(include_str!("testdata/ec.pem")).contains("neither an RSA nor an Ed25519 key"));
        assert!(error(include_str!("testdata/ec-sec1.pem")).contains("neither an RSA nor an Ed25519 key"));
        assert!(error("-----BEGIN ENCRYPTED PRIVATE KEY-----\n").contains("decrypt it"));
        assert!(error("v=DKIM1; k=rsa; p=").contains("no private key"));
        let damaged = include_str!("testdata/ed25519.pem").replace("MC4CAQ", "MC4CAg");
        assert!(error(&damaged).contains("damaged"), "{}", error(&damaged));
    }

    #[test]
    fn keys_of_openssl_load() {
        for (pem, algorithm) in [
            (include_str!("testdata/rsa2048-pkcs1.pem"), SignatureAlgorithm::RsaSha256),
            (include_str!("testdata/rsa2048.pem"), SignatureAlgorithm::RsaSha256),
            (include_str!("testdata/ed25519.pem"), SignatureAlgorithm::Ed25519Sha256),
        ] {
            assert_eq!(load(pem).expect("a key").algorithm(), algorithm);
        }
        // The same key in both encodings has the same public half.
        let public = |pem| load(pem).expect("a key").public_key().to_vec();
        assert_eq!(public(include_str!("testdata/rsa2048-pkcs1.pem")), public(include_str!("testdata/rsa2048.pem")));
    }

    #[test]
    fn names_are_those_of_dns() {
        let pem = include_str!("testdata/ed25519.pem").as_bytes();
        let selector = |text: &str| Selector::parse(text).expect("a selector");
        let name = |domain: &str, selector: Selector| {
            let domain = Domain::parse(domain).expect("a domain");
            SigningKey::from_pem(domain, selector, pem).map(|key| key.dns_name())
        };
        assert_eq!(name("exämple.com", selector("a")).expect("a key"), "a._domainkey.xn--exmple-cua.com");
        assert!(matches!(name("[127.0.0.1]", selector("a")), Err(KeyError::AddressLiteral(_))));
        let long = format!("{}com", format!("{}.", "l".repeat(60)).repeat(4));
        assert!(matches!(name(&long, selector("selector")), Err(KeyError::NameTooLong(_))));
    }
}
