//! `[[dkim]]`: keys are read and parsed at once, unless they are still to be created. Creates and writes no key. RFC
//! 6376 §3.6.2.1 (one record for each selector), RFC 8463 (Ed25519 beside RSA).

use super::Resolver;
use crate::config::file::DkimTable;
use crate::config::input::{Reported, Resolved};
use crate::config::pem_source::PemSource;
use crate::config::problem::Place;
use crate::config::settings::DkimSettings;
use crate::dkim::{Selector, SignatureAlgorithm, SigningKey};
use crate::smtp::Domain;
use std::collections::HashSet;
use std::path::Path;

impl Resolver<'_> {
    pub(super) fn dkim(&mut self, typed: &[DkimTable]) -> Vec<DkimSettings> {
        let mut taken = HashSet::new();
        let places: Vec<_> = typed.iter().map(|key| key.domain.place.clone()).collect();
        let keys: Vec<_> = typed.iter().map(|key| self.key(key, &mut taken).ok()).collect();
        self.warn_about_ed25519_alone(&keys, &places);
        keys.into_iter().flatten().collect()
    }

    /// Once per domain. A key that is still to be created will be RSA.
    fn warn_about_ed25519_alone(&mut self, keys: &[Option<DkimSettings>], places: &[Place]) {
        let is_ed25519 = |key: &DkimSettings| {
            key.key.as_ref().is_some_and(|key| key.algorithm() == SignatureAlgorithm::Ed25519Sha256)
        };
        let mut seen: Vec<&Domain> = Vec::new();
        for (key, place) in keys.iter().zip(places).filter_map(|(key, place)| Some((key.as_ref()?, place))) {
            let mut of_domain = keys.iter().flatten().filter(|other| other.domain == key.domain);
            if !seen.contains(&&key.domain) && of_domain.all(is_ed25519) {
                self.findings
                    .warning(
                        place,
                        format!(
                            "{} has only an Ed25519 key; many receivers cannot verify it and will take the mail for unsigned",
                            key.domain
                        ),
                    )
                    .help("add an RSA key beside it; both will sign");
            }
            seen.push(&key.domain);
        }
    }

    fn key(&mut self, typed: &DkimTable, taken: &mut HashSet<(String, Selector)>) -> Resolved<DkimSettings> {
        let place = &typed.private_key.place;
        let domain = typed.domain.get()?;
        let selector = typed.selector.get()?;
        if !taken.insert((domain.as_str().to_ascii_lowercase(), selector.clone())) {
            self.findings
                .error(&typed.selector.place, format!("{domain} has another key with the selector \"{selector}\""))
                .help("each key needs a selector of its own, since each has a DNS record of its own");
            return Err(Reported);
        }
        match self.pem_source("private_key", &typed.private_key)? {
            PemSource::Variable(_) => Err(Reported),
            PemSource::Pem(pem) => {
                let key = self.signing_key(domain.clone(), selector.clone(), pem.reveal().as_bytes(), place)?;
                Ok(DkimSettings { domain, selector, path: None, key: Some(key) })
            }
            PemSource::Path(path) => {
                let path = self.path(&path);
                // If it is unknown whether the file exists, reading it gives the reason.
                let key = if path.try_exists().unwrap_or(true) {
                    let pem = self.read_file("private_key", &path, place)?;
                    self.warn_if_others_can_read("private_key", &path, place);
                    Some(self.signing_key(domain.clone(), selector.clone(), &pem, place)?)
                } else if typed.generate.get()? {
                    None
                } else {
                    self.missing(&domain, &selector, &path, place);
                    return Err(Reported);
                };
                Ok(DkimSettings { domain, selector, path: Some(path), key })
            }
        }
    }

    fn signing_key(&mut self, domain: Domain, selector: Selector, pem: &[u8], place: &Place) -> Resolved<SigningKey> {
        match SigningKey::from_pem(domain, selector, pem) {
            Ok(key) => {
                if let Some(warning) = key.warning() {
                    self.findings.warning(place, warning);
                }
                Ok(key)
            }
            Err(error) => {
                self.findings.error(place, format!("`private_key` cannot be used: {error}"));
                Err(Reported)
            }
        }
    }

    fn missing(&mut self, domain: &Domain, selector: &Selector, path: &Path, place: &Place) {
        self.findings.error(place, format!("`private_key`: there is no file {}", path.display())).help(format!(
            "make the key with `waxseal dkim generate {domain} --selector {selector}`, or set generate = true"
        ));
    }
}
