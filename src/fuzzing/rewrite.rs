//! Rules whose every text is hostile, on a message of any octets: nothing gets out of its field, the body stays, each
//! recipient becomes one, and what was there before can be had back.

use super::header::{check_split, decoded};
use crate::message::accepted::Origin;
use crate::message::headers::MAX_LINE;
use crate::message::rewrite::{
    Actions, AddressMap, Author, Conditions, Draft, ListUnsubscribe, Original, Replacement, Rule, Rules, Verdict,
};
use crate::message::text_pattern::{TextPattern, regex};
use crate::message::{Envelope, Marks, RawMessage};
use crate::smtp::{Mailbox, ReversePath};
use std::sync::Arc;

/// Up to the first NUL: what the rules insert; then the message, as DATA.
pub fn rewrite(bytes: &[u8]) {
    let (text, wire) = bytes.split_at(memchr::memchr(0, bytes).unwrap_or(0));
    let Some(message) = decoded(wire.strip_prefix(b"\0").unwrap_or(wire)) else { return };
    let mailbox = |text: &str| Mailbox::parse(text).expect("an address");
    let mut envelope = Envelope::new(ReversePath::Mailbox(mailbox("a@example.com")));
    envelope.add_recipient(mailbox("c@example.net"));
    envelope.add_recipient(mailbox("\"d e\"@example.net"));
    let draft = Draft { envelope, message, marks: Marks::default() };
    for actions in every_action(&String::from_utf8_lossy(text)) {
        let rule = Rule { name: "rule".into(), conditions: Conditions::default(), actions };
        let rewritten = Rules(Arc::new([rule.clone(), rule])).apply(&draft, &Origin::default());
        // A message without one author is refused by who asks for it.
        let Verdict::Keep(kept) = rewritten.verdict else { continue };
        check(&draft, &kept.draft, &kept.targets);
    }
}

fn check(before: &Draft, after: &Draft, targets: &[Mailbox]) {
    let (had, has) = (before.message.fields().count(), after.message.fields().count());
    // Two rules; the one that adds most adds two.
    assert!(
        has <= had + 4,
        "{} became {}",
        before.message.header().escape_ascii(),
        after.message.header().escape_ascii()
    );
    assert_eq!(after.message.body(), before.message.body());
    check_split(&after.message);
    if lines_are_short(&before.message) {
        assert!(lines_are_short(&after.message), "{}", after.message.header().escape_ascii());
    }
    assert_eq!(targets.len(), before.envelope.recipients.len());
    for mailbox in targets.iter().chain(after.envelope.sender.mailbox()) {
        super::command(format!("RCPT TO:<{mailbox}>").as_bytes());
        assert!(targets.iter().all(|target| after.envelope.recipients.contains(target)));
    }
    let original = Original::new(before, targets);
    assert_eq!(Original::decode(&original.encode()).ok(), Some(original));
}

fn lines_are_short(message: &RawMessage) -> bool {
    message.header().split(|&byte| byte == b'\n').all(|line| line.len() <= MAX_LINE + 1)
}

fn every_action(text: &str) -> Vec<Actions> {
    let any = Actions::default;
    let author = || {
        let address = Mailbox::parse(text).or_else(|_| Mailbox::parse("a@example.org")).ok()?;
        Some(Author { display_name: text.to_owned(), address })
    };
    let (name, value) = text.split_once(':').unwrap_or(("Subject", text));
    let mut actions = vec![
        Actions { set_from: author(), keep_from_as_reply_to: true, ..any() },
        Actions { set_reply_to: author(), ..any() },
        Actions { subject_prefix: Some(text.to_owned()), ..any() },
        Actions { set_headers: [(name.to_owned(), value.to_owned())].into(), ..any() },
        Actions { add_headers: vec![(name.to_owned(), value.to_owned())], ..any() },
    ];
    actions.extend(AddressMap::parse([(value, text), ("*@example.net", text)]).ok().map(|map| Actions {
        map_sender: map.clone(),
        map_recipients: map,
        ..any()
    }));
    if let Ok(pattern) = TextPattern::parse(text) {
        actions.push(Actions { remove_headers: vec![pattern.clone()], ..any() });
        actions.push(Actions { list_unsubscribe: Some(ListUnsubscribe { link: pattern, one_click: true }), ..any() });
    }
    for header in ["Subject", "To", name] {
        let patterns = ["(?s)(.*)", "[<>\"]", text];
        let patterns = patterns.into_iter().filter_map(|pattern| regex(pattern).ok());
        let replacement = |pattern| Replacement { header: header.to_owned(), pattern, with: value.to_owned() };
        actions.extend(patterns.map(|pattern| Actions { replace_in_headers: vec![replacement(pattern)], ..any() }));
    }
    actions
}
