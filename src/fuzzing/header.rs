//! A message of arbitrary octets, edited and repaired: it has one header, in one place, before and after; repairing
//! twice changes nothing more; no inserted value breaks out of its field; signed parts stay unchanged; then `adapt`.

use super::adapt::check_adapt;
use crate::message::headers::{Field, FieldChange, Fields};
use crate::message::mime::Structure;
use crate::message::optional::Obstacle;
use crate::message::repair::{RepairInputs, Repairs, repair};
use crate::message::trace::is_looping;
use crate::message::{Author, MailId, RawMessage, subject};
use crate::smtp::dot::{DotDecoder, has_only_crlf};
use jiff::Timestamp;
use mail_parser::{Address, MessageParser};

/// A value for a field up to the first NUL; then the message, as DATA.
pub fn header(bytes: &[u8]) {
    let (value, wire) = bytes.split_at(memchr::memchr(0, bytes).unwrap_or(0));
    let Some(message) = decoded(wire.strip_prefix(b"\0").unwrap_or(wire)) else { return };
    check_split(&message);
    let (_, _) = (subject(&message).expect("no obstacle"), is_looping(&message));
    check_author(&message);
    check_value(&String::from_utf8_lossy(value), &message);
    check_repair(&message);
    check_adapt(&String::from_utf8_lossy(value), &message, check_split);
}

/// The message that a listener gets from DATA, if it accepts it.
pub(super) fn decoded(wire: &[u8]) -> Option<RawMessage> {
    let mut data = Vec::new();
    DotDecoder::default().decode(wire, &mut data);
    if has_only_crlf(&data) { RawMessage::from_data(data.into()).ok() } else { None }
}

/// A reader of our output finds the same header and body.
pub(super) fn check_split(message: &RawMessage) {
    let again = RawMessage::from_data(message.to_bytes().into()).expect("it was one before");
    assert_eq!(&again, message);
    assert!(
        Fields::new(message.header()).collect::<Vec<_>>().iter().map(|field| field.raw().len()).sum::<usize>()
            == message.header().len()
    );
}

/// A reader that shares no code with the gateway's finds the same author, or none.
fn check_author(message: &RawMessage) {
    let (Ok(author), Some(from)) = (Author::of(message), message.fields_named("From").next()) else { return };
    let block = [from.raw(), b"\r\n"].concat();
    let parsed = MessageParser::new().parse_headers(&block);
    let found: Vec<_> = match parsed.as_ref().and_then(|parsed| parsed.from()) {
        Some(Address::List(list)) => list.iter().collect(),
        Some(Address::Group(groups)) => groups.iter().flat_map(|group| &group.addresses).collect(),
        None => Vec::new(),
    };
    let author = author.mailbox().to_string().replace('"', "");
    for address in found.iter().filter_map(|one| one.address.as_deref()).filter(|address| address.contains('@')) {
        assert!(author.eq_ignore_ascii_case(&address.replace('"', "")), "{}", from.raw().escape_ascii());
    }
}

fn check_value(value: &str, message: &RawMessage) {
    let before = message.fields().count();
    for field in [Field::new("X-Value", &[value, value]), Field::folded("X-Value", value)] {
        let Ok(field) = field else { continue };
        assert!(field.as_bytes().split(|&byte| byte == b'\n').all(|line| line.len() <= 999), "{field:?}");
        let mut edited = message.clone();
        edited.prepend(&field);
        edited.append(&field);
        assert_eq!(edited.fields().count(), before + 2, "{field:?}");
        edited
            .edit_fields(|old| if old.is("X-Value") { FieldChange::Replace(field.clone()) } else { FieldChange::Keep });
        assert_eq!(edited.fields().count(), before + 2, "{field:?}");
        let added = edited.remove_fields(|old| old.raw() == field.as_bytes());
        assert!(added >= 2, "{field:?}");
        check_split(&edited);
    }
}

fn check_repair(message: &RawMessage) {
    let now = Timestamp::from_second(1_795_000_000).expect("in range");
    let context = RepairInputs { now, id: MailId::new(now, 7), host: "gateway.example.com" };
    let once = repair(message, &Repairs::ALL, &context);
    assert!(once.skipped.iter().all(|skipped| skipped.why != Obstacle::Fault), "{:?}", once.skipped);
    assert!(has_only_crlf(once.message.header()) && has_only_crlf(once.message.body()));
    check_split(&once.message);
    let twice = repair(&once.message, &Repairs::ALL, &context);
    assert!(
        twice.steps.is_empty() && twice.message == once.message,
        "{:?} again: {}\n{}",
        twice.steps,
        once.message.to_bytes().escape_ascii(),
        twice.message.to_bytes().escape_ascii()
    );
    let off = repair(message, &Repairs::NONE, &context);
    assert!(off.steps.is_empty() && off.message == *message);
    if Structure::of(message).root().is_opaque {
        assert_eq!(once.message.body(), message.body(), "signed, encrypted or another message");
    }
    if let Ok(before) = Author::of(message) {
        assert_eq!(Author::of(&once.message).as_ref(), Ok(&before));
    }
}
