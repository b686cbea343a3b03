//! Repair: what broke on the way from the application is mended before the message is sealed.
//!
//! Each step is a pure function of its own with its own table of examples; it can be turned off; it leaves what is sound
//! octet for octet, and everything inside signed, encrypted and forwarded mail (RFC 1847, RFC 2046 §5.2.1). Steps run in
//! the order of [`repair`]: fields first, then the shape of the message, then its texts.
//!
//! To repair twice is to repair once. Work is bounded by the size of the message.

mod base64_text;
mod bcc;
mod charset;
mod date;
mod flatten;
mod folding;
mod header_text;
mod long_lines;
mod message_id;
mod mime_version;
mod parts;
#[cfg(test)]
mod testing;
mod text_part;
mod transfer_encoding;

use super::id::MailId;
use super::raw::RawMessage;

/// Which steps are taken, in their order; all of them by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repairs {
    /// Blind copies are taken out of the header.
    pub bcc: bool,
    /// A multipart/mixed in which nothing is mixed goes.
    pub flatten: bool,
    /// Text in headers that breaks RFC 2047 or 5322 is written anew.
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

impl Default for Repairs {
    fn default() -> Self {
        Self::ALL
    }
}

/// What a repair may put into a message.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub now: jiff::Timestamp,
    pub id: MailId,
    /// Stands behind the `@` of a new Message-ID.
    pub host: &'a str,
}

pub fn repair(message: &RawMessage, repairs: &Repairs, context: &Context<'_>) -> RawMessage {
    let mut message = message.clone();
    let mut step = |wanted: bool, step: &dyn Fn(&mut RawMessage)| {
        if wanted {
            step(&mut message);
        }
    };
    step(repairs.bcc, &bcc::remove);
    // Before whatever looks into parts: those inside are then nearer.
    step(repairs.flatten, &flatten::flatten);
    // Before the Message-ID is judged: it may only be wrapped.
    step(repairs.header_text, &header_text::mend);
    step(repairs.message_id, &|message| message_id::ensure(message, context.id, context.host));
    step(repairs.date, &|message| date::add_missing(message, context.now));
    step(repairs.base64_text, &base64_text::uncover);
    step(repairs.transfer_encoding, &transfer_encoding::declare);
    step(repairs.charset, &charset::declare);
    step(repairs.long_lines, &long_lines::encode);
    // Behind what makes the HTML readable.
    step(repairs.text_part, &|message| text_part::add(message, context.id));
    step(repairs.mime_version, &mime_version::declare);
    step(repairs.header_folding, &folding::fold_long_lines);
    message
}

#[cfg(test)]
mod tests;
