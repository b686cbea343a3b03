//! Repair: fixes defects of the application's message before it is signed.
//!
//! Each step is a file with a pure function and a table of examples, and a row in [`STEPS`]. It can be turned off. It
//! does not change valid content by an octet, nor anything inside signed, encrypted and forwarded mail (RFC 1847, RFC
//! 2046 §5.2.1).
//!
//! Repairing twice has the same result as repairing once. Work is bounded by the size of the message. A step that
//! panics, or would need too much, is skipped, and the message continues as it was before the step.

mod base64_text;
mod bcc;
mod blank_lines;
mod charset;
mod date;
mod date_text;
mod display_names;
mod duplicate_fields;
mod empty_fields;
mod encoding_name;
mod flatten;
mod folding;
mod header_start;
mod header_text;
mod long_lines;
mod memory;
mod message_id;
mod mime_version;
mod parts;
mod raw_text;
mod step;
#[cfg(test)]
mod testing;
mod text_part;
mod transfer_encoding;
mod working_copy;

pub(in crate::message) use header_text::repaired as in_ascii;
pub use memory::{header_room, memory_needed};
pub(in crate::message) use mime_version::add as add_mime_version;
pub use step::{RepairInputs, RepairStep};

use super::optional::{Skipped, attempt};
use super::raw::RawMessage;
use bytes::Bytes;
use std::fmt;
use step::RepairScope;
use working_copy::WorkingCopy;

/// Every step, in the order in which they run.
pub const STEPS: &[RepairStep] = &[
    // First of all: before, there is no header.
    header_start::STEP,
    display_names::STEP,
    // Behind the names: a list is joined of what can be read.
    duplicate_fields::STEP,
    bcc::STEP,
    // Before the steps that examine parts, which are then less deeply nested.
    flatten::STEP,
    blank_lines::STEP,
    // Before the Message-ID is checked, since it may only be wrapped.
    header_text::STEP,
    // Behind the texts: what says nothing may be empty only now.
    empty_fields::STEP,
    message_id::STEP,
    date::STEP,
    // Before the steps that read bodies.
    encoding_name::STEP,
    base64_text::STEP,
    transfer_encoding::STEP,
    charset::STEP,
    long_lines::STEP,
    // After the steps that make the HTML readable.
    text_part::STEP,
    mime_version::STEP,
    folding::STEP,
];

/// The enabled steps: a bit for each of [`STEPS`]. All of them by default.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Repairs(u32);

const _: () = assert!(STEPS.len() < 32, "Repairs has a bit for each step");

impl Repairs {
    pub const ALL: Self = Self((1 << STEPS.len()) - 1);
    pub const NONE: Self = Self(0);

    /// The steps for which `wanted` holds.
    pub fn of(wanted: impl Fn(&RepairStep) -> bool) -> Self {
        let bits = STEPS.iter().enumerate().filter(|(_, step)| wanted(step)).map(|(at, _)| 1 << at);
        Self(bits.sum())
    }

    fn steps(&self) -> impl Iterator<Item = &'static RepairStep> {
        let bits = self.0;
        STEPS.iter().enumerate().filter(move |(at, _)| bits & 1 << at != 0).map(|(_, step)| step)
    }

    /// The same, except that of the steps on the body only the one required for mail with long lines stays.
    pub fn without_others_on_body(self) -> Self {
        Self(self.0 & Self::of(|step| step.scope != RepairScope::Body).0)
    }

    fn on_header(self) -> Self {
        Self(self.0 & Self::of(|step| matches!(step.scope, RepairScope::Author | RepairScope::Header)).0)
    }

    /// Only those steps that must run before the author is checked. They need no memory beyond the header's.
    pub fn before_the_author(self) -> Self {
        Self(self.0 & Self::of(|step| step.scope == RepairScope::Author).0)
    }

    /// The other steps, which run after them.
    pub fn after_the_author(self) -> Self {
        Self(self.0 & !self.before_the_author().0)
    }

    pub fn turned_off(&self) -> Vec<&'static str> {
        Self(Self::ALL.0 & !self.0).steps().map(|step| step.name).collect()
    }
}

impl Default for Repairs {
    fn default() -> Self {
        Self::ALL
    }
}

/// The names of its steps.
impl fmt::Debug for Repairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.steps().map(|step| step.name)).finish()
    }
}

#[derive(Debug, Clone)]
pub struct Repaired {
    pub message: RawMessage,
    /// The steps that changed something, by their names, in order.
    pub steps: Vec<&'static str>,
    /// Enabled steps that could not be completed.
    pub skipped: Vec<Skipped>,
    /// Headers that occurred several times with different values, of which the first was kept.
    pub conflicts: Vec<&'static str>,
}

pub fn repair(message: &RawMessage, repairs: &Repairs, inputs: &RepairInputs<'_>) -> Repaired {
    let mut copy = WorkingCopy::of(message);
    let mut steps = Vec::new();
    let mut skipped = Vec::new();
    let mut conflicts = Vec::new();
    for step in repairs.steps() {
        if step.name == duplicate_fields::STEP.name {
            conflicts = duplicate_fields::conflicts(&copy);
        }
        let mut after = copy.clone();
        match attempt(step.name, || (step.run)(&mut after, inputs)) {
            Ok(()) => {
                if !after.equals(&copy) {
                    steps.push(step.name);
                }
                copy = after;
            }
            Err(why) => skipped.push(why),
        }
    }
    Repaired { message: copy.into_message(), steps, skipped, conflicts }
}

/// Only the steps on the message's own header: for a message whose body does not fit in memory twice. The body stays as
/// it is.
pub fn repair_header(message: &RawMessage, repairs: &Repairs, inputs: &RepairInputs<'_>) -> Repaired {
    let bare = RawMessage::from_parts(message.header().to_vec(), Bytes::new());
    let repaired = repair(&bare, &repairs.on_header(), inputs);
    let header = repaired.message.header().to_vec();
    Repaired { message: RawMessage::from_parts(header, message.body().clone()), ..repaired }
}

#[cfg(test)]
mod tests;
