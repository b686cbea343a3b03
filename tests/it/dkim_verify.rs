//! Awkward messages, sealed with RSA, Ed25519 and both: three verifiers that share no code say that every signature
//! holds, and that none holds once the message is another.

use crate::support::dkim::{Records as PeerRecords, Verdict, verify_dkimpy, verify_opendkim};
use bytes::Bytes;
use mail_auth::AuthenticatedMessage;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use waxseal::dkim::{self, DnsRecord, KeyAlgorithm, Records, SealOptions, Selector, SigningKey};
use waxseal::message::RawMessage;
use waxseal::smtp::Domain;

const HEADER: &str = "From: A <a@example.com>\r\nTo: b@example.net\r\nSubject: It is late\r\n";

fn awkward_messages() -> Vec<(&'static str, Vec<u8>)> {
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
        ("many headers", fields(&"X-Filler: filler\r\n".repeat(5000))),
        ("a stray line in the header", b"From: a@example.com\r\nstray line\r\nSubject: s\r\n\r\nHello.\r\n".to_vec()),
    ]
}

/// The mail of Plausible's clients, line ends made CRLF as the listener would.
fn real_messages() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/mail");
    let paths = std::fs::read_dir(folder).expect("recorded mail").map(|entry| entry.expect("a file").path());
    let messages = paths.filter(|path| path.extension().is_some_and(|extension| extension == "eml")).map(|path| {
        let text = String::from_utf8(std::fs::read(&path).expect("a message")).expect("UTF-8");
        let name = path.file_stem().expect("a name").display().to_string();
        (name, text.replace("\r\n", "\n").replace('\n', "\r\n").into_bytes())
    });
    messages.collect()
}

/// Sealed messages as files, and what verifies them.
struct Bench {
    folder: TempDir,
    records: Records,
    peer_records: PeerRecords,
    keys: Vec<Arc<SigningKey>>,
}

impl Bench {
    fn new() -> Self {
        let key = |selector: &str, algorithm| {
            let pem = dkim::generate(algorithm).expect("a key");
            let domain = Domain::parse("example.com").expect("a domain");
            let selector = Selector::parse(selector).expect("a selector");
            Arc::new(SigningKey::from_pem(domain, selector, pem.reveal().as_bytes()).expect("a key"))
        };
        let keys = vec![key("r", KeyAlgorithm::Rsa2048), key("e", KeyAlgorithm::Ed25519)];
        let published =
            |key: &Arc<SigningKey>| (DnsRecord::of(key).name().to_owned(), DnsRecord::of(key).text().to_owned());
        Self {
            folder: TempDir::new().expect("a folder"),
            records: Records::of_keys(keys.iter().map(Arc::as_ref)),
            peer_records: keys.iter().map(published).collect(),
            keys,
        }
    }

    /// As it crosses the wire: the last line is ended.
    fn seal(&self, message: &[u8], keys: &[Arc<SigningKey>]) -> Vec<u8> {
        let message = RawMessage::from_data(Bytes::copy_from_slice(message)).expect("a message");
        let sealed = dkim::seal(&message, keys, &SealOptions::default()).expect("sealed");
        let mut wire = [sealed.header(), b"\r\n", sealed.body()].concat();
        if !wire.ends_with(b"\r\n") {
            wire.extend_from_slice(b"\r\n");
        }
        wire
    }

    fn write(&self, name: &str, message: &[u8]) -> PathBuf {
        let path = self.folder.path().join(format!("{}.eml", name.replace(' ', "-")));
        std::fs::write(&path, message).expect("a file");
        path
    }

    fn judge(&self, files: &[PathBuf]) -> Vec<Judged> {
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
struct Judged {
    verifier: &'static str,
    file: PathBuf,
    verdicts: Vec<String>,
}

fn in_words(verdict: &Verdict) -> String {
    if verdict.passed { "pass".to_owned() } else { format!("{} {}", verdict.selector, verdict.reason) }
}

#[test]
fn every_signature_holds_everywhere() {
    let bench = Bench::new();
    let mut files = Vec::new();
    let awkward = awkward_messages().into_iter().map(|(name, message)| (name.to_owned(), message));
    for (name, message) in awkward.chain(real_messages()) {
        for (kind, keys) in [("rsa", &bench.keys[..1]), ("ed25519", &bench.keys[1..]), ("both", &bench.keys[..])] {
            let sealed = bench.seal(&message, keys);
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
        let sealed = bench.seal(&message, &bench.keys);
        assert!(mail_auth_agrees_on_the_body(&sealed), "{}", message.escape_ascii());
        files.push(bench.write(&number.to_string(), &sealed));
    }
    assert_none(bench.judge(&files), |_, verdicts| verdicts != ["pass", "pass"]);
}

/// Made of what canonicalization cares about.
fn random_message() -> impl Strategy<Value = Vec<u8>> {
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

fn assert_none(judged: Vec<Judged>, is_wrong: impl Fn(&Path, &[String]) -> bool) {
    let wrong = judged.into_iter().filter(|judged| is_wrong(&judged.file, &judged.verdicts));
    let wrong: Vec<_> = wrong.map(|it| format!("{}: {}: {:?}", it.verifier, it.file.display(), it.verdicts)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

// `dkim::verify` does not use mail-auth's own body hash; receivers that run mail-auth do.
fn mail_auth_agrees_on_the_body(sealed: &[u8]) -> bool {
    let message = AuthenticatedMessage::parse(sealed).expect("a message");
    message.body_hashes.len() == 1 && message.dkim_headers.iter().all(|it| it.header.bh == message.body_hashes[0].3)
}

#[test]
fn no_signature_holds_for_another_message() {
    let bench = Bench::new();
    let mut files = Vec::new();
    for (name, message) in awkward_messages() {
        let sealed = bench.seal(&message, &bench.keys);
        for (change, changed) in changes(&sealed) {
            files.push(bench.write(&format!("{name}.{change}"), &changed));
        }
    }
    assert_none(bench.judge(&files), |_, verdicts| {
        verdicts.len() != 2 || verdicts.iter().any(|verdict| verdict == "pass")
    });
}

/// The same message with one octet of its body or header changed, or with another header that readers would show.
fn changes(sealed: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
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
