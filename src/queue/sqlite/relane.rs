//! Lanes anew after the routes changed, some hundred messages at a time so that no transaction is long.

use super::failure::Failure;
use super::rows::{LEASED, bad_text, marks_from_column, origin_from_columns, tally_of};
use super::work::Work;
use crate::message::Marks;
use crate::message::accepted::{Addressed, Origin};
use crate::queue::{Lane, LaneOf};
use crate::smtp::Mailbox;
use std::collections::{BTreeMap, BTreeSet};

/// Messages of one step.
const MESSAGES: i64 = 500;

/// The fingerprint of the routes that the lanes come from.
pub(super) fn fingerprint(work: &Work<'_>) -> Result<Option<String>, Failure> {
    Ok(work.first("SELECT routes FROM ledger WHERE one = 1", [], |row| row.get(0))?.flatten())
}

pub(super) fn set_fingerprint(work: &Work<'_>, fingerprint: &str) -> Result<(), Failure> {
    work.execute("UPDATE ledger SET routes = ?1 WHERE one = 1", [fingerprint])?;
    Ok(())
}

/// Some lane may be another one's than the routes say.
pub(super) fn forget_fingerprint(work: &Work<'_>) -> rusqlite::Result<()> {
    work.execute("UPDATE ledger SET routes = NULL WHERE one = 1", [])?;
    Ok(())
}

#[derive(Debug)]
pub(super) struct Step {
    pub moved: u64,
    /// `None`: there are no more messages.
    pub last: Option<i64>,
}

/// The messages behind `after`.
pub(super) fn step(work: &Work<'_>, after: i64, lane_of: &LaneOf) -> Result<Step, Failure> {
    let messages =
        work.all("SELECT key FROM message WHERE key > ?1 ORDER BY key LIMIT ?2", (after, MESSAGES), |row| row.get(0))?;
    let mut moved = 0;
    for message in &messages {
        moved += relane_one(work, *message, lane_of)?;
    }
    if moved > 0 {
        // Should it end half-way, no routes are those that all lanes come from, not even the old ones.
        forget_fingerprint(work)?;
    }
    Ok(Step { moved, last: messages.last().copied() })
}

/// How many recipients of one message were moved.
pub(super) fn relane_one(work: &Work<'_>, message: i64, lane_of: &LaneOf) -> rusqlite::Result<u64> {
    let waiting = work.first(
        "SELECT key, sender, listener, user, marks, header FROM message LEFT JOIN content ON content.message = key
         WHERE key = ?1",
        [message],
        // What cannot be read is set aside when it is leased.
        |row| Ok(read(row).ok()),
    )?;
    let Some(Waiting { sender, origin, marks, header }) = waiting.flatten() else { return Ok(0) };
    relane(work, message, |recipient| {
        lane_of(&Addressed { sender: sender.as_ref(), recipient, origin: &origin, marks: &marks, header: &header })
    })
}

/// A message's part in the question where its recipients go.
struct Waiting {
    sender: Option<Mailbox>,
    origin: Origin,
    marks: Marks,
    header: Vec<u8>,
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Waiting> {
    let sender = row.get::<_, Option<String>>(1)?;
    Ok(Waiting {
        sender: sender.map(|text| Mailbox::parse(&text).map_err(|error| bad_text(1, error))).transpose()?,
        origin: origin_from_columns(row, 2, 3)?,
        marks: marks_from_column(row, 4)?,
        header: row.get::<_, Option<Vec<u8>>>(5)?.unwrap_or_default(),
    })
}

struct Recipient {
    position: i64,
    from: String,
    to: String,
    is_open: bool,
}

/// A job that nobody holds.
struct Job {
    domain: String,
    due: i64,
    state: i64,
    suspect: bool,
}

fn relane(work: &Work<'_>, message: i64, lane_of: impl Fn(&Mailbox) -> Lane) -> rusqlite::Result<u64> {
    let (jobs, leased) = jobs_of(work, message)?;
    let mut recipients = recipients_of(work, message, lane_of)?;
    // What is lent stays where it is until it is settled.
    recipients.retain(|recipient| !(recipient.is_open && leased.contains(&recipient.from)));
    let moved = recipients.iter().filter(|recipient| recipient.from != recipient.to).count();
    if moved == 0 {
        return Ok(0);
    }
    for recipient in recipients.iter().filter(|recipient| recipient.from != recipient.to) {
        work.execute(
            "UPDATE recipient SET lane = ?3 WHERE message = ?1 AND position = ?2",
            (message, recipient.position, &recipient.to),
        )?;
    }
    work.execute("DELETE FROM job WHERE message = ?1 AND state <> ?2", (message, LEASED))?;
    for recipient in recipients.iter().filter(|recipient| recipient.is_open) {
        if let Some(job) = jobs.get(&recipient.from) {
            join(work, message, &recipient.to, job)?;
        }
    }
    Ok(moved as u64)
}

/// The jobs by lane, and the lanes that are leased.
fn jobs_of(work: &Work<'_>, message: i64) -> rusqlite::Result<(BTreeMap<String, Job>, BTreeSet<String>)> {
    let all = work.all("SELECT lane, domain, due, state, suspect FROM job WHERE message = ?1", [message], |row| {
        let job = Job { domain: row.get(1)?, due: row.get(2)?, state: row.get(3)?, suspect: row.get(4)? };
        Ok((row.get::<_, String>(0)?, job))
    })?;
    let (leased, jobs): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, job)| job.state == LEASED);
    Ok((jobs.into_iter().collect(), leased.into_iter().map(|(lane, _)| lane).collect()))
}

fn recipients_of(
    work: &Work<'_>,
    message: i64,
    lane_of: impl Fn(&Mailbox) -> Lane,
) -> rusqlite::Result<Vec<Recipient>> {
    work.all("SELECT position, address, lane, failed_at IS NULL FROM recipient WHERE message = ?1", [message], |row| {
        let (address, from): (String, String) = (row.get(1)?, row.get(2)?);
        // One that cannot be parsed is set aside when it is leased.
        let to = Mailbox::parse(&address).map_or_else(|_| from.clone(), |to| lane_of(&to).to_string());
        Ok(Recipient { position: row.get(0)?, from, to, is_open: row.get(3)? })
    })
}

/// One recipient takes its share of its old job to the job on `lane`, which is made if it is missing.
fn join(work: &Work<'_>, message: i64, lane: &str, job: &Job) -> rusqlite::Result<()> {
    let state = work.first(
        "INSERT INTO job (message, lane, domain, due, state, suspect) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (message, lane) DO UPDATE SET due = MIN(due, excluded.due), suspect = MAX(suspect, excluded.suspect)
         RETURNING state",
        (message, lane, &job.domain, job.due, job.state, job.suspect),
        |row| row.get(0),
    )?;
    work.count(tally_of(job.state, -1));
    work.count(tally_of(state.unwrap_or(job.state), 1));
    Ok(())
}
