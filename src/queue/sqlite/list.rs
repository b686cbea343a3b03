//! Pages of a list. A page costs what it looks at, and that is bounded: states that are rare have an index of their own, anything
//! else is judged message by message, up to a limit, after which the page ends and names the place to go on.

use super::failure::{Failure, is_damage};
use super::read::{recipients, row};
use super::rows::{DAMAGED, LEASED, from_column, signed};
use super::work::Sql;
use crate::queue::{Cursor, Filter, Page, RecipientRow, Row, State};

/// Messages looked at for one page.
const MAX_LOOKS: usize = 1000;

pub(super) fn list(sql: &Sql<'_>, filter: &Filter, after: Option<Cursor>, limit: usize) -> Result<Page, Failure> {
    let mut at = after.map_or(i64::MIN, |cursor| cursor.0);
    let limit = limit.max(1);
    let mut rows = Vec::new();
    let mut looks = 0;
    loop {
        // One more than the page takes, to know whether it was the last one.
        let wanted = limit - rows.len() + 1;
        let candidates = candidates(sql, filter.state, at, wanted)?;
        for message in &candidates {
            if rows.len() == limit || looks == MAX_LOOKS {
                return Ok(Page { rows, next: Some(Cursor(at)) });
            }
            (at, looks) = (*message, looks + 1);
            match wanted_row(sql, filter, *message) {
                Ok(wanted) => rows.extend(wanted),
                Err(Failure::Sqlite(error)) if is_damage(&error) => {
                    tracing::error!(row = message, %error, "a message in the queue is too damaged to be listed");
                }
                Err(failure) => return Err(failure),
            }
        }
        if candidates.len() < wanted {
            return Ok(Page { rows, next: None });
        }
    }
}

fn candidates(sql: &Sql<'_>, state: Option<State>, after: i64, limit: usize) -> rusqlite::Result<Vec<i64>> {
    let limit = signed(limit);
    match state {
        None | Some(State::Waiting) => {
            sql.all("SELECT key FROM message WHERE key > ?1 ORDER BY key LIMIT ?2", (after, limit), |row| row.get(0))
        }
        Some(State::Failed) => sql.all(
            "SELECT DISTINCT message FROM recipient INDEXED BY recipient_failed
             WHERE failed_at IS NOT NULL AND message > ?1 ORDER BY message LIMIT ?2",
            (after, limit),
            |row| row.get(0),
        ),
        Some(apart @ (State::Leased | State::Damaged)) => sql.all(
            "SELECT DISTINCT message FROM job INDEXED BY job_apart
             WHERE state > 0 AND state = ?1 AND message > ?2 ORDER BY message LIMIT ?3",
            (if apart == State::Leased { LEASED } else { DAMAGED }, after, limit),
            |row| row.get(0),
        ),
    }
}

fn wanted_row(sql: &Sql<'_>, filter: &Filter, message: i64) -> Result<Option<Row>, Failure> {
    if is_wanted(sql, filter, message)? { row(sql, message) } else { Ok(None) }
}

fn is_wanted(sql: &Sql<'_>, filter: &Filter, message: i64) -> Result<bool, Failure> {
    if let Some(before) = filter.received_before {
        let received_at: Option<i64> =
            sql.first("SELECT received_at FROM message WHERE key = ?1", [message], |row| row.get(0))?;
        if received_at.is_none_or(|received_at| from_column(received_at) >= before) {
            return Ok(false);
        }
    }
    if filter.state.is_none() && filter.recipient.is_none() && filter.upstream.is_none() {
        return Ok(true);
    }
    let part = filter.recipient.as_deref().map(str::to_lowercase);
    let wanted = |(recipient, upstream): &(RecipientRow, Option<String>)| {
        filter.state.is_none_or(|state| recipient.state == state)
            && part.as_ref().is_none_or(|part| recipient.address.to_lowercase().contains(part))
            && filter.upstream.as_ref().is_none_or(|name| recipient.lane == *name || upstream.as_ref() == Some(name))
    };
    Ok(recipients(sql, message)?.iter().any(wanted))
}
