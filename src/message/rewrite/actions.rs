//! The actions of a rule. Each is a field of [`RuleActions`], which holds what the user asked for, and a row in
//! [`ACTIONS`], which carries it out with the help of `header`, `envelope` and `unsubscribe`.

use super::envelope::{map_recipients, map_sender, update_smtputf8};
use super::header::HeaderEditor;
use super::outcome::{RewriteDraft, RuleNote, Verdict};
use super::texts::Texts;
use super::{AddressMap, ListUnsubscribe, NamedAddress, Replacement, unsubscribe};
use crate::message::text_pattern::TextPattern;
use crate::message::{AuthorError, Envelope, Mark, Marks};
use crate::smtp::{Mailbox, ReversePath};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Carried out in the order of `ACTIONS`, whatever the order in the file.
#[derive(Debug, Clone, Default)]
pub struct RuleActions {
    /// The message is discarded; the application gets a 250.
    pub discard: bool,
    /// The application gets 550 5.7.1 with this text.
    pub refuse: Option<String>,
    pub set_sender: Option<ReversePath>,
    pub map_sender: AddressMap,
    /// Recipients that become equal are merged.
    pub map_recipients: AddressMap,
    pub set_from: Option<NamedAddress>,
    /// The previous From becomes Reply-To, unless there is one already.
    pub keep_from_as_reply_to: bool,
    pub set_reply_to: Option<NamedAddress>,
    /// Names; a glob removes every matching header that may be removed ([`is_editable`](super::is_editable)).
    pub remove_headers: Vec<TextPattern>,
    pub replace_in_headers: Vec<Replacement>,
    /// The first header of the name is changed in place and any others are removed; if there is none, it is added.
    pub set_headers: BTreeMap<String, String>,
    pub add_headers: Vec<(String, String)>,
    /// Not added if it is already there.
    pub subject_prefix: Option<String>,
    pub list_unsubscribe: Option<ListUnsubscribe>,
    pub tag: Option<Mark>,
    pub stream: Option<Mark>,
    pub metadata: BTreeMap<Mark, Mark>,
    pub ip_pool: Option<Mark>,
    /// Name of an upstream.
    pub upstream: Option<Mark>,
    /// No later rule is applied.
    pub last: bool,
}

/// A message that the rules are changing.
pub(super) struct RuleSubject {
    pub draft: RewriteDraft,
    /// The current address of each of the original recipients.
    pub targets: Vec<Mailbox>,
    pub texts: Texts,
    pub notes: Vec<RuleNote>,
}

pub(super) enum RuleFlow {
    NextRule,
    LastRule,
    Verdict(Verdict),
}

/// One action: its key in `[[rewrite]]`, and what it does if the rule has it.
struct RuleAction {
    key: &'static str,
    effect: ActionEffect,
}

enum ActionEffect {
    /// Ends the processing of the message, so no other action applies. Gets the rule's name.
    Verdict(fn(&RuleActions, &Arc<str>) -> Option<Verdict>),
    /// Gets the current address of each original recipient.
    Envelope(fn(&RuleActions, &mut Envelope, &mut [Mailbox])),
    /// Fails if it depends on the author and the author cannot be determined.
    Header(fn(&RuleActions, &mut HeaderEditor<'_>) -> Result<(), AuthorError>),
    /// A header that is made from the message's text.
    Text(fn(&RuleActions, &mut HeaderEditor<'_>, &mut Texts)),
    Marks(fn(&RuleActions, &mut Marks)),
    /// Whether later rules are skipped.
    Last(fn(&RuleActions) -> bool),
}

const fn action(key: &'static str, effect: ActionEffect) -> RuleAction {
    RuleAction { key, effect }
}

/// Every action, in the order in which they are carried out.
const ACTIONS: &[RuleAction] = &[
    action("discard", ActionEffect::Verdict(|it, rule| it.discard.then(|| Verdict::Discard { rule: rule.clone() }))),
    action(
        "refuse",
        ActionEffect::Verdict(|it, rule| {
            it.refuse.as_ref().map(|text| Verdict::Refuse { rule: rule.clone(), text: text.clone() })
        }),
    ),
    action(
        "set_sender",
        ActionEffect::Envelope(|it, envelope, _| {
            if let Some(sender) = &it.set_sender {
                envelope.sender = sender.clone();
            }
        }),
    ),
    action("map_sender", ActionEffect::Envelope(|it, envelope, _| map_sender(envelope, &it.map_sender))),
    action(
        "map_recipients",
        ActionEffect::Envelope(|it, envelope, targets| map_recipients(envelope, targets, &it.map_recipients)),
    ),
    action(
        "set_from",
        ActionEffect::Header(|it, header| {
            it.set_from.as_ref().map_or(Ok(()), |from| header.set_from(from, it.keep_from_as_reply_to))
        }),
    ),
    action(
        "set_reply_to",
        ActionEffect::Header(|it, header| {
            it.set_reply_to.iter().for_each(|reply_to| header.set_reply_to(reply_to));
            Ok(())
        }),
    ),
    action(
        "remove_headers",
        ActionEffect::Header(|it, header| {
            header.remove(&it.remove_headers);
            Ok(())
        }),
    ),
    action(
        "replace_in_headers",
        ActionEffect::Header(|it, header| {
            it.replace_in_headers.iter().for_each(|replacement| header.replace(replacement));
            Ok(())
        }),
    ),
    action(
        "set_headers",
        ActionEffect::Header(|it, header| {
            it.set_headers.iter().for_each(|(name, value)| header.set_text(name, value));
            Ok(())
        }),
    ),
    action(
        "add_headers",
        ActionEffect::Header(|it, header| {
            it.add_headers.iter().for_each(|(name, value)| header.add_text(name, value));
            Ok(())
        }),
    ),
    action(
        "subject_prefix",
        ActionEffect::Header(|it, header| {
            it.subject_prefix.iter().for_each(|prefix| header.prefix_subject(prefix.trim()));
            Ok(())
        }),
    ),
    action(
        "list_unsubscribe",
        ActionEffect::Text(|it, header, texts| {
            it.list_unsubscribe.iter().for_each(|wanted| unsubscribe::add(header, wanted, texts));
        }),
    ),
    action("tag", ActionEffect::Marks(|it, marks| set_mark(&it.tag, &mut marks.tag))),
    action("stream", ActionEffect::Marks(|it, marks| set_mark(&it.stream, &mut marks.stream))),
    action("metadata", ActionEffect::Marks(|it, marks| marks.metadata.extend(it.metadata.clone()))),
    action("ip_pool", ActionEffect::Marks(|it, marks| set_mark(&it.ip_pool, &mut marks.ip_pool))),
    action("upstream", ActionEffect::Marks(|it, marks| set_mark(&it.upstream, &mut marks.upstream))),
    action("last", ActionEffect::Last(|it| it.last)),
];

fn set_mark(wanted: &Option<Mark>, mark: &mut Option<Mark>) {
    if wanted.is_some() {
        mark.clone_from(wanted);
    }
}

impl RuleActions {
    /// Carries the actions out in order, until one ends the processing of the message. Fails if one depends on the
    /// author and the author cannot be determined.
    pub(super) fn carry_out(&self, rule: &Arc<str>, subject: &mut RuleSubject) -> Result<RuleFlow, AuthorError> {
        let RuleSubject { draft, targets, texts, notes } = subject;
        let before = draft.envelope.clone();
        let mut flow = RuleFlow::NextRule;
        for RuleAction { effect, .. } in ACTIONS {
            match effect {
                ActionEffect::Verdict(decide) => {
                    if let Some(verdict) = decide(self, rule) {
                        return Ok(RuleFlow::Verdict(verdict));
                    }
                }
                ActionEffect::Envelope(change) => change(self, &mut draft.envelope, targets),
                ActionEffect::Header(change) => change(self, &mut HeaderEditor::new(&mut draft.message, rule, notes))?,
                ActionEffect::Text(add) => add(self, &mut HeaderEditor::new(&mut draft.message, rule, notes), texts),
                ActionEffect::Marks(change) => change(self, &mut draft.marks),
                ActionEffect::Last(is_last) if is_last(self) => flow = RuleFlow::LastRule,
                ActionEffect::Last(_) => {}
            }
        }
        update_smtputf8(&mut draft.envelope, &before);
        Ok(flow)
    }

    /// Whether links are searched for in the message's texts, which needs memory.
    pub(super) fn search_links(&self) -> bool {
        self.list_unsubscribe.is_some()
    }

    /// Whether no later rule is applied.
    pub fn is_final(&self) -> bool {
        ACTIONS.iter().any(|RuleAction { effect, .. }| match effect {
            ActionEffect::Verdict(decide) => decide(self, &Arc::from("")).is_some(),
            ActionEffect::Last(is_last) => is_last(self),
            _ => false,
        })
    }

    /// The keys of all actions, in their order.
    pub fn keys() -> impl Iterator<Item = &'static str> {
        ACTIONS.iter().map(|action| action.key)
    }

    /// The keys of the actions that end the processing, after which no other action applies.
    pub fn ending_keys() -> impl Iterator<Item = &'static str> {
        ACTIONS.iter().filter(|action| matches!(action.effect, ActionEffect::Verdict(_))).map(|action| action.key)
    }
}
