//! What the steps on texts share: one change for every part that may be edited.

use super::mime_version;
use crate::message::RawMessage;
use crate::message::headers::Field;
use crate::message::mime::{Content, Editor, Encoding, Structure, encode_quoted_printable, with_field};

/// A part as a step sees it, and what it makes of it.
pub(super) struct Part<'a> {
    pub content: &'a Content,
    pub header: &'a [u8],
    pub body: &'a [u8],
}

#[derive(Default)]
pub(super) struct Change {
    pub header: Option<Vec<u8>>,
    pub body: Option<Vec<u8>>,
}

/// Runs the step on every part with content of its own that is neither signed nor encrypted nor in another message.
pub(super) fn edit(message: &mut RawMessage, step: impl Fn(&Part<'_>) -> Option<Change>) {
    let structure = Structure::of(message);
    let mut editor = Editor::new(message, &structure);
    let mut uses_mime = false;
    for (index, entity) in structure.leaves() {
        let part = Part { content: &entity.content, header: editor.header(index), body: editor.body(index) };
        let Some(change) = step(&part) else { continue };
        if let Some(header) = change.header {
            editor.replace_header(index, header);
            uses_mime |= index == 0;
        }
        if let Some(body) = change.body {
            editor.replace_body(index, body);
        }
    }
    if let Some(edited) = editor.finish() {
        *message = edited;
    }
    if uses_mime {
        mime_version::add(message);
    }
}

/// Runs the step on the header block of every part that may be edited, below the message itself.
pub(super) fn edit_headers(message: &mut RawMessage, step: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let structure = Structure::of(message);
    let mut editor = Editor::new(message, &structure);
    for (index, entity) in structure.entities().iter().enumerate().skip(1) {
        let edited = if entity.is_opaque || !entity.is_whole { None } else { step(editor.header(index)) };
        if let Some(block) = edited {
            editor.replace_header(index, block);
        }
    }
    if let Some(edited) = editor.finish() {
        *message = edited;
    }
}

impl Part<'_> {
    /// The part with these octets in quoted-printable.
    pub fn quoted_printable(&self, octets: &[u8]) -> Option<Change> {
        let body = Some(encode_quoted_printable(octets));
        if self.content.encoding == Encoding::QuotedPrintable {
            return Some(Change { header: None, body });
        }
        Some(Change { header: Some(self.encoded_as("quoted-printable")?), body })
    }

    fn encoded_as(&self, encoding: &str) -> Option<Vec<u8>> {
        const NAME: &str = "Content-Transfer-Encoding";
        Some(with_field(self.header, NAME, &Field::new(NAME, &[encoding]).ok()?))
    }
}
