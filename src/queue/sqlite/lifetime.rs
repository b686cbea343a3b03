//! How the queue stores its own clock: one row, written every few seconds together with puts and settlements.

use super::failure::Failure;
use super::rows::{from_column, from_lived, lived_to_column, signed, to_column, unsigned};
use super::work::{Sql, Work};
use crate::observe::clock::Boot;
use crate::queue::lifetime::Record;
use std::time::Duration;

pub(super) fn kept(sql: &Sql<'_>) -> rusqlite::Result<Record> {
    let found = sql.first("SELECT lived, at, latest, boot, uptime FROM lifetime WHERE one = 1", [], |row| {
        let time = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(from_column));
        let uptime = row.get::<_, Option<i64>>(4)?.map(|uptime| Duration::from_millis(unsigned(uptime)));
        let boot = row.get::<_, Option<String>>(3)?.zip(uptime).map(|(id, uptime)| Boot { id, uptime });
        Ok(Record { lived: from_lived(row.get(0)?), at: time(1)?, latest: time(2)?, boot })
    })?;
    Ok(found.unwrap_or_default())
}

pub(super) fn keep(work: &Work<'_>, record: Option<&Record>) -> Result<(), Failure> {
    let Some(Record { lived, at, latest, boot }) = record else { return Ok(()) };
    work.execute(
        "UPDATE lifetime SET lived = ?1, at = ?2, latest = ?3, boot = ?4, uptime = ?5 WHERE one = 1",
        (
            lived_to_column(*lived),
            at.map(to_column),
            latest.map(to_column),
            boot.as_ref().map(|boot| &boot.id),
            boot.as_ref().map(|boot| signed(boot.uptime.as_millis())),
        ),
    )?;
    Ok(())
}
