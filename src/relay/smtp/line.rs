//! Command lines: the one constructor for all commands, and which of them are allowed before TLS.
//!
//! A line never holds CR, LF or NUL, so no value from a configuration, a login or an address becomes a second command.

use std::fmt;

/// In octets including CRLF; RFC 4954 §4 allows an AUTH line of this length.
const MAX: usize = 12_288;

/// One command, CRLF included.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::relay) struct CommandLine {
    wire: String,
    /// The text that a log shows instead.
    shown: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it holds a line break or NUL, or is too long for a command")]
pub(super) struct NotALine;

impl CommandLine {
    pub(super) fn new(text: &str) -> Result<Self, NotALine> {
        if text.len() + 2 > MAX || text.contains(['\r', '\n', '\0']) {
            return Err(NotALine);
        }
        Ok(Self { wire: format!("{text}\r\n"), shown: None })
    }

    /// A line that is printed as `shown`.
    pub(super) fn secret(text: &str, shown: &'static str) -> Result<Self, NotALine> {
        Ok(Self { shown: Some(shown), ..Self::new(text)? })
    }

    pub(super) fn fixed(verb: &'static str) -> Self {
        Self { wire: format!("{verb}\r\n"), shown: None }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.wire.as_bytes()
    }
}

/// Without CRLF and secrets.
impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown.unwrap_or(self.wire.trim_end_matches("\r\n")))
    }
}

impl fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Line({self})")
    }
}

/// Everything that may be sent on an unencrypted session.
#[derive(Debug)]
pub(in crate::relay) enum Opening {
    Ehlo(CommandLine),
    StartTls,
}

impl From<Opening> for CommandLine {
    fn from(opening: Opening) -> Self {
        match opening {
            Opening::Ehlo(line) => line,
            Opening::StartTls => CommandLine::fixed("STARTTLS"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_becomes_a_second_command() {
        for text in ["MAIL FROM:<a@b>\r\nRCPT TO:<c@d>", "EHLO a\nQUIT", "AUTH PLAIN \0", &"x".repeat(MAX)] {
            assert_eq!(CommandLine::new(text), Err(NotALine));
        }
    }

    #[test]
    fn a_secret_line_is_masked_in_print_only() {
        let line = CommandLine::secret("AUTH PLAIN c2VjcmV0", "AUTH PLAIN ***").expect("a line");
        assert_eq!((line.to_string().as_str(), line.as_bytes()), ("AUTH PLAIN ***", &b"AUTH PLAIN c2VjcmV0\r\n"[..]));
        assert!(!format!("{line:?}").contains("c2Vj"));
    }
}
