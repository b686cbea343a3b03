//! The one writer thread: it collects all waiting operations, runs them in one transaction, commits once, and only then
//! answers them (group commit). No answer is given before its commit is synced. New mail is refused if the next start
//! would not find it, and if it would use the disk space that delivery needs.

use super::deduplication;
use super::failure::{Failure, of_sqlite};
use super::identity::octets_of;
use super::open;
use super::operate;
use super::pace::Pace;
use super::space::{BATCH, PAGE, PATIENT_PAGES};
use super::work::{LaneTallies, Work};
use super::writer::Surroundings;
use crate::message::MailId;
use crate::queue::{IdempotencyKey, QueueError};
use rusqlite::{Connection, ErrorCode};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Maximum number of operations per commit; bounds how long the first of them waits for the others' work.
const MAX_BATCH: usize = 256;

/// The disk space that new mail needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addition {
    pub id: MailId,
    /// An upper bound, counted in the database.
    pub octets: u64,
    /// Under which it is remembered.
    pub key: Option<IdempotencyKey>,
}

pub(super) trait Call: Send {
    fn run(&mut self, work: &Work<'_>) -> Result<(), Failure>;
    fn answer(self: Box<Self>, outcome: Result<(), QueueError>);
    fn addition(&self) -> Option<Addition>;
    /// It may use the space that is reserved for it.
    fn is_urgent(&self) -> bool;
}

type Outcome = Result<(), QueueError>;

pub(super) struct Thread {
    pub connection: Connection,
    pub commits: Arc<AtomicU64>,
    pub surroundings: Surroundings,
    /// The log contains the rest of a failed commit, which the next start would mistake for damage.
    pub has_remains: Cell<bool>,
    pub pace: RefCell<Pace>,
}

impl Thread {
    pub(super) fn serve(self, mut waiting: mpsc::Receiver<Box<dyn Call>>) {
        while let Some(first) = waiting.blocking_recv() {
            let mut batch = self.without_refused(self.gather(first, &mut waiting));
            let mut outcomes = self.run(&mut batch);
            self.withdraw_if_moved(&batch, &mut outcomes);
            if self.surroundings.files.has_moved() {
                // A deleted log is lost when this process ends.
                let _ = self.write_log_back();
            }
            batch.into_iter().zip(outcomes).for_each(|(call, outcome)| call.answer(outcome));
            self.tend();
        }
        // A reader may outlive this connection, and would leave the log to the next start.
        if !self.surroundings.files.has_moved() {
            let _best_effort = self.empty_log();
        }
        self.surroundings.files.restore(&self.connection);
    }

    /// What waits now, or shortly if the queue is busy.
    fn gather(&self, first: Box<dyn Call>, waiting: &mut mpsc::Receiver<Box<dyn Call>>) -> Vec<Box<dyn Call>> {
        let mut batch = Batch::of(first);
        batch.fill(waiting);
        let wait = self.pace.borrow().wait(Instant::now());
        if !wait.is_zero() && !batch.is_full() {
            #[expect(clippy::disallowed_methods, reason = "the thread is the queue's own")]
            std::thread::sleep(wait);
            batch.fill(waiting);
        }
        batch.calls
    }

    /// Answers the refused calls at once.
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

    /// Returns the outcome of each call.
    fn run(&self, batch: &mut [Box<dyn Call>]) -> Vec<Outcome> {
        if batch.is_empty() {
            return Vec::new();
        }
        match self.together(batch) {
            Ok(outcomes) => {
                // SQLite may have rolled back this call alone.
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

    /// The outcome of each call, all in one transaction. Savepoints are set only once a call has failed.
    fn together(&self, batch: &mut [Box<dyn Call>]) -> Result<Vec<Outcome>, QueueError> {
        match self.transact(batch, &Work::all_or_nothing(&self.connection))? {
            Some(outcomes) => Ok(outcomes),
            None => self.apart(batch, &Work::new(&self.connection)),
        }
    }

    fn apart(&self, batch: &mut [Box<dyn Call>], work: &Work<'_>) -> Result<Vec<Outcome>, QueueError> {
        self.transact(batch, work).map(Option::unwrap_or_default)
    }

    fn run_alone(&self, call: &mut Box<dyn Call>, is_bare: bool) -> Outcome {
        let connection = &self.connection;
        let work = if is_bare { Work::without_records(connection) } else { Work::new(connection) };
        self.apart(std::slice::from_mut(call), &work).and_then(|mut outcomes| outcomes.pop().unwrap_or(Ok(())))
    }

    /// Runs one call alone, so that a message too large for the free space does not fail the rest of its batch. A call
    /// that is not new mail may use the log's space, then the reserve's; as a last resort it runs without writing
    /// history.
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
                    "the disk is full: a message was settled, but neither its attempt nor its history is kept"
                );
            }
        }
        outcome
    }

    /// The outcome of each operation after the commit, or why the commit failed. `None`: one has failed, the work has no
    /// savepoints, and nothing was done.
    fn transact(&self, calls: &mut [Box<dyn Call>], work: &Work<'_>) -> Result<Option<Vec<Outcome>>, QueueError> {
        let connection = &self.connection;
        let mut is_in_doubt = false;
        let outcome = attempt(calls, work).and_then(|attempted| {
            let Some((outcomes, tallies)) = attempted else {
                connection.execute_batch("ROLLBACK").map_err(|error| of_sqlite(&error))?;
                return Ok(None);
            };
            let began = Instant::now();
            commit(connection).map_err(|error| {
                is_in_doubt = may_be_in_the_log(&error);
                of_sqlite(&error)
            })?;
            let now = Instant::now();
            self.surroundings.metrics.committed(now.duration_since(began));
            self.surroundings.counter.apply(&tallies);
            self.pace.borrow_mut().committed(now, outcomes.len(), tallies.total().leased);
            Ok(Some(outcomes))
        });
        match &outcome {
            Ok(None) => {}
            Ok(Some(_)) => {
                self.commits.fetch_add(1, Ordering::Relaxed);
                self.surroundings.space.note(connection);
            }
            // A rollback that fails leaves the transaction open; the next BEGIN reports that, and the rollback is tried
            // again.
            Err(_) if !connection.is_autocommit() => drop(connection.execute_batch("ROLLBACK")),
            Err(_) => {}
        }
        if is_in_doubt {
            supersede(connection);
            self.has_remains.set(true);
            let _the_next_batch_tries_again = self.empty_log();
        }
        if let Err(QueueError::Full(_)) = &outcome {
            // Frees space in the log, if the database has any: deliveries must be recorded on a full disk too.
            let _ = self.write_log_back();
        }
        outcome
    }

    /// Removes new mail again if the files moved during the commit: no client has been answered yet, and a client that
    /// is refused sends its mail again.
    fn withdraw_if_moved(&self, batch: &[Box<dyn Call>], outcomes: &mut [Outcome]) {
        let added = batch.iter().zip(&*outcomes).enumerate().filter(|(_, (_, outcome))| outcome.is_ok());
        let (places, additions): (Vec<_>, Vec<_>) =
            added.filter_map(|(at, (call, _))| Some((at, call.addition()?))).unzip();
        if places.is_empty() {
            return;
        }
        let Err(moved) = self.surroundings.files.look() else { return };
        let removed = self.apart(&mut [Box::new(Removal(additions))], &Work::new(&self.connection));
        if let Err(error) = removed.and_then(|mut outcomes| outcomes.pop().unwrap_or(Ok(()))) {
            tracing::error!(
                "refused mail could not be removed from the queue again and may be delivered twice: {error}"
            );
        }
        for at in places {
            outcomes[at] = Err(moved.clone());
        }
    }

    /// Runs after each commit: the log must not grow without end when one reader follows another, and the reserve is
    /// filled again once there is space.
    fn tend(&self) {
        let Surroundings { reserve, space, .. } = &self.surroundings;
        if self.has_remains.get() || octets_of(space.log()) > PATIENT_PAGES * PAGE {
            let _ = self.empty_log();
        }
        if space.room().is_held_by_the_database() {
            let _ = self.shrink();
        }
        if !reserve.is_whole() {
            reserve.fill_if_ample(space);
        }
    }

    /// Frees one step of pages and shortens the file by them.
    fn shrink(&self) -> Result<(), Failure> {
        operate::shorten(&Work::new(&self.connection))?;
        self.surroundings.space.note(&self.connection);
        Ok(self.write_log_back()?)
    }

    /// Checkpoints the log as far as readers allow.
    fn write_log_back(&self) -> rusqlite::Result<()> {
        self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
    }

    /// Waits for our own readers, but not for another program's.
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

/// Operations that share a commit.
struct Batch {
    calls: Vec<Box<dyn Call>>,
    /// Of new mail.
    octets: u64,
}

impl Batch {
    fn of(first: Box<dyn Call>) -> Self {
        Self { octets: octets_added(&*first), calls: vec![first] }
    }

    fn is_full(&self) -> bool {
        self.calls.len() >= MAX_BATCH || self.octets >= BATCH
    }

    fn fill(&mut self, waiting: &mut mpsc::Receiver<Box<dyn Call>>) {
        while !self.is_full()
            && let Ok(next) = waiting.try_recv()
        {
            self.octets += octets_added(&*next);
            self.calls.push(next);
        }
    }
}

fn octets_added(call: &dyn Call) -> u64 {
    call.addition().map_or(0, |addition| addition.octets)
}

/// Messages that were just stored.
struct Removal(Vec<Addition>);

impl Call for Removal {
    fn run(&mut self, work: &Work<'_>) -> Result<(), Failure> {
        let ids: Vec<MailId> = self.0.iter().map(|addition| addition.id).collect();
        for Addition { id, key, .. } in &self.0 {
            key.map_or(Ok(()), |key| deduplication::forget(work, *id, key))?;
        }
        operate::withdraw(work, &ids).map(drop)
    }

    fn answer(self: Box<Self>, _outcome: Outcome) {}

    fn addition(&self) -> Option<Addition> {
        None
    }

    fn is_urgent(&self) -> bool {
        true
    }
}

/// A commit can fail after its last page was written, at the sync or because the log's index cannot grow. The log then
/// contains all of its pages, and the next start after a crash would find mail that was refused. Another commit in its
/// place prevents that; if this one fails too, the next one does it. It needs no more space than the failed one.
fn supersede(connection: &Connection) {
    let change = |sql: &'static str| Work::new(connection).execute(sql, []).map(drop);
    // SQLite does not write an unchanged page.
    let written = change("BEGIN IMMEDIATE")
        .and_then(|()| change("UPDATE ledger SET waiting = waiting + 1 WHERE one = 1"))
        .and_then(|()| change("UPDATE ledger SET waiting = waiting - 1 WHERE one = 1"))
        .and_then(|()| commit(connection));
    if let Err(error) = written {
        tracing::error!("a failed commit could not be undone in the queue's log; the next commit undoes it: {error}");
        if !connection.is_autocommit() {
            let _ = connection.execute_batch("ROLLBACK");
        }
    }
}

/// A commit that failed for lack of space has no last page, and SQLite ignores such a commit when it reads the log.
fn may_be_in_the_log(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() != Some(ErrorCode::DiskFull)
}

fn commit(connection: &Connection) -> rusqlite::Result<()> {
    Work::new(connection).execute("COMMIT", []).map(drop)
}

/// `None`: an operation has failed, and the work has no savepoints.
fn attempt(calls: &mut [Box<dyn Call>], work: &Work<'_>) -> Result<Option<(Vec<Outcome>, LaneTallies)>, QueueError> {
    let sqlite = |error: rusqlite::Error| of_sqlite(&error);
    work.execute("BEGIN IMMEDIATE", []).map_err(sqlite)?;
    let mut outcomes = Vec::with_capacity(calls.len());
    for call in calls {
        let outcome = work.attempt(|work| without_panic(|| call.run(work))).map_err(QueueError::from);
        // On some errors SQLite rolls back the whole transaction (no space, no memory, I/O).
        if work.is_ended() {
            return Err(outcome.err().unwrap_or(QueueError::Storage("the transaction ended by itself".into())));
        }
        if work.has_failed() {
            return Ok(None);
        }
        outcomes.push(outcome);
    }
    let tallies = work.write_tally().map_err(sqlite)?;
    Ok(Some((outcomes, tallies)))
}

/// A panic in one operation must not end the thread that all of them need. The operation is rolled back like any other
/// that fails.
fn without_panic<T>(operation: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // An operation changes only the transaction and its own result, which nobody reads after an error.
    catch_unwind(AssertUnwindSafe(operation)).unwrap_or_else(|_logged| Err(QueueError::fault().into()))
}
