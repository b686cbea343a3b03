//! Who a message says it is from: the one mailbox of its one From header.
//!
//! The signing key, the senders' policy and the routes go by this, so anything ambiguous is an error and never a
//! guess: another reader might see the other author. RFC 5322 §3.6.2.

use super::raw::RawMessage;
use crate::smtp::{Domain, Mailbox};
use mail_parser::{Address, MessageParser};

/// The author's mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author(Mailbox);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthorError {
    #[error("the message has no From header")]
    Missing,
    #[error("the message has more than one From header")]
    Several,
    #[error("the From header has white space before its colon")]
    Malformed,
    #[error("the From header names more than one address")]
    SeveralAddresses,
    #[error("the From header does not hold a valid address")]
    Invalid,
}

impl Author {
    pub fn of(message: &RawMessage) -> Result<Self, AuthorError> {
        let mut fields = message.fields_named("From");
        let from = fields.next().ok_or(AuthorError::Missing)?;
        if fields.next().is_some() {
            return Err(AuthorError::Several);
        }
        if !from.is_well_formed() {
            return Err(AuthorError::Malformed);
        }
        let block = [from.raw(), b"\r\n"].concat();
        let parsed = MessageParser::new().parse_headers(&block).ok_or(AuthorError::Invalid)?;
        let mailboxes: Vec<_> = match parsed.from() {
            Some(Address::List(list)) => list.iter().collect(),
            Some(Address::Group(groups)) => groups.iter().flat_map(|group| &group.addresses).collect(),
            None => return Err(AuthorError::Invalid),
        };
        match mailboxes.as_slice() {
            [mailbox] => {
                let address = mailbox.address.as_deref().ok_or(AuthorError::Invalid)?;
                Mailbox::parse(address).map(Self).map_err(|_| AuthorError::Invalid)
            }
            [] => Err(AuthorError::Invalid),
            _ => Err(AuthorError::SeveralAddresses),
        }
    }

    pub fn mailbox(&self) -> &Mailbox {
        &self.0
    }

    pub fn domain(&self) -> &Domain {
        self.0.domain()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn author(header: &str) -> Result<String, AuthorError> {
        let message = RawMessage::from_data(format!("{header}\r\nbody").into()).expect("a message");
        Author::of(&message).map(|author| author.mailbox().to_string())
    }

    #[test]
    fn table() {
        use AuthorError::*;
        for (header, expected) in [
            ("From: a@example.com\r\n", Ok("a@example.com")),
            ("From: \"\" <a@example.com>\r\n", Ok("a@example.com")),
            ("From: \"x@evil.org\" <a@example.com>\r\n", Ok("a@example.com")),
            ("From: =?UTF-8?Q?\"J=C3=BCrgen\"?= <a@example.com>\r\n", Ok("a@example.com")),
            ("From:\r\n <a@example.com>\r\n", Ok("a@example.com")),
            ("FROM: A <a@example.com>\r\nTo: b@c\r\n", Ok("a@example.com")),
            ("To: b@c\r\n", Err(Missing)),
            ("From: a@b\r\nFrom: c@d\r\n", Err(Several)),
            ("From : a@b\r\n", Err(Malformed)),
            ("To: x@y\r\n From: a@b\r\n", Err(Missing)),
            ("From: a@b, c@d\r\n", Err(SeveralAddresses)),
            ("From: nobody\r\n", Err(Invalid)),
            ("From:\r\n", Err(Invalid)),
        ] {
            assert_eq!(author(header), expected.map(str::to_owned), "{header:?}");
        }
    }
}
