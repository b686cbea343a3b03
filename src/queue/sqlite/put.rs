//! Stores one message: once this transaction is committed, we are responsible for it.

use super::deduplication;
use super::envelope::{MessageFields, RecipientFields};
use super::failure::Failure;
use super::rows::{
    LEASED, Summary, is_held, marks_to_column, note_attempts, note_delivered, signed, to_column, wait_on,
};
use super::space::PAGE;
use super::work::{Tally, Work};
use crate::message::accepted::Accepted;
use crate::message::message_id;
use crate::queue::{InitialState, Lane, NewMail, QueueError, Suspension, domain_of};
use crate::smtp::command::BodyType;
use aws_lc_rs::digest::{Context, SHA256};

/// A message ready to be written; its large parts are already in their files.
#[derive(Debug)]
pub(super) struct PreparedPut {
    pub mail: NewMail,
    pub digest: Vec<u8>,
    /// Milliseconds of the queue's own clock.
    pub lived: i64,
    pub body_in_file: bool,
    pub original_in_file: bool,
    /// Leased for a delivery loop that waits for it, unless its lane is held.
    pub is_awaited: bool,
}

/// What became of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PutState {
    Waiting,
    /// All its recipients are; the message's key.
    Leased(i64),
}

impl PreparedPut {
    /// An upper bound for what it adds to the database: its texts, and rows with their indexes for it and each
    /// recipient.
    pub(super) fn octets(&self) -> u64 {
        let message = &self.mail.accepted.message;
        let original = self.mail.original.as_ref();
        let body = if self.body_in_file { 0 } else { message.body().len() };
        let original = original.filter(|_| !self.original_in_file).map_or(0, |original| original.len());
        let recipients = self.mail.accepted.envelope.recipients.len() * 512;
        let remembered = if self.mail.deduplication.is_some() { 256 } else { 0 };
        (message.header().len() + body + original + recipients + remembered) as u64 + PAGE / 2
    }
}

/// Over the header and the body, to detect damage when they are read.
pub(super) fn digest(header: &[u8], body: &[u8]) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    context.update(header);
    context.update(body);
    context.finish().as_ref().to_vec()
}

/// True if a recipient must still be stored, which is any that is not delivered.
pub(super) fn is_to_be_kept(mail: &NewMail) -> bool {
    mail.initial_states.iter().any(|initial_state| !matches!(initial_state, InitialState::Delivered(_)))
}

pub(super) fn put(work: &Work<'_>, prepared: &PreparedPut) -> Result<PutState, Failure> {
    let mail = &prepared.mail;
    let accepted = &*prepared.mail.accepted;
    if mail.initial_states.len() != accepted.envelope.recipients.len() {
        return Err(QueueError::Storage("a message needs one initial state per recipient".into()).into());
    }
    let delivered: Vec<_> = recipients(mail)
        .filter_map(|(_, recipient, initial_state)| match initial_state {
            InitialState::Delivered(delivered) => Some((delivered, recipient)),
            _ => None,
        })
        .collect();
    if !delivered.is_empty() {
        note_delivered(work, &summary(mail), &delivered, prepared.lived)?;
    }
    let mut state = PutState::Waiting;
    if is_to_be_kept(mail) {
        let message = put_message(work, prepared)?;
        put_content(work, message, prepared)?;
        match mail.only_lane().filter(|_| prepared.is_awaited) {
            Some(lane) if !is_held(work, lane.as_str())? => {
                put_leased(work, message, mail, lane)?;
                state = PutState::Leased(message);
            }
            _ => put_recipients(work, message, prepared)?,
        }
    }
    if let Some(deduplication) = &mail.deduplication {
        deduplication::remember(work, accepted.id, deduplication, prepared.lived)?;
    }
    Ok(state)
}

fn recipients(mail: &NewMail) -> impl Iterator<Item = (i64, String, &InitialState)> {
    let addresses = mail.accepted.envelope.recipients.iter().map(ToString::to_string);
    (0..)
        .zip(addresses.zip(&mail.initial_states))
        .map(|(position, (address, initial_state))| (position, address, initial_state))
}

fn summary(mail: &NewMail) -> Summary {
    let accepted = &mail.accepted;
    Summary {
        id: accepted.id.to_string(),
        received_at: to_column(accepted.received_at),
        sender: sender(accepted),
        subject: mail.subject.clone(),
        size: signed(accepted.message.size()),
        message_id: message_id(accepted.message.header()),
    }
}

fn sender(accepted: &Accepted) -> Option<String> {
    accepted.envelope.sender.mailbox().map(ToString::to_string)
}

fn put_message(work: &Work<'_>, prepared: &PreparedPut) -> rusqlite::Result<i64> {
    let fields = message_fields(&prepared.mail);
    let kept = prepared
        .mail
        .initial_states
        .iter()
        .filter(|initial_state| !matches!(initial_state, InitialState::Delivered(_)))
        .count();
    let digest = fields.digest(&prepared.digest);
    let row = NewMessageRow {
        fields,
        since: prepared.lived,
        lived: prepared.lived,
        recipients: signed(kept),
        digest,
        message_id: message_id(prepared.mail.accepted.message.header()),
    };
    row.insert(work)
}

fn message_fields(mail: &NewMail) -> MessageFields {
    let accepted = &*mail.accepted;
    let Accepted { origin, marks, envelope, .. } = accepted;
    MessageFields {
        id: accepted.id.to_string(),
        received_at: to_column(accepted.received_at),
        sender: sender(accepted),
        eight_bit: i64::from(envelope.body == BodyType::EightBitMime),
        smtputf8: i64::from(envelope.smtputf8),
        size: signed(accepted.message.size()),
        subject: mail.subject.clone(),
        listener: origin.listener.as_deref().map(str::to_owned),
        user: origin.user.as_deref().map(str::to_owned),
        marks: marks_to_column(marks),
    }
}

fn put_content(work: &Work<'_>, message: i64, prepared: &PreparedPut) -> rusqlite::Result<()> {
    let content = &prepared.mail.accepted.message;
    let body = (!prepared.body_in_file).then(|| &content.body()[..]);
    let original = prepared.mail.original.as_ref();
    let original = original.map(|original| (!prepared.original_in_file).then_some(&original[..]));
    put_texts(work, message, (content.header(), body, &prepared.digest), original)
}

/// Header, body and their digest, and the original if there is one; `None` for a part that is in a file.
pub(super) fn put_texts(
    work: &Work<'_>,
    message: i64,
    (header, body, digest): (&[u8], Option<&[u8]>, &[u8]),
    original: Option<Option<&[u8]>>,
) -> rusqlite::Result<()> {
    work.execute(
        "INSERT INTO content (message, header, body, digest) VALUES (?1, ?2, ?3, ?4)",
        (message, header, body, digest),
    )?;
    if let Some(data) = original {
        work.execute("INSERT INTO original (message, data) VALUES (?1, ?2)", (message, data))?;
    }
    Ok(())
}

fn put_recipients(
    work: &Work<'_>,
    message: i64,
    PreparedPut { mail, lived, .. }: &PreparedPut,
) -> rusqlite::Result<()> {
    let domain = domain_of(sender(&mail.accepted).as_deref());
    let at_once = to_column(mail.accepted.received_at);
    let mut attempts = Vec::new();
    let mut last_job = None;
    for (position, address, initial_state) in recipients(mail) {
        let (lane, due, attempt, failed_at, reason) = match initial_state {
            InitialState::Waiting(lane) => (lane.clone(), Some(at_once), None, None, None),
            InitialState::Delayed { lane, due, reason } => {
                (Suspension::Delayed.of(lane.as_str()), Some(to_column(*due)), None, None, Some(reason))
            }
            InitialState::Held { lane, reason } => {
                (Suspension::Held.of(lane.as_str()), Some(at_once), None, None, Some(reason))
            }
            InitialState::Deferred { lane, due, attempt } => {
                (lane.clone(), Some(to_column(*due)), Some(attempt), None, Some(&attempt.text))
            }
            InitialState::Failed { lane, attempt } => {
                (lane.clone(), None, Some(attempt), Some(*lived), Some(&attempt.text))
            }
            InitialState::Delivered(_) => continue,
        };
        attempts.extend(attempt);
        let recipient = RecipientFields { position, address, lane: lane.to_string(), failed_at };
        let progress = RecipientProgress {
            attempts: attempt.is_some().into(),
            upstream: attempt.and_then(|attempt| attempt.upstream.as_deref()),
            reason: reason.map(String::as_str),
        };
        put_recipient(work, (message, mail.accepted.id.as_str()), &recipient, &progress)?;
        if let Some(due) = due {
            let job = (lane.clone(), due, attempt.is_some_and(|attempt| attempt.possible_duplicate));
            // Hundreds of recipients on one lane share one job.
            if last_job.as_ref() != Some(&job) {
                wait_on(work, message, lane.as_str(), &domain, due, job.2)?;
                last_job = Some(job);
            }
            work.count(lane.as_str(), Tally { waiting: 1, ..Tally::default() });
        } else {
            work.count(lane.as_str(), Tally { failed: 1, ..Tally::default() });
        }
    }
    note_attempts(work, message, &attempts)
}

/// With one job, which is leased from the beginning.
fn put_leased(work: &Work<'_>, message: i64, mail: &NewMail, lane: &Lane) -> rusqlite::Result<()> {
    let due = to_column(mail.accepted.received_at);
    let domain = domain_of(sender(&mail.accepted).as_deref());
    for (position, address, _) in recipients(mail) {
        let recipient = RecipientFields { position, address, lane: lane.to_string(), failed_at: None };
        put_recipient(work, (message, mail.accepted.id.as_str()), &recipient, &RecipientProgress::default())?;
        work.count(lane.as_str(), Tally { leased: 1, ..Tally::default() });
    }
    work.execute(
        "INSERT INTO job (message, lane, domain, due, state, suspect) VALUES (?1, ?2, ?3, ?4, ?5, 0)",
        (message, lane.as_str(), domain, due, LEASED),
    )?;
    Ok(())
}

/// A message that is put in: from an application, or from another queue.
#[derive(Debug)]
pub(super) struct NewMessageRow {
    pub fields: MessageFields,
    /// Milliseconds of the queue's own clock, as `lived`: what its age counts from.
    pub since: i64,
    pub lived: i64,
    pub recipients: i64,
    pub digest: Vec<u8>,
    pub message_id: Option<String>,
}

impl NewMessageRow {
    /// Returns its key.
    pub(super) fn insert(self, work: &Work<'_>) -> rusqlite::Result<i64> {
        let fields = self.fields;
        let key = work.first(
            "INSERT INTO message (id, received_at, since, lived, sender, eight_bit, smtputf8, size, subject, listener, user,
             marks, recipients, digest, message_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) RETURNING key",
            (
                fields.id,
                fields.received_at,
                self.since,
                self.lived,
                fields.sender,
                fields.eight_bit,
                fields.smtputf8,
                fields.size,
                fields.subject,
                fields.listener,
                fields.user,
                fields.marks,
                self.recipients,
                self.digest,
                self.message_id,
            ),
            |row| row.get(0),
        )?;
        key.ok_or(rusqlite::Error::QueryReturnedNoRows)
    }
}

/// What was tried for a recipient before it is put in. Not under its digest.
#[derive(Debug, Default)]
pub(super) struct RecipientProgress<'a> {
    pub attempts: u32,
    pub upstream: Option<&'a str>,
    pub reason: Option<&'a str>,
}

/// `message`: its key and its id.
pub(super) fn put_recipient(
    work: &Work<'_>,
    (message, id): (i64, &str),
    recipient: &RecipientFields,
    progress: &RecipientProgress<'_>,
) -> rusqlite::Result<()> {
    work.execute(
        "INSERT INTO recipient (message, position, address, lane, failed_at, attempts, upstream, reason, digest)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        (
            message,
            recipient.position,
            &recipient.address,
            &recipient.lane,
            recipient.failed_at,
            progress.attempts,
            progress.upstream,
            progress.reason,
            recipient.digest(id),
        ),
    )?;
    Ok(())
}
