//! `FileDigests`: which files a configuration was made from, and whether one has changed since. Compares contents, so that a
//! rename, a write in place and the exchange of a mounted folder are all noticed, and a touched file is not.

use aws_lc_rs::digest::{SHA256, digest};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Keeps no content, only digests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileDigests(BTreeMap<PathBuf, Option<[u8; 32]>>);

impl FileDigests {
    /// `None`: it could not be read.
    pub(super) fn note(&mut self, path: &Path, content: Option<&[u8]>) {
        self.0.insert(path.to_owned(), content.map(digest_of));
    }

    /// The same files as they are now.
    pub fn read_again(&self) -> Self {
        let now = |path: &PathBuf| (path.clone(), std::fs::read(path).ok().map(|content| digest_of(&content)));
        Self(self.0.keys().map(now).collect())
    }

    /// The files that differ.
    pub fn changed_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a Path> {
        self.0.iter().filter(|(path, digest)| before.0.get(*path) != Some(digest)).map(|(path, _)| path.as_path())
    }
}

fn digest_of(content: &[u8]) -> [u8; 32] {
    let mut octets = [0; 32];
    octets.copy_from_slice(digest(&SHA256, content).as_ref());
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_replace_a_file_is_noticed_and_a_touch_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        let mut digests = FileDigests::default();
        write("first");
        digests.note(&path, Some(b"first"));
        let mut is_changed = || {
            let now = digests.read_again();
            let changed: Vec<_> = now.changed_since(&digests).map(Path::to_owned).collect();
            digests = now;
            changed == [path.clone()]
        };
        write("first");
        assert!(!is_changed(), "touched");
        write("other");
        assert!(is_changed(), "written in place");
        let other = folder.path().join("other");
        std::fs::write(&other, "third").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(is_changed(), "renamed");
        std::fs::write(&other, "fourth").unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(is_changed(), "gone");
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(is_changed(), "a link");
        assert!(!is_changed());
    }
}
