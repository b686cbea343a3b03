//! Removes multipart/mixed around a single text, or around its alternatives: filters treat it as a forgery, and one
//! provider put a fifth of such mail into the spam folder. RFC 2046 §5.1.3.

use super::step::{MemoryNeed, RepairScope, RepairStep};
use super::working_copy::WorkingCopy;
use crate::message::headers::Fields;
use crate::message::mime::{Editor, Entity, Structure, is_content};

pub(super) const STEP: RepairStep = RepairStep {
    name: "flatten",
    doc: &["A multipart/mixed around a single text or its alternatives is taken away."],
    scope: RepairScope::Body,
    run: |message, _| {
        flatten(message);
        Ok(())
    },
    memory: MemoryNeed {
        reframes: |structure| {
            let root = structure.root();
            root.content.is("multipart/mixed") && root.children.len() == 1
        },
        ..MemoryNeed::NONE
    },
};

pub(super) fn flatten(message: &mut WorkingCopy) {
    let structure = message.structure();
    let mut editor = Editor::new(message, &structure);
    let mut header = editor.header(0).to_vec();
    let mut index = 0;
    while let Some(child) = only_content(&structure, index) {
        header = merged(&header, editor.header(child));
        index = child;
    }
    if index == 0 || is_too_deep(&structure, index) {
        return;
    }
    let mut body = editor.body(index).to_vec();
    if !body.ends_with(b"\r\n") {
        body.extend_from_slice(b"\r\n");
    }
    editor.replace_header(0, header);
    editor.replace_body(0, body);
    if let Some(flat) = editor.finish() {
        message.replace(flat);
    }
}

/// The only part of a multipart/mixed that mixes nothing.
fn only_content(structure: &Structure, index: usize) -> Option<usize> {
    let frame = structure.get(index)?;
    let &[child] = frame.children.as_slice() else { return None };
    let whole = frame.content.is("multipart/mixed") && frame.is_whole && !frame.is_opaque;
    (whole && is_content_itself(structure.get(child)?)).then_some(child)
}

/// More levels exist than the structure shows, and removing only some would leave the work half done.
fn is_too_deep(structure: &Structure, index: usize) -> bool {
    let below = structure.get(index).map_or(&[][..], |entity| &entity.children);
    below.iter().filter_map(|&child| structure.get(child)).any(|child| child.is_opaque && !child.content.is_sealed())
}

/// There is nothing left to mix with it.
fn is_content_itself(entity: &Entity) -> bool {
    let content = &entity.content;
    let is_frame =
        ["multipart/alternative", "multipart/related", "multipart/mixed"].contains(&content.media_type.as_str());
    entity.is_whole && !entity.is_opaque && (content.is_shown_text() || is_frame && !content.is_attachment)
}

/// The inner header's description of the content replaces the outer header's.
fn merged(outer: &[u8], inner: &[u8]) -> Vec<u8> {
    let of_frame = ["Content-Type", "Content-Transfer-Encoding", "Content-Disposition"];
    let inner: Vec<_> = Fields::new(inner).filter(is_content).collect();
    let mut header = Vec::with_capacity(outer.len() + 200);
    for field in Fields::new(outer) {
        let replaced = of_frame.iter().any(|name| field.is(name))
            || is_content(&field) && inner.iter().any(|new| new.name().eq_ignore_ascii_case(field.name()));
        if !replaced {
            header.extend_from_slice(field.raw());
        }
    }
    inner.iter().for_each(|field| header.extend_from_slice(field.raw()));
    header
}

#[cfg(test)]
mod tests {
    use super::super::testing::table;

    fn mixed(head: &str, parts: &str) -> String {
        format!("A: b\r\nContent-Type: multipart/mixed; boundary=m\r\n{head}C: d\r\n\r\n{parts}--m--\r\n")
    }

    #[test]
    fn before_and_after() {
        let texts = "--a\r\n\r\nx\r\n--a\r\nContent-Type: text/html\r\n\r\ny\r\n--a--";
        let alternative = format!("Content-Type: multipart/alternative; boundary=a\r\n\r\n{texts}\r\n");
        let flat = format!("A: b\r\nC: d\r\n{alternative}");
        let attachment = "Content-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\nx\r\n";
        let kept = |message: String| (message.clone(), message);
        let deep: String = (0..100)
            .map(|level| format!("--m{level}\r\nContent-Type: multipart/mixed; boundary=m{}\r\n\r\n", level + 1))
            .collect();
        let cases = [
            // gen_smtp.
            (mixed("", &format!("--m\r\n{alternative}")), flat.clone()),
            (mixed("", &format!("preamble\r\n--m\r\n{alternative}\r\n")), flat.clone()),
            (
                mixed(
                    "Content-Language: de\r\nContent-ID: <o>\r\nContent-Transfer-Encoding: 8bit\r\n",
                    "--m\r\nX: y\r\nContent-ID: <i>\r\n\r\ntext\r\n",
                ),
                "A: b\r\nContent-Language: de\r\nC: d\r\nContent-ID: <i>\r\n\r\ntext\r\n".to_owned(),
            ),
            (
                mixed(
                    "",
                    &format!("--m\r\nContent-Type: multipart/mixed; boundary=n\r\n\r\n--n\r\n{alternative}--n--\r\n"),
                ),
                flat,
            ),
            kept(mixed("", &format!("--m\r\n{alternative}--m\r\n{attachment}"))),
            kept(mixed("", &format!("--m\r\n{attachment}"))),
            kept(mixed(
                "",
                "--m\r\nContent-Type: text/plain\r\nContent-Disposition: inline; filename=a.log\r\n\r\nx\r\n",
            )),
            kept(mixed("", "--m\r\nContent-Type: text/html; name*=UTF-8''a.html\r\n\r\nx\r\n")),
            kept(mixed("", "--m\r\nContent-Type: application/pdf\r\n\r\nx\r\n")),
            kept(mixed("", "--m\r\nContent-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\nx\r\n--s--\r\n")),
            kept(mixed("", "--m\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nx\r\n")),
            kept(mixed("", "--m\r\nno empty line\r\n")),
            // It has no end, and the missing part may have been an attachment.
            kept(mixed("", &format!("--m\r\n{alternative}")).replace("--m--\r\n", "")),
            kept(format!("A: b\r\n{alternative}")),
            kept(format!("Content-Type: multipart/mixed; boundary=m0\r\n\r\n{deep}")),
        ];
        let cases: Vec<_> = cases.iter().map(|(before, after)| (before.as_str(), after.as_str())).collect();
        table(super::flatten, &cases);
    }
}
