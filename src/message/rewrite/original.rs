//! A message from before the rules, which the queue stores beside the resulting one, so that the rules can be applied
//! again later.
//!
//! Stored as a line of JSON, then the header block. The body is not included, since no rule changes it. Unreadable
//! octets of any kind are an error.

use super::outcome::RewriteDraft;
use crate::message::headers::Fields;
use crate::message::{Envelope, Marks, RawMessage};
use crate::smtp::command::BodyType;
use crate::smtp::{Mailbox, ReversePath};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Increased when an older program would misunderstand what is stored.
const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    sender: ReversePath,
    recipients: Vec<OriginalRecipient>,
    body: BodyType,
    smtputf8: bool,
    marks: Marks,
    header: Vec<u8>,
}

/// A recipient before the rules, and the address that they made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OriginalRecipient {
    address: Mailbox,
    target: Mailbox,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginalError {
    #[error("its first line cannot be read: {0}")]
    Line(String),
    #[error("it was stored by a newer waxseal (version {0})")]
    Newer(u32),
    #[error("its header cannot be read")]
    Header,
}

#[derive(Debug, Serialize, Deserialize)]
struct OriginalLine {
    version: u32,
    /// `None`: the null path.
    sender: Option<String>,
    /// Before and after the rules.
    recipients: Vec<(String, String)>,
    eight_bit: bool,
    smtputf8: bool,
    marks: Marks,
}

/// The part that is readable in every version.
#[derive(Debug, Deserialize)]
struct OriginalVersion {
    version: u32,
}

impl Original {
    /// `targets`: the address that the rules made of each recipient of `draft`, in its order.
    pub fn new(draft: &RewriteDraft, targets: &[Mailbox]) -> Self {
        let Envelope { sender, recipients, body, smtputf8 } = &draft.envelope;
        let pairs = recipients.iter().zip(targets);
        let recipients =
            pairs.map(|(address, target)| OriginalRecipient { address: address.clone(), target: target.clone() });
        Self {
            sender: sender.clone(),
            recipients: recipients.collect(),
            body: *body,
            smtputf8: *smtputf8,
            marks: draft.marks.clone(),
            header: draft.message.header().to_vec(),
        }
    }

    pub fn encode(&self) -> Bytes {
        let pair = |one: &OriginalRecipient| (one.address.to_string(), one.target.to_string());
        let line = OriginalLine {
            version: VERSION,
            sender: self.sender.mailbox().map(ToString::to_string),
            recipients: self.recipients.iter().map(pair).collect(),
            eight_bit: self.body == BodyType::EightBitMime,
            smtputf8: self.smtputf8,
            marks: self.marks.clone(),
        };
        // Maps have only string keys here; an empty line would be rejected when it is read.
        let mut stored = serde_json::to_vec(&line).unwrap_or_default();
        stored.push(b'\n');
        stored.extend_from_slice(&self.header);
        stored.into()
    }

    pub fn decode(stored: &[u8]) -> Result<Self, OriginalError> {
        let end = memchr::memchr(b'\n', stored).unwrap_or(stored.len());
        let line = &stored[..end];
        let header = stored.get(end + 1..).unwrap_or_default();
        let OriginalLine { sender, recipients, eight_bit, smtputf8, marks, .. } = read_line(line)?;
        let mailbox = |text: &str| Mailbox::parse(text).map_err(|error| OriginalError::Line(error.to_string()));
        let pair = |(address, target): &(String, String)| {
            Ok(OriginalRecipient { address: mailbox(address)?, target: mailbox(target)? })
        };
        let sender = sender.as_deref().map(mailbox).transpose()?;
        Ok(Self {
            sender: sender.map_or(ReversePath::Null, ReversePath::Mailbox),
            recipients: recipients.iter().map(pair).collect::<Result<_, _>>()?,
            body: if eight_bit { BodyType::EightBitMime } else { BodyType::SevenBit },
            smtputf8,
            marks,
            header: sound_header(header).ok_or(OriginalError::Header)?,
        })
    }

    /// The original message, for those whose `open` recipients are not settled yet. An address that no rule made,
    /// because an operator corrected it, is treated as one of the application's.
    pub fn draft(&self, message: &RawMessage, open: &[Mailbox]) -> RewriteDraft {
        let is_open: HashSet<_> = open.iter().collect();
        let made: HashSet<_> = self.recipients.iter().map(|one| &one.target).collect();
        let mut envelope = Envelope::new(self.sender.clone());
        envelope.body = self.body;
        envelope.smtputf8 |= self.smtputf8;
        let waiting = self.recipients.iter().filter(|one| is_open.contains(&one.target)).map(|one| &one.address);
        let corrected = open.iter().filter(|address| !made.contains(address));
        waiting.chain(corrected).for_each(|address| envelope.add_recipient(address.clone()));
        let message = RawMessage::from_parts(self.header.clone(), message.body().clone());
        RewriteDraft { envelope, message, marks: self.marks.clone() }
    }
}

fn read_line(line: &[u8]) -> Result<OriginalLine, OriginalError> {
    match serde_json::from_slice::<OriginalVersion>(line) {
        Ok(OriginalVersion { version: VERSION }) => {}
        Ok(OriginalVersion { version }) => return Err(OriginalError::Newer(version)),
        Err(error) => return Err(OriginalError::Line(error.to_string())),
    }
    serde_json::from_slice(line).map_err(|error| OriginalError::Line(error.to_string()))
}

/// Complete fields with CRLF at the end of every line, as [`RawMessage`] requires.
fn sound_header(header: &[u8]) -> Option<Vec<u8>> {
    let mut fields = Fields::new(header);
    fields.by_ref().for_each(drop);
    let is_whole = fields.rest().is_empty() && (header.is_empty() || header.ends_with(b"\r\n"));
    let is_bare = |(at, byte): (usize, &u8)| match byte {
        b'\n' => at == 0 || header[at - 1] != b'\r',
        b'\r' => header.get(at + 1) != Some(&b'\n'),
        byte => *byte == 0,
    };
    (is_whole && !header.iter().enumerate().any(is_bare)).then(|| header.to_vec())
}
