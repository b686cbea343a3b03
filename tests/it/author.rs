//! The author of a mail: no reader sees another author than the one whose key signs and whose name `senders` allows.

use crate::support::peers;
use mail_parser::{Address, MessageParser};
use tempfile::NamedTempFile;
use waxseal::message::{Author, RawMessage, name_quoting};

/// Parts of From headers, valid and broken.
const PIECES: [&str; 38] = [
    "<a@example.com>",
    "a@example.com",
    "<v@evil.org>",
    "\"v@evil.org\"",
    "(v@evil.org)",
    "v@evil.org",
    "<.example.com>",
    "=?UTF-8?Q?",
    "?=",
    "=?UTF-8?Q?v=40evil.org?=",
    "=?UTF-8?Q?\"v@evil.org\"?=",
    "=?UTF-8?Q?\",?=",
    "\"x\"",
    "(x)",
    "@",
    "<",
    ">",
    "\"",
    "(",
    ")",
    ",",
    ":",
    ";",
    "[",
    "]",
    "\\",
    ".",
    " ",
    "x",
    "\u{fc}",
    // White space to some readers.
    "\t",
    "\x0b",
    "\x0c",
    "\u{85}",
    "\u{a0}",
    "\u{2028}",
    "\u{3000}",
    "\u{feff}",
];

/// The same values each time: a linear congruential generator.
fn values(count: usize) -> Vec<String> {
    let mut state = 1_u64;
    let mut below = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    let mut value = || {
        let mut value: String = (0..=below(6)).map(|_| PIECES[below(PIECES.len())]).collect();
        match below(4) {
            0 | 1 => value += "<a@example.com>",
            2 => value.insert_str(0, "<a@example.com>"),
            _ => {}
        }
        value
    };
    (0..count).map(|_| value()).collect()
}

fn author(value: &str) -> Option<String> {
    let message = RawMessage::from_data(format!("From: {value}\r\n\r\n").into()).ok()?;
    Author::of(&message).ok().map(|author| author.mailbox().to_string())
}

/// Values that have an author, with the address.
fn readable(count: usize) -> Vec<(String, String)> {
    values(count).into_iter().filter_map(|value| author(&value).map(|author| (value, author))).collect()
}

/// Values in which there is an author once the name was put in quotes, as they leave.
fn quoted(count: usize) -> Vec<(String, String)> {
    let quoted = values(count).into_iter().filter_map(|value| name_quoting::quoted(&value, 6));
    quoted.filter_map(|value| author(&value).map(|author| (value, author))).collect()
}

fn read_by_mail_parser(value: &str) -> Vec<String> {
    let block = format!("From: {value}\r\n\r\n");
    let parsed = MessageParser::new().parse_headers(block.as_bytes()).expect("a message");
    let found = match parsed.from() {
        Some(Address::List(list)) => list.clone(),
        Some(Address::Group(groups)) => groups.iter().flat_map(|group| group.addresses.clone()).collect(),
        None => Vec::new(),
    };
    found.iter().filter_map(|one| one.address.as_deref()).filter(|one| one.contains('@')).map(str::to_owned).collect()
}

/// Some programs remove the quotes of a local part.
fn is_the_same(author: &str, found: &str) -> bool {
    author.replace('"', "").eq_ignore_ascii_case(&found.replace('"', ""))
}

#[test]
fn no_reader_finds_another_author() {
    let readable = readable(40_000);
    assert!(readable.len() > 1000, "{} are too few to tell", readable.len());
    all_readers_agree(&readable);
}

#[test]
fn no_reader_finds_another_author_in_a_name_that_was_put_in_quotes() {
    let quoted = quoted(40_000);
    assert!(quoted.len() > 500, "{} are too few to tell", quoted.len());
    all_readers_agree(&quoted);
}

fn all_readers_agree(readable: &[(String, String)]) {
    for (value, author) in readable {
        let found = read_by_mail_parser(value);
        assert!(found.iter().all(|found| is_the_same(author, found)), "{value:?}: {author}, {found:?}");
    }
    let Some(mut python) = peers::python("author_read.py") else { return };
    let file = NamedTempFile::new().expect("a file");
    let lines: Vec<_> = readable.iter().map(|(value, _)| value).collect();
    serde_json::to_writer(&file, &lines).expect("written");
    let finished = peers::run(python.arg(file.path()));
    assert!(finished.success, "author_read.py failed: {}", finished.stderr);
    let read: Vec<Vec<String>> = serde_json::from_str(&finished.stdout).expect("a list of lists");
    assert_eq!(read.len(), readable.len());
    for ((value, author), found) in readable.iter().zip(read) {
        assert!(found.iter().all(|found| is_the_same(author, found)), "{value:?}: {author}, {found:?}");
    }
}
