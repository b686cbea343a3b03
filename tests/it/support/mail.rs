//! Messages to send.

use bytes::Bytes;
use waxseal::dkim::Sealed;
use waxseal::message::{Envelope, RawMessage};
use waxseal::smtp::{Mailbox, ReversePath};

/// Leaves as it is, unsigned.
pub fn unsigned(data: impl Into<Vec<u8>>) -> Sealed {
    Sealed::unsigned(&RawMessage::from_data(Bytes::from(data.into())).unwrap())
}

/// A small message that can be told from others.
pub fn numbered(number: usize) -> Sealed {
    unsigned(format!("From: a@example.com\r\nSubject: {number}\r\n\r\nbody-linnet {number}\r\n.dot\r\n"))
}

/// From `a@example.com`.
pub fn envelope(recipients: &[&str]) -> Envelope {
    envelope_from("a@example.com", recipients)
}

pub fn envelope_from(sender: &str, recipients: &[&str]) -> Envelope {
    let mut envelope = Envelope::new(ReversePath::Mailbox(Mailbox::parse(sender).unwrap()));
    for recipient in recipients {
        envelope.add_recipient(Mailbox::parse(recipient).unwrap());
    }
    envelope
}
