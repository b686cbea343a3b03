//! Requests and answers. Every list and every change of many messages is one page; the next request names where to go on.

use crate::intake::Ruling;
use crate::message::MailId;
use crate::queue::{Cursor, Filter, HeldLane, HistoryRow, MessageDetails, Page, QueueError, Statistics};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Messages of one page or of one request; more is refused or cut.
pub const MAX_PAGE: usize = 200;

/// The same for [`Change::RetryByRules`]: each message is rewritten and stored by itself.
pub const MAX_RULED: usize = 50;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ControlRequest {
    /// Counts and held lanes.
    Overview,
    List {
        filter: Filter,
        after: Option<Cursor>,
        limit: usize,
    },
    History {
        before: Option<Cursor>,
        limit: usize,
    },
    Show {
        id: MailId,
    },
    Content {
        id: MailId,
    },
    /// Answered by [`ControlResponse::Ruled`] if the rules are asked, and by [`ControlResponse::Changed`] otherwise.
    Change {
        what: Change,
        which: Which,
    },
    /// Stops (`true`) or resumes a lane, or all of them.
    Hold {
        lane: Option<String>,
        held: bool,
    },
}

/// What is to become of messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// They are due now. With `to`, the only unsettled recipient of the only message is replaced.
    Retry {
        to: Option<String>,
    },
    /// What the current rules make of them as they were handed in takes their place, and is due now.
    RetryByRules,
    Remove,
}

/// Which messages are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Which {
    Named(Vec<MailId>),
    /// One page of them; the answer's `next` is where the next page begins.
    Matching {
        filter: Filter,
        after: Option<Cursor>,
        limit: usize,
    },
}

impl ControlRequest {
    /// The request asks for delivery now.
    pub fn wants_delivery(&self) -> bool {
        match self {
            Self::Change { what, .. } => matches!(what, Change::Retry { .. } | Change::RetryByRules),
            Self::Hold { held, .. } => !held,
            _ => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlResponse {
    Overview(Overview),
    Page(Page),
    History(Vec<HistoryRow>),
    /// `None`: no such message.
    Shown(Option<Box<MessageDetails>>),
    /// `None`: no such message, or it was delivered and its content is gone.
    Content(Option<MessageContent>),
    Changed(Changed),
    Ruled(RuledPage),
    Refused(ControlRefusal),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    pub held: Vec<HeldLane>,
    pub counts: Statistics,
}

/// The octets follow the line as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageContent {
    pub octets: u64,
    #[serde(skip)]
    pub data: Bytes,
}

/// What became of the messages of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    pub messages: u64,
    pub recipients: u64,
    /// Named, but not in the queue.
    #[serde(default)]
    pub missing: Vec<MailId>,
    /// In the queue, but busy or with nothing to change.
    #[serde(default)]
    pub unchanged: Vec<String>,
    /// Where to go on; `None`: that was all.
    #[serde(default)]
    pub next: Option<Cursor>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuledMessage {
    pub id: String,
    #[serde(flatten)]
    pub ruling: Ruling,
}

/// What the rules made of each message of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuledPage {
    pub messages: Vec<RuledMessage>,
    /// Where to go on; `None`: that was all.
    #[serde(default)]
    pub next: Option<Cursor>,
}

impl ControlResponse {
    /// Where the next page begins.
    pub fn next(&self) -> Option<Cursor> {
        match self {
            Self::Page(page) => page.next,
            Self::Changed(changed) => changed.next,
            Self::Ruled(page) => page.next,
            _ => None,
        }
    }

    /// What is to be sent behind the line.
    pub fn trailer(&self) -> &[u8] {
        match self {
            Self::Content(Some(content)) => &content.data,
            _ => &[],
        }
    }
}

/// Why a request was refused, for the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct ControlRefusal {
    pub blame: Blame,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    /// Two versions.
    Protocol,
    /// The request is broken or too large.
    Request,
    /// The message is not in a state in which this can be done.
    Message,
    /// The queue's storage.
    Queue,
}

impl ControlRefusal {
    pub(super) fn new(blame: Blame, text: impl Into<String>) -> Self {
        Self { blame, text: text.into() }
    }
}

impl From<QueueError> for ControlRefusal {
    fn from(error: QueueError) -> Self {
        Self::new(Blame::Queue, error.to_string())
    }
}
