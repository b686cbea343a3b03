//! A hundred real messages through the gateway: without repair they arrive unchanged, with repair they say the same,
//! and their signatures verify.

use crate::support::application::{NO_REPAIR, hand_in_octets, in_front_of};
use crate::support::bench::{Bench, assert_none};
use crate::support::corpus;
use crate::support::upstream::ScriptedUpstream;
use mail_parser::{Addr, MessageParser, PartType};
use waxseal::message::adapt::{Inconvertible, to_seven_bit};
use waxseal::message::{Author, RawMessage};

/// Each as it was submitted and as it arrived, without our own Received.
async fn through_the_gateway(lines: &str) -> Option<Vec<(String, RawMessage, RawMessage)>> {
    let messages = corpus::messages()?;
    let scripted = ScriptedUpstream::start().await;
    let gateway = in_front_of(&scripted, lines).start(1);
    let mut passed = Vec::new();
    for (name, message) in messages {
        let reply = hand_in_octets(gateway.address(), &["you@example.net"], &message).await;
        if message.contains(&0) {
            assert!(reply.starts_with("550 5.5.2 "), "{name}: {reply}");
            continue;
        }
        assert!(reply.starts_with("250 "), "{name}: {reply}");
        let arrived = scripted.messages().pop().expect("a message").data;
        passed.push((name, read(message), without_received(arrived)));
    }
    Some(passed)
}

fn read(mut message: Vec<u8>) -> RawMessage {
    if !message.ends_with(b"\r\n") {
        message.extend_from_slice(b"\r\n");
    }
    RawMessage::from_data(message.into()).expect("a message")
}

fn without_received(arrived: Vec<u8>) -> RawMessage {
    let end = memchr::memmem::find(&arrived, b"\r\n").expect("a line");
    let fold = arrived[end..].windows(3).position(|three| three[..2] == *b"\r\n" && !b" \t".contains(&three[2]));
    let length = end + fold.expect("another line") + 2;
    assert!(arrived.starts_with(b"Received: from "));
    read(arrived[length..].to_vec())
}

/// With every condition and nearly every action.
const RULES_FOR_NOBODY: &str = "[[rewrite]]\nsenders = [\"*\"]\nrecipients = [\"*\"]\nheader = { Subject = \"*\" }\n\
    body_contains = \"this stands in none of them\"\nset_from = \"a@example.com\"\n\
    set_headers = { Subject = \"x\" }\nremove_headers = [\"*\"]\nlist_unsubscribe = \"*\"\nsubject_prefix = \"x\"\n\
    replace_in_headers = [{ header = \"Subject\", pattern = \".\", with = \"x\" }]\nmap_recipients = { \"*\" = \"a@b.example\" }\n";

#[tokio::test(flavor = "multi_thread")]
async fn without_repair_and_with_rules_for_other_mail_it_is_what_it_was() {
    let lines = format!("{NO_REPAIR}{RULES_FOR_NOBODY}");
    for (name, before, after) in through_the_gateway(&lines).await.unwrap_or_default() {
        assert!(after.body() == before.body(), "{name}: the body is another");
        assert_eq!(after.header().escape_ascii().to_string(), before.header().escape_ascii().to_string(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repaired_mail_of_the_wild_says_what_it_said_and_its_signatures_hold() {
    let bench = Bench::new();
    let mut files = Vec::new();
    for (name, before, after) in through_the_gateway("").await.unwrap_or_default() {
        assert_says_the_same(&name, &Shown::by(&before), &Shown::by(&after));
        // No one signs for an author that cannot be determined.
        if Author::of(&after).is_ok() {
            files.push(bench.write(&name, &Bench::seal(&after.to_bytes(), &bench.keys)));
        }
    }
    // Below ours, some have a signature of their own, whose key is not available here.
    assert_none(bench.judge(&files), |_, verdicts| verdicts.get(..2) != Some(&["pass".to_owned(), "pass".to_owned()]));
}

/// For a server that accepts only ASCII: the message says the same in other octets, or there is a reason.
#[test]
fn mail_of_the_wild_in_seven_bits_says_what_it_said() {
    for (name, message) in corpus::messages().unwrap_or_default() {
        let before = read(message);
        match to_seven_bit(&before) {
            Ok(None) => assert!(before.to_bytes().is_ascii(), "{name}"),
            Ok(Some(after)) => {
                assert!(after.to_bytes().is_ascii(), "{name}");
                assert_says_the_same(&name, &Shown::by(&before), &Shown::by(&after));
            }
            // Old mail, with raw Latin-1 in its headers.
            Err(Inconvertible::Charset(_)) => assert!(std::str::from_utf8(before.header()).is_err(), "{name}"),
            Err(Inconvertible::Unreadable | Inconvertible::Sealed(_)) => assert!(before.body_is_eight_bit(), "{name}"),
            Err(reason @ Inconvertible::Header(_)) => panic!("{name}: {reason}"),
        }
    }
}

/// Letter for letter, but where a reader could show none: raw octets of a charset that the header does not name.
fn is_same<T: std::fmt::Debug>(shown: &[T], meant: &[T]) -> bool {
    let shown = format!("{shown:?}");
    let meant = format!("{meant:?}");
    shown.chars().count() == meant.chars().count()
        && shown.chars().zip(meant.chars()).all(|(shown, meant)| shown == meant || meant == '\u{fffd}')
}

/// Every original text is there, in the same order; text made from HTML may be between them.
fn assert_says_the_same(name: &str, meant: &Shown, shown: &Shown) {
    assert!(
        is_same(&[shown.subject.clone().unwrap_or_default()], &[meant.subject.clone().unwrap_or_default()]),
        "{name}: {:?} of {:?}",
        shown.subject,
        meant.subject
    );
    assert!(is_same(&shown.people, &meant.people), "{name}: {:?} of {:?}", shown.people, meant.people);
    let mut texts = shown.texts.iter();
    for text in &meant.texts {
        assert!(texts.any(|shown| shown == text), "{name}: {text:?} not in {:?}", shown.texts);
    }
}

/// What a reader shows; line endings have one form, and the last one does not count.
struct Shown {
    subject: Option<String>,
    people: Vec<(String, String)>,
    texts: Vec<String>,
}

impl Shown {
    fn by(message: &RawMessage) -> Self {
        let data = message.to_bytes();
        let parsed = MessageParser::default().parse(&data).unwrap_or_default();
        let text = |body: &PartType<'_>| match body {
            PartType::Text(text) | PartType::Html(text) => {
                Some(text.replace("\r\n", "\n").trim_end_matches('\n').to_owned())
            }
            _ => None,
        };
        let person = |it: &Addr<'_>| {
            (it.name.as_deref().unwrap_or_default().to_owned(), it.address().unwrap_or_default().to_owned())
        };
        let lists = [parsed.from(), parsed.to(), parsed.cc(), parsed.reply_to()].into_iter().flatten();
        Self {
            subject: parsed.subject().map(str::to_owned),
            people: lists.flat_map(|list| list.iter().map(person).collect::<Vec<_>>()).collect(),
            texts: parsed.parts.iter().filter_map(|part| text(&part.body)).collect(),
        }
    }
}
