//! `Selector`: the DNS labels that select one of a domain's DKIM keys.
//!
//! Validated once, so that it can break out of neither a header nor a zone file. RFC 6376 §3.1.

use std::fmt;

/// `_domainkey.` and the domain follow in the DNS name; 255 octets hold them all. RFC 1035 §2.3.4.
const MAX_LABEL: usize = 63;
const MAX_SELECTOR: usize = 127;

/// One or more labels of a-z, 0-9, "-" and "_", joined by dots.
///
/// Invariant: lower case, never empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("a selector must not be empty")]
    Empty,
    #[error("a selector is at most 127 characters long, 63 between two dots")]
    TooLong,
    #[error(
        "a selector consists of letters, digits, \"-\" and \"_\" (not at the ends) and single dots, as in \"wax1\""
    )]
    Syntax,
}

impl Selector {
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.is_empty() {
            return Err(SelectorError::Empty);
        }
        if text.len() > MAX_SELECTOR || text.split('.').any(|label| label.len() > MAX_LABEL) {
            return Err(SelectorError::TooLong);
        }
        if text.split('.').all(is_label) { Ok(Self(text.to_ascii_lowercase())) } else { Err(SelectorError::Syntax) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// RFC 6376 §3.1 takes sub-domain labels; the underscore inside is DNS practice (some providers use it).
fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    bytes.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        use SelectorError::*;
        let long = "a".repeat(64);
        for (text, expected) in [
            ("wax1", Ok("wax1")),
            ("Wax1", Ok("wax1")),
            ("2026-10", Ok("2026-10")),
            ("s_1", Ok("s_1")),
            ("mail.eu", Ok("mail.eu")),
            (&long[1..], Ok(&long[1..])),
            ("", Err(Empty)),
            (&long, Err(TooLong)),
            (".", Err(Syntax)),
            ("a..b", Err(Syntax)),
            ("a.", Err(Syntax)),
            ("-a", Err(Syntax)),
            ("_domainkey", Err(Syntax)),
            ("a;b", Err(Syntax)),
            ("a\r\nb", Err(Syntax)),
            ("a/../b", Err(Syntax)),
            ("wäx", Err(Syntax)),
        ] {
            assert_eq!(Selector::parse(text).map(|s| s.to_string()), expected.map(str::to_owned), "{text:?}");
        }
    }
}
