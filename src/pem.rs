//! The only reader of PEM: certificates and private keys, from bytes that the caller read. Opens no file and never
//! shows the contents or its parser's errors. RFC 7468.
//!
//! Environments and YAML lose line endings, add quotes and indentation, or hold the base64 of the whole text. All of
//! that is accepted, since only base64 can stand between the BEGIN and END lines.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    #[error("it is not valid PEM: its END line is missing, or something other than base64 stands before it")]
    Syntax,
    #[error("it holds no certificate; expected \"-----BEGIN CERTIFICATE-----\"")]
    NoCertificate,
    #[error("it holds no private key; expected \"-----BEGIN PRIVATE KEY-----\"")]
    NoPrivateKey,
    #[error("it holds an encrypted private key; decrypt it first with `openssl pkey -in FILE -out NEW`")]
    Encrypted,
}

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";
/// RFC 7468 §2.
const LINE: usize = 64;

/// True for PEM text and for its base64.
pub fn is_pem(text: &str) -> bool {
    text.contains(BEGIN) || encoded(text).is_some()
}

/// All certificates in order, at least one.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let pem = in_lines(&String::from_utf8_lossy(pem))?;
    let certificates: Vec<_> =
        rustls_pemfile::certs(&mut pem.as_bytes()).collect::<Result<_, _>>().map_err(|_| PemError::Syntax)?;
    if certificates.is_empty() { Err(PemError::NoCertificate) } else { Ok(certificates) }
}

/// The first private key: PKCS#8, PKCS#1 or SEC1.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    let pem = in_lines(&String::from_utf8_lossy(pem))?;
    rustls_pemfile::private_key(&mut pem.as_bytes()).map_err(|_| PemError::Syntax)?.ok_or(PemError::NoPrivateKey)
}

fn encoded(text: &str) -> Option<String> {
    let base64: String = text.chars().filter(|c| !c.is_whitespace() && !"\"'\u{feff}".contains(*c)).collect();
    let decoded = String::from_utf8(STANDARD.decode(base64).ok()?).ok()?;
    decoded.contains(BEGIN).then_some(decoded)
}

/// The text's blocks with correct line breaks. Anything between and around blocks is left out.
fn in_lines(text: &str) -> Result<String, PemError> {
    let decoded = encoded(text);
    // Env files cannot hold line breaks, so people write \n.
    let text = decoded.as_deref().unwrap_or(text).replace("\\r", "").replace("\\n", "\n");
    if text.contains("ENCRYPTED") {
        return Err(PemError::Encrypted);
    }
    let mut lines = String::new();
    let mut rest = text.as_str();
    while let Some((_, block)) = rest.split_once(BEGIN) {
        let (label, block) = block.split_once(DASHES).ok_or(PemError::Syntax)?;
        let end = format!("{DASHES}END {label}{DASHES}");
        let (body, behind) = block.split_once(&end).ok_or(PemError::Syntax)?;
        let body: String = body.chars().filter(|c| !c.is_whitespace()).collect();
        if !body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)) {
            return Err(PemError::Syntax);
        }
        lines.push_str(&format!("{BEGIN}{label}{DASHES}\n"));
        for at in (0..body.len()).step_by(LINE) {
            lines.push_str(&body[at..body.len().min(at + LINE)]);
            lines.push('\n');
        }
        lines.push_str(&end);
        lines.push('\n');
        rest = behind;
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = include_str!("dkim/testdata/rsa2048.pem");

    #[test]
    fn a_key_whose_lines_were_lost_is_understood() {
        let key = private_key(KEY.as_bytes()).expect("a key");
        for mangled in [
            KEY.replace('\n', " "),
            KEY.replace('\n', ""),
            KEY.replace('\n', "\\n"),
            KEY.replace('\n', "\\r\\n"),
            KEY.replace('\n', "\r\n"),
            KEY.replace('\n', "\r"),
            KEY.replace('\n', "\n    "),
            KEY.replace('\n', "\n\n"),
            format!("\u{feff}{KEY}"),
            format!("\"{KEY}\""),
            format!("'{}'", KEY.replace('\n', "\\n")),
            format!("{KEY} # the key of example.com"),
            format!("key: |\n  {KEY}"),
            STANDARD.encode(KEY),
            format!("\"{}\"\n", STANDARD.encode(KEY)),
        ] {
            assert_eq!(private_key(mangled.as_bytes()).as_ref(), Ok(&key), "{mangled}");
        }
    }

    #[test]
    fn what_is_no_key_is_named_without_its_content() {
        let body: String = KEY.lines().filter(|line| !line.starts_with('-')).collect();
        for (text, error) in [
            (KEY[..300].to_owned(), PemError::Syntax),
            (KEY.replacen('A', "!", 1), PemError::Syntax),
            (KEY.replacen("\n", "\nMII=\n", 1), PemError::Syntax),
            (body, PemError::NoPrivateKey),
            (KEY.replace("PRIVATE", "ENCRYPTED PRIVATE"), PemError::Encrypted),
            (KEY.replacen('\n', "\nProc-Type: 4,ENCRYPTED\n\n", 1), PemError::Encrypted),
            (String::new(), PemError::NoPrivateKey),
        ] {
            assert_eq!(private_key(text.as_bytes()).map(drop), Err(error), "{text}");
        }
    }
}
