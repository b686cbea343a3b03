//! The one thread that writes: it takes every operation that waits, runs them in one transaction, commits once, and only then
//! answers (group commit). An answer is never given before the commit that holds it was synced, and new mail is never taken
//! where the next start would not find it, or out of the room that delivery needs.

use super::failure::{Failure, of_sqlite};
use super::identity::octets_of;
use super::open;
use super::operate;
use super::space::{BATCH, PAGE, PATIENT_PAGES};
use super::work::Work;
use super::writer::Surroundings;
use crate::message::MailId;
use crate::queue::QueueError;
use rusqlite::{Connection, ErrorCode};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Operations that share one commit at most: bounds how long the first of them waits for the others' work.
const MAX_BATCH: usize = 256;

/// New mail, as what it adds to the disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addition {
    pub id: MailId,
    /// At most; of the database.
    pub octets: u64,
}

pub(super) trait Call: Send {
    fn run(&mut self, work: &Work<'_>) -> Result<(), Failure>;
    fn answer(self: Box<Self>, outcome: Result<(), QueueError>);
    fn addition(&self) -> Option<Addition>;
    /// Goes on with the room that is kept for it.
    fn is_urgent(&self) -> bool;
}

type Outcome = Result<(), QueueError>;

pub(super) struct Thread {
    pub connection: Connection,
    pub commits: Arc<AtomicU64>,
    pub surroundings: Surroundings,
    /// The log holds the rest of a commit that failed, which would look like damage to the next start.
    pub has_remains: Cell<bool>,
}

impl Thread {
    pub(super) fn serve(self, mut waiting: mpsc::Receiver<Box<dyn Call>>) {
        while let Some(first) = waiting.blocking_recv() {
            let mut batch = self.without_refused(gather(first, &mut waiting));
            let mut outcomes = self.run(&mut batch);
            self.take_back_what_nobody_would_find(&batch, &mut outcomes);
            if self.surroundings.files.has_moved() {
                // A log that was deleted is lost with this process.
                let _ = self.write_log_back();
            }
            batch.into_iter().zip(outcomes).for_each(|(call, outcome)| call.answer(outcome));
            self.tend();
        }
        self.surroundings.files.restore(&self.connection);
    }

    /// Answers those at once.
    fn without_refused(&self, batch: Vec<Box<dyn Call>>) -> Vec<Box<dyn Call>> {
        if batch.iter().all(|call| call.addition().is_none()) {
            return batch;
        }
        let mut room = self.surroundings.files.look().map(|()| self.surroundings.space.room());
        let mut taken = Vec::with_capacity(batch.len());
        for call in batch {
            let Some(addition) = call.addition() else {
                taken.push(call);
                continue;
            };
            // Once in the log, once in the database.
            match room.clone().and_then(|room| room.without(2 * addition.octets)) {
                Ok(left) => {
                    room = Ok(left);
                    taken.push(call);
                }
                Err(error) => call.answer(Err(error)),
            }
        }
        taken
    }

    /// What became of each.
    fn run(&self, batch: &mut [Box<dyn Call>]) -> Vec<Outcome> {
        if batch.is_empty() {
            return Vec::new();
        }
        match self.transact(batch, false) {
            Ok(outcomes) => {
                // One that SQLite gave up alone.
                let again = |(call, outcome): (&mut Box<dyn Call>, Outcome)| match outcome {
                    Err(QueueError::Full(_)) if call.is_urgent() => self.run_on_a_full_disk(call),
                    outcome => outcome,
                };
                batch.iter_mut().zip(outcomes).map(again).collect()
            }
            Err(QueueError::Full(_)) => batch.iter_mut().map(|call| self.run_on_a_full_disk(call)).collect(),
            Err(_) if batch.len() > 1 => batch.iter_mut().map(|call| self.run_alone(call, false)).collect(),
            Err(error) => vec![Err(error)],
        }
    }

    fn run_alone(&self, call: &mut Box<dyn Call>, is_bare: bool) -> Outcome {
        self.transact(std::slice::from_mut(call), is_bare).and_then(|mut outcomes| outcomes.pop().unwrap_or(Ok(())))
    }

    /// Runs one call alone, so that a message too large for the free space does not fail the rest of its batch. A call that is
    /// not new mail may use the log's space, then the reserve's; in the end it runs without writing history.
    fn run_on_a_full_disk(&self, call: &mut Box<dyn Call>) -> Outcome {
        let is_full = |outcome: &Outcome| matches!(outcome, Err(QueueError::Full(_)));
        let mut outcome = self.run_alone(call, false);
        if !call.is_urgent() {
            return outcome;
        }
        while is_full(&outcome) && self.surroundings.reserve.release() {
            let _ = self.write_log_back();
            outcome = self.run_alone(call, false);
        }
        if is_full(&outcome) {
            outcome = self.run_alone(call, true);
            if outcome.is_ok() {
                tracing::warn!(
                    "the disk is full: what became of a message is done, but neither its attempt nor its history is kept"
                );
            }
        }
        outcome
    }

    /// What became of each operation, after the commit; or why there was none.
    fn transact(&self, calls: &mut [Box<dyn Call>], is_bare: bool) -> Result<Vec<Outcome>, QueueError> {
        let connection = &self.connection;
        let mut is_in_doubt = false;
        let outcome = attempt(connection, calls, is_bare).and_then(|outcomes| {
            let committed = commit(connection).inspect_err(|error| is_in_doubt = may_be_in_the_log(error));
            committed.map(|()| outcomes).map_err(|error| of_sqlite(&error))
        });
        match &outcome {
            Ok(_) => {
                self.commits.fetch_add(1, Ordering::Relaxed);
                self.surroundings.space.note(connection);
            }
            // A rollback that fails leaves the transaction open; the next BEGIN says so, and the rollback is tried again.
            Err(_) if !connection.is_autocommit() => drop(connection.execute_batch("ROLLBACK")),
            Err(_) => {}
        }
        if is_in_doubt {
            supersede(connection);
            self.has_remains.set(true);
            let _the_next_batch_tries_again = self.empty_log();
        }
        if let Err(QueueError::Full(_)) = &outcome {
            // Makes room in the log, if the database has any: what is delivered must be recorded on a full disk too.
            let _ = self.write_log_back();
        }
        outcome
    }

    /// The files moved during the commit: no client has been answered yet, and one that is refused sends its mail again.
    fn take_back_what_nobody_would_find(&self, batch: &[Box<dyn Call>], outcomes: &mut [Outcome]) {
        let added = batch.iter().zip(&*outcomes).enumerate().filter(|(_, (_, outcome))| outcome.is_ok());
        let (places, ids): (Vec<_>, Vec<_>) =
            added.filter_map(|(at, (call, _))| Some((at, call.addition()?.id))).unzip();
        if places.is_empty() {
            return;
        }
        let Err(moved) = self.surroundings.files.look() else { return };
        let removed = self.transact(&mut [Box::new(Removal(ids))], false);
        if let Err(error) = removed.and_then(|mut outcomes| outcomes.pop().unwrap_or(Ok(()))) {
            tracing::error!(
                "mail that is refused now could not be taken out of the queue again, and may come twice: {error}"
            );
        }
        for at in places {
            outcomes[at] = Err(moved.clone());
        }
    }

    /// Behind a commit: the log must not grow without end behind readers that follow upon each other, and the reserve comes back
    /// once there is room.
    fn tend(&self) {
        let Surroundings { reserve, space, .. } = &self.surroundings;
        if self.has_remains.get() || octets_of(space.log()) > PATIENT_PAGES * PAGE {
            let _ = self.empty_log();
        }
        if space.room().is_held_by_the_database() {
            let _ = self.give_back();
        }
        if !reserve.is_whole() {
            reserve.fill_if_ample(space);
        }
    }

    /// A step, and then its pages leave the file.
    fn give_back(&self) -> Result<(), Failure> {
        operate::shorten(&Work::new(&self.connection))?;
        self.surroundings.space.note(&self.connection);
        Ok(self.write_log_back()?)
    }

    /// As far as readers allow.
    fn write_log_back(&self) -> rusqlite::Result<()> {
        self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
    }

    /// Our own readers finish first. A reader of another program is not waited for.
    fn empty_log(&self) -> rusqlite::Result<()> {
        let _nobody_reads = self.surroundings.reading.write();
        let before: i64 = self.connection.query_row("PRAGMA busy_timeout", [], |row| row.get(0))?;
        self.connection.busy_timeout(Duration::ZERO)?;
        let emptied = open::empty_log(&self.connection);
        self.connection.busy_timeout(Duration::from_millis(before.unsigned_abs()))?;
        if emptied? {
            self.has_remains.set(false);
        }
        Ok(())
    }
}

fn gather(first: Box<dyn Call>, waiting: &mut mpsc::Receiver<Box<dyn Call>>) -> Vec<Box<dyn Call>> {
    let octets_of = |call: &dyn Call| call.addition().map_or(0, |addition| addition.octets);
    let mut octets = octets_of(&*first);
    let mut batch = vec![first];
    while batch.len() < MAX_BATCH && octets < BATCH {
        let Ok(next) = waiting.try_recv() else { break };
        octets += octets_of(&*next);
        batch.push(next);
    }
    batch
}

/// Messages that were just put.
struct Removal(Vec<MailId>);

impl Call for Removal {
    fn run(&mut self, work: &Work<'_>) -> Result<(), Failure> {
        operate::remove(work, &self.0).map(drop)
    }

    fn answer(self: Box<Self>, _outcome: Outcome) {}

    fn addition(&self) -> Option<Addition> {
        None
    }

    fn is_urgent(&self) -> bool {
        true
    }
}

/// Where a commit has failed behind its last page (at the sync, or because the log's index cannot grow), its pages lie in the log
/// whole, and the next start after a crash would take it for one that was made: mail that was refused would be there. A commit
/// in its place puts an end to that; if it fails too, the next one does. It needs no room that the failed one has not taken.
fn supersede(connection: &Connection) {
    let change = |sql: &'static str| Work::new(connection).execute(sql, []).map(drop);
    // What stays as it is would not be written.
    let written = change("BEGIN IMMEDIATE")
        .and_then(|()| change("UPDATE ledger SET waiting = waiting + 1 WHERE one = 1"))
        .and_then(|()| change("UPDATE ledger SET waiting = waiting - 1 WHERE one = 1"))
        .and_then(|()| commit(connection));
    if let Err(error) = written {
        tracing::error!("a commit that failed could not be undone in the queue's log; the next one does it: {error}");
        if !connection.is_autocommit() {
            let _ = connection.execute_batch("ROLLBACK");
        }
    }
}

/// A commit that failed for lack of space has no last page, and SQLite ignores a commit without one when it reads the log.
fn may_be_in_the_log(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() != Some(ErrorCode::DiskFull)
}

fn commit(connection: &Connection) -> rusqlite::Result<()> {
    Work::new(connection).execute("COMMIT", []).map(drop)
}

fn attempt(connection: &Connection, calls: &mut [Box<dyn Call>], is_bare: bool) -> Result<Vec<Outcome>, QueueError> {
    let work = if is_bare { Work::without_records(connection) } else { Work::new(connection) };
    let sqlite = |error: rusqlite::Error| of_sqlite(&error);
    work.execute("BEGIN IMMEDIATE", []).map_err(sqlite)?;
    let mut outcomes = Vec::with_capacity(calls.len());
    for call in calls {
        let outcome = work.attempt(|work| without_panic(|| call.run(work))).map_err(QueueError::from);
        // SQLite gives the whole transaction up on some errors (no room, no memory, I/O).
        if connection.is_autocommit() {
            return Err(outcome.err().unwrap_or(QueueError::Storage("the transaction ended by itself".into())));
        }
        outcomes.push(outcome);
    }
    work.write_tally().map_err(sqlite)?;
    Ok(outcomes)
}

/// A fault in one operation must not end the thread that all of them need. It is rolled back like any other that fails.
fn without_panic<T>(operation: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // What an operation changes is the transaction's, and its own result, which nobody sees after an error.
    catch_unwind(AssertUnwindSafe(operation)).unwrap_or_else(|_logged| Err(QueueError::fault().into()))
}
