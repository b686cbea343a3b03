//! How much memory the repair of a message needs at its peak: re-encoded text is held several times.
//! An upper bound by looking, not by doing; the caller's budget has the last word.

use super::parts::coding_of;
use super::{Repairs, text_part};
use crate::message::RawMessage;
use crate::message::headers::MAX_LINE;
use crate::message::lines::has_long_line;
use crate::message::mime::{Coding, Encoding, Entity, Structure, longest_quoted_printable};
use memchr::memmem;

/// Octets for each of the header while its fields are parsed and rewritten.
const OF_HEADER: usize = 16;

/// Octets beside the message itself that the steps on its own header take.
pub fn header_room(message: &RawMessage) -> usize {
    OF_HEADER * message.header().len()
}

/// Octets beside the message itself that the steps on its body take.
pub fn memory_needed(message: &RawMessage, repairs: &Repairs) -> usize {
    let structure = Structure::of(message);
    let body = message.body();
    let (mut growth, mut decoded, mut is_new) = (0, 0, is_edited(message, &structure, repairs));
    for (_, entity) in structure.leaves() {
        let octets = &body[entity.body.clone()];
        if let Some(new) = of_part(entity, octets, repairs) {
            growth += new.saturating_sub(octets.len());
            is_new = true;
        }
        if is_decoded(entity, octets, repairs) {
            decoded = octets.len().max(decoded);
        }
    }
    // One step makes a body of that of the one before it.
    let bodies = match repairs.only_encodes_long_lines() && structure.root().is_leaf() {
        true => usize::from(is_new),
        false => 2 * usize::from(is_new),
    };
    let text = if repairs.text_part { text_part::memory_needed(&structure) } else { 0 };
    let around = if text > 0 { 2 * body.len() } else { 0 };
    bodies * (body.len() + growth) + decoded + text + around
}

/// Octets of what the steps may make of a part, `None` if nothing; each asks what its step asks, but for what only decoding
/// would tell.
fn of_part(entity: &Entity, body: &[u8], repairs: &Repairs) -> Option<usize> {
    let content = &entity.content;
    let is_wrapped = repairs.long_lines && has_long_line(body);
    let is_declared = repairs.transfer_encoding
        && content.is_text()
        && matches!(content.encoding, Encoding::Absent | Encoding::SevenBit)
        && !body.is_ascii();
    match content.encoding {
        // It becomes quoted-printable only if that is no longer.
        Encoding::Base64 if repairs.base64_text && content.is_shown_text() => Some(body.len()),
        // The characters, and they in lines of 76.
        Encoding::Base64 if is_wrapped => Some(body.len() * 21 / 20),
        Encoding::Base64 | Encoding::Unknown => None,
        _ if is_wrapped || is_declared => Some(match coding_of(body) {
            Coding::Base64 => Coding::base64_size(body.len()) + 2,
            Coding::QuotedPrintable => longest_quoted_printable(body),
        }),
        _ => None,
    }
}

/// What is behind its transfer encoding is looked at.
fn is_decoded(entity: &Entity, body: &[u8], repairs: &Repairs) -> bool {
    let is_read = (repairs.base64_text || repairs.charset) && entity.content.is_shown_text();
    match entity.content.encoding {
        Encoding::Base64 => is_read || repairs.long_lines && has_long_line(body),
        Encoding::QuotedPrintable => is_read || repairs.long_lines && has_long_line(body),
        _ => false,
    }
}

/// A step may rewrite the body for the frame around its parts, or for their headers.
fn is_edited(message: &RawMessage, structure: &Structure, repairs: &Repairs) -> bool {
    let root = structure.root();
    let is_flattened = repairs.flatten && root.content.is("multipart/mixed") && root.children.len() == 1;
    let is_edited = |entity: &Entity| {
        let header = &message.body()[entity.header.clone()];
        let is_odd =
            || !header.is_ascii() || [&b"=?"[..], b"\"\""].iter().any(|odd| memmem::find(header, odd).is_some());
        repairs.header_text && is_odd()
            || repairs.header_folding && header.len() > MAX_LINE
            || repairs.charset && entity.content.is_shown_text() && entity.content.charset.is_none()
    };
    is_flattened || structure.entities().iter().skip(1).any(is_edited)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MailId;
    use crate::message::repair::testing::NOW;
    use crate::message::repair::{RepairInputs, Repairs, repair};

    fn message(data: &str) -> RawMessage {
        RawMessage::from_data(data.to_owned().into()).expect("a message")
    }

    #[test]
    fn memory_covers_re_encoded_parts_and_nothing_for_unchanged_ones() {
        let base64 = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n";
        let image = "Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n";
        let eight_bit = "\u{e4}\u{f6}\u{fc}\r\n".repeat(1000);
        for (data, is_needed) in [
            (format!("A: b\r\n\r\n{}", "plain\r\n".repeat(1000)), false),
            (format!("A: b\r\n\r\n{eight_bit}"), true),
            (format!("Content-Transfer-Encoding: 7bit\r\n\r\n{eight_bit}"), true),
            (format!("Content-Transfer-Encoding: 8bit\r\n\r\n{eight_bit}"), false),
            (format!("Content-Transfer-Encoding: x-own\r\n\r\n{}", "\u{e4}".repeat(5000)), false),
            (format!("Content-Type: image/png\r\n\r\n{eight_bit}"), false),
            (format!("Content-Transfer-Encoding: 8bit\r\n\r\n{}", "\u{e4}".repeat(5000)), true),
            (format!("A: b\r\n\r\n{}", "x".repeat(5000)), true),
            (format!("A: b\r\n\r\n{}", "=".repeat(5000)), true),
            (format!("{base64}{}", "dGV4dCBhbmQgdGV4dA==\r\n"), true),
            (format!("{base64}{}", "YWJj".repeat(2000)), true),
            (format!("{image}{}", "YWJj".repeat(2000)), true),
            (format!("{image}{}", "YWJj\r\n".repeat(900)), false),
            (format!("Content-Type: message/rfc822\r\n\r\n{}", "\u{e4}".repeat(2000)), false),
        ] {
            let message = message(&data);
            let now = NOW.parse().expect("a time");
            let context = RepairInputs { now, id: MailId::new(now, 7), host: "gw.example.com" };
            let repaired = repair(&message, &Repairs::ALL, &context).message;
            let octets = memory_needed(&message, &Repairs::ALL);
            assert_eq!(octets > 0, is_needed, "{data:.80}");
            assert_eq!(memory_needed(&message, &Repairs::NONE), 0, "{data:.80}");
            let is_new = repaired.body().as_ptr() != message.body().as_ptr();
            assert!(
                !is_new || octets >= 2 * repaired.body().len(),
                "{octets} for {}: {data:.80}",
                repaired.body().len()
            );
        }
    }
}
