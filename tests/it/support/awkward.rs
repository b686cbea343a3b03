//! Messages that are awkward to sign, relay or repair, from `example.com`: a table, mail that Plausible's clients really
//! sent, and random messages.

use proptest::strategy::Strategy;
use std::path::Path;
use waxseal::message::trace::rfc5322_date;

const HEADER: &str = "From: A <a@example.com>\r\nTo: b@example.net\r\nSubject: It is late\r\n";

pub fn awkward_messages() -> Vec<(&'static str, Vec<u8>)> {
    [awkward_bodies(), awkward_headers()].concat()
}

fn awkward_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let body = |body: &str| format!("{HEADER}\r\n{body}").into_bytes();
    let large = "A line of the attachment, seventy-six columns wide as base64 would make it.\r\n".repeat(340_000);
    vec![
        ("plain", body("Hello.\r\n")),
        ("no body", HEADER.into()),
        ("empty body", body("")),
        ("blank lines only", body("\r\n\r\n\r\n")),
        ("white space only", body(" \r\n\t\r\n")),
        ("white space without a line end", body(" \t")),
        ("blank lines first", body("\r\n\r\nHello.\r\n")),
        ("blank lines last", body("Hello.\r\n\r\n\r\n")),
        ("white space last", body("Hello.\r\n \r\n\t\r\n\r\n")),
        ("white space on the unfinished last line", body("Hello.\r\n  ")),
        ("trailing spaces and tabs", body("Hello \t\r\n\t \r\n  indented\tand  spaced \r\n")),
        ("no final newline", body("Hello.")),
        ("looks like a header", body("Subject: no\r\nFrom: neither\r\n\r\nHello.\r\n")),
        ("begins like a fold", body(" Hello.\r\n")),
        ("dots", body(".\r\n..\r\n.Hello.\r\n")),
        ("a line of 998", body(&format!("{}\r\n", "x".repeat(998)))),
        ("8-bit body", [&body("")[..], b"caf\xc3\xa9, \xe9, \xff\x80\r\n"].concat()),
        ("control characters", body("\x01 \x0b\x0c \x7f\r\n \x0c\r\n")),
        ("25 MiB", body(&large)),
    ]
}

fn awkward_headers() -> Vec<(&'static str, Vec<u8>)> {
    let fields = |fields: &str| format!("{HEADER}{fields}\r\nbody\r\n").into_bytes();
    vec![
        ("folded headers", fields("References: <a@x>\r\n\t<b@x>\r\n  \t <c@x>\r\nIn-Reply-To:\r\n <c@x>\r\n")),
        ("a fold of white space only", fields("Reply-To: c@x\r\n \r\n\t\r\nMIME-Version: 1.0\r\n")),
        (
            "8-bit headers",
            [&b"From: \xc3\xa9 <a@example.com>\r\nSubject: \xe9\xff \xc2\xa0\r\nTo:\xc2\xa0\r\n\r\nx\r\n"[..]].concat(),
        ),
        ("empty values", fields("Cc:\r\nReply-To: \r\nMessage-ID:\t\r\nDate:\r\n \r\n")),
        ("duplicates", fields("To: c@x\r\nTO: d@x\r\nto:  e@x \r\nSubject: two\r\nSender: s@x\r\nSENDER: t@x\r\n")),
        ("odd case and spacing", fields("mime-VERSION:1.0\r\ncontent-type:   text/plain;\tcharset=utf-8   \r\n")),
        ("white space before the colon", fields("Date : today\r\nCc\t: c@x\r\nX-Other : x\r\n")),
        ("form feeds", fields("Date: a\x0cb \x0c c\x0c\r\nCc: \x0b\r\nX-Other: \x0c\r\n")),
        ("a header line of 998", fields(&format!("Message-ID: <{}>\r\n", "m".repeat(984)))),
        (
            "all that is signed",
            fields(
                "Cc: c@x\r\nDate: d\r\nReply-To: r@x\r\nMessage-ID: <m@x>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\
             Content-Transfer-Encoding: 7bit\r\nList-Unsubscribe: <https://x>\r\nList-Unsubscribe-Post: y\r\n\
             In-Reply-To: <i@x>\r\nReferences: <i@x>\r\nSender: s@x\r\nReceived: r\r\nX-Other: o\r\n",
            ),
        ),
        ("blind copies", fields("Bcc: secret@x,\r\n more@x\r\nCc: c@x\r\nBCC:\r\nResent-Bcc: s@x\r\nX-Bcc: no\r\n")),
        ("many headers", fields(&"X-Filler: filler\r\n".repeat(5000))),
        ("a stray line in the header", b"From: a@example.com\r\nstray line\r\nSubject: s\r\n\r\nHello.\r\n".to_vec()),
    ]
}

/// With this instant for its Date, if it has one, and its own line ends.
pub fn dated(message: &[u8], at: jiff::Timestamp) -> Vec<u8> {
    let date = rfc5322_date(at);
    let mut in_header = true;
    let mut dated = Vec::with_capacity(message.len());
    for line in message.split_inclusive(|octet| *octet == b'\n') {
        in_header &= !line.trim_ascii().is_empty();
        let is_date = line.get(..5).is_some_and(|name| name.eq_ignore_ascii_case(b"Date:"));
        if in_header && is_date {
            let line_end = if line.ends_with(b"\r\n") { "\r\n" } else { "\n" };
            dated.extend_from_slice(format!("Date: {date}{line_end}").as_bytes());
        } else {
            dated.extend_from_slice(line);
        }
    }
    dated
}

/// The mail of Plausible's clients, as it was recorded: the older one's has bare LF in it.
pub fn recorded_messages() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/mail");
    let paths = std::fs::read_dir(folder).expect("recorded mail").map(|entry| entry.expect("a file").path());
    let messages = paths.filter(|path| path.extension().is_some_and(|extension| extension == "eml"));
    let mut messages: Vec<_> = messages
        .map(|path| {
            let name = path.file_stem().expect("a name").display().to_string();
            (name, std::fs::read(&path).expect("a message"))
        })
        .collect();
    messages.sort();
    messages
}

/// Line ends made CRLF as the listener would.
pub fn normalised(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + message.len() / 32);
    let mut rest = message;
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(b"\r\n");
        let pair = rest[at..].starts_with(b"\r\n");
        rest = &rest[at + if pair { 2 } else { 1 }..];
    }
    out.extend_from_slice(rest);
    out
}

/// Made of what canonicalization cares about.
pub fn random_message() -> impl Strategy<Value = Vec<u8>> {
    let words = |words: &'static [&'static [u8]], most| {
        proptest::collection::vec(proptest::sample::select(words), 0..most).prop_map(|words| words.concat())
    };
    let name = proptest::sample::select(
        &[
            "To",
            "Subject",
            "subject",
            "Cc ",
            "Date\t",
            "Content-Type",
            "References",
            "Sender",
            "List-Unsubscribe",
            "X-Other ",
        ][..],
    );
    let value =
        words(&[b" ", b"\t", b"a", b"b:c", b"\r\n ", b"\r\n\t", b"\x0b", b"\x0c", b"\xe9", b";", b"=", b"\x01"], 8);
    let field = (name, value).prop_map(|(name, value)| [name.as_bytes(), b":", &value, b"\r\n"].concat());
    let fields = proptest::collection::vec(field, 0..8).prop_map(|fields| fields.concat());
    let body = words(&[b" ", b"\t", b"a", b"\r\n", b"\r\n\r\n", b"\x0b", b"\x0c", b"\xe9", b".", b"  ", b"\x01"], 14);
    (fields, body).prop_map(|(fields, body)| [b"From: a@example.com\r\n", &fields[..], b"\r\n", &body].concat())
}
