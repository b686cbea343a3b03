//! The one thread that writes: it takes every operation that waits, runs them in one transaction, commits once, and only then
//! answers (group commit). An answer is never given before the commit that holds it was synced.

use super::failure::{Failure, of_sqlite};
use super::work::Work;
use crate::queue::QueueError;
use rusqlite::Connection;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// Operations that share one commit at most: bounds how long the first of them waits for the others' work.
const MAX_BATCH: usize = 256;

/// Operations that wait; who comes later waits for a place.
const MAX_WAITING: usize = 1024;

type Calls = mpsc::Sender<Box<dyn Call>>;

#[derive(Debug)]
pub(super) struct Writer {
    /// `None`: closed.
    calls: Mutex<Option<Calls>>,
    asked: AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
    commits: Arc<AtomicU64>,
}

impl Writer {
    pub(super) fn start(connection: Connection) -> io::Result<Self> {
        let (calls, waiting) = mpsc::channel(MAX_WAITING);
        let commits = Arc::new(AtomicU64::new(0));
        let thread = std::thread::Builder::new().name("queue-writer".into()).spawn({
            let commits = commits.clone();
            move || serve(&connection, waiting, &commits)
        })?;
        Ok(Self { calls: Mutex::new(Some(calls)), thread: Mutex::new(Some(thread)), commits, asked: AtomicU64::new(0) })
    }

    /// Durable when it returns `Ok`. The operation may be run more than once, each time from the same state; only the last run
    /// counts. If the caller goes away the operation is done all the same.
    pub(super) async fn call<T, F>(&self, operation: F) -> Result<T, QueueError>
    where
        T: Send + 'static,
        F: Fn(&Work<'_>) -> Result<T, Failure> + Send + 'static,
    {
        let calls = lock(&self.calls).clone().ok_or(QueueError::Closed)?;
        let (answer, answered) = oneshot::channel();
        let call = Box::new(Pending { operation, result: None, answer });
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
        self.commits.load(Ordering::Relaxed)
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

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

trait Call: Send {
    fn run(&mut self, work: &Work<'_>) -> Result<(), Failure>;
    fn answer(self: Box<Self>, outcome: Result<(), QueueError>);
}

struct Pending<T, F> {
    operation: F,
    result: Option<T>,
    answer: oneshot::Sender<Result<T, QueueError>>,
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
}

fn serve(connection: &Connection, mut waiting: mpsc::Receiver<Box<dyn Call>>, commits: &AtomicU64) {
    while let Some(first) = waiting.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH {
            match waiting.try_recv() {
                Ok(next) => batch.push(next),
                Err(_) => break,
            }
        }
        let together = transact(connection, &mut batch, commits);
        if together.is_err() && batch.len() > 1 {
            // One that is too large for what is left of the disk must not refuse the others.
            for call in batch {
                let mut alone = [call];
                let outcome = transact(connection, &mut alone, commits);
                answer(alone, outcome);
            }
        } else {
            answer(batch, together);
        }
    }
}

/// What became of each operation, after the commit; or why there was none.
fn transact(
    connection: &Connection,
    calls: &mut [Box<dyn Call>],
    commits: &AtomicU64,
) -> Result<Vec<Result<(), QueueError>>, QueueError> {
    let outcome = attempt(connection, calls);
    match &outcome {
        Ok(_) => {
            commits.fetch_add(1, Ordering::Relaxed);
        }
        // A rollback that fails leaves the transaction open; the next BEGIN says so, and the rollback is tried again.
        Err(_) if !connection.is_autocommit() => drop(connection.execute_batch("ROLLBACK")),
        Err(_) => {}
    }
    if let Err(QueueError::Full(_)) = &outcome {
        // Makes room in the log, if the database has any: what is delivered must be recorded on a full disk too.
        let _ = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    }
    outcome
}

fn attempt(connection: &Connection, calls: &mut [Box<dyn Call>]) -> Result<Vec<Result<(), QueueError>>, QueueError> {
    let work = Work::new(connection);
    let sqlite = |error: rusqlite::Error| of_sqlite(&error);
    work.execute("BEGIN IMMEDIATE", []).map_err(sqlite)?;
    let mut outcomes = Vec::with_capacity(calls.len());
    for call in calls {
        let outcome = work.attempt(|work| call.run(work)).map_err(QueueError::from);
        // SQLite gives the whole transaction up on some errors (no room, no memory, I/O).
        if connection.is_autocommit() {
            return Err(outcome.err().unwrap_or(QueueError::Storage("the transaction ended by itself".into())));
        }
        outcomes.push(outcome);
    }
    work.write_tally().map_err(sqlite)?;
    work.execute("COMMIT", []).map_err(sqlite)?;
    Ok(outcomes)
}

fn answer(calls: impl IntoIterator<Item = Box<dyn Call>>, outcomes: Result<Vec<Result<(), QueueError>>, QueueError>) {
    match outcomes {
        Ok(outcomes) => calls.into_iter().zip(outcomes).for_each(|(call, outcome)| call.answer(outcome)),
        Err(error) => calls.into_iter().for_each(|call| call.answer(Err(error.clone()))),
    }
}
