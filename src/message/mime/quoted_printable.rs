//! Quoted-printable, written so that it survives transport, and read strictly. RFC 2045 §6.7.
//!
//! mail-parser's reader ignores a broken escape at the end; a repair must not lose even that.

use crate::message::headers::without_spaces_behind;
use mail_parser::decoders::quoted_printable::quoted_printable_decode_char;

/// Octets of a line, RFC 2045 §6.7 (5).
const LINE: usize = 76;
const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// What a bare LF means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEnds {
    /// The end of a line, like CRLF.
    OfText,
    /// An octet like any other: what was encoded is read back octet for octet.
    Kept,
}

/// CRLF and bare LF become line endings; everything else can be decoded octet for octet.
///
/// In addition to what the RFC requires, no line begins with "From " or a dot, which some programs would change.
pub fn encode(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() + octets.len() / 8);
    append(octets, LineEnds::OfText, &mut out);
    out
}

/// The same, appended to `out`.
pub fn append(octets: &[u8], line_ends: LineEnds, out: &mut Vec<u8>) {
    write(octets, line_ends, &mut |piece| out.extend_from_slice(piece));
}

/// The resulting number of octets.
pub fn size(octets: &[u8], line_ends: LineEnds) -> usize {
    let mut size = 0;
    write(octets, line_ends, &mut |piece| size += piece.len());
    size
}

fn write(octets: &[u8], line_ends: LineEnds, out: &mut impl FnMut(&[u8])) {
    let mut rest = octets;
    while !rest.is_empty() {
        let end = match line_ends {
            LineEnds::OfText => memchr::memchr(b'\n', rest),
            LineEnds::Kept => memchr::memmem::find(rest, b"\r\n").map(|end| end + 1),
        };
        let (line, tail) = end.map_or((rest, &b""[..]), |end| (&rest[..end], &rest[end + 1..]));
        encode_line(if end.is_some() { line.strip_suffix(b"\r").unwrap_or(line) } else { line }, out);
        if end.is_some() {
            out(b"\r\n");
        }
        rest = tail;
    }
}

/// The same text with soft line breaks in the lines that are longer than `most` octets, and nothing else changed.
pub fn with_soft_breaks(text: &[u8], most: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 20);
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let content = line.strip_suffix(b"\n").map_or(line, |line| line.strip_suffix(b"\r").unwrap_or(line));
        let mut rest = line;
        while content.len() > most && rest.len() - (line.len() - content.len()) > LINE {
            let (piece, tail) = rest.split_at(end_of_piece(rest));
            out.extend_from_slice(piece);
            out.extend_from_slice(b"=\r\n");
            rest = tail;
        }
        out.extend_from_slice(rest);
    }
    out
}

/// The position of a soft line break within the first columns of a longer line: not inside an escape, and not before
/// text that some programs would change at the beginning of a line.
fn end_of_piece(line: &[u8]) -> usize {
    let is_outside = |end: &usize| !line[end.saturating_sub(2)..*end].contains(&b'=');
    let is_safe =
        |end: &usize| is_outside(end) && !line[*end..].starts_with(b".") && !line[*end..].starts_with(b"From ");
    let ends = || (1..LINE).rev();
    ends().find(is_safe).or_else(|| ends().find(is_outside)).unwrap_or(LINE - 1)
}

/// An estimate, without encoding: at least as many octets as [`encode`] produces.
pub fn longest(octets: &[u8]) -> usize {
    let escaped = octets.iter().filter(|&&byte| !byte.is_ascii_graphic() || byte == b'=').count();
    let literal = octets.len() + 2 * escaped;
    // Per 75 columns, one soft line break, after which a dot or an F is escaped.
    literal + 5 * literal.div_ceil(LINE - 1)
}

fn encode_line(line: &[u8], out: &mut impl FnMut(&[u8])) {
    let mut column = 0;
    for (at, &byte) in line.iter().enumerate() {
        let is_last = at + 1 == line.len();
        // The last column is for the "=" of a soft line break, unless the line ends here.
        let room = if is_last { LINE } else { LINE - 1 };
        if column + width(&line[at..], column) > room {
            out(b"=\r\n");
            column = 0;
        }
        let width = width(&line[at..], column);
        if width == 1 {
            out(&[byte]);
        } else {
            out(&[b'=', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        column += width;
    }
}

/// Columns for the first octet of the rest of a line: 1 if it can be written as itself.
fn width(rest: &[u8], column: usize) -> usize {
    let literal = match rest {
        [b' ' | b'\t', others @ ..] => !others.is_empty(),
        [b'=', ..] => false,
        [b'.', ..] => column > 0,
        [b'F', ..] => column > 0 || !rest.starts_with(b"From "),
        [byte, ..] => byte.is_ascii_graphic(),
        [] => true,
    };
    if literal { 1 } else { 3 }
}

/// `None` if an escape is broken, because readers differ on what it is then.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let end = memchr::memchr(b'\n', rest);
        let (line, tail) = end.map_or((rest, &b""[..]), |end| (&rest[..end], &rest[end + 1..]));
        // White space at the end was added in transport, RFC 2045 §6.7 (3).
        let line = without_spaces_behind(line.strip_suffix(b"\r").unwrap_or(line));
        let is_soft = line.ends_with(b"=");
        decode_line(if is_soft { &line[..line.len() - 1] } else { line }, &mut octets)?;
        if end.is_some() && !is_soft {
            octets.extend_from_slice(b"\r\n");
        }
        rest = tail;
    }
    Some(octets)
}

fn decode_line(line: &[u8], octets: &mut Vec<u8>) -> Option<()> {
    let mut rest = line;
    while let Some(at) = memchr::memchr(b'=', rest) {
        octets.extend_from_slice(&rest[..at]);
        let [_, high, low, tail @ ..] = &rest[at..] else { return None };
        octets.push(quoted_printable_decode_char(*high, *low)?);
        rest = tail;
    }
    octets.extend_from_slice(rest);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn before_and_after() {
        let long = "x".repeat(80);
        for (before, after) in [
            ("", ""),
            ("plain\r\ntext\r\n", "plain\r\ntext\r\n"),
            ("bare\nline ends\n", "bare\r\nline ends\r\n"),
            ("a = b, grün", "a =3D b, gr=C3=BCn"),
            ("end \r\n\t\r\n", "end=20\r\n=09\r\n"),
            ("a\rb\0", "a=0Db=00"),
            (".\r\n..\r\nFrom a\r\nFrom\r\n", "=2E\r\n=2E.\r\n=46rom a\r\nFrom\r\n"),
            (&long, &format!("{}=\r\n{}", "x".repeat(75), "x".repeat(5))),
            (&long[..76], &long[..76]),
        ] {
            assert_eq!(String::from_utf8_lossy(&encode(before.as_bytes())), after, "{before:?}");
        }
    }

    #[test]
    fn reading_is_strict_about_escapes() {
        for (text, octets) in [
            ("a=20=\r\nb =\t\r\nc  \r\n=e4", Some(&b"a b c\r\n\xe4"[..])),
            ("100 %=", Some(b"100 %")),
            // Only spaces and tabs come from transport.
            ("a\x0c\r\nb\x0b \r\nc=\r\nd", Some(b"a\x0c\r\nb\x0b\r\ncd")),
            ("a=\x0c\r\nb", None),
            ("a=\u{a0}\r\n", None),
            ("1=2", None),
            ("1=2\r\n", None),
            ("=ZZ", None),
            ("= 4", None),
        ] {
            assert_eq!(decode(text.as_bytes()).as_deref(), octets, "{text:?}");
        }
    }

    #[test]
    fn nothing_is_longer_than_was_expected() {
        for (text, least) in
            [("=", 3.0), ("ä", 6.0), (".", 1.0), (" ", 1.0), ("From ", 5.0), ("\n", 2.0), ("x\r\n", 3.0)]
        {
            let octets = text.repeat(1000);
            let encoded = encode(octets.as_bytes()).len();
            let longest = longest(octets.as_bytes());
            assert!(encoded <= longest && encoded as f64 >= least * 1000.0, "{text:?}: {encoded}, {longest}");
        }
    }

    #[test]
    fn soft_breaks_are_all_that_is_added() {
        let x = "x".repeat(1000);
        let dots = ".".repeat(1000);
        let escapes = "=0A".repeat(400);
        for text in [
            "short =0A\r\n=\r\n".to_owned(),
            x.clone(),
            format!("{x}\r\nshort=0Dline  \r\n{x}=\r\n{x}"),
            dots,
            escapes.clone(),
            format!("a{escapes}"),
            format!("aa{escapes}"),
            format!("{x}=0"),
            format!("{}From {x}.{x}", "x".repeat(75)),
            format!("{x} \t \r\n"),
            "=".repeat(1000),
        ] {
            let broken = String::from_utf8(with_soft_breaks(text.as_bytes(), 998)).expect("ASCII");
            assert_eq!(broken.replace("=\r\n", ""), text.replace("=\r\n", ""), "{text:.80}");
            assert_eq!(decode(broken.as_bytes()), decode(text.as_bytes()), "{text:.80}");
            assert!(broken.split("\r\n").all(|line| line.len() <= LINE + 4), "{broken:.200}");
            assert!(broken.len() <= text.len() + text.len() / 20, "{broken:.200}");
        }
        let broken = with_soft_breaks(format!("{}From {x}", "x".repeat(75)).as_bytes(), 998);
        assert!(!broken.split(|&byte| byte == b'\n').any(|line| line.starts_with(b"From ")));
    }

    #[test]
    fn octets_that_are_no_text_keep_their_line_ends() {
        for (octets, text) in
            [("a\nb\r\nc\rd\n", "a=0Ab\r\nc=0Dd=0A"), ("\n\r\n\r\r\n", "=0A\r\n=0D\r\n"), ("\r\n \n", "\r\n =0A")]
        {
            let mut out = Vec::new();
            append(octets.as_bytes(), LineEnds::Kept, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), text);
            assert_eq!(decode(&out).as_deref(), Some(octets.as_bytes()));
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_read_back(octets in proptest::collection::vec(
            prop_oneof![proptest::sample::select(&b"\r\n .=aF"[..]), any::<u8>()], 0..400))
        {
            let mut encoded = Vec::new();
            append(&octets, LineEnds::Kept, &mut encoded);
            prop_assert!(encoded.len() <= longest(&octets), "{} octets", encoded.len());
            prop_assert_eq!(decode(&encoded), Some(octets));
        }

        #[test]
        fn what_is_written_is_read_back(octets in proptest::collection::vec(
            prop_oneof![proptest::sample::select(&b"\n .=aF"[..]), any::<u8>()], 0..400))
        {
            let canonical = String::from_utf8_lossy(&octets).replace("\r\n", "\n").replace('\n', "\r\n");
            let encoded = encode(canonical.as_bytes());
            prop_assert!(encoded.len() <= longest(canonical.as_bytes()), "{} octets", encoded.len());
            let decoded = decode(&encoded);
            let same = decoded.as_deref() == Some(canonical.as_bytes());
            prop_assert!(same, "{} became {:?}", canonical.escape_debug(), decoded.map(|d| d.escape_ascii().to_string()));
            prop_assert!(encoded.split(|&b| b == b'\n').all(|line| line.len() <= LINE + 1));
            prop_assert!(!encoded.split(|&b| b == b'\n').any(|line| line.starts_with(b".") || line.ends_with(b" \r")));
        }
    }
}
