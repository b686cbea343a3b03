//! `RawMessage`: one message as a header block and a body, both bytes.
//!
//! The only place that decides where the header ends, so that signer, sender and policy never disagree (RFC 5322 §2.1).
//! The body is shared, never copied; the header is edited in place.

use super::headers::{Field, FieldChange, FieldRef, Fields, changed};
use bytes::Bytes;

/// In octets. Larger header blocks are refused before anything scans them.
pub const MAX_HEADER: usize = 256 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RawError {
    #[error("the header is larger than 256 KiB")]
    HeaderTooLarge,
}

/// Invariant: the header consists of complete fields that end with CRLF, and both parts contain no other line endings
/// than CRLF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawMessage {
    header: Vec<u8>,
    body: Bytes,
}

impl RawMessage {
    /// `data` as `smtp::dot` decoded it: CRLF line endings only.
    ///
    /// A line that is neither field nor continuation ends the header and becomes the first line of the body. The
    /// missing empty line is inserted, so that every later reader splits at the same place.
    pub fn from_data(data: Bytes) -> Result<Self, RawError> {
        let window = header_window(&data);
        let mut fields = Fields::new(window);
        fields.by_ref().for_each(drop);
        let length = window.len() - fields.rest().len();
        if length > MAX_HEADER {
            return Err(RawError::HeaderTooLarge);
        }
        let mut header = data[..length].to_vec();
        if !header.is_empty() && !header.ends_with(b"\r\n") {
            header.extend_from_slice(b"\r\n");
        }
        let separator = if data[length..].starts_with(b"\r\n") { 2 } else { 0 };
        Ok(Self { header, body: data.slice(length + separator..) })
    }

    /// A stored message from its [`header`](Self::header) and [`body`](Self::body). The end of the header is not
    /// searched for again, and additions by the gateway may make it exceed [`MAX_HEADER`].
    pub fn from_parts(header: Vec<u8>, body: Bytes) -> Self {
        Self { header, body }
    }

    /// Without the empty line that ends it.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// The part after the empty line.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Octets on the wire before dot-stuffing.
    pub fn size(&self) -> usize {
        self.header.len() + 2 + self.body.len()
    }

    /// One contiguous copy.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.header, &b"\r\n"[..], &self.body].concat()
    }

    pub fn fields(&self) -> Fields<'_> {
        Fields::new(&self.header)
    }

    /// Every field of this name, top to bottom.
    pub fn fields_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = FieldRef<'a>> {
        self.fields().filter(move |field| field.is(name))
    }

    pub fn has(&self, name: &str) -> bool {
        self.fields_named(name).next().is_some()
    }

    /// Adds a field at the top.
    pub fn prepend(&mut self, field: &Field) {
        self.header.splice(..0, field.as_bytes().iter().copied());
    }

    /// Adds a field below all others.
    pub fn append(&mut self, field: &Field) {
        self.header.extend_from_slice(field.as_bytes());
    }

    /// Changes fields in place; true if any was changed or removed.
    pub fn edit_fields(&mut self, change: impl FnMut(&FieldRef<'_>) -> FieldChange) -> bool {
        let edited = changed(&self.header, change);
        let differs = edited.is_some();
        self.header = edited.unwrap_or_else(|| std::mem::take(&mut self.header));
        differs
    }

    /// `header` must consist of complete fields that end with CRLF.
    pub(in crate::message) fn replace_header(&mut self, header: Vec<u8>) {
        self.header = header;
    }

    /// `body` must contain no other line endings than CRLF.
    pub(in crate::message) fn replace_body(&mut self, body: Bytes) {
        self.body = body;
    }

    /// Removes every field for which `unwanted` holds; returns how many.
    pub fn remove_fields(&mut self, unwanted: impl Fn(&FieldRef<'_>) -> bool) -> usize {
        let mut kept = Vec::with_capacity(self.header.len());
        let mut removed = 0;
        for field in self.fields() {
            if unwanted(&field) {
                removed += 1;
            } else {
                kept.extend_from_slice(field.raw());
            }
        }
        self.header = kept;
        removed
    }

    /// True if a server without 8BITMIME could not carry the body. RFC 6152.
    pub fn body_is_eight_bit(&self) -> bool {
        !self.body.is_ascii()
    }

    /// True if carrying the header needs SMTPUTF8. RFC 6532.
    pub fn header_is_eight_bit(&self) -> bool {
        !self.header.is_ascii()
    }
}

/// The part that must be read to find the end of an allowed header: whole lines, so that no line is judged by its first
/// half.
fn header_window(data: &[u8]) -> &[u8] {
    match data.get(MAX_HEADER + 2..).and_then(|rest| memchr::memchr(b'\n', rest)) {
        Some(end) => &data[..MAX_HEADER + 2 + end + 1],
        None => data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(data: &'static [u8]) -> RawMessage {
        RawMessage::from_data(Bytes::from_static(data)).expect("a message")
    }

    #[test]
    fn the_header_ends_at_one_place() {
        for (data, header, body) in [
            (&b"A: 1\r\n\r\nbody\r\n"[..], &b"A: 1\r\n"[..], &b"body\r\n"[..]),
            (b"A: 1\r\n\r\n\r\nbody\r\n", b"A: 1\r\n", b"\r\nbody\r\n"),
            (b"A: 1\r\n", b"A: 1\r\n", b""),
            (b"A: 1", b"A: 1\r\n", b""),
            (b"\r\nbody", b"", b"body"),
            (b"no header at all\r\n", b"", b"no header at all\r\n"),
            (b"A: 1\r\nstray line\r\nB: 2\r\n\r\nbody", b"A: 1\r\n", b"stray line\r\nB: 2\r\n\r\nbody"),
            (b" A: 1\r\n\r\nbody", b"", b" A: 1\r\n\r\nbody"),
            (b"", b"", b""),
        ] {
            let message = message(data);
            assert_eq!((message.header(), &message.body()[..]), (header, body), "{}", data.escape_ascii());
        }
    }

    #[test]
    fn editing_leaves_the_other_fields_as_they_were() {
        let mut message = message(b"A:  1 \r\n\tx\r\nBcc: y\r\n z\r\nB:2\r\n\r\nbody");
        assert_eq!(message.remove_fields(|field| field.is("bcc")), 1);
        message.prepend(&Field::new("Top", &["t"]).expect("a field"));
        message.append(&Field::new("End", &["e"]).expect("a field"));
        assert_eq!(message.to_bytes(), b"Top: t\r\nA:  1 \r\n\tx\r\nB:2\r\nEnd: e\r\n\r\nbody");
    }

    #[test]
    fn an_endless_header_is_refused() {
        let data = b"A: 1\r\n".repeat(MAX_HEADER / 6 + 10);
        assert_eq!(RawMessage::from_data(data.into()), Err(RawError::HeaderTooLarge));
        for name in 1..40 {
            let data = format!("{}: 1\r\n", "A".repeat(name)).repeat(MAX_HEADER / 5);
            assert_eq!(RawMessage::from_data(data.into()), Err(RawError::HeaderTooLarge), "cut inside a name");
        }
        let one_line = [b"A: ".to_vec(), vec![b'x'; MAX_HEADER]].concat();
        assert_eq!(RawMessage::from_data(one_line.into()), Err(RawError::HeaderTooLarge));
    }
}
