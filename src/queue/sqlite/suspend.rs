//! Mail that is suspended when it is stored: delayed mail comes onto its lane when it is due, held mail when an operator
//! releases it.

use super::failure::{Failure, is_damage};
use super::reassign::move_recipients;
use super::rows::{key_of, signed};
use super::work::{Sql, Work};
use crate::message::MailId;
use crate::queue::Suspension;

/// Puts the delayed mail of a lane that is due onto the lane; at most so many messages. `now`: milliseconds since 1970.
pub(super) fn release_due(work: &Work<'_>, lane: &str, now: i64, limit: usize) -> Result<(), Failure> {
    let delayed = Suspension::Delayed.of(lane);
    let due = work.all(
        "SELECT message FROM job INDEXED BY job_due WHERE state = 0 AND lane = ?1 AND due <= ?2 ORDER BY due LIMIT ?3",
        (delayed.as_str(), now, signed(limit)),
        |row| row.get::<_, i64>(0),
    )?;
    for message in due {
        let moved = work.attempt(|work| Ok(resume(work, message, |it| it == Suspension::Delayed)?));
        match moved {
            Ok(_) => {}
            // It is set aside when its lane is read.
            Err(Failure::Sqlite(error)) if is_damage(&error) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

/// When the first delayed mail of a lane is due, in milliseconds since 1970.
pub(super) fn first_delayed(sql: &Sql<'_>, lane: &str) -> rusqlite::Result<Option<i64>> {
    sql.first(
        "SELECT due FROM job INDEXED BY job_due WHERE state = 0 AND lane = ?1 ORDER BY due LIMIT 1",
        [Suspension::Delayed.of(lane).as_str()],
        |row| row.get(0),
    )
}

/// An operator releases held recipients. They are due now, and their age begins at `lived`.
pub(super) fn release(work: &Work<'_>, ids: &[MailId], lived: i64) -> Result<u64, Failure> {
    let mut count = 0;
    for id in ids {
        let Some(message) = key_of(work, *id)? else { continue };
        let released = work.attempt(|work| {
            let released = resume(work, message, |it| it == Suspension::Held)?;
            if released > 0 {
                work.execute("UPDATE message SET since = MAX(since, ?2) WHERE key = ?1", (message, lived))?;
            }
            Ok(released)
        });
        match released {
            Ok(released) => count += released,
            Err(Failure::Sqlite(error)) if is_damage(&error) => {
                tracing::error!(%id, %error, "a message in the queue is too damaged to be released");
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(count)
}

/// Puts a message's suspended recipients onto the lanes that they are for. Returns how many.
pub(super) fn resume(work: &Work<'_>, message: i64, which: impl Fn(Suspension) -> bool) -> rusqlite::Result<u64> {
    let id: Option<String> = work.first("SELECT id FROM message WHERE key = ?1", [message], |row| row.get(0))?;
    let Some(id) = id else { return Ok(0) };
    let moved = move_recipients(work, message, &id, |recipient| match Suspension::split(&recipient.lane) {
        (Some(suspension), lane) if which(suspension) => lane.to_owned(),
        _ => recipient.lane.clone(),
    })?;
    if moved > 0 {
        // It said why the recipient was suspended.
        work.execute(
            "UPDATE recipient SET reason = NULL WHERE message = ?1 AND attempts = 0 AND failed_at IS NULL",
            [message],
        )?;
    }
    Ok(moved)
}
