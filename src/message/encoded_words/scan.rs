//! Finds encoded words as readers do, even if they are adjacent, contain raw spaces, or are too long.

use super::{BREAKS, MAX_WORD, WordPlacement, is_plain};
use crate::message::charset;
use mail_parser::decoders::base64::base64_decode;
use mail_parser::decoders::quoted_printable::quoted_printable_decode_char;

/// In octets; a longer word is treated as text, so that scanning stays linear.
const LONGEST: usize = 4096;

/// The text between `=?` and `?=` with a charset and an encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodedWord<'a> {
    raw: &'a str,
    charset: &'a str,
    base64: bool,
    data: &'a str,
}

impl<'a> EncodedWord<'a> {
    /// The word at the very beginning of `text`.
    pub fn at_start(text: &'a str) -> Option<Self> {
        let rest = text.strip_prefix("=?")?;
        let (charset, rest) = rest.split_at(rest.bytes().take(60).position(|byte| byte == b'?')?);
        let is_token = |byte: u8| byte.is_ascii_graphic() && !b"()<>@,;:\"/[]=".contains(&byte);
        if charset.is_empty() || !charset.bytes().all(is_token) {
            return None;
        }
        let (base64, data) = match rest.as_bytes() {
            [b'?', b'B' | b'b', b'?', ..] => (true, &rest[3..]),
            [b'?', b'Q' | b'q', b'?', ..] => (false, &rest[3..]),
            _ => return None,
        };
        let window = &data.as_bytes()[..data.len().min(LONGEST)];
        let end = memchr::memmem::find(window, b"?=")?;
        let raw = &text[..text.len() - data.len() + end + 2];
        // RFC 2231 §5: a language may follow the charset.
        let charset = charset.split('*').next().unwrap_or(charset);
        Some(Self { raw, charset, base64, data: &data[..end] })
    }

    /// The number of octets that it occupies.
    pub fn size(&self) -> usize {
        self.raw.len()
    }

    /// As it is in the value.
    pub fn raw(&self) -> &'a str {
        self.raw
    }

    /// Its text is a quoted string even for readers that do not recognise the word.
    pub fn is_quoted(&self) -> bool {
        let inner = self.data.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        inner.is_some_and(|inner| !inner.contains(['"', '\\']))
    }

    pub fn bytes(&self) -> Option<Vec<u8>> {
        if self.base64 { base64_decode(self.data.as_bytes()) } else { decode_q(self.data.as_bytes()) }
    }

    /// Strictly follows RFC 2047 §2, §4 and §5, looking at this word alone.
    fn is_sound(&self, place: WordPlacement) -> bool {
        let allowed = |byte: u8| match (self.base64, place) {
            (true, _) => byte.is_ascii_alphanumeric() || b"+/=".contains(&byte),
            (false, WordPlacement::Text) => byte.is_ascii_graphic() && byte != b'?',
            (false, WordPlacement::Phrase) => byte.is_ascii_alphanumeric() || b"!*+-/=_".contains(&byte),
        };
        let whole = !self.base64 || self.data.len().is_multiple_of(4);
        self.raw.len() <= MAX_WORD
            && !self.data.is_empty()
            && whole
            && self.data.bytes().all(allowed)
            && self.bytes().is_some_and(|bytes| charset::decode(self.charset, &bytes).is_some())
    }
}

/// An underscore is a space (RFC 2047 §4.2), except for a sender that writes spaces as they are.
fn decode_q(data: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(data.len());
    let underscore = if data.contains(&b' ') { b'_' } else { b' ' };
    let mut rest = data;
    while let Some((&first, tail)) = rest.split_first() {
        rest = match first {
            b'_' => {
                bytes.push(underscore);
                tail
            }
            b'=' => {
                let [high, low, tail @ ..] = tail else { return None };
                bytes.push(quoted_printable_decode_char(*high, *low)?);
                tail
            }
            _ => {
                bytes.push(first);
                tail
            }
        };
    }
    Some(bytes)
}

/// Neighbouring words, which are shown without the white space between them (RFC 2047 §6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WordRun<'a> {
    words: Vec<EncodedWord<'a>>,
    /// White space separates the words and surrounds the run.
    apart: bool,
}

impl<'a> WordRun<'a> {
    pub fn of(word: EncodedWord<'a>, apart: bool) -> Self {
        Self { words: vec![word], apart }
    }

    pub fn words(&self) -> &[EncodedWord<'a>] {
        &self.words
    }

    pub fn push(&mut self, word: EncodedWord<'a>, apart: bool) {
        self.words.push(word);
        self.apart &= apart;
    }

    /// Something follows the run without white space.
    pub fn touch(&mut self) {
        self.apart = false;
    }

    /// Decodes each word separately if possible (RFC 2047 §6.2). If a word cannot be decoded because a character is
    /// split, its octets are joined with those of the following words of its charset.
    pub fn decode(&self) -> Option<String> {
        let same = |a: &EncodedWord<'_>, b: &EncodedWord<'_>| a.charset.eq_ignore_ascii_case(b.charset);
        self.words.chunk_by(same).map(decoded).collect()
    }

    /// Follows the RFC and encodes only text that plain text could not express.
    pub fn is_sound(&self, place: WordPlacement) -> bool {
        self.apart
            && self.words.iter().all(|word| word.is_sound(place))
            && self.decode().is_some_and(|text| !is_plain(&text) && !text.contains(BREAKS))
    }
}

/// Up to this many words are joined one by one until their octets can be read; after that, all remaining ones are
/// joined at once, so that the work stays linear.
const MOST_JOINED: usize = 16;

/// The text of words with one charset.
fn decoded(words: &[EncodedWord<'_>]) -> Option<String> {
    let charset = words.first()?.charset;
    let mut text = String::new();
    let mut octets = Vec::new();
    let mut joined = 0;
    for (at, word) in words.iter().enumerate() {
        octets.extend(word.bytes()?);
        joined += 1;
        let is_last = at + 1 == words.len();
        if !is_last && (joined > MOST_JOINED || !charset::ends_in_ascii(charset, &octets)) {
            continue;
        }
        match charset::decode(charset, &octets) {
            Some(decoded) => text.push_str(&decoded),
            None if is_last => return None,
            None => continue,
        }
        octets.clear();
        joined = 0;
    }
    Some(text)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextPiece<'a> {
    Plain(&'a str),
    Run(WordRun<'a>),
}

/// The pieces of an unstructured value, in order, without the white space between the words of a run.
pub fn split(value: &str) -> Vec<TextPiece<'_>> {
    let mut pieces: Vec<TextPiece<'_>> = Vec::new();
    let mut plain = 0;
    let mut at = 0;
    while let Some(found) = value[at..].find("=?").map(|offset| at + offset) {
        let Some(word) = EncodedWord::at_start(&value[found..]) else {
            at = found + 2;
            continue;
        };
        let between = &value[plain..found];
        let apart = between.is_empty() && found == 0 || between.ends_with(is_space);
        match pieces.last_mut() {
            Some(TextPiece::Run(run)) if between.trim_matches(is_space).is_empty() => {
                run.push(word, !between.is_empty())
            }
            last => {
                if let Some(TextPiece::Run(run)) = last.filter(|_| !between.starts_with(is_space)) {
                    run.touch();
                }
                if !between.is_empty() {
                    pieces.push(TextPiece::Plain(between));
                }
                pieces.push(TextPiece::Run(WordRun::of(word, apart)));
            }
        }
        at = found + word.size();
        plain = at;
    }
    let rest = &value[plain..];
    if let Some(TextPiece::Run(run)) = pieces.last_mut().filter(|_| !rest.is_empty() && !rest.starts_with(is_space)) {
        run.touch();
    }
    if !rest.is_empty() {
        pieces.push(TextPiece::Plain(rest));
    }
    pieces
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::encoded_words::decode;

    #[test]
    fn what_a_value_says() {
        for (value, text) in [
            ("plain", Some("plain")),
            ("=?UTF-8?Q?gr=C3=BCn?=", Some("grün")),
            ("=?utf-8*en?q?gr=c3=bcn?= tea", Some("grün tea")),
            ("=?ISO-8859-1?B?Z3L8bg==?=", Some("grün")),
            ("a =?UTF-8?Q?=C3=A4?= =?UTF-8?B?w7Y=?=\t=?ISO-8859-1?Q?=FC?= b", Some("a äöü b")),
            ("=?UTF-8?Q?=C3?==?UTF-8?Q?=A4?=", Some("ä")),
            ("=?UTF-8?Q?=C3?= =?utf-8?B?pA==?=", Some("ä")),
            ("=?UTF-8?Q?raw spaces in =C3=A4 it?=", Some("raw spaces in ä it")),
            ("=?UTF-8?Q?a_b?=c", Some("a bc")),
            // A sender that writes spaces as they are means an underscore.
            ("=?UTF-8?Q?my_shop is =C3=A4?=", Some("my_shop is ä")),
            ("=?UTF-8?Q?a_b?= =?UTF-8?Q?c_d e?=", Some("a bc_d e")),
            ("=?UTF-8?Q?_a=20b?=", Some(" a b")),
            ("=?UTF-8?Q??=", Some("")),
            // Each word is complete: joined, their escape sequences would contradict each other.
            ("=?ISO-2022-JP?B?GyRCJU8bKEI=?= =?iso-2022-jp?B?GyRCJU8bKEI=?= x", Some("ハハ x")),
            ("=?ISO-2022-KR?B?GyQpQw5HUQ8=?= =?ISO-2022-KR?B?GyQpQw4xWw8=?=", Some("한글")),
            // The second word continues where the first one stopped.
            ("=?ISO-2022-JP?B?GyRCJU8=?= =?ISO-2022-JP?B?JU8bKEI=?=", Some("ハハ")),
            ("=?Shift_JIS?Q?=83?= =?Shift_JIS?Q?n?=", Some("ハ")),
            ("=?UTF-8?Q?a?= =?UTF-8?Q?=E2?= =?UTF-8?Q?=98?= =?UTF-8?Q?=95?= =?UTF-8?Q?b?=", Some("a☕b")),
            ("=?UTF-8?Q?=E2?= =?ISO-8859-1?Q?=98?=", None),
            // Not words, so they stay as they are.
            ("=?UTF-8?X?a?= =??Q?a?= =?UTF-8?Q?a", Some("=?UTF-8?X?a?= =??Q?a?= =?UTF-8?Q?a")),
            ("=?", Some("=?")),
            // Cannot be decoded.
            ("=?UTF-8?Q?=C3?=", None),
            ("=?UTF-8?Q?=C?=", None),
            ("=?UTF-8?Q?=ZZ?=", None),
            ("=?UTF-8?B?$?=", None),
            ("=?klingon?Q?=C3?=", None),
        ] {
            assert_eq!(decode(value).as_deref(), text, "{value}");
        }
    }

    fn is_sound(value: &str, place: WordPlacement) -> bool {
        split(value).iter().all(|piece| match piece {
            TextPiece::Plain(_) => true,
            TextPiece::Run(run) => run.is_sound(place),
        })
    }

    #[test]
    fn which_words_are_sound() {
        let long = format!("=?UTF-8?Q?{}?=", "=C3=A4".repeat(11));
        for (value, expected) in [
            ("plain", true),
            ("=?UTF-8?Q?gr=C3=BCn?=", true),
            ("a =?UTF-8?Q?gr=C3=BCn?= b =?UTF-8?B?w7Y=?=", true),
            // The second word alone would be plain, but it contains the space that would be lost.
            ("=?UTF-8?Q?gr=C3=BCn?= =?UTF-8?Q?_tea?=", true),
            ("=?UTF-8?Q?a_=3D=3F_b?=", true),
            ("=?UTF-8?Q?two__spaces?=", true),
            ("=?UTF-8?Q?tea?=", false),
            ("=?UTF-8?Q?green?= =?UTF-8?Q?_tea?=", false),
            ("=?UTF-8?Q?=C3=A4?==?UTF-8?Q?=C3=A4?=", false),
            ("a=?UTF-8?Q?=C3=A4?=", false),
            ("=?UTF-8?Q?=C3=A4?=a", false),
            ("=?UTF-8?Q?=C3=A4?=, =?UTF-8?Q?=C3=A4?=", false),
            ("=?UTF-8?Q?=C3=A4 b?=", false),
            ("=?UTF-8?Q?=C3?= =?UTF-8?Q?=A4?=", false),
            ("=?UTF-8?B?w7Y?=", false),
            (&long, false),
        ] {
            assert_eq!(is_sound(value, WordPlacement::Text), expected, "{value}");
        }
        assert!(
            is_sound("=?UTF-8?Q?Dr._=C3=84?=", WordPlacement::Text)
                && !is_sound("=?UTF-8?Q?Dr._=C3=84?=", WordPlacement::Phrase)
        );
    }
}
