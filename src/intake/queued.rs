//! `delivery = "queue"`: the client gets its reply as soon as the message is stored, whatever the provider does.
//!
//! The `250` depends only on the durable put (RFC 5321 §6.1). Below the free-space floor, mail is refused at MAIL,
//! before it is sent to us.

use super::pipeline::IntakePipeline;
use super::prepare::{PreparedMail, subject_of};
use super::report::{log_not_stored, log_taken};
use crate::delivery::SettlementPolicy;
use crate::inbound::{Client, Intake, RateWait, Received};
use crate::message::MailId;
use crate::observe::clock::plus;
use crate::observe::log::Clean;
use crate::queue::{InitialState, NewMail, Queue, QueueError};
use crate::smtp::{EnhancedCode, Reply, ReversePath};
use jiff::Timestamp;
use std::sync::Arc;
use tokio::time::Instant;
use tracing::info;

#[derive(Debug)]
pub struct QueuedIntake {
    pub pipeline: IntakePipeline,
    pub queue: Arc<dyn Queue>,
    pub settlement: SettlementPolicy,
}

impl Intake for QueuedIntake {
    fn admit(&self, client: &Client, sender: &ReversePath, size: Option<u64>) -> Result<(), Reply> {
        self.pipeline.admit(client, sender)?;
        self.queue.admit(size.unwrap_or(0)).map_err(|error| refusal(&error))
    }

    async fn accept(&self, received: Received) -> Reply {
        let started = Instant::now();
        let reply = self.store(received).await;
        self.pipeline.count(&reply, started);
        reply
    }
}

impl QueuedIntake {
    async fn store(&self, mut received: Received) -> Reply {
        let deduplication = self.pipeline.deduplication(&received);
        let recipients = received.envelope.recipients.len();
        let (accepted, original) = match self.pipeline.accept(&mut received) {
            Ok(PreparedMail { accepted, original }) => (Arc::new(accepted), original),
            Err(reply) => return reply,
        };
        let counted = match self.pipeline.rates.count(&received.client, recipients).await {
            Ok(counted) => counted,
            Err(reply) => return reply,
        };
        let subject = subject_of(&accepted.message, accepted.id);
        let storm = self.pipeline.storm(&accepted, &subject);
        let mut initial_states = self.settlement.waiting_states(&accepted);
        if let Some(storm) = &storm {
            initial_states = storm.hold(initial_states);
        }
        let initial_states = delayed(initial_states, counted.wait.as_ref(), self.pipeline.clock.now());
        let stored_states = initial_states.clone();
        let mail = NewMail { accepted: accepted.clone(), initial_states, original, subject, deduplication };
        match self.queue.put_once(mail).await {
            Ok(None) => {
                counted.keep();
                if let Some(storm) = storm {
                    storm.keep(&accepted, &stored_states);
                }
                self.pipeline.expected.accepted(&accepted);
                log_taken(&accepted, &received.client, "queued");
                queued_as(accepted.id)
            }
            Ok(Some(first)) => known(first, &received),
            Err(error) => {
                log_not_stored(&accepted, &received.client, &error);
                refusal(&error)
            }
        }
    }
}

/// Mail that its user's or listener's rate does not permit yet.
fn delayed(initial_states: Vec<InitialState>, wait: Option<&RateWait>, now: Timestamp) -> Vec<InitialState> {
    let Some(RateWait { wait, reason }) = wait else { return initial_states };
    let due = plus(now, *wait);
    let delay = |initial_state| match initial_state {
        InitialState::Waiting(lane) => InitialState::Delayed { lane, due, reason: reason.clone() },
        other => other,
    };
    initial_states.into_iter().map(delay).collect()
}

/// The client did not see the answer to the first, and gets the same one.
fn known(id: MailId, received: &Received) -> Reply {
    let from = Clean(&received.envelope.sender);
    let peer = received.client.peer;
    info!(%id, %from, %peer, "submitted again, and stored already: it is not sent a second time");
    queued_as(id)
}

fn queued_as(id: MailId) -> Reply {
    Reply::new(250, EnhancedCode::new(2, 0, 0), format!("Queued as {id}"))
}

pub(super) fn refusal(error: &QueueError) -> Reply {
    match error {
        QueueError::Full(_) => Reply::no_space(),
        QueueError::Moved(_) => Reply::queue_moved(),
        QueueError::Storage(_) | QueueError::Away(_) | QueueError::Closed | QueueError::NoSuchLease => {
            Reply::storage_trouble()
        }
    }
}
