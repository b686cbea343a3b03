//! JSON as a header can carry it: ASCII only, with spaces where lines may be folded. RFC 8259 §7.

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;
use std::io::{self, Write};

/// `value` must be one that JSON can express, as every [`serde_json::Value`] is.
pub(super) fn to_ascii(value: &impl Serialize) -> String {
    let mut text = Vec::new();
    let written = value.serialize(&mut Serializer::with_formatter(&mut text, Ascii));
    written.ok().and_then(|()| String::from_utf8(text).ok()).unwrap_or_default()
}

struct Ascii;

impl Formatter for Ascii {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        for c in fragment.chars() {
            if c.is_ascii() && c != '\x7f' {
                write!(writer, "{c}")?;
                continue;
            }
            // Characters beyond the first plane become two surrogates.
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn it_is_ascii_and_means_the_same() {
        let value = json!({"name": "Größe ☕ 😀 \"q\" \u{7f} \u{1}", "list": [1, "two"], "deep": {"a": null}});
        let text = to_ascii(&value);
        assert!(text.is_ascii() && !text.contains('\u{7f}'), "{text}");
        assert_eq!(
            text,
            r#"{"deep": {"a": null}, "list": [1, "two"], "name": "Gr\u00f6\u00dfe \u2615 \ud83d\ude00 \"q\" \u007f \u0001"}"#
        );
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), value);
    }
}
