//! Re-encodes base64 text that would be readable and no longer in quoted-printable: filters treat it as an attempt to
//! hide. RFC 2045 §6.7.
//!
//! Base64 for text in other scripts, and for attachments, is correct and stays.

use super::parts::{self, EditablePart, PartChange};
use super::step::{MemoryNeed, RepairScope, RepairStep};
use super::working_copy::WorkingCopy;
use crate::message::charset::{extends_ascii, is_utf8};
use crate::message::mime::{Coding, Encoding};

pub(super) const STEP: RepairStep = RepairStep {
    name: "base64_text",
    doc: &["Text in base64 that would be readable without becomes quoted-printable."],
    scope: RepairScope::Body,
    run: |message, _| {
        uncover(message);
        Ok(())
    },
    memory: MemoryNeed {
        // It becomes quoted-printable only if that is no longer.
        rewritten: |content, body| {
            (content.encoding == Encoding::Base64 && content.is_shown_text()).then_some(body.len())
        },
        decodes: |content, _| content.is_shown_text(),
        ..MemoryNeed::NONE
    },
};

pub(super) fn uncover(message: &mut WorkingCopy) {
    parts::edit(message, uncovered);
}

fn uncovered(part: &EditablePart<'_>) -> Option<PartChange> {
    let content = part.content;
    if content.encoding != Encoding::Base64 || !content.is_shown_text() {
        return None;
    }
    let octets = content.decoded(part.body)?;
    let is_text = match &content.charset {
        Some(charset) => extends_ascii(charset) && memchr::memchr(0, &octets).is_none(),
        None => is_utf8(&octets),
    };
    if !is_text || Coding::QuotedPrintable.size(&octets) > part.body.len() {
        return None;
    }
    part.quoted_printable(octets.into_owned())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parts, table};
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;

    #[test]
    fn before_and_after() {
        let base64 = |head: &str, text: &str| {
            parts(&[&format!("{head}Content-Transfer-Encoding: base64\r\n\r\n{}", BASE64_STANDARD.encode(text))])
        };
        let quoted = |head: &str, body: &str| {
            parts(&[&format!("{head}Content-Transfer-Encoding: quoted-printable\r\n\r\n{body}")])
        };
        let kept = |head: &str, text: &str| (base64(head, text), base64(head, text));
        let html = "Content-Type: text/html;charset=UTF-8\r\n";
        let cases = [
            // gen_smtp.
            (base64(html, "<p>Hello,</p>\n<p>ä</p>\n"), quoted(html, "<p>Hello,</p>\r\n<p>=C3=A4</p>\r\n")),
            (base64("", "text\r\n\r\n"), quoted("", "text\r\n\r\n")),
            (base64("", ""), quoted("", "")),
            kept(html, "日本語の本文"),
            kept(html, "nul\0"),
            kept("Content-Type: text/plain; charset=utf-16\r\n", "abcdefgh"),
            kept("Content-Type: text/plain; charset=shift_jis\r\n", "abcdefgh"),
            kept("Content-Type: text/plain; name=a.txt\r\n", "abcdefgh"),
            kept(
                "Content-Type: text/plain\r\nContent-Disposition: inline; filename=\"run.sh\"\r\n",
                "#!/bin/sh\necho hello\n",
            ),
            kept("Content-Disposition: inline; filename*=UTF-8''run.sh\r\n", "#!/bin/sh\necho hello\n"),
            kept("Content-Type: application/json\r\n", "abcdefgh"),
        ];
        let cases: Vec<_> = cases.iter().map(|(before, after)| (before.as_str(), after.as_str())).collect();
        table(super::uncover, &cases);
        let broken = parts(&["Content-Transfer-Encoding: base64\r\n\r\nnot base64!"]);
        table(super::uncover, &[(&broken, &broken)]);
    }
}
