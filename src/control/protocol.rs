//! Requests and answers. Every list and every change of many messages is one page; the next request says where to
//! continue.

use super::status::GatewayStatus;
use crate::delivery::LaneState;
use crate::intake::Ruling;
use crate::message::MailId;
use crate::queue::{
    Cursor, Filter, Forgotten, HeldLane, HistoryRow, InstanceRow, MessageDetails, Page, QueueError, SpoolFigures,
    Statistics,
};
use crate::relay::UpstreamExamination;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Maximum number of messages per page or request; more are refused or cut.
pub const MAX_PAGE: usize = 200;

/// The same for [`Change::RetryByRules`], where each message is rewritten and stored separately.
pub const MAX_RULED: usize = 50;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ControlRequest {
    /// Counts and held lanes.
    Overview,
    /// The state of everything.
    Status,
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
    /// Answered by [`ControlResponse::Ruled`] if the rules are applied, otherwise by [`ControlResponse::Changed`].
    Change {
        what: Change,
        which: Which,
    },
    /// Holds (`true`) or releases a lane, or all of them.
    Hold {
        lane: Option<String>,
        held: bool,
    },
    /// The gateways that share the queue.
    Instances,
    /// An instance, by its id, is gone for good.
    Forget {
        instance: String,
    },
    /// Connects to an upstream with each of its logins, under its permits; sends no mail.
    Examine {
        upstream: String,
        /// Tried with MAIL and RSET, by the first login.
        sender: Option<String>,
        /// For all of it.
        seconds: u64,
    },
    /// Hands in a mail as an application does at the first listener, without that listener's TLS and login: who can ask
    /// this is the gateway's own user. Everything else applies, from the permitted senders on.
    Submit {
        sender: String,
        recipient: String,
        /// With CRLF line endings.
        message: String,
    },
    /// Reads the configuration again.
    Reload,
}

/// The change to make to messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// Makes them due now. With `to`, the only unsettled recipient of the only message is replaced.
    Retry {
        to: Option<String>,
    },
    /// Replaces them by what the current rules make of their original form, and makes them due now.
    RetryByRules,
    /// Makes recipients due that were stored on hold.
    Release,
    Remove,
}

/// Which messages the request applies to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Which {
    Named(Vec<MailId>),
    /// One page of matching messages; the answer's `next` is where the next page begins.
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
            Self::Change { what, .. } => matches!(what, Change::Retry { .. } | Change::RetryByRules | Change::Release),
            Self::Hold { held, .. } => !held,
            Self::Forget { .. } => true,
            _ => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlResponse {
    Overview(Overview),
    Status(Box<GatewayStatus>),
    Page(Page),
    History(Vec<HistoryRow>),
    /// `None`: there is no such message.
    Shown(Option<Box<MessageDetails>>),
    /// `None`: there is no such message, or it was delivered and its content is gone.
    Content(Option<MessageContent>),
    Changed(Changed),
    Ruled(RuledPage),
    /// By the domain of the login, if it is one of a domain. `None`: there is no such upstream, or no gateway runs.
    Examined(Option<Vec<ExaminedLogin>>),
    Reloaded(Reloaded),
    /// `None`: the queue is one gateway's own.
    Instances(Option<Vec<InstanceRow>>),
    Forgotten(Forgotten),
    /// `None`: no gateway runs, or it has no listener.
    Submitted(Option<SubmissionReply>),
    Refused(ControlRefusal),
}

/// What an application would have been told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmissionReply {
    pub is_accepted: bool,
    /// The whole reply.
    pub text: String,
}

pub type ExaminedLogin = (Option<String>, Box<UpstreamExamination>);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    pub held: Vec<HeldLane>,
    pub counts: Statistics,
    /// What holds the mail of each lane; `None`: no gateway runs.
    #[serde(default)]
    pub lanes: Option<Vec<LaneState>>,
    /// What waits for Redis in the gateway's spool, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<SpoolFigures>,
}

/// What a reload of the configuration did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Why it was not done, each problem as `waxseal check` prints it; then nothing has changed.
    pub problems: Vec<String>,
    /// What is different now, in words.
    pub changes: Vec<String>,
    /// Settings that differ in the configuration and count only from the next start.
    pub at_next_start: Vec<String>,
    pub warnings: Vec<String>,
}

/// The octets follow the line unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageContent {
    pub octets: u64,
    #[serde(skip)]
    pub data: Bytes,
}

/// The results for the messages of one request.
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
    /// Where to continue; `None`: this was the last page.
    #[serde(default)]
    pub next: Option<Cursor>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuledMessage {
    pub id: String,
    #[serde(flatten)]
    pub ruling: Ruling,
}

/// The rules' result for each message of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuledPage {
    pub messages: Vec<RuledMessage>,
    /// Where to continue; `None`: this was the last page.
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

    /// The octets to send after the line.
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
    /// The two sides have different versions.
    Protocol,
    /// The request is malformed or too large.
    Request,
    /// The message is not in a state that allows this.
    Message,
    /// The queue's storage failed.
    Queue,
    /// Only a gateway that runs can do it.
    Gateway,
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
