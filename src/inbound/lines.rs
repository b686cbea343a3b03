//! Extracts command lines from a byte stream. Bounded, and stays in sync whatever arrives.
//!
//! Pure: bytes go in, lines come out. Only CRLF ends a line (RFC 5321 §2.3.8). A line with a bare LF is refused as a
//! whole, so one intended command never becomes two.

use crate::smtp::Reply;
use bytes::{Buf, BytesMut};

/// Maximum length of a line with its CRLF, in octets. RFC 5321 §4.5.3.1.4 asks for 512 and more for extensions.
const MAX_LINE: usize = 2048;

/// One line, removed from the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum InputLine {
    /// Without its CRLF.
    Complete(BytesMut),
    /// The rest of the line is skipped as it arrives; the reply answers the whole line.
    Refused(Reply),
}

/// Input that was received and not yet consumed.
#[derive(Debug, Default)]
pub struct LineBuffer {
    buffer: BytesMut,
    /// The current line was refused; everything up to its CRLF is skipped.
    skipping: bool,
}

impl LineBuffer {
    /// The buffer to which the socket appends.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Called before waiting for more: an empty buffer is freed.
    pub fn release(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// Bytes that are waiting, for DATA.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    pub fn consume(&mut self, octets: usize) {
        self.buffer.advance(octets);
    }

    /// `None` if more bytes are needed.
    pub fn next_line(&mut self) -> Option<InputLine> {
        if self.skipping && !self.skip() {
            return None;
        }
        let end = end_of_line(&self.buffer);
        let line = &self.buffer[..end.unwrap_or(self.buffer.len())];
        // Answered at once, not at the CRLF: a client that ends its lines with a bare LF never sends one.
        let refusal = if memchr::memchr(b'\n', line).is_some() {
            Some(Reply::bare_line_feed())
        } else if line.len() + 2 > MAX_LINE {
            Some(Reply::line_too_long())
        } else {
            None
        };
        match (refusal, end) {
            (Some(reply), _) => {
                self.skipping = true;
                self.skip();
                Some(InputLine::Refused(reply))
            }
            (None, Some(end)) => {
                let line = self.buffer.split_to(end);
                self.buffer.advance(2);
                Some(InputLine::Complete(line))
            }
            (None, None) => None,
        }
    }

    /// True if the end of the refused line was found.
    fn skip(&mut self) -> bool {
        match end_of_line(&self.buffer) {
            Some(end) => {
                self.buffer.advance(end + 2);
                self.skipping = false;
            }
            // A CR at the end may be the first half of the CRLF.
            None => {
                let keep = usize::from(self.buffer.ends_with(b"\r"));
                self.buffer.advance(self.buffer.len() - keep);
            }
        }
        !self.skipping
    }
}

fn end_of_line(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, b"\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Each line as its text, or as the code of its refusal.
    fn lines(input: &[u8], step: usize) -> Vec<String> {
        let mut input_buffer = LineBuffer::default();
        let mut lines = Vec::new();
        for chunk in input.chunks(step.max(1)) {
            input_buffer.buffer().extend_from_slice(chunk);
            while let Some(line) = input_buffer.next_line() {
                lines.push(match line {
                    InputLine::Complete(line) => line.escape_ascii().to_string(),
                    InputLine::Refused(reply) => reply.to_string(),
                });
                assert!(input_buffer.bytes().len() <= input.len());
            }
        }
        lines
    }

    #[test]
    fn a_line_ends_with_crlf_and_nothing_else() {
        let refused = Reply::bare_line_feed().to_string();
        for (input, expected) in [
            (&b"A\r\nB\r\n"[..], vec!["A", "B"]),
            (b"A\r", vec![]),
            (b"A\rB\r\n", vec!["A\\rB"]),
            (b"A\nB\r\nC\r\n", vec![&*refused, "C"]),
            (b"A\nB\nC\r\nD\r\n", vec![&*refused, "D"]),
            (b"A\n", vec![&*refused]),
            (b"A\r\r\nB\r\n", vec!["A\\r", "B"]),
            (b"\r\n", vec![""]),
        ] {
            assert_eq!(lines(input, input.len()), expected, "{}", input.escape_ascii());
        }
    }

    #[test]
    fn a_line_of_2048_octets_is_taken_and_a_longer_one_is_skipped() {
        let long = |length: usize| [vec![b'x'; length - 2], b"\r\nQUIT\r\n".to_vec()].concat();
        assert_eq!(lines(&long(2048), usize::MAX)[0].len(), 2046);
        assert_eq!(lines(&long(2049), usize::MAX), [Reply::line_too_long().to_string(), "QUIT".to_owned()]);
        assert_eq!(lines(&long(1_000_000), 4096), [Reply::line_too_long().to_string(), "QUIT".to_owned()]);
    }

    #[test]
    fn an_endless_line_takes_no_memory() {
        let mut input_buffer = LineBuffer::default();
        for _ in 0..1000 {
            input_buffer.buffer().extend_from_slice(&[b'x'; 4096]);
            input_buffer.next_line();
            assert!(input_buffer.bytes().len() <= 1);
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(input in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'a')], 0..40), step in 1usize..6) {
            prop_assert_eq!(lines(&input, step), lines(&input, usize::MAX));
        }
    }
}
