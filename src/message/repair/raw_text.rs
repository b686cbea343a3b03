//! Octets in headers that are not ASCII: UTF-8, or else text in the charset that the body names, or else in windows-1252, which
//! has a character for nearly every octet and is what those mean who name nothing.

use crate::message::RawMessage;
use crate::message::charset;
use crate::message::mime::Structure;

/// For the raw octets in the headers of one message.
#[derive(Debug, Default)]
pub(in crate::message) struct RawCharset(Option<String>);

impl RawCharset {
    /// Looks at the body only where the header is not UTF-8.
    pub fn of(message: &RawMessage) -> Self {
        let is_needed = std::str::from_utf8(message.header()).is_err() || std::str::from_utf8(message.body()).is_err();
        if !is_needed {
            return Self::default();
        }
        let structure = Structure::of(message);
        let named = structure.entities().iter().find_map(|entity| entity.content.charset.clone());
        Self(named.filter(|charset| is_raw(charset)))
    }

    /// And whether it was another charset than UTF-8. Control characters, which no text has, are left out then.
    pub fn decode(&self, octets: &[u8]) -> Option<(String, bool)> {
        if let Ok(text) = std::str::from_utf8(octets) {
            return Some((text.to_owned(), false));
        }
        let octets = with_escapes_in_words(octets);
        let named = self.0.as_deref().and_then(|charset| charset::decode(charset, &octets));
        let text = named.or_else(|| windows_1252(&octets))?;
        let is_text = |c: &char| c.is_ascii() || !c.is_control();
        Some((text.chars().filter(is_text).collect(), true))
    }
}

/// In headers it could stand as it is, and it is not one that would have been found by then.
fn is_raw(charset: &str) -> bool {
    let name = charset.to_ascii_lowercase();
    !["utf", "us-ascii", "ascii", "iso-2022", "hz-"].iter().any(|family| name.starts_with(family))
}

/// Without the octets that it has no character for.
fn windows_1252(octets: &[u8]) -> Option<String> {
    let has_character = |octet: &u8| !matches!(octet, 0x81 | 0x8d | 0x8f | 0x90 | 0x9d);
    charset::decode("windows-1252", &octets.iter().copied().filter(has_character).collect::<Vec<_>>())
}

/// Raw octets inside an encoded word are of the charset that the word names: they become `=XX`, as they should have been.
fn with_escapes_in_words(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len());
    let mut rest = octets;
    while let Some(found) = memchr::memmem::find(rest, b"=?") {
        out.extend_from_slice(&rest[..found]);
        let size = size_of_word(&rest[found..]).unwrap_or(2);
        let (word, behind) = rest[found..].split_at(size);
        for &octet in word {
            match octet {
                0x80.. => out.extend_from_slice(format!("={octet:02X}").as_bytes()),
                _ => out.push(octet),
            }
        }
        rest = behind;
    }
    out.extend_from_slice(rest);
    out
}

/// Octets of the longest word that is looked for.
const LONGEST_WORD: usize = 4096;

/// Of the word in the Q encoding that begins here, if one does. RFC 2047 §2.
fn size_of_word(text: &[u8]) -> Option<usize> {
    let behind = &text[2..];
    let charset = behind.iter().take(60).position(|&octet| octet == b'?').filter(|&length| length > 0)?;
    let data = match &behind[charset..] {
        [b'?', b'q' | b'Q', b'?', data @ ..] => &data[..data.len().min(LONGEST_WORD)],
        _ => return None,
    };
    Some(2 + charset + 3 + memchr::memmem::find(data, b"?=")? + 2)
}
