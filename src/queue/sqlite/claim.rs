//! Claims messages: first marks them as leased in the database, then adds their contents from memory or disk. A message
//! that is damaged is set aside. One that cannot be read at the moment is released and postponed, so that it does not
//! block other mail.

use super::content::{self, Unreadable};
use super::lease::{self, LeaseRow};
use super::rows::{from_column, lived_to_column, to_column};
use super::settle::ActiveLease;
use super::store::SqliteStore;
use crate::message::accepted::Accepted;
use crate::message::{Author, RawMessage};
use crate::observe::clock::plus;
use crate::observe::{Backoff, fault};
use crate::queue::detached::{LeaseGuard, deliver_or_release};
use crate::queue::{Cursor, HandoffSlot, Lane, LeaseId, Leased, QueueError, Settlement};
use jiff::Timestamp;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tracing::{error, warn};

/// Wait before a message that could not be read is tried again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Wait before a lease that met a fault is released: shorter than any caller waits after an error.
const AFTER_A_FAULT: Duration = Duration::from_millis(500);

/// Even if the caller is dropped, a message marked as leased is either returned or released.
pub(super) async fn lease(
    store: &Arc<SqliteStore>,
    lane: Lane,
    now: Timestamp,
    limit: usize,
    octets: u64,
) -> Result<Vec<Leased>, QueueError> {
    let request = lease::LeaseRequest {
        lane: lane.as_str().into(),
        now: to_column(now),
        horizon: to_column(store.schedule.horizon(now)),
        limit,
        octets,
    };
    let owner = store.clone();
    let claiming = async move { owner.claim(&lane, request).await.map(|leased| (leased, ())) };
    deliver_or_release(claiming).await.map(|(leased, ())| leased)
}

/// The same for mail that is too old.
pub(super) async fn lease_expired(
    store: &Arc<SqliteStore>,
    lane: Lane,
    age: Duration,
    after: Option<Cursor>,
    limit: usize,
    octets: u64,
) -> Result<(Vec<Leased>, Option<Cursor>), QueueError> {
    let after = after.map_or(i64::MIN, |Cursor(key)| key);
    let since = lived_to_column(store.lifetime.before(age));
    let request = lease::ExpiredRequest { lane: lane.as_str().into(), since, after, limit, octets };
    let owner = store.clone();
    deliver_or_release(async move { owner.claim_expired(&lane, request).await }).await
}

/// A lease that its caller does not have yet. It is released when this is dropped before `end`, by a panic or because the
/// caller is gone.
#[derive(Debug)]
struct UnreturnedLease {
    store: Arc<SqliteStore>,
    lease: LeaseId,
    has_ended: bool,
    /// It was involved in a panic.
    is_faulty: bool,
}

impl LeaseGuard for UnreturnedLease {
    fn end(mut self) {
        self.has_ended = true;
    }
}

impl UnreturnedLease {
    /// A panic over one message must not affect the others.
    fn unless_it_panics<T>(&mut self, work: impl FnOnce() -> Result<T, Unreadable>) -> Result<T, Unreadable> {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_logged| {
            self.is_faulty = true;
            Err(Unreadable::Trouble(QueueError::fault()))
        })
    }
}

impl Drop for UnreturnedLease {
    fn drop(&mut self) {
        if let Ok(runtime) = Handle::try_current()
            && !self.has_ended
        {
            let store = self.store.clone();
            let lease = self.lease;
            let is_faulty = self.is_faulty || std::thread::panicking();
            runtime.spawn(async move {
                if is_faulty {
                    // A pause, in case the message is to blame.
                    tokio::time::sleep(AFTER_A_FAULT).await;
                }
                store.release(lease, Settlement::Untried, Timestamp::MIN).await;
            });
        }
    }
}

/// The lease of a message that was stored as leased.
#[derive(Debug)]
pub(super) struct UnclaimedLease {
    leased: Leased,
    guard: UnreturnedLease,
}

impl UnclaimedLease {
    /// If the delivery loop has ended meanwhile, the lease is released.
    pub(super) fn hand_over(self, to: HandoffSlot) {
        if to.hand_over(self.leased).is_ok() {
            self.guard.end();
        }
    }
}

impl SqliteStore {
    /// For a message that was stored as leased. `message`: its key.
    pub(super) fn lease_of_put(self: &Arc<Self>, message: i64, accepted: Arc<Accepted>, lane: Lane) -> UnclaimedLease {
        let positions = (0..).take(accepted.envelope.recipients.len()).collect();
        let guard = self.register(ActiveLease { message, id: accepted.id, lane: lane.as_str().into(), positions });
        let lease = guard.lease;
        let leased = Leased { lease, lane, accepted, attempts: 0, age: Duration::ZERO, possible_duplicate: false };
        UnclaimedLease { leased, guard }
    }

    async fn claim(
        self: &Arc<Self>,
        lane: &Lane,
        request: lease::LeaseRequest,
    ) -> Result<Vec<(Leased, UnreturnedLease)>, QueueError> {
        loop {
            let request = request.clone();
            let turns = self.turns.clone();
            let reassignment = self.reassignment.lock().clone();
            let now = from_column(request.now);
            let later = plus(now, LOOK_AGAIN);
            let granted =
                self.writer.call(move |work| lease::lease(work, &request, &turns, reassignment.as_ref())).await?;
            let asked = granted.grants.len();
            let (leased, trouble) = self.with_contents(lane, granted, Some(later)).await;
            if !leased.is_empty() || asked == 0 {
                return Ok(leased);
            }
            // An empty answer would mean that nothing is due; there may be more mail after what was set aside.
            if let Some(error) = trouble {
                return Err(error);
            }
        }
    }

    async fn claim_expired(
        self: &Arc<Self>,
        lane: &Lane,
        request: lease::ExpiredRequest,
    ) -> Result<(Vec<(Leased, UnreturnedLease)>, Option<Cursor>), QueueError> {
        let reassignment = self.reassignment.lock().clone();
        let (granted, next) =
            self.writer.call(move |work| lease::lease_expired(work, &request, reassignment.as_ref())).await?;
        let (leased, trouble) = self.with_contents(lane, granted, None).await;
        if let Some(error) = trouble {
            error!(%lane, %error, "expired mail cannot be read at the moment");
        }
        Ok((leased, next.map(Cursor)))
    }

    /// Returns the leased messages with their contents, and an error that prevented that. A message that cannot be read
    /// is retried `later`, or when it is due anyway.
    async fn with_contents(
        self: &Arc<Self>,
        lane: &Lane,
        granted: lease::LeaseRows,
        later: Option<Timestamp>,
    ) -> (Vec<(Leased, UnreturnedLease)>, Option<QueueError>) {
        // Recorded before anything can go wrong with one of them.
        let register = |grant: LeaseRow| {
            let positions = grant.positions.clone();
            let held = ActiveLease { message: grant.message, id: grant.id, lane: lane.as_str().into(), positions };
            let guard = self.register(held);
            (grant, guard)
        };
        let grants = granted.grants.into_iter().map(register).collect();
        for (message, reason) in &granted.damaged {
            error!(row = message, %lane, reason, "a message in the queue is damaged; it is set aside and not tried again");
        }
        let mut leased = Vec::new();
        let mut trouble = None;
        for (grant, mut guard, content) in self.contents(grants).await {
            let lease = guard.lease;
            let age = self.lifetime.age(grant.since);
            let content =
                content.and_then(|content| guard.unless_it_panics(|| Ok(assemble(lease, lane, grant, content, age))));
            match self.attach_content(guard, content, later).await {
                Ok(one) => leased.extend(one),
                Err(error) => trouble = Some(error),
            }
        }
        (leased, trouble)
    }

    fn register(self: &Arc<Self>, held: ActiveLease) -> UnreturnedLease {
        let lease = LeaseId(self.next_lease.fetch_add(1, Ordering::Relaxed));
        self.leases.lock().insert(lease, held);
        UnreturnedLease { store: self.clone(), lease, has_ended: false, is_faulty: false }
    }

    /// `None`: the message is damaged and was set aside.
    async fn attach_content(
        self: &Arc<Self>,
        guard: UnreturnedLease,
        content: Result<Leased, Unreadable>,
        later: Option<Timestamp>,
    ) -> Result<Option<(Leased, UnreturnedLease)>, QueueError> {
        let unreadable = match content {
            Ok(leased) => return Ok(Some((leased, guard))),
            Err(unreadable) => unreadable,
        };
        let Some(held) = self.leases.lock().get(&guard.lease).cloned() else { return Ok(None) };
        let outcome = match unreadable {
            Unreadable::Damaged(reason) => {
                self.leases.lock().remove(&guard.lease);
                self.set_aside(&held, &reason).await.map(|()| None)
            }
            // Released when the guard is dropped.
            Unreadable::Trouble(error) if guard.is_faulty => return Err(error),
            Unreadable::Trouble(error) => {
                warn!(id = %held.id, lane = &*held.lane, %error, "a message cannot be read at the moment; it will be retried later");
                let settlement = later.map_or(Settlement::Untried, |_| Settlement::Postponed);
                self.release(guard.lease, settlement, later.unwrap_or_default()).await;
                Err(error)
            }
        };
        guard.end();
        outcome
    }

    async fn contents(
        self: &Arc<Self>,
        grants: Vec<(LeaseRow, UnreturnedLease)>,
    ) -> Vec<(LeaseRow, UnreturnedLease, Result<LoadedContent, Unreadable>)> {
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for (grant, guard) in grants {
            match self.cache.lock().find(grant.id) {
                Some((accepted, digest)) => {
                    let content = grant.verify(&digest).map(|()| LoadedContent::Cached(accepted));
                    found.push((grant, guard, content.map_err(Unreadable::from)));
                }
                None => missing.push((grant, guard)),
            }
        }
        if missing.is_empty() {
            return found;
        }
        let store = self.clone();
        let reading = spawn_blocking(move || {
            let load = |(grant, mut guard): (LeaseRow, UnreturnedLease)| {
                let content = guard.unless_it_panics(|| {
                    let content =
                        store.with_reader(|sql| content::load(sql, &store.bodies, grant.message, grant.id))?;
                    let content = content.ok_or(Unreadable::Damaged("its content is missing".into()))?;
                    grant.verify(&content.digest)?;
                    Ok(LoadedContent::Read(content.message))
                });
                (grant, guard, content)
            };
            missing.into_iter().map(load).collect::<Vec<_>>()
        });
        found.extend(reading.await.unwrap_or_default());
        found
    }

    /// Repeated until it is recorded; otherwise a message marked as leased would wait for the next start.
    pub(super) async fn release(self: &Arc<Self>, lease: LeaseId, settlement: Settlement, due: Timestamp) {
        let recipients = self.leases.lock().get(&lease).map_or(0, |held| held.positions.len());
        let settlements = vec![settlement; recipients];
        let mut settled = self.settle(lease, settlements.clone(), due).await;
        if settled.is_ok() {
            return;
        }
        let store = self.clone();
        tokio::spawn(async move {
            let mut backoff = Backoff::default();
            while let Err(error) = settled {
                error!(%error, "a lease could not be released");
                if matches!(error, QueueError::Closed | QueueError::NoSuchLease) {
                    return;
                }
                backoff.wait().await;
                settled = store.settle(lease, settlements.clone(), due).await;
            }
        });
    }
}

enum LoadedContent {
    Cached(Arc<Accepted>),
    Read(RawMessage),
}

fn assemble(lease: LeaseId, lane: &Lane, grant: LeaseRow, content: LoadedContent, age: Duration) -> Leased {
    fault::provoke("lending", &grant.envelope.sender);
    let LeaseRow { id, received_at, origin, marks, envelope, attempts, possible_duplicate, .. } = grant;
    let accepted = match content {
        LoadedContent::Cached(accepted) if accepted.envelope == envelope => accepted,
        LoadedContent::Cached(accepted) => Arc::new(Accepted { envelope, ..(*accepted).clone() }),
        LoadedContent::Read(message) => {
            let author = Author::of(&message).ok();
            Arc::new(Accepted { id, received_at, origin, envelope, message, author, marks })
        }
    };
    Leased { lease, lane: lane.clone(), accepted, attempts, age, possible_duplicate }
}
