//! Learns from refused connections how many a provider allows at once.
//!
//! A connection that is refused while another one of the account works says nothing about the provider's health: it was
//! one too many. The account is then limited to the number that works, and one more is tried after a while. Uses no
//! sockets and no pool: the caller reports what happened to each connection.

use super::deadline::Deadline;
use crate::message::outcome::{Cause, Reason, RelayStep};
use crate::rate::ThrottleFactor;
use crate::smtp::reply::Severity;
use crate::tls::BROKEN_OFF;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// One more connection is tried after this time.
const PROBE_AFTER: Duration = Duration::from_secs(15 * 60);

/// The connections of one account, and how many of them there may be.
#[derive(Debug)]
pub(super) struct ConnectionLimit {
    state: watch::Sender<ConnectionCounts>,
}

#[derive(Debug)]
struct ConnectionCounts {
    cap: usize,
    /// Connections between the first TCP attempt and the login.
    opening: usize,
    /// Refused connections whose meaning is not known yet.
    undecided: usize,
    /// Logged-in connections: in use, idle or being closed.
    working: usize,
    /// Counts logins, and connections that were returned sound: an increase shows that the provider works.
    served: u64,
    /// At most the cap, and equal to it if nothing was refused.
    allowed: usize,
    /// The throttle's factor.
    factor: ThrottleFactor,
    probe_at: Option<Instant>,
    /// The lowest number that the log has named.
    announced: usize,
}

/// A connection that is being opened; counted until it is dropped.
#[derive(Debug)]
pub(super) struct OpeningConnection {
    limit: Arc<ConnectionLimit>,
    was_refused: bool,
}

/// A connection that is logged in; counted until it is dropped.
#[derive(Debug)]
pub(super) struct WorkingConnection {
    limit: Arc<ConnectionLimit>,
}

impl ConnectionLimit {
    pub(super) fn new(cap: usize) -> Arc<Self> {
        let cap = cap.max(1);
        let counts = ConnectionCounts {
            cap,
            opening: 0,
            undecided: 0,
            working: 0,
            served: 0,
            allowed: cap,
            factor: ThrottleFactor::WHOLE,
            probe_at: None,
            announced: cap,
        };
        Arc::new(Self { state: watch::Sender::new(counts) })
    }

    /// What was learned from refusals stays.
    pub(super) fn set_cap(&self, cap: usize) {
        let cap = cap.max(1);
        self.state.send_modify(|counts| {
            let adjusted = |number: usize| if number == counts.cap { cap } else { number.min(cap) };
            (counts.allowed, counts.announced) = (adjusted(counts.allowed), adjusted(counts.announced));
            counts.cap = cap;
            counts.probe_at = counts.probe_at.filter(|_| counts.allowed < cap);
        });
    }

    /// How many connections there may be now.
    pub(super) fn allowed(&self) -> usize {
        let now = Instant::now();
        let is_due = self.state.borrow().probe_at.is_some_and(|at| at <= now);
        if is_due {
            self.state.send_modify(|counts| {
                counts.allowed = (counts.allowed + 1).min(counts.cap);
                counts.probe_at = (counts.allowed < counts.cap).then(|| now + PROBE_AFTER);
            });
        }
        let counts = self.state.borrow();
        counts.allowed.min(counts.factor.of(counts.cap))
    }

    /// Applies the throttle's fraction of the cap.
    pub(super) fn throttle(&self, factor: ThrottleFactor) {
        self.state.send_modify(|counts| counts.factor = factor);
    }

    /// A connection was returned sound after a transaction.
    pub(super) fn served(&self) {
        self.state.send_modify(|counts| counts.served += 1);
    }

    pub(super) fn opening(self: &Arc<Self>) -> OpeningConnection {
        self.state.send_modify(|counts| counts.opening += 1);
        OpeningConnection { limit: Arc::clone(self), was_refused: false }
    }

    /// The number to name in the log, once, when it has settled.
    pub(super) fn to_announce(&self) -> Option<usize> {
        let is_new =
            |counts: &ConnectionCounts| counts.allowed < counts.announced && counts.opening + counts.undecided == 0;
        if !is_new(&self.state.borrow()) {
            return None;
        }
        let mut found = None;
        self.state.send_if_modified(|counts| {
            if is_new(counts) {
                counts.announced = counts.allowed;
                found = Some(counts.allowed);
            }
            false
        });
        found
    }
}

impl OpeningConnection {
    pub(super) fn works(self) -> WorkingConnection {
        self.limit.state.send_modify(|counts| {
            counts.working += 1;
            counts.served += 1;
        });
        WorkingConnection { limit: Arc::clone(&self.limit) }
    }

    /// The connection was refused. Waits until another one is seen to work, and then limits the account to those that
    /// do. False if none works, or if the deadline passes: the refusal then concerns the provider.
    pub(super) async fn refused(mut self, deadline: Deadline) -> bool {
        let limit = Arc::clone(&self.limit);
        self.was_refused = true;
        limit.state.send_modify(|counts| {
            counts.opening -= 1;
            counts.undecided += 1;
        });
        let mut watched = limit.state.subscribe();
        let (before, working) = {
            let counts = watched.borrow_and_update();
            (counts.served, counts.working)
        };
        let decided = watched.wait_for(|counts| counts.served > before || (counts.working == 0 && counts.opening == 0));
        let is_surplus = match deadline.limit(decided).await {
            Ok(Ok(counts)) => counts.served > before,
            Ok(Err(_)) | Err(_) => false,
        };
        if is_surplus {
            limit.state.send_modify(|counts| {
                let works = working.max(counts.working + counts.opening).max(1);
                counts.allowed = counts.allowed.min(works);
                counts.probe_at = (counts.allowed < counts.cap).then(|| Instant::now() + PROBE_AFTER);
            });
        }
        is_surplus
    }
}

impl Drop for OpeningConnection {
    fn drop(&mut self) {
        self.limit.state.send_modify(|counts| match self.was_refused {
            true => counts.undecided -= 1,
            false => counts.opening -= 1,
        });
    }
}

impl Drop for WorkingConnection {
    fn drop(&mut self) {
        self.limit.state.send_modify(|counts| counts.working -= 1);
    }
}

/// Whether a provider with too many connections would refuse one like this: before MAIL, temporarily, or with "too
/// many".
pub(super) fn may_be_surplus(reason: &Reason) -> bool {
    let is_early = reason.step >= RelayStep::Connect && reason.step < RelayStep::Mail;
    match &reason.cause {
        // Data after a 220 to STARTTLS in plain text is an attack, and must be reported.
        // A certificate that is not trusted says nothing about other connections.
        Cause::Network(text) if reason.step == RelayStep::TlsHandshake => text == BROKEN_OFF,
        Cause::Network(_) => is_early && reason.step != RelayStep::StartTls,
        Cause::TimedOut => matches!(reason.step, RelayStep::Connect | RelayStep::Greeting),
        Cause::Reply(reply) => {
            let text = reply.text().to_ascii_lowercase();
            let names_it = text.contains("too many") || text.contains("connections") || text.contains("concurrent");
            is_early && (reply.severity() == Severity::Transient || names_it)
        }
        Cause::Local { .. } | Cause::Unavailable(_) | Cause::Stopping => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// A provider that allows this many, with connections opened one after the other; returns those that work.
    async fn learned(cap: usize, provider: usize) -> (Arc<ConnectionLimit>, Vec<WorkingConnection>) {
        let limit = ConnectionLimit::new(cap);
        let mut working = Vec::new();
        let opening: Vec<_> = (0..limit.allowed()).map(|_| limit.opening()).collect();
        let mut refused = Vec::new();
        for opening in opening {
            if working.len() < provider {
                working.push(opening.works());
            } else {
                refused.push(tokio::spawn(opening.refused(Deadline::NONE)));
                tokio::task::yield_now().await;
            }
        }
        limit.served();
        for refused in refused {
            assert!(refused.await.expect("no panic"));
        }
        (limit, working)
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_is_what_the_provider_allows_and_is_named_once() {
        for provider in 1..=3 {
            let (limit, _working) = learned(4, provider).await;
            assert_eq!((limit.allowed(), limit.to_announce()), (provider, Some(provider)));
            assert_eq!(limit.to_announce(), None);
        }
        let (limit, _working) = learned(4, 4).await;
        assert_eq!((limit.allowed(), limit.to_announce()), (4, None));
    }

    #[tokio::test(start_paused = true)]
    async fn one_more_is_tried_again_by_and_by() {
        let (limit, _working) = learned(4, 1).await;
        tokio::time::advance(HOUR).await;
        assert_eq!(limit.allowed(), 2);
        assert_eq!(limit.allowed(), 2, "one at a time");
        for allowed in [3, 4, 4] {
            tokio::time::advance(HOUR).await;
            assert_eq!(limit.allowed(), allowed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_without_any_connection_that_works_is_about_the_provider() {
        let limit = ConnectionLimit::new(4);
        assert!(!limit.opening().refused(Deadline::NONE).await);
        // Two at once, and the other one fails as well.
        let other = limit.opening();
        let (surplus, ()) = tokio::join!(limit.opening().refused(Deadline::NONE), async { drop(other) });
        assert!(!surplus);
        // A connection that is open but silent proves nothing.
        let _idle = limit.opening().works();
        assert!(!limit.opening().refused(Deadline::after(HOUR)).await);
        assert_eq!((limit.allowed(), limit.to_announce()), (4, None));
    }

    #[tokio::test(start_paused = true)]
    async fn the_throttle_and_what_was_learned_both_count() {
        let (limit, _working) = learned(8, 3).await;
        assert_eq!(limit.allowed(), 3);
        limit.throttle(ThrottleFactor::WHOLE);
        assert_eq!(limit.allowed(), 3);
    }
}
