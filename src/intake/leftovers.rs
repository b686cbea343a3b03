//! The remaining recipients in direct mode, once the provider has accepted the message for some of them: the
//! application got its `250` and will not retry, so the gateway is responsible for the others.
//!
//! If they cannot be stored at the moment, storing is repeated until it succeeds, and the message keeps its share of
//! the memory budget. A message is never dropped without a log line that names each recipient.

use super::prepare::subject_of;
use super::storm::StormCheck;
use crate::delivery::{Attempt, Bouncer, SettlementPolicy};
use crate::message::Outcome;
use crate::message::accepted::Accepted;
use crate::message::budget::MemoryShare;
use crate::message::dsn::FailedRecipient;
use crate::observe::Backoff;
use crate::observe::log::Clean;
use crate::queue::{Deduplication, InitialState, NewMail, Queue, QueueError};
use bytes::Bytes;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

/// Clones share the state.
#[derive(Debug, Clone)]
pub struct Leftovers {
    pub(super) queue: Arc<dyn Queue>,
    settlement: SettlementPolicy,
    bouncer: Arc<Bouncer>,
    unstored: TaskTracker,
    stop: CancellationToken,
}

/// The remaining recipients of one message.
#[derive(Debug)]
struct Leftover {
    accepted: Arc<Accepted>,
    /// `None` once it is stored.
    mail: Option<NewMail>,
    /// For a bounce.
    failures: Vec<FailedRecipient>,
    /// The recipients that are not settled, for the log.
    to: String,
}

/// All recipients in the envelope's order: those that were tried as the attempt left them, the others held.
fn with_held(storm: &StormCheck, waiting: Vec<InitialState>, tried: Vec<InitialState>) -> Vec<InitialState> {
    let mut tried = tried.into_iter();
    let state =
        |(index, held): (usize, InitialState)| if storm.holds(index) { held } else { tried.next().unwrap_or(held) };
    storm.hold(waiting).into_iter().enumerate().map(state).collect()
}

impl Leftovers {
    pub fn new(queue: Arc<dyn Queue>, settlement: SettlementPolicy, bouncer: Arc<Bouncer>) -> Self {
        Self { queue, settlement, bouncer, unstored: TaskTracker::new(), stop: CancellationToken::new() }
    }

    /// For a changed configuration. What is not stored yet stays with both.
    pub fn under(&self, settlement: SettlementPolicy, bouncer: Arc<Bouncer>) -> Self {
        Self { settlement, bouncer, ..self.clone() }
    }

    /// Queues deferred recipients, keeps failed ones and records delivered ones, with the message's deduplication, all at
    /// once. Call it only if at least
    /// one was delivered; the reply is a 250 whatever happens here. `shares`: the message's shares of the memory
    /// budget.
    pub(super) async fn keep(
        &self,
        accepted: Arc<Accepted>,
        (original, deduplication): (Option<Bytes>, Option<Deduplication>),
        (attempt, attempted, storm): (&Attempt, &Accepted, Option<StormCheck>),
        shares: [MemoryShare; 2],
    ) {
        let (mut initial_states, failures) = self.settlement.initial_states(attempted, attempt);
        if let Some(storm) = storm {
            initial_states = with_held(&storm, self.settlement.waiting_states(&accepted), initial_states);
            storm.keep(&accepted, &initial_states);
        }
        let unsettled = attempt.settled().iter().filter(|settled| !matches!(settled.outcome, Outcome::Delivered(_)));
        let to = unsettled.map(|settled| Clean(&settled.recipient).to_string()).collect::<Vec<_>>().join(",");
        let subject = subject_of(&accepted.message, accepted.id);
        let mail = NewMail { accepted: accepted.clone(), initial_states, original, subject, deduplication };
        let mut left = Leftover { accepted, mail: Some(mail), failures, to };
        let Err(error) = self.store(&mut left).await else { return };
        let id = left.accepted.id;
        let from = Clean(&left.accepted.envelope.sender);
        if left.to.is_empty() {
            error!(%id, %from, "delivered, and the history could not be written: {error}");
            return;
        }
        error!(%id, %from, to = left.to, "the remaining recipients of a message could not be stored; retrying: {error}");
        let leftovers = self.clone();
        self.unstored.spawn(async move {
            leftovers.retry_until_stored(left).await;
            drop(shares);
        });
    }

    /// Stores a message all of whose recipients are held.
    pub(super) async fn hold(
        &self,
        accepted: Arc<Accepted>,
        (original, deduplication): (Option<Bytes>, Option<Deduplication>),
        storm: Option<StormCheck>,
    ) -> Result<(), QueueError> {
        let Some(storm) = storm else { return Ok(()) };
        let initial_states = storm.hold(self.settlement.waiting_states(&accepted));
        let subject = subject_of(&accepted.message, accepted.id);
        let stored_states = initial_states.clone();
        let mail = NewMail { accepted: accepted.clone(), initial_states, original, subject, deduplication };
        self.queue.put(mail).await?;
        storm.keep(&accepted, &stored_states);
        Ok(())
    }

    /// Runs pending retries once more. Returns when none is left, or at the deadline.
    pub async fn finish(&self, deadline: Instant) {
        self.stop.cancel();
        self.unstored.close();
        let _cut_off_at_the_end = timeout_at(deadline, self.unstored.wait()).await;
    }

    /// Stores the message first, because a bounce is about what was kept.
    async fn store(&self, left: &mut Leftover) -> Result<(), QueueError> {
        if let Some(mail) = &left.mail {
            self.queue.put(mail.clone()).await?;
            left.mail = None;
        }
        self.bouncer.notify(&left.accepted, &left.failures).await
    }

    async fn retry_until_stored(&self, mut left: Leftover) {
        let mut backoff = Backoff::default();
        loop {
            let is_last = tokio::select! {
                biased;
                () = self.stop.cancelled() => true,
                () = backoff.wait() => false,
            };
            let stored = self.store(&mut left).await;
            let id = left.accepted.id;
            let from = Clean(&left.accepted.envelope.sender);
            let to = &left.to;
            match stored {
                Ok(()) => {
                    info!(%id, %from, to, "the remaining recipients of a message are stored now");
                    return;
                }
                Err(error) if is_last || matches!(error, QueueError::Closed) => {
                    let lost =
                        if left.mail.is_some() { "these recipients will not get it" } else { "no bounce is sent" };
                    error!(%id, %from, to, "the remaining recipients of a message could not be stored before the stop; {lost}: {error}");
                    return;
                }
                Err(_) => {}
            }
        }
    }
}
