//! How much memory the repair of a message needs at its peak, since re-encoded text is held several times. Adds up what
//! each step reports; the caller's budget decides.

use super::Repairs;
use super::step::RepairScope;
use crate::message::RawMessage;
use crate::message::mime::{Encoding, Entity, Structure};

/// Octets per octet of the header while its fields are parsed and rewritten.
const OF_HEADER: usize = 16;

/// Octets that the steps on the message's own header need besides the message itself.
pub fn header_room(message: &RawMessage) -> usize {
    OF_HEADER * message.header().len()
}

/// Octets that the steps on its body need besides the message itself.
pub fn memory_needed(message: &RawMessage, repairs: &Repairs) -> usize {
    let structure = Structure::of(message);
    let body = message.body();
    let mut growth = 0;
    let mut decoded = 0;
    let mut is_new = is_edited(message, &structure, repairs);
    for (_, entity) in structure.leaves() {
        let octets = &body[entity.body.clone()];
        if let Some(new) = repairs.steps().find_map(|step| (step.memory.rewritten)(&entity.content, octets)) {
            growth += new.saturating_sub(octets.len());
            is_new = true;
        }
        if is_decoded(entity, octets, repairs) {
            decoded = octets.len().max(decoded);
        }
    }
    // Each step creates a new body from that of the step before it.
    let is_one_step = repairs.steps().all(|step| step.scope != RepairScope::Body) && structure.root().is_leaf();
    let bodies = match is_new {
        false => 0,
        true if is_one_step => 1,
        true => 2,
    };
    let added = repairs.steps().map(|step| (step.memory.added_part)(&structure)).sum::<usize>();
    let around = if added > 0 { 2 * body.len() } else { 0 };
    bodies * (body.len() + growth) + decoded + added + around
}

/// Whether a step examines the decoded content.
fn is_decoded(entity: &Entity, body: &[u8], repairs: &Repairs) -> bool {
    matches!(entity.content.encoding, Encoding::Base64 | Encoding::QuotedPrintable)
        && repairs.steps().any(|step| (step.memory.decodes)(&entity.content, body))
}

/// A step may rewrite the body to change the structure around its parts, or their headers.
fn is_edited(message: &RawMessage, structure: &Structure, repairs: &Repairs) -> bool {
    let is_edited = |entity: &Entity| {
        let header = &message.body()[entity.header.clone()];
        repairs.steps().any(|step| (step.memory.edits_header)(&entity.content, header))
    };
    repairs.steps().any(|step| (step.memory.reframes)(structure)) || structure.entities().iter().skip(1).any(is_edited)
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
