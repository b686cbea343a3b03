//! Reduces repeated fields to one where a message may have only one: providers refuse such mail with 550 or 554. Equal fields
//! become one; several To or Cc become one list. Of fields that differ, the first that is not empty stays. RFC 5322 §3.6,
//! RFC 2045 §3.
//!
//! From and Sender stay: a repair must not decide who is meant.

use super::raw_text::RawCharset;
use super::step::{MemoryNeed, RepairScope, RepairStep};
use crate::message::RawMessage;
use crate::message::addresses;
use crate::message::headers::{Field, FieldChange, FieldRef};

pub(super) const STEP: RepairStep = RepairStep {
    name: "duplicate_fields",
    doc: &[
        "Of headers that may stand once, equal ones become one, and several To or Cc one list. Of others that differ the",
        "first stays, and the log says so.",
    ],
    scope: RepairScope::Author,
    run: |message, _| {
        unite(message);
        Ok(())
    },
    memory: MemoryNeed::NONE,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IfDifferent {
    /// Merged into one list of addresses.
    Joined,
    FirstStays,
    AllStay,
}

use IfDifferent::{AllStay, FirstStays, Joined};

/// Without Bcc, which has its own step. Different Message-IDs have one too.
const SINGLE: [(&str, IfDifferent); 20] = [
    ("From", AllStay),
    ("Sender", AllStay),
    ("To", Joined),
    ("Cc", Joined),
    ("Reply-To", FirstStays),
    ("Subject", FirstStays),
    ("Date", FirstStays),
    ("Message-ID", AllStay),
    ("In-Reply-To", FirstStays),
    ("References", FirstStays),
    ("MIME-Version", FirstStays),
    ("Content-Type", FirstStays),
    ("Content-Transfer-Encoding", FirstStays),
    ("Content-Disposition", FirstStays),
    ("Content-ID", FirstStays),
    ("Content-Description", FirstStays),
    ("List-Id", FirstStays),
    ("List-Unsubscribe", FirstStays),
    ("List-Unsubscribe-Post", FirstStays),
    ("Auto-Submitted", FirstStays),
];

/// More fields of one name are not a mistake.
const MOST: usize = 100;

pub(super) fn unite(message: &mut RawMessage) {
    for (name, if_different) in repeated(message) {
        let fields: Vec<_> = message.fields_named(name).collect();
        let values = distinct(&fields);
        let kept = match values.as_slice() {
            [] | [_] => fields.iter().position(|field| !is_empty(field)).unwrap_or(0),
            _ if if_different == AllStay => continue,
            _ => fields.iter().position(|field| !is_empty(field)).unwrap_or(0),
        };
        let list = if values.len() > 1 && if_different == Joined {
            joined(name, &values, &RawCharset::of(message))
        } else {
            None
        };
        // An unreadable value would make the list unreadable.
        if values.len() > 1 && if_different == Joined && list.is_none() {
            continue;
        }
        let mut index = 0;
        message.edit_fields(|field| {
            if !field.is(name) {
                return FieldChange::Keep;
            }
            index += 1;
            match &list {
                _ if index - 1 != kept => FieldChange::Remove,
                Some(list) => FieldChange::Replace(list.clone()),
                None => FieldChange::Keep,
            }
        });
    }
}

/// Names of fields that occur several times with different values, of which only one will stay.
pub(super) fn conflicts(message: &RawMessage) -> Vec<&'static str> {
    let differ = |name: &str| distinct(&message.fields_named(name).collect::<Vec<_>>()).len() > 1;
    let decided = repeated(message).filter(|(_, if_different)| *if_different == FirstStays);
    decided.map(|(name, _)| name).filter(|name| differ(name)).collect()
}

/// Fields that occur several times, but rarely enough for a mistake. All are counted in one pass, since most mail repeats none.
fn repeated(message: &RawMessage) -> impl Iterator<Item = (&'static str, IfDifferent)> + use<> {
    let mut counts = [0; SINGLE.len()];
    for field in message.fields() {
        if let Some(at) = SINGLE.iter().position(|(name, _)| field.is(name)) {
            counts[at] += 1;
        }
    }
    SINGLE.into_iter().zip(counts).filter(|(_, count)| (2..=MOST).contains(count)).map(|(single, _)| single)
}

fn is_empty(field: &FieldRef<'_>) -> bool {
    field.unfolded().is_empty()
}

/// Their non-empty values, each once. White space is ignored, and in MIME fields also the case.
fn distinct(fields: &[FieldRef<'_>]) -> Vec<Vec<u8>> {
    let form = |field: &FieldRef<'_>| {
        let value = field.unfolded();
        let words: Vec<&[u8]> = value.split(|byte| b" \t".contains(byte)).filter(|word| !word.is_empty()).collect();
        let form = words.join(&b" "[..]);
        let is_mime = field.is("MIME-Version") || field.name().to_ascii_lowercase().starts_with(b"content-");
        if is_mime { form.to_ascii_lowercase() } else { form }
    };
    let mut forms = Vec::new();
    let mut values = Vec::new();
    for field in fields.iter().filter(|field| !is_empty(field)) {
        let form = form(field);
        if !forms.contains(&form) {
            forms.push(form);
            values.push(field.unfolded());
        }
    }
    values
}

/// Octets that are not UTF-8 are read as `header_text` will read them: otherwise a second repair would find duplicates that
/// this one did not.
fn joined(name: &str, values: &[Vec<u8>], raw: &RawCharset) -> Option<Field> {
    let mut lists = Vec::new();
    for value in values {
        let (text, _) = raw.decode(value)?;
        let list = text.trim_matches([' ', '\t', ',']);
        addresses::members(list)?;
        lists.push(list.to_owned());
    }
    Field::folded(name, &lists.join(", ")).ok()
}

#[cfg(test)]
mod tests {
    use super::super::testing::table;
    use super::*;

    #[test]
    fn before_and_after() {
        let kept = |text: &'static str| (text, text);
        table(
            |message| super::unite(message),
            &[
                // Equal except for their spelling.
                ("Subject: a b\r\nX: y\r\nSUBJECT: a\r\n b\r\n\r\n", "Subject: a b\r\nX: y\r\n\r\n"),
                ("Message-ID: <a@b>\r\nMessage-Id: <a@b>\r\n\r\n", "Message-ID: <a@b>\r\n\r\n"),
                ("From: a@b\r\nFrom: a@b\r\nSender: c@d\r\nSender: c@d\r\n\r\n", "From: a@b\r\nSender: c@d\r\n\r\n"),
                (
                    "MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\nMime-Version: 1.0\r\nContent-Type: text/html;\r\n charset=UTF-8\r\n\r\n",
                    "MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n\r\n",
                ),
                // No recipient is lost.
                ("To: a@b,\r\nX: y\r\nto: C <c@d>\r\nTo: a@b,\r\n\r\n", "To: a@b, C <c@d>\r\nX: y\r\n\r\n"),
                ("Cc: \r\nCc: a@b\r\nCc: Team: c@d;\r\n\r\n", "Cc: a@b, Team: c@d;\r\n\r\n"),
                ("Cc:\r\nCc:\r\n\r\n", "Cc:\r\n\r\n"),
                // The first that is not empty.
                ("Subject:\r\nSubject: a\r\nSubject: b\r\n\r\n", "Subject: a\r\n\r\n"),
                ("Reply-To: a@b\r\nReply-To: c@d\r\n\r\n", "Reply-To: a@b\r\n\r\n"),
                ("Date: x\r\nDate: y\r\n\r\n", "Date: x\r\n\r\n"),
                (
                    "Content-Type: text/html\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: 8bit\r\nContent-Transfer-Encoding: 7bit\r\n\r\n",
                    "Content-Type: text/html\r\nContent-Transfer-Encoding: 8bit\r\n\r\n",
                ),
                kept("From: a@b\r\nFrom: c@d\r\nSender: a@b\r\nSender: c@d\r\n\r\n"),
                kept("To: \"open <a@b>\r\nTo: c@d\r\n\r\n"),
                kept("Received: a\r\nReceived: b\r\nX-A: a\r\nX-A: b\r\nComments: a\r\nComments: b\r\n\r\n"),
            ],
        );
    }

    #[test]
    fn a_flood_of_fields_is_left_to_others() {
        let most = "To: a@b\r\n".repeat(100) + "\r\n";
        let flood = "To: a@b\r\n".repeat(101) + "\r\n";
        table(|message| super::unite(message), &[(&most, "To: a@b\r\n\r\n"), (&flood, &flood)]);
        let subjects: String = (0..101).map(|number| format!("Subject: {number}\r\n")).collect();
        assert!(conflicts(&RawMessage::from_data(subjects.into()).expect("a message")).is_empty());
    }

    #[test]
    fn what_is_lost_is_named() {
        let message =
            "Subject: a\r\nSubject: b\r\nTo: a@b\r\nTo: c@d\r\nFrom: a@b\r\nFrom: c@d\r\nDate: x\r\nDate: x\r\n\r\n";
        let message = RawMessage::from_data(message.into()).expect("a message");
        assert_eq!(conflicts(&message), ["Subject"]);
    }
}
