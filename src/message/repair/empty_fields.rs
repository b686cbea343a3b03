//! Removes empty fields that must contain a value: `Cc:`, `Reply-To: <>`. Providers refuse mail with them. RFC 5322 §3.6:
//! Bcc is the only list that may be empty.

use super::step::{MemoryNeed, RepairScope, RepairStep};
use crate::message::RawMessage;
use crate::message::headers::FieldRef;

pub(super) const STEP: RepairStep = RepairStep {
    name: "empty_fields",
    doc: &["To, Cc, Reply-To, References and their like are taken out where they are empty."],
    scope: RepairScope::Header,
    run: |message, _| {
        remove(message);
        Ok(())
    },
    memory: MemoryNeed::NONE,
};

const FIELDS: [&str; 17] = [
    "To",
    "Cc",
    "Reply-To",
    "Sender",
    "Resent-To",
    "Resent-Cc",
    "Resent-Sender",
    "In-Reply-To",
    "References",
    "Return-Path",
    "Disposition-Notification-To",
    "List-Id",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "Errors-To",
    "Mail-Followup-To",
    "Return-Receipt-To",
];

pub(super) fn remove(message: &mut RawMessage) {
    message.remove_fields(is_empty);
}

fn is_empty(field: &FieldRef<'_>) -> bool {
    FIELDS.iter().any(|name| field.is(name)) && field.value().iter().all(|byte| b" \t\r\n,;<>\"".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::super::testing::table;

    #[test]
    fn before_and_after() {
        let kept = |text: &'static str| (text, text);
        table(
            |message| super::remove(message),
            &[
                ("To: a@b\r\nCc:\r\nreply-to: \r\n\t\r\n\r\nCc:\r\n", "To: a@b\r\n\r\nCc:\r\n"),
                ("To: ,\r\nCc: \"\" <>\r\nReply-To: <>;\r\nReferences:\r\nSubject: x\r\n\r\n", "Subject: x\r\n\r\n"),
                // Empty, and nevertheless valid.
                kept("From:\r\nSubject:\r\nX-Tag:\r\nTo: undisclosed-recipients:;\r\n\r\n"),
                kept("Cc: \"\" <a@b>\r\n\r\n"),
            ],
        );
    }
}
