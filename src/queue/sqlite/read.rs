//! Reads committed data beside the writer: one message in full, history, due times, holds.

use super::failure::{Failure, is_damage};
use super::rows::{LEASED, WAITING, from_column, is_held, key_of, to_column, unsigned};
use super::suspend;
use super::work::Sql;
use crate::message::MailId;
use crate::queue::{
    Attempted, Cursor, Delivered, HeldLane, HistoryRow, MessageDetails, RecipientRow, RecipientState, Row, Statistics,
    Suspension,
};
use jiff::Timestamp;

pub(super) fn next_due(sql: &Sql<'_>, lane: &str, now: Timestamp, horizon: i64) -> Result<Option<Timestamp>, Failure> {
    if is_held(sql, lane)? {
        return Ok(None);
    }
    let delayed = suspend::first_delayed(sql, lane)?.map(from_column);
    Ok([on_lane(sql, lane, now, horizon)?, delayed].into_iter().flatten().min())
}

/// Without delayed mail, of which no due time lies too far ahead.
fn on_lane(sql: &Sql<'_>, lane: &str, now: Timestamp, horizon: i64) -> Result<Option<Timestamp>, Failure> {
    let first: Option<i64> = sql.first(
        "SELECT due FROM job INDEXED BY job_due WHERE state = 0 AND lane = ?1 ORDER BY due LIMIT 1",
        [lane],
        |row| row.get(0),
    )?;
    let Some(first) = first else { return Ok(None) };
    if first <= to_column(now) {
        return Ok(Some(from_column(first)));
    }
    let last: Option<i64> = sql.first(
        "SELECT due FROM job INDEXED BY job_due WHERE state = 0 AND lane = ?1 ORDER BY due DESC LIMIT 1",
        [lane],
        |row| row.get(0),
    )?;
    let is_behind = last.is_some_and(|last| last > horizon);
    Ok(Some(if is_behind { now } else { from_column(first) }))
}

pub(super) fn holds(sql: &Sql<'_>) -> Result<Vec<HeldLane>, Failure> {
    let all = sql.first("SELECT held_all FROM ledger WHERE one = 1", [], |row| row.get(0))?.unwrap_or(false);
    let named = sql.all("SELECT lane, held FROM hold ORDER BY lane", [], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?))
    })?;
    let (held, released): (Vec<_>, Vec<_>) = named.into_iter().partition(|(_, held)| *held);
    let names = |lanes: Vec<(String, bool)>| lanes.into_iter().map(|(lane, _)| lane);
    if all {
        return Ok(vec![HeldLane { lane: None, except: names(released).collect() }]);
    }
    Ok(names(held).map(|lane| HeldLane { lane: Some(lane), except: Vec::new() }).collect())
}

pub(super) fn statistics(sql: &Sql<'_>) -> Result<Statistics, Failure> {
    let found = sql.first("SELECT waiting, leased, failed, damaged FROM ledger WHERE one = 1", [], |row| {
        let count = |column| row.get(column).map(unsigned);
        Ok(Statistics { waiting: count(0)?, leased: count(1)?, failed: count(2)?, damaged: count(3)? })
    })?;
    Ok(found.unwrap_or_default())
}

pub(super) fn count_waiting(sql: &Sql<'_>, lane: &str, after: Option<Timestamp>, most: u64) -> Result<u64, Failure> {
    let found: Vec<()> = sql.all(
        "SELECT 1 FROM job INDEXED BY job_due WHERE state = 0 AND lane = ?1 AND due > ?2 LIMIT ?3",
        (lane, after.map_or(i64::MIN, to_column), i64::try_from(most).unwrap_or(i64::MAX)),
        |_| Ok(()),
    )?;
    Ok(found.len() as u64)
}

pub(super) fn row(sql: &Sql<'_>, message: i64) -> Result<Option<Row>, Failure> {
    let found = sql.first(
        "SELECT id, received_at, sender, subject, size, message_id FROM message WHERE key = ?1",
        [message],
        |row| {
            Ok(Row {
                id: row.get(0)?,
                received_at: from_column(row.get(1)?),
                sender: row.get::<_, Option<String>>(2)?.unwrap_or_default(),
                subject: row.get(3)?,
                size: unsigned(row.get(4)?),
                message_id: row.get(5)?,
                recipients: Vec::new(),
                is_spooled: false,
            })
        },
    )?;
    let Some(mut row) = found else { return Ok(None) };
    row.recipients = recipients(sql, message)?.into_iter().map(|(recipient, _)| recipient).collect();
    Ok(Some(row))
}

/// Each recipient with its last upstream.
pub(super) fn recipients(sql: &Sql<'_>, message: i64) -> rusqlite::Result<Vec<(RecipientRow, Option<String>)>> {
    sql.all(
        "SELECT address, recipient.lane, failed_at IS NOT NULL, attempts, reason, upstream, job.state, job.due
         FROM recipient LEFT JOIN job ON job.message = recipient.message AND job.lane = recipient.lane
         WHERE recipient.message = ?1 ORDER BY position",
        [message],
        |row| {
            let is_failed: bool = row.get(2)?;
            let name: String = row.get(1)?;
            let (suspension, lane) = Suspension::split(&name);
            let state = match row.get::<_, Option<i64>>(6)? {
                _ if is_failed => RecipientState::Failed,
                Some(WAITING) if suspension == Some(Suspension::Held) => RecipientState::Held,
                Some(WAITING) => RecipientState::Waiting,
                Some(LEASED) => RecipientState::Leased,
                _ => RecipientState::Damaged,
            };
            let due = row.get::<_, Option<i64>>(7)?.filter(|_| state == RecipientState::Waiting).map(from_column);
            let recipient = RecipientRow {
                address: row.get(0)?,
                state,
                lane: lane.to_owned(),
                attempts: u32::try_from(row.get::<_, i64>(3)?).unwrap_or(u32::MAX),
                due,
                reason: row.get(4)?,
                delayed: suspension == Some(Suspension::Delayed),
                instance: None,
            };
            Ok((recipient, row.get(5)?))
        },
    )
}

pub(super) fn show(sql: &Sql<'_>, id: MailId) -> Result<Option<MessageDetails>, Failure> {
    let delivered = delivered(sql, id)?;
    let Some(message) = key_of(sql, id)? else { return Ok(MessageDetails::of_history(delivered)) };
    let Some(row) = row(sql, message)? else { return Ok(None) };
    let header = sql.first("SELECT header FROM content WHERE message = ?1", [message], |row| row.get::<_, Vec<u8>>(0));
    let header = match header {
        Ok(header) => header.unwrap_or_default(),
        // Show whatever can still be read of a damaged message.
        Err(error) if is_damage(&error) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let attempts = sql.all(
        "SELECT at, upstream, text, possible_duplicate FROM attempt WHERE message = ?1 ORDER BY number",
        [message],
        |row| {
            Ok(Attempted {
                at: from_column(row.get(0)?),
                upstream: row.get(1)?,
                text: row.get(2)?,
                possible_duplicate: row.get(3)?,
            })
        },
    )?;
    let original = sql.first("SELECT 1 FROM original WHERE message = ?1", [message], |_| Ok(()))?;
    let header = String::from_utf8_lossy(&header).into_owned();
    let delivered = delivered.into_iter().map(|(row, _)| row).collect();
    Ok(Some(MessageDetails { row, header, attempts, delivered, has_original: original.is_some() }))
}

pub(super) fn history(sql: &Sql<'_>, before: Option<Cursor>, limit: i64) -> Result<Vec<HistoryRow>, Failure> {
    let before = before.map_or(i64::MAX, |cursor| cursor.0);
    Ok(sql.all(
        "SELECT key, id, received_at, sender, recipients, subject, at, upstream, reply, milliseconds, message_id
         FROM history WHERE key < ?1 ORDER BY key DESC LIMIT ?2",
        (before, limit),
        history_row,
    )?)
}

/// Oldest first, each with the message's size.
fn delivered(sql: &Sql<'_>, id: MailId) -> rusqlite::Result<Vec<(HistoryRow, u64)>> {
    sql.all(
        "SELECT key, id, received_at, sender, recipients, subject, at, upstream, reply, milliseconds, message_id, size
         FROM history WHERE id = ?1 ORDER BY key",
        [id.as_str()],
        |row| Ok((history_row(row)?, unsigned(row.get(11)?))),
    )
}

fn history_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<HistoryRow> {
    let recipients: String = row.get(4)?;
    Ok(HistoryRow {
        cursor: Cursor(row.get(0)?),
        id: row.get(1)?,
        received_at: from_column(row.get(2)?),
        sender: row.get::<_, Option<String>>(3)?.unwrap_or_default(),
        recipients: serde_json::from_str(&recipients).unwrap_or_default(),
        subject: row.get(5)?,
        message_id: row.get(10)?,
        delivery: Delivered {
            at: from_column(row.get(6)?),
            upstream: row.get(7)?,
            reply: row.get(8)?,
            milliseconds: unsigned(row.get(9)?),
        },
    })
}
