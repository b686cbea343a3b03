//! Retry, with or without the current rules, and remove: the result reports every message that was named or found.

use super::protocol::{Blame, Changed, ControlRefusal, MAX_PAGE, MAX_RULED, RuledMessage, RuledPage, Which};
use crate::delivery::{Routes, UNROUTED};
use crate::intake::{Ruling, rerun};
use crate::message::MailId;
use crate::message::rewrite::Rules;
use crate::queue::{Correction, Lane, LaneOf, Operator, QueueError, RecipientRow, RecipientState, Row};
use crate::smtp::Mailbox;
use jiff::Timestamp;
use std::sync::Arc;

/// The rules and routes of a configuration, for stored mail. By default there are no rules, and the routes are unknown.
#[derive(Debug, Clone, Default)]
pub struct CurrentRules {
    pub rules: Rules,
    pub routes: Option<Arc<Routes>>,
}

impl CurrentRules {
    /// `None`: the routes are unknown.
    fn lane_of(&self) -> Option<LaneOf> {
        let routes = self.routes.clone()?;
        Some(Arc::new(move |addressed| routes.lane(addressed)))
    }
}

pub(super) async fn retry(
    queue: &dyn Operator,
    rules: &CurrentRules,
    to: Option<String>,
    which: Which,
    now: Timestamp,
) -> Result<Changed, ControlRefusal> {
    let to = to.map(|to| Mailbox::parse(&to).map_err(|error| no_address(&to, &error.to_string()))).transpose()?;
    if to.is_some() && !matches!(&which, Which::Named(ids) if ids.len() == 1) {
        return Err(ControlRefusal::new(Blame::Request, "an address can be corrected for one message at a time"));
    }
    let (chosen, mut changed) = find(queue, which, |row| row.recipients.iter().any(can_be_retried)).await?;
    if let (Some(to), [row]) = (&to, chosen.as_slice()) {
        has_one_open_recipient(row)?;
        was_not_delivered_to(to, queue, row).await?;
    }
    let ids = ids_of(&chosen);
    if !ids.is_empty() {
        let correction = to.map(|to| Correction { to, lane_of: rules.lane_of() });
        changed.recipients = queue.retry(&ids, correction.as_ref(), now).await?;
        changed.messages = count(ids.len());
    }
    Ok(changed)
}

pub(super) async fn release(queue: &dyn Operator, which: Which) -> Result<Changed, ControlRefusal> {
    let is_held = |recipient: &RecipientRow| recipient.state == RecipientState::Held;
    let (chosen, mut changed) = find(queue, which, |row| row.recipients.iter().any(is_held)).await?;
    let ids = ids_of(&chosen);
    if !ids.is_empty() {
        changed.recipients = queue.release(&ids).await?;
        changed.messages = count(ids.len());
    }
    Ok(changed)
}

pub(super) async fn remove(queue: &dyn Operator, which: Which) -> Result<Changed, ControlRefusal> {
    let (chosen, mut changed) = find(queue, which, can_be_removed).await?;
    let ids = ids_of(&chosen);
    if !ids.is_empty() {
        changed.messages = queue.remove(&ids).await?;
        changed.recipients = chosen.iter().map(|row| count(row.recipients.len())).sum();
    }
    Ok(changed)
}

/// A damaged message must not affect the others.
pub(super) async fn retry_by_rules(
    queue: &dyn Operator,
    rules: &CurrentRules,
    which: Which,
    now: Timestamp,
) -> Result<RuledPage, ControlRefusal> {
    let mut page = RuledPage::default();
    let names: Vec<String> = match which {
        Which::Named(ids) => {
            check_number(&ids, MAX_RULED)?;
            ids.iter().map(ToString::to_string).collect()
        }
        Which::Matching { filter, after, limit } => {
            let found = queue.list(&filter, after, limit.clamp(1, MAX_RULED)).await?;
            page.next = found.next;
            found.rows.into_iter().map(|row| row.id).collect()
        }
    };
    let lane_of: LaneOf = rules.lane_of().unwrap_or_else(|| Arc::new(|_| Lane::new(UNROUTED)));
    for id in names {
        let ruling = match id.parse() {
            Err(_) => Ruling::Unreadable { why: "its name is damaged".to_owned() },
            Ok(named) => match rerun(queue, &rules.rules, &lane_of, named, now).await {
                Err(QueueError::Storage(why)) => Ruling::Unreadable { why },
                ruling => ruling?,
            },
        };
        page.messages.push(RuledMessage { id, ruling });
    }
    Ok(page)
}

/// The messages that can be changed; the others are reported.
async fn find(
    queue: &dyn Operator,
    which: Which,
    can_be_changed: impl Fn(&Row) -> bool,
) -> Result<(Vec<Row>, Changed), ControlRefusal> {
    let mut changed = Changed::default();
    let mut rows = Vec::new();
    match which {
        Which::Named(ids) => {
            check_number(&ids, MAX_PAGE)?;
            for id in ids {
                match queue.show(id).await? {
                    Some(shown) => rows.push(shown.row),
                    None => changed.missing.push(id),
                }
            }
        }
        Which::Matching { filter, after, limit } => {
            let page = queue.list(&filter, after, limit.clamp(1, MAX_PAGE)).await?;
            changed.next = page.next;
            rows = page.rows;
        }
    }
    let (chosen, others): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(can_be_changed);
    changed.unchanged = others.into_iter().map(|row| row.id).collect();
    Ok((chosen, changed))
}

fn check_number(ids: &[MailId], most: usize) -> Result<(), ControlRefusal> {
    if ids.len() > most {
        return Err(ControlRefusal::new(Blame::Request, format!("at most {most} messages can be named at a time")));
    }
    Ok(())
}

fn can_be_retried(recipient: &RecipientRow) -> bool {
    recipient.state != RecipientState::Leased
}

/// Messages being sent stay, because the provider may be about to accept them.
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

/// A corrected address must not get a message twice.
async fn was_not_delivered_to(to: &Mailbox, queue: &dyn Operator, row: &Row) -> Result<(), ControlRefusal> {
    let Some(id) = id_of(row) else { return Ok(()) };
    let identity = to.identity();
    let delivered = queue.show(id).await?.map(|shown| shown.delivered).unwrap_or_default();
    let mut addresses = delivered.iter().flat_map(|row| &row.recipients);
    match addresses.find(|address| Mailbox::parse(address).is_ok_and(|one| one.identity() == identity)) {
        None => Ok(()),
        Some(known) => Err(ControlRefusal::new(
            Blame::Message,
            format!(
                "{id} was delivered to {known} already and would arrive twice; `waxseal queue remove {id}` ends it for the \
                 address that is left"
            ),
        )),
    }
}

fn no_address(text: &str, why: &str) -> ControlRefusal {
    ControlRefusal::new(Blame::Request, format!("\"{}\" is not a valid address: {why}", text.escape_default()))
}

/// A damaged row may have lost its id; then it cannot be addressed by id.
fn id_of(row: &Row) -> Option<MailId> {
    row.id.parse().ok()
}

fn ids_of(rows: &[Row]) -> Vec<MailId> {
    rows.iter().filter_map(id_of).collect()
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
