//! The user's rules: which messages they are for, and what they do to envelope, header and marks.
//!
//! Declared, not scripted: a [`Rule`] is conditions and actions. Pure; whatever a rule inserts passes the one constructor
//! of header fields ([`Field`](super::Field)), so that no value can break out of its line.

mod actions;
mod address_map;
mod apply;
mod conditions;
mod editable;
mod envelope;
mod field;
mod header;
mod original;
mod outcome;
mod replace;
mod texts;
mod unsubscribe;

pub use actions::RuleActions;
pub(crate) use address_map::AddressMap;
pub(crate) use editable::{HeaderEdit, is_editable};
pub(crate) use original::{Original, OriginalError};
pub(crate) use outcome::{KeptMail, RewriteDraft, Rewritten, RuleNote, Unmet, Verdict};

use super::SenderPatterns;
use super::text_pattern::{HeaderPattern, TextPattern};
use crate::smtp::Mailbox;
use regex::Regex;
use std::sync::Arc;

/// In the order of the configuration. Each sees what the ones before it made.
#[derive(Debug, Clone, Default)]
pub struct Rules(pub Arc<[Rule]>);

/// One `[[rewrite]]`.
#[derive(Debug, Clone)]
pub struct Rule {
    /// For the log and for `check`.
    pub name: Arc<str>,
    pub conditions: RuleConditions,
    pub actions: RuleActions,
}

/// All that are given must hold; a rule without any is for every message.
#[derive(Debug, Clone, Default)]
pub struct RuleConditions {
    /// The envelope's sender. The null path fits only a pattern that is any.
    pub senders: Option<SenderPatterns>,
    /// One of the envelope's recipients fits.
    pub recipients: Option<SenderPatterns>,
    /// The From header's address. A message whose author cannot be determined is refused.
    pub from: Option<SenderPatterns>,
    /// Each of them.
    pub headers: Vec<HeaderPattern>,
    /// The address of the listener, as in "127.0.0.1:2525"; one of them. Empty: any.
    pub listeners: Vec<Arc<str>>,
    /// The name of the login; one of them. Empty: any, and none.
    pub users: Vec<TextPattern>,
    /// Octets of the whole message.
    pub larger_than: Option<u64>,
    pub smaller_than: Option<u64>,
    /// In one of the texts that are shown, decoded; case counts. Neither attachments nor signed or encrypted parts are looked
    /// into, and of very long texts only the beginning.
    pub body_contains: Option<String>,
}

/// A display name, which may be empty, and an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedAddress {
    pub display_name: String,
    pub address: Mailbox,
}

/// In the decoded values of a header's fields; in lists of addresses, where decoding could make new ones, as it is written.
#[derive(Debug, Clone)]
pub struct Replacement {
    pub header: String,
    pub pattern: Regex,
    /// `$1` or `$name` stand for captures.
    pub with: String,
}

/// RFC 2369 §3.2, RFC 8058.
#[derive(Debug, Clone)]
pub struct ListUnsubscribe {
    /// The first link of the message's texts that fits becomes the header.
    pub link: TextPattern,
    /// The link takes POST: List-Unsubscribe-Post is added.
    pub one_click: bool,
}

#[cfg(test)]
mod tests;
