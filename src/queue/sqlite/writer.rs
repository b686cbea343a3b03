//! The one thread that writes: it takes every operation that waits, runs them in one transaction, commits once, and only then
//! answers (group commit). An answer is never given before the commit that holds it was synced.

use super::failure::{Failure, of_sqlite};
use super::reserve::Reserve;
use super::work::Work;
use crate::queue::QueueError;
use rusqlite::Connection;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Operations that share one commit at most: bounds how long the first of them waits for the others' work.
const MAX_BATCH: usize = 256;

/// Operations that wait; who comes later waits for a place.
const MAX_WAITING: usize = 1024;

/// A client that is refused asks for it each time.
const BETWEEN_RECLAIMS: Duration = Duration::from_secs(1);

type Calls = mpsc::Sender<Box<dyn Call>>;

#[derive(Debug)]
pub(super) struct Writer {
    /// `None`: closed.
    calls: Mutex<Option<Calls>>,
    asked: AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
    counters: Arc<Counters>,
    reclaimed: Mutex<Option<Instant>>,
}

/// What the thread tells without being asked.
#[derive(Debug, Default)]
struct Counters {
    commits: AtomicU64,
    /// Octets of the database's file that the next puts fill before the file grows.
    reusable: AtomicU64,
    /// Somebody needs room on the disk.
    wants_room: AtomicBool,
}

impl Writer {
    pub(super) fn start(connection: Connection, reserve: Arc<Reserve>) -> io::Result<Self> {
        let (calls, waiting) = mpsc::channel(MAX_WAITING);
        let counters = Arc::new(Counters::default());
        counters.look(&connection);
        let thread = std::thread::Builder::new().name("queue-writer".into()).spawn({
            let counters = counters.clone();
            move || serve(&connection, waiting, &counters, &reserve)
        })?;
        Ok(Self {
            calls: Mutex::new(Some(calls)),
            thread: Mutex::new(Some(thread)),
            counters,
            reclaimed: Mutex::default(),
            asked: AtomicU64::new(0),
        })
    }

    /// Durable when it returns `Ok`. The operation may be run more than once, each time from the same state; only the last run
    /// counts. If the caller goes away the operation is done all the same.
    pub(super) async fn call<T, F>(&self, operation: F) -> Result<T, QueueError>
    where
        T: Send + 'static,
        F: Fn(&Work<'_>) -> Result<T, Failure> + Send + 'static,
    {
        self.ask(operation, true).await
    }

    /// As `call`, for what may be refused on a full disk: it leaves the reserve alone.
    pub(super) async fn call_if_there_is_room<T, F>(&self, operation: F) -> Result<T, QueueError>
    where
        T: Send + 'static,
        F: Fn(&Work<'_>) -> Result<T, Failure> + Send + 'static,
    {
        self.ask(operation, false).await
    }

    async fn ask<T, F>(&self, operation: F, is_urgent: bool) -> Result<T, QueueError>
    where
        T: Send + 'static,
        F: Fn(&Work<'_>) -> Result<T, Failure> + Send + 'static,
    {
        let calls = lock(&self.calls).clone().ok_or(QueueError::Closed)?;
        let (answer, answered) = oneshot::channel();
        let call = Box::new(Pending { operation, result: None, answer, is_urgent });
        calls.send(call).await.map_err(|_| QueueError::Closed)?;
        self.asked.fetch_add(1, Ordering::Relaxed);
        drop(calls);
        answered.await.map_err(|_| QueueError::Closed)?
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.calls).is_none()
    }

    /// Operations that were handed to the thread so far.
    #[cfg(test)]
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Commits so far, each with one sync.
    pub(super) fn commits(&self) -> u64 {
        self.counters.commits.load(Ordering::Relaxed)
    }

    /// The log goes back into the database and its file to nothing, behind the next commit or, without one, soon.
    pub(super) fn reclaim(&self) {
        let mut last = lock(&self.reclaimed);
        if last.is_some_and(|last| last.elapsed() < BETWEEN_RECLAIMS) {
            return;
        }
        *last = Some(Instant::now());
        self.counters.wants_room.store(true, Ordering::Relaxed);
        let calls = lock(&self.calls).clone();
        let (answer, _nobody_waits) = oneshot::channel();
        let nothing = Pending { operation: |_: &Work<'_>| Ok(()), result: None, answer, is_urgent: false };
        // A full channel has commits to come.
        let _ = calls.map(|calls| calls.try_send(Box::new(nothing)));
    }

    /// Octets, as of the last commit.
    pub(super) fn reusable(&self) -> u64 {
        self.counters.reusable.load(Ordering::Relaxed)
    }

    /// Takes no more calls.
    pub(super) fn shut(&self) {
        drop(lock(&self.calls).take());
    }

    /// Lets what was asked for finish, and ends the thread.
    pub(super) fn close(&self) {
        self.shut();
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the queue's writer ended in a panic");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

impl Counters {
    fn look(&self, connection: &Connection) {
        let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).unwrap_or(0);
        let octets = number("freelist_count").saturating_mul(number("page_size"));
        self.reusable.store(octets.unsigned_abs(), Ordering::Relaxed);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

trait Call: Send {
    fn run(&mut self, work: &Work<'_>) -> Result<(), Failure>;
    fn answer(self: Box<Self>, outcome: Result<(), QueueError>);
    fn is_urgent(&self) -> bool;
}

struct Pending<T, F> {
    operation: F,
    result: Option<T>,
    answer: oneshot::Sender<Result<T, QueueError>>,
    /// Worth the reserve.
    is_urgent: bool,
}

impl<T: Send, F: Fn(&Work<'_>) -> Result<T, Failure> + Send> Call for Pending<T, F> {
    fn run(&mut self, work: &Work<'_>) -> Result<(), Failure> {
        self.result = Some((self.operation)(work)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), QueueError>) {
        let Self { result, answer, .. } = *self;
        // The caller may have gone away.
        let _ = answer.send(outcome.and_then(|()| result.ok_or(QueueError::Closed)));
    }

    fn is_urgent(&self) -> bool {
        self.is_urgent
    }
}

fn serve(connection: &Connection, mut waiting: mpsc::Receiver<Box<dyn Call>>, counters: &Counters, reserve: &Reserve) {
    while let Some(first) = waiting.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH {
            match waiting.try_recv() {
                Ok(next) => batch.push(next),
                Err(_) => break,
            }
        }
        let together = transact(connection, &mut batch, counters);
        let is_full = matches!(together, Err(QueueError::Full(_)));
        if together.is_err() && (is_full || batch.len() > 1) {
            // One that is too large for what is left of the disk must not refuse the others.
            for call in batch {
                let mut alone = [call];
                let mut outcome = transact(connection, &mut alone, counters);
                let is_full = matches!(outcome, Err(QueueError::Full(_)));
                if is_full && alone[0].is_urgent() && reserve.give_up() {
                    outcome = transact(connection, &mut alone, counters);
                }
                answer(alone, outcome);
            }
        } else {
            answer(batch, together);
        }
        if counters.wants_room.swap(false, Ordering::Relaxed) {
            let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            counters.look(connection);
        }
    }
}

/// What became of each operation, after the commit; or why there was none.
fn transact(
    connection: &Connection,
    calls: &mut [Box<dyn Call>],
    counters: &Counters,
) -> Result<Vec<Result<(), QueueError>>, QueueError> {
    let attempted = attempt(connection, calls);
    let is_whole = attempted.is_ok();
    let outcome = attempted.and_then(|outcomes| commit(connection).map(|()| outcomes));
    match &outcome {
        Ok(_) => {
            counters.commits.fetch_add(1, Ordering::Relaxed);
            counters.look(connection);
        }
        // A rollback that fails leaves the transaction open; the next BEGIN says so, and the rollback is tried again.
        Err(_) if !connection.is_autocommit() => drop(connection.execute_batch("ROLLBACK")),
        Err(_) => {}
    }
    if let Err(QueueError::Full(_)) = &outcome {
        // Makes room in the log, if the database has any: what is delivered must be recorded on a full disk too.
        let _ = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    } else if is_whole && outcome.is_err() {
        supersede(connection);
    }
    outcome
}

/// Where only the sync of a commit has failed, its pages lie in the log whole, and the next start after a crash would take it for
/// one that was made: mail that was refused would be there. A commit in its place puts an end to that; if it fails too, the
/// next one does.
fn supersede(connection: &Connection) {
    let change =
        |sql: &'static str| Work::new(connection).execute(sql, []).map(drop).map_err(|error| of_sqlite(&error));
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

fn commit(connection: &Connection) -> Result<(), QueueError> {
    Work::new(connection).execute("COMMIT", []).map(drop).map_err(|error| of_sqlite(&error))
}

fn attempt(connection: &Connection, calls: &mut [Box<dyn Call>]) -> Result<Vec<Result<(), QueueError>>, QueueError> {
    let work = Work::new(connection);
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

fn answer(calls: impl IntoIterator<Item = Box<dyn Call>>, outcomes: Result<Vec<Result<(), QueueError>>, QueueError>) {
    match outcomes {
        Ok(outcomes) => calls.into_iter().zip(outcomes).for_each(|(call, outcome)| call.answer(outcome)),
        Err(error) => calls.into_iter().for_each(|call| call.answer(Err(error.clone()))),
    }
}
