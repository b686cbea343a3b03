//! Repair: defects in the application's message are fixed before it is signed.
//!
//! Each step is a pure function of its own with its own table of examples; it can be turned off; it leaves what is sound
//! octet for octet, and everything inside signed, encrypted and forwarded mail (RFC 1847, RFC 2046 §5.2.1). Steps run in
//! the order of [`repair`]: fields first, then the shape of the message, then its texts.
//!
//! To repair twice is to repair once. Work is bounded by the size of the message. A step that panics, or would be too much,
//! is left out, and the message goes on as it was before the step.

mod base64_text;
mod bcc;
mod charset;
mod date;
mod flatten;
mod folding;
mod header_text;
mod long_lines;
mod memory;
mod message_id;
mod mime_version;
mod parts;
#[cfg(test)]
mod testing;
mod text_part;
mod transfer_encoding;

pub(in crate::message) use header_text::repaired as in_ascii;
pub use memory::{header_room, memory_needed};
pub(in crate::message) use mime_version::add as add_mime_version;

use super::id::MailId;
use super::optional::{Obstacle, Skipped, attempt};
use super::raw::RawMessage;
use bytes::Bytes;

/// Which steps are taken, in their order; all of them by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repairs {
    /// Blind copies are taken out of the header.
    pub bcc: bool,
    /// A multipart/mixed in which nothing is mixed goes.
    pub flatten: bool,
    /// Text in headers that breaks RFC 2047 or 5322 is rewritten.
    pub header_text: bool,
    /// A missing Message-ID is added, a malformed one replaced.
    pub message_id: bool,
    /// A missing Date is added.
    pub date: bool,
    /// Base64 around text that is readable without becomes quoted-printable.
    pub base64_text: bool,
    /// 8-bit text that does not say so becomes quoted-printable.
    pub transfer_encoding: bool,
    /// Texts that do not name their charset are declared as UTF-8 if they are.
    pub charset: bool,
    /// Parts with lines over 998 octets are encoded.
    pub long_lines: bool,
    /// HTML-only mail gets a text/plain made from the HTML.
    pub text_part: bool,
    /// A missing MIME-Version is added.
    pub mime_version: bool,
    /// Header lines over 998 octets are folded.
    pub header_folding: bool,
}

impl Repairs {
    pub const ALL: Self = Self::every(true);
    pub const NONE: Self = Self::every(false);

    const fn every(wanted: bool) -> Self {
        Self {
            bcc: wanted,
            flatten: wanted,
            header_text: wanted,
            message_id: wanted,
            date: wanted,
            base64_text: wanted,
            transfer_encoding: wanted,
            charset: wanted,
            long_lines: wanted,
            text_part: wanted,
            mime_version: wanted,
            header_folding: wanted,
        }
    }
}

impl Repairs {
    /// The switches by their names, in the order of the steps.
    fn switches(&self) -> [(&'static str, bool); 12] {
        [
            ("bcc", self.bcc),
            ("flatten", self.flatten),
            ("header_text", self.header_text),
            ("message_id", self.message_id),
            ("date", self.date),
            ("base64_text", self.base64_text),
            ("transfer_encoding", self.transfer_encoding),
            ("charset", self.charset),
            ("long_lines", self.long_lines),
            ("text_part", self.text_part),
            ("mime_version", self.mime_version),
            ("header_folding", self.header_folding),
        ]
    }

    /// These, but of the steps on the body only the one that no mail with long lines can do without.
    pub fn without_others_on_body(self) -> Self {
        Self { flatten: false, base64_text: false, transfer_encoding: false, charset: false, text_part: false, ..self }
    }

    fn only_encodes_long_lines(&self) -> bool {
        *self == self.without_others_on_body()
    }

    pub fn turned_off(&self) -> Vec<&'static str> {
        self.switches().into_iter().filter(|(_, wanted)| !wanted).map(|(name, _)| name).collect()
    }
}

impl Default for Repairs {
    fn default() -> Self {
        Self::ALL
    }
}

/// What a repair may put into a message.
#[derive(Debug, Clone, Copy)]
pub struct RepairInputs<'a> {
    pub now: jiff::Timestamp,
    pub id: MailId,
    /// Follows the `@` of a new Message-ID.
    pub host: &'a str,
}

#[derive(Debug, Clone)]
pub struct Repaired {
    pub message: RawMessage,
    /// The steps that changed something, by the names of their switches, in order.
    pub steps: Vec<&'static str>,
    /// Steps that were to be taken and could not.
    pub skipped: Vec<Skipped>,
}

pub fn repair(message: &RawMessage, repairs: &Repairs, context: &RepairInputs<'_>) -> Repaired {
    let mut repaired = Repaired { message: message.clone(), steps: Vec::new(), skipped: Vec::new() };
    // In the order of the switches.
    let steps: [&Step<'_>; 12] = [
        &sure(bcc::remove),
        // Before whatever looks into parts: those inside are then nearer.
        &sure(flatten::flatten),
        // Before the Message-ID is judged: it may only be wrapped.
        &sure(header_text::repair),
        &sure(|message| message_id::ensure(message, context.id, context.host)),
        &sure(|message| date::add_missing(message, context.now)),
        &sure(base64_text::uncover),
        &sure(transfer_encoding::declare),
        &sure(charset::declare),
        &sure(long_lines::encode),
        // Behind what makes the HTML readable.
        &|message| text_part::add(message, context.id),
        &sure(mime_version::declare),
        &sure(folding::fold_long_lines),
    ];
    for ((name, wanted), step) in repairs.switches().into_iter().zip(steps) {
        if !wanted {
            continue;
        }
        match changed_by(&repaired.message, name, step) {
            Ok(Some(message)) => {
                repaired.message = message;
                repaired.steps.push(name);
            }
            Ok(None) => {}
            Err(skipped) => repaired.skipped.push(skipped),
        }
    }
    repaired
}

/// What a step does to a message; what an error leaves behind is thrown away.
type Step<'a> = dyn Fn(&mut RawMessage) -> Result<(), Obstacle> + 'a;

/// A step that knows no obstacle.
fn sure(step: impl Fn(&mut RawMessage)) -> impl Fn(&mut RawMessage) -> Result<(), Obstacle> {
    move |message| {
        step(message);
        Ok(())
    }
}

/// The steps on the message's own header alone: for a message whose body does not fit in memory twice. The body stays
/// as it is.
pub fn repair_header(message: &RawMessage, repairs: &Repairs, context: &RepairInputs<'_>) -> Repaired {
    let repairs = Repairs { long_lines: false, ..repairs.without_others_on_body() };
    let bare = RawMessage::from_parts(message.header().to_vec(), Bytes::new());
    let Repaired { message: bare, steps, skipped } = repair(&bare, &repairs, context);
    Repaired { message: RawMessage::from_parts(bare.header().to_vec(), message.body().clone()), steps, skipped }
}

/// `None`: there is nothing to repair.
fn changed_by(message: &RawMessage, name: &'static str, step: &Step<'_>) -> Result<Option<RawMessage>, Skipped> {
    let mut after = message.clone();
    attempt(name, || step(&mut after))?;
    // A body is replaced only by another: no need to compare octets.
    let has_same_body = after.body().as_ptr() == message.body().as_ptr() && after.body().len() == message.body().len();
    Ok((!has_same_body || after.header() != message.header()).then_some(after))
}

#[cfg(test)]
mod tests;
