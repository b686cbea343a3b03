//! Awkward messages, sealed with RSA, Ed25519 and both: three verifiers that share no code say that every signature
//! holds, and that none holds once the message is another.

use crate::support::awkward::{awkward_messages, normalised, random_message, recorded_messages};
use crate::support::bench::{Bench, KINDS, assert_none, changes, mail_auth_agrees_on_the_body};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use std::path::Path;

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
