//! 8-bit mail for a server that carries only ASCII: text becomes quoted-printable, or base64 if quoted-printable would
//! make a large message much larger; other content becomes base64, and raw text in headers becomes encoded words.
//!
//! ASCII stays octet for octet. Parts that are signed, encrypted or themselves messages are never changed: the
//! conversion then fails, and the error says why. RFC 6152 §3, RFC 2045 §6, RFC 2047, RFC 6532.

use crate::message::RawMessage;
use crate::message::headers::{Field, FieldChange, FieldRef, Fields, changed};
use crate::message::mime::{
    Coding, Editor, Encoding, Entity, Structure, decode_quoted_printable, longest_quoted_printable, with_field,
};
use crate::message::repair::{add_mime_version, in_ascii};
use crate::smtp::EnhancedCode;
use std::ops::Range;

/// Why a message cannot be converted to ASCII.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Inconvertible {
    #[error(
        "a part of it ({0}) is signed, encrypted or another message and has 8-bit characters, which must not be changed"
    )]
    Sealed(String),
    #[error("its structure cannot be determined with certainty, and it has 8-bit characters")]
    Unreadable,
    #[error("its header field {0} has an address or another value that only UTF-8 can say")]
    Header(String),
    #[error("its header field {0} has 8-bit characters that are not UTF-8, in a charset that it does not name")]
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

/// The whole message in ASCII; `None` if it is already.
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
        refuse_eight_bit_fields(header.as_deref().unwrap_or(old))?;
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
/// only UTF-8 can express stay as they are, and so does anything that is not UTF-8.
pub fn with_ascii_texts(message: &RawMessage) -> Option<RawMessage> {
    let header = in_encoded_words(message.header())?;
    let mut converted = message.clone();
    converted.replace_header(header);
    Some(converted)
}

const ENCODING: &str = "Content-Transfer-Encoding";

fn in_encoded_words(block: &[u8]) -> Option<Vec<u8>> {
    let of_field =
        |field: &FieldRef<'_>| if field.raw().is_ascii() { FieldChange::Keep } else { in_ascii(field, None) };
    if block.is_ascii() { None } else { changed(block, of_field) }
}

fn refuse_eight_bit_fields(block: &[u8]) -> Result<(), Inconvertible> {
    let Some(field) = Fields::new(block).find(|field| !field.raw().is_ascii()) else { return Ok(()) };
    let name = String::from_utf8_lossy(field.name()).into_owned();
    Err(if std::str::from_utf8(field.raw()).is_ok() {
        Inconvertible::Header(name)
    } else {
        Inconvertible::Charset(name)
    })
}

/// Returns the transfer encoding to declare, if it has changed.
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
        blank_unread_text(entity, structure, editor);
        let is_declared = matches!(entity.content.encoding, Encoding::EightBit | Encoding::Binary);
        return Ok(is_declared.then_some("7bit"));
    }
    if !entity.is_leaf() {
        return Err(Inconvertible::Unreadable);
    }
    let decoded = match entity.content.encoding {
        Encoding::QuotedPrintable => Some(decode_quoted_printable(body).ok_or(Inconvertible::Unreadable)?),
        Encoding::Base64 | Encoding::Unknown => return Err(Inconvertible::Unreadable),
        _ => None,
    };
    let coding = coding_of(entity, decoded.as_deref().unwrap_or(body), structure);
    // The message's last line ends like every other.
    let line_end = index == 0 && coding == Coding::Base64 && body.ends_with(b"\r\n");
    let is_declared = decoded.is_some() && coding == Coding::BinaryQuotedPrintable;
    editor.encode_body(index, decoded, coding, line_end);
    Ok((!is_declared).then_some(coding.name()))
}

const SIGNED_OR_ENCRYPTED: [&str; 2] = ["multipart/signed", "multipart/encrypted"];

/// For bodies of at least this many octets, small size matters more than legibility: non-ASCII letters take three times
/// their size in quoted-printable, and providers have size limits.
const LARGE: usize = 256 * 1024;

fn coding_of(entity: &Entity, octets: &[u8], structure: &Structure) -> Coding {
    let is_text = entity.content.is_text() || entity.content.encoding == Encoding::QuotedPrintable;
    let is_short = || Coding::BinaryQuotedPrintable.size(octets) <= Coding::Base64.size(octets);
    let is_large = structure.root().body.len() >= LARGE;
    if is_text && (!is_large || is_short()) { Coding::BinaryQuotedPrintable } else { Coding::Base64 }
}

/// Before the first part and after the last one is text that only readers without MIME would show. RFC 2046 §5.1.1.
fn blank_unread_text(entity: &Entity, structure: &Structure, editor: &mut Editor<'_>) {
    unread(entity, structure).into_iter().for_each(|range| editor.blank_eight_bit(range));
}

fn unread(entity: &Entity, structure: &Structure) -> [Range<usize>; 2] {
    let part = |index: &usize| structure.get(*index);
    let first = entity.children.first().and_then(part).map_or(entity.body.end, |part| part.delimiter.start);
    let last = entity.children.last().and_then(part).map_or(entity.body.end, |part| part.body.end);
    [entity.body.start..first, last..entity.body.end]
}

/// Octets of memory that [`to_seven_bit`] needs besides the message itself: an upper bound, estimated without
/// converting.
pub fn seven_bit_memory(message: &RawMessage) -> usize {
    let header = message.header();
    let body = message.body();
    if body.is_ascii() && header.is_ascii() {
        return 0;
    }
    let structure = Structure::of(message);
    let words = |block: &[u8]| if block.is_ascii() { 0 } else { WORD * block.len() };
    // A part's header is written first, then the body together with it.
    let of_entity = |entity: &Entity| {
        let content = if entity.is_leaf() { of_leaf(entity, &body[entity.body.clone()], &structure) } else { 0 };
        content + 2 * words(&body[entity.header.clone()])
    };
    let growth: usize = structure.entities().iter().map(of_entity).sum();
    STRUCTURE + words(header) + if body.is_ascii() { 0 } else { body.len() + growth }
}

/// Size of an encoded word for one octet.
const WORD: usize = 12;
/// Size of the largest structure.
const STRUCTURE: usize = 64 * 1024;

/// By how much the part grows, plus the octets decoded from quoted-printable while they are re-encoded.
fn of_leaf(entity: &Entity, body: &[u8], structure: &Structure) -> usize {
    let is_large = structure.root().body.len() >= LARGE;
    let size = match entity.content.encoding {
        _ if body.is_ascii() => return 0,
        Encoding::QuotedPrintable if is_large => body.len() + Coding::base64_size(body.len()),
        Encoding::QuotedPrintable => body.len() + longest_quoted_printable(body),
        _ => coding_of(entity, body, structure).size(body),
    };
    (size + LINE_END).saturating_sub(body.len())
}

const LINE_END: usize = 2;

#[cfg(test)]
mod tests;
