//! Quotes names in address fields that need quotes: `Example, Inc. <a@b>`. Addresses do not change, except that dots which
//! need quotes get them. RFC 5322 §3.4.
//!
//! Runs before the author is checked, so that the result can be read in one way only, and that author is checked. A field
//! that could also mean another address is left as it is.

use super::raw_text::RawCharset;
use super::step::{MemoryNeed, RepairScope, RepairStep};
use crate::message::headers::{Field, FieldChange, FieldRef};
use crate::message::{RawMessage, addresses, name_quoting};

pub(super) const STEP: RepairStep = RepairStep {
    name: "display_names",
    doc: &[
        "Names with a comma, a colon, an @ or a quote in them are put in quotes, if one address in brackets follows.",
    ],
    scope: RepairScope::Author,
    run: |message, _| {
        quote(message);
        Ok(())
    },
    memory: MemoryNeed::NONE,
};

pub(super) fn quote(message: &mut RawMessage) {
    let is_utf8 = std::str::from_utf8(message.header()).is_ok();
    let raw = if is_utf8 { RawCharset::default() } else { RawCharset::of(message) };
    message.edit_fields(|field| quoted(field, &raw).map_or(FieldChange::Keep, FieldChange::Replace));
}

fn quoted(field: &FieldRef<'_>, raw: &RawCharset) -> Option<Field> {
    let name = std::str::from_utf8(field.name()).ok().filter(|name| addresses::are_in(name.as_bytes()))?;
    let (value, was_raw) = raw.decode(&field.unfolded()).filter(|_| field.is_well_formed())?;
    let quoted = name_quoting::quoted(&value, name.len() + 2).filter(|quoted| !was_raw || quoted.is_ascii())?;
    Field::folded(name, &quoted).ok()
}

#[cfg(test)]
mod tests {
    use super::super::testing::table;

    #[test]
    fn before_and_after() {
        let kept = |text: &'static str| (text, text);
        let long = "To: A,\r\n B <a@b>,\r\n\tC <c@d>\r\n\r\n";
        table(
            |message| super::quote(message),
            &[
                (
                    "From: Example, Inc. <app@example.com>\r\nSubject: a, b <c@d>\r\n\r\nFrom: A, B <c@d>",
                    "From: \"Example, Inc.\" <app@example.com>\r\nSubject: a, b <c@d>\r\n\r\nFrom: A, B <c@d>",
                ),
                ("to: \"5\" Floppy\" <a@b>\r\n\r\n", "to: \"5\\\" Floppy\" <a@b>\r\n\r\n"),
                ("Cc: a@b; c@d\r\n\r\n", "Cc: a@b, c@d\r\n\r\n"),
                ("Reply-To: Help: you <a@b>\r\n\r\n", "Reply-To: \"Help: you\" <a@b>\r\n\r\n"),
                ("Sender: x@y <a@b>\r\n\r\n", "Sender: \"x@y\" <a@b>\r\n\r\n"),
                (long, "To: \"A, B\" <a@b>, C <c@d>\r\n\r\n"),
                ("From: J\u{fc}rgen, Inc. <a@b>\r\n\r\n", "From: =?UTF-8?Q?J=C3=BCrgen=2C_Inc=2E?= <a@b>\r\n\r\n"),
                kept("To: A <a@b>,\r\n\tC <c@d>\r\n\r\n"),
                kept("From : A, B <a@b>\r\n\r\n"),
                kept("From: A <a@b> <c@d>\r\n\r\n"),
                kept("To: Team: A, B <a@b>;\r\n\r\n"),
            ],
        );
    }

    #[test]
    fn a_name_in_another_charset_can_be_quoted() {
        let data = b"From: J\xfcrgen, Inc. <a@b>\r\nTo: A, B <\xfc@b>\r\n\r\n";
        let mut message = crate::message::RawMessage::from_data(data[..].into()).expect("a message");
        super::quote(&mut message);
        let expected = b"From: =?UTF-8?Q?J=C3=BCrgen=2C_Inc=2E?= <a@b>\r\nTo: A, B <\xfc@b>\r\n\r\n";
        assert_eq!(message.to_bytes().escape_ascii().to_string(), expected.escape_ascii().to_string());
    }
}
