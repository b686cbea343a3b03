//! The Message-ID as people search for it: one line, as the header has it. Never used to decide anything.

use super::headers::{Fields, without_spaces_around};
use crate::text::cleaned;

/// In characters, the maximum of a line (RFC 5322 §2.1.1).
const MAX: usize = 998;

/// `<left@right>`, without a comment after it; the whole value if it is malformed. `None` if there is none. `block`: whole
/// fields.
pub fn message_id(block: &[u8]) -> Option<String> {
    let field = Fields::new(block).find(|field| field.is("Message-ID"))?;
    let value = field.unfolded();
    let value = without_spaces_around(&value);
    let end = if value.starts_with(b"<") { memchr::memchr(b'>', value).map(|at| at + 1) } else { None };
    let text = String::from_utf8_lossy(&value[..end.unwrap_or(value.len())]);
    let text = cleaned(&text.chars().take(MAX).collect::<String>());
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let long = format!("Message-ID: <{}@b>\r\n", "x".repeat(2000));
        let cut = format!("<{}", "x".repeat(997));
        for (block, expected) in [
            ("Message-ID: <a@b>\r\n", Some("<a@b>")),
            ("message-id:<a@b> (a comment)\r\n", Some("<a@b>")),
            ("Message-ID:\r\n <a@b>\r\n", Some("<a@b>")),
            ("Message-ID: a@b\r\n", Some("a@b")),
            ("Message-ID: <a\u{1b}[31m@b\r\n", Some("<a?[31m@b")),
            ("Message-ID: <a@b>\r\nMessage-ID: <c@d>\r\n", Some("<a@b>")),
            ("Message-ID: \r\n", None),
            ("Subject: none\r\n", None),
            (&long, Some(&cut)),
        ] {
            assert_eq!(message_id(block.as_bytes()).as_deref(), expected, "{block:?}");
        }
    }
}
