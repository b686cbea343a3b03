//! The definition of a repair step. Each step's file has one [`RepairStep`], and the list in `mod.rs` has a row for it;
//! the switch in `[repair]`, its documentation, the names in the log and the reserved memory follow from these.

use super::working_copy::WorkingCopy;
use crate::message::MailId;
use crate::message::mime::{ContentFields, Structure};
use crate::message::optional::Obstacle;

#[derive(Debug)]
pub struct RepairStep {
    /// Its key in `[repair]`, and its name in the log.
    pub name: &'static str,
    /// What it does, for the configuration's reference; one element per line.
    pub doc: &'static [&'static str],
    pub(super) scope: RepairScope,
    /// After an error the changed message is discarded.
    pub(super) run: fn(&mut WorkingCopy, &RepairInputs<'_>) -> Result<(), Obstacle>,
    pub(super) memory: MemoryNeed,
}

/// What a step works on, which decides whether it runs when memory is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RepairScope {
    /// Headers that determine the author, who is checked after these steps: they always run, and first.
    Author,
    /// Headers: always runs.
    Header,
    /// The body, and mail can be sent without it.
    Body,
    /// The body, and servers may refuse the mail without it.
    RequiredBody,
}

/// Values that a repair may insert into a message.
#[derive(Debug, Clone, Copy)]
pub struct RepairInputs<'a> {
    pub now: jiff::Timestamp,
    pub id: MailId,
    /// The part after the `@` of a new Message-ID.
    pub host: &'a str,
}

/// An upper bound for the memory that a step needs besides the message, estimated without running it. A step that
/// changes only the message's own header needs [`MemoryNeed::NONE`].
#[derive(Debug)]
pub(super) struct MemoryNeed {
    /// The size of the new body that it may create for a part, or `None` if it does not change the body. The first step
    /// with an answer counts.
    pub rewritten: fn(&ContentFields, &[u8]) -> Option<usize>,
    /// It may decode a part, if that has a transfer encoding.
    pub decodes: fn(&ContentFields, &[u8]) -> bool,
    /// It may change the header, given here, of a part within the message.
    pub edits_header: fn(&ContentFields, &[u8]) -> bool,
    /// It may change the structure around the parts.
    pub reframes: fn(&Structure) -> bool,
    /// Octets for a part that it adds, 0 if it adds none.
    pub added_part: fn(&Structure) -> usize,
}

impl MemoryNeed {
    pub const NONE: Self = Self {
        rewritten: |_, _| None,
        decodes: |_, _| false,
        edits_header: |_, _| false,
        reframes: |_| false,
        added_part: |_| 0,
    };
}
