//! The tokens of an address list: atoms, quoted strings, comments, angle brackets, and encoded words as readers find them.

use crate::message::encoded_words::{EncodedWord, WordRun};

/// The part between two separators: one mailbox, or the name of a group.
#[derive(Debug)]
pub(in crate::message) struct AddressMember<'a> {
    /// Without surrounding white space.
    pub raw: &'a str,
    pub tokens: Vec<AddressToken<'a>>,
    /// The separator after it: `,`, `;` or `:`.
    pub stop: Option<char>,
}

#[derive(Debug)]
pub(in crate::message) struct AddressToken<'a> {
    pub kind: AddressTokenKind<'a>,
    /// As it is in the value; for neighbouring words, the first one.
    pub raw: &'a str,
    /// White space precedes it.
    pub spaced: bool,
}

#[derive(Debug)]
pub(in crate::message) enum AddressTokenKind<'a> {
    Atom(&'a str),
    /// Unescaped.
    Quoted {
        text: String,
    },
    Words(WordRun<'a>),
    /// The text between the brackets.
    Angle(&'a str),
    /// The text between the parentheses.
    Comment(&'a str),
}

/// Each token needs some hundred octets of memory, however short it is. A thousand addresses with names have three
/// thousand.
const MOST_TOKENS: usize = 30_000;

/// `None` if something is opened but not closed, or closed but not opened, or if there are more tokens than anyone
/// writes.
pub(in crate::message) fn members(value: &str) -> Option<Vec<AddressMember<'_>>> {
    let mut scanner = Scanner { value, at: 0, left: MOST_TOKENS };
    let mut members = Vec::new();
    loop {
        let start = scanner.at;
        let (tokens, stop) = scanner.member()?;
        let end = scanner.at - stop.map_or(0, char::len_utf8);
        members.push(AddressMember { raw: value[start..end].trim_matches([' ', '\t']), tokens, stop });
        if stop.is_none() {
            return Some(members);
        }
    }
}

/// The member before the first separator, and its length in octets; `None` as for [`members`].
pub(in crate::message) fn first_member(value: &str) -> Option<(AddressMember<'_>, usize)> {
    let mut scanner = Scanner { value, at: 0, left: MOST_TOKENS };
    let (tokens, stop) = scanner.member()?;
    let end = scanner.at - stop.map_or(0, char::len_utf8);
    Some((AddressMember { raw: value[..end].trim_matches([' ', '\t']), tokens, stop }, end))
}

struct Scanner<'a> {
    value: &'a str,
    at: usize,
    /// How many tokens and members may still follow.
    left: usize,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        &self.value[self.at..]
    }

    fn member(&mut self) -> Option<(Vec<AddressToken<'a>>, Option<char>)> {
        let mut tokens: Vec<AddressToken<'a>> = Vec::new();
        loop {
            self.left = self.left.checked_sub(1)?;
            let before = self.rest().len();
            self.at = self.value.len() - self.rest().trim_start_matches([' ', '\t']).len();
            let spaced = self.rest().len() < before;
            let Some(first) = self.rest().chars().next() else { return Some((tokens, None)) };
            if matches!(first, ',' | ';' | ':') {
                self.at += 1;
                return Some((tokens, Some(first)));
            }
            let start = self.at;
            if let Some(word) = EncodedWord::at_start(self.rest()) {
                self.at += word.size();
                let raw = &self.value[start..self.at];
                match tokens.last_mut().map(|token| &mut token.kind) {
                    Some(AddressTokenKind::Words(run)) => run.push(word, spaced),
                    _ => tokens.push(AddressToken {
                        kind: AddressTokenKind::Words(WordRun::of(word, true)),
                        raw,
                        spaced,
                    }),
                }
                continue;
            }
            let kind = match first {
                '"' => AddressTokenKind::Quoted { text: unescaped(self.enclosed(b'"')?) },
                '(' => AddressTokenKind::Comment(self.enclosed(b')')?),
                '<' => AddressTokenKind::Angle(self.enclosed(b'>')?.trim_matches([' ', '\t'])),
                '>' | ')' | ']' => return None,
                _ => AddressTokenKind::Atom(self.atom()?),
            };
            tokens.push(AddressToken { kind, raw: &self.value[start..self.at], spaced });
        }
    }

    /// Up to the `close` that matches the opening character here; comments nest, brackets may contain quoted strings.
    fn enclosed(&mut self, close: u8) -> Option<&'a str> {
        let start = self.at + 1;
        let bytes = self.value.as_bytes();
        let mut at = start;
        let mut depth = 0_usize;
        let mut quoted = false;
        loop {
            match *bytes.get(at)? {
                b'\\' if close != b'>' || quoted => at += 1,
                b'"' if close == b'>' => quoted = !quoted,
                b'(' if close == b')' => depth += 1,
                b')' if close == b')' && depth > 0 => depth -= 1,
                byte if byte == close && !quoted => {
                    self.at = at + 1;
                    return self.value.get(start..at);
                }
                _ => {}
            }
            at += 1;
        }
    }

    fn atom(&mut self) -> Option<&'a str> {
        let start = self.at;
        while let Some(c) = self.rest().chars().next() {
            if " \t\"(<,;:>)]".contains(c) || self.at > start && EncodedWord::at_start(self.rest()).is_some() {
                break;
            }
            // An address literal contains colons.
            self.at += if c == '[' { self.rest().find(']')? + 1 } else { c.len_utf8() };
        }
        self.value.get(start..self.at)
    }
}

/// Without the backslashes of quoted pairs.
pub(super) fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            _ => out.push(c),
        }
    }
    out
}
