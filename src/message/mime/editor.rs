//! Edits of headers and bodies of parts, applied together at the end: every other octet stays where it was.
//!
//! Re-encoded content is never held twice: it is written directly into the edited message.

use super::coding::Coding;
use super::structure::Structure;
use crate::message::RawMessage;
use crate::message::headers::{Field, FieldRef, Fields};
use std::ops::Range;

#[derive(Debug)]
pub struct Editor<'a> {
    message: &'a RawMessage,
    structure: &'a Structure,
    /// The message's own header, if it has changed.
    header: Option<Vec<u8>>,
    /// Edits of the body, which do not overlap.
    edits: Vec<(Range<usize>, RangeEdit)>,
}

/// The replacement for a range.
#[derive(Debug)]
enum RangeEdit {
    Octets(Vec<u8>),
    /// Its octets, or others, in a transfer encoding, and optionally a line ending.
    Coded {
        octets: Option<Vec<u8>>,
        coding: Coding,
        line_end: bool,
    },
    /// Its octets, with question marks in place of 8-bit ones.
    Blanked,
}

impl RangeEdit {
    fn size(&self, old: &[u8]) -> usize {
        match self {
            Self::Octets(octets) => octets.len(),
            Self::Coded { octets, coding, line_end } => {
                coding.size(octets.as_deref().unwrap_or(old)) + 2 * usize::from(*line_end)
            }
            Self::Blanked => old.len(),
        }
    }

    fn append(&self, old: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Octets(octets) => out.extend_from_slice(octets),
            Self::Coded { octets, coding, line_end } => {
                coding.append(octets.as_deref().unwrap_or(old), out);
                out.extend_from_slice(if *line_end { b"\r\n" } else { b"" });
            }
            Self::Blanked => out.extend(old.iter().map(|byte| if byte.is_ascii() { *byte } else { b'?' })),
        }
    }
}

impl<'a> Editor<'a> {
    pub fn new(message: &'a RawMessage, structure: &'a Structure) -> Self {
        Self { message, structure, header: None, edits: Vec::new() }
    }

    /// The header block of an entity before the edits.
    pub fn header(&self, index: usize) -> &'a [u8] {
        match self.structure.get(index) {
            Some(entity) if index > 0 => &self.message.body()[entity.header.clone()],
            _ => self.message.header(),
        }
    }

    pub fn body(&self, index: usize) -> &'a [u8] {
        self.structure.get(index).map_or(&b""[..], |entity| &self.message.body()[entity.body.clone()])
    }

    /// `block`: complete fields. At most once per entity.
    pub fn replace_header(&mut self, index: usize, block: Vec<u8>) {
        match self.structure.get(index) {
            Some(entity) if index > 0 => self.edits.push((entity.header.clone(), RangeEdit::Octets(block))),
            _ => self.header = Some(block),
        }
    }

    pub fn replace_body(&mut self, index: usize, octets: Vec<u8>) {
        if let Some(entity) = self.structure.get(index) {
            self.edits.push((entity.body.clone(), RangeEdit::Octets(octets)));
        }
    }

    /// The body, or `octets` instead, in this encoding; `line_end`: followed by a line ending.
    pub fn encode_body(&mut self, index: usize, octets: Option<Vec<u8>>, coding: Coding, line_end: bool) {
        if let Some(entity) = self.structure.get(index) {
            self.edits.push((entity.body.clone(), RangeEdit::Coded { octets, coding, line_end }));
        }
    }

    /// 8-bit octets of this range of the message's body become question marks.
    pub fn blank_eight_bit(&mut self, range: Range<usize>) {
        if !self.message.body()[range.clone()].is_ascii() {
            self.edits.push((range, RangeEdit::Blanked));
        }
    }

    /// Inserts before the octet at `at` of the message's body.
    pub fn insert(&mut self, at: usize, octets: Vec<u8>) {
        self.edits.push((at..at, RangeEdit::Octets(octets)));
    }

    /// The message with all edits, if there are any.
    pub fn finish(mut self) -> Option<RawMessage> {
        if self.header.is_none() && self.edits.is_empty() {
            return None;
        }
        let mut message = self.message.clone();
        if let Some(header) = self.header {
            message.replace_header(header);
        }
        if !self.edits.is_empty() {
            self.edits.sort_by_key(|(range, _)| (range.start, range.end));
            let body = self.message.body();
            let replaced: usize = self.edits.iter().map(|(range, _)| range.len()).sum();
            let new: usize = self.edits.iter().map(|(range, edit)| edit.size(&body[range.clone()])).sum();
            let mut edited = Vec::with_capacity((body.len() + new).saturating_sub(replaced));
            let mut at = 0;
            for (range, edit) in &self.edits {
                edited.extend_from_slice(&body[at..range.start]);
                edit.append(&body[range.clone()], &mut edited);
                at = range.end;
            }
            edited.extend_from_slice(&body[at..]);
            message.replace_body(edited.into());
        }
        Some(message)
    }
}

/// The block with `field` in place of fields of that name, or at its end.
pub fn with_field(block: &[u8], name: &str, field: &Field) -> Vec<u8> {
    let mut edited = Vec::with_capacity(block.len() + field.as_bytes().len());
    let mut placed = false;
    for old in Fields::new(block) {
        if !old.is(name) {
            edited.extend_from_slice(old.raw());
        } else if !placed {
            edited.extend_from_slice(field.as_bytes());
            placed = true;
        }
    }
    if !placed {
        edited.extend_from_slice(field.as_bytes());
    }
    edited
}

/// True for the fields that describe an entity, not the message. RFC 2045 §3.
pub fn is_content(field: &FieldRef<'_>) -> bool {
    field.name().get(..8).is_some_and(|head| head.eq_ignore_ascii_case(b"Content-"))
}
