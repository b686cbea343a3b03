//! Folds header lines over 998 octets at their white space. RFC 5322 §2.1.1.
//!
//! Shorter ones stay as they are, even those over 78. A word of more than 998 octets cannot be folded; in texts for
//! people `header_text` has already encoded it.

use super::parts;
use super::step::{MemoryNeed, RepairScope, RepairStep};
use super::working_copy::WorkingCopy;
use crate::message::headers::{Fields, MAX_LINE, fold};

pub(super) const STEP: RepairStep = RepairStep {
    name: "header_folding",
    doc: &["Header lines over 998 octets are folded."],
    scope: RepairScope::Header,
    run: |message, _| {
        fold_long_lines(message);
        Ok(())
    },
    memory: MemoryNeed { edits_header: |_, header| header.len() > MAX_LINE, ..MemoryNeed::NONE },
};

pub(super) fn fold_long_lines(message: &mut WorkingCopy) {
    if let Some(header) = folded(message.header()) {
        message.replace_header(header);
    }
    parts::edit_headers(message, folded);
}

fn folded(block: &[u8]) -> Option<Vec<u8>> {
    let is_long = |line: &[u8]| line.len() > MAX_LINE + 2;
    if block.len() <= MAX_LINE + 2 || !block.split_inclusive(|&byte| byte == b'\n').any(is_long) {
        return None;
    }
    let mut out = Vec::with_capacity(block.len() + block.len() / 64);
    for field in Fields::new(block) {
        for line in field.raw().split_inclusive(|&byte| byte == b'\n') {
            match line.strip_suffix(b"\r\n") {
                // A line must not be folded before the colon.
                Some(text) if is_long(line) && field.is_well_formed() => {
                    fold(text, &mut out);
                    out.extend_from_slice(b"\r\n");
                }
                _ => out.extend_from_slice(line),
            }
        }
    }
    (out != block).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::super::testing::table;

    #[test]
    fn before_and_after() {
        let word = "x".repeat(69);
        let long = [&word[..]; 20].join(" ");
        let folded = [&word[..]; 20].join("\r\n ");
        let short = [&word[..]; 14].join(" ");
        let endless = "y".repeat(2000);
        let spaces = " ".repeat(2000);
        let both = |text: String| (text.clone(), text);
        let part = |value: &str| {
            format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX: {value}\r\n\r\nX: {long}\r\n--b--\r\n")
        };
        let cases = [
            (
                format!("X: {long}\r\nY: a\r\n b\r\n\r\nX: {long}\r\n"),
                format!("X: {folded}\r\nY: a\r\n b\r\n\r\nX: {long}\r\n"),
            ),
            (format!("X: a\r\n {long}\r\n\tb\r\n\r\n"), format!("X: a\r\n {folded}\r\n\tb\r\n\r\n")),
            (format!("X:\r\n\t{long}  \r\n\r\n"), format!("X:\r\n\t{folded}  \r\n\r\n")),
            (format!("X: a {endless} b\r\n\r\n"), format!("X: a\r\n {endless}\r\n b\r\n\r\n")),
            (format!("X: {endless}\r\n\r\n"), format!("X:\r\n {endless}\r\n\r\n")),
            (part(&long), part(&folded)),
            both(format!("X: {short}\r\n\r\n")),
            both(format!("{endless} : a\r\n\r\n")),
            both(format!("X:{endless}\r\n\r\n")),
            both(format!("X:{spaces}\r\n\r\n")),
        ];
        let cases: Vec<_> = cases.iter().map(|(before, after)| (before.as_str(), after.as_str())).collect();
        table(super::fold_long_lines, &cases);
    }
}
