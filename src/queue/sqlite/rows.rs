//! Converts between rows and types (times, states), and makes changes to a message's rows that several operations
//! share.

use super::bodies::{BodyFile, BodyName};
use super::work::{Sql, Tally, Work};
use crate::message::accepted::Origin;
use crate::message::{MailId, Marks};
use crate::queue::{Attempted, Delivered};
use jiff::Timestamp;
use std::time::Duration;

/// States of a job. The partial indexes contain these numbers.
pub(super) const WAITING: i64 = 0;
pub(super) const LEASED: i64 = 1;
pub(super) const DAMAGED: i64 = 2;

/// Attempts kept per message; older ones are deleted.
const MAX_ATTEMPTS: usize = 100;

/// Milliseconds since 1970.
pub(super) fn to_column(at: Timestamp) -> i64 {
    at.as_millisecond()
}

pub(super) fn from_column(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or(if milliseconds < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// Milliseconds of [`crate::queue::QuotaLedger::lived`].
pub(super) fn lived_to_column(lived: Duration) -> i64 {
    signed(lived.as_millis())
}

pub(super) fn from_lived(milliseconds: i64) -> Duration {
    Duration::from_millis(unsigned(milliseconds))
}

/// A count or size; negative ones are never written.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// `SQLite` has signed integers only.
pub(super) fn signed(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

pub(super) fn bad_text(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

/// `None`: there are none.
pub(super) fn marks_to_column(marks: &Marks) -> Option<String> {
    (!marks.is_empty()).then(|| serde_json::to_string(marks).ok()).flatten()
}

pub(super) fn marks_from_column(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Marks> {
    match row.get::<_, Option<String>>(column)? {
        None => Ok(Marks::default()),
        Some(json) => serde_json::from_str(&json).map_err(|error| bad_text(column, error)),
    }
}

pub(super) fn origin_from_columns(row: &rusqlite::Row<'_>, listener: usize, user: usize) -> rusqlite::Result<Origin> {
    let text = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<String>>(column)?.map(Into::into));
    Ok(Origin { listener: text(listener)?, user: text(user)? })
}

pub(super) fn key_of(sql: &Sql<'_>, id: MailId) -> rusqlite::Result<Option<i64>> {
    sql.first("SELECT key FROM message WHERE id = ?1", [id.as_str()], |row| row.get(0))
}

/// The counts that a job contributes for its recipients.
pub(super) fn tally_of(state: i64, recipients: i64) -> Tally {
    match state {
        WAITING => Tally { waiting: recipients, ..Tally::default() },
        LEASED => Tally { leased: recipients, ..Tally::default() },
        _ => Tally { damaged: recipients, ..Tally::default() },
    }
}

pub(super) fn is_held(sql: &Sql<'_>, lane: &str) -> rusqlite::Result<bool> {
    let held = sql.first(
        "SELECT COALESCE((SELECT held FROM hold WHERE lane = ?1), (SELECT held_all FROM ledger WHERE one = 1))",
        [lane],
        |row| row.get(0),
    )?;
    Ok(held.unwrap_or(false))
}

/// Recipients of a message on a lane that are not failed.
pub(super) fn open_on(sql: &Sql<'_>, message: i64, lane: &str) -> rusqlite::Result<i64> {
    let count = sql.first(
        "SELECT COUNT(*) FROM recipient WHERE message = ?1 AND lane = ?2 AND failed_at IS NULL",
        (message, lane),
        |row| row.get(0),
    )?;
    Ok(count.unwrap_or(0))
}

/// Makes a job waiting, or brings an existing one's due time forward; a leased one stays leased.
pub(super) fn wait_on(
    work: &Work<'_>,
    message: i64,
    lane: &str,
    domain: &str,
    due: i64,
    possible_duplicate: bool,
) -> rusqlite::Result<()> {
    work.execute(
        "INSERT INTO job (message, lane, domain, due, state, suspect) VALUES (?1, ?2, ?3, ?4, 0, ?5)
         ON CONFLICT (message, lane) DO UPDATE SET due = MIN(due, excluded.due), suspect = MAX(suspect, excluded.suspect)",
        (message, lane, domain, due, possible_duplicate),
    )?;
    Ok(())
}

/// Whether any recipient that failed (on `lane`; `None`: on any lane) may have been delivered after all.
pub(super) fn has_failed_in_doubt(sql: &Sql<'_>, message: i64, lane: Option<&str>) -> rusqlite::Result<bool> {
    // A recipient's last attempt is found by its text.
    let in_doubt = sql.first(
        "SELECT 1 FROM recipient JOIN attempt ON attempt.message = recipient.message
         WHERE recipient.message = ?1 AND recipient.failed_at IS NOT NULL AND (?2 IS NULL OR recipient.lane = ?2)
         AND attempt.possible_duplicate AND attempt.text = recipient.reason AND attempt.upstream IS recipient.upstream
         LIMIT 1",
        (message, lane),
        |_| Ok(()),
    )?;
    Ok(in_doubt.is_some())
}

pub(super) fn note_attempts(work: &Work<'_>, message: i64, attempts: &[&Attempted]) -> rusqlite::Result<()> {
    let mut distinct: Vec<&Attempted> = Vec::new();
    for attempt in attempts {
        if distinct.len() < MAX_ATTEMPTS && !distinct.contains(attempt) {
            distinct.push(attempt);
        }
    }
    if distinct.is_empty() || !work.keeps_records() {
        return Ok(());
    }
    let last: i64 = work
        .first("SELECT MAX(number) FROM attempt WHERE message = ?1", [message], |row| row.get::<_, Option<i64>>(0))?
        .flatten()
        .unwrap_or(0);
    for (number, attempt) in (last + 1..).zip(&distinct) {
        work.execute(
            "INSERT INTO attempt (message, number, at, upstream, text, possible_duplicate) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            (
                message,
                number,
                to_column(attempt.at),
                attempt.upstream.as_deref(),
                &attempt.text,
                attempt.possible_duplicate,
            ),
        )?;
    }
    let oldest = last + signed(distinct.len()) - signed(MAX_ATTEMPTS);
    if oldest > 0 {
        work.execute("DELETE FROM attempt WHERE message = ?1 AND number <= ?2", (message, oldest))?;
    }
    Ok(())
}

/// The part of a message that history keeps.
pub(super) struct Summary {
    pub id: String,
    pub received_at: i64,
    pub sender: Option<String>,
    pub subject: String,
    pub size: i64,
    pub message_id: Option<String>,
}

impl Summary {
    /// `recipients`: those that have it, as JSON. `lived`: when, by the queue's own clock.
    pub(super) fn insert(
        &self,
        work: &Work<'_>,
        recipients: &str,
        delivery: &Delivered,
        lived: i64,
    ) -> rusqlite::Result<()> {
        work.execute(
            "INSERT INTO history (id, received_at, sender, recipients, subject, size, at, upstream, reply, milliseconds, lived,
             message_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            (
                &self.id,
                self.received_at,
                &self.sender,
                recipients,
                &self.subject,
                self.size,
                to_column(delivery.at),
                &delivery.upstream,
                &delivery.reply,
                signed(delivery.milliseconds),
                lived,
                &self.message_id,
            ),
        )?;
        Ok(())
    }
}

/// Writes one row for each distinct reply.
pub(super) fn note_delivered(
    work: &Work<'_>,
    summary: &Summary,
    delivered: &[(&Delivered, String)],
    lived: i64,
) -> rusqlite::Result<()> {
    if !work.keeps_records() {
        return Ok(());
    }
    let mut groups: Vec<(&Delivered, Vec<&str>)> = Vec::new();
    for (delivery, recipient) in delivered {
        match groups.last_mut() {
            Some((known, recipients)) if known == delivery => recipients.push(recipient),
            _ => groups.push((delivery, vec![recipient])),
        }
    }
    for (delivery, recipients) in groups {
        let recipients = serde_json::to_string(&recipients).unwrap_or_default();
        summary.insert(work, &recipients, delivery, lived)?;
    }
    Ok(())
}

/// Called after `gone` recipients were deleted: a message without recipients is deleted. Returns the files that are
/// litter once this is committed; `None`: the message stays.
pub(super) fn forget_if_empty(work: &Work<'_>, message: i64, gone: i64) -> rusqlite::Result<Option<Vec<BodyName>>> {
    let any = work.first("SELECT 1 FROM recipient WHERE message = ?1 LIMIT 1", [message], |_| Ok(()))?;
    if any.is_some() {
        if gone > 0 {
            work.execute("UPDATE message SET recipients = recipients - ?2 WHERE key = ?1", (message, gone))?;
        }
        return Ok(None);
    }
    let in_file = |row: &rusqlite::Row<'_>| row.get::<_, bool>(0);
    let body = work.first("DELETE FROM content WHERE message = ?1 RETURNING body IS NULL", [message], in_file)?;
    let original = work.first("DELETE FROM original WHERE message = ?1 RETURNING data IS NULL", [message], in_file)?;
    work.execute("DELETE FROM attempt WHERE message = ?1", [message])?;
    let id: Option<String> =
        work.first("DELETE FROM message WHERE key = ?1 RETURNING id", [message], |row| row.get(0))?;
    let Some(id) = id.and_then(|id| id.parse::<MailId>().ok()) else { return Ok(Some(Vec::new())) };
    let parts = [(body, BodyFile::Body), (original, BodyFile::Original)];
    Ok(Some(parts.into_iter().filter(|(in_file, _)| *in_file == Some(true)).map(|(_, part)| (id, part)).collect()))
}
