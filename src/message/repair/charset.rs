//! Declares the charset of texts that do not state it, if it is certainly UTF-8. RFC 2046 §4.1.2.
//!
//! Other octets stay undeclared: the reader's guess is as good as ours.

use super::parts::{self, EditablePart, PartChange};
use super::step::{MemoryNeed, RepairScope, RepairStep};
use super::working_copy::WorkingCopy;
use crate::message::charset::is_utf8;
use crate::message::headers::{Field, FieldRef, Fields};
use crate::message::mime::{ContentFields, with_field};

const NAME: &str = "Content-Type";

pub(super) const STEP: RepairStep = RepairStep {
    name: "charset",
    doc: &["Text without a charset is declared as UTF-8, if it is."],
    scope: RepairScope::Body,
    run: |message, _| {
        declare(message);
        Ok(())
    },
    memory: MemoryNeed {
        decodes: |content, _| content.is_shown_text(),
        edits_header: |content, _| content.is_shown_text() && content.charset.is_none(),
        ..MemoryNeed::NONE
    },
};

pub(super) fn declare(message: &mut WorkingCopy) {
    parts::edit(message, declared);
}

fn declared(part: &EditablePart<'_>) -> Option<PartChange> {
    if !part.content.is_shown_text() || part.content.charset.is_some() {
        return None;
    }
    let octets = part.content.decoded(part.body)?;
    // Without a Content-Type, a text counts as ASCII.
    if !is_utf8(&octets) || !part.content.has_type && octets.is_ascii() {
        return None;
    }
    let given = Fields::new(part.header).find(|field| field.is(NAME));
    let field = match given {
        Some(given) => with_charset(&given)?,
        None => Field::folded(NAME, "text/plain; charset=utf-8").ok()?,
    };
    let header = with_field(part.header, NAME, &field);
    // An unclosed comment or quote would swallow it.
    let is_seen = ContentFields::of(&header, "").charset.is_some();
    is_seen.then_some(PartChange { header: Some(header), body: None })
}

fn with_charset(field: &FieldRef<'_>) -> Option<Field> {
    let name = std::str::from_utf8(field.name()).ok()?;
    let value = String::from_utf8(field.unfolded()).ok()?;
    let value = value.trim_end_matches([' ', '\t', ';']);
    Field::folded(name, &format!("{value}; charset=utf-8")).ok()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parts, table};

    #[test]
    fn before_and_after() {
        let part = |head: &str, body: &str| parts(&[&format!("{head}\r\n{body}")]);
        let kept = |head: &str, body: &str| (part(head, body), part(head, body));
        let long = "b".repeat(60);
        let cases = [
            // The older bamboo_mua.
            (
                part("Content-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n", "gr=C3=BCn"),
                part(
                    "Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n",
                    "gr=C3=BCn",
                ),
            ),
            (part("content-TYPE: text/plain;\r\n", "x"), part("content-TYPE: text/plain; charset=utf-8\r\n", "x")),
            (
                part(&format!("Content-Type: text/plain; format=flowed; x={long}\r\n"), "x"),
                part(&format!("Content-Type: text/plain; format=flowed;\r\n x={long};\r\n charset=utf-8\r\n"), "x"),
            ),
            (part("", "ä"), part("Content-Type: text/plain; charset=utf-8\r\n", "ä")),
            (
                "Subject: x\r\n\r\nä".to_owned(),
                "Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\nMIME-Version: 1.0\r\n\r\nä".to_owned(),
            ),
            kept("", "x"),
            kept("Content-Type: text/plain; charset=us-ascii\r\n", "x"),
            kept("Content-Type: text/plain\r\n", "\u{1b}$B%O\u{1b}(B"),
            kept("Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n", "gr=FCn"),
            kept("Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n", "gr=F"),
            kept("Content-Type: text/plain\r\nContent-Disposition: attachment\r\n", "x"),
            kept("Content-Type: text/plain\r\nContent-Disposition: inline; filename=a.txt\r\n", "x"),
            kept("Content-Type: text/calendar\r\n", "x"),
            kept("Content-Type: text\r\n", "x"),
            kept("Content-Type: text/html (open\r\n", "x"),
            kept("Content-Type: message/rfc822\r\n", "Content-Type: text/plain\r\n\r\nx"),
            kept(
                "Content-Type: multipart/signed; boundary=s\r\n",
                "--s\r\nContent-Type: text/plain\r\n\r\nx\r\n--s--\r\n",
            ),
        ];
        let cases: Vec<_> = cases.iter().map(|(before, after)| (before.as_str(), after.as_str())).collect();
        table(super::declare, &cases);
    }
}
