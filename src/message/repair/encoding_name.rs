//! Corrects an invalid Content-Transfer-Encoding such as `8-bit`, `quoted printable` or `utf-8` to the encoding that is meant,
//! so that readers and the other steps can decode the body. RFC 2045 §6.1, §6.4.

use super::parts;
use super::step::{MemoryNeed, RepairScope, RepairStep};
use super::working_copy::WorkingCopy;
use crate::message::headers::{Field, FieldChange, FieldRef, changed};
use crate::message::mime::{ContentFields, Encoding};

const NAME: &str = "Content-Transfer-Encoding";

pub(super) const STEP: RepairStep = RepairStep {
    name: "encoding_name",
    doc: &["A Content-Transfer-Encoding that does not exist, such as 8-bit or utf-8, is written as what it means."],
    scope: RepairScope::Header,
    run: |message, _| {
        respell(message);
        Ok(())
    },
    memory: MemoryNeed { edits_header: |_, header| respelled(header).is_some(), ..MemoryNeed::NONE },
};

pub(super) fn respell(message: &mut WorkingCopy) {
    if let Some(header) = respelled(message.header()) {
        message.replace_header(header);
    }
    parts::edit_headers(message, respelled);
}

fn respelled(block: &[u8]) -> Option<Vec<u8>> {
    let content = ContentFields::of(block, "text/plain");
    if content.is_sealed() {
        return None;
    }
    changed(block, |field| {
        let wanted = if field.is(NAME) { meant(field, &content) } else { None };
        match wanted.and_then(|wanted| Field::new(NAME, &[wanted]).ok()) {
            Some(field) => FieldChange::Replace(field),
            None => FieldChange::Keep,
        }
    })
}

/// `None` if the name is valid, or if its meaning is unknown.
fn meant(field: &FieldRef<'_>, content: &ContentFields) -> Option<&'static str> {
    // A multipart has no encoding of its own; its parts do.
    if content.is_multipart() {
        return matches!(content.encoding, Encoding::QuotedPrintable | Encoding::Base64 | Encoding::Unknown)
            .then_some("8bit");
    }
    let value = field.unfolded();
    let wanted = content.encoding.name()?;
    let is_right = value.eq_ignore_ascii_case(wanted.as_bytes());
    (!is_right).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parts, table};

    #[test]
    fn before_and_after() {
        for (before, after) in [
            ("8-bit", "8bit"),
            ("8 bit", "8bit"),
            ("8Bits", "8bit"),
            ("utf-8", "8bit"),
            ("UTF8", "8bit"),
            ("iso-8859-1", "8bit"),
            ("windows-1252", "8bit"),
            ("none", "8bit"),
            ("7-bit", "7bit"),
            ("us-ascii", "8bit"),
            ("\"7bit\"", "7bit"),
            ("quoted printable", "quoted-printable"),
            ("QuotedPrintable", "quoted-printable"),
            ("quoted_printable;", "quoted-printable"),
            ("base-64", "base64"),
            ("base64;", "base64"),
            ("Base64 (a comment)", "base64"),
            ("", "7bit"),
        ] {
            let message = |value: &str| format!("Content-transfer-encoding: {value}\r\nA: b\r\n\r\nx");
            let after = format!("Content-Transfer-Encoding: {after}\r\nA: b\r\n\r\nx");
            table(super::respell, &[(&message(before), &after)]);
            let in_part = |head: &str| parts(&[&format!("{head}: {before}\r\n\r\nx")]);
            let part = parts(&[&after.replace("A: b\r\n", "")]);
            table(super::respell, &[(&in_part("Content-Transfer-Encoding"), &part)]);
        }
        for right in
            ["8bit", "7BIT", "Binary", "Quoted-Printable", "BASE64", "x-own", "x-uuencode", "uuencode", "x-base-64"]
        {
            let message = format!("Content-transfer-encoding: {right}\r\n\r\nx");
            table(super::respell, &[(&message, &message)]);
        }
        let multipart = |encoding: &str| {
            format!("Content-Type: multipart/mixed; boundary=b\r\n{encoding}\r\n--b\r\n\r\nx\r\n--b--\r\n")
        };
        let header = |name: &str| format!("Content-Transfer-Encoding: {name}\r\n");
        let signed = "Content-Type: multipart/signed; boundary=b\r\nContent-Transfer-Encoding: 8-bit\r\n\r\n--b--\r\n";
        table(
            super::respell,
            &[
                (&multipart(&header("base64")), &multipart(&header("8bit"))),
                (&multipart(&header("quoted-printable")), &multipart(&header("8bit"))),
                (&multipart(&header("7bit")), &multipart(&header("7bit"))),
                (signed, signed),
            ],
        );
    }
}
