//! Finds lines that are too long for mail: every server accepts 998 octets and the CRLF. RFC 5321 §4.5.3.1.6, RFC 5322
//! §2.1.1.

use super::headers::MAX_LINE;
use super::raw::RawMessage;
use std::fmt;

/// The first line that is too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LongLine {
    place: Place,
    /// Its length without the CRLF.
    octets: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// The field's name, possibly shortened.
    Field(String),
    /// Counted from 1.
    Body(usize),
}

/// Maximum octets of a field's name in the message.
const MAX_SHOWN_NAME: usize = 60;

/// `None`: no line is too long.
pub fn first_long_line(message: &RawMessage) -> Option<LongLine> {
    if has_long_line(message.header()) {
        for field in message.fields() {
            if let Some((_, octets)) = long_line(field.raw()) {
                let name = field.name();
                let name = String::from_utf8_lossy(&name[..name.len().min(MAX_SHOWN_NAME)]).into_owned();
                return Some(LongLine { place: Place::Field(name), octets });
            }
        }
    }
    let (before, octets) = long_line(message.body())?;
    Some(LongLine { place: Place::Body(before + 1), octets })
}

pub(in crate::message) fn has_long_line(text: &[u8]) -> bool {
    long_line(text).is_some()
}

/// The number of lines before it, and its length in octets.
fn long_line(text: &[u8]) -> Option<(usize, usize)> {
    let mut start = 0;
    let ends = memchr::memchr_iter(b'\n', text).map(|end| end + 1).chain([text.len()]);
    for (before, end) in ends.enumerate() {
        let line = &text[start..end];
        let octets = line.strip_suffix(b"\r\n").unwrap_or(line).len();
        if octets > MAX_LINE {
            return Some((before, octets));
        }
        start = end;
    }
    None
}

impl fmt::Display for LongLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octets = self.octets;
        match &self.place {
            Place::Field(name) => {
                write!(f, "the header field {name} has a line of {octets} octets that cannot be folded")?
            }
            Place::Body(line) => write!(f, "line {line} of the body has {octets} octets and may not be re-encoded")?,
        }
        write!(f, "; no line of a mail may be longer than {MAX_LINE}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_long_line_is_named() {
        let long = "x".repeat(MAX_LINE + 1);
        let most = "x".repeat(MAX_LINE);
        let name = "N".repeat(100);
        for (data, expected) in [
            (format!("A: b\r\n\r\n{most}\r\n{most}"), None),
            (format!("A: b\r\n\r\nx\r\n{long}\r\n"), Some("line 2 of the body has 999 octets")),
            (format!("A: b\r\n\r\n{long}"), Some("line 1 of the body has 999 octets")),
            (
                format!("A:\r\n b\r\nX-Y:\r\n {long}\r\n\r\n{long}"),
                Some("the header field X-Y has a line of 1000 octets"),
            ),
            (format!("{name}: {long}\r\n\r\n"), Some("the header field NNNNNNNN")),
        ] {
            let message = RawMessage::from_data(data.into()).expect("a message");
            let found = first_long_line(&message).map(|line| line.to_string());
            assert_eq!(found.is_some(), expected.is_some(), "{found:?}");
            let found = found.unwrap_or_default();
            assert!(found.starts_with(expected.unwrap_or_default()) && found.len() < 200, "{found}");
        }
    }
}
