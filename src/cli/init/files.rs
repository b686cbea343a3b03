//! The files that a new configuration consists of: their names, their modes, and the DKIM key, which is made or found. Writes
//! nothing.

use super::answers::Answers;
use crate::cli::unreadable;
use crate::dkim::{self, DnsRecord, KeyAlgorithm, SigningKey, dns_domain};
use crate::observe::Secret;
use crate::smtp::Domain;
use anyhow::Context as _;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Beside config.toml.
pub const RECORDS_FILE: &str = "dns-records.txt";

pub const FOR_ALL: u32 = 0o644;
pub const FOR_THE_OWNER: u32 = 0o600;

/// Made or found.
#[derive(Debug)]
pub struct DkimKeyFile {
    /// In DNS spelling.
    pub domain: String,
    pub path: PathBuf,
    pub record: DnsRecord,
    /// `None` if the file is there.
    pub new: Option<Secret>,
}

/// A file to write. Its path starts at the configuration's folder.
#[derive(Debug)]
pub struct NewFile {
    pub path: PathBuf,
    pub mode: u32,
    pub content: Secret,
}

impl NewFile {
    pub fn is_private(&self) -> bool {
        self.mode == FOR_THE_OWNER
    }
}

/// Where a secret that was typed is kept.
pub fn secret_path(upstream: &str, key: &str) -> PathBuf {
    format!("secrets/{upstream}_{key}").into()
}

impl DkimKeyFile {
    /// Reads it, or makes it in memory.
    pub fn of(answers: &Answers, domain: &Domain, folder: &Path) -> anyhow::Result<DkimKeyFile> {
        let ascii = dns_domain(domain)?;
        let path = PathBuf::from(format!("certs/dkim/{ascii}.{}.pem", answers.selector));
        let full = folder.join(&path);
        let (pem, new) = match std::fs::read(&full) {
            Ok(pem) => (pem, None),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let pem = dkim::generate(KeyAlgorithm::Rsa2048)?;
                (pem.reveal().as_bytes().to_vec(), Some(pem))
            }
            Err(error) => return Err(unreadable(&full, &error)),
        };
        let key = SigningKey::from_pem(domain.clone(), answers.selector.clone(), &pem)
            .with_context(|| format!("the key {} cannot be used", full.display()))?;
        Ok(DkimKeyFile { domain: ascii, path, record: DnsRecord::of(&key), new })
    }
}
