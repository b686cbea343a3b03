//! `Accepted`: a message that passed intake, ready to be delivered or stored; and what routes may ask about it.
//! Already repaired, not yet sealed: the signature is made at the door, by the key of that day.

use super::author::Author;
use super::envelope::Envelope;
use super::headers::Fields;
use super::id::MailId;
use super::marks::Marks;
use super::raw::RawMessage;
use crate::smtp::Mailbox;
use jiff::Timestamp;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub struct Accepted {
    pub id: MailId,
    pub received_at: Timestamp,
    pub origin: Origin,
    pub envelope: Envelope,
    pub message: RawMessage,
    /// `None` where the From header is missing or ambiguous and nothing needed it.
    pub author: Option<Author>,
    pub marks: Marks,
}

/// Where a message came in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The listener's address, as in "127.0.0.1:2525"; `None` for the gateway's own mail.
    pub listener: Option<Arc<str>>,
    /// The login, if there was one.
    pub user: Option<Arc<str>>,
}

/// All that decides which way one recipient's mail goes.
#[derive(Debug, Clone, Copy)]
pub struct Addressed<'a> {
    /// `None`: the null path.
    pub sender: Option<&'a Mailbox>,
    pub recipient: &'a Mailbox,
    pub origin: &'a Origin,
    pub marks: &'a Marks,
    /// Whole fields; empty if they cannot be read.
    pub header: &'a [u8],
}

impl Accepted {
    pub fn addressed<'a>(&'a self, recipient: &'a Mailbox) -> Addressed<'a> {
        Addressed {
            sender: self.envelope.sender.mailbox(),
            recipient,
            origin: &self.origin,
            marks: &self.marks,
            header: self.message.header(),
        }
    }
}

impl<'a> Addressed<'a> {
    pub fn fields(&self) -> Fields<'a> {
        Fields::new(self.header)
    }
}
