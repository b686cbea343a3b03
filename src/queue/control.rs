//! What `waxseal queue` asks and what it gets: one JSON line each way, the same words beside a running gateway (through
//! its socket) and without one.
//!
//! Every line names its protocol, so that programs of two versions understand at least that they do not understand each
//! other. Answers are bounded: lists and changes of many messages go in pages. No sockets here.

mod change;
mod rules;
mod wire;

pub use change::Changed;
pub use rules::{MAX_RULED, Rewriter, RuledMessage, RuledPage, Ruling};
pub use wire::{Blame, ControlRefusal, MAX_REQUEST};

use super::{Cursor, Filter, HeldLane, HistoryRow, Lane, MessageDetails, Operator, Page, QueueError, Statistics};
use crate::message::MailId;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Messages of one page or of one request; more is refused or cut.
pub const MAX_PAGE: usize = 200;

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
    /// With `to`, the only unsettled recipient of the only message is replaced.
    Retry {
        ids: Vec<MailId>,
        to: Option<String>,
    },
    Remove {
        ids: Vec<MailId>,
    },
    /// One page of what matches; go on with `Changed::next`.
    RetryMatching {
        filter: Filter,
        after: Option<Cursor>,
        limit: usize,
    },
    RemoveMatching {
        filter: Filter,
        after: Option<Cursor>,
        limit: usize,
    },
    /// What today's rules make of the messages as they were handed in takes their place, and is due.
    RetryByRules {
        ids: Vec<MailId>,
    },
    RetryMatchingByRules {
        filter: Filter,
        after: Option<Cursor>,
        limit: usize,
    },
    /// Stops (`true`) or resumes a lane, or all of them.
    Hold {
        lane: Option<String>,
        held: bool,
    },
}

impl ControlRequest {
    /// The request asks for delivery now.
    pub fn wants_delivery(&self) -> bool {
        matches!(
            self,
            Self::Retry { .. }
                | Self::RetryMatching { .. }
                | Self::RetryByRules { .. }
                | Self::RetryMatchingByRules { .. }
                | Self::Hold { held: false, .. }
        )
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

impl ControlResponse {
    /// No page follows.
    pub fn is_final(&self) -> bool {
        !matches!(
            self,
            Self::Page(Page { next: Some(_), .. })
                | Self::Changed(Changed { next: Some(_), .. })
                | Self::Ruled(RuledPage { next: Some(_), .. })
        )
    }

    /// What is to be sent behind the line.
    pub fn trailer(&self) -> &[u8] {
        match self {
            Self::Content(Some(content)) => &content.data,
            _ => &[],
        }
    }
}

/// Does what is asked. Never more than a page at a time, whatever the request says.
pub async fn execute(
    queue: &dyn Operator,
    rewriter: &dyn Rewriter,
    request: ControlRequest,
    now: Timestamp,
) -> ControlResponse {
    answer(queue, rewriter, request, now).await.unwrap_or_else(ControlResponse::Refused)
}

async fn answer(
    queue: &dyn Operator,
    rewriter: &dyn Rewriter,
    request: ControlRequest,
    now: Timestamp,
) -> Result<ControlResponse, ControlRefusal> {
    Ok(match request {
        ControlRequest::Overview => ControlResponse::Overview(overview(queue).await?),
        ControlRequest::List { filter, after, limit } => {
            ControlResponse::Page(queue.list(&filter, after, page(limit)).await?)
        }
        ControlRequest::History { before, limit } => {
            ControlResponse::History(queue.history(before, page(limit)).await?)
        }
        ControlRequest::Show { id } => ControlResponse::Shown(queue.show(id).await?.map(Box::new)),
        ControlRequest::Content { id } => ControlResponse::Content(
            queue
                .content(id)
                .await?
                .map(|data| MessageContent { octets: u64::try_from(data.len()).unwrap_or(u64::MAX), data }),
        ),
        ControlRequest::Retry { ids, to } => {
            ControlResponse::Changed(change::retry(queue, rewriter, &ids, to.as_deref(), now).await?)
        }
        ControlRequest::Remove { ids } => ControlResponse::Changed(change::remove(queue, &ids).await?),
        ControlRequest::RetryMatching { filter, after, limit } => {
            let found = queue.list(&filter, after, page(limit)).await?;
            ControlResponse::Changed(change::retry_page(queue, found, now).await?)
        }
        ControlRequest::RemoveMatching { filter, after, limit } => {
            let found = queue.list(&filter, after, page(limit)).await?;
            ControlResponse::Changed(change::remove_page(queue, found).await?)
        }
        ControlRequest::RetryByRules { ids } => ControlResponse::Ruled(rules::named(queue, rewriter, &ids, now).await?),
        ControlRequest::RetryMatchingByRules { filter, after, limit } => {
            let found = queue.list(&filter, after, limit.clamp(1, MAX_RULED)).await?;
            ControlResponse::Ruled(rules::page(queue, rewriter, found, now).await?)
        }
        ControlRequest::Hold { lane, held } => {
            queue.hold(lane.map(Lane::new).as_ref(), held).await?;
            ControlResponse::Overview(overview(queue).await?)
        }
    })
}

async fn overview(queue: &dyn Operator) -> Result<Overview, QueueError> {
    Ok(Overview { held: queue.holds().await?, counts: queue.statistics().await? })
}

fn page(limit: usize) -> usize {
    limit.clamp(1, MAX_PAGE)
}

#[cfg(test)]
mod tests;
