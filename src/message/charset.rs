//! Character sets: bytes to text, or nothing where the bytes do not fit the name. RFC 2978.

use super::optional::attempt;
use mail_parser::decoders::charsets::map::charset_decoder;

/// `None` for an unknown name, and for bytes that are not text in it: a repair must not replace what it cannot read.
pub fn decode(charset: &str, bytes: &[u8]) -> Option<String> {
    match charset.to_ascii_lowercase().as_str() {
        "utf-8" | "utf8" => Some(std::str::from_utf8(bytes).ok()?.to_owned()),
        "us-ascii" | "ascii" => bytes.is_ascii().then(|| String::from_utf8_lossy(bytes).into_owned()),
        _ => {
            let decoder = charset_decoder(charset.as_bytes())?;
            // Some fifty decoders of the library's: what one of them fails on is left as it is.
            let text = attempt("charset_decoder", || Ok(decoder(bytes))).ok()?;
            Some(text).filter(|text| !text.contains('\u{fffd}'))
        }
    }
}

/// True for UTF-8 and for ASCII; false for what is ASCII only to the eye (ISO-2022-JP shifts with ESC, UTF-16 has NUL).
pub fn is_utf8(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok() && !bytes.iter().any(|byte| b"\0\x0e\x0f\x1b".contains(byte))
}

/// True if in this charset every ASCII octet stands for itself wherever it occurs.
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
            ("no-such-charset", b"a", None),
        ] {
            assert_eq!(decode(charset, bytes).as_deref(), expected, "{charset} {}", bytes.escape_ascii());
        }
        assert!(is_utf8(b"plain") && is_utf8("é".as_bytes()) && !is_utf8(b"\xe9") && !is_utf8(b"\x1b$B%O\x1b(B"));
        assert!(extends_ascii("UTF-8") && extends_ascii("windows-1252") && !extends_ascii("utf-16"));
    }
}
