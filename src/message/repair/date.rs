//! Ensures a valid Date: it is required, and its absence counts as a sign of spam. A Date that receivers cannot read is
//! rewritten; if its time cannot be determined, the current time replaces it. RFC 5322 §3.3, §3.6.1.

use super::date_text::{is_sound, read};
use super::step::{MemoryNeed, RepairScope, RepairStep};
use crate::message::RawMessage;
use crate::message::headers::{Field, FieldChange};
use crate::message::trace::rfc5322_date;

pub(super) const STEP: RepairStep = RepairStep {
    name: "date",
    doc: &["A missing Date is added; one that cannot be read is written from what it says, or from now."],
    scope: RepairScope::Header,
    run: |message, inputs| {
        ensure(message, inputs.now);
        Ok(())
    },
    memory: MemoryNeed::NONE,
};

pub(super) fn ensure(message: &mut RawMessage, now: jiff::Timestamp) {
    let given: Vec<_> = message.fields_named("Date").map(|field| field.unfolded()).collect();
    let given = match given.as_slice() {
        [] => None,
        [only] => Some(String::from_utf8_lossy(only).into_owned()),
        // Another step decides which of several counts.
        _ => return,
    };
    if given.as_deref().is_some_and(is_sound) {
        return;
    }
    let said = given.as_deref().and_then(read).map(|date| date.to_string());
    let Ok(date) = Field::new("Date", &[&said.unwrap_or_else(|| rfc5322_date(now))]) else { return };
    match given {
        None => message.append(&date),
        Some(_) => {
            message.edit_fields(
                |field| if field.is("Date") { FieldChange::Replace(date.clone()) } else { FieldChange::Keep },
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW, table};

    #[test]
    fn before_and_after() {
        table(
            |message| super::ensure(message, NOW.parse().expect("a time")),
            &[
                ("From: a@b\r\n\r\nx", "From: a@b\r\nDate: Tue, 24 Nov 2026 03:05:09 +0000\r\n\r\nx"),
                ("date:\r\n \r\nFrom: a@b\r\n\r\nx", "Date: Tue, 24 Nov 2026 03:05:09 +0000\r\nFrom: a@b\r\n\r\nx"),
                // The time that it states, otherwise the current time.
                ("date: 2026-11-20T10:00:00+01:00\r\n\r\n", "Date: Fri, 20 Nov 2026 10:00:00 +0100\r\n\r\n"),
                ("Date: Fri, 20 Nov 26 10:00:00 +0100\r\n\r\n", "Date: Fri, 20 Nov 2026 10:00:00 +0100\r\n\r\n"),
                ("date: today\r\nA: b\r\n\r\n", "Date: Tue, 24 Nov 2026 03:05:09 +0000\r\nA: b\r\n\r\n"),
                ("date:Fri, 20 Nov 2026 10:00 EST\r\n\r\n", "date:Fri, 20 Nov 2026 10:00 EST\r\n\r\n"),
                // Repeated, but someone wrote them.
                ("Date:\r\nDate: d\r\n\r\n", "Date:\r\nDate: d\r\n\r\n"),
            ],
        );
    }
}
