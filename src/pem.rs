//! The only reader of PEM: certificates and private keys from bytes that somebody else read.
//! Opens no file and shows nothing of what it read. RFC 7468.

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

#[derive(Debug, thiserror::Error)]
pub enum PemError {
    #[error("it is not valid PEM ({0})")]
    Syntax(String),
    #[error("it holds no certificate; expected \"-----BEGIN CERTIFICATE-----\"")]
    NoCertificate,
    #[error("it holds no private key; expected \"-----BEGIN PRIVATE KEY-----\"")]
    NoPrivateKey,
    #[error("it holds an encrypted private key; decrypt it first with `openssl pkey -in FILE -out NEW`")]
    Encrypted,
}

/// Every certificate in order, at least one.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let certificates: Vec<_> = rustls_pemfile::certs(&mut &pem[..])
        .collect::<Result<_, _>>()
        .map_err(|error| PemError::Syntax(error.to_string()))?;
    if certificates.is_empty() { Err(PemError::NoCertificate) } else { Ok(certificates) }
}

/// The first private key: PKCS#8, PKCS#1 or SEC1.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    if memchr::memmem::find(pem, b"ENCRYPTED").is_some() {
        return Err(PemError::Encrypted);
    }
    rustls_pemfile::private_key(&mut &pem[..])
        .map_err(|error| PemError::Syntax(error.to_string()))?
        .ok_or(PemError::NoPrivateKey)
}
