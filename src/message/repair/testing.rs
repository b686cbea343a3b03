//! Tables of examples: before → after, and after → after.

use super::working_copy::WorkingCopy;
use crate::message::RawMessage;

pub(super) const NOW: &str = "2026-11-24T03:05:09Z";

pub(super) fn table(step: impl Fn(&mut WorkingCopy), cases: &[(&str, &str)]) {
    for (before, after) in cases {
        let message = RawMessage::from_data((*before).to_owned().into()).expect("a message");
        let mut message = WorkingCopy::of(&message);
        step(&mut message);
        let once = message.to_bytes();
        assert_eq!(String::from_utf8_lossy(&once), *after, "of {before:?}");
        step(&mut message);
        assert!(message.to_bytes() == once, "a second time: {:?}", String::from_utf8_lossy(&message.to_bytes()));
    }
}

/// A message of these parts, each a header, an empty line and a body.
pub(super) fn parts(parts: &[&str]) -> String {
    let parts: String = parts.iter().map(|part| format!("--b\r\n{part}\r\n")).collect();
    format!("MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n{parts}--b--\r\n")
}
