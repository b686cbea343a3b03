//! The parts of a message, found in one pass over its lines.
//!
//! Work and memory are bounded whatever the message is: a maximum number of parts, a maximum depth, and no recursion. A
//! part that is signed, encrypted or another message counts as one piece, and so does a message with a multipart that
//! has no end. RFC 2046 §5.1.

use super::content::ContentFields;
use crate::message::RawMessage;
use crate::message::headers::{Fields, without_spaces_behind};
use std::ops::Range;

/// Real mail has a handful. A message with more parts is treated as one piece that is not edited.
const MAX_PARTS: usize = 2000;
/// Real mail has four or five levels. A multipart below this depth is treated as one piece.
const MAX_DEPTH: usize = 30;

/// The message itself or one of its parts. Positions are octets of the message's body.
#[derive(Debug)]
pub struct Entity {
    pub content: ContentFields,
    /// Starts at the boundary line above it; empty for the message itself.
    pub delimiter: Range<usize>,
    /// Complete fields; empty for the message itself, whose header is separate.
    pub header: Range<usize>,
    pub body: Range<usize>,
    pub children: Vec<usize>,
    /// An empty line ends its header, and a multipart has its last boundary.
    pub is_whole: bool,
    /// Must not be changed: sealed, ambiguous, or too deep.
    pub is_opaque: bool,
}

impl Entity {
    fn new(content: ContentFields, delimiter: Range<usize>, header: Range<usize>, body: Range<usize>) -> Self {
        let is_opaque = content.is_sealed();
        let is_whole = !content.is_multipart();
        Self { content, delimiter, header, body, children: Vec::new(), is_whole, is_opaque }
    }

    /// If the last boundary is missing, readers differ on what belongs to which part.
    fn has_its_end(&self) -> bool {
        self.is_whole || self.is_opaque || !self.content.is_multipart()
    }

    /// A part with its own content that may be edited.
    pub fn is_leaf(&self) -> bool {
        !self.is_opaque && self.is_whole && !self.content.is_multipart()
    }
}

/// The message and its parts, each before its own parts.
#[derive(Debug)]
pub struct Structure {
    entities: Vec<Entity>,
}

impl Structure {
    pub fn of(message: &RawMessage) -> Self {
        let root = || {
            let content = ContentFields::of(message.header(), "text/plain");
            Entity::new(content, 0..0, 0..0, 0..message.body().len())
        };
        let mut walk = PartWalk { body: message.body(), entities: vec![root()], open: Vec::new() };
        walk.open(0);
        let is_certain = walk.run().is_ok() && walk.entities.iter().all(Entity::has_its_end);
        let entities = if is_certain { walk.entities } else { vec![Entity { is_opaque: true, ..root() }] };
        Self { entities }
    }

    pub fn root(&self) -> &Entity {
        &self.entities[0]
    }

    pub fn entities(&self) -> &[Entity] {
        &self.entities
    }

    pub fn get(&self, index: usize) -> Option<&Entity> {
        self.entities.get(index)
    }

    /// Parts that may be edited, with their index.
    pub fn leaves(&self) -> impl Iterator<Item = (usize, &Entity)> {
        self.entities.iter().enumerate().filter(|(_, entity)| entity.is_leaf())
    }
}

struct TooManyParts;

/// A multipart whose end has not come yet.
struct OpenMultipart {
    entity: usize,
    boundary: Vec<u8>,
    /// The part that is being read.
    child: Option<usize>,
}

struct PartWalk<'a> {
    body: &'a [u8],
    entities: Vec<Entity>,
    /// Outermost first.
    open: Vec<OpenMultipart>,
}

impl PartWalk<'_> {
    fn run(&mut self) -> Result<(), TooManyParts> {
        let mut at = 0;
        while let Some(line) = self.next_candidate(at).filter(|_| !self.open.is_empty()) {
            let (content_end, line_end) = end_of_line(self.body, line);
            at = line_end;
            let Some((level, is_last)) = self.match_line(&self.body[line..content_end]) else { continue };
            // The line end before a boundary belongs to it.
            self.close_below(level, line.saturating_sub(2));
            let Some(open) = self.open.get_mut(level) else { continue };
            if is_last {
                let entity = open.entity;
                self.entities[entity].is_whole = self.entities[entity].is_whole_header(self.body);
                self.open.truncate(level);
                continue;
            }
            if self.entities.len() >= MAX_PARTS {
                return Err(TooManyParts);
            }
            at = self.begin_part(level, line..line_end);
        }
        Ok(())
    }

    /// The next line at or after `at`, itself the beginning of a line, that begins with "--".
    fn next_candidate(&self, at: usize) -> Option<usize> {
        let rest = self.body.get(at..)?;
        if rest.starts_with(b"--") {
            return Some(at);
        }
        memchr::memmem::find(rest, b"\r\n--").map(|found| at + found + 2)
    }

    /// The innermost multipart to which the boundary line belongs, and whether it is the closing one.
    fn match_line(&self, line: &[u8]) -> Option<(usize, bool)> {
        // RFC 2046 §5.1.1: white space may have been added in transport.
        let text = without_spaces_behind(line.strip_prefix(b"--")?);
        self.open.iter().enumerate().rev().find_map(|(level, open)| match text.strip_prefix(open.boundary.as_slice()) {
            Some(b"") => Some((level, false)),
            Some(b"--") => Some((level, true)),
            _ => None,
        })
    }

    /// Ends the current part of `level` and everything inside it.
    fn close_below(&mut self, level: usize, end: usize) {
        for open in self.open.iter_mut().skip(level) {
            if let Some(child) = open.child.take() {
                let body = &mut self.entities[child].body;
                body.end = end.max(body.start);
            }
        }
        self.open.truncate(level + 1);
    }

    /// Returns the position of its body.
    fn begin_part(&mut self, level: usize, delimiter: Range<usize>) -> usize {
        let start = delimiter.end;
        let mut end = start;
        for field in Fields::new(&self.body[start..]) {
            let first_line = &field.raw()[..end_of_line(field.raw(), 0).0];
            if self.match_line(first_line).is_some() {
                break;
            }
            end += field.raw().len();
        }
        let has_empty_line = self.body[end..].starts_with(b"\r\n");
        let body = if has_empty_line { end + 2 } else { end };
        let parent = self.open[level].entity;
        let default =
            if self.entities[parent].content.is("multipart/digest") { "message/rfc822" } else { "text/plain" };
        let content = ContentFields::of(&self.body[start..end], default);
        let mut part = Entity::new(content, delimiter, start..end, body..self.body.len());
        part.is_whole &= has_empty_line;
        let index = self.entities.len();
        self.entities.push(part);
        self.entities[parent].children.push(index);
        self.open[level].child = Some(index);
        self.open(index);
        body
    }

    /// Expects parts of this entity from now on, if it can have any.
    fn open(&mut self, index: usize) {
        let entity = &mut self.entities[index];
        if entity.is_opaque || !entity.content.is_multipart() {
            return;
        }
        entity.is_opaque = self.open.len() >= MAX_DEPTH;
        if let Some(boundary) = entity.content.boundary.clone().filter(|_| !entity.is_opaque) {
            self.open.push(OpenMultipart { entity: index, boundary, child: None });
        }
    }
}

impl Entity {
    /// The empty line is there, or the header is the message's own.
    fn is_whole_header(&self, body: &[u8]) -> bool {
        self.delimiter.is_empty()
            || body[..self.body.start].ends_with(b"\r\n") && self.body.start == self.header.end + 2
    }
}

/// For the line at `start`: the end of its text, and the beginning of the next line.
fn end_of_line(text: &[u8], start: usize) -> (usize, usize) {
    match memchr::memmem::find(&text[start..], b"\r\n") {
        Some(length) => (start + length, start + length + 2),
        None => (text.len(), text.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each part on a line: depth, type, body; `!` if it is not whole, `x` if it is opaque.
    fn outline(data: &str) -> Vec<String> {
        let message = RawMessage::from_data(data.to_owned().into()).expect("a message");
        let structure = Structure::of(&message);
        let mut lines = Vec::new();
        let mut pending = vec![(0, 0)];
        while let Some((index, depth)) = pending.pop() {
            let entity = structure.get(index).expect("an entity");
            let body = String::from_utf8_lossy(&message.body()[entity.body.clone()]).into_owned();
            let shown = if entity.children.is_empty() { format!(" {body:?}") } else { String::new() };
            let marks = ["", "!"][usize::from(!entity.is_whole)].to_owned() + ["", "x"][usize::from(entity.is_opaque)];
            lines.push(format!("{}{}{marks}{shown}", "  ".repeat(depth), entity.content.media_type));
            pending.extend(entity.children.iter().rev().map(|&child| (child, depth + 1)));
        }
        lines
    }

    fn multipart(kind: &str, boundary: &str, body: &str) -> String {
        format!("Content-Type: multipart/{kind}; boundary=\"{boundary}\"\r\n\r\n{body}")
    }

    fn assert_outlines<const N: usize>(cases: [(String, &[&str]); N]) {
        for (data, expected) in cases {
            assert_eq!(outline(&data), expected, "{data}");
        }
    }

    #[test]
    fn parts_are_found_where_their_boundaries_are() {
        let nested =
            multipart("alternative", "i", "--i\r\n\r\none\r\n--i\r\nContent-Type: text/html\r\n\r\ntwo\r\n--i--");
        assert_outlines([
            ("A: b\r\n\r\ntext\r\n".to_owned(), &["text/plain \"text\\r\\n\""][..]),
            (
                multipart(
                    "mixed",
                    "b",
                    "preamble\r\n--b\r\n\r\none\r\n--b \t\r\nContent-Type: image/png\r\n\r\n\r\n--b--\r\nepilogue\r\n--b\r\n",
                ),
                &["multipart/mixed", "  text/plain \"one\"", "  image/png \"\""],
            ),
            (
                multipart("mixed", "o", &format!("--o\r\n{nested}\r\n--o\r\n\r\nthree\r\n--o--\r\n")),
                &[
                    "multipart/mixed",
                    "  multipart/alternative",
                    "    text/plain \"one\"",
                    "    text/html \"two\"",
                    "  text/plain \"three\"",
                ],
            ),
            // One name begins with the other.
            (
                multipart(
                    "mixed",
                    "b",
                    "--b\r\nContent-Type: multipart/mixed; boundary=bb\r\n\r\n--bb\r\n\r\nx\r\n--bb--\r\n--b--\r\n",
                ),
                &["multipart/mixed", "  multipart/mixed", "    text/plain \"x\""],
            ),
            // In the middle of a line, or followed by other text, it is not a boundary.
            (
                multipart("mixed", "b", "--b\r\n\r\nx --b\r\n--bc\r\n--b\tx\r\n--b\x0c\r\n--b--\r\n"),
                &["multipart/mixed", "  text/plain \"x --b\\r\\n--bc\\r\\n--b\\tx\\r\\n--b\\u{c}\""],
            ),
            (
                multipart("digest", "b", "--b\r\n\r\nA: b\r\n\r\nx\r\n--b--\r\n"),
                &["multipart/digest", "  message/rfc822x \"A: b\\r\\n\\r\\nx\""],
            ),
        ]);
    }

    #[test]
    fn a_multipart_without_its_end_is_one_piece() {
        assert_outlines([
            // The inner end is missing: the outer boundary should end both, but not every reader sees it.
            (
                multipart(
                    "mixed",
                    "o",
                    "--o\r\nContent-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n\r\nx\r\n--o\r\n\r\ny\r\n--o--\r\n",
                ),
                &[
                    "multipart/mixed!x \"--o\\r\\nContent-Type: multipart/mixed; boundary=i\\r\\n\\r\\n--i\\r\\n\\r\\nx\\r\\n--o\\r\\n\\r\\ny\\r\\n--o--\\r\\n\"",
                ],
            ),
            (multipart("mixed", "b", "--b\r\n\r\nno end"), &["multipart/mixed!x \"--b\\r\\n\\r\\nno end\""]),
            (multipart("mixed", "b", "nothing\r\n"), &["multipart/mixed!x \"nothing\\r\\n\""]),
            (
                multipart("mixed", "", "--\r\n\r\nx\r\n----\r\n"),
                &["multipart/mixed!x \"--\\r\\n\\r\\nx\\r\\n----\\r\\n\""],
            ),
        ]);
    }

    #[test]
    fn a_part_whose_header_has_no_end_is_not_whole() {
        assert_outlines([
            // No empty line after a part's header.
            (
                multipart("mixed", "b", "--b\r\nContent-Type: text/html\r\ntext\r\n--b\r\ntext\r\n--b--\r\n"),
                &["multipart/mixed", "  text/html! \"text\"", "  text/plain! \"text\""],
            ),
            (multipart("mixed", "b", "--b\r\nA: b\r\n--b--\r\n"), &["multipart/mixed", "  text/plain! \"\""]),
            // A boundary that looks like a field.
            (
                multipart("mixed", "a:b", "--a:b\r\n--a:b\r\nA: c\r\n\r\nx\r\n--a:b--\r\n"),
                &["multipart/mixed", "  text/plain! \"\"", "  text/plain \"x\""],
            ),
        ]);
    }

    #[test]
    fn what_is_sealed_is_one_piece() {
        let inner = "--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--\r\n";
        for (head, kind) in [
            ("multipart/signed; boundary=b", "multipart/signed!x"),
            ("multipart/encrypted; boundary=b", "multipart/encrypted!x"),
            ("application/pkcs7-mime", "application/pkcs7-mimex"),
            ("message/rfc822", "message/rfc822x"),
            ("multipart/mixed; boundary=b\r\nContent-Type: multipart/mixed; boundary=c", "multipart/mixed!x"),
        ] {
            assert_eq!(outline(&format!("Content-Type: {head}\r\n\r\n{inner}")), [format!("{kind} {inner:?}")]);
        }
    }

    #[test]
    fn bombs_are_one_piece_or_shallow() {
        let levels = 50_000;
        let deep: String = (0..levels)
            .map(|level| format!("--b{level}\r\nContent-Type: multipart/mixed; boundary=b{}\r\n\r\n", level + 1))
            .collect();
        let ends: String = (0..=levels).rev().map(|level| format!("\r\n--b{level}--\r\n")).collect();
        let message = RawMessage::from_data(multipart("mixed", "b0", &(deep + &ends)).into()).expect("a message");
        assert_eq!(Structure::of(&message).entities().len(), MAX_DEPTH + 1);
        let messages = "Content-Type: message/rfc822\r\n\r\n".repeat(100_000);
        let message = RawMessage::from_data(messages.into()).expect("a message");
        assert_eq!(Structure::of(&message).entities().len(), 1);
        let wide = multipart("mixed", "b", &"--b\r\n\r\n".repeat(100_000));
        let structure = Structure::of(&RawMessage::from_data(wide.into()).expect("a message"));
        assert!(structure.entities().len() == 1 && structure.root().is_opaque);
        let dashes = multipart("mixed", "b", &"--\r\n".repeat(500_000));
        assert_eq!(Structure::of(&RawMessage::from_data(dashes.into()).expect("a message")).entities().len(), 1);
    }
}
