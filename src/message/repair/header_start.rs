//! Removes what precedes the header, because readers would then see no header at all: a byte order mark, empty lines, the
//! "From " line of an mbox file. Only if a header with a From field follows; otherwise it is the body of a mail without
//! a header.
//! RFC 5322 §2.1, RFC 4155.

use super::step::{MemoryNeed, RepairScope, RepairStep};
use crate::message::RawMessage;

pub(super) const STEP: RepairStep = RepairStep {
    name: "header_start",
    doc: &["Empty lines, a byte order mark and the \"From \" line of an mbox file before the header are taken away."],
    scope: RepairScope::Author,
    run: |message, _| {
        begin(message);
        Ok(())
    },
    memory: MemoryNeed::NONE,
};

/// Lines that may precede the header.
const MOST_LINES: usize = 16;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

pub(super) fn begin(message: &mut RawMessage) {
    if !message.header().is_empty() {
        return;
    }
    let body = message.body();
    let mut start = 0;
    for _ in 0..MOST_LINES {
        let rest = &body[start..];
        start += match rest {
            _ if rest.starts_with(BYTE_ORDER_MARK) => BYTE_ORDER_MARK.len(),
            _ if is_no_field(rest) => memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1),
            _ => break,
        };
    }
    let Ok(found) = RawMessage::from_data(body.slice(start..)) else { return };
    if found.has("From") {
        *message = found;
    }
}

fn is_no_field(rest: &[u8]) -> bool {
    let line = rest.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii();
    !rest.is_empty() && (line.is_empty() || line.starts_with(b"From ") || line.starts_with(b">From "))
}

#[cfg(test)]
mod tests {
    use super::super::testing::table;

    #[test]
    fn before_and_after() {
        let header = "Subject: x\r\nFrom: a@b\r\n\r\nFrom here on\r\n";
        for before in [
            "\u{feff}",
            "\r\n",
            "\r\n \r\n\t\r\n",
            "From app@example.com Tue Nov 24 03:05:09 2026\r\n",
            ">From - Tue Nov 24 03:05:09 2026\r\n",
            "\u{feff}\r\nFrom MAILER-DAEMON\r\n",
        ] {
            table(|message| super::begin(message), &[(&format!("{before}{header}"), header)]);
        }
        let kept = |text: &'static str| (text, text);
        table(
            |message| super::begin(message),
            &[
                kept("From: a@b\r\n\r\n\r\nFrom: c@d\r\n"),
                // The body of a mail without a header.
                ("\r\nNote: this is a text\r\n", "\r\nNote: this is a text\r\n"),
                ("From here on\r\nNote: x\r\n", "\r\nFrom here on\r\nNote: x\r\n"),
                ("Hello\r\nFrom: a@b\r\n", "\r\nHello\r\nFrom: a@b\r\n"),
                ("", "\r\n"),
            ],
        );
        let many = format!("\r\n{}", "\r\n".repeat(100) + header);
        table(|message| super::begin(message), &[(&many, &many)]);
    }
}
