//! Usage of quotas: a few rows for each, written before the units are used. Old rows are deleted.

use super::failure::Failure;
use super::rows::{from_lived, lived_to_column, unsigned};
use super::work::{Sql, Work};
use crate::queue::QuotaRow;

pub(super) fn spent(sql: &Sql<'_>, quota: &str) -> Result<Vec<QuotaRow>, Failure> {
    let rows = sql.all("SELECT number, at, units FROM quota WHERE name = ?1 ORDER BY number", [quota], |row| {
        Ok(QuotaRow { number: row.get(0)?, at: from_lived(row.get(1)?), units: unsigned(row.get(2)?) })
    })?;
    Ok(rows)
}

pub(super) fn spend(work: &Work<'_>, quota: &str, rows: &[QuotaRow], oldest: i64) -> Result<(), Failure> {
    for QuotaRow { number, at, units } in rows {
        let units = i64::try_from(*units).unwrap_or(i64::MAX);
        work.execute(
            "INSERT INTO quota (name, number, at, units) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (name, number) DO UPDATE SET at = excluded.at, units = excluded.units",
            (quota, number, lived_to_column(*at), units),
        )?;
    }
    work.execute("DELETE FROM quota WHERE name = ?1 AND number < ?2", (quota, oldest))?;
    Ok(())
}
