//! What the Content-* fields of one entity say: type, parameters, transfer encoding. RFC 2045 §5, §6; RFC 2183.

use super::quoted_printable;
use crate::message::charset;
use crate::message::headers::Fields;
use crate::message::optional::attempt;
use mail_parser::decoders::base64::base64_decode;
use mail_parser::parsers::MessageStream;
use mail_parser::{ContentType, HeaderValue};
use std::borrow::Cow;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentFields {
    /// In lower case, for example `text/plain`; without a Content-Type, the default type.
    pub media_type: String,
    /// There is a Content-Type.
    pub has_type: bool,
    pub charset: Option<String>,
    pub boundary: Option<Vec<u8>>,
    pub encoding: Encoding,
    /// To be saved rather than shown: it says so, or it has a file name. Its contents must not change by one octet.
    pub is_attachment: bool,
    /// Content-Type or Content-Transfer-Encoding occurs twice, or cannot be read, so readers differ on what this is.
    /// The fields then hold what the first of them says.
    pub is_ambiguous: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// No Content-Transfer-Encoding, which means 7bit.
    Absent,
    SevenBit,
    EightBit,
    Binary,
    QuotedPrintable,
    Base64,
    Unknown,
}

impl Encoding {
    /// However it is spelled; who writes a charset there has raw text in it.
    fn parse(value: &[u8]) -> Self {
        let value = value.split(|byte| b";(".contains(byte)).next().unwrap_or_default().to_ascii_lowercase();
        let name: Vec<u8> = value.iter().copied().filter(u8::is_ascii_alphanumeric).collect();
        match name.as_slice() {
            _ if value.starts_with(b"x-") => Self::Unknown,
            b"" | b"7bit" | b"7bits" | b"sevenbit" => Self::SevenBit,
            b"8bit" | b"8bits" | b"eightbit" | b"none" | b"text" | b"plain" | b"identity" => Self::EightBit,
            b"binary" => Self::Binary,
            b"quotedprintable" => Self::QuotedPrintable,
            b"base64" => Self::Base64,
            _ if charset::is_known(&value) => Self::EightBit,
            _ => Self::Unknown,
        }
    }

    /// As RFC 2045 §6.1 spells it.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Absent | Self::Unknown => None,
            Self::SevenBit => Some("7bit"),
            Self::EightBit => Some("8bit"),
            Self::Binary => Some("binary"),
            Self::QuotedPrintable => Some("quoted-printable"),
            Self::Base64 => Some("base64"),
        }
    }
}

/// RFC 2046 §5.1.1, with some room for senders that exceed it.
const LONGEST_BOUNDARY: usize = 200;

impl ContentFields {
    /// `default`: the type of an entity that names none. RFC 2045 §5.2, RFC 2046 §5.1.5.
    pub fn of(block: &[u8], default: &str) -> Self {
        let mut content = Self {
            media_type: default.to_owned(),
            has_type: false,
            charset: None,
            boundary: None,
            encoding: Encoding::Absent,
            is_attachment: false,
            is_ambiguous: false,
        };
        // Only one of each field is read, however many there are, because reading is expensive.
        let mut has_disposition = false;
        for field in Fields::new(block) {
            if field.is("Content-Type") {
                content.is_ambiguous |= content.has_type || !field.is_well_formed();
                let parsed = if content.has_type { None } else { read(&field.unfolded()) };
                content.is_ambiguous |= parsed.is_none();
                content.has_type = true;
                parsed.iter().for_each(|parsed| content.take(parsed));
            } else if field.is("Content-Transfer-Encoding") {
                content.is_ambiguous |= content.encoding != Encoding::Absent || !field.is_well_formed();
                content.encoding = Encoding::parse(&field.unfolded());
            } else if field.is("Content-Disposition") {
                let is_shown = |it: ContentType<'_>| it.c_type.eq_ignore_ascii_case("inline") && !has_file_name(&it);
                content.is_attachment |= has_disposition || !read(&field.unfolded()).is_some_and(is_shown);
                has_disposition = true;
            }
        }
        content
    }

    fn take(&mut self, parsed: &ContentType<'_>) {
        self.media_type = format!("{}/{}", parsed.c_type, parsed.c_subtype.as_deref().unwrap_or_default());
        self.media_type.make_ascii_lowercase();
        self.charset = parsed.attribute("charset").map(|it| it.trim_matches([' ', '\t']).to_owned());
        // RFC 2046 §5.1.1: it may contain a space, but not at its end.
        self.boundary = parsed.attribute("boundary").map(|it| it.trim_end_matches([' ', '\t']).to_owned().into_bytes());
        self.boundary.take_if(|boundary| boundary.is_empty() || boundary.len() > LONGEST_BOUNDARY);
        self.is_attachment |= has_file_name(parsed);
    }

    pub fn is(&self, media_type: &str) -> bool {
        self.media_type == media_type
    }

    pub fn is_multipart(&self) -> bool {
        self.media_type.starts_with("multipart/")
    }

    pub fn is_text(&self) -> bool {
        self.media_type.starts_with("text/")
    }

    /// Text that a reader shows: plain or HTML, and not an attachment.
    pub fn is_shown_text(&self) -> bool {
        matches!(self.media_type.as_str(), "text/plain" | "text/html") && !self.is_attachment
    }

    /// Nothing in it may be changed: it is signed, encrypted, or another message. RFC 1847, RFC 2046 §5.2.1, RFC 8551.
    pub fn is_sealed(&self) -> bool {
        const SEALED: [&str; 4] =
            ["multipart/signed", "multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime"];
        self.is_ambiguous || self.media_type.starts_with("message/") || SEALED.contains(&self.media_type.as_str())
    }

    /// The decoded octets; `None` if decoding would be a guess.
    pub fn decoded<'a>(&self, body: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        match self.encoding {
            Encoding::QuotedPrintable => quoted_printable::decode(body).map(Cow::Owned),
            Encoding::Base64 => base64_decode(body).map(Cow::Owned),
            Encoding::Unknown => None,
            _ => Some(Cow::Borrowed(body)),
        }
    }

    /// The text of a text part; without a charset only if it is UTF-8.
    pub fn text(&self, body: &[u8]) -> Option<String> {
        let octets = self.decoded(body)?;
        match &self.charset {
            Some(charset) => charset::decode(charset, &octets),
            None if charset::is_utf8(&octets) => charset::decode("utf-8", &octets),
            None => None,
        }
    }
}

/// Some programs write the parameter of one field into the other. RFC 2183 §2.3, RFC 2046 §4.5.1.
fn has_file_name(parsed: &ContentType<'_>) -> bool {
    ["filename", "name"].iter().any(|name| parsed.has_attribute(name))
}

/// Octets.
const LONGEST_VALUE: usize = 8192;
/// Maximum number of characters that end a parameter or a piece of one: the reader's time grows with the square of
/// their number. A name of 250 letters in pieces (RFC 2231 §3) has fifty.
const MOST_PIECES: usize = 128;

/// Content-Type and Content-Disposition have one form. Unfolded, so that a fold more or less makes no difference.
fn read(value: &[u8]) -> Option<ContentType<'static>> {
    let pieces = value.iter().filter(|byte| b";\"'".contains(byte)).count();
    if value.len() > LONGEST_VALUE || pieces > MOST_PIECES {
        return None;
    }
    let line = [value, b"\r\n"].concat();
    // If the library fails, the content is ambiguous and is not edited.
    match attempt("content_type", || Ok(MessageStream::new(&line).parse_content_type().into_owned())) {
        Ok(HeaderValue::ContentType(parsed)) => Some(parsed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_fields_say() {
        let content = |block: &str| ContentFields::of(block.as_bytes(), "text/plain");
        let html = content("content-type: Text/HTML;\r\n\tcharset=\"UTF-8\"\r\nContent-Transfer-Encoding: Base64 \r\n");
        assert_eq!((html.media_type.as_str(), html.charset.as_deref()), ("text/html", Some("UTF-8")));
        assert_eq!((html.encoding, html.is_shown_text(), html.is_sealed()), (Encoding::Base64, true, false));
        let mixed = content("Content-Type: multipart/mixed; boundary=\"a b\"; x=y\r\n");
        assert_eq!((mixed.boundary.as_deref(), mixed.is_multipart()), (Some(&b"a b"[..]), true));
        for boundary in [" b", "b\u{a0}", "\u{2028}b", "b\u{c}"] {
            let odd = content(&format!("Content-Type: multipart/mixed; boundary=\"{boundary} \"\r\n"));
            assert_eq!(odd.boundary.as_deref(), Some(boundary.as_bytes()));
        }
        let none = content("Subject: x\r\n");
        assert_eq!((none.media_type.as_str(), none.has_type, none.encoding), ("text/plain", false, Encoding::Absent));
        for block in [
            "Content-Disposition: attachment; filename=x\r\n",
            "Content-Type: text/plain; name=x\r\n",
            "Content-Disposition: what-else\r\n",
            "Content-Disposition: inline\r\nContent-Disposition: inline\r\n",
            "Content-Disposition: inline; filename=run.sh\r\n",
            "Content-Disposition: INLINE;\r\n\tFILENAME=\"run.sh\"\r\n",
            "Content-Disposition: inline; filename*=UTF-8''r%C3%BCn.sh\r\n",
            "Content-Disposition: inline; filename*0=run; filename*1=.sh\r\n",
            "Content-Disposition: inline; filename*0*=UTF-8''r; filename*1*=%C3%BCn.sh\r\n",
            "Content-Disposition: inline; name=run.sh\r\n",
            "Content-Disposition: filename=run.sh\r\n",
            "Content-Type: text/plain; charset=utf-8; name*=UTF-8''r%C3%BCn.sh\r\n",
            "Content-Type: text/html; filename=a.html\r\n",
            "Content-Type: text/plain; Name=\"run.sh\"\r\nContent-Disposition: inline\r\n",
            &format!("Content-Disposition: inline{}\r\n", "; a*1=b".repeat(129)),
        ] {
            assert!(content(block).is_attachment, "{block}");
        }
        for block in [
            "Content-Disposition: inline\r\n",
            "Content-Disposition: Inline; size=3; filename=\"\"\r\n",
            "Content-Type: text/plain\r\n",
        ] {
            assert!(!content(block).is_attachment, "{block}");
        }
        for block in [
            "Content-Type: multipart/signed; boundary=x\r\n",
            "Content-Type: message/rfc822\r\n",
            "Content-Type: application/x-pkcs7-mime\r\n",
            "Content-Type: text/plain\r\nContent-Type: text/html\r\n",
            "Content-Type : text/html\r\n",
            "Content-Type:\r\n",
            &format!("Content-Type: text/plain; {}\r\n", "a=b".repeat(3000)),
            &format!("Content-Type: text/plain{}\r\n", "; a*1=b".repeat(129)),
            &format!("Content-Type: text/plain; a{}\r\n", "*1=\"b\"c".repeat(65)),
            &format!("Content-Type: text/plain; {}*={}\r\n", "a".repeat(1000), "x'".repeat(129)),
            "Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: 8bit\r\n",
        ] {
            assert!(content(block).is_sealed(), "{block}");
        }
    }

    #[test]
    fn of_each_field_one_is_read() {
        let types = "Content-Type: text/html\r\nContent-Type: image/png; name=x\r\n";
        let content = ContentFields::of(types.repeat(1000).as_bytes(), "text/plain");
        assert_eq!(
            (content.media_type.as_str(), content.is_attachment, content.is_sealed()),
            ("text/html", false, true)
        );
        let far = "Content-Type: text/html; filename*4294967295*=a; filename*99999999999999999999=b; a*-1=c\r\n";
        assert!(ContentFields::of(far.as_bytes(), "").is("text/html"));
        let name: String = (0..60).map(|piece| format!("; filename*{piece}*=%D0%BF%D1%80%D0%B8")).collect();
        assert!(ContentFields::of(format!("Content-Type: text/html{name}\r\n").as_bytes(), "").is("text/html"));
    }

    #[test]
    fn what_the_octets_say() {
        for (block, body, text) in [
            ("Content-Transfer-Encoding: quoted-printable\r\n", "gr=C3=\r\n=BCn\r\n", Some("grün\r\n")),
            ("Content-Transfer-Encoding: quoted-printable\r\n", "100 %=", Some("100 %")),
            ("Content-Transfer-Encoding: quoted-printable\r\n", "1=2", None),
            ("Content-Transfer-Encoding: base64\r\n", "Z3LD\r\nvG4=\r\n", Some("grün")),
            ("Content-Transfer-Encoding: base64\r\n", "not base64!", None),
            ("Content-Transfer-Encoding: uuencode\r\n", "x", None),
            (
                "Content-Type: text/plain; charset=latin1\r\nContent-Transfer-Encoding: quoted-printable\r\n",
                "gr=FCn",
                Some("grün"),
            ),
            ("Content-Transfer-Encoding: quoted-printable\r\n", "gr=FCn", None),
        ] {
            let content = ContentFields::of(block.as_bytes(), "text/plain");
            assert_eq!(content.text(body.as_bytes()).as_deref(), text, "{block}{body}");
        }
    }
}
