//! The texts that a message shows to its readers: its plain and HTML texts, decoded, for conditions and links.
//!
//! Decoded at most once per message, and only if a rule needs them. They stay correct because no rule changes a body.
//! Bounded: only the beginning of each text is read, and all of them together are no longer than one may be. An
//! unreadable text counts as empty.

use crate::message::mime::Structure;
use crate::message::optional::{Obstacle, Skipped, attempt};
use crate::message::{RawMessage, html};

/// Maximum size in octets, as in the message, of all texts together.
const LARGEST: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Texts {
    decoded: Option<Vec<BodyText>>,
    /// Searches that were skipped.
    pub skipped: Vec<Skipped>,
}

/// The names of these searches in the log.
const SEARCH: &str = "body_contains";
const LINK: &str = "list_unsubscribe";

#[derive(Debug)]
struct BodyText {
    is_html: bool,
    decoded: String,
}

impl Texts {
    /// The most memory, in octets, for a body of this size: a letter of an 8-bit charset may take three octets in
    /// UTF-8. For links, one HTML text is parsed in addition.
    pub fn memory_needed(body: usize, for_links: bool) -> usize {
        3 * body.min(LARGEST) + if for_links { html::memory_needed(3 * body) } else { 0 }
    }

    /// False if they cannot be read.
    pub fn contain(&mut self, message: &RawMessage, part: &str) -> bool {
        self.read(message, SEARCH);
        let texts = self.decoded.as_deref().unwrap_or_default();
        let found = attempt(SEARCH, || Ok(texts.iter().any(|text| text.decoded.contains(part))));
        self.or_skipped(found).unwrap_or_default()
    }

    /// The address of the first link for which `wanted` holds, in reading order.
    pub fn link(&mut self, message: &RawMessage, wanted: impl Fn(&str) -> bool) -> Option<String> {
        self.read(message, LINK);
        let texts = self.decoded.take().unwrap_or_default();
        let link = texts.iter().find_map(|text| self.or_skipped(attempt(LINK, || link_in(text, &wanted))).flatten());
        self.decoded = Some(texts);
        link
    }

    fn read(&mut self, message: &RawMessage, step: &'static str) {
        if self.decoded.is_none() {
            let decoded = attempt(step, || Ok(decoded(message)));
            self.decoded = Some(self.or_skipped(decoded).unwrap_or_default());
        }
    }

    /// Records each skipped search once.
    fn or_skipped<T>(&mut self, result: Result<T, Skipped>) -> Option<T> {
        result
            .map_err(|skipped| {
                if !self.skipped.contains(&skipped) {
                    self.skipped.push(skipped)
                }
            })
            .ok()
    }
}

fn link_in(text: &BodyText, wanted: impl Fn(&str) -> bool) -> Result<Option<String>, Obstacle> {
    Ok(match text.is_html {
        true => html::links(&text.decoded)?.into_iter().find(|link| is_link(link) && wanted(link)),
        false => links(&text.decoded).find(|link| wanted(link)).map(str::to_owned),
    })
}

fn decoded(message: &RawMessage) -> Vec<BodyText> {
    let mut room = LARGEST;
    let mut texts = Vec::new();
    for (_, entity) in Structure::of(message).leaves().filter(|(_, entity)| entity.content.is_shown_text()) {
        let window = window(&message.body()[entity.body.clone()], room);
        room -= window.len();
        let decoded = entity.content.text(window);
        texts.extend(decoded.map(|decoded| BodyText { is_html: entity.content.is("text/html"), decoded }));
    }
    texts
}

/// Whole lines, so that no encoding is split.
fn window(body: &[u8], room: usize) -> &[u8] {
    if body.len() <= room {
        return body;
    }
    let end = memchr::memrchr(b'\n', &body[..room]).map_or(0, |newline| newline + 1);
    &body[..end]
}

const SCHEMES: [&str; 3] = ["https://", "http://", "mailto:"];

fn is_link(text: &str) -> bool {
    SCHEMES.iter().any(|scheme| text.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme)))
}

/// In octets; longer ones would not fit in a header.
const LONGEST_LINK: usize = 4096;

/// The addresses in a plain text, each up to the next white space or bracket.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let is_end = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | '"');
    text.split(is_end).filter(|word| word.len() <= LONGEST_LINK).filter_map(|word| {
        let start = memchr::memchr_iter(b':', word.as_bytes()).find_map(|colon| start_of_link(word, colon))?;
        Some(without_punctuation(&word[start..]))
    })
}

/// The beginning of the scheme that ends at this colon.
fn start_of_link(word: &str, colon: usize) -> Option<usize> {
    SCHEMES.iter().find_map(|scheme| {
        let start = colon.checked_sub(scheme.find(':')?)?;
        is_link(word.get(start..)?).then_some(start)
    })
}

/// Punctuation at the end of the sentence, or a bracket around the link, is not part of it.
fn without_punctuation(link: &str) -> &str {
    // By how many more a bracket is closed than opened.
    let surplus = |open: u8, close: u8| {
        link.bytes().map(|byte| isize::from(byte == close) - isize::from(byte == open)).sum::<isize>()
    };
    let mut round = surplus(b'(', b')');
    let mut square = surplus(b'[', b']');
    let mut end = link.len();
    while let Some(&last) = link.as_bytes()[..end].last() {
        match last {
            b'.' | b',' | b';' | b':' | b'!' | b'?' | b'\'' | b'*' | b'_' => {}
            b')' if round > 0 => round -= 1,
            b']' if square > 0 => square -= 1,
            _ => break,
        }
        end -= 1;
    }
    // Only ASCII was removed.
    link.get(..end).unwrap_or(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(data: &str) -> RawMessage {
        RawMessage::from_data(data.replace('\n', "\r\n").into()).expect("a message")
    }

    #[test]
    fn links_of_plain_texts() {
        for (text, expected) in [
            ("See https://example.com/a?b=c&d=e.", &["https://example.com/a?b=c&d=e"][..]),
            ("(https://example.com/a) and <http://x.example>", &["https://example.com/a", "http://x.example"]),
            (
                "https://example.com/a_(b) [https://example.com/[c]].",
                &["https://example.com/a_(b)", "https://example.com/[c]"],
            ),
            ("Unsubscribe:https://example.com/u", &["https://example.com/u"]),
            ("mail to mailto:leave@example.com?subject=x, or ftp://x", &["mailto:leave@example.com?subject=x"]),
            ("(https://x/?)... [[https://x/(].)!]", &["https://x/", "https://x/(].)"]),
            ("HTTPS://EXAMPLE.COM/", &["HTTPS://EXAMPLE.COM/"]),
            ("xhttp: https:/x :// a:b", &[]),
            ("https://example.com/grün\u{2028}x", &["https://example.com/grün"]),
        ] {
            assert_eq!(links(text).collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[test]
    fn texts_are_those_that_a_reader_sees() {
        let parts = "Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: text/plain; charset=utf-8\n\
                     Content-Transfer-Encoding: quoted-printable\n\ngr=C3=BCn https://example.com/=\nlong\n--x\n\
                     Content-Type: text/html\n\n<a href=\"https://example.com/?a&amp;b\">x</a>\n--x\n\
                     Content-Disposition: attachment\n\nhidden https://example.com/hidden\n--x--\n";
        let message = message(parts);
        let mut texts = Texts::default();
        for (part, expected) in [("grün", true), ("https://example.com/long", true), ("href", true), ("hidden", false)]
        {
            assert_eq!(texts.contain(&message, part), expected, "{part}");
        }
        let mut link = |part: &str| texts.link(&message, |link| link.contains(part));
        assert_eq!(link("").as_deref(), Some("https://example.com/long"));
        assert_eq!(link("?").as_deref(), Some("https://example.com/?a&b"));
        assert_eq!(link("hidden"), None);
    }

    #[test]
    fn work_is_bounded() {
        let long = "https://example.com/start\n".to_owned() + &"x ".repeat(LARGEST) + "https://example.com/end\n";
        let mut texts = Texts::default();
        let message = message(&format!("Subject: x\n\n{long}"));
        assert!(texts.contain(&message, "/start") && !texts.contain(&message, "/end"));
        let brackets = format!("https://x/{} ", ")".repeat(4000)).repeat(250);
        assert!(links(&brackets).all(|link| link == "https://x/"));
    }
}
