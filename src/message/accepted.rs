//! `Accepted`: a message that passed intake, ready to be delivered or stored.
//! Already repaired, not yet sealed: the signature is made at the door, by the key of that day.

use super::author::Author;
use super::envelope::Envelope;
use super::id::MailId;
use super::raw::RawMessage;
use jiff::Timestamp;

#[derive(Debug, Clone)]
pub struct Accepted {
    pub id: MailId,
    pub received_at: Timestamp,
    pub envelope: Envelope,
    pub message: RawMessage,
    /// `None` where the From header is missing or ambiguous and nothing needed it.
    pub author: Option<Author>,
}
