//! Re-encodes parts with body lines over 998 octets, which servers need not accept; no line is ever split. A part that
//! is not text, or has a file name, keeps every decoded octet. RFC 5321 §4.5.3.1.6, RFC 2045 §6.7, §6.8.

use super::parts::{self, Body, EditablePart, PartChange, encoded_size};
use super::step::{MemoryNeed, RepairScope, RepairStep};
use super::working_copy::WorkingCopy;
use crate::message::headers::MAX_LINE;
use crate::message::lines::has_long_line;
use crate::message::mime::{ContentFields, Encoding, with_soft_breaks};

/// Characters of a line, RFC 2045 §6.8.
const BASE64_LINE: usize = 76;

pub(super) const STEP: RepairStep = RepairStep {
    name: "long_lines",
    doc: &["Parts with lines over 998 octets are encoded; no line is ever split."],
    scope: RepairScope::RequiredBody,
    run: |message, _| {
        encode(message);
        Ok(())
    },
    memory: MemoryNeed { rewritten, decodes: |_, body| has_long_line(body), ..MemoryNeed::NONE },
};

pub(super) fn encode(message: &mut WorkingCopy) {
    if has_long_line(message.body()) {
        parts::edit(message, encoded);
    }
}

fn encoded(part: &EditablePart<'_>) -> Option<PartChange> {
    if !has_long_line(part.body) {
        return None;
    }
    match part.content.encoding {
        Encoding::Unknown => None,
        Encoding::Base64 => Some(PartChange { header: None, body: Some(Body::Octets(rewrapped(part.body)?)) }),
        Encoding::QuotedPrintable if part.content.is_shown_text() => {
            part.encoded(Some(part.content.decoded(part.body)?.into_owned()))
        }
        Encoding::QuotedPrintable => {
            // Unreadable content must not get a line break either.
            part.content.decoded(part.body)?;
            Some(PartChange { header: None, body: Some(Body::Octets(with_soft_breaks(part.body, MAX_LINE))) })
        }
        _ => part.encoded(None),
    }
}

/// The most octets that [`encoded`] can produce.
fn rewritten(content: &ContentFields, body: &[u8]) -> Option<usize> {
    match content.encoding {
        _ if !has_long_line(body) => None,
        Encoding::Unknown => None,
        // The characters, and their line breaks after every 76.
        Encoding::Base64 => Some(body.len() * 21 / 20),
        _ => Some(encoded_size(body)),
    }
}

/// The same characters in shorter lines.
fn rewrapped(base64: &[u8]) -> Option<Vec<u8>> {
    let characters: Vec<u8> = base64.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if !characters.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte)) {
        return None;
    }
    Some(characters.chunks(BASE64_LINE).collect::<Vec<_>>().join(&b"\r\n"[..]))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parts, table};

    fn part(head: &str, body: &str) -> String {
        parts(&[&format!("{head}\r\n{body}")])
    }

    #[test]
    fn before_and_after() {
        let long = "x".repeat(1000);
        let soft = format!("{}{}", format!("{}=\r\n", "x".repeat(75)).repeat(13), "x".repeat(25));
        let cte = "Content-Transfer-Encoding: quoted-printable\r\n";
        let base64 = "Content-Transfer-Encoding: base64\r\n";
        let cases = [
            (part("", &format!("a\r\n{long}\r\nb = c")), part(cte, &format!("a\r\n{soft}\r\nb =3D c"))),
            (
                part("Content-Type: application/json\r\nContent-Transfer-Encoding: 8bit\r\n", &long),
                part(&format!("Content-Type: application/json\r\n{cte}"), &soft),
            ),
            (part(cte, &format!("=41{long}=\r\n=42")), part(cte, &format!("A{}B", soft.replacen("x", "", 1) + "x"))),
            (
                part(base64, &"QUJD".repeat(300)),
                part(
                    base64,
                    &"QUJD"
                        .repeat(300)
                        .as_bytes()
                        .chunks(76)
                        .map(|line| String::from_utf8_lossy(line).into_owned())
                        .collect::<Vec<_>>()
                        .join("\r\n"),
                ),
            ),
            (
                format!("Subject: x\r\n\r\n{long}\r\n"),
                format!("Subject: x\r\n{cte}MIME-Version: 1.0\r\n\r\n{soft}\r\n"),
            ),
            // The decoded content stays unchanged: a program's line endings do not become those of a text.
            (
                part(&format!("Content-Type: application/pdf\r\n{cte}"), &format!("{}=0A=41\r\n b", "x".repeat(1000))),
                part(
                    &format!("Content-Type: application/pdf\r\n{cte}"),
                    &format!("{}{}=0A=41\r\n b", format!("{}=\r\n", "x".repeat(75)).repeat(13), "x".repeat(25)),
                ),
            ),
            (
                part(&format!("Content-Disposition: inline; filename=run.sh\r\n{cte}"), &"=0A".repeat(400)),
                part(
                    &format!("Content-Disposition: inline; filename=run.sh\r\n{cte}"),
                    &format!("{}{}", format!("{}=\r\n", "=0A".repeat(25)).repeat(15), "=0A".repeat(25)),
                ),
            ),
            (
                part(&format!("Content-Type: text/csv\r\n{cte}"), &"=0A".repeat(400)),
                part(
                    &format!("Content-Type: text/csv\r\n{cte}"),
                    &format!("{}{}", format!("{}=\r\n", "=0A".repeat(25)).repeat(15), "=0A".repeat(25)),
                ),
            ),
            // Text that people read gets line breaks.
            (part(cte, &"=0A".repeat(400)), part(cte, &"\r\n".repeat(400))),
        ];
        let cases: Vec<_> = cases.iter().map(|(before, after)| (before.as_str(), after.as_str())).collect();
        table(super::encode, &cases);
    }
    #[test]
    fn what_is_short_enough_or_must_not_change_stays() {
        let long = "x".repeat(1000);
        let limit = "x".repeat(998);
        let cte = "Content-Transfer-Encoding: quoted-printable\r\n";
        let base64 = "Content-Transfer-Encoding: base64\r\n";
        let messages = [
            part(&format!("Content-Type: application/pdf\r\n{cte}"), &format!("{long}=1")),
            part("", &format!("{limit}\r\n{limit}")),
            part("Content-Transfer-Encoding: x-own\r\n", &long),
            part(base64, &format!("{long}!")),
            part(cte, &format!("{long}=1")),
            part("Content-Type: message/rfc822\r\n", &format!("\r\n{long}")),
            part("Content-Type: application/pkcs7-mime\r\n", &long),
            part("Content-Type: multipart/encrypted; boundary=s\r\n", &format!("--s\r\n\r\n{long}\r\n--s--\r\n")),
        ];
        let cases: Vec<_> = messages.iter().map(|message| (message.as_str(), message.as_str())).collect();
        table(super::encode, &cases);
    }
}
