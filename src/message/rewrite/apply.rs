//! Carries the rules out, one after the other, and accounts for it: what became of the message, which rules were for it,
//! and what could not be done.
//!
//! Never fails and never loses mail: what a rule wants to insert and no header can hold leaves that header as it was.

use super::conditions::{Unmet, first_unmet};
use super::header::Header;
use super::texts::Texts;
use super::{Actions, Rule, Rules, envelope, unsubscribe};
use crate::message::accepted::Origin;
use crate::message::headers::FieldError;
use crate::message::optional::Skipped;
use crate::message::raw::MAX_HEADER;
use crate::message::{AuthorError, Envelope, Marks, RawMessage};
use crate::smtp::Mailbox;
use std::sync::Arc;

/// All of a message that rules can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub envelope: Envelope,
    pub message: RawMessage,
    pub marks: Marks,
}

#[derive(Debug, Clone)]
pub struct Rewritten {
    pub verdict: Verdict,
    /// Names of the rules that were for this message, in order.
    pub matched: Vec<Arc<str>>,
    /// Those that were asked and not for it, each with why.
    pub passed_over: Vec<(Arc<str>, Unmet)>,
    pub notes: Vec<Note>,
    /// Searches in its texts that could not be made: nothing was found in them.
    pub skipped: Vec<Skipped>,
}

#[derive(Debug, Clone)]
pub enum Verdict {
    Keep(Box<Kept>),
    Discard { rule: Arc<str> },
    Refuse { rule: Arc<str>, text: String },
}

/// A message that goes on.
#[derive(Debug, Clone)]
pub struct Kept {
    pub draft: Draft,
    /// What became of each recipient of the draft before, in its order; the envelope names each once.
    pub targets: Vec<Mailbox>,
    pub changes: Changes,
}

/// What is not as it was. Bodies always are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    pub envelope: bool,
    pub header: bool,
    pub marks: bool,
}

impl Changes {
    pub fn any(self) -> bool {
        self.envelope || self.header || self.marks
    }
}

/// Something that a rule wanted and did not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub rule: Arc<str>,
    pub header: String,
    pub trouble: Trouble,
}

/// Why a header stayed as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
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
    #[error("the link in the text is no address that a header can hold")]
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
    pub fn room(&self, message: &RawMessage) -> usize {
        self.room_for(message.header().len(), message.body().len())
    }

    /// The same of any message of so many octets.
    pub fn largest_room(&self, size: usize) -> usize {
        self.room_for(size.min(MAX_HEADER), size)
    }

    fn room_for(&self, header: usize, body: usize) -> usize {
        if self.is_empty() {
            return 0;
        }
        let for_links = self.0.iter().any(|rule| rule.actions.list_unsubscribe.is_some());
        let asks = for_links || self.0.iter().any(|rule| rule.conditions.body_contains.is_some());
        3 * header + if asks { Texts::room(body, for_links) } else { 0 }
    }

    /// `draft` as it is after the repairs and before the gateway's own trace.
    pub fn apply(&self, draft: &Draft, origin: &Origin) -> Rewritten {
        let mut run = Run {
            draft: draft.clone(),
            targets: draft.envelope.recipients.clone(),
            texts: Texts::default(),
            matched: Vec::new(),
            passed_over: Vec::new(),
            notes: Vec::new(),
        };
        for rule in self.0.iter() {
            match run.follow(rule, origin) {
                Next::Rule => {}
                Next::End => break,
                Next::Verdict(verdict) => {
                    return run.account(verdict);
                }
            }
        }
        run.end(draft)
    }
}

struct Run {
    draft: Draft,
    /// Of the recipients at the beginning.
    targets: Vec<Mailbox>,
    texts: Texts,
    matched: Vec<Arc<str>>,
    passed_over: Vec<(Arc<str>, Unmet)>,
    notes: Vec<Note>,
}

enum Next {
    Rule,
    End,
    Verdict(Verdict),
}

impl Run {
    fn follow(&mut self, rule: &Rule, origin: &Origin) -> Next {
        match first_unmet(&rule.conditions, &self.draft, origin, &mut self.texts) {
            Ok(None) => {}
            Ok(Some(unmet)) => {
                self.passed_over.push((rule.name.clone(), unmet));
                return Next::Rule;
            }
            Err(error) => return Next::Verdict(no_author(rule, error)),
        }
        self.matched.push(rule.name.clone());
        let Actions { discard, refuse, last, .. } = &rule.actions;
        if *discard {
            return Next::Verdict(Verdict::Discard { rule: rule.name.clone() });
        }
        if let Some(text) = refuse {
            return Next::Verdict(Verdict::Refuse { rule: rule.name.clone(), text: text.clone() });
        }
        match self.carry_out(rule) {
            Err(error) => Next::Verdict(no_author(rule, error)),
            Ok(()) if *last => Next::End,
            Ok(()) => Next::Rule,
        }
    }

    fn carry_out(&mut self, rule: &Rule) -> Result<(), AuthorError> {
        let actions = &rule.actions;
        envelope::rewrite(actions, &mut self.draft.envelope, &mut self.targets);
        let mut header = Header::new(&mut self.draft.message, rule, &mut self.notes);
        header.set_authors(actions)?;
        header.edit(actions);
        if let Some(wanted) = &actions.list_unsubscribe {
            unsubscribe::add(&mut header, wanted, &mut self.texts);
        }
        mark(actions, &mut self.draft.marks);
        Ok(())
    }

    fn end(self, before: &Draft) -> Rewritten {
        let Self { draft, targets, matched, passed_over, notes, texts } = self;
        let changes = Changes {
            envelope: draft.envelope != before.envelope,
            header: draft.message.header() != before.message.header(),
            marks: draft.marks != before.marks,
        };
        let verdict = Verdict::Keep(Box::new(Kept { draft, targets, changes }));
        Rewritten { verdict, matched, passed_over, notes, skipped: texts.skipped }
    }

    fn account(self, verdict: Verdict) -> Rewritten {
        let Self { matched, passed_over, notes, texts, .. } = self;
        Rewritten { verdict, matched, passed_over, notes, skipped: texts.skipped }
    }
}

// To guess who is meant would be to sign for somebody else.
fn no_author(rule: &Rule, error: AuthorError) -> Verdict {
    let text = format!("Refused: {error}, so the sender cannot be told; rule \"{}\" goes by it", rule.name);
    Verdict::Refuse { rule: rule.name.clone(), text }
}

fn mark(actions: &Actions, marks: &mut Marks) {
    let Actions { tag, stream, metadata, ip_pool, upstream, .. } = actions;
    let words = [(tag, &mut marks.tag), (stream, &mut marks.stream), (ip_pool, &mut marks.ip_pool)];
    for (new, old) in words.into_iter().chain([(upstream, &mut marks.upstream)]) {
        if new.is_some() {
            old.clone_from(new);
        }
    }
    marks.metadata.extend(metadata.iter().map(|(name, value)| (name.clone(), value.clone())));
}
