//! Names and wordings that the tree keeps to: a public type's name occurs once, and messages and comments are plain English.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Names that several `pub` types may bear, each with the reason. None today.
const SHARED: &[(&str, &str)] = &[];

/// Wordings that a reader stumbles over. The second says what to write instead.
const BANNED: &[(&str, &str)] = &[
    ("anew", "again, or re-"),
    ("for ever", "forever, or say what does not end"),
    ("whoever", "name the client, caller or reader"),
    ("in vain", "say what did not happen"),
    ("told of", "notified of"),
    ("who never", "a client that never"),
    ("put right", "corrected"),
    ("stands behind", "follows"),
];

/// `is no X` is fine before these: "is no longer", "there is no X".
const AFTER_IS_NO: &[&str] = &["longer", "more"];

fn files(folder: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if path.is_dir() {
            files(&path, endings, found);
        } else if endings.contains(&ending) {
            found.push(path);
        }
    }
}

/// Files below the folders of this repository that hold code or prose.
fn texts(folders: &[&str], endings: &[&str]) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    folders.iter().for_each(|folder| files(&root.join(folder), endings, &mut found));
    found.sort();
    found.into_iter().map(|path| (path.clone(), fs::read_to_string(&path).expect("a text"))).collect()
}

fn is_test_code(path: &Path) -> bool {
    let path = path.to_string_lossy();
    ["/tests/", "tests.rs", "testing", "conformance", "fuzzing"].iter().any(|part| path.contains(part))
}

/// The name that a line declares as a `pub` struct, enum, trait or type.
fn declared(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub")?;
    let rest = match rest.strip_prefix('(') {
        Some(scope) => scope.split_once(')')?.1,
        None => rest,
    };
    let mut words = rest.strip_prefix(' ')?.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    let kind = words.find(|word| *word != "unsafe" && !word.is_empty())?;
    matches!(kind, "struct" | "enum" | "trait" | "type" | "union").then(|| words.next()).flatten()
}

#[test]
fn a_public_types_name_occurs_once() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, text) in texts(&["src"], &["rs"]) {
        if is_test_code(&path) {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        for name in code.lines().filter_map(declared) {
            places.entry(name.to_owned()).or_default().push(path.display().to_string());
        }
    }
    assert!(places.len() > 300, "the finder sees {} types", places.len());
    places.retain(|name, places| places.len() > 1 && !SHARED.iter().any(|(shared, _)| shared == name));
    let report: Vec<String> = places.iter().map(|(name, places)| format!("{name}: {}", places.join(", "))).collect();
    assert!(report.is_empty(), "one name, several types:\n{}", report.join("\n"));
}

/// True if a phrase occurs as whole words, in any case.
fn holds(line: &str, phrase: &str) -> bool {
    let line = line.to_lowercase();
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(phrase)
        .any(|(at, _)| !is_word(line[..at].chars().next_back()) && !is_word(line[at + phrase.len()..].chars().next()))
}

/// "X is no Y" for "X is not a Y"; "there is no Y" is plain English.
fn says_is_no(line: &str) -> bool {
    let line = line.to_lowercase();
    line.match_indices("is no ").any(|(at, found)| {
        let before = line[..at].trim_end_matches([' ', '/', '!', '"']);
        let next = line[at + found.len()..].split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        let starts_a_word = line[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric());
        starts_a_word && !before.ends_with("there") && !before.is_empty() && !AFTER_IS_NO.contains(&next)
    })
}

#[test]
fn messages_comments_and_documents_are_plain() {
    let mut report = Vec::new();
    for (path, text) in texts(&["src", "docs"], &["rs", "md", "txt"]) {
        for (number, line) in text.lines().enumerate() {
            let at = format!("{}:{}", path.display(), number + 1);
            let banned = BANNED.iter().filter(|(phrase, _)| holds(line, phrase));
            report.extend(banned.map(|(phrase, instead)| format!("{at}: \"{phrase}\": {instead}")));
            if says_is_no(line) {
                report.push(format!("{at}: \"is no X\": is not a X"));
            }
        }
    }
    assert!(report.is_empty(), "{}", report.join("\n"));
}

#[test]
fn the_finders_see_what_they_should() {
    assert_eq!(declared("    pub(in crate::relay) struct Gate {"), Some("Gate"));
    assert_eq!(declared("pub type Count = u64;"), Some("Count"));
    assert_eq!(
        (declared("pub fn struct_of()"), declared("struct Private;"), declared("pub use a::Type;")),
        (None, None, None)
    );
    assert!(
        holds("/// Whoever waits", "whoever")
            && !holds("/// renewed for everyone", "for ever")
            && !holds("manew", "anew")
    );
    assert!(
        says_is_no("\"x\" is no size") && !says_is_no("there is no size") && !says_is_no("which is no longer safe")
    );
}
