//! Rules whose texts are all hostile, on a message of arbitrary octets: no value breaks out of its field, the body
//! stays, each recipient becomes one, and the original can be restored.

use super::header::{check_split, decoded};
use super::take;
use crate::message::accepted::Origin;
use crate::message::headers::MAX_LINE;
use crate::message::optional::Obstacle;
use crate::message::rewrite::{
    AddressMap, ListUnsubscribe, NamedAddress, Original, Replacement, RewriteDraft, Rule, RuleActions, RuleConditions,
    Rules, Verdict,
};
use crate::message::text_pattern::{HeaderPattern, TextPattern, regex};
use crate::message::{Envelope, Mark, Marks, RawMessage, SenderPatterns};
use crate::smtp::{Mailbox, ReversePath};
use regex::Regex;
use std::sync::LazyLock;

/// One octet for each of two rules selects its action. Then, up to the first NUL, the text that the rules insert; then
/// the message, as DATA.
///
/// Two rules and not all of them, because compiling a pattern takes longer than everything else here.
pub fn rewrite(mut bytes: &[u8]) {
    let choices: [u8; 2] = take(&mut bytes);
    let (text, wire) = bytes.split_at(memchr::memchr(0, bytes).unwrap_or(0));
    let Some(message) = decoded(wire.strip_prefix(b"\0").unwrap_or(wire)) else { return };
    let text = String::from_utf8_lossy(text);
    let rule_of = |choice: u8| RULES[usize::from(choice) % RULES.len()](&Text::of(&text));
    let first = rule_of(choices[0]);
    let second = if choices[0] == choices[1] { first.clone() } else { rule_of(choices[1]) };
    let mailbox = |text: &str| Mailbox::parse(text).expect("an address");
    let mut envelope = Envelope::new(ReversePath::Mailbox(mailbox("a@example.com")));
    envelope.add_recipient(mailbox("c@example.net"));
    envelope.add_recipient(mailbox("\"d e\"@example.net"));
    let draft = RewriteDraft { envelope, message, marks: Marks::default() };
    let rewritten = Rules([first, second].into_iter().flatten().collect()).apply(&draft, &Origin::default());
    assert!(rewritten.skipped.iter().all(|skipped| skipped.why != Obstacle::Fault), "{:?}", rewritten.skipped);
    // A message without one author is refused by a rule that needs it.
    if let Verdict::Keep(kept) = rewritten.verdict {
        check(&draft, &kept.draft, &kept.targets);
    }
}

fn check(before: &RewriteDraft, after: &RewriteDraft, targets: &[Mailbox]) {
    let had = before.message.fields().count();
    let has = after.message.fields().count();
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
    for draft in [before, after] {
        let original = Original::new(draft, &draft.envelope.recipients);
        assert_eq!(Original::decode(&original.encode()).as_ref(), Ok(&original));
        assert_eq!(original.draft(&after.message, &draft.envelope.recipients), *draft);
    }
    let original = Original::new(before, targets);
    assert_eq!(Original::decode(&original.encode()).ok(), Some(original));
}

fn lines_are_short(message: &RawMessage) -> bool {
    message.header().split(|&byte| byte == b'\n').all(|line| line.len() <= MAX_LINE + 1)
}

/// The text that the rules insert or search for.
pub(super) struct Text<'a> {
    whole: &'a str,
    /// The text before the first colon, and after it.
    name: &'a str,
    value: &'a str,
}

impl<'a> Text<'a> {
    pub(super) fn of(whole: &'a str) -> Self {
        let (name, value) = whole.split_once(':').unwrap_or(("Subject", whole));
        Self { whole, name, value }
    }

    fn author(&self) -> Option<NamedAddress> {
        let address = Mailbox::parse(self.whole).or_else(|_| Mailbox::parse("a@example.org")).ok()?;
        Some(NamedAddress { display_name: self.whole.to_owned(), address })
    }

    fn header(&self) -> (String, String) {
        (self.name.to_owned(), self.value.to_owned())
    }

    fn replace(&self, header: &str, pattern: Regex) -> Option<Rule> {
        let replacement = Replacement { header: header.to_owned(), pattern, with: self.value.to_owned() };
        always(RuleActions { replace_in_headers: vec![replacement], ..RuleActions::default() })
    }
}

/// `None`: no configuration would contain such a rule. Seeds refer to them by position, so new ones go to the end.
pub(super) const RULES: &[fn(&Text<'_>) -> Option<Rule>] = &[
    |text| always(RuleActions { set_from: text.author(), keep_from_as_reply_to: true, ..RuleActions::default() }),
    |text| always(RuleActions { set_reply_to: text.author(), ..RuleActions::default() }),
    |text| always(RuleActions { subject_prefix: Some(text.whole.to_owned()), ..RuleActions::default() }),
    |text| always(RuleActions { set_headers: [text.header()].into(), ..RuleActions::default() }),
    |text| always(RuleActions { add_headers: vec![text.header()], ..RuleActions::default() }),
    map_addresses,
    |text| always(RuleActions { remove_headers: vec![TextPattern::parse(text.whole).ok()?], ..RuleActions::default() }),
    list_unsubscribe,
    |text| text.replace("Subject", EVERYTHING.clone()),
    |text| text.replace("To", EVERYTHING.clone()),
    |text| text.replace(text.name, EVERYTHING.clone()),
    |text| text.replace("Subject", BRACKETS.clone()),
    |text| text.replace("To", BRACKETS.clone()),
    |text| text.replace(text.name, BRACKETS.clone()),
    |text| text.replace("Subject", regex(text.whole).ok()?),
    |text| text.replace("To", regex(text.whole).ok()?),
    |text| text.replace(text.name, regex(text.whole).ok()?),
    mark,
    if_header,
    if_text,
    if_from,
];

static EVERYTHING: LazyLock<Regex> = LazyLock::new(|| regex("(?s)(.*)").expect("a pattern"));
static BRACKETS: LazyLock<Regex> = LazyLock::new(|| regex("[<>\"]").expect("a pattern"));

fn always(actions: RuleActions) -> Option<Rule> {
    Some(Rule { name: "rule".into(), conditions: RuleConditions::default(), actions })
}

/// Shows that the conditions were met.
fn only_if(conditions: RuleConditions) -> Option<Rule> {
    let actions = RuleActions { add_headers: vec![("X-Met".to_owned(), "yes".to_owned())], ..RuleActions::default() };
    Some(Rule { name: "rule".into(), conditions, actions })
}

fn map_addresses(text: &Text<'_>) -> Option<Rule> {
    let map = AddressMap::parse([(text.value, text.whole), ("*@example.net", text.whole)])
        .or_else(|_| AddressMap::parse([("*@example.net", text.whole)]))
        .ok()?;
    always(RuleActions { map_sender: map.clone(), map_recipients: map, ..RuleActions::default() })
}

fn list_unsubscribe(text: &Text<'_>) -> Option<Rule> {
    let link = TextPattern::parse(text.whole).ok()?;
    always(RuleActions { list_unsubscribe: Some(ListUnsubscribe { link, one_click: true }), ..RuleActions::default() })
}

fn mark(text: &Text<'_>) -> Option<Rule> {
    let mark = Mark::new(text.whole).ok()?;
    let tag = Some(mark.clone());
    let stream = Some(mark.clone());
    let ip_pool = None;
    let upstream = Some(mark.clone());
    always(RuleActions {
        tag,
        stream,
        ip_pool,
        upstream,
        metadata: [(mark.clone(), mark)].into(),
        ..RuleActions::default()
    })
}

fn if_header(text: &Text<'_>) -> Option<Rule> {
    let name = text.name.to_owned();
    let value = TextPattern::parse(text.value).ok()?;
    only_if(RuleConditions { headers: vec![HeaderPattern { name, value }], ..RuleConditions::default() })
}

fn if_text(text: &Text<'_>) -> Option<Rule> {
    only_if(RuleConditions { body_contains: Some(text.whole.to_owned()), ..RuleConditions::default() })
}

fn if_from(text: &Text<'_>) -> Option<Rule> {
    let patterns = SenderPatterns::parse([text.whole]).ok();
    only_if(RuleConditions { recipients: patterns.clone(), from: patterns, ..RuleConditions::default() })
}
