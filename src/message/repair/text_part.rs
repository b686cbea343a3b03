//! Adds a text/plain alternative, made from the HTML, to mail that has only HTML. RFC 2046 §5.1.4.
//!
//! The HTML stays where it is, octet for octet. Mail that already shows a text/plain is left alone.

use super::mime_version;
use super::step::{MemoryNeed, RepairScope, RepairStep};
use super::working_copy::WorkingCopy;
use crate::message::headers::{Field, Fields};
use crate::message::html::HtmlError;
use crate::message::mime::{Editor, Encoding, Structure, encode_quoted_printable, is_content};
use crate::message::optional::Obstacle;
use crate::message::{MailId, RawMessage, html};

/// Octets of HTML in its transfer encoding; anything larger is also too large when decoded.
const LARGEST: usize = 3 * html::LARGEST + 4096;
/// Levels that are searched for the HTML; real mail has three.
const DEEPEST: usize = 8;

pub(super) const STEP: RepairStep = RepairStep {
    name: "text_part",
    doc: &["Mail that has only HTML gets a text made from it."],
    scope: RepairScope::Body,
    run: |message, inputs| add(message, inputs.id),
    memory: MemoryNeed { added_part, ..MemoryNeed::NONE },
};

/// `id` determines the boundary.
pub(super) fn add(message: &mut WorkingCopy, id: MailId) -> Result<(), Obstacle> {
    let structure = message.structure();
    let Some(found) = html_only(&structure) else { return Ok(()) };
    let Some(html) = structure.get(found.html) else { return Ok(()) };
    if html.body.len() > LARGEST {
        return Err(HtmlError::TooLarge.into());
    }
    let text = html.content.text(&message.body()[html.body.clone()]).map(|html| html::to_text(&html));
    let Some(text) = text.transpose()?.flatten() else { return Ok(()) };
    let part = text_part(&text);
    let edited = match found.alternative {
        Some(first) => beside(message, &structure, first, &part),
        None => around(message, &structure, found.outermost, &part, id),
    };
    if let Some(edited) = edited {
        message.replace(edited);
        mime_version::add(message);
    }
    Ok(())
}

/// The most memory, in octets, that this needs besides the message.
fn added_part(structure: &Structure) -> usize {
    let html = html_only(structure).and_then(|found| structure.get(found.html)).map_or(0, |html| html.body.len());
    // Once decoded, a letter of an 8-bit charset may take three octets; the text in quoted-printable takes three times
    // as many.
    if html == 0 || html > LARGEST {
        0
    } else {
        3 * html + html::memory_needed(3 * html) + 6 * html::LARGEST.min(3 * html)
    }
}

/// The HTML of a message without text.
struct HtmlOnly {
    html: usize,
    /// The HTML together with its images.
    outermost: usize,
    /// The first part of the multipart/alternative around it, if there is one.
    alternative: Option<usize>,
}

fn html_only(structure: &Structure) -> Option<HtmlOnly> {
    let shows_text =
        |entity: &crate::message::mime::Entity| entity.content.is("text/plain") && !entity.content.is_attachment;
    if structure.entities().iter().any(|entity| entity.children.is_empty() && shows_text(entity)) {
        return None;
    }
    let mut index = 0;
    let mut related = None;
    let mut alternative = None;
    for _ in 0..DEEPEST {
        let entity = structure.get(index).filter(|entity| entity.is_whole && !entity.is_opaque)?;
        let children = &entity.children;
        match entity.content.media_type.as_str() {
            "text/html" if !entity.content.is_attachment => {
                return Some(HtmlOnly { html: index, outermost: related.unwrap_or(index), alternative });
            }
            "multipart/mixed" => {
                related = None;
                index = *children.first()?;
            }
            "multipart/related" => {
                related = related.or(Some(index));
                index = *children.first()?;
            }
            "multipart/alternative" => {
                alternative = alternative.or(children.first().copied());
                index = children.iter().copied().find(|&child| leads_to_html(structure, child))?;
            }
            _ => return None,
        }
    }
    None
}

fn leads_to_html(structure: &Structure, index: usize) -> bool {
    let kinds = ["text/html", "multipart/related", "multipart/mixed"];
    structure.get(index).is_some_and(|entity| kinds.contains(&entity.content.media_type.as_str()))
}

/// Header, empty line and body.
fn text_part(text: &str) -> Vec<u8> {
    let head = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n";
    [head.as_bytes(), &encode_quoted_printable(text.as_bytes())].concat()
}

/// The plainest alternative comes first.
fn beside(message: &RawMessage, structure: &Structure, first: usize, part: &[u8]) -> Option<RawMessage> {
    let mut editor = Editor::new(message, structure);
    let delimiter = structure.get(first)?.delimiter.clone();
    let line = message.body()[delimiter.clone()].trim_ascii_end();
    editor.insert(delimiter.start, [line, b"\r\n", part, b"\r\n"].concat());
    editor.finish()
}

/// The entity becomes a multipart/alternative of the text and its former content.
fn around(message: &RawMessage, structure: &Structure, index: usize, part: &[u8], id: MailId) -> Option<RawMessage> {
    let mut editor = Editor::new(message, structure);
    let boundary = unused_boundary(message.body(), id)?;
    let mut header = Vec::new();
    let mut inner = Vec::new();
    for field in Fields::new(editor.header(index)) {
        if is_content(&field) { &mut inner } else { &mut header }.extend_from_slice(field.raw());
    }
    let kind = Field::folded("Content-Type", &format!("multipart/alternative; boundary=\"{boundary}\"")).ok()?;
    header.extend_from_slice(kind.as_bytes());
    // RFC 2045 §6.4: a multipart with 8-bit content says so.
    let encoding = match structure.get(index)?.content.encoding {
        Encoding::EightBit => Some("8bit"),
        Encoding::Binary => Some("binary"),
        _ => None,
    };
    if let Some(encoding) = encoding {
        header.extend_from_slice(Field::new("Content-Transfer-Encoding", &[encoding]).ok()?.as_bytes());
    }
    let open = format!("--{boundary}\r\n");
    let between = format!("\r\n--{boundary}\r\n");
    let end = format!("\r\n--{boundary}--\r\n");
    let body = editor.body(index);
    let body = [open.as_bytes(), part, between.as_bytes(), &inner, b"\r\n", body, end.as_bytes()].concat();
    editor.replace_header(index, header);
    editor.replace_body(index, body);
    editor.finish()
}

/// Not possible in quoted-printable or base64, so none of our parts can contain it; and not in the message either.
fn unused_boundary(body: &[u8], id: MailId) -> Option<String> {
    (0..100)
        .map(|number| format!("=_{id}_{number}"))
        .find(|boundary| memchr::memmem::find(body, boundary.as_bytes()).is_none())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW, table};
    use crate::message::MailId;

    const HTML: &str = "Content-Type: text/html; charset=utf-8\r\n\r\n<p>Grüße\r\n";
    const MIXED: &str = "Content-Type: multipart/mixed; boundary=m\r\nMIME-Version: 1.0\r\n\r\n--m\r\n";
    const ALTERNATIVE: &str = "Content-Type: multipart/alternative; boundary=a\r\nMIME-Version: 1.0\r\n\r\n";
    const TEXT: &str = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n";

    fn id() -> MailId {
        MailId::new(NOW.parse().expect("a time"), 7)
    }

    fn assert_made<const N: usize>(cases: [(String, String); N]) {
        let cases: Vec<_> = cases.iter().map(|(before, after)| (before.as_str(), after.as_str())).collect();
        table(|message| super::add(message, id()).expect("no obstacle"), &cases);
    }

    #[test]
    fn html_alone_gets_a_text_beside_it() {
        let id = id();
        let new = format!("multipart/alternative; boundary=\"=_{id}_0\"");
        let open = format!("--=_{id}_0\r\n");
        let end = format!("--=_{id}_0--\r\n");
        let text = format!("{TEXT}Gr=C3=BC=C3=9Fe\r\n");
        let both = format!("{open}{text}\r\n{open}{HTML}\r\n{end}");
        let pdf = "--m\r\nContent-Type: application/pdf\r\n\r\nx\r\n";
        let image = "--r\r\nContent-Type: image/png\r\n\r\nx\r\n--r--\r\n";
        let related = format!("Content-Type: multipart/related; boundary=r\r\n\r\n--r\r\n{HTML}{image}");
        assert_made([
            (
                format!("A: b\r\nContent-Transfer-Encoding: 8bit\r\n{HTML}"),
                format!(
                    "A: b\r\nContent-Type: {new}\r\nContent-Transfer-Encoding: 8bit\r\nMIME-Version: 1.0\r\n\r\n{}",
                    both.replace(
                        "Content-Type: text/html",
                        "Content-Transfer-Encoding: 8bit\r\nContent-Type: text/html"
                    )
                ),
            ),
            // Plausible's weekly report.
            (
                format!("{ALTERNATIVE}--a\r\n{HTML}--a--\r\n"),
                format!("{ALTERNATIVE}--a\r\n{text}\r\n--a\r\n{HTML}--a--\r\n"),
            ),
            (
                format!(
                    "{ALTERNATIVE}preamble\r\n--a \r\nContent-Type: text/calendar\r\n\r\nx\r\n--a\r\n{related}--a--\r\n"
                ),
                format!(
                    "{ALTERNATIVE}preamble\r\n--a\r\n{text}\r\n--a \r\nContent-Type: text/calendar\r\n\r\nx\r\n--a\r\n{related}--a--\r\n"
                ),
            ),
            (
                format!("{MIXED}{HTML}{pdf}--m--\r\n"),
                format!(
                    "{MIXED}Content-Type: {new}\r\n\r\n{}\r\n{pdf}--m--\r\n",
                    both.replace(&format!("Grüße\r\n\r\n{end}"), &format!("Grüße\r\n{end}"))
                ),
            ),
            (
                format!("{MIXED}{related}{pdf}--m--\r\n"),
                format!(
                    "{MIXED}Content-Type: {new}\r\n\r\n{open}{text}\r\n{open}{}\r\n{end}\r\n{pdf}--m--\r\n",
                    related.trim_end()
                ),
            ),
        ]);
    }

    #[test]
    fn a_log_file_is_no_text_to_read() {
        let id = id();
        let open = format!("--=_{id}_0\r\n");
        let end = format!("--=_{id}_0--\r\n");
        let new = format!("Content-Type: multipart/alternative; boundary=\"=_{id}_0\"\r\n");
        for head in [
            "Content-Type: text/plain\r\nContent-Disposition: inline; filename=a.log\r\n",
            "Content-Type: text/plain; name=a.log\r\n",
            "Content-Disposition: inline;\r\n filename*=UTF-8''a.log\r\n",
        ] {
            let log = format!("--m\r\n{head}\r\nx\r\n--m--\r\n");
            let text = format!("{open}{TEXT}Gr=C3=BC=C3=9Fe\r\n\r\n{open}{}\r\n{end}\r\n", HTML.trim_end());
            assert_made([(format!("{MIXED}{HTML}{log}"), format!("{MIXED}{new}\r\n{text}{log}"))]);
        }
    }

    #[test]
    fn what_has_a_text_or_cannot_be_read_stays() {
        let kept = |message: String| (message.clone(), message);
        assert_made([
            kept(format!("{ALTERNATIVE}--a\r\n\r\nx\r\n--a\r\n{HTML}--a--\r\n")),
            kept(format!("{MIXED}{HTML}--m\r\n\r\nfooter\r\n--m--\r\n")),
            kept("Subject: no MIME\r\n\r\n<p>x".to_owned()),
            kept("Content-Type: text/html\r\nContent-Disposition: attachment\r\n\r\n<p>x".to_owned()),
            kept("Content-Type: text/html\r\n\r\n<img src=x>".to_owned()),
            kept("Content-Type: text/html; charset=klingon\r\n\r\n<p>x".to_owned()),
            kept("Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n<p>x".to_owned()),
            kept(format!("Content-Type: multipart/report; boundary=a\r\n\r\n--a\r\n{HTML}--a--\r\n")),
            kept(format!("Content-Type: multipart/signed; boundary=a\r\n\r\n--a\r\n{HTML}--a--\r\n")),
            kept(format!("Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n{HTML}")),
        ]);
    }

    #[test]
    fn the_boundary_is_one_that_does_not_occur() {
        let id = id();
        let html = format!("Content-Type: text/html\r\nMIME-Version: 1.0\r\n\r\n<p>=_{id}_0\r\n--=_{id}_1\r\n");
        let message = crate::message::RawMessage::from_data(html.into()).expect("a message");
        let mut message = super::WorkingCopy::of(&message);
        super::add(&mut message, id).expect("no obstacle");
        assert!(String::from_utf8_lossy(message.header()).contains(&format!("boundary=\"=_{id}_2\"")));
    }
}
