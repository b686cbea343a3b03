//! What stored messages are remembered by: a row for each, written with the message and forgotten after its window.

use super::failure::Failure;
use super::rows::{lived_to_column, signed};
use super::work::{Sql, Work};
use crate::message::MailId;
use crate::queue::{Deduplication, IdempotencyKey, QueueError};

/// Rows that one message may remove at most, so that none waits for what a storm has left.
const FORGOTTEN_AT_ONCE: usize = 100;

/// `lived`: milliseconds of the queue's own clock.
pub(super) fn stored_under(sql: &Sql<'_>, key: IdempotencyKey, lived: i64) -> Result<Option<MailId>, Failure> {
    let found: Option<String> =
        sql.first("SELECT id FROM deduplication WHERE key = ?1 AND until > ?2", (key.0, lived), |row| row.get(0))?;
    let named = found.map(|id| id.parse::<MailId>());
    Ok(named.transpose().map_err(|error| QueueError::Storage(error.to_string()))?)
}

/// A key, the id of its message, and until when it is known.
pub(super) type KeyRow = (Vec<u8>, String, i64);

/// Those whose time is not over, in their order.
pub(super) fn after(sql: &Sql<'_>, after: &[u8], lived: i64, most: i64) -> rusqlite::Result<Vec<KeyRow>> {
    sql.all(
        "SELECT key, id, until FROM deduplication WHERE key > ?1 AND until > ?2 ORDER BY key LIMIT ?3",
        (after, lived, most),
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )
}

pub(super) fn remember(
    work: &Work<'_>,
    id: MailId,
    Deduplication { key, window }: &Deduplication,
    lived: i64,
) -> Result<(), Failure> {
    forget_expired(work, lived, FORGOTTEN_AT_ONCE)?;
    let until = lived.saturating_add(lived_to_column(*window));
    work.execute(
        "INSERT INTO deduplication (key, id, until) VALUES (?1, ?2, ?3)
         ON CONFLICT (key) DO UPDATE SET id = excluded.id, until = excluded.until",
        (key.0, id.as_str(), until),
    )?;
    Ok(())
}

/// At most so many rows; how many it were.
pub(super) fn forget_expired(work: &Work<'_>, lived: i64, rows: usize) -> rusqlite::Result<u64> {
    let forgotten = work.execute(
        "DELETE FROM deduplication WHERE key IN (SELECT key FROM deduplication WHERE until <= ?1 ORDER BY until LIMIT ?2)",
        (lived, signed(rows)),
    )?;
    Ok(forgotten as u64)
}

/// Of a message that is taken back: the client was told that it is not stored, and hands it in again.
pub(super) fn forget(work: &Work<'_>, id: MailId, key: IdempotencyKey) -> rusqlite::Result<()> {
    work.execute("DELETE FROM deduplication WHERE key = ?1 AND id = ?2", (key.0, id.as_str())).map(drop)
}
