//! A Date, if there is none: it is required, and its absence counts as a sign of spam. RFC 5322 §3.6.1.

use super::step::{MemoryNeed, RepairScope, RepairStep};
use crate::message::RawMessage;
use crate::message::headers::{Field, FieldChange};
use crate::message::trace::rfc5322_date;

pub(super) const STEP: RepairStep = RepairStep {
    name: "date",
    doc: &["A missing Date is added."],
    scope: RepairScope::Header,
    run: |message, inputs| {
        add_missing(message, inputs.now);
        Ok(())
    },
    memory: MemoryNeed::NONE,
};

pub(super) fn add_missing(message: &mut RawMessage, now: jiff::Timestamp) {
    let Ok(date) = Field::new("Date", &[&rfc5322_date(now)]) else { return };
    match message.fields_named("Date").collect::<Vec<_>>().as_slice() {
        [] => message.append(&date),
        [only] if only.unfolded().is_empty() => {
            message.edit_fields(
                |field| if field.is("Date") { FieldChange::Replace(date.clone()) } else { FieldChange::Keep },
            );
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW, table};

    #[test]
    fn before_and_after() {
        table(
            |message| super::add_missing(message, NOW.parse().expect("a time")),
            &[
                ("From: a@b\r\n\r\nx", "From: a@b\r\nDate: Tue, 24 Nov 2026 03:05:09 +0000\r\n\r\nx"),
                ("date:\r\n \r\nFrom: a@b\r\n\r\nx", "Date: Tue, 24 Nov 2026 03:05:09 +0000\r\nFrom: a@b\r\n\r\nx"),
                // Odd or several, but somebody's.
                ("date: today\r\n\r\n", "date: today\r\n\r\n"),
                ("Date:\r\nDate: d\r\n\r\n", "Date:\r\nDate: d\r\n\r\n"),
            ],
        );
    }
}
