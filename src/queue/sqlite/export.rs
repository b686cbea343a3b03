//! `waxseal queue export` of a database: one snapshot of it, read beside a running gateway or without one. Changes nothing.

use super::bodies::Bodies;
use super::inspect::Inspector;
use super::open::DATABASE;
use super::rows::{from_column, lived_to_column, unsigned};
use super::transfer::{portable_key, portable_of};
use super::work::Sql;
use super::{deduplication, lifetime, read, schema};
use crate::message::MailId;
use crate::observe::Clock;
use crate::queue::export_file::{ExportError, ExportItem};
use crate::queue::lifetime::Lifetime;
use crate::queue::portable::{PortableHistory, milliseconds};
use crate::queue::schedule::Schedule;
use crate::queue::{Delivered, QueueError};
use rusqlite::Connection;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Rows that are read in one step.
const STEP: i64 = 500;

/// Blocks. Calls `each` with everything that is to be kept, in the order in which it is to be imported. `all`: learns the number
/// of messages first.
pub(crate) fn export(
    data_dir: &Path,
    all: impl FnOnce(u64),
    each: &mut dyn FnMut(ExportItem) -> io::Result<()>,
) -> Result<(), ExportError> {
    let path = data_dir.join(DATABASE);
    // Opening it for SQLite would not say why it cannot be read.
    std::fs::File::open(&path).map_err(|error| ExportError::Unreadable(error.to_string()))?;
    let connection = schema::open_reader(&path).map_err(unreadable)?;
    connection.execute_batch("BEGIN").map_err(unreadable)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(unreadable)?;
    if usize::try_from(version) != Ok(schema::current_version()) {
        return Err(ExportError::Unreadable(format!(
            "its schema has version {version}, and this program writes version {}: start the gateway with this program once",
            schema::current_version()
        )));
    }
    Snapshot { connection: &connection, path: &path, bodies: Bodies::in_folder(data_dir) }.export(all, each)
}

fn unreadable(error: rusqlite::Error) -> ExportError {
    ExportError::Unreadable(error.to_string())
}

fn of_queue(error: impl Into<QueueError>) -> ExportError {
    ExportError::Queue(error.into())
}

struct Snapshot<'a> {
    connection: &'a Connection,
    path: &'a Path,
    bodies: Bodies,
}

impl Snapshot<'_> {
    fn export(
        &self,
        all: impl FnOnce(u64),
        each: &mut dyn FnMut(ExportItem) -> io::Result<()>,
    ) -> Result<(), ExportError> {
        let sql = &Sql::new(self.connection);
        let record = lifetime::kept(sql).map_err(unreadable)?;
        // A running gateway stores its clock every few seconds; the time since then has passed for it, too.
        let lived = Lifetime::resume(&record, Clock::System, Schedule::default().expire).now();
        let lived = lived_to_column(lived);
        let count = self.connection.query_row("SELECT COUNT(*) FROM message", [], |row| row.get::<_, i64>(0));
        all(unsigned(count.map_err(unreadable)?));
        let holds = read::holds(sql).map_err(of_queue)?;
        if !holds.is_empty() {
            each(ExportItem::Holds(holds))?;
        }
        self.history(sql, lived, each)?;
        self.keys(sql, lived, each)?;
        self.messages(sql, lived, each)
    }

    fn history(
        &self,
        sql: &Sql<'_>,
        lived: i64,
        each: &mut dyn FnMut(ExportItem) -> io::Result<()>,
    ) -> Result<(), ExportError> {
        let mut after = i64::MIN;
        loop {
            let rows = sql.all(
                "SELECT key, id, received_at, sender, recipients, subject, size, message_id, at, upstream, reply, milliseconds,
                 lived FROM history WHERE key > ?1 ORDER BY key LIMIT ?2",
                (after, STEP),
                |row| Ok((row.get::<_, i64>(0)?, history_of(row, lived)?)),
            );
            let rows = rows.map_err(unreadable)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            after = *last;
            // An unreadable row is nothing that could be imported.
            rows.into_iter().filter_map(|(_, row)| row).try_for_each(|row| each(ExportItem::History(row)))?;
        }
    }

    fn keys(
        &self,
        sql: &Sql<'_>,
        lived: i64,
        each: &mut dyn FnMut(ExportItem) -> io::Result<()>,
    ) -> Result<(), ExportError> {
        let mut after = Vec::new();
        loop {
            let rows = deduplication::after(sql, &after, lived, STEP).map_err(unreadable)?;
            let Some((last, ..)) = rows.last() else { return Ok(()) };
            after.clone_from(last);
            for (key, id, until) in rows {
                let known = key.as_slice().try_into().ok().zip(id.parse::<MailId>().ok());
                let known = known.and_then(|(key, id)| portable_key(key, id, until, lived));
                known.map_or(Ok(()), |known| each(ExportItem::Key(known)))?;
            }
        }
    }

    fn messages(
        &self,
        sql: &Sql<'_>,
        lived: i64,
        each: &mut dyn FnMut(ExportItem) -> io::Result<()>,
    ) -> Result<(), ExportError> {
        let inspector = Inspector { connection: self.connection, bodies: &self.bodies, covered: true };
        let mut after = i64::MIN;
        loop {
            let keys =
                sql.all("SELECT key, id FROM message WHERE key > ?1 ORDER BY key LIMIT ?2", (after, STEP), |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
                });
            let keys = keys.map_err(unreadable)?;
            let Some((last, _)) = keys.last() else { return Ok(()) };
            after = *last;
            for (key, id) in keys {
                each(match portable_of(inspector.inspect(key), &self.bodies, lived) {
                    Ok(mail) => ExportItem::Mail(Box::new(mail)),
                    Err(_) if self.has_ended(key).map_err(unreadable)? => ExportItem::Ended,
                    Err(reason) => ExportItem::Damaged { id, reason },
                })?;
            }
        }
    }

    /// Whether a message of the snapshot is not in the queue any more, so that its files are gone.
    fn has_ended(&self, key: i64) -> rusqlite::Result<bool> {
        let now = schema::open_reader(self.path)?;
        let found = Sql::new(&now).first("SELECT 1 FROM message WHERE key = ?1", [key], |_| Ok(()))?;
        Ok(found.is_none())
    }
}

fn history_of(row: &rusqlite::Row<'_>, lived: i64) -> rusqlite::Result<Option<PortableHistory>> {
    let (id, recipients) = (row.get::<_, String>(1)?, row.get::<_, String>(4)?);
    let (Ok(id), Ok(recipients)) = (id.parse(), serde_json::from_str(&recipients)) else { return Ok(None) };
    Ok(Some(PortableHistory {
        id,
        received_at: from_column(row.get(2)?),
        sender: row.get(3)?,
        recipients,
        subject: row.get(5)?,
        size: unsigned(row.get(6)?),
        message_id: row.get(7)?,
        delivery: Delivered {
            at: from_column(row.get(8)?),
            upstream: row.get(9)?,
            reply: row.get(10)?,
            milliseconds: unsigned(row.get(11)?),
        },
        ago: milliseconds(Duration::from_millis(unsigned(lived.saturating_sub(row.get(12)?)))),
    }))
}
