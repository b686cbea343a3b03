//! The DKIM keys at start: read, or created if `generate = true` and the file is missing.

use crate::config::DkimSettings;
use crate::config::key_file::{self, KeyFileError};
use crate::dkim::{DnsRecord, KeyAlgorithm, KeyError, Keyring, Selector, SigningKey, generate};
use crate::observe::Secret;
use crate::smtp::Domain;
use std::io::Write as _;
use std::path::Path;
use tracing::info;

#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("the DKIM key for {domain} could not be made: {source}")]
    Generate { domain: String, source: KeyError },
    #[error(transparent)]
    Write(#[from] KeyFileError),
}

pub(super) fn load(settings: Vec<DkimSettings>) -> Result<Keyring, KeysError> {
    load_or(settings, make)
}

/// Keys that a start would create are created in memory only.
pub(super) fn load_without_writing(settings: Vec<DkimSettings>) -> Result<Keyring, KeysError> {
    load_or(settings, |domain, selector, _| Ok(key_and_pem(domain, selector)?.0))
}

fn load_or(
    settings: Vec<DkimSettings>,
    make: impl Fn(Domain, Selector, &Path) -> Result<SigningKey, KeysError>,
) -> Result<Keyring, KeysError> {
    let mut keys = Vec::new();
    for DkimSettings { domain, selector, path, key } in settings {
        match (key, path) {
            (Some(key), _) => keys.push(key),
            (None, Some(path)) => keys.push(make(domain, selector, &path)?),
            (None, None) => {}
        }
    }
    Ok(Keyring::new(keys))
}

fn key_and_pem(domain: Domain, selector: Selector) -> Result<(SigningKey, Secret), KeysError> {
    let name = domain.to_string();
    let failed = |source| KeysError::Generate { domain: name.clone(), source };
    let pem = generate(KeyAlgorithm::Rsa2048).map_err(failed)?;
    let key = SigningKey::from_pem(domain, selector, pem.reveal().as_bytes()).map_err(failed)?;
    Ok((key, pem))
}

/// Also prints the record on standard error: the operator has to copy it, and standard output belongs to the log.
fn make(domain: Domain, selector: Selector, path: &Path) -> Result<SigningKey, KeysError> {
    let name = domain.to_string();
    let (key, pem) = key_and_pem(domain, selector)?;
    key_file::create(path, pem.reveal())?;
    let record = DnsRecord::of(&key);
    info!(file = %path.display(), name = record.name(), record = record.text(), "made a new DKIM key; publish its record");
    let _a_closed_pipe_changes_nothing = writeln!(
        std::io::stderr(),
        "Publish this DNS record, so that receivers can check the seal of {name}:\n\n{record}\n"
    );
    Ok(key)
}
