//! Lanes anew after the routes changed, some hundred messages at a time so that mail is taken meanwhile.

use super::failure::Failure;
use super::rows::{LEASED, tally_of};
use super::work::Work;
use crate::queue::{Lane, LaneOf};
use crate::smtp::Mailbox;
use std::collections::BTreeSet;

/// Messages of one step.
const MESSAGES: i64 = 200;

/// The fingerprint of the routes that the lanes come from.
pub(super) fn fingerprint(work: &Work<'_>) -> Result<Option<String>, Failure> {
    Ok(work.first("SELECT routes FROM ledger WHERE one = 1", [], |row| row.get(0))?.flatten())
}

pub(super) fn set_fingerprint(work: &Work<'_>, fingerprint: &str) -> Result<(), Failure> {
    work.execute("UPDATE ledger SET routes = ?1 WHERE one = 1", [fingerprint])?;
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
        work.all("SELECT key, sender FROM message WHERE key > ?1 ORDER BY key LIMIT ?2", (after, MESSAGES), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?))
        })?;
    let mut moved = 0;
    for (message, sender) in &messages {
        let sender = match sender.as_deref().map(Mailbox::parse) {
            None => None,
            Some(Ok(sender)) => Some(sender),
            // Set aside when it is leased.
            Some(Err(_)) => continue,
        };
        moved += relane(work, *message, |recipient| lane_of(sender.as_ref(), recipient))?;
    }
    Ok(Step { moved, last: messages.last().map(|(message, _)| *message) })
}

fn relane(work: &Work<'_>, message: i64, lane_of: impl Fn(&Mailbox) -> Lane) -> rusqlite::Result<u64> {
    let recipients = work.all(
        "SELECT position, address, lane, failed_at IS NULL FROM recipient WHERE message = ?1",
        [message],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?, row.get::<_, bool>(3)?)),
    )?;
    let leased: BTreeSet<String> = work
        .all("SELECT lane FROM job WHERE message = ?1 AND state = ?2", (message, LEASED), |row| row.get(0))?
        .into_iter()
        .collect();
    let mut left = BTreeSet::new();
    let mut moved = 0;
    for (position, address, lane, is_open) in recipients {
        let Ok(mailbox) = Mailbox::parse(&address) else { continue };
        let new = lane_of(&mailbox);
        if new.as_str() == lane || (is_open && leased.contains(&lane)) {
            continue;
        }
        if is_open {
            move_job(work, message, &lane, new.as_str())?;
        }
        work.execute(
            "UPDATE recipient SET lane = ?3 WHERE message = ?1 AND position = ?2",
            (message, position, new.as_str()),
        )?;
        left.insert(lane);
        moved += 1;
    }
    for lane in left {
        work.execute(
            "DELETE FROM job WHERE message = ?1 AND lane = ?2 AND NOT EXISTS
             (SELECT 1 FROM recipient WHERE message = ?1 AND lane = ?2 AND failed_at IS NULL)",
            (message, &lane),
        )?;
    }
    Ok(moved)
}

/// One recipient's share of the job on `from` goes to the job on `to`, which is made if it is missing.
fn move_job(work: &Work<'_>, message: i64, from: &str, to: &str) -> rusqlite::Result<()> {
    let state = |lane: &str| {
        work.first("SELECT state FROM job WHERE message = ?1 AND lane = ?2", (message, lane), |row| {
            row.get::<_, i64>(0)
        })
    };
    let before = state(from)?;
    work.execute(
        "INSERT INTO job (message, lane, domain, due, state, suspect)
         SELECT message, ?3, domain, due, state, suspect FROM job WHERE message = ?1 AND lane = ?2
         ON CONFLICT (message, lane) DO UPDATE SET due = MIN(due, excluded.due), suspect = MAX(suspect, excluded.suspect)",
        (message, from, to),
    )?;
    if let (Some(before), Some(after)) = (before, state(to)?) {
        work.count(tally_of(before, -1));
        work.count(tally_of(after, 1));
    }
    Ok(())
}
