//! Removes header lines of only white space: the field continues after them, but many readers end the header there.
//! RFC 5322 §3.2.2, §4.2.

use super::parts;
use super::step::{MemoryNeed, RepairScope, RepairStep};
use super::working_copy::WorkingCopy;
use crate::message::headers::Fields;

pub(super) const STEP: RepairStep = RepairStep {
    name: "blank_lines",
    doc: &["Lines of white space only are taken out of headers."],
    scope: RepairScope::Header,
    run: |message, _| {
        take_out(message);
        Ok(())
    },
    memory: MemoryNeed { edits_header: |_, header| has_blank_line(header), ..MemoryNeed::NONE },
};

pub(super) fn take_out(message: &mut WorkingCopy) {
    if let Some(header) = without_blank_lines(message.header()) {
        message.replace_header(header);
    }
    parts::edit_headers(message, without_blank_lines);
}

/// It begins with white space, so it is not the end of the header.
fn is_blank(line: &[u8]) -> bool {
    line.starts_with(b" ") || line.starts_with(b"\t")
}

fn has_blank_line(block: &[u8]) -> bool {
    block.split_inclusive(|&byte| byte == b'\n').any(|line| is_blank(line) && is_white(line))
}

fn is_white(line: &[u8]) -> bool {
    line.iter().all(|byte| b" \t\r\n".contains(byte))
}

fn without_blank_lines(block: &[u8]) -> Option<Vec<u8>> {
    if !has_blank_line(block) {
        return None;
    }
    let mut out = Vec::with_capacity(block.len());
    for field in Fields::new(block) {
        let lines = field.raw().split_inclusive(|&byte| byte == b'\n');
        lines.filter(|line| !(is_blank(line) && is_white(line))).for_each(|line| out.extend_from_slice(line));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parts, table};

    #[test]
    fn before_and_after() {
        let kept = |text: &'static str| (text, text);
        let part = parts(&["Content-Type: text/plain;\r\n \r\n charset=utf-8\r\nX:\r\n\t\r\n\r\n \r\nx"]);
        let whole = parts(&["Content-Type: text/plain;\r\n charset=utf-8\r\nX:\r\n\r\n \r\nx"]);
        table(
            super::take_out,
            &[
                ("Subject: a\r\n \r\n b\r\nX: y\r\n\t \r\n\r\n \r\nbody", "Subject: a\r\n b\r\nX: y\r\n\r\n \r\nbody"),
                ("Subject:\r\n \r\n a\r\n\r\n", "Subject:\r\n a\r\n\r\n"),
                ("Cc:\r\n \r\n\t\r\n\r\nx", "Cc:\r\n\r\nx"),
                kept("Subject: a\r\n b \r\n\tc\r\n\r\n"),
                kept("X: \r\nY:\r\n\r\n"),
                (&part, &whole),
            ],
        );
    }
}
