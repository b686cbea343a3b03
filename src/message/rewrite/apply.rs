//! Carries the rules out, one after the other, and accounts for it: what became of the message, which rules were for it,
//! and what could not be done.
//!
//! Never fails and never loses mail: what a rule wants to insert and no header can hold leaves that header as it was.

use super::conditions::{Unmet, first_unmet};
use super::header::HeaderEditor;
use super::texts::Texts;
use super::{Rule, RuleActions, Rules, envelope, unsubscribe};
use crate::message::accepted::Origin;
use crate::message::headers::FieldError;
use crate::message::optional::Skipped;
use crate::message::raw::MAX_HEADER;
use crate::message::{AuthorError, Envelope, Marks, RawMessage};
use crate::smtp::Mailbox;
use std::sync::Arc;

/// All of a message that rules can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewriteDraft {
    pub envelope: Envelope,
    pub message: RawMessage,
    pub marks: Marks,
}

#[derive(Debug, Clone)]
pub struct Rewritten {
    pub verdict: Verdict,
    /// Names of the rules that applied to this message, in order.
    pub matched: Vec<Arc<str>>,
    /// Rules that did not apply, each with the reason.
    pub passed_over: Vec<(Arc<str>, Unmet)>,
    pub notes: Vec<RuleNote>,
    /// Searches in its texts that could not be made: nothing was found in them.
    pub skipped: Vec<Skipped>,
}

#[derive(Debug, Clone)]
pub enum Verdict {
    Keep(Box<KeptMail>),
    Discard { rule: Arc<str> },
    Refuse { rule: Arc<str>, text: String },
}

/// A message that goes on.
#[derive(Debug, Clone)]
pub struct KeptMail {
    pub draft: RewriteDraft,
    /// The new address of each recipient of the draft before, in its order; the envelope names each once.
    pub targets: Vec<Mailbox>,
    pub changes: RewriteChanges,
}

/// What is not as it was. Bodies always are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RewriteChanges {
    pub envelope: bool,
    pub header: bool,
    pub marks: bool,
}

impl RewriteChanges {
    pub fn any(self) -> bool {
        self.envelope || self.header || self.marks
    }
}

/// Something that a rule asked for and could not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleNote {
    pub rule: Arc<str>,
    pub header: String,
    pub trouble: HeaderTrouble,
}

/// Why a header stayed as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderTrouble {
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("no rule may change it in this way")]
    NotEditable,
    #[error("its value cannot be decoded with certainty")]
    Undecodable,
    #[error("it would name more or fewer addresses")]
    Addresses,
    #[error("the header would become too large")]
    TooLarge,
    #[error("the link in the text is not an address that fits in a header")]
    Link,
    #[error("only a link with https can take one click")]
    NotHttps,
}

impl Rules {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Octets beside the message itself that following the rules takes at most: what it was and what it becomes, and its
    /// texts decoded where a rule asks for them.
    pub fn memory_needed(&self, message: &RawMessage) -> usize {
        self.memory_for(message.header().len(), message.body().len())
    }

    /// The same of any message of so many octets.
    pub fn largest_memory_needed(&self, size: usize) -> usize {
        self.memory_for(size.min(MAX_HEADER), size)
    }

    fn memory_for(&self, header: usize, body: usize) -> usize {
        if self.is_empty() {
            return 0;
        }
        let for_links = self.0.iter().any(|rule| rule.actions.list_unsubscribe.is_some());
        let asks = for_links || self.0.iter().any(|rule| rule.conditions.body_contains.is_some());
        3 * header + if asks { Texts::memory_needed(body, for_links) } else { 0 }
    }

    /// `draft` as it is after the repairs and before the gateway's own trace.
    pub fn apply(&self, draft: &RewriteDraft, origin: &Origin) -> Rewritten {
        let mut run = RuleRun {
            draft: draft.clone(),
            targets: draft.envelope.recipients.clone(),
            texts: Texts::default(),
            matched: Vec::new(),
            passed_over: Vec::new(),
            notes: Vec::new(),
        };
        for rule in self.0.iter() {
            match run.follow(rule, origin) {
                RuleFlow::Rule => {}
                RuleFlow::End => break,
                RuleFlow::Verdict(verdict) => {
                    return run.account(verdict);
                }
            }
        }
        run.end(draft)
    }
}

struct RuleRun {
    draft: RewriteDraft,
    /// Of the recipients at the beginning.
    targets: Vec<Mailbox>,
    texts: Texts,
    matched: Vec<Arc<str>>,
    passed_over: Vec<(Arc<str>, Unmet)>,
    notes: Vec<RuleNote>,
}

enum RuleFlow {
    Rule,
    End,
    Verdict(Verdict),
}

impl RuleRun {
    fn follow(&mut self, rule: &Rule, origin: &Origin) -> RuleFlow {
        match first_unmet(&rule.conditions, &self.draft, origin, &mut self.texts) {
            Ok(None) => {}
            Ok(Some(unmet)) => {
                self.passed_over.push((rule.name.clone(), unmet));
                return RuleFlow::Rule;
            }
            Err(error) => return RuleFlow::Verdict(no_author(rule, error)),
        }
        self.matched.push(rule.name.clone());
        let RuleActions { discard, refuse, last, .. } = &rule.actions;
        if *discard {
            return RuleFlow::Verdict(Verdict::Discard { rule: rule.name.clone() });
        }
        if let Some(text) = refuse {
            return RuleFlow::Verdict(Verdict::Refuse { rule: rule.name.clone(), text: text.clone() });
        }
        match self.carry_out(rule) {
            Err(error) => RuleFlow::Verdict(no_author(rule, error)),
            Ok(()) if *last => RuleFlow::End,
            Ok(()) => RuleFlow::Rule,
        }
    }

    fn carry_out(&mut self, rule: &Rule) -> Result<(), AuthorError> {
        let actions = &rule.actions;
        envelope::rewrite(actions, &mut self.draft.envelope, &mut self.targets);
        let mut header = HeaderEditor::new(&mut self.draft.message, rule, &mut self.notes);
        header.set_authors(actions)?;
        header.edit(actions);
        if let Some(wanted) = &actions.list_unsubscribe {
            unsubscribe::add(&mut header, wanted, &mut self.texts);
        }
        mark(actions, &mut self.draft.marks);
        Ok(())
    }

    fn end(self, before: &RewriteDraft) -> Rewritten {
        let Self { draft, targets, matched, passed_over, notes, texts } = self;
        let changes = RewriteChanges {
            envelope: draft.envelope != before.envelope,
            header: draft.message.header() != before.message.header(),
            marks: draft.marks != before.marks,
        };
        let verdict = Verdict::Keep(Box::new(KeptMail { draft, targets, changes }));
        Rewritten { verdict, matched, passed_over, notes, skipped: texts.skipped }
    }

    fn account(self, verdict: Verdict) -> Rewritten {
        let Self { matched, passed_over, notes, texts, .. } = self;
        Rewritten { verdict, matched, passed_over, notes, skipped: texts.skipped }
    }
}

// To guess who is meant would be to sign for somebody else.
fn no_author(rule: &Rule, error: AuthorError) -> Verdict {
    let text = format!("Refused: {error}, so the sender cannot be determined; rule \"{}\" goes by it", rule.name);
    Verdict::Refuse { rule: rule.name.clone(), text }
}

fn mark(actions: &RuleActions, marks: &mut Marks) {
    let RuleActions { tag, stream, metadata, ip_pool, upstream, .. } = actions;
    let words = [(tag, &mut marks.tag), (stream, &mut marks.stream), (ip_pool, &mut marks.ip_pool)];
    for (new, old) in words.into_iter().chain([(upstream, &mut marks.upstream)]) {
        if new.is_some() {
            old.clone_from(new);
        }
    }
    marks.metadata.extend(metadata.iter().map(|(name, value)| (name.clone(), value.clone())));
}
