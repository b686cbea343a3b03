//! The fields of a line in the text format: `name=value`, quoted wherever a reader could not tell where the value ends.
//!
//! JSON has its own quotes. Nothing here looks at what a field means.

use std::fmt::{self, Debug};
use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// Name and value as logfmt has them: `to=a@example.net reply="250 2.0.0 Ok"`.
#[derive(Debug, Clone, Copy)]
pub(super) struct QuotedFields;

impl<'writer> FormatFields<'writer> for QuotedFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = FieldLine { writer, is_empty: true, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct FieldLine<'writer> {
    writer: Writer<'writer>,
    is_empty: bool,
    result: fmt::Result,
}

impl FieldLine<'_> {
    fn put(&mut self, field: &Field, value: &str) -> fmt::Result {
        let name = field.name();
        // Where in its source a library said it.
        if name.starts_with("log.") {
            return Ok(());
        }
        if !std::mem::replace(&mut self.is_empty, false) {
            self.writer.write_char(' ')?;
        }
        if name == "message" {
            return self.writer.write_str(value);
        }
        match self.writer.has_ansi_escapes() {
            true => write!(self.writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m")?,
            false => write!(self.writer, "{name}=")?,
        }
        if is_plain(value) { self.writer.write_str(value) } else { write!(self.writer, "{value:?}") }
    }
}

/// Its end can be seen without quotes.
fn is_plain(value: &str) -> bool {
    !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '=' | '\\'))
}

impl Visit for FieldLine<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.result = self.result.and_then(|()| self.put(field, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_quoted_where_its_end_could_not_be_seen() {
        for (value, is_bare) in [
            ("a@example.net", true),
            ("TLSv1.3", true),
            ("a@example.net,b@example.net", true),
            ("127.0.0.1:2525", true),
            ("<>", true),
            ("", false),
            ("250 2.0.0 Ok", false),
            ("\"a b\"@example.net", false),
            ("ms=5", false),
            ("a\\b", false),
            ("a\tb", false),
            ("a\u{a0}b", false),
        ] {
            assert_eq!(is_plain(value), is_bare, "{value:?}");
        }
    }
}
