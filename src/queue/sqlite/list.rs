//! Pages of a list. A page costs as much as it examines, which is bounded: rare states have an index of their own, and
//! everything else is examined message by message up to a limit, where the page ends with a cursor to continue from.

use super::failure::{Failure, is_damage};
use super::read::{recipients, row};
use super::rows::{DAMAGED, LEASED, from_column, signed};
use super::schema::MESSAGE_ID_GROUP;
use super::work::Sql;
use crate::queue::operator::without_brackets;
use crate::queue::{Cursor, Filter, Page, RecipientRow, RecipientState, Row, Suspension};

/// Maximum number of messages examined in full for one page.
const MAX_LOOKS: usize = 1000;

/// Maximum number of rows that one search for candidates examines: a small fraction of a second's work.
const MAX_ROWS: i64 = 50_000;

/// Maximum number of groups of the Message-IDs' index that one search looks into: one for each 1,024 messages.
const MAX_GROUPS: usize = 2_000;

pub(super) fn list(sql: &Sql<'_>, filter: &Filter, after: Option<Cursor>, limit: usize) -> Result<Page, Failure> {
    let mut at = after.map_or(i64::MIN, |cursor| cursor.0);
    let limit = limit.max(1);
    let mut rows = Vec::new();
    let mut looks = 0;
    loop {
        // One more than the page needs, to know whether it is the last.
        let wanted = limit - rows.len() + 1;
        let Candidates { messages, next } = candidates(sql, filter, at, wanted)?;
        let is_searched = messages.len() < wanted;
        for message in messages {
            if rows.len() == limit || looks == MAX_LOOKS {
                return Ok(Page { rows, next: Some(Cursor(at)) });
            }
            (at, looks) = (message, looks + 1);
            match wanted_row(sql, filter, message) {
                Ok(wanted) => rows.extend(wanted),
                Err(Failure::Sqlite(error)) if is_damage(&error) => {
                    tracing::error!(row = message, %error, "a message in the queue is too damaged to be listed");
                }
                Err(failure) => return Err(failure),
            }
        }
        if is_searched {
            return Ok(Page { rows, next: next.map(Cursor) });
        }
    }
}

struct Candidates {
    messages: Vec<i64>,
    /// Fewer than requested were found, and the search stopped here before its end.
    next: Option<i64>,
}

impl Candidates {
    fn all(messages: Vec<i64>) -> Self {
        Self { messages, next: None }
    }
}

fn candidates(sql: &Sql<'_>, filter: &Filter, after: i64, limit: usize) -> Result<Candidates, Failure> {
    let by_recipient = filter.recipient.is_some() || filter.upstream.is_some();
    let wanted = signed(limit);
    if let Some(message_id) = &filter.message_id {
        return by_message_id(sql, message_id, after, limit);
    }
    let messages = match filter.state {
        None | Some(RecipientState::Waiting | RecipientState::Held | RecipientState::Failed) if by_recipient => {
            return among_recipients(sql, filter, after, limit);
        }
        None | Some(RecipientState::Waiting | RecipientState::Held) if filter.received_before.is_some() => {
            return by_age(sql, filter, after, limit);
        }
        None => {
            sql.all("SELECT key FROM message WHERE key > ?1 ORDER BY key LIMIT ?2", (after, wanted), |row| row.get(0))
        }
        Some(RecipientState::Waiting | RecipientState::Held) => return among_recipients(sql, filter, after, limit),
        Some(RecipientState::Failed) => sql.all(
            "SELECT DISTINCT message FROM recipient INDEXED BY recipient_failed
             WHERE failed_at IS NOT NULL AND message > ?1 ORDER BY message LIMIT ?2",
            (after, wanted),
            |row| row.get(0),
        ),
        Some(apart @ (RecipientState::Leased | RecipientState::Damaged)) => sql.all(
            "SELECT DISTINCT message FROM job INDEXED BY job_apart
             WHERE state > 0 AND state = ?1 AND message > ?2 ORDER BY message LIMIT ?3",
            (if apart == RecipientState::Leased { LEASED } else { DAMAGED }, after, wanted),
            |row| row.get(0),
        ),
    };
    Ok(Candidates::all(messages?))
}

/// Messages with a recipient that may match, found by one scan of this table alone.
fn among_recipients(sql: &Sql<'_>, filter: &Filter, after: i64, limit: usize) -> Result<Candidates, Failure> {
    let part = filter.recipient.as_deref().map(str::to_lowercase);
    let name = filter.upstream.as_deref();
    let mut statement = sql.prepare(
        "SELECT message, failed_at IS NOT NULL, address, lane, upstream FROM recipient WHERE message > ?1
         ORDER BY message LIMIT ?2",
    )?;
    let mut rows = statement.query((after, MAX_ROWS))?;
    let (mut messages, mut last, mut seen): (Vec<i64>, _, _) = (Vec::new(), after, 0);
    while let Some(row) = rows.next()? {
        (last, seen) = (row.get(0)?, seen + 1);
        if messages.last() == Some(&last) {
            continue;
        }
        let is_failed: bool = row.get(1)?;
        let may_match = filter.state.is_none_or(|state| is_failed == (state == RecipientState::Failed))
            // A value that is not text is damaged; the full check reports it.
            && part.as_ref().is_none_or(|part| {
                row.get_ref(2).is_ok_and(|text| text.as_str().is_ok_and(|text| text.to_lowercase().contains(part)))
            })
            && name.is_none_or(|name| [3, 4].iter().any(|column| {
                row.get_ref(*column).is_ok_and(|text| text.as_str().is_ok_and(|text| Suspension::split(text).1 == name))
            }));
        if may_match {
            messages.push(last);
            if messages.len() == limit {
                return Ok(Candidates::all(messages));
            }
        }
    }
    // The last message may have more recipients than were seen.
    let next = (seen == MAX_ROWS).then(|| (last - 1).max(messages.last().copied().unwrap_or(i64::MIN)));
    let next = next.map(|next| if next <= after { last } else { next });
    Ok(Candidates { messages, next })
}

/// In whichever form it was written.
fn by_message_id(sql: &Sql<'_>, message_id: &str, after: i64, limit: usize) -> Result<Candidates, Failure> {
    let plain = without_brackets(message_id);
    let bracketed = format!("<{plain}>");
    let (mut messages, mut last) = (Vec::new(), after);
    for _ in 0..MAX_GROUPS {
        let following = "SELECT key FROM message WHERE key > ?1 ORDER BY key LIMIT 1";
        let Some(next) = sql.first(following, [last], |row| row.get::<_, i64>(0))? else {
            return Ok(Candidates::all(messages));
        };
        let group = next.div_euclid(MESSAGE_ID_GROUP);
        let before = messages.len();
        for form in [plain, &bracketed] {
            messages.extend(sql.all(
                "SELECT key FROM message INDEXED BY message_by_message_id
                 WHERE message_id IS NOT NULL AND key >> 10 = ?1 AND message_id = ?2 AND key > ?3",
                (group, form, after),
                |row| row.get::<_, i64>(0),
            )?);
        }
        messages[before..].sort_unstable();
        if messages.len() >= limit {
            messages.truncate(limit);
            return Ok(Candidates::all(messages));
        }
        last = group * MESSAGE_ID_GROUP + (MESSAGE_ID_GROUP - 1);
    }
    Ok(Candidates { messages, next: Some(last) })
}

fn by_age(sql: &Sql<'_>, filter: &Filter, after: i64, limit: usize) -> Result<Candidates, Failure> {
    let mut statement = sql.prepare("SELECT key, received_at FROM message WHERE key > ?1 ORDER BY key LIMIT ?2")?;
    let mut rows = statement.query((after, MAX_ROWS))?;
    let mut messages = Vec::new();
    let mut last = after;
    let mut seen = 0;
    while let Some(row) = rows.next()? {
        (last, seen) = (row.get(0)?, seen + 1);
        if filter.received_before.is_none_or(|before| row.get(1).is_ok_and(|at| from_column(at) < before)) {
            messages.push(last);
            if messages.len() == limit {
                return Ok(Candidates::all(messages));
            }
        }
    }
    Ok(Candidates { messages, next: (seen == MAX_ROWS).then_some(last) })
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
