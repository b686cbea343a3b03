//! The envelope: sender, recipients, and what the message needs from a server. RFC 5321 §2.3.1. Never read from the
//! header, which may differ: the envelope alone decides where a message goes.

use crate::smtp::command::BodyType;
use crate::smtp::{Mailbox, ReversePath};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

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

/// Octets of the memory budget for an address in an envelope: for the at most five copies of it that exist at once (as
/// received, before, during and after the rules, and on its way into the queue), and for data stored beside it.
pub fn room_for_address(address: &Mailbox) -> usize {
    512 + 8 * (address.local_part().len() + address.domain().as_str().len())
}

/// Which recipients are known already, however the address is spelt: RFC 5321 §4.1.1.3 leaves it to the server what a
/// repeated address means, and one mail is enough. Keeps a hash and a position per recipient, so a lookup scans
/// nothing.
#[derive(Debug, Default)]
pub struct Distinct {
    places: HashMap<u64, usize>,
    hasher: RandomState,
}

impl Distinct {
    /// The position of `recipient` in `known`, all of which must have been [added](Self::add).
    pub fn find(&self, recipient: &Mailbox, known: &[Mailbox]) -> Option<usize> {
        let identity = recipient.identity();
        let place = *self.places.get(&self.hasher.hash_one(&identity))?;
        // Two different addresses may share a hash.
        known.get(place).filter(|other| other.identity() == identity).map(|_| place)
    }

    pub fn add(&mut self, recipient: &Mailbox, place: usize) {
        self.places.insert(self.hasher.hash_one(recipient.identity()), place);
    }
}
