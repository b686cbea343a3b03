//! Decodes non-ASCII octets in headers: as UTF-8, otherwise in the charset that the body names, otherwise as windows-1252,
//! which has a character for nearly every octet and is what programs that name no charset usually write.

use crate::message::RawMessage;
use crate::message::charset;
use crate::message::mime::Structure;

/// For the raw octets in the headers of one message.
#[derive(Debug, Default)]
pub(in crate::message) struct RawCharset(Option<String>);

impl RawCharset {
    /// Reads the body only if the header is not UTF-8.
    pub fn of(message: &RawMessage) -> Self {
        let is_needed = std::str::from_utf8(message.header()).is_err() || std::str::from_utf8(message.body()).is_err();
        if !is_needed {
            return Self::default();
        }
        let structure = Structure::of(message);
        let named = structure.entities().iter().find_map(|entity| entity.content.charset.clone());
        Self(named.filter(|charset| is_raw(charset)))
    }

    /// Also returns whether the charset was another than UTF-8. In that case control characters are left out, because no text
    /// contains them.
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

/// True for charsets whose text can be a header's raw octets. UTF-8 has been tried by then; others are seven-bit or UTF-16.
fn is_raw(charset: &str) -> bool {
    let name = charset.to_ascii_lowercase();
    !["utf", "us-ascii", "ascii", "iso-2022", "hz-"].iter().any(|family| name.starts_with(family))
}

/// Leaves out octets for which the charset has no character.
fn windows_1252(octets: &[u8]) -> Option<String> {
    let has_character = |octet: &u8| !matches!(octet, 0x81 | 0x8d | 0x8f | 0x90 | 0x9d);
    charset::decode("windows-1252", &octets.iter().copied().filter(has_character).collect::<Vec<_>>())
}

/// Raw octets inside an encoded word are in the charset that the word names: they become `=XX`, as they should have been
/// written.
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

/// Maximum length of a recognised word, in octets.
const LONGEST_WORD: usize = 4096;

/// The length of the Q-encoded word that begins here, if one does. RFC 2047 §2.
fn size_of_word(text: &[u8]) -> Option<usize> {
    let behind = &text[2..];
    let charset = behind.iter().take(60).position(|&octet| octet == b'?').filter(|&length| length > 0)?;
    let data = match &behind[charset..] {
        [b'?', b'q' | b'Q', b'?', data @ ..] => &data[..data.len().min(LONGEST_WORD)],
        _ => return None,
    };
    Some(2 + charset + 3 + memchr::memmem::find(data, b"?=")? + 2)
}
