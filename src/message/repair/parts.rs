//! Shared by the steps on texts: one change for every part that may be edited.

use super::mime_version;
use super::working_copy::WorkingCopy;
use crate::message::headers::Field;
use crate::message::mime::{Coding, ContentFields, Editor, Encoding, longest_quoted_printable, with_field};

/// A part as a step sees it.
pub(super) struct EditablePart<'a> {
    pub content: &'a ContentFields,
    pub header: &'a [u8],
    pub body: &'a [u8],
    /// The part is the message itself.
    is_whole: bool,
}

#[derive(Default)]
pub(super) struct PartChange {
    pub header: Option<Vec<u8>>,
    pub body: Option<Body>,
}

/// The replacement for a body.
pub(super) enum Body {
    Octets(Vec<u8>),
    /// The body, or these octets, in a transfer encoding; `line_end`: followed by a line ending.
    Encoded {
        octets: Option<Vec<u8>>,
        coding: Coding,
        line_end: bool,
    },
}

/// Runs the step on every part with its own content that is neither signed nor encrypted nor in another message.
pub(super) fn edit(message: &mut WorkingCopy, step: impl Fn(&EditablePart<'_>) -> Option<PartChange>) {
    let structure = message.structure();
    let mut editor = Editor::new(message, &structure);
    let mut uses_mime = false;
    for (index, entity) in structure.leaves() {
        let header = editor.header(index);
        let body = editor.body(index);
        let part = EditablePart { content: &entity.content, header, body, is_whole: index == 0 };
        let Some(change) = step(&part) else { continue };
        if let Some(header) = change.header {
            editor.replace_header(index, header);
            uses_mime |= index == 0;
        }
        match change.body {
            Some(Body::Octets(octets)) => editor.replace_body(index, octets),
            Some(Body::Encoded { octets, coding, line_end }) => editor.encode_body(index, octets, coding, line_end),
            None => {}
        }
    }
    if let Some(edited) = editor.finish() {
        message.replace(edited);
    }
    if uses_mime {
        mime_version::add(message);
    }
}

/// Runs the step on the header block of every part that may be edited, below the message itself.
pub(super) fn edit_headers(message: &mut WorkingCopy, step: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let structure = message.structure();
    let mut editor = Editor::new(message, &structure);
    for (index, entity) in structure.entities().iter().enumerate().skip(1) {
        let edited = if entity.is_opaque || !entity.is_whole { None } else { step(editor.header(index)) };
        if let Some(block) = edited {
            editor.replace_header(index, block);
        }
    }
    if let Some(edited) = editor.finish() {
        message.replace(edited);
    }
}

impl EditablePart<'_> {
    /// The part in quoted-printable, or in base64 if quoted-printable would make a large one much larger. `octets`: the
    /// decoded content, if it has a transfer encoding.
    pub fn encoded(&self, octets: Option<Vec<u8>>) -> Option<PartChange> {
        let content = octets.as_deref().unwrap_or(self.body);
        let coding = coding_of(content);
        // The message's last line ends like every other.
        let line_end = self.is_whole && coding == Coding::Base64 && self.body.ends_with(b"\r\n");
        let is_declared = self.content.encoding == Encoding::QuotedPrintable && coding == Coding::QuotedPrintable;
        let header = if is_declared { None } else { Some(self.encoded_as(coding.name())?) };
        Some(PartChange { header, body: Some(Body::Encoded { octets, coding, line_end }) })
    }

    /// The same in quoted-printable.
    pub fn quoted_printable(&self, octets: Vec<u8>) -> Option<PartChange> {
        let header = Some(self.encoded_as(Coding::QuotedPrintable.name())?);
        let body = Body::Encoded { octets: Some(octets), coding: Coding::QuotedPrintable, line_end: false };
        Some(PartChange { header, body: Some(body) })
    }

    fn encoded_as(&self, encoding: &str) -> Option<Vec<u8>> {
        const NAME: &str = "Content-Transfer-Encoding";
        Some(with_field(self.header, NAME, &Field::new(NAME, &[encoding]).ok()?))
    }
}

/// The most octets that [`EditablePart::encoded`] makes of a body.
pub(super) fn encoded_size(body: &[u8]) -> usize {
    match coding_of(body) {
        Coding::Base64 => Coding::base64_size(body.len()) + 2,
        Coding::QuotedPrintable | Coding::BinaryQuotedPrintable => longest_quoted_printable(body),
    }
}

/// For parts of at least this many octets, small size matters more than legibility.
const LARGE: usize = 256 * 1024;

/// The same choice as in `base64_text`: what becomes base64 here stays base64.
fn coding_of(octets: &[u8]) -> Coding {
    let is_shorter = || Coding::QuotedPrintable.size(octets) > Coding::Base64.size(octets) + 2;
    if octets.len() >= LARGE && is_shorter() { Coding::Base64 } else { Coding::QuotedPrintable }
}
