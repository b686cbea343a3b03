//! The simplest model of what a queue should contain after any sequence of calls.

use super::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recipient {
    pub address: String,
    pub lane: String,
    pub failed: bool,
    pub attempts: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Job {
    pub due: Timestamp,
    pub leased: bool,
    pub possible_duplicate: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Message {
    pub recipients: Vec<Recipient>,
    pub jobs: BTreeMap<String, Job>,
}

/// By id, which is also the order of acceptance.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub messages: BTreeMap<MailId, Message>,
    pub delivered: usize,
}

impl Message {
    fn open(&self, lane: &str) -> impl Iterator<Item = &Recipient> {
        self.recipients.iter().filter(move |recipient| recipient.lane == lane && !recipient.failed)
    }

    fn wait(&mut self, lane: &str, due: Timestamp) {
        let job = Job { due, leased: false, possible_duplicate: false };
        let known = self.jobs.entry(lane.to_owned()).or_insert(job);
        known.due = known.due.min(due);
    }

    fn is_leased(&self) -> bool {
        self.jobs.values().any(|job| job.leased)
    }
}

impl Model {
    pub(super) fn put(&mut self, mail: &NewMail) {
        let mut message = Message::default();
        for (recipient, initial_state) in mail.accepted.envelope.recipients.iter().zip(&mail.initial_states) {
            let InitialState::Waiting(lane) = initial_state else { panic!("the walk puts waiting mail only") };
            let address = recipient.to_string();
            let lane = lane.to_string();
            message.wait(&lane, mail.accepted.received_at);
            message.recipients.push(Recipient { address, lane, failed: false, attempts: 0 });
        }
        self.messages.insert(mail.accepted.id, message);
    }

    pub(super) fn due(&self, lane: &str, now: Timestamp) -> usize {
        let is_due = |message: &&Message| message.jobs.get(lane).is_some_and(|job| !job.leased && job.due <= now);
        self.messages.values().filter(is_due).count()
    }

    pub(super) fn next_due(&self, lane: &str) -> Option<Timestamp> {
        self.messages
            .values()
            .filter_map(|message| message.jobs.get(lane))
            .filter(|job| !job.leased)
            .map(|job| job.due)
            .min()
    }

    /// Checks a lease against the model and records it.
    pub(super) fn lease(&mut self, leased: &Leased, now: Timestamp) {
        let message = self.messages.get_mut(&leased.accepted.id).expect("a known message");
        let lane = leased.lane.as_str();
        let expected: Vec<_> = message.open(lane).map(|recipient| recipient.address.clone()).collect();
        let got: Vec<_> = leased.accepted.envelope.recipients.iter().map(ToString::to_string).collect();
        assert_eq!(got, expected);
        let attempts = message.open(lane).map(|recipient| recipient.attempts).max();
        assert_eq!(Some(leased.attempts), attempts);
        let job = message.jobs.get_mut(lane).expect("a job");
        assert!(!job.leased && job.due <= now, "leased twice, or too early");
        assert_eq!(leased.possible_duplicate, job.possible_duplicate);
        job.leased = true;
    }

    pub(super) fn settle(&mut self, leased: &Leased, settlements: &[Settlement], due: Timestamp) {
        let lane = leased.lane.as_str();
        let message = self.messages.get_mut(&leased.accepted.id).expect("a known message");
        let mut joined = message.open(lane).count() - settlements.len();
        let anybody_joined = joined > 0;
        let mut tried = 0;
        let mut untried = 0;
        let mut postponed = 0;
        for (address, settlement) in leased.accepted.envelope.recipients.iter().zip(settlements) {
            let at = message.recipients.iter().position(|r| r.address == address.to_string()).expect("a recipient");
            match settlement {
                Settlement::Delivered(_) => drop(message.recipients.remove(at)),
                Settlement::Untried => untried += 1,
                Settlement::Postponed => postponed += 1,
                Settlement::Deferred(_) | Settlement::Failed(_) => {
                    message.recipients[at].attempts += 1;
                    message.recipients[at].failed = matches!(settlement, Settlement::Failed(_));
                    tried += usize::from(matches!(settlement, Settlement::Deferred(_)));
                }
            }
        }
        self.delivered += settlements.iter().filter(|one| matches!(one, Settlement::Delivered(_))).count();
        joined += untried * usize::from(tried + postponed == 0);
        if message.open(lane).next().is_none() {
            message.jobs.remove(lane);
        } else if let Some(job) = message.jobs.get_mut(lane) {
            job.leased = false;
            job.possible_duplicate &= untried + postponed > 0 || anybody_joined;
            job.due = if joined == 0 { due } else { job.due };
        }
        self.messages.retain(|_, message| !message.recipients.is_empty());
    }

    pub(super) fn retry(&mut self, id: MailId, now: Timestamp) -> u64 {
        let Some(message) = self.messages.get_mut(&id) else { return 0 };
        let mut count = 0;
        for recipient in message.recipients.clone() {
            let leased = message.jobs.get(&recipient.lane).is_some_and(|job| job.leased);
            if recipient.failed || !leased {
                message.wait(&recipient.lane, now);
                count += 1;
            }
        }
        message.recipients.iter_mut().for_each(|recipient| recipient.failed = false);
        count
    }

    pub(super) fn replace(&mut self, revision: &Revision, now: Timestamp) -> bool {
        let message = self.messages.get_mut(&revision.id).filter(|message| !message.is_leased());
        let Some(message) = message else { return false };
        let possible_duplicate = message.jobs.values().any(|job| job.possible_duplicate);
        *message = Message::default();
        for (address, lane) in revision.envelope.recipients.iter().zip(&revision.lanes) {
            let address = address.to_string();
            let lane = lane.to_string();
            message.jobs.insert(lane.clone(), Job { due: now, leased: false, possible_duplicate });
            message.recipients.push(Recipient { address, lane, failed: false, attempts: 0 });
        }
        true
    }

    pub(super) fn remove(&mut self, id: MailId) -> u64 {
        let removable = self.messages.get(&id).is_some_and(|message| !message.is_leased());
        if removable {
            self.messages.remove(&id);
        }
        u64::from(removable)
    }

    pub(super) fn reassign_lanes(&mut self, lane_of: impl Fn(&str) -> String) {
        for message in self.messages.values_mut() {
            let before = message.jobs.clone();
            message.jobs.retain(|_, job| job.leased);
            for at in 0..message.recipients.len() {
                let recipient = &message.recipients[at];
                let job = before.get(&recipient.lane).filter(|_| !recipient.failed);
                if job.is_some_and(|job| job.leased) {
                    continue;
                }
                let to = lane_of(&recipient.address);
                if let Some(job) = job {
                    message.wait(&to, job.due);
                    message.jobs.get_mut(&to).expect("made").possible_duplicate |= job.possible_duplicate;
                }
                message.recipients[at].lane = to;
            }
        }
    }

    pub(super) fn crash(&mut self) {
        for job in self.messages.values_mut().flat_map(|message| message.jobs.values_mut()).filter(|job| job.leased) {
            (job.leased, job.possible_duplicate) = (false, true);
        }
    }

    /// The rows as a list shows them.
    pub(super) fn rows(&self) -> Vec<(String, Vec<RecipientRow>)> {
        let row = |message: &Message, recipient: &Recipient| {
            let job = message.jobs.get(&recipient.lane).filter(|_| !recipient.failed);
            let state = match job {
                None => RecipientState::Failed,
                Some(job) if job.leased => RecipientState::Leased,
                Some(_) => RecipientState::Waiting,
            };
            RecipientRow {
                address: recipient.address.clone(),
                state,
                lane: recipient.lane.clone(),
                attempts: recipient.attempts,
                due: job.filter(|job| !job.leased).map(|job| job.due),
                reason: None,
                delayed: false,
                instance: None,
            }
        };
        let rows = |message: &Message| message.recipients.iter().map(|recipient| row(message, recipient)).collect();
        self.messages.iter().map(|(id, message)| (id.to_string(), rows(message))).collect()
    }
}
