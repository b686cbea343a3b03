//! Every change of a message's state, as a pure function over its record. What SQLite does with a statement per row is
//! done here in memory; commit.rs then writes the difference.

use super::record::{JobState, LaneJob, LeaseRecord, MessageRecord, RecipientRecord};
use crate::queue::{Attempted, Delivered, InitialState, NewMail, QueueError, Settlement, Suspension};
use crate::smtp::Mailbox;
use std::collections::{BTreeMap, BTreeSet};

/// Attempts kept per message; older ones are deleted.
const MAX_ATTEMPTS: usize = 100;

/// A message that is to be stored, and who of its recipients has it already.
#[derive(Debug, Clone)]
pub(super) struct NewRecord {
    pub record: MessageRecord,
    pub delivered: Vec<(Delivered, String)>,
}

impl NewRecord {
    /// `lived`: milliseconds of the queue's own clock; `to_server`: a due time by the server's clock.
    pub(super) fn of(
        mail: &NewMail,
        lived: u64,
        to_server: impl Fn(jiff::Timestamp) -> i64,
    ) -> Result<Self, QueueError> {
        let accepted = &*mail.accepted;
        if mail.initial_states.len() != accepted.envelope.recipients.len() || mail.initial_states.is_empty() {
            return Err(QueueError::Storage("a message needs one initial state per recipient".into()));
        }
        let mut record = MessageRecord::of_nobody(accepted, &mail.subject, lived);
        record.has_original = mail.original.is_some();
        let mut delivered = Vec::new();
        let mut attempts = Vec::new();
        let at_once = to_server(accepted.received_at);
        for (position, (recipient, state)) in (0..).zip(accepted.envelope.recipients.iter().zip(&mail.initial_states)) {
            let (lane, due, attempt, reason) = match state {
                InitialState::Waiting(lane) => (lane.to_string(), Some(at_once), None, None),
                InitialState::Delayed { lane, due, reason } => {
                    (Suspension::Delayed.of(lane.as_str()).to_string(), Some(to_server(*due)), None, Some(reason))
                }
                InitialState::Held { lane, reason } => {
                    (Suspension::Held.of(lane.as_str()).to_string(), Some(at_once), None, Some(reason))
                }
                InitialState::Deferred { lane, due, attempt } => {
                    (lane.to_string(), Some(to_server(*due)), Some(attempt), Some(&attempt.text))
                }
                InitialState::Failed { lane, attempt } => (lane.to_string(), None, Some(attempt), Some(&attempt.text)),
                InitialState::Delivered(delivery) => {
                    delivered.push((delivery.clone(), recipient.to_string()));
                    continue;
                }
            };
            attempts.extend(attempt.cloned());
            let in_doubt = attempt.is_some_and(|attempt| attempt.possible_duplicate);
            record.recipients.push(RecipientRecord {
                position,
                address: recipient.to_string(),
                lane: lane.clone(),
                failed_at: due.is_none().then_some(lived),
                attempts: u32::from(attempt.is_some()),
                upstream: attempt.and_then(|attempt| attempt.upstream.clone()),
                reason: reason.cloned(),
                in_doubt,
            });
            if let Some(due) = due {
                record.wait_on(&lane, due, in_doubt);
            }
        }
        record.note_attempts(attempts);
        Ok(Self { record, delivered })
    }

    /// Nothing of it is to be kept but history.
    pub(super) fn is_done(&self) -> bool {
        self.record.recipients.is_empty()
    }
}

impl MessageRecord {
    /// Makes a job waiting, or brings an existing one's due time forward; a leased one stays leased.
    pub(super) fn wait_on(&mut self, lane: &str, due: i64, possible_duplicate: bool) {
        let new = LaneJob { due, state: JobState::Waiting, possible_duplicate: false };
        let job = self.jobs.entry(lane.to_owned()).or_insert(new);
        job.due = job.due.min(due);
        job.possible_duplicate |= possible_duplicate;
    }

    /// False: it cannot be leased on this lane.
    pub(super) fn lease(&mut self, lane: &str, lease: LeaseRecord) -> bool {
        let Some(job) = self.jobs.get_mut(lane).filter(|job| job.state.is_waiting()) else { return false };
        job.state = JobState::Leased(lease);
        true
    }

    /// An unreadable message is never tried again automatically.
    pub(super) fn set_aside(&mut self, lane: &str) {
        if let Some(job) = self.jobs.get_mut(lane) {
            job.state = JobState::Damaged;
        }
    }

    /// Ends a lease whose holder is gone. Its outcome still counts if it comes before the next lease. False: there is no such
    /// lease.
    pub(super) fn take_back(&mut self, lane: &str, fence: u64, was_sent: bool) -> bool {
        let Some(job) = self.jobs.get_mut(lane) else { return false };
        match &job.state {
            JobState::Leased(lease) if lease.fence == fence => job.state = JobState::TakenBack(lease.clone()),
            _ => return false,
        }
        job.possible_duplicate |= was_sent;
        true
    }

    /// Whether a lease with this fence can still be settled.
    pub(super) fn is_held_by(&self, lane: &str, fence: u64) -> bool {
        self.jobs.get(lane).is_some_and(|job| match &job.state {
            JobState::Leased(lease) | JobState::TakenBack(lease) => lease.fence == fence,
            JobState::Waiting | JobState::Damaged => false,
        })
    }

    /// Ends a lease that [is held](Self::is_held_by). `positions`: its recipients, one for each settlement. Returns who has
    /// the message now.
    pub(super) fn settle(
        &mut self,
        lane: &str,
        positions: &[u32],
        settlements: &[Settlement],
        due: i64,
        lived: u64,
    ) -> Vec<(Delivered, String)> {
        let mut delivered = Vec::new();
        let mut attempts = Vec::new();
        for (position, settlement) in positions.iter().zip(settlements) {
            let Some(at) = self.recipients.iter().position(|recipient| recipient.position == *position) else {
                continue;
            };
            match settlement {
                Settlement::Delivered(delivery) => {
                    delivered.push((delivery.clone(), self.recipients.remove(at).address));
                }
                Settlement::Deferred(attempt) | Settlement::Failed(attempt) => {
                    let recipient = &mut self.recipients[at];
                    recipient.attempts = recipient.attempts.saturating_add(1);
                    recipient.upstream.clone_from(&attempt.upstream);
                    recipient.reason = Some(attempt.text.clone());
                    recipient.in_doubt = attempt.possible_duplicate;
                    recipient.failed_at = matches!(settlement, Settlement::Failed(_)).then_some(lived);
                    attempts.push(attempt.clone());
                }
                Settlement::Untried | Settlement::Postponed => {}
            }
        }
        self.note_attempts(attempts);
        self.end_job(lane, settlements, due);
        delivered
    }

    /// The job waits again while any recipient does. Recipients that joined it during the lease (a manual retry) keep their
    /// due time and their possible duplicate; untried ones wait with the deferred ones.
    fn end_job(&mut self, lane: &str, settlements: &[Settlement], due: i64) {
        let open = self.open_on(lane).count();
        if open == 0 {
            self.jobs.remove(lane);
            return;
        }
        let Some(job) = self.jobs.get_mut(lane) else { return };
        let count =
            |wanted: fn(&Settlement) -> bool| settlements.iter().filter(|settlement| wanted(settlement)).count();
        let deferred = count(|settlement| matches!(settlement, Settlement::Deferred(_) | Settlement::Postponed));
        let untried = count(|settlement| matches!(settlement, Settlement::Untried));
        let in_doubt = count(|settlement| matches!(settlement, Settlement::Untried | Settlement::Postponed));
        let lost_answer =
            count(|settlement| matches!(settlement, Settlement::Deferred(attempt) if attempt.possible_duplicate));
        let joined = open.saturating_sub(deferred + untried);
        if deferred > 0 && deferred + untried == open {
            job.due = due;
        }
        job.state = JobState::Waiting;
        job.possible_duplicate = lost_answer > 0 || (in_doubt + joined > 0 && job.possible_duplicate);
    }

    fn note_attempts(&mut self, attempts: Vec<Attempted>) {
        let mut distinct: Vec<Attempted> = Vec::new();
        for attempt in attempts {
            if distinct.len() < MAX_ATTEMPTS && !distinct.contains(&attempt) {
                distinct.push(attempt);
            }
        }
        self.attempts.append(&mut distinct);
        let surplus = self.attempts.len().saturating_sub(MAX_ATTEMPTS);
        self.attempts.drain(..surplus);
    }

    /// Moves recipients to the lanes that `lane_of` names for them, except those whose lane is leased. Returns how many
    /// moved.
    pub(super) fn move_recipients(&mut self, lane_of: impl Fn(&RecipientRecord) -> String) -> u64 {
        let leased: BTreeSet<String> =
            self.jobs.iter().filter(|(_, job)| job.state.is_leased()).map(|(lane, _)| lane.clone()).collect();
        let to: Vec<Option<String>> = self
            .recipients
            .iter()
            .map(|recipient| {
                let stays = recipient.failed_at.is_none() && leased.contains(&recipient.lane);
                (!stays).then(|| lane_of(recipient))
            })
            .collect();
        let moved = self
            .recipients
            .iter()
            .zip(&to)
            .filter(|(recipient, to)| to.as_ref().is_some_and(|to| *to != recipient.lane))
            .count();
        if moved == 0 {
            return 0;
        }
        let (kept, before): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.jobs).into_iter().partition(|(lane, _)| leased.contains(lane));
        self.jobs = kept;
        for at in 0..self.recipients.len() {
            let Some(to) = &to[at] else { continue };
            let from = std::mem::replace(&mut self.recipients[at].lane, to.clone());
            if let Some(job) = before.get(&from).filter(|_| self.recipients[at].failed_at.is_none()) {
                self.join(to, job);
            }
        }
        moved as u64
    }

    /// Moves one recipient from its old job to the job on `lane`.
    fn join(&mut self, lane: &str, job: &LaneJob) {
        match self.jobs.get_mut(lane) {
            Some(known) => {
                known.due = known.due.min(job.due);
                known.possible_duplicate |= job.possible_duplicate;
            }
            None => drop(self.jobs.insert(lane.to_owned(), job.clone())),
        }
    }

    /// Puts suspended recipients onto the lanes that they are for. Returns how many.
    pub(super) fn resume(&mut self, which: impl Fn(Suspension) -> bool) -> u64 {
        let moved = self.move_recipients(|recipient| match Suspension::split(&recipient.lane) {
            (Some(suspension), lane) if which(suspension) => lane.to_owned(),
            _ => recipient.lane.clone(),
        });
        if moved > 0 {
            // It said why the recipient was suspended.
            let untried = |recipient: &&mut RecipientRecord| {
                recipient.attempts == 0
                    && recipient.failed_at.is_none()
                    && Suspension::split(&recipient.lane).0.is_none()
            };
            self.recipients.iter_mut().filter(untried).for_each(|recipient| recipient.reason = None);
        }
        moved
    }

    /// Makes everything that is not leased due now and restarts its age. Returns the number of recipients.
    pub(super) fn retry(&mut self, now: i64, lived: u64) -> u64 {
        self.resume(|_| true);
        let mut count = 0;
        let waiting: Vec<String> =
            self.jobs.iter().filter(|(_, job)| !job.state.is_leased()).map(|(lane, _)| lane.clone()).collect();
        for lane in waiting {
            count += self.open_on(&lane).count() as u64;
            if let Some(job) = self.jobs.get_mut(&lane) {
                job.due = job.due.min(now);
                if job.state == JobState::Damaged {
                    job.state = JobState::Waiting;
                }
            }
        }
        for at in 0..self.recipients.len() {
            let recipient = &mut self.recipients[at];
            if recipient.failed_at.take().is_some() {
                let (lane, in_doubt) = (recipient.lane.clone(), recipient.in_doubt);
                self.wait_on(&lane, now, in_doubt);
                count += 1;
            }
        }
        if count > 0 {
            self.since = self.since.max(lived);
        }
        count
    }

    /// An operator releases held recipients. They are due as they were, and their age begins now. Returns how many.
    pub(super) fn release(&mut self, lived: u64) -> u64 {
        let released = self.resume(|suspension| suspension == Suspension::Held);
        if released > 0 {
            self.since = self.since.max(lived);
        }
        released
    }

    /// Replaces the address of the only recipient. False: it is not the only one, or is being sent.
    pub(super) fn redirect(&mut self, to: &Mailbox) -> bool {
        if self.is_leased() {
            return false;
        }
        let [recipient] = self.recipients.as_mut_slice() else { return false };
        recipient.address = to.to_string();
        true
    }
}
