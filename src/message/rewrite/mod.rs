//! The user's rules: which messages they apply to, and what they do to envelope, header and marks.
//!
//! Declarative, not scripted: a [`Rule`] consists of conditions and actions. Pure; every value that a rule inserts goes
//! through the one constructor of header fields ([`Field`](super::Field)), so none can break out of its line.

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

/// In the order of the configuration. Each rule sees the result of the ones before it.
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

/// All given conditions must hold; a rule without conditions applies to every message.
#[derive(Debug, Clone, Default)]
pub struct RuleConditions {
    /// The envelope's sender. The null path matches only the pattern that matches everything.
    pub senders: Option<SenderPatterns>,
    /// At least one of the envelope's recipients must match.
    pub recipients: Option<SenderPatterns>,
    /// The From header's address. A message whose author cannot be determined is refused.
    pub from: Option<SenderPatterns>,
    /// All of them must match.
    pub headers: Vec<HeaderPattern>,
    /// The address of the listener, for example "127.0.0.1:2525", must be one of these. Empty: any.
    pub listeners: Vec<Arc<str>>,
    /// The login must match one of these. Empty: any login or none.
    pub users: Vec<TextPattern>,
    /// Size of the whole message in octets.
    pub larger_than: Option<u64>,
    pub smaller_than: Option<u64>,
    /// Must occur in one of the visible, decoded texts; case matters. Attachments and signed or encrypted parts are not
    /// searched, and only the beginning of very long texts is.
    pub body_contains: Option<String>,
}

/// A display name, which may be empty, and an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedAddress {
    pub display_name: String,
    pub address: Mailbox,
}

/// Applies to the decoded values of a header's fields; lists of addresses are not decoded, since decoding could create
/// new addresses.
#[derive(Debug, Clone)]
pub struct Replacement {
    pub header: String,
    pub pattern: Regex,
    /// `$1` or `$name` refer to captures.
    pub with: String,
}

/// RFC 2369 §3.2, RFC 8058.
#[derive(Debug, Clone)]
pub struct ListUnsubscribe {
    /// The first matching link in the message's texts becomes the header.
    pub link: TextPattern,
    /// The link accepts POST, so List-Unsubscribe-Post is added.
    pub one_click: bool,
}

#[cfg(test)]
mod tests;
