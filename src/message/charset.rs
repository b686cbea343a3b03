//! Character sets: decodes bytes to text, or fails if the bytes are not valid in the named set. RFC 2978.

use super::optional::attempt;
use mail_parser::decoders::charsets::map::charset_decoder;

/// `None` for an unknown name, and for bytes that are not valid text in it: a repair must not replace what it cannot
/// read.
pub fn decode(charset: &str, bytes: &[u8]) -> Option<String> {
    let name = charset.to_ascii_lowercase();
    match (name.as_str(), Shifts::of(&name)) {
        ("utf-8" | "utf8", _) => Some(std::str::from_utf8(bytes).ok()?.to_owned()),
        ("us-ascii" | "ascii", _) => bytes.is_ascii().then(|| String::from_utf8_lossy(bytes).into_owned()),
        (_, Some(Shifts::Korean)) => decoded("euc-kr", &without_shifts(bytes)?),
        (_, Some(Shifts::Japanese)) => decoded("iso-2022-jp", bytes),
        _ => decoded(charset, bytes),
    }
}

fn decoded(charset: &str, bytes: &[u8]) -> Option<String> {
    let decoder = charset_decoder(charset.as_bytes())?;
    // The library has some fifty decoders; if one of them fails, the text is left as it is.
    let text = attempt("charset_decoder", || Ok(decoder(bytes))).ok()?;
    Some(text).filter(|text| !text.contains('\u{fffd}'))
}

/// How a charset switches between ASCII and another alphabet within 7 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shifts {
    /// Escape sequences. RFC 1468, RFC 1554, RFC 2237.
    Japanese,
    /// SO and SI, after a designator. RFC 1557.
    Korean,
}

impl Shifts {
    /// `name` must be in lower case.
    fn of(name: &str) -> Option<Self> {
        match name {
            "iso-2022-kr" | "csiso2022kr" => Some(Self::Korean),
            "csiso2022jp" | "csiso2022jp2" | "cp50220" | "cp50221" | "cp50222" => Some(Self::Japanese),
            _ => name.starts_with("iso-2022-jp").then_some(Self::Japanese),
        }
    }
}

/// True if the bytes end in the ASCII state, so that the following text can be read on its own. Always true for a
/// charset that does not switch alphabets.
pub fn ends_in_ascii(charset: &str, bytes: &[u8]) -> bool {
    match Shifts::of(&charset.to_ascii_lowercase()) {
        Some(Shifts::Japanese) => {
            memchr::memrchr(0x1b, bytes).is_none_or(|escape| matches!(bytes[escape + 1..], [b'(', b'B' | b'J', ..]))
        }
        Some(Shifts::Korean) => memchr::memrchr2(SHIFT_OUT, SHIFT_IN, bytes).is_none_or(|at| bytes[at] == SHIFT_IN),
        None => true,
    }
}

const SHIFT_OUT: u8 = 0x0e;
const SHIFT_IN: u8 = 0x0f;

/// ISO-2022-KR as EUC-KR, which has the same characters with the eighth bit set.
fn without_shifts(bytes: &[u8]) -> Option<Vec<u8>> {
    const DESIGNATOR: &[u8] = b"\x1b$)C";
    let mut eight_bit = Vec::with_capacity(bytes.len());
    let mut korean = false;
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        rest = match rest.strip_prefix(DESIGNATOR) {
            Some(behind) => behind,
            None => {
                match first {
                    SHIFT_OUT | SHIFT_IN => korean = first == SHIFT_OUT,
                    0x1b | 0x80.. => return None,
                    b' '..=b'~' if korean => eight_bit.push(first | 0x80),
                    _ => eight_bit.push(first),
                }
                tail
            }
        };
    }
    Some(eight_bit)
}

/// True if this is the name of a charset.
pub fn is_known(name: &[u8]) -> bool {
    let name = name.trim_ascii();
    !name.is_empty() && (is_unicode_or_ascii(name) || charset_decoder(name).is_some())
}

fn is_unicode_or_ascii(name: &[u8]) -> bool {
    [&b"utf-8"[..], b"utf8", b"us-ascii", b"ascii"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// True for UTF-8 and for ASCII; false for charsets that only look like ASCII (ISO-2022-JP shifts with ESC, UTF-16
/// contains NUL).
pub fn is_utf8(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok() && !bytes.iter().any(|byte| b"\0\x0e\x0f\x1b".contains(byte))
}

/// True if in this charset every ASCII octet always represents itself.
pub fn extends_ascii(charset: &str) -> bool {
    let name = charset.to_ascii_lowercase();
    let families = ["utf-8", "utf8", "us-ascii", "ascii", "iso-8859-", "windows-125", "koi8-"];
    families.iter().any(|family| name.starts_with(family))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certain_is_decoded() {
        for (charset, bytes, expected) in [
            ("UTF-8", &b"gr\xc3\xbcn"[..], Some("grün")),
            ("utf8", b"gr\xfcn", None),
            ("utf-8", b"\xc3", None),
            ("ISO-8859-1", b"gr\xfcn", Some("grün")),
            ("us-ascii", b"green", Some("green")),
            ("us-ascii", b"gr\xc3\xbcn", None),
            ("iso-2022-jp", b"\x1b$B%O\x1b(B", Some("ハ")),
            ("shift_jis", b"\x83n", Some("ハ")),
            ("shift_jis", b"\x83", None),
            ("iso-2022-jp-2", b"\x1b$B%O\x1b(B", Some("ハ")),
            ("ISO-2022-KR", b"\x1b$)C\x0eGQ1[\x0f ok", Some("한글 ok")),
            ("iso-2022-kr", b"\x0eGQ\x0f", Some("한")),
            ("iso-2022-kr", b"\x0eG\x0f", None),
            ("iso-2022-kr", b"\x1b$B", None),
            ("no-such-charset", b"a", None),
        ] {
            assert_eq!(decode(charset, bytes).as_deref(), expected, "{charset} {}", bytes.escape_ascii());
        }
        for (charset, bytes, expected) in [
            ("iso-2022-jp", &b"\x1b$B%O\x1b(B"[..], true),
            ("ISO-2022-JP", b"\x1b$B%O\x1b(J x", true),
            ("iso-2022-jp", b"plain", true),
            ("iso-2022-jp", b"\x1b$B%O", false),
            ("iso-2022-jp", b"\x1b(B\x1b", false),
            ("iso-2022-kr", b"\x1b$)C\x0eGQ", false),
            ("iso-2022-kr", b"\x1b$)C\x0eGQ\x0f", true),
            ("utf-8", b"\x0e", true),
        ] {
            assert_eq!(ends_in_ascii(charset, bytes), expected, "{charset} {}", bytes.escape_ascii());
        }
        assert!(is_utf8(b"plain") && is_utf8("é".as_bytes()) && !is_utf8(b"\xe9") && !is_utf8(b"\x1b$B%O\x1b(B"));
        assert!(extends_ascii("UTF-8") && extends_ascii("windows-1252") && !extends_ascii("utf-16"));
    }
}
