//! Applies the rules one after the other and reports the result: the new message, which rules applied, and what could
//! not be done.
//!
//! Never fails and never loses mail: if a rule's value is not valid in a header, that header stays as it was.

use super::actions::{RuleFlow, RuleSubject};
use super::conditions::first_unmet;
use super::outcome::{KeptMail, RewriteChanges, RewriteDraft, Rewritten, Unmet, Verdict};
use super::texts::Texts;
use super::{Rule, Rules};
use crate::message::accepted::Origin;
use crate::message::raw::MAX_HEADER;
use crate::message::{Author, AuthorError, RawMessage};
use crate::smtp::Mailbox;
use std::sync::Arc;

impl Rules {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The most memory, in octets, that the rules need besides the message itself: for its old and new form, and for
    /// its decoded texts if a rule needs them.
    pub fn memory_needed(&self, message: &RawMessage) -> usize {
        self.memory_for(message.header().len(), message.body().len())
    }

    /// The same for any message of this size.
    pub fn largest_memory_needed(&self, size: usize) -> usize {
        self.memory_for(size.min(MAX_HEADER), size)
    }

    fn memory_for(&self, header: usize, body: usize) -> usize {
        if self.is_empty() {
            return 0;
        }
        let for_links = self.0.iter().any(|rule| rule.actions.search_links());
        let asks = for_links || self.0.iter().any(|rule| rule.conditions.body_contains.is_some());
        3 * header + if asks { Texts::memory_needed(body, for_links) } else { 0 }
    }

    /// True if a rule may set From to this address.
    pub fn set_from(&self, address: &Mailbox) -> bool {
        self.0.iter().filter_map(|rule| rule.actions.set_from.as_ref()).any(|from| from.address == *address)
    }

    /// `draft` as it is after the repairs and before the gateway's own trace.
    pub fn apply(&self, draft: &RewriteDraft, origin: &Origin) -> Rewritten {
        let subject = RuleSubject {
            draft: draft.clone(),
            targets: draft.envelope.recipients.clone(),
            texts: Texts::default(),
            notes: Vec::new(),
        };
        let mut run = RuleRun { subject, matched: Vec::new(), passed_over: Vec::new() };
        for rule in self.0.iter() {
            match run.follow(rule, origin) {
                RuleFlow::NextRule => {}
                RuleFlow::LastRule => break,
                RuleFlow::Verdict(verdict) => return run.account(verdict),
            }
        }
        run.end(draft)
    }
}

struct RuleRun {
    subject: RuleSubject,
    matched: Vec<Arc<str>>,
    passed_over: Vec<(Arc<str>, Unmet)>,
}

impl RuleRun {
    fn follow(&mut self, rule: &Rule, origin: &Origin) -> RuleFlow {
        let RuleSubject { draft, texts, .. } = &mut self.subject;
        match first_unmet(&rule.conditions, draft, origin, texts) {
            Ok(None) => {}
            Ok(Some(unmet)) => {
                self.passed_over.push((rule.name.clone(), unmet));
                return RuleFlow::NextRule;
            }
            Err(error) => return RuleFlow::Verdict(no_author(rule, &draft.message, error)),
        }
        self.matched.push(rule.name.clone());
        rule.actions
            .carry_out(&rule.name, &mut self.subject)
            .unwrap_or_else(|error| RuleFlow::Verdict(no_author(rule, &self.subject.draft.message, error)))
    }

    fn end(self, before: &RewriteDraft) -> Rewritten {
        let Self { subject, matched, passed_over } = self;
        let RuleSubject { draft, targets, texts, notes } = subject;
        let changes = RewriteChanges {
            envelope: draft.envelope != before.envelope,
            header: draft.message.header() != before.message.header(),
            marks: draft.marks != before.marks,
        };
        let verdict = Verdict::Keep(Box::new(KeptMail { draft, targets, changes }));
        Rewritten { verdict, matched, passed_over, notes, skipped: texts.skipped }
    }

    fn account(self, verdict: Verdict) -> Rewritten {
        let Self { subject, matched, passed_over } = self;
        let RuleSubject { texts, notes, .. } = subject;
        Rewritten { verdict, matched, passed_over, notes, skipped: texts.skipped }
    }
}

// Guessing the author could mean signing for someone else.
fn no_author(rule: &Rule, message: &RawMessage, error: AuthorError) -> Verdict {
    let why = Author::why_unclear(message, error);
    let text = format!("Refused: rule \"{}\" depends on the author, which cannot be determined: {why}", rule.name);
    Verdict::Refuse { rule: rule.name.clone(), text }
}
