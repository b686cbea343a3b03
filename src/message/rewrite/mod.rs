//! The user's rules: which messages they are for, and what they do to envelope, header and marks.
//!
//! Declared, not scripted: a [`Rule`] is conditions and actions. Pure; whatever a rule inserts passes the one constructor
//! of header fields ([`Field`](super::Field)), so that no value can break out of its line.

mod address_map;
mod apply;
mod conditions;
mod editable;
mod envelope;
mod header;
mod original;
mod replace;
mod texts;
mod unsubscribe;

pub use address_map::{AddressMap, AddressMapError};
pub use apply::{HeaderTrouble, KeptMail, RewriteChanges, RewriteDraft, Rewritten, RuleNote, Verdict};
pub use conditions::Unmet;
pub use editable::{HeaderEdit, is_editable};
pub use original::{Original, OriginalError};

use super::text_pattern::{HeaderPattern, TextPattern};
use super::{Mark, SenderPatterns};
use crate::smtp::{Mailbox, ReversePath};
use regex::Regex;
use std::collections::BTreeMap;
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

/// Carried out in this order, whatever the order in the file.
#[derive(Debug, Clone, Default)]
pub struct RuleActions {
    /// It is discarded; the application gets a 250.
    pub discard: bool,
    /// The application gets 550 5.7.1 with this text.
    pub refuse: Option<String>,
    pub set_sender: Option<ReversePath>,
    pub map_sender: AddressMap,
    /// Recipients that become the same are one.
    pub map_recipients: AddressMap,
    pub set_from: Option<NamedAddress>,
    /// The From that was there before becomes Reply-To, unless there is one.
    pub keep_from_as_reply_to: bool,
    pub set_reply_to: Option<NamedAddress>,
    /// Names; a glob takes every header that fits and may go ([`is_editable`]).
    pub remove_headers: Vec<TextPattern>,
    pub replace_in_headers: Vec<Replacement>,
    /// The first of the name is changed where it stands, others of it go; without one it is added.
    pub set_headers: BTreeMap<String, String>,
    pub add_headers: Vec<(String, String)>,
    /// Not put there twice.
    pub subject_prefix: Option<String>,
    pub list_unsubscribe: Option<ListUnsubscribe>,
    pub tag: Option<Mark>,
    pub stream: Option<Mark>,
    pub metadata: BTreeMap<Mark, Mark>,
    pub ip_pool: Option<Mark>,
    /// Name of an upstream.
    pub upstream: Option<Mark>,
    /// No later rule is asked.
    pub last: bool,
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
