//! Signed messages as files, and the verdicts of three verifiers that share no code: mail-auth, dkimpy, opendkim.

use super::dkim::{Records as PeerRecords, Verdict, verify_dkimpy, verify_opendkim};
use super::keys::TestKey;
use bytes::Bytes;
use mail_auth::AuthenticatedMessage;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use waxseal::dkim::{self, KeyAlgorithm, Records, SealOptions};
use waxseal::message::RawMessage;

pub struct Bench {
    /// RSA, Ed25519.
    pub keys: Vec<TestKey>,
    folder: TempDir,
    records: Records,
    peer_records: PeerRecords,
}

/// Which keys sign.
pub const KINDS: [&str; 3] = ["rsa", "ed25519", "both"];

impl Bench {
    pub fn new() -> Self {
        let keys = vec![TestKey::new("r", KeyAlgorithm::Rsa2048), TestKey::new("e", KeyAlgorithm::Ed25519)];
        Self {
            folder: TempDir::new().expect("a folder"),
            records: Records::of_keys(keys.iter().map(|key| &*key.signing)),
            peer_records: keys.iter().map(TestKey::record).collect(),
            keys,
        }
    }

    /// Those of one of `KINDS`.
    pub fn keys(&self, kind: &str) -> &[TestKey] {
        match kind {
            "rsa" => &self.keys[..1],
            "ed25519" => &self.keys[1..],
            _ => &self.keys,
        }
    }

    /// As it crosses the wire: the last line is ended.
    pub fn seal(message: &[u8], keys: &[TestKey]) -> Vec<u8> {
        let message = RawMessage::from_data(Bytes::copy_from_slice(message)).expect("a message");
        let keys: Vec<_> = keys.iter().map(|key| Arc::clone(&key.signing)).collect();
        let sealed = dkim::seal(&message, &keys, &SealOptions::default()).expect("sealed");
        let mut wire = [sealed.message().header(), b"\r\n", sealed.message().body()].concat();
        if !wire.ends_with(b"\r\n") {
            wire.extend_from_slice(b"\r\n");
        }
        wire
    }

    pub fn write(&self, name: &str, message: &[u8]) -> PathBuf {
        let path = self.folder.path().join(format!("{}.eml", name.replace(' ', "-")));
        std::fs::write(&path, message).expect("a file");
        path
    }

    pub fn judge(&self, files: &[PathBuf]) -> Vec<Judged> {
        let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        let ours = files.iter().map(|file| self.judge_ours(file)).collect();
        let words = |verdicts: Option<Vec<Vec<Verdict>>>| -> Vec<Vec<String>> {
            verdicts.unwrap_or_default().iter().map(|file| file.iter().map(in_words).collect()).collect()
        };
        [
            ("mail-auth", ours),
            ("dkimpy", words(verify_dkimpy(&self.peer_records, &paths))),
            ("opendkim", words(verify_opendkim(&self.peer_records, &paths))),
        ]
        .into_iter()
        .flat_map(|(verifier, verdicts): (_, Vec<Vec<String>>)| {
            let judged = move |(verdicts, file)| Judged { verifier, file, verdicts };
            verdicts.into_iter().zip(files.to_vec()).map(judged)
        })
        .collect()
    }

    fn judge_ours(&self, file: &Path) -> Vec<String> {
        let message = std::fs::read(file).expect("the file");
        let verified = dkim::verify(&message, &self.records);
        verified.iter().map(|it| if it.is_pass() { "pass".to_owned() } else { format!("{:?}", it.result) }).collect()
    }
}

/// What one verifier says about one file: "pass" or a reason, for each signature.
pub struct Judged {
    pub verifier: &'static str,
    pub file: PathBuf,
    pub verdicts: Vec<String>,
}

fn in_words(verdict: &Verdict) -> String {
    if verdict.passed { "pass".to_owned() } else { format!("{} {}", verdict.selector, verdict.reason) }
}

pub fn assert_none(judged: Vec<Judged>, is_wrong: impl Fn(&Path, &[String]) -> bool) {
    let wrong = judged.into_iter().filter(|judged| is_wrong(&judged.file, &judged.verdicts));
    let wrong: Vec<_> = wrong.map(|it| format!("{}: {}: {:?}", it.verifier, it.file.display(), it.verdicts)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `dkim::verify` does not use mail-auth's own body hash; receivers that run mail-auth do.
pub fn mail_auth_agrees_on_the_body(sealed: &[u8]) -> bool {
    let message = AuthenticatedMessage::parse(sealed).expect("a message");
    message.body_hashes.len() == 1 && message.dkim_headers.iter().all(|it| it.header.bh == message.body_hashes[0].3)
}

/// The same message with one octet of its body or header changed, or with another header that readers would show.
pub fn changes(sealed: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let body = memchr::memmem::find(sealed, b"\r\n\r\n").expect("a body") + 4;
    let from = memchr::memmem::find(sealed, b"\r\nFrom: ").expect("From") + 8;
    let changed = |at: usize| {
        let mut message = sealed.to_vec();
        message[at] ^= 1;
        message
    };
    let added = |field: &[u8], at: usize| [&sealed[..at], field, &sealed[at..]].concat();
    let last = sealed.iter().rposition(|byte| !byte.is_ascii_whitespace()).expect("an octet");
    let mut all = vec![
        ("header-octet", changed(from)),
        ("from-on-top", added(b"From: evil@example.org\r\n", 0)),
        ("from-below", added(b"From: evil@example.org\r\n", from - 6)),
        ("subject-on-top", added(b"Subject: evil\r\n", 0)),
        ("line-added", [sealed, b"evil\r\n"].concat()),
    ];
    if last >= body {
        all.push(("body-octet", changed(last)));
    }
    all
}
