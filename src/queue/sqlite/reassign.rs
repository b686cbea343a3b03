//! Moves messages to their lanes after the routes have changed, a few hundred at a time, while mail is accepted and
//! delivered. If a lease finds a message whose turn has not come yet, it moves the message itself, so nothing is leased
//! on a lane that is no longer its own.
//!
//! Progress is not stored: after an interruption the next start begins again, and messages that are already on their
//! lane stay there.

use super::envelope::{self, EnvelopeRecipient, RecipientFields};
use super::failure::{Failure, is_damage};
use super::rows::{LEASED, bad_text, marks_from_column, origin_from_columns, signed, tally_of};
use super::work::{Sql, Tally, Work};
use crate::message::Marks;
use crate::message::accepted::{Addressed, AskedHeader, Origin};
use crate::queue::{LaneOf, Suspension};
use crate::smtp::Mailbox;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Messages per step.
const MESSAGES: i64 = 500;

/// Messages stored before the current routes, which may be on the wrong lane.
#[derive(Clone)]
pub(super) struct Reassignment {
    pub lane_of: LaneOf,
    /// Keys up to this one are done.
    pub done: i64,
    /// Messages after this one were stored on the lanes of the current routes.
    pub last: i64,
}

impl fmt::Debug for Reassignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reassignment").field("done", &self.done).field("last", &self.last).finish_non_exhaustive()
    }
}

impl Reassignment {
    /// Moves a message to its lanes if it may not be there yet; true if a recipient was moved. A panic in the routes
    /// holds no mail back: the message stays where it is, and the delivery attempt chooses its route or reports the
    /// fault.
    pub(super) fn catch_up(&self, work: &Work<'_>, message: i64) -> rusqlite::Result<bool> {
        if message <= self.done || message > self.last {
            return Ok(false);
        }
        // The routes are asked before anything is written.
        let moved = catch_unwind(AssertUnwindSafe(|| reassign_one(work, message, &self.lane_of)));
        moved.map_or(Ok(false), |moved| Ok(moved? > 0))
    }
}

/// The key of the newest message; `None`: there is none.
pub(super) fn last_message(sql: &Sql<'_>) -> rusqlite::Result<Option<i64>> {
    Ok(sql.first("SELECT MAX(key) FROM message", [], |row| row.get(0))?.flatten())
}

/// The fingerprint of the routes by which the lanes were assigned.
pub(super) fn fingerprint(sql: &Sql<'_>) -> Result<Option<String>, Failure> {
    Ok(sql.first("SELECT routes FROM ledger WHERE one = 1", [], |row| row.get(0))?.flatten())
}

fn set_fingerprint(work: &Work<'_>, fingerprint: &str) -> Result<(), Failure> {
    work.execute("UPDATE ledger SET routes = ?1 WHERE one = 1", [fingerprint])?;
    Ok(())
}

/// From now on some lanes may differ from what any routes say. If the reassignment is interrupted, no stored
/// fingerprint may match, not even that of the old routes.
pub(super) fn forget_fingerprint(work: &Work<'_>) -> rusqlite::Result<()> {
    work.execute("UPDATE ledger SET routes = NULL WHERE one = 1 AND routes IS NOT NULL", [])?;
    Ok(())
}

#[derive(Debug)]
pub(super) struct Step {
    pub moved: u64,
    /// The last message examined; `None`: there are no more.
    pub last: Option<i64>,
}

/// Handles the next messages. After the last of them every message is on its lane, and the fingerprint is stored.
pub(super) fn step(work: &Work<'_>, reassignment: &Reassignment, fingerprint: &str) -> Result<Step, Failure> {
    let Reassignment { lane_of, done, last } = reassignment;
    let messages = work.all(
        "SELECT key FROM message WHERE key > ?1 AND key <= ?2 ORDER BY key LIMIT ?3",
        (done, last, MESSAGES),
        |row| row.get::<_, i64>(0),
    )?;
    let mut moved = 0;
    for message in &messages {
        moved += reassign_one(work, *message, lane_of)?;
    }
    let behind = messages.last().copied().filter(|at| at < last && signed(messages.len()) == MESSAGES);
    if behind.is_none() {
        set_fingerprint(work, fingerprint)?;
    }
    Ok(Step { moved, last: behind })
}

/// Returns how many recipients of one message were moved.
pub(super) fn reassign_one(work: &Work<'_>, message: i64, lane_of: &LaneOf) -> rusqlite::Result<u64> {
    let waiting = work.first(
        "SELECT id, sender, listener, user, marks, header FROM message LEFT JOIN content ON content.message = key
         WHERE key = ?1",
        [message],
        // An unreadable message is set aside when it is leased.
        |row| Ok(read(row).ok()),
    )?;
    let Some(Waiting { id, sender, origin, marks, header }) = waiting.flatten() else { return Ok(0) };
    let header = AskedHeader::new(&header);
    let moved = move_recipients(work, message, &id, |recipient| {
        let (suspension, lane) = Suspension::split(&recipient.lane);
        let Ok(mailbox) = Mailbox::parse(&recipient.address) else { return recipient.lane.clone() };
        let addressed =
            Addressed { sender: sender.as_ref(), recipient: &mailbox, origin: &origin, marks: &marks, header: &header };
        let to = lane_of(&addressed);
        match suspension {
            // A suspended one stays suspended.
            Some(suspension) if to.as_str() != lane => suspension.of(to.as_str()).to_string(),
            Some(_) => recipient.lane.clone(),
            None => to.to_string(),
        }
    });
    match moved {
        // So is a message with an unreadable recipient.
        Err(error) if is_damage(&error) => Ok(0),
        moved => moved,
    }
}

/// The parts of a message that decide where its recipients go.
struct Waiting {
    id: String,
    sender: Option<Mailbox>,
    origin: Origin,
    marks: Marks,
    header: Vec<u8>,
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Waiting> {
    let sender = row.get::<_, Option<String>>(1)?;
    Ok(Waiting {
        id: row.get(0)?,
        sender: sender.map(|text| Mailbox::parse(&text).map_err(|error| bad_text(1, error))).transpose()?,
        origin: origin_from_columns(row, 2, 3)?,
        marks: marks_from_column(row, 4)?,
        header: row.get::<_, Option<Vec<u8>>>(5)?.unwrap_or_default(),
    })
}

struct Recipient {
    row: EnvelopeRecipient,
    to: String,
}

impl Recipient {
    fn is_open(&self) -> bool {
        self.row.fields.failed_at.is_none()
    }

    fn from(&self) -> &str {
        &self.row.fields.lane
    }

    fn moves(&self) -> bool {
        self.from() != self.to
    }
}

/// A job that is not leased.
struct Job {
    domain: String,
    due: i64,
    state: i64,
    possible_duplicate: bool,
}

/// Moves recipients to the lanes that `lane_of` names for them, except on lanes that are leased. Returns how many moved.
pub(super) fn move_recipients(
    work: &Work<'_>,
    message: i64,
    id: &str,
    lane_of: impl Fn(&RecipientFields) -> String,
) -> rusqlite::Result<u64> {
    let (jobs, leased) = jobs_of(work, message)?;
    let mut recipients = recipients_of(work, message, id, lane_of)?;
    // A leased message stays where it is until it is settled.
    recipients.retain(|recipient| !(recipient.is_open() && leased.contains(recipient.from())));
    let moved = recipients.iter().filter(|recipient| recipient.moves()).count();
    if moved == 0 {
        return Ok(0);
    }
    work.bring_back_mail();
    for Recipient { row, to } in recipients.iter().filter(|recipient| recipient.moves()) {
        let digest = row.digest_for(id, &RecipientFields { lane: to.clone(), ..row.fields.clone() });
        work.execute(
            "UPDATE recipient SET lane = ?3, digest = ?4 WHERE message = ?1 AND position = ?2",
            (message, row.fields.position, to, digest),
        )?;
        if row.fields.failed_at.is_some() {
            work.count(&row.fields.lane, Tally { failed: -1, ..Tally::default() });
            work.count(to, Tally { failed: 1, ..Tally::default() });
        }
    }
    work.execute("DELETE FROM job WHERE message = ?1 AND state <> ?2", (message, LEASED))?;
    for recipient in recipients.iter().filter(|recipient| recipient.is_open()) {
        if let Some(job) = jobs.get(recipient.from()) {
            join(work, message, (recipient.from(), job), &recipient.to)?;
        }
    }
    Ok(moved as u64)
}

/// The message's jobs by lane, and the lanes that are leased.
fn jobs_of(work: &Work<'_>, message: i64) -> rusqlite::Result<(BTreeMap<String, Job>, BTreeSet<String>)> {
    let all = work.all("SELECT lane, domain, due, state, suspect FROM job WHERE message = ?1", [message], |row| {
        let job = Job { domain: row.get(1)?, due: row.get(2)?, state: row.get(3)?, possible_duplicate: row.get(4)? };
        Ok((row.get::<_, String>(0)?, job))
    })?;
    let (leased, jobs): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, job)| job.state == LEASED);
    Ok((jobs.into_iter().collect(), leased.into_iter().map(|(lane, _)| lane).collect()))
}

fn recipients_of(
    work: &Work<'_>,
    message: i64,
    id: &str,
    lane_of: impl Fn(&RecipientFields) -> String,
) -> rusqlite::Result<Vec<Recipient>> {
    let with_lane = |row: EnvelopeRecipient| {
        // A damaged recipient stays on its lane and is set aside when it is leased.
        let to = if row.fits(id) { lane_of(&row.fields) } else { row.fields.lane.clone() };
        Recipient { row, to }
    };
    Ok(envelope::recipients(work, message)?.into_iter().map(with_lane).collect())
}

/// Moves one recipient from its old job, on `from`, to the job on `lane`, which is created if it is missing.
fn join(work: &Work<'_>, message: i64, (from, job): (&str, &Job), lane: &str) -> rusqlite::Result<()> {
    let state = work.first(
        "INSERT INTO job (message, lane, domain, due, state, suspect) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (message, lane) DO UPDATE SET due = MIN(due, excluded.due), suspect = MAX(suspect, excluded.suspect)
         RETURNING state",
        (message, lane, &job.domain, job.due, job.state, job.possible_duplicate),
        |row| row.get(0),
    )?;
    work.count(from, tally_of(job.state, -1));
    work.count(lane, tally_of(state.unwrap_or(job.state), 1));
    Ok(())
}
