//! Access to the one writer thread (`batch`): operations are sent to it and awaited.

use super::batch::{Addition, Call, Thread};
use super::failure::Failure;
use super::identity::Files;
use super::lane_counts::LaneCounter;
use super::pace::Pace;
use super::reserve::Reserve;
use super::space::FreeSpace;
use super::work::Work;
use crate::observe::metrics::QueueMetrics;
use crate::queue::QueueError;
use parking_lot::{Mutex, RwLock};
use rusqlite::Connection;
use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// Maximum number of waiting operations; further callers wait for a place.
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

/// What the thread shares with the rest of the queue.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    pub reserve: Arc<Reserve>,
    pub space: Arc<FreeSpace>,
    pub files: Arc<Files>,
    /// Held by each reader while it reads; the thread acquires it to empty the log.
    pub reading: Arc<RwLock<()>>,
    pub counter: Arc<LaneCounter>,
    pub metrics: QueueMetrics,
}

impl Writer {
    pub(super) fn start(connection: Connection, surroundings: Surroundings) -> io::Result<Self> {
        let (calls, waiting) = mpsc::channel(MAX_WAITING);
        let commits = Arc::new(AtomicU64::new(0));
        surroundings.space.note(&connection);
        let thread = std::thread::Builder::new().name("queue-writer".into()).spawn({
            let commits = commits.clone();
            move || {
                let pace = RefCell::new(Pace::new(Instant::now()));
                Thread { connection, commits, surroundings, has_remains: Cell::new(false), pace }.serve(waiting);
            }
        })?;
        Ok(Self { calls: Mutex::new(Some(calls)), thread: Mutex::new(Some(thread)), commits, asked: AtomicU64::new(0) })
    }

    /// Durable when it returns `Ok`. The operation may run more than once, each time from the same state; only the last
    /// run counts. It is completed even if the caller is dropped.
    pub(super) async fn call<T, F>(&self, operation: F) -> Result<T, QueueError>
    where
        T: Send + 'static,
        F: Fn(&Work<'_>) -> Result<T, Failure> + Send + 'static,
    {
        self.ask(operation, None, true).await
    }

    /// As `call`, for a message that is refused if there is no room for it or if the next start would not find it.
    pub(super) async fn add<T, F>(&self, addition: Addition, operation: F) -> Result<T, QueueError>
    where
        T: Send + 'static,
        F: Fn(&Work<'_>) -> Result<T, Failure> + Send + 'static,
    {
        self.ask(operation, Some(addition), false).await
    }

    /// As `call`, for an operation that may fail on a full disk: it does not use the reserve.
    pub(super) async fn call_if_there_is_room<T, F>(&self, operation: F) -> Result<T, QueueError>
    where
        T: Send + 'static,
        F: Fn(&Work<'_>) -> Result<T, Failure> + Send + 'static,
    {
        self.ask(operation, None, false).await
    }

    async fn ask<T, F>(&self, operation: F, addition: Option<Addition>, is_urgent: bool) -> Result<T, QueueError>
    where
        T: Send + 'static,
        F: Fn(&Work<'_>) -> Result<T, Failure> + Send + 'static,
    {
        let calls = self.calls.lock().clone().ok_or(QueueError::Closed)?;
        let (answer, answered) = oneshot::channel();
        let call = Box::new(Pending { operation, result: None, answer, addition, is_urgent });
        calls.send(call).await.map_err(|_| QueueError::Closed)?;
        self.asked.fetch_add(1, Ordering::Relaxed);
        drop(calls);
        answered.await.map_err(|_| QueueError::Closed)?
    }

    /// Makes the thread check its surroundings although there is no operation.
    pub(super) fn wake(&self) {
        let calls = self.calls.lock().clone();
        let (answer, _nobody_waits) = oneshot::channel();
        let nothing =
            Pending { operation: |_: &Work<'_>| Ok(()), result: None, answer, addition: None, is_urgent: false };
        // If the channel is full, commits will follow anyway.
        let _ = calls.map(|calls| calls.try_send(Box::new(nothing)));
    }

    pub(super) fn is_closed(&self) -> bool {
        self.calls.lock().is_none()
    }

    /// Number of operations sent to the thread so far.
    #[cfg(test)]
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Commits so far, each with one sync.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Accepts no more calls.
    pub(super) fn shut(&self) {
        drop(self.calls.lock().take());
    }

    /// Finishes the requested operations and ends the thread.
    pub(super) fn close(&self) {
        self.shut();
        let thread = self.thread.lock().take();
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

struct Pending<T, F> {
    operation: F,
    result: Option<T>,
    answer: oneshot::Sender<Result<T, QueueError>>,
    addition: Option<Addition>,
    /// May use the reserve.
    is_urgent: bool,
}

impl<T: Send, F: Fn(&Work<'_>) -> Result<T, Failure> + Send> Call for Pending<T, F> {
    fn run(&mut self, work: &Work<'_>) -> Result<(), Failure> {
        self.result = Some((self.operation)(work)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), QueueError>) {
        let Self { result, answer, .. } = *self;
        // The caller may be gone.
        let _ = answer.send(outcome.and_then(|()| result.ok_or(QueueError::Closed)));
    }

    fn addition(&self) -> Option<Addition> {
        self.addition
    }

    fn is_urgent(&self) -> bool {
        self.is_urgent
    }
}
