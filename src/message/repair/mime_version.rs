//! MIME-Version if MIME is used, in the RFC's spelling, because filters penalise other spellings. RFC 2045 §4.

use super::step::{MemoryNeed, RepairScope, RepairStep};
use crate::message::headers::{Field, FieldChange};
use crate::message::{RawMessage, mime};

const NAME: &str = "MIME-Version";

pub(super) const STEP: RepairStep = RepairStep {
    name: "mime_version",
    doc: &["A missing MIME-Version is added."],
    scope: RepairScope::Header,
    run: |message, _| {
        declare(message);
        Ok(())
    },
    memory: MemoryNeed::NONE,
};

pub(super) fn declare(message: &mut RawMessage) {
    let given: Vec<_> = message.fields_named(NAME).collect();
    match given.as_slice() {
        [] if message.fields().any(|field| mime::is_content(&field)) => add(message),
        [only] if only.name() != NAME.as_bytes() => respell(message),
        _ => {}
    }
}

fn respell(message: &mut RawMessage) {
    message.edit_fields(|field| {
        let value = field.unfolded();
        let spelled = std::str::from_utf8(&value).ok().and_then(|value| Field::folded(NAME, value).ok());
        match spelled.filter(|_| field.is(NAME)) {
            Some(spelled) => FieldChange::Replace(spelled),
            None => FieldChange::Keep,
        }
    });
}

/// For a message that has just begun to use MIME.
pub(in crate::message) fn add(message: &mut RawMessage) {
    if !message.has(NAME)
        && let Ok(field) = Field::new(NAME, &["1.0"])
    {
        message.append(&field);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::table;

    #[test]
    fn before_and_after() {
        table(
            |message| super::declare(message),
            &[
                ("Mime-Version: 1.0\r\nA: b\r\n\r\n", "MIME-Version: 1.0\r\nA: b\r\n\r\n"),
                ("MIME-version :\r\n\t1.0 (x)\r\n\r\n", "MIME-Version: 1.0 (x)\r\n\r\n"),
                ("Content-Type: text/html\r\n\r\nx", "Content-Type: text/html\r\nMIME-Version: 1.0\r\n\r\nx"),
                ("MIME-Version:1.0\r\n\r\n", "MIME-Version:1.0\r\n\r\n"),
                ("Mime-Version: 1.0\r\nMIME-VERSION: 1.0\r\n\r\n", "Mime-Version: 1.0\r\nMIME-VERSION: 1.0\r\n\r\n"),
                ("Subject: no MIME\r\n\r\n", "Subject: no MIME\r\n\r\n"),
            ],
        );
    }
}
