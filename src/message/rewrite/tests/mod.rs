//! Rules by example: before and after. Each table is one action or condition, including unusual cases.

mod actions;
mod conditions;
mod hostile;
mod stored;
mod unsubscribe;

use super::outcome::RewriteChanges;
use super::*;
use crate::message::accepted::Origin;
use crate::message::text_pattern::{self, TextPattern};
use crate::message::{Envelope, Mark, Marks, RawMessage};
use crate::smtp::ReversePath;

/// `text` with LF in place of CRLF.
pub(super) fn message(text: &str) -> RawMessage {
    RawMessage::from_data(text.replace('\n', "\r\n").into()).expect("a message")
}

pub(super) fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).expect("a mailbox")
}

pub(super) fn mark(text: &str) -> Mark {
    Mark::new(text).expect("a mark")
}

pub(super) fn patterns(text: &str) -> SenderPatterns {
    SenderPatterns::parse(text.split(' ')).expect("patterns")
}

/// `sender` may be empty for the null path.
pub(super) fn envelope(sender: &str, recipients: &[&str]) -> Envelope {
    let path = if sender.is_empty() { ReversePath::Null } else { ReversePath::Mailbox(mailbox(sender)) };
    let mut envelope = Envelope::new(path);
    recipients.iter().for_each(|recipient| envelope.add_recipient(mailbox(recipient)));
    envelope
}

pub(super) fn draft(text: &str) -> RewriteDraft {
    let envelope = envelope("app@example.com", &["you@example.net"]);
    RewriteDraft { envelope, message: message(text), marks: Marks::default() }
}

pub(super) fn author(display_name: &str, address: &str) -> NamedAddress {
    NamedAddress { display_name: display_name.into(), address: mailbox(address) }
}

pub(super) fn rule(name: &str, conditions: RuleConditions, actions: RuleActions) -> Rule {
    Rule { name: name.into(), conditions, actions }
}

pub(super) fn rules(rules: impl IntoIterator<Item = Rule>) -> Rules {
    Rules(rules.into_iter().collect())
}

/// One rule that applies to every message.
pub(super) fn always(actions: RuleActions) -> Rules {
    rules([rule("always", RuleConditions::default(), actions)])
}

/// The result for a message that is neither refused nor discarded.
pub(super) fn kept(rewritten: Rewritten) -> KeptMail {
    match rewritten.verdict {
        Verdict::Keep(kept) => *kept,
        other => panic!("{other:?}"),
    }
}

/// The header after the rules, with LF, and the notes.
pub(super) fn header_after(rules: &Rules, before: &str) -> (String, Vec<String>) {
    let draft = draft(&format!("{before}\nbody\n"));
    let rewritten = rules.apply(&draft, &Origin::default());
    let notes = rewritten.notes.iter().map(|note| format!("{}: {}", note.header, note.trouble)).collect();
    let kept = kept(rewritten);
    assert_eq!(kept.draft.message.body(), draft.message.body());
    assert_eq!(kept.changes.header, kept.draft.message.header() != draft.message.header());
    let header = String::from_utf8_lossy(kept.draft.message.header()).replace("\r\n", "\n");
    (header, notes)
}

/// Headers before and after, with LF in place of CRLF, without notes.
pub(super) fn table(actions: &RuleActions, cases: &[(&str, &str)]) {
    let rules = always(actions.clone());
    for (before, after) in cases {
        assert_eq!(header_after(&rules, before), ((*after).to_owned(), vec![]), "{before}");
    }
}

/// Headers that stay as they are, with the note.
pub(super) fn left_alone(actions: &RuleActions, cases: &[(&str, &str)]) {
    let rules = always(actions.clone());
    for (before, note) in cases {
        assert_eq!(header_after(&rules, before), ((*before).to_owned(), vec![(*note).to_owned()]), "{before}");
    }
}

pub(super) fn glob(text: &str) -> TextPattern {
    TextPattern::parse(text).expect("a pattern")
}

pub(super) fn replacement(header: &str, pattern: &str, with: &str) -> Replacement {
    let pattern = text_pattern::regex(pattern).expect("an expression");
    Replacement { header: header.into(), pattern, with: with.into() }
}
