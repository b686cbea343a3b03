//! Retry by the rules of today: what is asked, and what became of each message. The queue knows neither rules nor
//! routes; a [`Rewriter`] provides them.

use super::{ControlRefusal, change};
use crate::message::MailId;
use crate::queue::{Cursor, LaneOf, Operator, Page, QueueError};
use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Messages of one request: each is rewritten and stored by itself.
pub const MAX_RULED: usize = 50;

/// Puts what the rules of today make of a stored message in its place, and makes it due.
#[async_trait]
pub trait Rewriter: Send + Sync {
    async fn rewrite(&self, queue: &dyn Operator, id: MailId, now: Timestamp) -> Result<Ruling, QueueError>;

    /// By the routes of today; `None`: they are not known.
    fn lane_of(&self) -> Option<LaneOf>;
}

/// What became of one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "result")]
pub enum Ruling {
    /// Another form took its place and is due now.
    Rewritten {
        /// Those that were for it.
        rules: Vec<String>,
        /// "sender", "recipients", "marks", and names of headers.
        changed: Vec<String>,
        recipients: u64,
    },
    /// The rules make of it what is stored; it is due now.
    Unchanged {
        recipients: u64,
    },
    /// A rule wants it to reach nobody: it stays as it is.
    Discards {
        rule: String,
    },
    /// A rule would not take it: it stays as it is.
    Refuses {
        rule: String,
        text: String,
    },
    /// It is being sent.
    Busy,
    Missing,
    /// Its original, or all of it, cannot be read: it stays as it is.
    Unreadable {
        why: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuledMessage {
    pub id: String,
    #[serde(flatten)]
    pub ruling: Ruling,
}

/// A page of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuledPage {
    pub messages: Vec<RuledMessage>,
    /// Where to go on; `None`: that was all.
    #[serde(default)]
    pub next: Option<Cursor>,
}

impl Ruling {
    /// Recipients that are due now; `None`: it stays as it is.
    pub fn due(&self) -> Option<u64> {
        match self {
            Self::Rewritten { recipients, .. } | Self::Unchanged { recipients } => Some(*recipients),
            _ => None,
        }
    }
}

pub(super) async fn named(
    queue: &dyn Operator,
    rewriter: &dyn Rewriter,
    ids: &[MailId],
    now: Timestamp,
) -> Result<RuledPage, ControlRefusal> {
    change::check_number(ids, MAX_RULED)?;
    let mut page = RuledPage::default();
    for &id in ids {
        page.messages.push(ruled(queue, rewriter, id, now).await?);
    }
    Ok(page)
}

pub(super) async fn page(
    queue: &dyn Operator,
    rewriter: &dyn Rewriter,
    found: Page,
    now: Timestamp,
) -> Result<RuledPage, ControlRefusal> {
    let mut page = RuledPage { messages: Vec::new(), next: found.next };
    for row in found.rows {
        page.messages.push(match row.id.parse() {
            Ok(id) => ruled(queue, rewriter, id, now).await?,
            Err(_) => RuledMessage { id: row.id, ruling: Ruling::Unreadable { why: "its name is damaged".to_owned() } },
        });
    }
    Ok(page)
}

/// One that is damaged does not keep the others waiting.
async fn ruled(
    queue: &dyn Operator,
    rewriter: &dyn Rewriter,
    id: MailId,
    now: Timestamp,
) -> Result<RuledMessage, ControlRefusal> {
    let ruling = match rewriter.rewrite(queue, id, now).await {
        Ok(ruling) => ruling,
        Err(QueueError::Storage(why)) => Ruling::Unreadable { why },
        Err(error) => return Err(error.into()),
    };
    Ok(RuledMessage { id: id.to_string(), ruling })
}
