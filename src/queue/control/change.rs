//! Retry and remove: named messages, each accounted for, and whole pages.

use super::{Blame, ControlRefusal, MAX_PAGE, Rewriter};
use crate::message::MailId;
use crate::queue::{Correction, Cursor, Operator, Page, RecipientRow, RecipientState, Row};
use crate::smtp::Mailbox;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

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

pub(super) async fn retry(
    queue: &dyn Operator,
    rewriter: &dyn Rewriter,
    ids: &[MailId],
    to: Option<&str>,
    now: Timestamp,
) -> Result<Changed, ControlRefusal> {
    let to = to.map(|to| Mailbox::parse(to).map_err(|error| no_address(to, &error.to_string()))).transpose()?;
    if to.is_some() && ids.len() != 1 {
        return Err(ControlRefusal::new(Blame::Request, "an address can be corrected for one message at a time"));
    }
    let (chosen, mut changed) = sort_out(queue, ids, |row| row.recipients.iter().any(can_be_retried)).await?;
    if let (Some(to), [row]) = (&to, chosen.as_slice()) {
        has_one_open_recipient(row)?;
        was_not_delivered_to(to, queue, ids).await?;
    }
    let chosen: Vec<MailId> = chosen.iter().filter_map(id_of).collect();
    if !chosen.is_empty() {
        let correction = to.map(|to| Correction { to, lane_of: rewriter.lane_of() });
        changed.recipients = queue.retry(&chosen, correction.as_ref(), now).await?;
        changed.messages = count(chosen.len());
    }
    Ok(changed)
}

pub(super) async fn remove(queue: &dyn Operator, ids: &[MailId]) -> Result<Changed, ControlRefusal> {
    let (chosen, mut changed) = sort_out(queue, ids, can_be_removed).await?;
    let recipients = chosen.iter().map(|row| count(row.recipients.len())).sum();
    let chosen: Vec<MailId> = chosen.iter().filter_map(id_of).collect();
    if !chosen.is_empty() {
        changed.messages = queue.remove(&chosen).await?;
        changed.recipients = recipients;
    }
    Ok(changed)
}

pub(super) async fn retry_page(queue: &dyn Operator, page: Page, now: Timestamp) -> Result<Changed, ControlRefusal> {
    let (chosen, mut changed) = split(page, |row| row.recipients.iter().any(can_be_retried));
    let chosen: Vec<MailId> = chosen.iter().filter_map(id_of).collect();
    if !chosen.is_empty() {
        changed.recipients = queue.retry(&chosen, None, now).await?;
        changed.messages = count(chosen.len());
    }
    Ok(changed)
}

pub(super) async fn remove_page(queue: &dyn Operator, page: Page) -> Result<Changed, ControlRefusal> {
    let (chosen, mut changed) = split(page, can_be_removed);
    let recipients = chosen.iter().map(|row| count(row.recipients.len())).sum();
    let chosen: Vec<MailId> = chosen.iter().filter_map(id_of).collect();
    if !chosen.is_empty() {
        changed.messages = queue.remove(&chosen).await?;
        changed.recipients = recipients;
    }
    Ok(changed)
}

/// The rows that something can be done to; the others are accounted for.
async fn sort_out(
    queue: &dyn Operator,
    ids: &[MailId],
    can_be_changed: impl Fn(&Row) -> bool,
) -> Result<(Vec<Row>, Changed), ControlRefusal> {
    check_number(ids, MAX_PAGE)?;
    let (mut chosen, mut changed) = (Vec::new(), Changed::default());
    for &id in ids {
        match queue.show(id).await? {
            Some(shown) if can_be_changed(&shown.row) => chosen.push(shown.row),
            Some(shown) => changed.unchanged.push(shown.row.id),
            None => changed.missing.push(id),
        }
    }
    Ok((chosen, changed))
}

pub(super) fn check_number(ids: &[MailId], most: usize) -> Result<(), ControlRefusal> {
    if ids.len() > most {
        return Err(ControlRefusal::new(Blame::Request, format!("at most {most} messages can be named at a time")));
    }
    Ok(())
}

fn split(page: Page, can_be_changed: impl Fn(&Row) -> bool) -> (Vec<Row>, Changed) {
    let (chosen, others): (Vec<Row>, Vec<Row>) = page.rows.into_iter().partition(can_be_changed);
    let unchanged = others.into_iter().map(|row| row.id).collect();
    (chosen, Changed { unchanged, next: page.next, ..Changed::default() })
}

fn can_be_retried(recipient: &RecipientRow) -> bool {
    recipient.state != RecipientState::Leased
}

/// What is being sent now stays: the provider may be about to take it.
fn can_be_removed(row: &Row) -> bool {
    !row.recipients.is_empty() && row.recipients.iter().all(|recipient| recipient.state != RecipientState::Leased)
}

fn has_one_open_recipient(row: &Row) -> Result<(), ControlRefusal> {
    match row.recipients.as_slice() {
        [only] if can_be_retried(only) => Ok(()),
        recipients => Err(ControlRefusal::new(
            Blame::Message,
            format!(
                "{} has {} recipients that are not settled; only the address of a single one can be corrected",
                row.id,
                recipients.len()
            ),
        )),
    }
}

/// Nobody gets a message twice for a corrected address.
async fn was_not_delivered_to(to: &Mailbox, queue: &dyn Operator, ids: &[MailId]) -> Result<(), ControlRefusal> {
    let identity = to.identity();
    for &id in ids {
        let delivered = queue.show(id).await?.map(|shown| shown.delivered).unwrap_or_default();
        let mut addresses = delivered.iter().flat_map(|row| &row.recipients);
        if let Some(known) =
            addresses.find(|address| Mailbox::parse(address).is_ok_and(|one| one.identity() == identity))
        {
            let text = format!(
                "{id} was delivered to {known} already and would arrive twice; `waxseal queue remove {id}` ends it for the address that is left"
            );
            return Err(ControlRefusal::new(Blame::Message, text));
        }
    }
    Ok(())
}

fn no_address(text: &str, why: &str) -> ControlRefusal {
    ControlRefusal::new(Blame::Request, format!("\"{}\" is not a valid address: {why}", text.escape_default()))
}

/// A damaged row may have lost its name; then nothing can be done to it by name.
fn id_of(row: &Row) -> Option<MailId> {
    row.id.parse().ok()
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
