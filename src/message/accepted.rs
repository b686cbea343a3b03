//! `Accepted`: a message that passed intake, ready to be delivered or stored; and the parts of it that routes may
//! examine. Already repaired but not yet signed: it is signed just before sending, with the key current then.

use super::author::Author;
use super::envelope::{Envelope, room_for_address};
use super::headers::Fields;
use super::id::MailId;
use super::marks::Marks;
use super::raw::RawMessage;
use super::text_pattern::HeaderPattern;
use crate::smtp::Mailbox;
use jiff::Timestamp;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub struct Accepted {
    pub id: MailId,
    pub received_at: Timestamp,
    pub origin: Origin,
    pub envelope: Envelope,
    pub message: RawMessage,
    /// `None` if the From header is missing or ambiguous and nothing needed it.
    pub author: Option<Author>,
    pub marks: Marks,
}

/// Where a message came in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The listener's address, for example "127.0.0.1:2525"; `None` for the gateway's own mail.
    pub listener: Option<Arc<str>>,
    /// The login, if there was one.
    pub user: Option<Arc<str>>,
}

/// Everything that determines the route of one recipient's mail.
#[derive(Debug, Clone, Copy)]
pub struct Addressed<'a> {
    /// `None`: the null path.
    pub sender: Option<&'a Mailbox>,
    pub recipient: &'a Mailbox,
    pub origin: &'a Origin,
    pub marks: &'a Marks,
    pub header: &'a AskedHeader<'a>,
}

/// A header block that routes can query. Since values have to be decoded, each pattern is searched for only once,
/// however many recipients the message has.
#[derive(Debug, Default)]
pub struct AskedHeader<'a> {
    block: &'a [u8],
    /// By the pattern's name and value.
    answers: RefCell<HashMap<(String, String), bool>>,
}

impl<'a> AskedHeader<'a> {
    /// `block`: complete fields; empty if they cannot be read.
    pub fn new(block: &'a [u8]) -> Self {
        Self { block, answers: RefCell::default() }
    }

    pub fn fits(&self, pattern: &HeaderPattern) -> bool {
        let asked = (pattern.name.clone(), pattern.value.to_string());
        *self.answers.borrow_mut().entry(asked).or_insert_with(|| pattern.matches(Fields::new(self.block)))
    }
}

impl Accepted {
    /// For [`addressed`](Self::addressed); create it once for all recipients.
    pub fn asked_header(&self) -> AskedHeader<'_> {
        AskedHeader::new(self.message.header())
    }

    /// Octets of memory that the message needs, including its envelope.
    pub fn memory_needed(&self) -> u64 {
        (self.message.size() + self.envelope.recipients.iter().map(room_for_address).sum::<usize>()) as u64
    }

    pub fn addressed<'a>(&'a self, recipient: &'a Mailbox, header: &'a AskedHeader<'a>) -> Addressed<'a> {
        Addressed {
            sender: self.envelope.sender.mailbox(),
            recipient,
            origin: &self.origin,
            marks: &self.marks,
            header,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::text_pattern::TextPattern;

    #[test]
    fn a_pattern_is_looked_for_once_however_often_it_is_asked_about() {
        let header = AskedHeader::new(b"Subject: =?UTF-8?Q?Gr=C3=BC=C3=9Fe?=\r\nX-Kind: report\r\n");
        let pattern = |name: &str, value: &str| {
            let value = TextPattern::parse(value).expect("a pattern");
            HeaderPattern { name: name.to_owned(), value }
        };
        for _ in 0..3 {
            assert!(header.fits(&pattern("Subject", "Grüße")));
            assert!(!header.fits(&pattern("X-Kind", "Grüße")));
            assert!(header.fits(&pattern("X-Kind", "report")));
        }
        assert_eq!(header.answers.borrow().len(), 3);
    }
}
