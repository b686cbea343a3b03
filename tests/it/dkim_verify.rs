//! Awkward messages, signed with RSA, Ed25519 and both: three verifiers that share no code accept every signature, and
//! none of them once the message is changed.

use crate::support::awkward::{awkward_messages, normalised, random_message, recorded_messages};
use crate::support::bench::{Bench, KINDS, assert_none, changes, mail_auth_agrees_on_the_body};
use proptest::sample::{Index, select};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use std::path::{Path, PathBuf};
use waxseal::message::{Author, RawMessage};
use waxseal::smtp::dot::{DotDecoder, has_only_crlf};

#[test]
fn every_signature_holds_everywhere() {
    let bench = Bench::new();
    let mut files = Vec::new();
    let awkward = awkward_messages().into_iter().map(|(name, message)| (name.to_owned(), message));
    let recorded = recorded_messages().into_iter().map(|(name, message)| (name, normalised(&message)));
    for (name, message) in awkward.chain(recorded) {
        for kind in KINDS {
            let keys = bench.keys(kind);
            let sealed = Bench::seal(&message, keys);
            assert!(mail_auth_agrees_on_the_body(&sealed), "{name}");
            files.push((bench.write(&format!("{name}.{kind}"), &sealed), keys.len()));
        }
    }
    let expected = |path: &Path| files.iter().find(|(file, _)| file == path).map(|(_, signatures)| *signatures);
    let paths: Vec<_> = files.iter().map(|(file, _)| file.clone()).collect();
    assert_none(bench.judge(&paths), |file, verdicts| {
        expected(file) != Some(verdicts.len()) || verdicts.iter().any(|verdict| verdict != "pass")
    });
}

#[test]
fn every_signature_holds_for_messages_nobody_thought_of() {
    let bench = Bench::new();
    let mut runner = TestRunner::deterministic();
    let mut files = Vec::new();
    for number in 0..200 {
        let message = random_message().new_tree(&mut runner).expect("a message").current();
        let sealed = Bench::seal(&message, &bench.keys);
        assert!(mail_auth_agrees_on_the_body(&sealed), "{}", message.escape_ascii());
        files.push(bench.write(&number.to_string(), &sealed));
    }
    assert_none(bench.judge(&files), |_, verdicts| verdicts != ["pass", "pass"]);
}

/// Octets that some readers treat as white space, or as the end of a line or name, and that matter to canonical forms.
const SPOILERS: [&[u8]; 16] = [
    b" ",
    b"\t",
    b" \r\n",
    b"\r\n ",
    b"\r\n\r\n",
    b":",
    b" :",
    b"\x0b",
    b"\x0c",
    b"\x0c:",
    b"\x1c",
    b"\x85",
    b"\xc2\xa0",
    b"\xe2\x80\xa8",
    b"\r\nSubject\x0c: x\r\n",
    b"\r\nTo : a\r\n",
];

#[test]
fn every_signature_holds_for_the_seeds_of_the_fuzzers_and_for_spoiled_ones() {
    let bench = Bench::new();
    let mut runner = TestRunner::deterministic();
    let spoilers = proptest::collection::vec((proptest::arbitrary::any::<Index>(), select(&SPOILERS[..])), 1..5);
    let mut files = Vec::new();
    for (name, seed) in seeds() {
        for round in 0..16 {
            let mut message = seed.clone();
            // First unchanged.
            let spoilt =
                if round > 0 { spoilers.new_tree(&mut runner).expect("spoilers").current() } else { Vec::new() };
            for (at, spoiler) in &spoilt {
                let at = at.index(message.len() + 1);
                message.splice(at..at, spoiler.iter().copied());
            }
            if !has_only_crlf(&message) || !has_an_author(&message) {
                continue;
            }
            let sealed = Bench::seal(&message, &bench.keys);
            files.push(bench.write(&format!("{name}.{round}"), &sealed));
        }
    }
    assert!(files.len() > 100, "{} messages", files.len());
    // Below ours, some have one of their own.
    assert_none(bench.judge(&files), |_, verdicts| verdicts.get(..2) != Some(&["pass".to_owned(), "pass".to_owned()]));
}

/// No other mail is signed.
fn has_an_author(message: &[u8]) -> bool {
    RawMessage::from_data(message.to_vec().into()).is_ok_and(|message| Author::of(&message).is_ok())
}

/// The messages after the first NUL in the initial corpus of the fuzz target `header`.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/header");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("seeds").map(|entry| entry.expect("a seed").path()).collect();
    files.sort();
    let message = |file: &PathBuf| {
        let seed = std::fs::read(file).expect("a seed");
        let start = memchr::memchr(0, &seed).map_or(0, |nul| nul + 1);
        let mut message = Vec::new();
        DotDecoder::default().decode(&seed[start..], &mut message);
        message
    };
    files.iter().map(|file| (file.file_name().expect("a name").to_string_lossy().into_owned(), message(file))).collect()
}

#[test]
fn no_signature_holds_for_another_message() {
    let bench = Bench::new();
    let mut files = Vec::new();
    for (name, message) in awkward_messages() {
        let sealed = Bench::seal(&message, &bench.keys);
        for (change, changed) in changes(&sealed) {
            files.push(bench.write(&format!("{name}.{change}"), &changed));
        }
    }
    assert_none(bench.judge(&files), |_, verdicts| {
        verdicts.len() != 2 || verdicts.iter().any(|verdict| verdict == "pass")
    });
}
