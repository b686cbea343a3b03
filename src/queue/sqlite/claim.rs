//! Claims messages: marked as leased in the database first, then completed with their contents from memory or disk.
//! What cannot be read is set aside; what cannot be read just now goes back, for a while, so that it does not block
//! other mail.

use super::content::{self, Unreadable};
use super::lease::{self, LeaseRow};
use super::rows::{from_column, lived_to_column, to_column};
use super::settle::ActiveLease;
use super::store::{SqliteStore, detached};
use crate::message::accepted::Accepted;
use crate::message::{Author, RawMessage};
use crate::observe::clock::plus;
use crate::observe::{Backoff, fault};
use crate::queue::{Cursor, Lane, LeaseId, Leased, QueueError, Settlement};
use jiff::Timestamp;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tracing::{error, warn};

/// Between two checks of a message that cannot be read just now.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Before a lease goes back with which something was wrong: shorter than anybody waits who was told so.
const AFTER_A_FAULT: Duration = Duration::from_millis(500);

/// Even if the caller goes away, a message marked as leased is either returned or released.
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
    let lender = store.clone();
    let lending = async move { lender.claim(&lane, request).await.map(|leased| (leased, ())) };
    deliver_or_release(lending).await.map(|(leased, ())| leased)
}

/// The same for what is too old.
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
    let lender = store.clone();
    deliver_or_release(async move { lender.claim_expired(&lane, request).await }).await
}

async fn deliver_or_release<T: Send + 'static>(
    lending: impl Future<Output = Result<(Vec<(Leased, Loan)>, T), QueueError>> + Send + 'static,
) -> Result<(Vec<Leased>, T), QueueError> {
    let (lent, more) = detached(lending).await?;
    let taken = lent.into_iter().map(|(leased, loan)| {
        loan.end();
        leased
    });
    Ok((taken.collect(), more))
}

/// What is marked as leased and on its way to the caller. Dropped before its end (by a panic, or since nobody waits for it any
/// more), the lease goes back as it came; else it would stay until the next start.
struct Loan {
    store: Arc<SqliteStore>,
    lease: LeaseId,
    has_ended: bool,
    /// A panic had to do with it.
    is_faulty: bool,
}

impl Loan {
    /// The caller has it, or it was given back.
    fn end(mut self) {
        self.has_ended = true;
    }

    /// A fault of this program with one message is none of the others'.
    fn unless_it_panics<T>(&mut self, work: impl FnOnce() -> Result<T, Unreadable>) -> Result<T, Unreadable> {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_logged| {
            self.is_faulty = true;
            Err(Unreadable::Trouble(QueueError::fault()))
        })
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Ok(runtime) = Handle::try_current()
            && !self.has_ended
        {
            let (store, lease) = (self.store.clone(), self.lease);
            let is_faulty = self.is_faulty || std::thread::panicking();
            runtime.spawn(async move {
                if is_faulty {
                    // If the message is to blame, not without a pause.
                    tokio::time::sleep(AFTER_A_FAULT).await;
                }
                store.release(lease, Settlement::Untried, Timestamp::MIN).await;
            });
        }
    }
}

impl SqliteStore {
    async fn claim(
        self: &Arc<Self>,
        lane: &Lane,
        request: lease::LeaseRequest,
    ) -> Result<Vec<(Leased, Loan)>, QueueError> {
        loop {
            let (request, turns, reassignment) =
                (request.clone(), self.turns.clone(), self.reassignment.lock().clone());
            let now = from_column(request.now);
            let later = plus(now, LOOK_AGAIN);
            let granted =
                self.writer.call(move |work| lease::lease(work, &request, &turns, reassignment.as_ref())).await?;
            let asked = granted.grants.len();
            let (leased, trouble) = self.with_contents(lane, granted, Some(later)).await;
            if !leased.is_empty() || asked == 0 {
                return Ok(leased);
            }
            // An empty answer would mean that nothing is due; behind what was set aside there may be more.
            if let Some(error) = trouble {
                return Err(error);
            }
        }
    }

    async fn claim_expired(
        self: &Arc<Self>,
        lane: &Lane,
        request: lease::ExpiredRequest,
    ) -> Result<(Vec<(Leased, Loan)>, Option<Cursor>), QueueError> {
        let reassignment = self.reassignment.lock().clone();
        let (granted, next) =
            self.writer.call(move |work| lease::lease_expired(work, &request, reassignment.as_ref())).await?;
        let (leased, trouble) = self.with_contents(lane, granted, None).await;
        if let Some(error) = trouble {
            error!(%lane, %error, "mail that is too old cannot be read just now");
        }
        Ok((leased, next.map(Cursor)))
    }

    /// With their contents, and with what was in the way of that; what cannot be read just now is looked at again `later`, or when
    /// it is due anyway.
    async fn with_contents(
        self: &Arc<Self>,
        lane: &Lane,
        granted: lease::LeaseRows,
        later: Option<Timestamp>,
    ) -> (Vec<(Leased, Loan)>, Option<QueueError>) {
        // Before anything can go wrong with one of them.
        let grants = granted.grants.into_iter().map(|grant| self.note_lent(lane, grant)).collect();
        for (message, reason) in &granted.damaged {
            error!(row = message, %lane, reason, "a message in the queue is damaged; it is set aside and not tried again");
        }
        let (mut leased, mut trouble) = (Vec::new(), None);
        for (grant, mut loan, content) in self.contents(grants).await {
            let (lease, age) = (loan.lease, self.lifetime.age(grant.since));
            let content =
                content.and_then(|content| loan.unless_it_panics(|| Ok(assemble(lease, lane, grant, content, age))));
            match self.attach_content(loan, content, later).await {
                Ok(one) => leased.extend(one),
                Err(error) => trouble = Some(error),
            }
        }
        (leased, trouble)
    }

    fn note_lent(self: &Arc<Self>, lane: &Lane, grant: LeaseRow) -> (LeaseRow, Loan) {
        let lease = LeaseId(self.next_lease.fetch_add(1, Ordering::Relaxed));
        let positions = grant.positions.clone();
        let held = ActiveLease { message: grant.message, id: grant.id, lane: lane.as_str().into(), positions };
        self.leases.lock().insert(lease, held);
        (grant, Loan { store: self.clone(), lease, has_ended: false, is_faulty: false })
    }

    /// `None`: it is damaged, and set aside.
    async fn attach_content(
        self: &Arc<Self>,
        loan: Loan,
        content: Result<Leased, Unreadable>,
        later: Option<Timestamp>,
    ) -> Result<Option<(Leased, Loan)>, QueueError> {
        let unreadable = match content {
            Ok(leased) => return Ok(Some((leased, loan))),
            Err(unreadable) => unreadable,
        };
        let Some(held) = self.leases.lock().get(&loan.lease).cloned() else { return Ok(None) };
        let outcome = match unreadable {
            Unreadable::Damaged(reason) => {
                self.leases.lock().remove(&loan.lease);
                self.set_aside(&held, &reason).await.map(|()| None)
            }
            // It goes back when the loan is dropped.
            Unreadable::Trouble(error) if loan.is_faulty => return Err(error),
            Unreadable::Trouble(error) => {
                warn!(id = %held.id, lane = &*held.lane, %error, "a message cannot be read just now; it will be retried later");
                let settlement = later.map_or(Settlement::Untried, |_| Settlement::Postponed);
                self.release(loan.lease, settlement, later.unwrap_or_default()).await;
                Err(error)
            }
        };
        loan.end();
        outcome
    }

    async fn contents(
        self: &Arc<Self>,
        grants: Vec<(LeaseRow, Loan)>,
    ) -> Vec<(LeaseRow, Loan, Result<LoadedContent, Unreadable>)> {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for (grant, loan) in grants {
            match self.cache.lock().find(grant.id) {
                Some((accepted, digest)) => {
                    let content = grant.verify(&digest).map(|()| LoadedContent::Cached(accepted));
                    found.push((grant, loan, content.map_err(Unreadable::from)));
                }
                None => missing.push((grant, loan)),
            }
        }
        if missing.is_empty() {
            return found;
        }
        let store = self.clone();
        let reading = spawn_blocking(move || {
            let load = |(grant, mut loan): (LeaseRow, Loan)| {
                let content = loan.unless_it_panics(|| {
                    let content =
                        store.with_reader(|sql| content::load(sql, &store.bodies, grant.message, grant.id))?;
                    let content = content.ok_or(Unreadable::Damaged("its content is missing".into()))?;
                    grant.verify(&content.digest)?;
                    Ok(LoadedContent::Read(content.message))
                });
                (grant, loan, content)
            };
            missing.into_iter().map(load).collect::<Vec<_>>()
        });
        found.extend(reading.await.unwrap_or_default());
        found
    }

    /// Repeated until it is recorded: otherwise a message marked as leased would wait for the next start.
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
                error!(%error, "a lease could not be given back");
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
