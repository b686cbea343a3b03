//! Header fields: the iterator over a header block's bytes, and the one constructor for new ones.
//!
//! What is not touched stays byte-identical; what is added cannot break out of its line. RFC 5322 §2.2, §3.6.8.

/// One field of a header block, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldRef<'a> {
    raw: &'a [u8],
    colon: usize,
}

impl<'a> FieldRef<'a> {
    /// With every fold and the final CRLF.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// As written; white space before the colon (RFC 5322 §4.5.8) is not part of it.
    pub fn name(&self) -> &'a [u8] {
        self.raw[..self.colon].trim_ascii_end()
    }

    /// The colon follows the name at once, as RFC 5322 §2.2 wants it.
    pub fn is_well_formed(&self) -> bool {
        self.name().len() == self.colon
    }

    pub fn is(&self, name: &str) -> bool {
        self.name().eq_ignore_ascii_case(name.as_bytes())
    }

    /// What follows the colon, folds and all, without the final CRLF.
    pub fn value(&self) -> &'a [u8] {
        let value = &self.raw[self.colon + 1..];
        value.strip_suffix(b"\r\n").unwrap_or(value)
    }

    /// The value in one line, without white space around it.
    pub fn unfolded(&self) -> Vec<u8> {
        self.value().iter().copied().filter(|byte| !b"\r\n".contains(byte)).collect::<Vec<_>>().trim_ascii().to_vec()
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

    /// What was not consumed: empty for a sound block.
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

// Where the colon stands, if the line begins with a field name (RFC 5322 §3.6.8 ftext, white space before the colon
// tolerated).
fn field_name_end(line: &[u8]) -> Option<usize> {
    let colon = line.iter().position(|&byte| byte == b':' || byte == b'\n')?;
    let name = line.get(..colon).filter(|_| line[colon] == b':')?.trim_ascii_end();
    (!name.is_empty() && name.iter().all(u8::is_ascii_graphic)).then_some(colon)
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

/// Why a value cannot stand in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("a header name is printable ASCII without a colon")]
    Name,
    #[error("a header value must not hold CR, LF, NUL or another control character")]
    ControlCharacter,
    #[error("a header line must not be longer than 998 octets")]
    TooLong,
}

/// A field to be added, as bytes with its CRLF.
///
/// Invariant: exactly one field, whatever the values were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field(String);

impl Field {
    const MAX_LINE: usize = 998;
    /// RFC 5322 §2.1.1, less the CRLF.
    const FOLD_AT: usize = 78;

    /// `parts` are joined by a space where they fit into 78 columns and by a fold where they do not.
    pub fn new(name: &str, parts: &[&str]) -> Result<Self, FieldError> {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
            return Err(FieldError::Name);
        }
        let mut text = format!("{name}:");
        let mut line = text.len();
        for part in parts.iter().filter(|part| !part.is_empty()) {
            if part.chars().any(|c| c.is_control() || c == '\u{2028}' || c == '\u{2029}') {
                return Err(FieldError::ControlCharacter);
            }
            if part.len() >= Self::MAX_LINE {
                return Err(FieldError::TooLong);
            }
            // Never right behind the name: a line of white space only would be left over (RFC 5322 §3.2.2).
            if line + 1 + part.len() > Self::FOLD_AT && line > name.len() + 1 {
                text.push_str("\r\n\t");
                line = 1;
            } else {
                text.push(' ');
                line += 1;
            }
            text.push_str(part);
            line += part.len();
            if line > Self::MAX_LINE {
                return Err(FieldError::TooLong);
            }
        }
        text.push_str("\r\n");
        Ok(Self(text))
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
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
    fn parts_fold_at_78_columns() {
        let long = "x".repeat(70);
        let field = Field::new("Received", &["from a", &long, "b"]).expect("a field");
        assert_eq!(field.as_bytes(), format!("Received: from a\r\n\t{long} b\r\n").as_bytes());
    }
}
