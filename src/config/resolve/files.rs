//! Files that the configuration names: read at once, so that a missing one is found before anything starts.
//! Their content is never shown.

use super::Resolver;
use crate::config::input::{Reported, Resolved};
use crate::config::problem::Place;
use crate::pem;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

impl Resolver<'_> {
    /// The content of the file that `key` names.
    pub(super) fn read_file(&mut self, key: &str, path: &Path, place: &Place) -> Resolved<Vec<u8>> {
        match std::fs::read(path) {
            Ok(content) => Ok(content),
            Err(error) => {
                let problem =
                    self.findings.error(place, format!("`{key}`: {} cannot be read: {error}", path.display()));
                problem.help(match error.kind() {
                    ErrorKind::PermissionDenied => "the gateway's user must be able to read it",
                    _ => "relative paths start at the configuration file's folder",
                });
                Err(Reported)
            }
        }
    }

    pub(super) fn certificates(
        &mut self,
        key: &str,
        path: &Path,
        place: &Place,
    ) -> Resolved<Vec<CertificateDer<'static>>> {
        let content = self.read_file(key, path, place)?;
        let certificates = pem::certificates(&content);
        certificates.map_err(|error| self.unusable(key, path, place, &error))
    }

    pub(super) fn private_key(&mut self, key: &str, path: &Path, place: &Place) -> Resolved<PrivateKeyDer<'static>> {
        let content = self.read_file(key, path, place)?;
        self.warn_if_others_can_read(key, path, place);
        pem::private_key(&content).map_err(|error| self.unusable(key, path, place, &error))
    }

    pub(super) fn unusable(
        &mut self,
        key: &str,
        path: &Path,
        place: &Place,
        error: &dyn std::error::Error,
    ) -> Reported {
        self.findings.error(place, format!("`{key}`: {} cannot be used: {error}", path.display()));
        Reported
    }

    /// A container engine's secrets are readable by all inside the container, which is as it should be there.
    pub(super) fn warn_if_others_can_read(&mut self, key: &str, path: &Path, place: &Place) {
        let readable = std::fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o077 != 0);
        if readable && !self.environment.holds_secret(path) {
            self.findings
                .warning(place, format!("`{key}`: {} can be read by other users of this machine", path.display()))
                .help(format!("chmod 600 {}", path.display()));
        }
    }
}
