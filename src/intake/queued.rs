//! `delivery = "queue"`: the client gets its reply as soon as the message is stored, whatever the provider does.
//!
//! The `250` depends only on the durable put (RFC 5321 §6.1). Below the free-space floor, mail is refused at MAIL,
//! before it is sent to us.

use super::pipeline::IntakePipeline;
use super::prepare::{PreparedMail, subject_of};
use super::report::{log_not_stored, log_taken};
use crate::delivery::SettlementPolicy;
use crate::inbound::{Client, Intake, Received};
use crate::queue::{NewMail, Queue, QueueError};
use crate::smtp::{EnhancedCode, Reply, ReversePath};
use std::sync::Arc;

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

    async fn accept(&self, mut received: Received) -> Reply {
        let (accepted, original) = match self.pipeline.accept(&mut received) {
            Ok(PreparedMail { accepted, original }) => (Arc::new(accepted), original),
            Err(reply) => return reply,
        };
        let initial_states = self.settlement.waiting_states(&accepted);
        let subject = subject_of(&accepted.message, accepted.id);
        let mail = NewMail { accepted: accepted.clone(), initial_states, original, subject };
        match self.queue.put(mail).await {
            Ok(()) => {
                log_taken(&accepted, &received.client, "queued");
                Reply::new(250, EnhancedCode::new(2, 0, 0), format!("Queued as {}", accepted.id))
            }
            Err(error) => {
                log_not_stored(&accepted, &received.client, &error);
                refusal(&error)
            }
        }
    }
}

pub(super) fn refusal(error: &QueueError) -> Reply {
    match error {
        QueueError::Full(_) => Reply::no_space(),
        QueueError::Moved(_) => Reply::queue_moved(),
        QueueError::Storage(_) | QueueError::Closed | QueueError::NoSuchLease => Reply::storage_trouble(),
    }
}
