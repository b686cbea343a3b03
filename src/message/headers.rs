//! Header fields: the iterator over a header block's bytes, and the one constructor for new ones.
//!
//! Untouched fields stay byte-identical; an added field cannot break out of its line. RFC 5322 §2.2, §3.6.8.

/// One field of a header block, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldRef<'a> {
    raw: &'a [u8],
    colon: usize,
}

impl<'a> FieldRef<'a> {
    /// Including every fold and the final CRLF.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// As written; white space before the colon (RFC 5322 §4.5.8) is not part of it.
    pub fn name(&self) -> &'a [u8] {
        without_spaces_behind(&self.raw[..self.colon])
    }

    /// The colon follows the name immediately, as RFC 5322 §2.2 requires.
    pub fn is_well_formed(&self) -> bool {
        self.name().len() == self.colon
    }

    pub fn is(&self, name: &str) -> bool {
        self.name().eq_ignore_ascii_case(name.as_bytes())
    }

    /// The text after the colon, including folds, without the final CRLF.
    pub fn value(&self) -> &'a [u8] {
        let value = &self.raw[self.colon + 1..];
        value.strip_suffix(b"\r\n").unwrap_or(value)
    }

    /// The value on one line, without surrounding spaces and tabs. Other control characters stay, because readers
    /// differ on what they are.
    pub fn unfolded(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(self.value().len());
        line.extend(self.value().iter().copied().filter(|byte| !b"\r\n".contains(byte)));
        line.truncate(without_spaces_behind(&line).len());
        let text = without_spaces_around(&line).len();
        line.drain(..line.len() - text);
        line
    }
}

/// Fields of a header block in order. Stops at the first line that is neither field nor continuation.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub fn new(block: &'a [u8]) -> Self {
        Self { rest: block }
    }

    /// The unconsumed rest: empty for a valid block.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = FieldRef<'a>;

    fn next(&mut self) -> Option<FieldRef<'a>> {
        let colon = field_name_end(self.rest)?;
        let (raw, rest) = self.rest.split_at(end_of_field(self.rest));
        self.rest = rest;
        Some(FieldRef { raw, colon })
    }
}

// The position of the colon, if the line begins with a field name (RFC 5322 §3.6.8 ftext; white space before the colon
// is tolerated).
fn field_name_end(line: &[u8]) -> Option<usize> {
    let colon = line.iter().position(|&byte| byte == b':' || byte == b'\n')?;
    let name = line.get(..colon).filter(|_| line[colon] == b':').map(without_spaces_behind)?;
    (!name.is_empty() && name.iter().all(u8::is_ascii_graphic)).then_some(colon)
}

/// Without the spaces and tabs at its end; form feeds and the like are not white space. RFC 5234 B.1, WSP.
pub fn without_spaces_behind(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| !b" \t".contains(byte)).map_or(0, |last| last + 1);
    &text[..end]
}

/// The same at both ends.
pub fn without_spaces_around(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !b" \t".contains(byte)).unwrap_or(text.len());
    without_spaces_behind(&text[start..])
}

fn end_of_field(block: &[u8]) -> usize {
    let mut end = 0;
    while let Some(newline) = memchr::memchr(b'\n', &block[end..]) {
        end += newline + 1;
        if !matches!(block.get(end), Some(b' ' | b'\t')) {
            return end;
        }
    }
    block.len()
}

/// Why a value is not allowed in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("a header name is printable ASCII without a colon")]
    Name,
    #[error("a header value must not hold CR, LF, NUL or another control character")]
    ControlCharacter,
    #[error("a header line must not be longer than 998 octets")]
    TooLong,
}

/// Octets of a line without its CRLF, RFC 5322 §2.1.1.
pub const MAX_LINE: usize = 998;

/// A field to be added, as bytes with its CRLF.
///
/// Invariant: exactly one field, whatever the values were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field(String);

impl Field {
    /// RFC 5322 §2.1.1, less the CRLF.
    const FOLD_AT: usize = 78;

    /// `parts` are joined by a space if they fit into 78 columns, otherwise by a fold.
    pub fn new(name: &str, parts: &[&str]) -> Result<Self, FieldError> {
        Self::check_name(name)?;
        let mut text = format!("{name}:");
        let mut line = text.len();
        for part in parts.iter().filter(|part| !part.is_empty()) {
            if part.chars().any(is_unprintable) {
                return Err(FieldError::ControlCharacter);
            }
            if part.len() >= MAX_LINE {
                return Err(FieldError::TooLong);
            }
            // Never directly after the name: that would leave a line of only white space (RFC 5322 §3.2.2).
            if line + 1 + part.len() > Self::FOLD_AT && line > name.len() + 1 {
                text.push_str("\r\n\t");
                line = 1;
            } else {
                text.push(' ');
                line += 1;
            }
            text.push_str(part);
            line += part.len();
            if line > MAX_LINE {
                return Err(FieldError::TooLong);
            }
        }
        text.push_str("\r\n");
        Ok(Self(text))
    }

    /// A value on one line, folded before white space so that its lines stay within 76 columns if possible.
    ///
    /// 76 and not 78, because the value may contain encoded words (RFC 2047 §2). Unfolding yields `value`.
    pub fn folded(name: &str, value: &str) -> Result<Self, FieldError> {
        Self::check_name(name)?;
        if value.chars().any(|c| is_unprintable(c) && c != '\t') {
            return Err(FieldError::ControlCharacter);
        }
        let mut folded = format!("{name}:").into_bytes();
        fold(format!(" {}", value.trim_matches([' ', '\t'])).as_bytes(), &mut folded);
        folded.extend_from_slice(b"\r\n");
        if folded.split_inclusive(|&byte| byte == b'\n').any(|line| line.len() > MAX_LINE + 2) {
            return Err(FieldError::TooLong);
        }
        String::from_utf8(folded).map(Self).map_err(|_| FieldError::ControlCharacter)
    }

    fn check_name(name: &str) -> Result<(), FieldError> {
        let sound = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
        if sound { Ok(()) } else { Err(FieldError::Name) }
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

pub(in crate::message) fn is_unprintable(c: char) -> bool {
    c.is_control() || c == '\u{2028}' || c == '\u{2029}'
}

/// The column at which lines are folded. RFC 2047 §2.
const FOLDED_LINE: usize = 76;

/// Appends `text`, which contains no line break, to the unfinished line at the end of `out`: a CRLF is inserted before
/// white space where a line would exceed 76 columns. Never creates a line of only white space (RFC 5322 §3.2.2).
pub fn fold(text: &[u8], out: &mut Vec<u8>) {
    let is_space = |byte: &u8| b" \t".contains(byte);
    let line = out.iter().rposition(|&byte| byte == b'\n').map_or(&out[..], |newline| &out[newline + 1..]);
    let mut column = line.len();
    let mut has_text = line.iter().any(|byte| !is_space(byte));
    let mut rest = text;
    let mut first = true;
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| !is_space(byte)).unwrap_or(rest.len());
        let end = rest[space..].iter().position(is_space).map_or(rest.len(), |word| space + word);
        let fits = column + end <= if first { MAX_LINE } else { FOLDED_LINE };
        // An empty line would end the header.
        if !fits && has_text && space > 0 && end > space {
            out.extend_from_slice(b"\r\n");
            column = 0;
        }
        out.extend_from_slice(&rest[..end]);
        column += end;
        rest = &rest[end..];
        first = false;
        has_text = has_text || end > space;
    }
}

/// The change to make to a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldChange {
    Keep,
    Replace(Field),
    Remove,
}

/// A header block with some of its fields changed; `None` if none is.
pub fn changed(block: &[u8], mut change: impl FnMut(&FieldRef<'_>) -> FieldChange) -> Option<Vec<u8>> {
    let mut edited = Vec::with_capacity(block.len());
    let mut differs = false;
    for field in Fields::new(block) {
        match change(&field) {
            FieldChange::Keep => edited.extend_from_slice(field.raw()),
            FieldChange::Replace(new) => {
                differs |= new.as_bytes() != field.raw();
                edited.extend_from_slice(new.as_bytes());
            }
            FieldChange::Remove => differs = true,
        }
    }
    differs.then_some(edited)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_with_their_folds() {
        let block = b"A: 1\r\nB : 2\r\n\tmore\r\nC:\r\nno field here\r\nD: 3\r\n";
        let mut fields = Fields::new(block);
        let seen: Vec<_> = fields.by_ref().map(|f| (f.name(), f.unfolded(), f.is_well_formed())).collect();
        assert_eq!(
            seen,
            [(&b"A"[..], b"1".to_vec(), true), (b"B", b"2\tmore".to_vec(), false), (b"C", b"".to_vec(), true),]
        );
        assert!(fields.rest().starts_with(b"no field"));
        // Some readers treat these as part of the name, so none of them may be accepted as a name here.
        for odd in [&b"From\x0c: a\r\n"[..], b"From\x0b: a\r\n", b"From\xc2\xa0: a\r\n", b"From\x85: a\r\n"] {
            assert_eq!(Fields::new(odd).next(), None, "{}", odd.escape_ascii());
        }
    }

    #[test]
    fn a_value_cannot_break_out_of_its_line() {
        for value in ["a\r\nBcc: x", "a\nb", "a\0b", "a\u{2028}b", "\x1b[31m"] {
            assert_eq!(Field::new("X", &[value]), Err(FieldError::ControlCharacter), "{value:?}");
        }
        assert_eq!(Field::new("X:", &["a"]), Err(FieldError::Name));
        assert_eq!(Field::new("X", &[&"a".repeat(998)]), Err(FieldError::TooLong));
    }

    #[test]
    fn a_value_folds_at_its_white_space() {
        let long = "x".repeat(70);
        let endless = "y".repeat(990);
        for (value, expected) in [
            ("a b", "Subject: a b".to_owned()),
            (" \t", "Subject: ".to_owned()),
            (&format!("a {long}  b\tc {long}"), format!("Subject: a\r\n {long}  b\tc\r\n {long}")),
            (&format!("{endless} b"), format!("Subject:\r\n {endless}\r\n b")),
            (&format!("a{}", " ".repeat(100)), "Subject: a".to_owned()),
        ] {
            let field = Field::folded("Subject", value).expect("a field");
            assert_eq!(String::from_utf8_lossy(field.as_bytes()), expected + "\r\n");
        }
        assert_eq!(Field::folded("Subject", &"y".repeat(998)), Err(FieldError::TooLong));
        assert_eq!(Field::folded("X", "a\r\n b"), Err(FieldError::ControlCharacter));
    }

    #[test]
    fn folding_makes_no_line_of_nothing() {
        for (line, text) in [("", " a"), ("", "\t  a"), (" ", " a"), ("X:", "  ")] {
            let text = format!("{text}{}", "z".repeat(1000));
            let mut out = format!("A: b\r\n{line}").into_bytes();
            fold(text.as_bytes(), &mut out);
            let lines: Vec<_> = out.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).collect();
            assert!(!lines.contains(&&b""[..]), "{line:?} {text:?}");
        }
    }

    #[test]
    fn parts_fold_at_78_columns() {
        let long = "x".repeat(70);
        let field = Field::new("Received", &["from a", &long, "b"]).expect("a field");
        assert_eq!(field.as_bytes(), format!("Received: from a\r\n\t{long} b\r\n").as_bytes());
    }
}
