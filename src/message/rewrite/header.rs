//! What rules do to the header. Every value goes through [`Field`], so none can break out of its line. If a change
//! cannot be made, the fields stay as they were, and a note is recorded.

use super::editable::{HeaderEdit, is_editable};
use super::field::{author_field, text_field};
use super::outcome::{HeaderTrouble, RuleNote};
use super::replace::replaced;
use super::{NamedAddress, Replacement};
use crate::message::headers::{FieldChange, changed};
use crate::message::raw::MAX_HEADER;
use crate::message::text_pattern::TextPattern;
use crate::message::{self, AuthorError, Field, RawMessage, encoded_words};
use std::sync::Arc;

/// In octets: the limit for incoming messages, minus what intake adds.
const LARGEST: usize = MAX_HEADER - 4096;

/// The header of a message, edited by one rule.
pub(super) struct HeaderEditor<'a> {
    pub message: &'a mut RawMessage,
    rule: Arc<str>,
    notes: &'a mut Vec<RuleNote>,
}

impl<'a> HeaderEditor<'a> {
    pub fn new(message: &'a mut RawMessage, rule: &Arc<str>, notes: &'a mut Vec<RuleNote>) -> Self {
        Self { message, rule: rule.clone(), notes }
    }

    /// The previous From becomes Reply-To if `keep_before`, unless there is one already or the previous one is ambiguous.
    /// Fails if there are several, and one of them would have to be chosen.
    pub fn set_from(&mut self, from: &NamedAddress, keep_before: bool) -> Result<(), AuthorError> {
        let before = match message::Author::of(self.message) {
            // The previous value named no one.
            Err(AuthorError::Missing | AuthorError::Invalid | AuthorError::Ambiguous) => None,
            before => Some(before?),
        };
        let is_another = before.is_some_and(|before| *before.mailbox() != from.address);
        if keep_before && is_another && !self.message.has("Reply-To") {
            let copied = copy(self.message, "From", "Reply-To");
            self.insert("Reply-To", copied);
        }
        self.set("From", author_field("From", from));
        Ok(())
    }

    pub fn set_reply_to(&mut self, reply_to: &NamedAddress) {
        self.set("Reply-To", author_field("Reply-To", reply_to));
    }

    pub fn remove(&mut self, names: &[TextPattern]) {
        if names.is_empty() {
            return;
        }
        self.message.remove_fields(|field| {
            let name = String::from_utf8_lossy(field.name());
            is_editable(&name, HeaderEdit::Remove) && names.iter().any(|pattern| pattern.matches(&name))
        });
    }

    pub fn replace(&mut self, replacement: &Replacement) {
        if !self.may(&replacement.header, HeaderEdit::Replace) {
            return;
        }
        let mut notes = Vec::new();
        let header = changed(self.message.header(), |field| match replaced(field, replacement) {
            Ok(change) => change,
            Err(trouble) => {
                notes.push(trouble);
                FieldChange::Keep
            }
        });
        notes.into_iter().for_each(|trouble| self.note(&replacement.header, trouble));
        self.put(&replacement.header, header);
    }

    pub fn set_text(&mut self, name: &str, value: &str) {
        if self.may(name, HeaderEdit::Set) {
            self.set(name, text_field(name, value));
        }
    }

    pub fn add_text(&mut self, name: &str, value: &str) {
        if self.may(name, HeaderEdit::Add) {
            self.insert(name, text_field(name, value));
        }
    }

    /// Adds another field below the others.
    pub fn insert(&mut self, name: &str, field: Result<Field, HeaderTrouble>) {
        match field {
            Ok(field) => {
                let header = [self.message.header(), field.as_bytes()].concat();
                self.put(name, Some(header));
            }
            Err(trouble) => self.note(name, trouble),
        }
    }

    /// Records the note once, even if it concerns many fields: a message can have a hundred thousand.
    pub fn note(&mut self, header: &str, trouble: HeaderTrouble) {
        let note = RuleNote { rule: self.rule.clone(), header: header.to_owned(), trouble };
        if self.notes.last() != Some(&note) {
            self.notes.push(note);
        }
    }

    /// The first field of the name becomes `field` and any others are removed; if there is none, it is added.
    fn set(&mut self, name: &str, field: Result<Field, HeaderTrouble>) {
        if !self.message.has(name) {
            return self.insert(name, field);
        }
        match field {
            Ok(field) => {
                let mut field = Some(field);
                let header = changed(self.message.header(), |old| match old.is(name) {
                    true => field.take().map_or(FieldChange::Remove, FieldChange::Replace),
                    false => FieldChange::Keep,
                });
                self.put(name, header);
            }
            Err(trouble) => self.note(name, trouble),
        }
    }

    fn may(&mut self, name: &str, edit: HeaderEdit) -> bool {
        let may = is_editable(name, edit);
        if !may {
            self.note(name, HeaderTrouble::NotEditable);
        }
        may
    }

    fn put(&mut self, name: &str, header: Option<Vec<u8>>) {
        match header {
            Some(header) if header.len() > LARGEST.max(self.message.header().len()) => {
                self.note(name, HeaderTrouble::TooLarge);
            }
            Some(header) => self.message.replace_header(header),
            None => {}
        }
    }

    /// Separated by a space. A subject that cannot be decoded stays as it is, after the prefix.
    pub fn prefix_subject(&mut self, prefix: &str) {
        let raw = self.message.fields_named("Subject").next().map(|field| field.unfolded()).unwrap_or_default();
        let Ok(raw) = String::from_utf8(raw) else { return self.note("Subject", HeaderTrouble::Undecodable) };
        let field = match encoded_words::decode(&raw) {
            Some(subject) if subject.starts_with(prefix) => return,
            Some(subject) => text_field("Subject", format!("{prefix} {subject}").trim_end()),
            None => {
                let text = format!("{} {raw}", encoded_words::encode_text(prefix, "Subject: ".len()));
                Field::folded("Subject", &text).map_err(HeaderTrouble::from)
            }
        };
        self.set("Subject", field);
    }
}

fn copy(message: &RawMessage, from: &str, to: &str) -> Result<Field, HeaderTrouble> {
    let value = message.fields_named(from).next().map(|field| field.unfolded()).unwrap_or_default();
    let value = String::from_utf8(value).map_err(|_| HeaderTrouble::Undecodable)?;
    Ok(Field::folded(to, &value)?)
}
