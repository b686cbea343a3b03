//! `delivery = "direct"`: the message is delivered while the client waits, and the client gets the provider's reply.
//!
//! The client's reply depends only on the outcomes. Problems that are not about the mail itself (network, login,
//! certificate) give a 451 and never the provider's 5yz, because the application would drop the mail permanently.

use super::deduplication::{InProgress, Turn};
use super::leftovers::Leftovers;
use super::pipeline::IntakePipeline;
use super::prepare::{PreparedMail, subject_of};
use super::queued::refusal;
use super::report::log_taken;
use super::storm::StormCheck;
use crate::delivery::{Attempt, Delivery};
use crate::inbound::{Client, Intake, Received};
use crate::message::accepted::Accepted;
use crate::message::outcome::Cause;
use crate::message::{MailId, Outcome, Reason};
use crate::observe::log::Clean;
use crate::queue::{Deduplication, QueueError};
use crate::relay::Deadline;
use crate::smtp::reply::Severity;
use crate::smtp::{EnhancedCode, Reply, ReversePath};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// Plausible gives up 30 s after the final dot, so the answer must come earlier.
const BUDGET: Duration = Duration::from_secs(25);

const TOO_LARGE: EnhancedCode = EnhancedCode::new(5, 3, 4);

#[derive(Debug)]
pub struct DirectIntake {
    pub pipeline: IntakePipeline,
    pub delivery: Arc<Delivery>,
    pub leftovers: Leftovers,
    /// Shared by all listeners.
    pub in_progress: InProgress,
    /// The gateway has to end now: deliveries under way are cut off, and the replies depend on what is known.
    pub cut_off: CancellationToken,
}

impl Intake for DirectIntake {
    fn admit(&self, client: &Client, sender: &ReversePath, _size: Option<u64>) -> Result<(), Reply> {
        self.pipeline.admit(client, sender)
    }

    async fn accept(&self, received: Received) -> Reply {
        let started = Instant::now();
        match self.deliver(received, started).await {
            Ok(reply) => {
                self.pipeline.count_forwarded(&reply, started);
                reply
            }
            Err(reply) => {
                self.pipeline.count(&reply, started);
                reply
            }
        }
    }
}

impl DirectIntake {
    /// The reply that depends on the provider's; the error is a reply of the gateway's own, which may be a 250 (held mail).
    async fn deliver(&self, mut received: Received, started: Instant) -> Result<Reply, Reply> {
        let deadline = Deadline::after(BUDGET);
        let deduplication = self.pipeline.deduplication(&received);
        let _turn = self.first_of(deduplication.as_ref(), &received, deadline).await?;
        let recipients = received.envelope.recipients.len();
        let PreparedMail { accepted, original } = self.pipeline.accept(&mut received)?;
        let accepted = Arc::new(accepted);
        let counted = self.pipeline.rates.count(&received.client, recipients).await?;
        let storm = self.pipeline.storm(&accepted, &subject_of(&accepted.message, accepted.id));
        let held = storm.as_ref().filter(|storm| storm.holds_any());
        if let Err(error) = self.has_room_for_leftovers(&accepted, held.is_some()) {
            return Err(refusal(&error));
        }
        log_taken(&accepted, &received.client, "received; its client waits for the delivery");
        let Some(attempted) = without_held(&accepted, held) else {
            let (id, shares) = (accepted.id, [received.share, received.envelope_share]);
            self.leftovers
                .hold(accepted.clone(), (original, deduplication), storm)
                .await
                .map_err(|error| refusal(&error))?;
            drop(shares);
            counted.keep();
            self.pipeline.expected.accepted(&accepted);
            return Err(Reply::new(250, EnhancedCode::new(2, 0, 0), format!("Queued as {id}")));
        };
        // Deliveries under way at a stop are finished, until the drain time is over.
        let stop = CancellationToken::new();
        let attempt = self.delivery.attempt(&attempted, deadline, &stop, &self.cut_off).await;
        attempt.log(&attempted, started.elapsed(), &[]);
        attempt.count(self.delivery.metrics(), started.elapsed(), |_| false);
        if !attempt.has_delivered() && attempt.is_in_doubt() && self.cut_off.is_cancelled() {
            let reply = Reply::cut_off();
            given_up(accepted.id, &received, &reply);
            self.delivery.metrics().possible_duplicate();
            return Ok(reply);
        }
        let reply = reply_for(accepted.id, &attempt);
        if reply.is_positive() {
            counted.keep();
            self.pipeline.expected.accepted(&accepted);
            let shares = [received.share, received.envelope_share];
            self.leftovers.keep(accepted, (original, deduplication), (&attempt, &attempted, storm), shares).await;
        }
        Ok(reply)
    }

    /// Waits while a message of this key is being tried. The error is the reply where one has been delivered: its 250, or a 451 if that
    /// cannot be known.
    async fn first_of(
        &self,
        deduplication: Option<&Deduplication>,
        received: &Received,
        deadline: Deadline,
    ) -> Result<Option<Turn>, Reply> {
        let Some(Deduplication { key, .. }) = deduplication else { return Ok(None) };
        let turn = self.in_progress.turn(*key, deadline.remaining().unwrap_or(BUDGET)).await;
        let turn = turn.ok_or_else(Reply::still_in_progress)?;
        let known = self.leftovers.queue.stored_under(*key).await.map_err(|error| refusal(&error))?;
        match known {
            None => Ok(Some(turn)),
            Some(id) => {
                let from = Clean(&received.envelope.sender);
                let peer = received.client.peer;
                info!(%id, %from, %peer, "submitted again, and delivered already: it is not sent a second time");
                Err(Reply::new(250, EnhancedCode::new(2, 0, 0), format!("Delivered as {id}")))
            }
        }
    }

    /// If the provider accepts a message only in part, the rest must be stored. With one recipient there is no rest, so
    /// a full disk does not prevent delivery.
    fn has_room_for_leftovers(&self, accepted: &Accepted, holds_any: bool) -> Result<(), QueueError> {
        if accepted.envelope.recipients.len() < 2 && !holds_any {
            return Ok(());
        }
        self.leftovers.queue.admit(accepted.message.size() as u64)
    }
}

/// The message for the recipients that are not held; `None` if all are.
fn without_held(accepted: &Arc<Accepted>, held: Option<&StormCheck>) -> Option<Arc<Accepted>> {
    let Some(held) = held else { return Some(Arc::clone(accepted)) };
    let mut envelope = accepted.envelope.clone();
    let mut index = 0..;
    envelope.recipients.retain(|_| index.next().is_some_and(|index| !held.holds(index)));
    (!envelope.recipients.is_empty()).then(|| Arc::new(Accepted { envelope, ..(**accepted).clone() }))
}

/// As far as is known, the provider has accepted the message for no recipient yet, and its answer was not awaited.
fn given_up(id: MailId, received: &Received, reply: &Reply) {
    let to = received.envelope.recipients.iter().map(|to| Clean(to).to_string()).collect::<Vec<_>>().join(",");
    let from = Clean(&received.envelope.sender);
    let size = received.data.len();
    error!(%id, %from, %to, size, %reply, "given up at the end of the drain time; if sent again, it is a possible duplicate");
}

/// One line of at most 512 octets for the client.
fn reply_for(id: MailId, attempt: &Attempt) -> Reply {
    let mut deferred = None;
    let mut failed = None;
    for settled in attempt.settled() {
        match &settled.outcome {
            Outcome::Delivered(reply) => return delivered(id, reply),
            Outcome::Deferred(reason) => deferred = deferred.or(Some(reason)),
            Outcome::Failed(reason) => failed = failed.or(Some(reason)),
        }
    }
    match (deferred, failed) {
        (Some(reason), _) => try_again(reason),
        (None, Some(reason)) => give_up(reason),
        (None, None) => Reply::storage_trouble(),
    }
}

/// Always 250, the only code that some applications know.
fn delivered(id: MailId, reply: &Reply) -> Reply {
    let text = if reply.text().is_empty() { format!("Delivered as {id}") } else { reply.text() };
    Reply::new(250, reply.enhanced().unwrap_or(EnhancedCode::new(2, 0, 0)), text).folded()
}

/// The provider's own 4yz if it concerns this mail; otherwise 451 with step and cause. A 421 would tell the client that
/// *we* close the connection.
fn try_again(reason: &Reason) -> Reply {
    match reason.reply() {
        // Permanent by its code only.
        Some(reply) if reason.wants_next_transaction() && reply.severity() == Severity::Permanent => {
            Reply::new(452, EnhancedCode::new(4, 5, 3), reply.text()).folded()
        }
        Some(reply)
            if !reason.is_about_upstream() && reply.severity() == Severity::Transient && !reply.text().is_empty() =>
        {
            reply.folded()
        }
        _ => Reply::new(451, EnhancedCode::new(4, 4, 0), reason.to_string()).folded(),
    }
}

fn give_up(reason: &Reason) -> Reply {
    match &reason.cause {
        Cause::Reply(reply) if reply.severity() == Severity::Permanent && !reply.text().is_empty() => reply.folded(),
        // RFC 1870 §6.1 (2): the code for a message that is too large.
        Cause::Local { enhanced, text } if *enhanced == TOO_LARGE => Reply::new(552, *enhanced, text).folded(),
        Cause::Local { enhanced, text } => Reply::new(550, *enhanced, text).folded(),
        _ => Reply::new(550, EnhancedCode::new(5, 0, 0), reason.to_string()).folded(),
    }
}
