//! `Redaction`: finds secrets in text written by others, in whatever form it quotes them, and replaces them with `***`.
//! Does not depend on the source or the use of the text; never prints a secret itself.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

/// A secret shorter than this many octets is hidden only as a separate word. If it were hidden anywhere, half of each
/// reply would be hidden.
const SHORT: usize = 4;
/// A secret may be cut off or split. This many octets of it are hidden if one of them is a digit ...
const PIECE: usize = 8;
/// ... and this many in any case: fewer letters are most likely an ordinary word that occurs in both.
const WORDY_PIECE: usize = 12;

/// Secrets, prepared for searching.
#[derive(Default)]
pub struct Redaction {
    words: HashSet<Vec<u8>>,
    whole: HashSet<Vec<u8>>,
    pieces: HashSet<[u8; PIECE]>,
    wordy_pieces: HashSet<[u8; WORDY_PIECE]>,
}

/// One octet of a view, in lower case, and the range of the text that it represents.
type Octet = (u8, Range<usize>);

impl Redaction {
    /// The text with `***` in place of secrets. Also finds a secret that continues after a line break.
    pub fn hide(&self, text: &str) -> String {
        let mut hidden = vec![false; text.len()];
        let mut views = vec![plain(text)];
        if text.contains(['%', '=', '+', '\\', '&']) {
            // An escape may be split too.
            let joined = text.bytes().enumerate().filter(|(_, octet)| !b" \n\"'".contains(octet));
            views.extend([unescaped(text.bytes().enumerate()), unescaped(joined)]);
        }
        for view in &views {
            self.find_words(view, &mut hidden);
            for keeps in [not_white as fn(&u8) -> bool, u8::is_ascii_alphanumeric] {
                self.find_anywhere(
                    &view.iter().filter(|(octet, _)| keeps(octet)).cloned().collect::<Vec<_>>(),
                    &mut hidden,
                );
            }
        }
        masked(text, &hidden)
    }

    /// Hides it both in plain and in encoded form.
    pub fn add_secret(&mut self, secret: &str) {
        self.add(secret.as_bytes());
        // As it appears in a reply or a log.
        self.add(secret.replace(char::is_control, "?").as_bytes());
        self.add_encoded(secret.as_bytes());
    }

    /// Hides the octets in base64, even as part of something longer that was encoded, and in hexadecimal. In plain form
    /// they may be shown.
    pub fn add_encoded(&mut self, octets: &[u8]) {
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            self.add(engine.encode(octets).as_bytes());
            for before in 1..3 {
                let longer = [&vec![0; before][..], octets].concat();
                // Only the characters whose six bits all come from the secret.
                let from = (before * 8).div_ceil(6);
                let to = longer.len() * 8 / 6;
                let encoded = engine.encode(&longer);
                if octets.len() >= SHORT {
                    self.add(&encoded.as_bytes()[from..to]);
                }
            }
        }
        self.add(octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>().as_bytes());
    }

    fn add(&mut self, form: &[u8]) {
        if (1..SHORT).contains(&form.len()) {
            self.words.insert(form.to_ascii_lowercase());
        }
        for keeps in [not_white as fn(&u8) -> bool, u8::is_ascii_alphanumeric] {
            let form: Vec<u8> = form.to_ascii_lowercase().into_iter().filter(keeps).collect();
            self.pieces.extend(form.array_windows::<PIECE>().filter(|piece| piece.iter().any(u8::is_ascii_digit)));
            self.wordy_pieces.extend(form.array_windows::<WORDY_PIECE>());
            // Longer ones are found by their pieces.
            if (SHORT..WORDY_PIECE).contains(&form.len()) {
                self.whole.insert(form);
            }
        }
    }

    /// Finds short secrets that have no letter or digit next to them.
    fn find_words(&self, view: &[Octet], hidden: &mut [bool]) {
        let octets: Vec<u8> = view.iter().map(|(octet, _)| *octet).collect();
        let is_part = |at: Option<usize>| at.and_then(|at| octets.get(at)).is_some_and(u8::is_ascii_alphanumeric);
        for word in &self.words {
            for at in memchr::memmem::find_iter(&octets, word) {
                if !is_part(at.checked_sub(1)) && !is_part(Some(at + word.len())) {
                    hide_octets(&view[at..at + word.len()], hidden);
                }
            }
        }
    }

    fn find_anywhere(&self, view: &[Octet], hidden: &mut [bool]) {
        let octets: Vec<u8> = view.iter().map(|(octet, _)| *octet).collect();
        for secret in &self.whole {
            for at in memchr::memmem::find_iter(&octets, secret) {
                hide_octets(&view[at..at + secret.len()], hidden);
            }
        }
        for (at, piece) in octets.array_windows::<PIECE>().enumerate() {
            if self.pieces.contains(piece) {
                hide_octets(&view[at..at + PIECE], hidden);
            }
        }
        for (at, piece) in octets.array_windows::<WORDY_PIECE>().enumerate() {
            if self.wordy_pieces.contains(piece) {
                hide_octets(&view[at..at + WORDY_PIECE], hidden);
            }
        }
    }
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redaction(***)")
    }
}

fn not_white(octet: &u8) -> bool {
    !octet.is_ascii_whitespace()
}

/// Includes everything between the first and the last octet, because marks that a view leaves out belong to the secret.
fn hide_octets(octets: &[Octet], hidden: &mut [bool]) {
    if let [(_, first), .., (_, last)] | [(_, first @ last)] = octets {
        hidden[first.start..last.end].fill(true);
    }
}

fn plain(text: &str) -> Vec<Octet> {
    text.bytes().enumerate().map(|(at, octet)| (octet.to_ascii_lowercase(), at..at + 1)).collect()
}

/// Decodes percent-encoding, quoted-printable, xtext (RFC 3461 §4), backslashes and character references all at once,
/// since it is not known which of them a server uses.
fn unescaped(text: impl Iterator<Item = (usize, u8)>) -> Vec<Octet> {
    let (places, text): (Vec<usize>, Vec<u8>) = text.unzip();
    let mut view = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let (octets, length) = escape(&text[at..]);
        let place = places[at]..places[at + length - 1] + 1;
        view.extend(octets.into_iter().map(|octet| (octet.to_ascii_lowercase(), place.clone())));
        at += length;
    }
    view
}

/// Decodes the beginning of the text; also returns how many octets of it were used.
fn escape(text: &[u8]) -> (Vec<u8>, usize) {
    let number = |from: usize, to: usize, radix: u32| {
        let digits = std::str::from_utf8(text.get(from..to)?).ok()?;
        digits.chars().all(|c| c.is_digit(radix)).then(|| u32::from_str_radix(digits, radix).ok())?
    };
    let character = |code: u32| char::from_u32(code).map(|c| c.to_string().into_bytes());
    let found = match text {
        [b'%' | b'=' | b'+', ..] => number(1, 3, 16).and_then(|code| Some((vec![u8::try_from(code).ok()?], 3))),
        [b'\\', b'x', ..] => number(2, 4, 16).and_then(|code| Some((vec![u8::try_from(code).ok()?], 4))),
        [b'\\', b'u', ..] => number(2, 6, 16).and_then(|code| Some((character(code)?, 6))),
        [b'\\', b'0'..=b'3', ..] => number(1, 4, 8).and_then(|code| Some((vec![u8::try_from(code).ok()?], 4))),
        [b'\\', octet, ..] => {
            let named = b"abtnvfr".iter().zip(7..).find(|(name, _)| **name == *octet).map(|(_, control)| control);
            Some((vec![named.unwrap_or(*octet)], 2))
        }
        [b'&', rest @ ..] => rest.iter().take(8).position(|&octet| octet == b';').and_then(|end| {
            let decoded = match &rest[..end] {
                [b'#', b'x' | b'X', ..] => character(number(3, end + 1, 16)?)?,
                [b'#', ..] => character(number(2, end + 1, 10)?)?,
                b"amp" => vec![b'&'],
                b"lt" => vec![b'<'],
                b"gt" => vec![b'>'],
                b"quot" => vec![b'"'],
                b"apos" => vec![b'\''],
                _ => return None,
            };
            Some((decoded, end + 2))
        }),
        _ => None,
    };
    found.unwrap_or_else(|| (text[..1].to_vec(), 1))
}

/// Replaces whole characters, and the padding after them.
fn masked(text: &str, hidden: &[bool]) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut within = false;
    for (at, c) in text.char_indices() {
        let is_hidden = c != '\n' && (hidden[at..at + c.len_utf8()].contains(&true) || (within && c == '='));
        match (within, is_hidden) {
            (true, true) => {}
            (false, true) => shown.push_str("***"),
            (_, false) => shown.push(c),
        }
        within = is_hidden;
    }
    shown
}

#[cfg(test)]
mod tests;
