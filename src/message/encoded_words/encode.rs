//! Writes text as header values: plain if it is ASCII, otherwise in encoded words of whole characters.

use super::{BREAKS, MAX_WORD, WordPlacement, is_plain};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::borrow::Cow;

/// The octets around the data of a word.
const WORD_OVERHEAD: usize = "=?UTF-8?Q??=".len();
/// In octets; a longer word has to be encoded, since a line cannot be folded inside it.
const LONGEST_PLAIN: usize = 900;

/// An unstructured value on one line that can be folded at its white space. Decoding it yields `text`, with a space in
/// place of line breaks and NUL; other control characters are encoded. `column`: where the value begins.
pub fn encode_text(text: &str, column: usize) -> String {
    encode(&in_one_line(text), WordPlacement::Text, column)
}

/// A display name: atoms, a quoted string or encoded words.
pub fn encode_phrase(text: &str, column: usize) -> String {
    let text = &*in_one_line(text);
    let is_ascii = text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && !text.contains("=?");
    if !is_ascii || text.split(' ').any(|word| word.len() > LONGEST_PLAIN) {
        return encode(text, WordPlacement::Phrase, column);
    }
    if is_plain(text) && text.split(' ').all(|word| stays_plain(word, WordPlacement::Phrase)) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The text between the parentheses of a comment.
pub fn encode_comment(text: &str) -> String {
    encode(&in_one_line(text), WordPlacement::Phrase, 0)
}

/// Replaces each run of line breaks and NULs by one space.
fn in_one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(BREAKS) {
        return Cow::Borrowed(text);
    }
    let lines = text.split(BREAKS).filter(|line| !line.is_empty());
    Cow::Owned(lines.collect::<Vec<_>>().join(" "))
}

/// A word with the white space before it.
struct TextToken<'a> {
    gap: &'a str,
    word: &'a str,
    plain: bool,
}

fn encode(text: &str, place: WordPlacement, column: usize) -> String {
    let (tokens, tail) = tokens(text, place);
    let mut value = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if token.plain {
            value.push_str(token.gap);
            value.push_str(token.word);
            at += 1;
            continue;
        }
        let end = tokens[at..].iter().position(|token| token.plain).map_or(tokens.len(), |plain| at + plain);
        let mut run = String::new();
        for (index, token) in tokens[at..end].iter().enumerate() {
            // One character of the gap separates it from the plain text; the others must be inside the word to be seen.
            let seen = if index == 0 && at > 0 { &token.gap[1..] } else { token.gap };
            run.push_str(seen);
            run.push_str(token.word);
        }
        if at > 0 {
            value.push_str(&token.gap[..1]);
        }
        let (inside, behind) = match tokens.get(end) {
            Some(next) => next.gap.split_at(next.gap.len() - 1),
            None => (tail, ""),
        };
        run.push_str(inside);
        push_words(&run, place, if at == 0 { column } else { 0 }, &mut value);
        value.push_str(behind);
        if let Some(next) = tokens.get(end) {
            value.push_str(next.word);
        }
        at = end + 1;
    }
    value
}

/// Also returns the white space at the end.
fn tokens(text: &str, place: WordPlacement) -> (Vec<TextToken<'_>>, &str) {
    let is_space = |c| c == ' ' || c == '\t';
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c| !is_space(c)) {
        let end = rest[start..].find(is_space).map_or(rest.len(), |end| start + end);
        let gap = &rest[..start];
        let word = &rest[start..end];
        // White space at the beginning would be lost.
        let plain = stays_plain(word, place) && (!tokens.is_empty() || gap.is_empty());
        tokens.push(TextToken { gap, word, plain });
        rest = &rest[end..];
    }
    if let Some(last) = tokens.last_mut().filter(|_| !rest.is_empty()) {
        last.plain = false;
    }
    (tokens, rest)
}

fn stays_plain(word: &str, place: WordPlacement) -> bool {
    let allowed = |byte: u8| match place {
        WordPlacement::Text => byte.is_ascii_graphic(),
        // RFC 5322 §3.2.3, atext.
        WordPlacement::Phrase => byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte),
    };
    !word.is_empty() && word.len() <= LONGEST_PLAIN && word.bytes().all(allowed) && !word.contains("=?")
}

/// Appends encoded words; base64 only for text that would be unreadable anyway.
fn push_words(run: &str, place: WordPlacement, column: usize, value: &mut String) {
    let foreign = run.chars().filter(|c| !c.is_ascii()).count();
    let base64 = foreign * 2 > run.chars().count();
    // The first word shares its line with the field's name.
    let mut room = (MAX_WORD + 1).saturating_sub(column).min(MAX_WORD).saturating_sub(WORD_OVERHEAD);
    if room < 16 {
        room = MAX_WORD - WORD_OVERHEAD;
    }
    let mut rest = run;
    while !rest.is_empty() {
        let (chunk, others) = rest.split_at(chunk_length(rest, room, base64, place));
        if base64 {
            value.push_str(&format!("=?UTF-8?B?{}?=", BASE64_STANDARD.encode(chunk)));
        } else {
            value.push_str(&format!("=?UTF-8?Q?{}?=", chunk.chars().map(|c| q_encoded(c, place)).collect::<String>()));
        }
        if !others.is_empty() {
            value.push(' ');
        }
        rest = others;
        room = MAX_WORD - WORD_OVERHEAD;
    }
}

/// The octets of as many whole characters as fit when encoded; at least one character.
fn chunk_length(text: &str, room: usize, base64: bool, place: WordPlacement) -> usize {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += if base64 { c.len_utf8() } else { q_length(c, place) };
        let fits = if base64 { used.div_ceil(3) * 4 <= room } else { used <= room };
        if !fits && at > 0 {
            return at;
        }
    }
    text.len()
}

fn is_q_literal(c: char, place: WordPlacement) -> bool {
    match place {
        WordPlacement::Text => c.is_ascii_graphic() && !matches!(c, '=' | '?' | '_'),
        WordPlacement::Phrase => c.is_ascii_alphanumeric() || matches!(c, '!' | '*' | '+' | '-' | '/'),
    }
}

fn q_length(c: char, place: WordPlacement) -> usize {
    if c == ' ' || is_q_literal(c, place) { 1 } else { 3 * c.len_utf8() }
}

fn q_encoded(c: char, place: WordPlacement) -> String {
    if c == ' ' {
        return "_".to_owned();
    }
    if is_q_literal(c, place) {
        return c.to_string();
    }
    c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("={byte:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::encoded_words::decode;
    use proptest::prelude::*;

    #[test]
    fn text_is_plain_where_it_can_be() {
        for (text, value) in [
            ("Hello, world", "Hello, world"),
            ("Grüße", "=?UTF-8?Q?Gr=C3=BC=C3=9Fe?="),
            ("The word Grüße is German", "The word =?UTF-8?Q?Gr=C3=BC=C3=9Fe?= is German"),
            ("für Söhne, x", "=?UTF-8?Q?f=C3=BCr_S=C3=B6hne,?= x"),
            ("a  für", "a =?UTF-8?Q?_f=C3=BCr?="),
            ("für  a", "=?UTF-8?Q?f=C3=BCr_?= a"),
            ("a  b", "a  b"),
            (" a", "=?UTF-8?Q?_a?="),
            ("a ", "=?UTF-8?Q?a_?="),
            ("  ", ""),
            ("", ""),
            ("日本語の件名", "=?UTF-8?B?5pel5pys6Kqe44Gu5Lu25ZCN?="),
            ("about =?UTF-8?Q?x?= words", "about =?UTF-8?Q?=3D=3FUTF-8=3FQ=3Fx=3F=3D?= words"),
            ("a\r\nBcc: x", "a Bcc: x"),
            ("für\r\n\r\nSöhne\0\n", "=?UTF-8?Q?f=C3=BCr_S=C3=B6hne?="),
            ("\n", ""),
            ("a\u{1}b", "=?UTF-8?Q?a=01b?="),
        ] {
            assert_eq!(encode_text(text, 9), value, "{text:?}");
        }
    }

    #[test]
    fn names_are_atoms_quoted_or_encoded() {
        for (name, phrase) in [
            ("Example Analytics", "Example Analytics"),
            ("Dr. Who", "\"Dr. Who\""),
            ("a \"b\" \\c", "\"a \\\"b\\\" \\\\c\""),
            ("a  b", "\"a  b\""),
            ("Jürgen Größer", "=?UTF-8?Q?J=C3=BCrgen_Gr=C3=B6=C3=9Fer?="),
            ("Zoë \"Zed\" O'Neil, Ltd", "=?UTF-8?Q?Zo=C3=AB_=22Zed=22_O=27Neil=2C?= Ltd"),
            ("=?x?Q?y?=", "=?UTF-8?Q?=3D=3Fx=3FQ=3Fy=3F=3D?="),
            ("Jürgen\r\nBcc: x", "=?UTF-8?Q?J=C3=BCrgen_Bcc=3A?= x"),
            ("A\0B", "A B"),
        ] {
            assert_eq!(encode_phrase(name, 6), phrase, "{name:?}");
        }
    }

    #[test]
    fn long_runs_are_split_at_characters() {
        let text = "größte-bücherei-für-käsekuchen-rezepte.münchen.example/☕-shop";
        let value = encode_text(text, 9);
        assert_eq!(decode(&value).as_deref(), Some(text));
        assert!(value.split(' ').all(|word| word.len() <= MAX_WORD && decode(word).is_some()), "{value}");
        assert!(value.split(' ').next().is_some_and(|first| first.len() + 9 <= 76), "{value}");
        let endless = "x".repeat(2000);
        let value = encode_text(&endless, 9);
        assert!(value.split(' ').all(|word| word.len() <= MAX_WORD), "{value}");
        assert_eq!(decode(&value), Some(endless));
    }

    proptest! {
        #[test]
        fn reading_gives_back_what_was_written(text in "[ a-zäöü☕日\t=?_\"\u{1}]{0,200}", column in 0_usize..90) {
            let value = encode_text(&text, column);
            let expected = if text.trim_matches([' ', '\t']).is_empty() { "" } else { &text };
            prop_assert_eq!(decode(&value), Some(expected.to_owned()), "{}", value);
        }
    }
}
