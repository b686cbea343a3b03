//! The two transfer encodings that turn any octets into ASCII. The length of the result is known in advance, so it is
//! written only once, in its final place. RFC 2045 §6.7, §6.8.

use super::quoted_printable::{self, LineEnds};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// For text, whose line endings may become CRLF.
    QuotedPrintable,
    /// For any octets: a bare LF stays one.
    BinaryQuotedPrintable,
    Base64,
}

/// Octets per line of 76 characters.
const IN_A_LINE: usize = 57;

impl Coding {
    /// For Content-Transfer-Encoding.
    pub fn name(self) -> &'static str {
        match self {
            Self::QuotedPrintable | Self::BinaryQuotedPrintable => "quoted-printable",
            Self::Base64 => "base64",
        }
    }

    /// The number of octets that [`Coding::append`] produces.
    pub fn size(self, octets: &[u8]) -> usize {
        match self {
            Self::QuotedPrintable => quoted_printable::size(octets, LineEnds::OfText),
            Self::BinaryQuotedPrintable => quoted_printable::size(octets, LineEnds::Kept),
            Self::Base64 => Self::base64_size(octets.len()),
        }
    }

    /// For this many octets.
    pub fn base64_size(octets: usize) -> usize {
        4 * octets.div_ceil(3) + 2 * octets.div_ceil(IN_A_LINE).saturating_sub(1)
    }

    /// Adds no line ending after the last line, except one that was in the quoted-printable input.
    pub fn append(self, octets: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::QuotedPrintable => quoted_printable::append(octets, LineEnds::OfText, out),
            Self::BinaryQuotedPrintable => quoted_printable::append(octets, LineEnds::Kept, out),
            Self::Base64 => {
                for (at, line) in octets.chunks(IN_A_LINE).enumerate() {
                    out.extend_from_slice(if at > 0 { b"\r\n" } else { b"" });
                    out.extend_from_slice(STANDARD.encode(line).as_bytes());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn base64_stands_in_lines_of_76() {
        for (octets, expected) in [
            (0, String::new()),
            (1, "AA==".to_owned()),
            (57, "A".repeat(76)),
            (58, "A".repeat(76) + "\r\nAA=="),
            (114, "A".repeat(76) + "\r\n" + &"A".repeat(76)),
        ] {
            let mut out = Vec::new();
            Coding::Base64.append(&vec![0; octets], &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected, "{octets}");
        }
    }

    proptest! {
        #[test]
        fn the_size_is_known_beforehand(octets in proptest::collection::vec(
            prop_oneof![proptest::sample::select(&b"\r\n .=aF"[..]), any::<u8>()], 0..600))
        {
            for coding in [Coding::QuotedPrintable, Coding::BinaryQuotedPrintable, Coding::Base64] {
                let mut out = b"before".to_vec();
                coding.append(&octets, &mut out);
                prop_assert_eq!(out.len(), 6 + coding.size(&octets), "{:?}", coding);
            }
        }
    }
}
