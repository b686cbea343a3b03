//! Removes Bcc: blind copies are named in the envelope only. RFC 5322 §3.6.3.

use super::step::{MemoryNeed, RepairScope, RepairStep};
use crate::message::RawMessage;

pub(super) const STEP: RepairStep = RepairStep {
    name: "bcc",
    doc: &["Bcc fields are taken out: blind copies are named in the envelope only."],
    scope: RepairScope::Header,
    run: |message, _| {
        remove(message);
        Ok(())
    },
    memory: MemoryNeed::NONE,
};

pub(super) fn remove(message: &mut RawMessage) {
    message.remove_fields(|field| field.is("Bcc") || field.is("Resent-Bcc"));
}

#[cfg(test)]
mod tests {
    use super::super::testing::table;

    #[test]
    fn before_and_after() {
        table(
            |message| super::remove(message),
            &[
                (
                    "Bcc: secret@x,\r\n more@x\r\nTo: a@b\r\nBCC: y\r\nResent-Bcc:\r\n\r\nBcc: body",
                    "To: a@b\r\n\r\nBcc: body",
                ),
                ("X-Bcc: stays\r\n\r\n", "X-Bcc: stays\r\n\r\n"),
            ],
        );
    }
}
