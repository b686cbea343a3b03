//! Permits, idle connections, and the line of callers that wait for either. No sockets, no waiting: pure bookkeeping.
//!
//! Invariants: the permits held never exceed the cap; callers are served in order of arrival; a connection becomes idle
//! only if no one waits for it. One pool may serve several upstreams (`share_limits_with`): an idle connection of one
//! is closed for a caller of another. If several gateways share the account, the pool has only the permits that their
//! ledger granted, which may be none.

use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// Whether a connection that has carried a message may be reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    Allowed,
    /// Only a new one, after a reused one turned out to be dead.
    Fresh,
}

/// What the pool keeps: something that holds its permit until it is closed.
pub(super) trait Pooled: Sized + Send + 'static {
    fn permit(&self) -> &Permit<Self>;
}

/// One upstream's membership in a pool.
#[derive(Debug)]
pub(super) struct PoolMember {
    /// Permits held: for connections that are being made, in use, idle or being closed.
    open: watch::Sender<usize>,
    /// Both change only under the pool's lock.
    closed: AtomicBool,
    reaped: AtomicBool,
}

impl PoolMember {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { open: watch::Sender::new(0), closed: AtomicBool::new(false), reaped: AtomicBool::new(false) })
    }

    pub(super) fn open(&self) -> usize {
        *self.open.borrow()
    }

    pub(super) fn watch(&self) -> watch::Receiver<usize> {
        self.open.subscribe()
    }
}

/// The right to have one connection. Clones are the same permit; it is returned when the last one is dropped.
pub(super) struct Permit<C: Pooled>(Arc<PermitInner<C>>);

struct PermitInner<C: Pooled> {
    pool: Arc<Pool<C>>,
    member: Arc<PoolMember>,
    /// The connection is being closed: the permit will be free soon. Changes only under the pool's lock.
    closing: AtomicBool,
}

pub(super) struct Pool<C: Pooled> {
    /// Changes only under the state's lock.
    cap: AtomicUsize,
    /// As in the state, to be read without its lock. Changes only under that lock.
    allowed: AtomicUsize,
    state: Mutex<PoolState<C>>,
}

struct PoolState<C: Pooled> {
    /// Permits that the provider's replies leave; from one to the cap.
    allowed: usize,
    /// Permits that the gateways' ledger granted; without one, any number.
    granted: usize,
    /// May exceed the limit after that was lowered, but never the cap. Below the limit only while no one waits.
    held: usize,
    /// Permits whose connections are being closed: they will be free soon.
    closing: usize,
    waiting: VecDeque<Waiter<C>>,
    /// Longest idle first.
    idle: Vec<Idle<C>>,
    next_ticket: u64,
}

struct Waiter<C: Pooled> {
    ticket: u64,
    member: Arc<PoolMember>,
    reuse: Reuse,
    grant: oneshot::Sender<PoolGrant<C>>,
}

struct Idle<C> {
    connection: C,
    until: Instant,
}

/// The permits of a pool, and the callers that wait for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PoolDemand {
    pub held: usize,
    /// Of those held: their connections are idle, or being closed.
    pub idle: usize,
    pub closing: usize,
    pub waiting: usize,
}

pub(super) enum PoolGrant<C: Pooled> {
    Permit(Permit<C>),
    Connection(C),
}

pub(super) enum Claim<C: Pooled> {
    Granted(PoolGrant<C>),
    /// Wait; and close the connection, if there is one, to make room.
    Wait(Ticket<C>, Option<C>),
    /// The upstream is closed.
    Closed,
}

/// A place in the line; dropping it leaves the line.
pub(super) struct Ticket<C: Pooled> {
    pool: Arc<Pool<C>>,
    number: u64,
    grant: oneshot::Receiver<PoolGrant<C>>,
}

/// The result of returning a connection.
pub(super) enum PutBack<C> {
    /// Passed to the next in line.
    HandedOn,
    Idle {
        /// If it is the first idle one, the caller must start a task that closes it in time.
        needs_reaper: bool,
    },
    /// Must be closed now.
    Surplus(C),
}

impl<C: Pooled> Pool<C> {
    /// A `cap` of 0 counts as 1, because a pool that can never serve would hang.
    pub(super) fn new(cap: usize) -> Arc<Self> {
        Self::with_granted(cap, usize::MAX)
    }

    /// For an account that several gateways share: there are no permits until some are granted.
    pub(super) fn shared(cap: usize) -> Arc<Self> {
        Self::with_granted(cap, 0)
    }

    fn with_granted(cap: usize, granted: usize) -> Arc<Self> {
        let cap = cap.max(1);
        let state = PoolState {
            allowed: cap,
            granted,
            held: 0,
            closing: 0,
            waiting: VecDeque::new(),
            idle: Vec::new(),
            next_ticket: 0,
        };
        Arc::new(Self { cap: AtomicUsize::new(cap), allowed: AtomicUsize::new(cap), state: Mutex::new(state) })
    }

    pub(super) fn cap(&self) -> usize {
        self.cap.load(Ordering::Relaxed)
    }

    /// Another cap, with as many permits if it allows. Permits that are held stay until their connections are closed.
    pub(super) fn set_cap(self: &Arc<Self>, cap: usize, limit: usize) -> Vec<C> {
        self.cap.store(cap.max(1), Ordering::Relaxed);
        self.set_limit(limit)
    }

    /// A connection, a permit to make one, or a place in the line.
    pub(super) fn claim(self: &Arc<Self>, member: &Arc<PoolMember>, reuse: Reuse) -> Claim<C> {
        let mut state = self.state.lock();
        if member.closed.load(Ordering::Relaxed) {
            return Claim::Closed;
        }
        let own = |idle: &Idle<C>| reuse == Reuse::Allowed && idle.connection.permit().belongs_to(member);
        if let Some(newest) = state.idle.iter().rposition(own) {
            return Claim::Granted(PoolGrant::Connection(state.idle.remove(newest).connection));
        }
        if state.has_free() {
            return Claim::Granted(PoolGrant::Permit(self.take_free(&mut state, member)));
        }
        let evicted = (state.waiting.len() >= state.permits_due() && !state.idle.is_empty()).then(|| {
            let connection = state.idle.remove(0).connection;
            connection.permit().mark_closing(&mut state);
            connection
        });
        let (sender, grant) = oneshot::channel();
        let number = state.next_ticket;
        state.next_ticket += 1;
        state.waiting.push_back(Waiter { ticket: number, member: Arc::clone(member), reuse, grant: sender });
        Claim::Wait(Ticket { pool: Arc::clone(self), number, grant }, evicted)
    }

    /// A permit, if one is free right now and no one waits.
    pub(super) fn try_permit(self: &Arc<Self>, member: &Arc<PoolMember>) -> Option<Permit<C>> {
        let mut state = self.state.lock();
        state.has_free().then(|| self.take_free(&mut state, member))
    }

    /// For a connection that could carry another message.
    pub(super) fn put_back(&self, mut connection: C, until: Instant) -> PutBack<C> {
        loop {
            let mut state = self.state.lock();
            let member = Arc::clone(&connection.permit().0.member);
            if member.closed.load(Ordering::Relaxed) {
                connection.permit().mark_closing(&mut state);
                return PutBack::Surplus(connection);
            }
            if state.is_over() {
                connection.permit().mark_closing(&mut state);
                return PutBack::Surplus(connection);
            }
            // Callers ahead in the line are served by permits that will be free soon.
            let mut candidates = state.waiting.iter().take(state.permits_due() + 1);
            let taker =
                candidates.position(|waiter| waiter.reuse == Reuse::Allowed && Arc::ptr_eq(&waiter.member, &member));
            if let Some(waiter) = taker.and_then(|at| state.waiting.remove(at)) {
                drop(state);
                match waiter.grant.send(PoolGrant::Connection(connection)) {
                    Ok(()) => return PutBack::HandedOn,
                    // That caller has given up; try the next one.
                    Err(PoolGrant::Connection(back)) => connection = back,
                    Err(PoolGrant::Permit(_)) => return PutBack::HandedOn,
                }
                continue;
            }
            if state.waiting.len() > state.permits_due() {
                connection.permit().mark_closing(&mut state);
                return PutBack::Surplus(connection);
            }
            state.idle.push(Idle { connection, until });
            return PutBack::Idle { needs_reaper: !member.reaped.swap(true, Ordering::Relaxed) };
        }
    }

    /// Removes the member's connections that were idle for too long; says when to check again. `None`: no more are
    /// idle.
    pub(super) fn take_expired(&self, member: &Arc<PoolMember>, now: Instant) -> (Vec<C>, Option<Instant>) {
        let mut state = self.state.lock();
        let expired = state.take_idle(|idle| idle.connection.permit().belongs_to(member) && idle.until <= now);
        let own = state.idle.iter().filter(|idle| idle.connection.permit().belongs_to(member));
        let next = own.map(|idle| idle.until).min();
        member.reaped.store(next.is_some(), Ordering::Relaxed);
        (expired, next)
    }

    /// Closes the pool for this member: its callers leave the line, its idle connections are returned to be closed.
    pub(super) fn close(&self, member: &Arc<PoolMember>) -> Vec<C> {
        let mut state = self.state.lock();
        member.closed.store(true, Ordering::Relaxed);
        state.waiting.retain(|waiter| !Arc::ptr_eq(&waiter.member, member));
        state.take_idle(|idle| idle.connection.permit().belongs_to(member))
    }

    /// Sets the number of permits that the provider's replies leave, at least one and at most the cap. Permits that are
    /// held stay; surplus connections are closed as they become idle, and those that are idle now are returned to be
    /// closed.
    pub(super) fn set_limit(self: &Arc<Self>, allowed: usize) -> Vec<C> {
        let allowed = allowed.clamp(1, self.cap());
        // Called for each message, and the limit hardly ever changes.
        if self.allowed.load(Ordering::Relaxed) == allowed {
            return Vec::new();
        }
        let mut state = self.state.lock();
        state.allowed = allowed;
        self.allowed.store(allowed, Ordering::Relaxed);
        self.follow_limit(state)
    }

    /// Sets the number of permits that the gateways' ledger granted. What is surplus is closed as in
    /// [`Pool::set_limit`].
    pub(super) fn set_granted(self: &Arc<Self>, granted: usize) -> Vec<C> {
        let mut state = self.state.lock();
        state.granted = granted;
        self.follow_limit(state)
    }

    /// Takes no more permits than are held now, until [`Pool::set_granted`] is called: the ledger may be informed of
    /// these.
    pub(super) fn freeze(&self) -> PoolDemand {
        let mut state = self.state.lock();
        state.granted = state.granted.min(state.held);
        let PoolState { held, closing, .. } = *state;
        PoolDemand { held, closing, idle: state.idle.len(), waiting: state.waiting.len() }
    }

    fn follow_limit(self: &Arc<Self>, mut state: MutexGuard<'_, PoolState<C>>) -> Vec<C> {
        let mut surplus = Vec::new();
        while state.is_over() && !state.idle.is_empty() {
            let connection = state.idle.remove(0).connection;
            connection.permit().mark_closing(&mut state);
            surplus.push(connection);
        }
        let mut served = Vec::new();
        while let Some(waiter) = state.next_served() {
            served.push(waiter);
        }
        drop(state);
        served.into_iter().for_each(|waiter| self.grant_permit(waiter));
        surplus
    }

    fn take_free(self: &Arc<Self>, state: &mut PoolState<C>, member: &Arc<PoolMember>) -> Permit<C> {
        state.held += 1;
        self.permit(member)
    }

    /// A permit for a caller that was already counted as a holder.
    fn grant_permit(self: &Arc<Self>, waiter: Waiter<C>) {
        // If that caller has given up, the permit is dropped here and goes to the next one.
        let _ = waiter.grant.send(PoolGrant::Permit(self.permit(&waiter.member)));
    }

    fn permit(self: &Arc<Self>, member: &Arc<PoolMember>) -> Permit<C> {
        member.open.send_modify(|open| *open += 1);
        let pool = Arc::clone(self);
        let member = Arc::clone(member);
        Permit(Arc::new(PermitInner { pool, member, closing: AtomicBool::new(false) }))
    }
}

impl<C: Pooled> PoolState<C> {
    /// Permits that may be held now; at most the cap.
    fn limit(&self) -> usize {
        self.allowed.min(self.granted)
    }

    fn has_free(&self) -> bool {
        self.held < self.limit()
    }

    /// More are held than allowed, even once the closing ones are free.
    fn is_over(&self) -> bool {
        self.held - self.closing > self.limit()
    }

    /// How many callers at the head of the line will be served by permits that are about to be free.
    fn permits_due(&self) -> usize {
        self.closing.saturating_sub(self.held.saturating_sub(self.limit()))
    }

    /// The first in the line, if there is a permit for it; counted as a holder from now on.
    fn next_served(&mut self) -> Option<Waiter<C>> {
        let waiter = if self.has_free() { self.waiting.pop_front() } else { None };
        self.held += usize::from(waiter.is_some());
        waiter
    }

    fn take_idle(&mut self, wanted: impl Fn(&Idle<C>) -> bool) -> Vec<C> {
        let (taken, kept) = std::mem::take(&mut self.idle).into_iter().partition(wanted);
        self.idle = kept;
        let taken: Vec<Idle<C>> = taken;
        for idle in &taken {
            idle.connection.permit().mark_closing(self);
        }
        taken.into_iter().map(|idle| idle.connection).collect()
    }
}

impl<C: Pooled> Permit<C> {
    /// The connection is about to be closed: its permit will serve the first caller in the line.
    pub(super) fn start_closing(&self) {
        self.mark_closing(&mut self.0.pool.state.lock());
    }

    fn mark_closing(&self, state: &mut PoolState<C>) {
        if !self.0.closing.swap(true, Ordering::Relaxed) {
            state.closing += 1;
        }
    }

    fn belongs_to(&self, member: &Arc<PoolMember>) -> bool {
        Arc::ptr_eq(&self.0.member, member)
    }
}

impl<C: Pooled> Clone for Permit<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: Pooled> Drop for PermitInner<C> {
    fn drop(&mut self) {
        let next = {
            let mut state = self.pool.state.lock();
            state.closing -= usize::from(self.closing.load(Ordering::Relaxed));
            state.held -= 1;
            state.next_served()
        };
        self.member.open.send_modify(|open| *open -= 1);
        if let Some(waiter) = next {
            self.pool.grant_permit(waiter);
        }
    }
}

impl<C: Pooled> Ticket<C> {
    /// `None`: the upstream was closed.
    pub(super) async fn granted(&mut self) -> Option<PoolGrant<C>> {
        (&mut self.grant).await.ok()
    }
}

impl<C: Pooled> Drop for Ticket<C> {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        if let Some(at) = state.waiting.iter().position(|waiter| waiter.ticket == self.number) {
            state.waiting.remove(at);
        }
    }
}

impl<C: Pooled> fmt::Debug for Permit<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

impl<C: Pooled> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Pool")
            .field("cap", &self.cap())
            .field("limit", &state.limit())
            .field("held", &state.held)
            .field("idle", &state.idle.len())
            .field("waiting", &state.waiting.len())
            .finish()
    }
}

#[cfg(test)]
mod ledger;
#[cfg(test)]
mod model;
#[cfg(test)]
mod walk;

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) struct Fake(pub Permit<Fake>);

    impl Pooled for Fake {
        fn permit(&self) -> &Permit<Self> {
            &self.0
        }
    }

    fn permit(claim: Claim<Fake>) -> Fake {
        match claim {
            Claim::Granted(PoolGrant::Permit(permit)) => Fake(permit),
            _ => panic!("no permit"),
        }
    }

    fn ticket(claim: Claim<Fake>) -> (Ticket<Fake>, Option<Fake>) {
        match claim {
            Claim::Wait(ticket, evicted) => (ticket, evicted),
            _ => panic!("nothing to wait for"),
        }
    }

    /// "permit", "connection", or "nothing" yet.
    fn holds(ticket: &mut Ticket<Fake>) -> (&'static str, Option<PoolGrant<Fake>>) {
        match ticket.grant.try_recv() {
            Ok(grant @ PoolGrant::Permit(_)) => ("permit", Some(grant)),
            Ok(grant @ PoolGrant::Connection(_)) => ("connection", Some(grant)),
            Err(_) => ("nothing", None),
        }
    }

    fn later() -> Instant {
        Instant::now() + std::time::Duration::from_secs(60)
    }

    #[test]
    fn permits_end_at_the_cap_and_come_back_in_order_of_arrival() {
        let pool = Pool::<Fake>::new(2);
        let member = PoolMember::new();
        let first = permit(pool.claim(&member, Reuse::Allowed));
        let second = permit(pool.claim(&member, Reuse::Fresh));
        assert!(pool.try_permit(&member).is_none());
        let mut waiting = [0, 1, 2].map(|_| ticket(pool.claim(&member, Reuse::Allowed)).0);
        assert_eq!(member.open(), 2);
        drop(first);
        let (what, granted) = holds(&mut waiting[0]);
        assert_eq!((what, holds(&mut waiting[1]).0, member.open()), ("permit", "nothing", 2));
        drop((second, granted));
        assert_eq!((holds(&mut waiting[1]).0, holds(&mut waiting[2]).0), ("permit", "permit"));
        assert_eq!(member.open(), 0);
        assert!(pool.try_permit(&member).is_some());
    }

    #[test]
    fn a_place_in_the_line_that_is_given_up_delays_nobody() {
        let pool = Pool::<Fake>::new(1);
        let member = PoolMember::new();
        let held = permit(pool.claim(&member, Reuse::Allowed));
        let [gone, mut stays] = [0, 1].map(|_| ticket(pool.claim(&member, Reuse::Allowed)).0);
        drop(gone);
        drop(held);
        assert_eq!(holds(&mut stays).0, "permit");
        let pool = Pool::<Fake>::new(1);
        let member = PoolMember::new();
        let held = permit(pool.claim(&member, Reuse::Allowed));
        let [granted, mut next] = [0, 1].map(|_| ticket(pool.claim(&member, Reuse::Allowed)).0);
        drop(held);
        drop(granted);
        assert_eq!(holds(&mut next).0, "permit", "a grant nobody took goes on");
    }

    #[test]
    fn a_connection_goes_to_a_caller_that_waits_for_one_like_it() {
        let pool = Pool::<Fake>::new(1);
        let member = PoolMember::new();
        let connection = permit(pool.claim(&member, Reuse::Allowed));
        let mut waiting = ticket(pool.claim(&member, Reuse::Allowed)).0;
        assert!(matches!(pool.put_back(connection, later()), PutBack::HandedOn));
        let (what, grant) = holds(&mut waiting);
        assert_eq!(what, "connection");
        let Some(PoolGrant::Connection(connection)) = grant else { panic!("no connection") };
        assert!(matches!(pool.put_back(connection, later()), PutBack::Idle { needs_reaper: true }));
        assert!(matches!(pool.claim(&member, Reuse::Allowed), Claim::Granted(PoolGrant::Connection(_))));
    }

    #[test]
    fn an_idle_connection_of_another_upstream_gives_way_once() {
        let pool = Pool::<Fake>::new(2);
        let own = PoolMember::new();
        let other = PoolMember::new();
        for connection in [0, 1].map(|_| permit(pool.claim(&other, Reuse::Allowed))) {
            assert!(matches!(pool.put_back(connection, later()), PutBack::Idle { .. }));
        }
        let (mut first, evicted) = ticket(pool.claim(&own, Reuse::Allowed));
        assert!(evicted.is_some(), "room is made");
        assert!(matches!(pool.claim(&other, Reuse::Allowed), Claim::Granted(PoolGrant::Connection(_))));
        drop(evicted);
        assert_eq!(holds(&mut first).0, "permit");
        assert_eq!((own.open(), other.open()), (0, 0));
    }

    #[test]
    fn a_connection_given_back_makes_room_for_another_upstream_that_came_first() {
        let pool = Pool::<Fake>::new(2);
        let own = PoolMember::new();
        let other = PoolMember::new();
        let [first, second] = [0, 1].map(|_| permit(pool.claim(&other, Reuse::Allowed)));
        let mut foreign = ticket(pool.claim(&own, Reuse::Allowed)).0;
        let PutBack::Surplus(closing) = pool.put_back(first, later()) else { panic!("it must make room") };
        // The one in the line is served by the connection that is being closed; this one may stay.
        assert!(matches!(pool.put_back(second, later()), PutBack::Idle { .. }));
        assert_eq!(holds(&mut foreign).0, "nothing");
        drop(closing);
        assert_eq!(holds(&mut foreign).0, "permit");
    }

    #[test]
    fn a_caller_that_wants_a_fresh_connection_gets_no_used_one() {
        let pool = Pool::<Fake>::new(1);
        let member = PoolMember::new();
        let connection = permit(pool.claim(&member, Reuse::Allowed));
        let mut fresh = ticket(pool.claim(&member, Reuse::Fresh)).0;
        let PutBack::Surplus(closing) = pool.put_back(connection, later()) else { panic!("it must make room") };
        drop(closing);
        assert_eq!(holds(&mut fresh).0, "permit");
    }

    #[test]
    fn idle_connections_expire_and_a_closed_upstream_keeps_none() {
        let pool = Pool::<Fake>::new(3);
        let member = PoolMember::new();
        let now = Instant::now();
        let [first, second, third] = [0, 1, 2].map(|_| permit(pool.claim(&member, Reuse::Allowed)));
        pool.put_back(first, now);
        pool.put_back(second, later());
        let (expired, next) = pool.take_expired(&member, now);
        assert_eq!((expired.len(), next.is_some()), (1, true));
        assert_eq!(pool.close(&member).len(), 1);
        assert!(matches!(pool.put_back(third, later()), PutBack::Surplus(_)));
        assert!(matches!(pool.claim(&member, Reuse::Allowed), Claim::Closed));
        drop(expired);
        assert_eq!((pool.take_expired(&member, now).1, member.open()), (None, 0));
    }
}
