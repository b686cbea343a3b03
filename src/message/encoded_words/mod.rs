//! Encoded words: text of any language in a header's ASCII. RFC 2047.
//!
//! `scan` finds and decodes them as leniently as mail readers do, and says whether they strictly follow the RFC;
//! `encode` writes them. Nothing here guesses: words that cannot be decoded with certainty stay as the sender wrote
//! them.

mod encode;
mod scan;

pub use encode::{encode_comment, encode_phrase, encode_text};
pub use scan::{EncodedWord, TextPiece, WordRun, split};

/// Which rules apply to the words of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WordPlacement {
    /// An unstructured field. RFC 2047 §5 (1).
    Text,
    /// A display name or a comment. RFC 2047 §5 (2) and (3).
    Phrase,
}

/// In octets, RFC 2047 §2.
const MAX_WORD: usize = 75;

/// Characters that no header value may contain, encoded or not: some readers would see another line in it.
const BREAKS: [char; 3] = ['\r', '\n', '\0'];

/// Whether a decoded text needs no encoded words in any place.
fn is_plain(text: &str) -> bool {
    let visible = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    visible && !text.contains("=?") && !text.contains("  ") && text.trim_matches(' ').len() == text.len()
}

/// The text of an unstructured value; `None` if a word in it cannot be decoded.
pub fn decode(value: &str) -> Option<String> {
    split(value)
        .into_iter()
        .map(|piece| match piece {
            TextPiece::Plain(text) => Some(text.to_owned()),
            TextPiece::Run(run) => run.decode(),
        })
        .collect()
}
