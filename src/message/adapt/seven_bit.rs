//! 8-bit mail for a server that carries ASCII only: text becomes quoted-printable, other content base64, raw text in
//! headers encoded words.
//!
//! What is ASCII stays octet for octet. What is signed, encrypted or another message is never changed: then there is no
//! way, and the caller is told why. RFC 6152 §3, RFC 2045 §6, RFC 2047, RFC 6532.

use crate::message::RawMessage;
use crate::message::headers::{Change, Field, FieldRef, Fields, changed};
use crate::message::mime::{
    Editor, Encoding, Entity, Structure, encode_quoted_printable, longest_quoted_printable, with_field,
};
use crate::message::repair::{add_mime_version, in_ascii};
use crate::smtp::EnhancedCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::ops::Range;

/// Why a message cannot be had in ASCII.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Inconvertible {
    #[error(
        "a part of it ({0}) is signed, encrypted or another message and has 8-bit characters, which must not be changed"
    )]
    Sealed(String),
    #[error("its parts cannot be told apart with certainty, and have 8-bit characters")]
    Unreadable,
    #[error("its header field {0} has an address or another value that only UTF-8 can say")]
    Header(String),
    #[error("its header field {0} has 8-bit characters that are no UTF-8, in a charset that it does not name")]
    Charset(String),
}

impl Inconvertible {
    /// RFC 3463 §3.7, RFC 6531 §4.3: X.6.2, conversion prohibited; X.6.3, required but not supported; X.6.7, non-ASCII.
    pub fn enhanced(&self) -> EnhancedCode {
        match self {
            Self::Sealed(_) => EnhancedCode::new(5, 6, 2),
            Self::Unreadable | Self::Charset(_) => EnhancedCode::new(5, 6, 3),
            Self::Header(_) => EnhancedCode::new(5, 6, 7),
        }
    }
}

/// The whole message in ASCII; `None` if it is.
pub fn to_seven_bit(message: &RawMessage) -> Result<Option<RawMessage>, Inconvertible> {
    if !message.body_is_eight_bit() && !message.header_is_eight_bit() {
        return Ok(None);
    }
    let structure = Structure::of(message);
    let mut editor = Editor::new(message, &structure);
    let mut uses_mime = false;
    for (index, entity) in structure.entities().iter().enumerate() {
        let old = editor.header(index);
        let mut header = in_encoded_words(old);
        refuse_what_is_left(header.as_deref().unwrap_or(old))?;
        if let Some(encoding) = convert_body(index, entity, &structure, &mut editor)? {
            let field = Field::new(ENCODING, &[encoding]).map_err(|_| Inconvertible::Unreadable)?;
            header = Some(with_field(header.as_deref().unwrap_or(old), ENCODING, &field));
            uses_mime |= index == 0;
        }
        if let Some(block) = header {
            editor.replace_header(index, block);
        }
    }
    let mut converted = editor.finish().ok_or(Inconvertible::Unreadable)?;
    if uses_mime {
        add_mime_version(&mut converted);
    }
    let is_ascii = !converted.body_is_eight_bit() && !converted.header_is_eight_bit();
    if is_ascii { Ok(Some(converted)) } else { Err(Inconvertible::Unreadable) }
}

/// The message with the texts of its own header in encoded words; `None` if there is nothing to encode. Addresses that
/// only UTF-8 can say are left, and what is no UTF-8.
pub fn with_ascii_texts(message: &RawMessage) -> Option<RawMessage> {
    let header = in_encoded_words(message.header())?;
    let mut converted = message.clone();
    converted.replace_header(header);
    Some(converted)
}

const ENCODING: &str = "Content-Transfer-Encoding";

fn in_encoded_words(block: &[u8]) -> Option<Vec<u8>> {
    let of_field = |field: &FieldRef<'_>| if field.raw().is_ascii() { Change::Keep } else { in_ascii(field) };
    if block.is_ascii() { None } else { changed(block, of_field) }
}

fn refuse_what_is_left(block: &[u8]) -> Result<(), Inconvertible> {
    let Some(field) = Fields::new(block).find(|field| !field.raw().is_ascii()) else { return Ok(()) };
    let name = String::from_utf8_lossy(field.name()).into_owned();
    Err(if std::str::from_utf8(field.raw()).is_ok() {
        Inconvertible::Header(name)
    } else {
        Inconvertible::Charset(name)
    })
}

/// The transfer encoding to be declared, if it is another now.
fn convert_body(
    index: usize,
    entity: &Entity,
    structure: &Structure,
    editor: &mut Editor<'_>,
) -> Result<Option<&'static str>, Inconvertible> {
    let body = editor.body(index);
    if body.is_ascii() {
        return Ok(None);
    }
    if entity.is_opaque {
        let is_uncertain = entity.content.is_ambiguous || entity.content.is_multipart() && !entity.is_whole;
        let is_sealed = !is_uncertain || SIGNED_OR_ENCRYPTED.contains(&entity.content.media_type.as_str());
        return Err(match is_sealed {
            true => Inconvertible::Sealed(entity.content.media_type.clone()),
            false => Inconvertible::Unreadable,
        });
    }
    if entity.content.is_multipart() {
        if entity.content.boundary.as_ref().is_some_and(|boundary| !boundary.is_ascii()) {
            return Err(Inconvertible::Unreadable);
        }
        blank_what_nobody_reads(entity, structure, editor);
        let is_declared = matches!(entity.content.encoding, Encoding::EightBit | Encoding::Binary);
        return Ok(is_declared.then_some("7bit"));
    }
    if !entity.is_leaf() {
        return Err(Inconvertible::Unreadable);
    }
    let (encoding, octets) = convert_leaf(entity, body)?;
    // The message's own last line ends like every other.
    let end: &[u8] = if index == 0 && body.ends_with(b"\r\n") && !octets.ends_with(b"\r\n") { b"\r\n" } else { b"" };
    editor.replace_body(index, [&octets, end].concat());
    Ok((encoding != entity.content.encoding).then_some(if encoding == Encoding::Base64 {
        "base64"
    } else {
        "quoted-printable"
    }))
}

const SIGNED_OR_ENCRYPTED: [&str; 2] = ["multipart/signed", "multipart/encrypted"];

fn convert_leaf(entity: &Entity, body: &[u8]) -> Result<(Encoding, Vec<u8>), Inconvertible> {
    let content = &entity.content;
    match content.encoding {
        Encoding::QuotedPrintable => {
            let octets = content.decoded(body).ok_or(Inconvertible::Unreadable)?;
            Ok((Encoding::QuotedPrintable, encode_quoted_printable(&octets)))
        }
        Encoding::Base64 | Encoding::Unknown => Err(Inconvertible::Unreadable),
        _ if content.is_text() => Ok((Encoding::QuotedPrintable, encode_quoted_printable(body))),
        _ => Ok((Encoding::Base64, base64_lines(body))),
    }
}

/// RFC 2045 §6.8: lines of 76.
fn base64_lines(octets: &[u8]) -> Vec<u8> {
    STANDARD.encode(octets).as_bytes().chunks(76).collect::<Vec<_>>().join(&b"\r\n"[..])
}

/// Before the first part and behind the last one stands what only readers without MIME would show. RFC 2046 §5.1.1.
fn blank_what_nobody_reads(entity: &Entity, structure: &Structure, editor: &mut Editor<'_>) {
    unread(entity, structure).into_iter().for_each(|range| editor.blank_eight_bit(range));
}

fn unread(entity: &Entity, structure: &Structure) -> [Range<usize>; 2] {
    let part = |index: &usize| structure.get(*index);
    let first = entity.children.first().and_then(part).map_or(entity.body.end, |part| part.delimiter.start);
    let last = entity.children.last().and_then(part).map_or(entity.body.end, |part| part.body.end);
    [entity.body.start..first, last..entity.body.end]
}

/// Octets of memory that [`to_seven_bit`] takes beside the message itself: an upper bound by looking, not by doing.
pub fn seven_bit_room(message: &RawMessage) -> usize {
    let (header, body) = (message.header(), message.body());
    if body.is_ascii() && header.is_ascii() {
        return 0;
    }
    let structure = Structure::of(message);
    let words = |block: &[u8]| if block.is_ascii() { 0 } else { WORD * block.len() };
    let of_entity = |entity: &Entity| {
        let content = if entity.is_leaf() {
            of_leaf(entity, &body[entity.body.clone()])
        } else {
            unread(entity, &structure)
                .into_iter()
                .filter(|range| !body[range.clone()].is_ascii())
                .map(|r| r.len())
                .sum()
        };
        content + words(&body[entity.header.clone()])
    };
    let edited: usize = structure.entities().iter().map(of_entity).sum();
    // What was edited, and then the body with it; while a part is encoded, it stands there twice.
    let bodies = if edited > 0 { 2 * edited + body.len() } else { 0 };
    STRUCTURE + words(header) + bodies
}

/// Of an encoded word, for one octet in it.
const WORD: usize = 12;
/// The largest structure.
const STRUCTURE: usize = 64 * 1024;

fn of_leaf(entity: &Entity, body: &[u8]) -> usize {
    if body.is_ascii() {
        0
    } else if entity.content.encoding == Encoding::QuotedPrintable || entity.content.is_text() {
        longest_quoted_printable(body)
    } else {
        body.len() * 3 / 2
    }
}

#[cfg(test)]
mod tests;
