//! How much memory the repair of a message takes while it lasts: text that is encoded anew stands there several times.
//! An upper bound by looking, not by doing; the caller's budget has the last word.

use super::Repairs;
use super::long_lines::has_long_line;
use crate::message::RawMessage;
use crate::message::mime::{Encoding, Entity, Structure, longest_quoted_printable};

/// Octets beside the message itself.
pub fn room(message: &RawMessage, repairs: &Repairs) -> usize {
    let structure = Structure::of(message);
    let body = message.body();
    let encoded: usize =
        structure.leaves().map(|(_, entity)| of_part(entity, &body[entity.body.clone()], repairs)).sum();
    // The parts encoded, and then the body with them.
    if encoded > 0 { 2 * encoded + body.len() } else { 0 }
}

/// Octets of what the steps may make of a part; each asks what its step asks, but for what only decoding would tell.
fn of_part(entity: &Entity, body: &[u8], repairs: &Repairs) -> usize {
    let content = &entity.content;
    let is_wrapped = repairs.long_lines && has_long_line(body);
    let is_declared = repairs.transfer_encoding
        && content.is_text()
        && matches!(content.encoding, Encoding::Absent | Encoding::SevenBit)
        && !body.is_ascii();
    match content.encoding {
        // Decoded it is shorter by a quarter. It becomes quoted-printable only if that is no longer.
        Encoding::Base64 if repairs.base64_text && content.is_shown_text() => body.len() * 9 / 4,
        // The characters, and they in lines of 76.
        Encoding::Base64 if is_wrapped => body.len() * 21 / 20,
        Encoding::Base64 | Encoding::Unknown => 0,
        _ if is_wrapped || is_declared => longest_quoted_printable(body),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MailId;
    use crate::message::repair::testing::NOW;
    use crate::message::repair::{Context, Repairs, repair};

    fn message(data: &str) -> RawMessage {
        RawMessage::from_data(data.to_owned().into()).expect("a message")
    }

    #[test]
    fn there_is_room_for_what_is_encoded_anew_and_none_is_asked_for_what_stays() {
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
            let context = Context { now, id: MailId::new(now, 7), host: "gw.example.com" };
            let repaired = repair(&message, &Repairs::ALL, &context).message;
            let octets = room(&message, &Repairs::ALL);
            assert_eq!(octets > 0, is_needed, "{data:.80}");
            assert_eq!(room(&message, &Repairs::NONE), 0, "{data:.80}");
            let is_new = repaired.body().as_ptr() != message.body().as_ptr();
            assert!(
                !is_new || octets >= 2 * repaired.body().len(),
                "{octets} for {}: {data:.80}",
                repaired.body().len()
            );
        }
    }
}
