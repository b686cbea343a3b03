//! The stored form of an original: every version of the program reads it back unchanged, and garbage is an error.

use super::*;
use proptest::prelude::*;

/// As version 1 writes it. Never change this: such bytes are in users' queues.
const VERSION_1: &str = "{\"version\":1,\"sender\":\"a@example.com\",\"recipients\":[[\"b@example.net\",\"all@staging.example\"],\
                         [\"\\\"c d\\\"@example.net\",\"all@staging.example\"],[\"e@example.net\",\"e@example.net\"]],\
                         \"eight_bit\":true,\"smtputf8\":false,\"marks\":{\"tag\":\"report\"}}\nFrom: A <a@example.com>\r\n\
                         Subject: a\r\n\tb\r\n";

fn before() -> RewriteDraft {
    let mut envelope = envelope("a@example.com", &["b@example.net", "\"c d\"@example.net", "e@example.net"]);
    envelope.body = crate::smtp::command::BodyType::EightBitMime;
    let marks = Marks { tag: Some(mark("report")), ..Marks::default() };
    RewriteDraft { envelope, message: message("From: A <a@example.com>\nSubject: a\n\tb\n\nbody"), marks }
}

#[test]
fn version_1_reads_and_writes_as_ever() {
    let targets = ["all@staging.example", "all@staging.example", "e@example.net"].map(mailbox);
    let original = Original::new(&before(), &targets);
    assert_eq!(String::from_utf8_lossy(&original.encode()), VERSION_1);
    assert_eq!(Original::decode(VERSION_1.as_bytes()), Ok(original));
    let null = Original::new(&RewriteDraft { envelope: envelope("", &[]), ..before() }, &[]);
    assert_eq!(Original::decode(&null.encode()), Ok(null));
}

#[test]
fn the_draft_is_for_recipients_that_are_not_settled() {
    let original = Original::decode(VERSION_1.as_bytes()).expect("an original");
    let shared = message("Subject: rewritten\n\nbody");
    for (open, recipients) in [
        (&["all@staging.example", "e@example.net"][..], &["b@example.net", "\"c d\"@example.net", "e@example.net"][..]),
        (&["all@staging.example"], &["b@example.net", "\"c d\"@example.net"]),
        (&["e@EXAMPLE.net"], &["e@example.net"]),
        (&["e@example.net", "corrected@example.net"], &["e@example.net", "corrected@example.net"]),
    ] {
        let open: Vec<_> = open.iter().map(|text| mailbox(text)).collect();
        let draft = original.draft(&shared, &open);
        assert_eq!(draft.envelope.recipients, recipients.iter().map(|text| mailbox(text)).collect::<Vec<_>>());
        assert_eq!((draft.message, draft.marks), (before().message, before().marks));
    }
}

#[test]
fn garbage_is_an_error() {
    let with = |from: &str, to: &str| VERSION_1.replace(from, to);
    for (stored, expected) in [
        (String::new(), "its first line cannot be read"),
        ("From: a@b\r\n".into(), "its first line cannot be read"),
        (with("\"version\":1", "\"version\":2"), "by a newer waxseal (version 2)"),
        (with("\"a@example.com\"", "\"a\""), "its first line cannot be read"),
        (with("b@example.net", "b@example.net\\r\\nRCPT TO:<x@y>"), "its first line cannot be read"),
        (with("\"report\"", "\"re\\nport\""), "its first line cannot be read"),
        (with("\t b", "b").replace("\tb", "b"), "its header cannot be read"),
        (with("Subject: a\r\n", "Subject: a\n"), "its header cannot be read"),
        (with("Subject: a", "Subject: a\0"), "its header cannot be read"),
        (with("Subject: a", "Subject: a\rb"), "its header cannot be read"),
        (format!("{VERSION_1}\r\nbody"), "its header cannot be read"),
        (VERSION_1.trim_end().to_owned(), "its header cannot be read"),
    ] {
        let error = Original::decode(stored.as_bytes()).expect_err(&stored).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

proptest! {
    #[test]
    fn nothing_stored_is_fatal(octets in proptest::collection::vec(any::<u8>(), 0..100), at in 0..VERSION_1.len()) {
        let _whatever = Original::decode(&octets);
        let mut stored = VERSION_1.as_bytes().to_vec();
        stored.splice(at..(at + 3).min(VERSION_1.len()), octets);
        if let Ok(original) = Original::decode(&stored) {
            prop_assert_eq!(Original::decode(&original.encode()), Ok(original));
        }
    }
}
