//! How a lease ends: one durable transaction for all its recipients.

use super::bodies::BodyName;
use super::envelope::{EnvelopeRecipient, RecipientFields};
use super::failure::Failure;
use super::rows::{Summary, forget_if_empty, note_attempts, note_delivered, open_on, signed};
use super::work::{Tally, Work};
use crate::message::MailId;
use crate::queue::{Attempted, QueueError, Settlement};
use std::sync::Arc;

/// What a lease covers.
#[derive(Debug, Clone)]
pub(super) struct ActiveLease {
    pub message: i64,
    pub id: MailId,
    pub lane: Arc<str>,
    /// Positions of the recipients, in the order of the lease's envelope.
    pub positions: Vec<i64>,
}

#[derive(Debug)]
pub(super) struct SettledLease {
    /// Files that are litter now.
    pub files: Vec<BodyName>,
    /// Only history is left of the message.
    pub is_gone: bool,
}

/// `due`: milliseconds since 1970; `lived`: milliseconds of the queue's own clock.
pub(super) fn settle(
    work: &Work<'_>,
    held: &ActiveLease,
    settlements: &[Settlement],
    due: i64,
    lived: i64,
) -> Result<SettledLease, Failure> {
    if settlements.len() != held.positions.len() {
        return Err(QueueError::Storage("a lease needs one settlement per recipient".into()).into());
    }
    let open_before = open_on(work, held.message, &held.lane)?;
    let mut delivered = Vec::new();
    let mut attempts = Vec::new();
    for (position, settlement) in held.positions.iter().zip(settlements) {
        match settlement {
            Settlement::Delivered(delivery) => delivered.push((delivery, take_out(work, held.message, *position)?)),
            Settlement::Deferred(attempt) => {
                tried(work, held, *position, attempt)?;
                attempts.push(attempt);
            }
            Settlement::Failed(attempt) => {
                tried(work, held, *position, attempt)?;
                fail(work, held, *position, lived)?;
                attempts.push(attempt);
            }
            Settlement::Untried | Settlement::Postponed => {}
        }
    }
    note_attempts(work, held.message, &attempts)?;
    if !delivered.is_empty() {
        note_delivered(work, &summary(work, held.message)?, &delivered, lived)?;
    }
    let failed = signed(settlements.iter().filter(|settlement| matches!(settlement, Settlement::Failed(_))).count());
    let open_after = open_before - signed(delivered.len()) - failed;
    end_job(work, held, settlements, due, open_after)?;
    work.count(&held.lane, Tally { leased: -open_before, waiting: open_after, failed, ..Tally::default() });
    let gone = forget_if_empty(work, held.message, signed(delivered.len()))?;
    let is_gone = gone.is_some();
    Ok(SettledLease { files: gone.unwrap_or_default(), is_gone })
}

fn take_out(work: &Work<'_>, message: i64, position: i64) -> rusqlite::Result<String> {
    let address = work.first(
        "DELETE FROM recipient WHERE message = ?1 AND position = ?2 RETURNING address",
        (message, position),
        |row| row.get(0),
    )?;
    address.ok_or(rusqlite::Error::QueryReturnedNoRows)
}

fn tried(work: &Work<'_>, held: &ActiveLease, position: i64, attempt: &Attempted) -> rusqlite::Result<()> {
    work.execute(
        "UPDATE recipient SET attempts = attempts + 1, upstream = ?3, reason = ?4 WHERE message = ?1 AND position = ?2",
        (held.message, position, attempt.upstream.as_deref(), &attempt.text),
    )?;
    Ok(())
}

fn fail(work: &Work<'_>, held: &ActiveLease, position: i64, failed_at: i64) -> rusqlite::Result<()> {
    let row = work.first(
        "SELECT position, address, lane, failed_at, digest, attempts FROM recipient WHERE message = ?1 AND position = ?2",
        (held.message, position),
        EnvelopeRecipient::of_row,
    )?;
    let row = row.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    let digest =
        row.digest_for(held.id.as_str(), &RecipientFields { failed_at: Some(failed_at), ..row.fields.clone() });
    work.execute(
        "UPDATE recipient SET failed_at = ?3, digest = ?4 WHERE message = ?1 AND position = ?2",
        (held.message, position, failed_at, digest),
    )?;
    Ok(())
}

fn summary(work: &Work<'_>, message: i64) -> rusqlite::Result<Summary> {
    let summary = work.first(
        "SELECT id, received_at, sender, subject, size, message_id FROM message WHERE key = ?1",
        [message],
        |row| {
            Ok(Summary {
                id: row.get(0)?,
                received_at: row.get(1)?,
                sender: row.get(2)?,
                subject: row.get(3)?,
                size: row.get(4)?,
                message_id: row.get(5)?,
            })
        },
    )?;
    summary.ok_or(rusqlite::Error::QueryReturnedNoRows)
}

/// The job waits again while any recipient does. Recipients that joined it during the lease (a manual retry) keep their
/// due time and their possible duplicate; untried ones wait with the deferred ones.
fn end_job(
    work: &Work<'_>,
    held: &ActiveLease,
    settlements: &[Settlement],
    due: i64,
    open: i64,
) -> rusqlite::Result<()> {
    let job = (held.message, &*held.lane);
    if open == 0 {
        work.execute("DELETE FROM job WHERE message = ?1 AND lane = ?2", job)?;
        return Ok(());
    }
    let count =
        |wanted: fn(&Settlement) -> bool| signed(settlements.iter().filter(|settlement| wanted(settlement)).count());
    let deferred = count(|settlement| matches!(settlement, Settlement::Deferred(_) | Settlement::Postponed));
    let untried = count(|settlement| matches!(settlement, Settlement::Untried));
    let in_doubt = count(|settlement| matches!(settlement, Settlement::Untried | Settlement::Postponed));
    let lost_answer =
        count(|settlement| matches!(settlement, Settlement::Deferred(attempt) if attempt.possible_duplicate));
    let still_open = count(|settlement| !matches!(settlement, Settlement::Delivered(_) | Settlement::Failed(_)));
    let joined = (open - still_open).max(0);
    work.execute(
        "UPDATE job SET state = 0, due = IIF(?3, ?4, due), suspect = ?5 OR (?6 AND suspect)
         WHERE message = ?1 AND lane = ?2",
        (job.0, job.1, deferred > 0 && deferred + untried == open, due, lost_answer > 0, in_doubt + joined > 0),
    )?;
    Ok(())
}
