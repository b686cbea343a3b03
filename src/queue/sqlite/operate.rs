//! What an operator does to waiting mail (retry, remove, hold), and the pruning of old mail.

use super::bodies::BodyName;
use super::deduplication;
use super::envelope::{self, RecipientFields};
use super::failure::{Failure, is_damage};
use super::reassign::{forget_fingerprint, reassign_one};
use super::rows::{DAMAGED, LEASED, forget_if_empty, has_failed_in_doubt, key_of, open_on, signed, tally_of, wait_on};
use super::suspend;
use super::work::{Tally, Work};
use crate::message::MailId;
use crate::queue::{Correction, domain_of};
use std::collections::BTreeMap;

pub(super) struct MessageJob {
    pub lane: String,
    pub state: i64,
    /// Number of recipients that have not failed.
    pub open: i64,
}

/// The message's failed recipients no longer count.
pub(super) fn uncount_failed(work: &Work<'_>, message: i64) -> rusqlite::Result<()> {
    let lanes =
        work.all("SELECT lane FROM recipient WHERE message = ?1 AND failed_at IS NOT NULL", [message], |row| {
            row.get::<_, String>(0)
        })?;
    lanes.iter().for_each(|lane| work.count(lane, Tally { failed: -1, ..Tally::default() }));
    Ok(())
}

pub(super) fn jobs_of(work: &Work<'_>, message: i64) -> rusqlite::Result<Vec<MessageJob>> {
    let jobs =
        work.all("SELECT lane, state FROM job WHERE message = ?1", [message], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let with_count = |(lane, state): (String, i64)| {
        let open = open_on(work, message, &lane)?;
        Ok(MessageJob { lane, state, open })
    };
    jobs.into_iter().map(with_count).collect()
}

/// Makes recipients due now and restarts their age at `lived`; a correction replaces the only unsettled one.
pub(super) fn retry(
    work: &Work<'_>,
    ids: &[MailId],
    correction: Option<&Correction>,
    now: i64,
    lived: i64,
) -> Result<u64, Failure> {
    let mut count = 0;
    for id in ids {
        let Some(message) = key_of(work, *id)? else { continue };
        match work.attempt(|work| retry_one(work, (message, *id), correction, now, lived)) {
            Ok(due) => count += due,
            // An unreadable message must not keep others from being retried.
            Err(Failure::Sqlite(error)) if is_damage(&error) => {
                tracing::error!(%id, %error, "a message in the queue is too damaged to be tried again");
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(count)
}

fn retry_one(
    work: &Work<'_>,
    (message, id): (i64, MailId),
    correction: Option<&Correction>,
    now: i64,
    lived: i64,
) -> Result<u64, Failure> {
    if let Some(correction) = correction
        && !redirect(work, message, id, correction)?
    {
        return Ok(0);
    }
    suspend::resume(work, message, |_| true)?;
    let jobs = jobs_of(work, message)?;
    let due = retry_waiting(work, message, &jobs, now)? + retry_failed(work, message, id, now)?;
    if due > 0 {
        work.bring_back_mail();
        work.execute("UPDATE message SET since = MAX(since, ?2) WHERE key = ?1", (message, lived))?;
    }
    Ok(due)
}

/// The new address may have another lane than the old one.
fn redirect(
    work: &Work<'_>,
    message: i64,
    id: MailId,
    Correction { to, lane_of }: &Correction,
) -> rusqlite::Result<bool> {
    let rows = envelope::recipients(work, message)?;
    if rows.len() != 1 || jobs_of(work, message)?.iter().any(|job| job.state == LEASED) {
        return Ok(false);
    }
    for row in rows {
        // The operator's address is trusted, whatever the row said before.
        let fields = RecipientFields { address: to.to_string(), ..row.fields };
        work.execute(
            "UPDATE recipient SET address = ?2, digest = ?3 WHERE message = ?1",
            (message, &fields.address, fields.digest(id.as_str())),
        )?;
    }
    match lane_of {
        Some(lane_of) => drop(reassign_one(work, message, lane_of)?),
        None => forget_fingerprint(work)?,
    }
    Ok(true)
}

fn retry_waiting(work: &Work<'_>, message: i64, jobs: &[MessageJob], now: i64) -> rusqlite::Result<u64> {
    let mut count = 0;
    for job in jobs.iter().filter(|job| job.state != LEASED) {
        work.execute(
            "UPDATE job SET state = 0, due = MIN(due, ?3) WHERE message = ?1 AND lane = ?2",
            (message, &job.lane, now),
        )?;
        work.count(&job.lane, tally_of(job.state, -job.open));
        work.count(&job.lane, Tally { waiting: job.open, ..Tally::default() });
        count += super::rows::unsigned(job.open);
    }
    Ok(count)
}

fn retry_failed(work: &Work<'_>, message: i64, id: MailId, now: i64) -> rusqlite::Result<u64> {
    let (mut lanes, mut failed) = (BTreeMap::<String, i64>::new(), Vec::new());
    for row in envelope::recipients(work, message)?.into_iter().filter(|row| row.fields.failed_at.is_some()) {
        *lanes.entry(row.fields.lane.clone()).or_default() += 1;
        failed.push(row);
    }
    if lanes.is_empty() {
        return Ok(0);
    }
    let sender: Option<String> =
        work.first("SELECT sender FROM message WHERE key = ?1", [message], |row| row.get(0))?.flatten();
    let domain = domain_of(sender.as_deref());
    let mut count = 0;
    for (lane, failed) in lanes {
        wait_on(work, message, &lane, &domain, now, has_failed_in_doubt(work, message, Some(&lane))?)?;
        let state: Option<i64> =
            work.first("SELECT state FROM job WHERE message = ?1 AND lane = ?2", (message, &lane), |row| row.get(0))?;
        work.count(&lane, Tally { failed: -failed, ..Tally::default() });
        work.count(&lane, tally_of(state.unwrap_or(DAMAGED), failed));
        count += super::rows::unsigned(failed);
    }
    for row in failed {
        let digest = row.digest_for(id.as_str(), &RecipientFields { failed_at: None, ..row.fields.clone() });
        work.execute(
            "UPDATE recipient SET failed_at = NULL, digest = ?3 WHERE message = ?1 AND position = ?2",
            (message, row.fields.position, digest),
        )?;
    }
    Ok(count)
}

#[derive(Debug, Default)]
pub(super) struct Removed {
    pub count: u64,
    /// Files that are litter now.
    pub files: Vec<BodyName>,
    pub ids: Vec<MailId>,
}

pub(super) fn remove(work: &Work<'_>, ids: &[MailId]) -> Result<Removed, Failure> {
    let mut removed = Removed::default();
    for id in ids {
        let Some(message) = key_of(work, *id)? else { continue };
        let jobs = jobs_of(work, message)?;
        if !jobs.iter().any(|job| job.state == LEASED) {
            remove_one(work, message, *id, jobs, &mut removed)?;
        }
    }
    Ok(removed)
}

/// For mail that was just stored and of which nobody knows yet, leased or not.
pub(super) fn withdraw(work: &Work<'_>, ids: &[MailId]) -> Result<Removed, Failure> {
    let mut removed = Removed::default();
    for id in ids {
        if let Some(message) = key_of(work, *id)? {
            remove_one(work, message, *id, jobs_of(work, message)?, &mut removed)?;
        }
    }
    Ok(removed)
}

fn remove_one(
    work: &Work<'_>,
    message: i64,
    id: MailId,
    jobs: Vec<MessageJob>,
    removed: &mut Removed,
) -> Result<(), Failure> {
    for job in jobs {
        work.count(&job.lane, tally_of(job.state, -job.open));
    }
    uncount_failed(work, message)?;
    work.execute("DELETE FROM job WHERE message = ?1", [message])?;
    work.execute("DELETE FROM recipient WHERE message = ?1", [message])?;
    removed.files.extend(forget_if_empty(work, message, 0)?.unwrap_or_default());
    removed.ids.push(id);
    removed.count += 1;
    Ok(())
}

pub(super) fn hold(work: &Work<'_>, lane: Option<&str>, held: bool) -> Result<(), Failure> {
    match lane {
        Some(lane) => work.execute(
            "INSERT INTO hold (lane, held) VALUES (?1, ?2) ON CONFLICT (lane) DO UPDATE SET held = excluded.held",
            (lane, held),
        )?,
        None => {
            work.execute("DELETE FROM hold", [])?;
            work.execute("UPDATE ledger SET held_all = ?1 WHERE one = 1", [held])?
        }
    };
    Ok(())
}

/// Deletes at most so many rows of each kind, by the queue's own clock; does nothing when none is left to delete.
pub(super) fn prune(
    work: &Work<'_>,
    [lived, failed_before, history_before]: [i64; 3],
    limit: usize,
) -> Result<Removed, Failure> {
    let rows = signed(limit);
    let mut removed = Removed::default();
    let failed = work.all(
        "SELECT message, position, lane FROM recipient WHERE failed_at IS NOT NULL AND failed_at <= ?1 ORDER BY failed_at LIMIT ?2",
        (failed_before, rows),
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?)),
    )?;
    for (message, position, lane) in failed {
        work.execute("DELETE FROM recipient WHERE message = ?1 AND position = ?2", (message, position))?;
        work.count(&lane, Tally { failed: -1, ..Tally::default() });
        removed.files.extend(forget_if_empty(work, message, 1)?.unwrap_or_default());
        removed.count += 1;
    }
    let forgotten = work.execute(
        "DELETE FROM history WHERE key IN (SELECT key FROM history WHERE lived <= ?1 ORDER BY lived LIMIT ?2)",
        (history_before, rows),
    )?;
    removed.count += forgotten as u64;
    removed.count += deduplication::forget_expired(work, lived, limit)?;
    Ok(removed)
}

/// Number of free pages that are kept for future mail: 64 MiB.
const SPARE_PAGES: i64 = 16_384;

/// Number of pages returned per step.
const STEP: &str = "PRAGMA incremental_vacuum(200)";

/// Shortens the file once a backlog is gone; true if there is more to return.
pub(super) fn return_space(work: &Work<'_>) -> Result<bool, Failure> {
    let pages = |pragma| work.first(pragma, [], |row| row.get::<_, i64>(0)).map(Option::unwrap_or_default);
    let free = pages("PRAGMA freelist_count")?;
    let all = pages("PRAGMA page_count")?;
    if free < SPARE_PAGES || free < all / 2 {
        return Ok(false);
    }
    shorten(work)?;
    Ok(true)
}

/// Shortens the file by some empty pages.
pub(super) fn shorten(work: &Work<'_>) -> rusqlite::Result<()> {
    // Each row of the answer stands for one page.
    work.all(STEP, [], |_| Ok(())).map(drop)
}
