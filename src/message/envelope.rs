//! The envelope: from whom, to whom, and what the message needs from a server. RFC 5321 §2.3.1.
//! Never read from the header, which may say something else: the envelope alone decides where a message goes.

use crate::smtp::command::BodyType;
use crate::smtp::{Mailbox, ReversePath};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub sender: ReversePath,
    /// In the order of the RCPT commands; never empty once DATA was accepted.
    pub recipients: Vec<Mailbox>,
    pub body: BodyType,
    /// The client asked for SMTPUTF8, or an address needs it. RFC 6531 §3.4.
    pub smtputf8: bool,
}

impl Envelope {
    pub fn new(sender: ReversePath) -> Self {
        let smtputf8 = sender.mailbox().is_some_and(Mailbox::is_internationalized);
        Self { sender, recipients: Vec::new(), body: BodyType::SevenBit, smtputf8 }
    }

    pub fn add_recipient(&mut self, recipient: Mailbox) {
        self.smtputf8 |= recipient.is_internationalized();
        self.recipients.push(recipient);
    }
}
