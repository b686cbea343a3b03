//! The result of the rules: the changed draft, the verdict, and what could not be done.

use crate::message::headers::FieldError;
use crate::message::optional::Skipped;
use crate::message::{Envelope, Marks, RawMessage};
use crate::smtp::Mailbox;
use std::sync::Arc;

/// Everything in a message that rules can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewriteDraft {
    pub envelope: Envelope,
    pub message: RawMessage,
    pub marks: Marks,
}

#[derive(Debug, Clone)]
pub struct Rewritten {
    pub verdict: Verdict,
    /// Names of the rules that applied to this message, in order.
    pub matched: Vec<Arc<str>>,
    /// Rules that did not apply, each with the reason.
    pub passed_over: Vec<(Arc<str>, Unmet)>,
    pub notes: Vec<RuleNote>,
    /// Searches in its texts that were skipped; they count as finding nothing.
    pub skipped: Vec<Skipped>,
}

/// The first condition of a rule that did not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmet {
    Senders,
    Recipients,
    From,
    /// By its index in [`RuleConditions::headers`](super::RuleConditions::headers).
    Header(usize),
    Listener,
    User,
    LargerThan,
    SmallerThan,
    BodyContains,
}

#[derive(Debug, Clone)]
pub enum Verdict {
    Keep(Box<KeptMail>),
    Discard { rule: Arc<str> },
    Refuse { rule: Arc<str>, text: String },
}

/// A message that was neither refused nor discarded.
#[derive(Debug, Clone)]
pub struct KeptMail {
    pub draft: RewriteDraft,
    /// The new address of each recipient of the original draft, in its order; the envelope names each once.
    pub targets: Vec<Mailbox>,
    pub changes: RewriteChanges,
}

/// What has changed. Bodies never do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RewriteChanges {
    pub envelope: bool,
    pub header: bool,
    pub marks: bool,
}

impl RewriteChanges {
    pub fn any(self) -> bool {
        self.envelope || self.header || self.marks
    }
}

/// Something that a rule asked for but that could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleNote {
    pub rule: Arc<str>,
    pub header: String,
    pub trouble: HeaderTrouble,
}

/// Why a header stayed as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderTrouble {
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("no rule may change it in this way")]
    NotEditable,
    #[error("its value cannot be decoded with certainty")]
    Undecodable,
    #[error("it would name more or fewer addresses")]
    Addresses,
    #[error("the header would become too large")]
    TooLarge,
    #[error("the link in the text is not an address that fits in a header")]
    Link,
    #[error("only a link with https can take one click")]
    NotHttps,
}
