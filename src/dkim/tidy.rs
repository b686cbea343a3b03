//! Normalises, before signing, what verifiers read in different ways: a signature over it would verify at some
//! receivers and fail at others. RFC 6376 §3.4.2, §3.4.4.
//!
//! Nothing here changes what a reader sees; a message without these oddities is not changed.

use crate::message::RawMessage;
use crate::message::headers::FieldRef;
use bytes::Bytes;

/// Removes white space before a colon; in the fields to be signed, form feeds and vertical tabs become spaces.
///
/// Both are obsolete (RFC 5322 §4.5, §4.1): some verifiers strip them, some keep them, and some refuse the whole
/// message because of one space in one name.
pub(super) fn header(message: &RawMessage, is_signed: impl Fn(&FieldRef<'_>) -> bool) -> Vec<u8> {
    let mut block = Vec::with_capacity(message.header().len());
    for field in message.fields() {
        let odd = is_signed(&field) && field.raw().iter().any(is_odd_space);
        if odd || !field.is_well_formed() {
            block.extend_from_slice(field.name());
            block.push(b':');
            block.extend(field.value().iter().map(|byte| if odd && is_odd_space(byte) { b' ' } else { *byte }));
            block.extend_from_slice(b"\r\n");
        } else {
            block.extend_from_slice(field.raw());
        }
    }
    block
}

fn is_odd_space(byte: &u8) -> bool {
    matches!(byte, b'\x0b' | b'\x0c')
}

/// Removes lines of only white space at the end, if any of them is not completely empty.
///
/// RFC 6376 §3.4.4 ignores them all, but some verifiers ignore only the empty ones. The rest stays shared.
pub(super) fn body(body: &Bytes) -> Bytes {
    let end = end_of_text(body);
    let last_line = match end {
        0 => 0,
        _ => memchr::memmem::find(&body[end..], b"\r\n").map_or(body.len(), |line_end| end + line_end + 2),
    };
    if body[last_line..].iter().any(|byte| b" \t".contains(byte)) { body.slice(..last_line) } else { body.clone() }
}

/// The position after the last octet that is not white space.
pub(super) fn end_of_text(body: &[u8]) -> usize {
    body.iter().rposition(|byte| !b" \t\r\n".contains(byte)).map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies() {
        for (before, after) in [
            ("", ""),
            ("\r\n", "\r\n"),
            ("\r\n\r\n", "\r\n\r\n"),
            ("text", "text"),
            ("text \t", "text \t"),
            ("text \r\n", "text \r\n"),
            ("text\r\n\r\n\r\n", "text\r\n\r\n\r\n"),
            (" \r\ntext\r\n", " \r\ntext\r\n"),
            ("text \r\n \r\n", "text \r\n"),
            ("text\r\n\r\n\t\r\n\r\n", "text\r\n"),
            ("text\r\n ", "text\r\n"),
            (" \t", ""),
            ("\r\n \r\n", ""),
            ("a\r\n \r\nb\r\n", "a\r\n \r\nb\r\n"),
        ] {
            assert_eq!(body(&Bytes::from_static(before.as_bytes())), after, "{before:?}");
        }
    }

    #[test]
    fn headers() {
        for (before, after) in [
            ("Subject: a\r\nX\t: \x0c\r\n", "Subject: a\r\nX: \x0c\r\n"),
            ("Subject:  a \r\n", "Subject:  a \r\n"),
            ("subject \t: a\r\n b\r\n", "subject: a\r\n b\r\n"),
            ("Subject: a\x0cb\r\n\t\x0b\r\n", "Subject: a b\r\n\t \r\n"),
            ("Subject:\r\n", "Subject:\r\n"),
        ] {
            let message = RawMessage::from_data(before.into()).expect("a message");
            let tidied = header(&message, |field| field.is("Subject"));
            assert_eq!(String::from_utf8_lossy(&tidied), after, "{before:?}");
        }
    }
}
