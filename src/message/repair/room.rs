//! How much memory the repair of a message takes while it lasts: text that is encoded anew stands there several times.
//! An upper bound by looking, not by doing; the caller's budget has the last word.

use super::long_lines::has_long_line;
use crate::message::RawMessage;
use crate::message::mime::{Encoding, Entity, Structure, longest_quoted_printable};

/// Octets beside the message itself.
pub fn room(message: &RawMessage) -> usize {
    let structure = Structure::of(message);
    let body = message.body();
    let encoded: usize = structure.leaves().map(|(_, entity)| of_part(entity, &body[entity.body.clone()])).sum();
    // The parts encoded, and then the body with them.
    if encoded > 0 { 2 * encoded + body.len() } else { 0 }
}

/// Octets of a part in quoted-printable, if a step may write it so.
fn of_part(entity: &Entity, body: &[u8]) -> usize {
    let content = &entity.content;
    match content.encoding {
        // Decoded it is shorter by a quarter, and every octet of it may take three.
        Encoding::Base64 if content.is_shown_text() => body.len() * 9 / 4,
        Encoding::Base64 if !has_long_line(body) => 0,
        _ if !has_long_line(body) && body.is_ascii() => 0,
        _ => longest_quoted_printable(body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MailId;
    use crate::message::repair::testing::NOW;
    use crate::message::repair::{Context, Repairs, repair};

    #[test]
    fn there_is_room_for_what_is_encoded_anew_and_none_is_asked_for_what_stays() {
        let base64 = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n";
        for (data, is_needed) in [
            (format!("A: b\r\n\r\n{}", "plain\r\n".repeat(1000)), false),
            (format!("A: b\r\n\r\n{}", "\u{e4}\u{f6}\u{fc}\r\n".repeat(1000)), true),
            (format!("A: b\r\n\r\n{}", "x".repeat(5000)), true),
            (format!("A: b\r\n\r\n{}", "=".repeat(5000)), true),
            (format!("{base64}{}", "dGV4dCBhbmQgdGV4dA==\r\n"), true),
            (format!("{base64}{}", "YWJj".repeat(2000)), true),
            (
                format!(
                    "Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n{}",
                    "YWJj\r\n".repeat(900)
                ),
                false,
            ),
            (format!("Content-Type: message/rfc822\r\n\r\n{}", "\u{e4}".repeat(2000)), false),
        ] {
            let message = RawMessage::from_data(data.clone().into()).expect("a message");
            let now = NOW.parse().expect("a time");
            let context = Context { now, id: MailId::new(now, 7), host: "gw.example.com" };
            let repaired = repair(&message, &Repairs::ALL, &context).message;
            let room = room(&message);
            assert_eq!(room > 0, is_needed, "{data:.80}");
            let is_new = repaired.body().as_ptr() != message.body().as_ptr();
            assert!(!is_new || room >= 2 * repaired.body().len(), "{room} for {}: {data:.80}", repaired.body().len());
        }
    }
}
