//! Files that the configuration names: read at once, so that a missing one is noticed before anything starts. Their
//! content is never shown.

use super::{Resolver, secret};
use crate::config::input::{Reported, Resolved, Typed};
use crate::config::pem_source::PemSource;
use crate::config::problem::Place;
use crate::config::unreadable;
use crate::pem::{self, PemError};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

impl Resolver<'_> {
    /// The content of the file that `key` names.
    pub(super) fn read_file(&mut self, key: &str, path: &Path, place: &Place) -> Resolved<Vec<u8>> {
        let content = std::fs::read(path);
        self.files.note(path, content.as_ref().ok().map(Vec::as_slice));
        match content {
            Ok(content) => Ok(content),
            Err(error) => {
                let message = format!("`{key}`: {} {}", path.display(), unreadable::why(&error));
                self.findings.error(place, message).help(
                    unreadable::what_to_do(path, &error)
                        .unwrap_or("relative paths start at the configuration file's folder"),
                );
                Err(Reported)
            }
        }
    }

    pub(super) fn certificates(
        &mut self,
        key: &str,
        source: &PemSource,
        place: &Place,
    ) -> Resolved<Vec<CertificateDer<'static>>> {
        let content = self.pem(key, source, place)?;
        pem::certificates(&content).map_err(|error| self.unusable(key, source, place, &error))
    }

    pub(super) fn private_key(
        &mut self,
        key: &str,
        source: &PemSource,
        place: &Place,
    ) -> Resolved<PrivateKeyDer<'static>> {
        let content = self.pem(key, source, place)?;
        if let PemSource::Path(path) = source {
            self.warn_if_others_can_read(key, &self.path(path), place);
        }
        pem::private_key(&content).map_err(|error| self.unusable(key, source, place, &error))
    }

    /// The text or the path; what a variable holds has been looked up.
    pub(super) fn pem_source(&mut self, key: &str, typed: &Typed<PemSource>) -> Resolved<PemSource> {
        let PemSource::Variable(name) = typed.value().ok_or(Reported)? else { return typed.get() };
        let found = secret::variable(name, self.environment);
        found.and_then(|text| PemSource::of_variable(text.trim())).map_err(|complaint| {
            self.findings.error(&typed.place, format!("`{key}`: {}", complaint.message)).help = complaint.help;
            Reported
        })
    }

    fn pem(&mut self, key: &str, source: &PemSource, place: &Place) -> Resolved<Vec<u8>> {
        match source {
            PemSource::Path(path) => self.read_file(key, &self.path(path), place),
            PemSource::Pem(text) => Ok(text.reveal().as_bytes().to_vec()),
            PemSource::Variable(_) => Err(Reported),
        }
    }

    fn unusable(&mut self, key: &str, source: &PemSource, place: &Place, error: &PemError) -> Reported {
        let what = match source {
            PemSource::Path(path) => self.path(path).display().to_string(),
            PemSource::Pem(_) | PemSource::Variable(_) => "the text".to_owned(),
        };
        self.findings.error(place, format!("`{key}`: {what} cannot be used: {error}"));
        Reported
    }

    /// A container engine's secrets are readable by all processes in the container, which is correct there.
    pub(super) fn warn_if_others_can_read(&mut self, key: &str, path: &Path, place: &Place) {
        let readable = std::fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o077 != 0);
        if readable && !self.environment.holds_secret(path) {
            self.findings
                .warning(place, format!("`{key}`: {} can be read by other users of this machine", path.display()))
                .help(format!("chmod 600 {}", path.display()));
        }
    }
}
