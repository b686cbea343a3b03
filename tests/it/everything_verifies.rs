//! Every message that leaves the built gateway carries signatures that mail-auth, dkimpy and opendkim accept, repaired
//! or not; without repair it is otherwise the message that was submitted. With one octet changed, or another From on
//! top, none passes.

use crate::support::application::{NO_REPAIR, hand_in_octets, in_front_of, up_to_data};
use crate::support::awkward::{awkward_messages, normalised, random_message, recorded_messages};
use crate::support::bench::{Bench, KINDS, assert_none, changes, mail_auth_agrees_on_the_body};
use crate::support::gateway::Gateway;
use crate::support::keys;
use crate::support::upstream::{Message, ScriptedUpstream};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use std::path::PathBuf;

const RECIPIENTS: &[&str] = &["you@example.net"];

/// A gateway that signs with these keys, and what it relays to.
struct Signing {
    gateway: Gateway,
    scripted: ScriptedUpstream,
    handed_in: Vec<(String, Vec<u8>)>,
}

impl Signing {
    async fn start(bench: &Bench, kind: &str) -> Self {
        Self::start_with(bench, kind, "").await
    }

    /// Some of the messages name a Sender of another domain, so anyone may send.
    async fn start_with(bench: &Bench, kind: &str, tables: &str) -> Self {
        Self::start_for(bench, kind, tables, "senders = [\"*\"]\n").await
    }

    async fn start_for(bench: &Bench, kind: &str, tables: &str, senders: &str) -> Self {
        let scripted = ScriptedUpstream::start().await;
        let keys = bench.keys(kind);
        let setup = in_front_of(&scripted, &(keys::tables(keys) + tables))
            .config_with("unsigned = \"send\"\n", "")
            .config_with("delivery = \"direct\"\n", &format!("delivery = \"direct\"\n{senders}"));
        Self { gateway: keys::with_files(setup, keys).start(1), scripted, handed_in: Vec::new() }
    }

    async fn hand_in(&mut self, name: &str, message: Vec<u8>) {
        let reply = hand_in_octets(self.gateway.address(), RECIPIENTS, &message).await;
        assert!(reply.starts_with("250 "), "{name}: {reply}");
        self.handed_in.push((name.to_owned(), message));
    }

    /// Each with its name and as it was submitted.
    fn relayed(self) -> Vec<(String, Vec<u8>, Message)> {
        let arrived = self.scripted.messages();
        assert_eq!(arrived.len(), self.handed_in.len(), "each once");
        self.handed_in.into_iter().zip(arrived).map(|((name, handed_in), arrived)| (name, handed_in, arrived)).collect()
    }
}

const LONG_LINE: &str = "a line of 5000";

fn all_messages() -> Vec<(String, Vec<u8>)> {
    let awkward = awkward_messages().into_iter().map(|(name, message)| (name.to_owned(), message));
    let longer = format!("From: a@example.com\r\nSubject: s\r\n\r\n{}\r\n", "x".repeat(5000));
    awkward.chain(recorded_messages()).chain([(LONG_LINE.to_owned(), longer.into_bytes())]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_is_relayed_as_it_was_with_signatures_that_hold() {
    let bench = Bench::new();
    let mut files = Vec::new();
    for kind in KINDS {
        let mut signing = Signing::start_with(&bench, kind, NO_REPAIR).await;
        for (name, message) in all_messages() {
            if name == LONG_LINE {
                // Without repair it could only leave with its line.
                let reply = hand_in_octets(signing.gateway.address(), RECIPIENTS, &message).await;
                assert!(reply.starts_with("550 5.6.0 ") && reply.contains("5000 octets"), "{reply}");
            } else {
                signing.hand_in(&name, message).await;
            }
        }
        let signatures = bench.keys(kind).len();
        for (name, handed_in, arrived) in signing.relayed() {
            assert_untouched(&name, &handed_in, &arrived.data, signatures);
            assert!(mail_auth_agrees_on_the_body(&arrived.data), "{name}");
            files.push((bench.write(&format!("{name}.{kind}"), &arrived.data), signatures));
        }
    }
    let paths: Vec<_> = files.iter().map(|(file, _)| file.clone()).collect();
    assert_none(bench.judge(&paths), |file, verdicts| {
        let expected = files.iter().find(|(known, _)| known == file).map(|(_, signatures)| *signatures);
        expected != Some(verdicts.len()) || verdicts.iter().any(|verdict| verdict != "pass")
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn every_repaired_message_has_signatures_that_hold() {
    let bench = Bench::new();
    let mut signing = Signing::start(&bench, "both").await;
    for (name, message) in all_messages() {
        signing.hand_in(&name, message).await;
    }
    let relayed = signing.relayed();
    assert!(relayed.iter().any(|(_, handed_in, arrived)| !arrived.data.ends_with(handed_in)), "nothing was repaired");
    let files: Vec<_> = relayed.iter().map(|(name, _, arrived)| bench.write(name, &arrived.data)).collect();
    assert_none(bench.judge(&files), |_, verdicts| verdicts != ["pass", "pass"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_signature_holds_once_a_relayed_message_is_another() {
    let bench = Bench::new();
    let mut signing = Signing::start(&bench, "both").await;
    for (name, message) in all_messages() {
        signing.hand_in(&name, message).await;
    }
    let mut files: Vec<PathBuf> = Vec::new();
    for (name, _, arrived) in signing.relayed() {
        for (change, changed) in changes(&arrived.data) {
            // Every kind of change for every awkward header and body is tried where messages are signed; here it is one
            // octet and the From that readers would show.
            if ["body-octet", "header-octet", "from-on-top"].contains(&change) {
                files.push(bench.write(&format!("{name}.{change}"), &changed));
            }
        }
    }
    // opendkim gives one verdict on a From that it cannot read.
    assert_none(bench.judge(&files), |_, verdicts| {
        verdicts.is_empty() || verdicts.iter().any(|verdict| verdict == "pass")
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_nobody_thought_of_verify_too() {
    let bench = Bench::new();
    let mut signing = Signing::start(&bench, "both").await;
    let mut runner = TestRunner::deterministic();
    for number in 0..100 {
        let message = random_message().new_tree(&mut runner).expect("a message").current();
        signing.hand_in(&number.to_string(), message).await;
    }
    let relayed = signing.relayed();
    let files: Vec<_> = relayed.iter().map(|(name, _, arrived)| bench.write(name, &arrived.data)).collect();
    assert_none(bench.judge(&files), |_, verdicts| verdicts != ["pass", "pass"]);
}

/// An application that signs its own mail.
#[tokio::test(flavor = "multi_thread")]
async fn an_applications_own_signature_stays_if_it_still_holds_and_goes_if_not() {
    let bench = Bench::new();
    let mut signing = Signing::start(&bench, "ed25519").await;
    let header = "From: a@example.com\r\nTo: b@example.net\r\nDate: Tue, 24 Nov 2026 03:05:09 +0000\r\n";
    let complete = format!("{header}Message-ID: <1@example.com>\r\n\r\nHello.\r\n");
    let blind = complete.replace("To: ", "Bcc: c@example.net\r\nTo: ");
    let without_id = format!("{header}\r\nHello.\r\n");
    for (name, message) in [("complete", &complete), ("blind copies", &blind), ("without Message-ID", &without_id)] {
        signing.hand_in(name, Bench::seal(message.as_bytes(), bench.keys("rsa"))).await;
    }
    // As the older of Plausible's clients would do it: signed with bare LF inside, which become CRLF on the way.
    let bare = String::from_utf8(Bench::seal(complete.as_bytes(), bench.keys("rsa"))).expect("UTF-8");
    signing.hand_in("bare line feeds", bare.replace("Hello.\r\n", "Hello.\n").into_bytes()).await;
    signing.gateway.wait_for_line(&["removed the application's own DKIM-Signature"]);
    let relayed = signing.relayed();
    assert_untouched("complete", &relayed[0].1, &relayed[0].2.data, 1);
    let files: Vec<_> = relayed.iter().map(|(name, _, arrived)| bench.write(name, &arrived.data)).collect();
    assert_none(bench.judge(&files), |file, verdicts| {
        if file == files[0] { verdicts != ["pass", "pass"] } else { verdicts != ["pass"] }
    });
}

/// What verifiers read in different ways is normalised before it is signed; a line that is not a field ends the header.
/// Everything else must be as it was. Each line: the message, what is in it, what becomes of that.
const PUT_RIGHT: &[(&str, &str, &str)] = &[
    ("white space only", "\r\n\r\n \r\n\t\r\n", "\r\n\r\n"),
    ("white space without a line end", "\r\n\r\n \t\r\n", "\r\n\r\n"),
    ("white space last", "Hello.\r\n \r\n\t\r\n\r\n", "Hello.\r\n"),
    ("white space on the unfinished last line", "Hello.\r\n  \r\n", "Hello.\r\n"),
    (
        "white space before the colon",
        "Date : today\r\nCc\t: c@x\r\nX-Other : x\r\n",
        "Date: today\r\nCc: c@x\r\nX-Other: x\r\n",
    ),
    ("form feeds", "Date: a\x0cb \x0c c\x0c\r\nCc: \x0b\r\n", "Date: a b   c \r\nCc:  \r\n"),
    ("a stray line in the header", "\r\nstray line\r\n", "\r\n\r\nstray line\r\n"),
];

/// The body octet for octet, the header's fields in order; the signatures and one Received on top.
fn assert_untouched(name: &str, handed_in: &[u8], arrived: &[u8], signatures: usize) {
    let (expected_header, expected_body) = split(&as_it_should_arrive(name, handed_in));
    let (header, body) = split(arrived);
    assert!(body == expected_body, "{name}: the body is another: {} octets, {}", body.len(), expected_body.len());
    let mut fields = fields(&header).into_iter();
    let mut on_top = || fields.next().map(|field| name_of(&field)).unwrap_or_default();
    for _ in 0..signatures {
        assert_eq!(on_top(), "dkim-signature", "{name}");
    }
    assert_eq!(on_top(), "received", "{name}");
    for expected in self::fields(&expected_header) {
        let got = fields.next().unwrap_or_else(|| panic!("{name}: nothing for {}", expected.escape_ascii()));
        assert!(got == expected, "{name}: {} became {}", expected.escape_ascii(), got.escape_ascii());
    }
    assert_eq!(fields.next().map(|field| name_of(&field)), None, "{name}: more than was submitted");
}

fn as_it_should_arrive(name: &str, handed_in: &[u8]) -> Vec<u8> {
    let mut message = normalised(handed_in);
    if !message.ends_with(b"\r\n") {
        message.extend_from_slice(b"\r\n");
    }
    for (_, before, after) in PUT_RIGHT.iter().filter(|(message, ..)| *message == name) {
        let at = memchr::memmem::find(&message, before.as_bytes()).unwrap_or_else(|| panic!("{name}: no {before:?}"));
        message.splice(at..at + before.len(), after.bytes());
    }
    message
}

/// The header with its last CRLF, and the text after the empty line.
fn split(message: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let end = memchr::memmem::find(message, b"\r\n\r\n");
    let (header, body) = end.map_or((message, &b""[..]), |end| (&message[..end + 2], &message[end + 4..]));
    (header.to_vec(), body.to_vec())
}

fn fields(header: &[u8]) -> Vec<Vec<u8>> {
    let mut fields: Vec<Vec<u8>> = Vec::new();
    for line in header.split_inclusive(|&octet| octet == b'\n') {
        match fields.last_mut() {
            Some(field) if line.starts_with(b" ") || line.starts_with(b"\t") => field.extend_from_slice(line),
            _ => fields.push(line.to_vec()),
        }
    }
    fields
}

fn name_of(field: &[u8]) -> String {
    let name = field.split(|&octet| octet == b':').next().unwrap_or_default();
    String::from_utf8_lossy(name).trim_end().to_ascii_lowercase()
}

/// Joined, the brackets contain a subdomain of our own; readers show the first one.
const TWO_BRACKETS: &str = "From: PayPal <service@paypal.com> <.example.com>";

#[tokio::test(flavor = "multi_thread")]
async fn what_intake_refuses_is_refused_whole_with_a_reason() {
    let bench = Bench::new();
    let signing = Signing::start_for(&bench, "both", "", "").await;
    let from = "From: a@example.com\r\n";
    let received = "Received: from x by y; Tue, 24 Nov 2026 03:05:09 +0000\r\n";
    for (what, message, code, words) in [
        ("two From headers", format!("{from}From: evil@example.org\r\n\r\nx\r\n"), "550 5.7.1 ", "more than one From"),
        ("white space before From's colon", "From : a@example.com\r\n\r\nx\r\n".to_owned(), "550 5.7.1 ", "colon"),
        (
            "two authors",
            "From: a@example.com, b@example.com\r\n\r\nx\r\n".to_owned(),
            "550 5.7.1 ",
            "more than one address",
        ),
        ("no From", "Subject: s\r\n\r\nx\r\n".to_owned(), "550 5.7.1 ", "no From"),
        ("no header", "just text\r\n".to_owned(), "550 5.7.1 ", "no From"),
        ("nothing at all", String::new(), "550 5.7.1 ", "no From"),
        ("a From of white space", "From:\r\n \r\n\r\nx\r\n".to_owned(), "550 5.7.1 ", "valid address"),
        ("a From with two brackets", format!("{}\r\n\r\nx\r\n", TWO_BRACKETS), "550 5.7.1 ", "more than one way"),
        ("a foreign author", "From: a@example.org\r\n\r\nx\r\n".to_owned(), "550 5.7.1 ", "`senders`"),
        ("a loop", format!("{}{from}\r\nx\r\n", received.repeat(51)), "554 5.4.6 ", "loop"),
        ("101 To headers", format!("{from}{}\r\nx\r\n", "To: b@x\r\n".repeat(101)), "550 5.6.0 ", "more than 100 To"),
        ("a NUL", format!("{from}\r\nx\0\r\n"), "550 5.5.2 ", "NUL"),
        ("a header over 256 KiB", format!("{from}{}\r\nx\r\n", "X: x\r\n".repeat(50_000)), "552 5.3.4 ", "256 KiB"),
    ] {
        let reply = hand_in_octets(signing.gateway.address(), RECIPIENTS, message.as_bytes()).await;
        assert!(reply.starts_with(code) && reply.contains(words), "{what}: {reply}");
        signing.gateway.wait_for_line(&[words]);
    }
    // Not by `hand_in_octets`, which would double the dot.
    let mut client = up_to_data(signing.gateway.address(), RECIPIENTS).await;
    client.send(format!("{from}\r\nx\n.\r\nMAIL FROM:<evil@example.com>\r\n.\r\n").as_bytes()).await;
    let reply = client.reply().await.expect("a reply");
    assert!(reply.starts_with("550 5.5.2 "), "{reply}");
    assert!(signing.relayed().is_empty());
}
