//! Leases messages: finds the next one on a lane and durably marks it as being worked on.
//!
//! Sender domains take turns. The index (lane, domain, due) is entered once per domain and never scanned, so the cost
//! depends on what is leased, not on what waits.

use super::envelope::{self, Damage, EnvelopeRecipient, MessageFields};
use super::failure::{Failure, is_damage};
use super::reassign::Reassignment;
use super::rows::{
    DAMAGED, LEASED, WAITING, from_column, from_lived, is_held, marks_from_column, open_on, origin_from_columns,
    signed, tally_of, unsigned,
};
use super::suspend;
use super::work::{Sql, Tally, Work};
use crate::message::accepted::Origin;
use crate::message::envelope::room_for_address;
use crate::message::{Envelope, MailId, Marks};
use crate::smtp::command::BodyType;
use crate::smtp::{Mailbox, ReversePath};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Maximum number of messages that one lease moves to other lanes.
const MAX_MOVED: usize = 100;

/// How many domains without due mail are visited before the oldest due messages are leased regardless of domain.
const MAX_LOOKS: usize = 256;

/// The domain that last had its turn, by lane.
pub(super) type Turns = Mutex<HashMap<String, String>>;

#[derive(Debug, Clone)]
pub(super) struct LeaseRequest {
    pub lane: Arc<str>,
    /// Milliseconds since 1970.
    pub now: i64,
    /// A due time after this one counts as due.
    pub horizon: i64,
    pub limit: usize,
    pub octets: u64,
}

/// A message marked as leased; its content is not read yet.
#[derive(Debug)]
pub(super) struct LeaseRow {
    pub message: i64,
    pub id: MailId,
    pub received_at: Timestamp,
    /// The time from which its age counts, by the queue's own clock.
    pub since: Duration,
    pub origin: Origin,
    pub marks: Marks,
    /// This lane's recipients only.
    pub envelope: Envelope,
    pub positions: Vec<i64>,
    pub size: u64,
    pub attempts: u32,
    pub possible_duplicate: bool,
    /// Number of recipients on all lanes, including failed ones.
    pub recipients: i64,
    pub fields: MessageFields,
    pub digest: Option<Vec<u8>>,
}

impl LeaseRow {
    /// `content`: the digest of its header and body.
    pub(super) fn verify(&self, content: &[u8]) -> Result<(), Damage> {
        let fits = self.digest.as_deref() == Some(&self.fields.digest(content));
        if fits { Ok(()) } else { Err(Damage::Message) }
    }
}

#[derive(Debug, Default)]
pub(super) struct LeaseRows {
    pub grants: Vec<LeaseRow>,
    /// Messages that were set aside, each with the reason for the log.
    pub damaged: Vec<(i64, String)>,
    /// Number of messages moved to the lanes of the current routes instead.
    moved: usize,
}

impl LeaseRows {
    fn is_moved(
        &mut self,
        work: &Work<'_>,
        message: i64,
        reassignment: Option<&Reassignment>,
    ) -> rusqlite::Result<bool> {
        let is_moved = reassignment.map_or(Ok(false), |reassignment| reassignment.catch_up(work, message))?;
        self.moved += usize::from(is_moved);
        Ok(is_moved)
    }

    /// Marks the message as leased, or sets it aside. Returns how many octets of memory it needs.
    fn take(&mut self, work: &Work<'_>, lane: &str, message: i64, possible_duplicate: bool) -> Result<u64, Failure> {
        match grant(work, lane, message, possible_duplicate) {
            Ok(grant) => {
                let recipients: usize = grant.envelope.recipients.iter().map(room_for_address).sum();
                let octets = grant.size.saturating_add(recipients as u64);
                self.grants.push(grant);
                Ok(octets)
            }
            Err(error) if is_damage(&error) => {
                set_aside(work, message, lane)?;
                self.damaged.push((message, error.to_string()));
                Ok(0)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Maximum number of messages examined for their age in one operation.
const MAX_OLD_LOOKS: usize = 1000;

#[derive(Debug, Clone)]
pub(super) struct ExpiredRequest {
    pub lane: Arc<str>,
    /// Milliseconds of the queue's own clock; messages that came later are skipped.
    pub since: i64,
    /// Key of the last message examined before.
    pub after: i64,
    pub limit: usize,
    pub octets: u64,
}

/// Returns the key of the last message examined; `None`: all after it are younger. The search follows the order of
/// acceptance and ends at the first message that came in later. (A failed message that is tried again can be younger
/// than its acceptance, never older.)
pub(super) fn lease_expired(
    work: &Work<'_>,
    request: &ExpiredRequest,
    reassignment: Option<&Reassignment>,
) -> Result<(LeaseRows, Option<i64>), Failure> {
    let mut granted = LeaseRows::default();
    if is_held(work, &request.lane)? {
        return Ok((granted, None));
    }
    let jobs = work.all(
        "SELECT job.message, job.lane = ?3 AND job.state = 0, job.suspect, message.since, message.lived
         FROM job CROSS JOIN message ON message.key = job.message WHERE job.message > ?1 ORDER BY job.message LIMIT ?2",
        (request.after, signed(MAX_OLD_LOOKS), &request.lane),
        |row| Ok((row.get(0)?, row.get::<_, bool>(1)?, row.get(2)?, row.get::<_, i64>(3)?, row.get::<_, i64>(4)?)),
    )?;
    let mut octets = 0;
    let mut last = None;
    let looked_at = jobs.len();
    for (message, is_waiting_here, possible_duplicate, since, lived) in jobs {
        if lived > request.since {
            return Ok((granted, None));
        }
        if granted.grants.len() == request.limit || octets >= request.octets {
            return Ok((granted, last));
        }
        if is_waiting_here && since <= request.since && !granted.is_moved(work, message, reassignment)? {
            octets += granted.take(work, &request.lane, message, possible_duplicate)?;
        }
        last = Some(message);
    }
    // The message's jobs on other lanes may come after the last one seen.
    Ok((granted, last.filter(|_| looked_at == MAX_OLD_LOOKS).map(|message| message - 1)))
}

pub(super) fn lease(
    work: &Work<'_>,
    request: &LeaseRequest,
    turns: &Turns,
    reassignment: Option<&Reassignment>,
) -> Result<LeaseRows, Failure> {
    let mut granted = LeaseRows::default();
    if is_held(work, &request.lane)? {
        return Ok(granted);
    }
    suspend::release_due(work, &request.lane, request.now, request.limit)?;
    let before = turns.lock().get(&*request.lane).cloned();
    let mut round = Round { work, request, at: before, barren_since: None, looks: 0 };
    let mut octets = 0;
    while granted.grants.len() < request.limit && octets < request.octets && granted.moved < MAX_MOVED {
        let Some((message, possible_duplicate)) = round.next()? else { break };
        if granted.is_moved(work, message, reassignment)? {
            // Its recipients that stay on this lane are found again.
            continue;
        }
        octets += granted.take(work, &request.lane, message, possible_duplicate)?;
    }
    if let Some(domain) = round.at {
        turns.lock().insert(request.lane.to_string(), domain);
    }
    Ok(granted)
}

/// Finds one due message after another, one domain at a time.
struct Round<'a, 'b> {
    work: &'a Work<'b>,
    request: &'a LeaseRequest,
    at: Option<String>,
    /// The first of the consecutive domains visited that have nothing due.
    barren_since: Option<String>,
    looks: usize,
}

impl Round<'_, '_> {
    fn next(&mut self) -> rusqlite::Result<Option<(i64, bool)>> {
        if oldest_due(self.work, self.request)?.is_none() {
            return Ok(None);
        }
        while self.looks < MAX_LOOKS {
            let Some(domain) = self.next_domain()? else { return Ok(None) };
            if self.barren_since.as_ref() == Some(&domain) {
                return Ok(None);
            }
            let found = due_of(self.work, self.request, &domain)?;
            match found {
                Some(_) => self.barren_since = None,
                None => {
                    self.looks += 1;
                    self.barren_since.get_or_insert_with(|| domain.clone());
                }
            }
            self.at = Some(domain);
            if found.is_some() {
                return Ok(found);
            }
        }
        oldest_due(self.work, self.request)
    }

    fn next_domain(&self) -> rusqlite::Result<Option<String>> {
        let lane = &self.request.lane;
        if let Some(at) = &self.at {
            let next = self.work.first(
                "SELECT domain FROM job INDEXED BY job_turns WHERE state = 0 AND lane = ?1 AND domain > ?2
                 ORDER BY domain LIMIT 1",
                (lane, at),
                |row| row.get(0),
            )?;
            if next.is_some() {
                return Ok(next);
            }
        }
        self.work.first(
            "SELECT domain FROM job INDEXED BY job_turns WHERE state = 0 AND lane = ?1 ORDER BY domain LIMIT 1",
            [lane],
            |row| row.get(0),
        )
    }
}

fn due_of(work: &Work<'_>, request: &LeaseRequest, domain: &str) -> rusqlite::Result<Option<(i64, bool)>> {
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let due = work.first(
        "SELECT message, suspect FROM job INDEXED BY job_turns WHERE state = 0 AND lane = ?1 AND domain = ?2 AND due <= ?3
         ORDER BY due LIMIT 1",
        (&request.lane, domain, request.now),
        read,
    )?;
    if due.is_some() {
        return Ok(due);
    }
    work.first(
        "SELECT message, suspect FROM job INDEXED BY job_turns WHERE state = 0 AND lane = ?1 AND domain = ?2 AND due > ?3
         ORDER BY due LIMIT 1",
        (&request.lane, domain, request.horizon),
        read,
    )
}

fn oldest_due(work: &Work<'_>, request: &LeaseRequest) -> rusqlite::Result<Option<(i64, bool)>> {
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let due = work.first(
        "SELECT message, suspect FROM job INDEXED BY job_due WHERE state = 0 AND lane = ?1 AND due <= ?2
         ORDER BY due LIMIT 1",
        (&request.lane, request.now),
        read,
    )?;
    if due.is_some() {
        return Ok(due);
    }
    work.first(
        "SELECT message, suspect FROM job INDEXED BY job_due WHERE state = 0 AND lane = ?1 AND due > ?2
         ORDER BY due LIMIT 1",
        (&request.lane, request.horizon),
        read,
    )
}

fn grant(work: &Work<'_>, lane: &str, message: i64, possible_duplicate: bool) -> rusqlite::Result<LeaseRow> {
    let mut grant = read_message(work, message)?;
    grant.possible_duplicate = possible_duplicate;
    let rows = envelope::verified_recipients(work, message, grant.id.as_str(), grant.recipients)?;
    let here = |row: &EnvelopeRecipient| row.fields.lane == lane && row.fields.failed_at.is_none();
    for EnvelopeRecipient { fields, attempts, .. } in rows.into_iter().filter(here) {
        let mailbox = Mailbox::parse(&fields.address).map_err(|error| super::rows::bad_text(1, error))?;
        grant.envelope.add_recipient(mailbox);
        grant.positions.push(fields.position);
        grant.attempts = grant.attempts.max(u32::try_from(attempts).unwrap_or(u32::MAX));
    }
    if grant.positions.is_empty() {
        return Err(rusqlite::Error::QueryReturnedNoRows);
    }
    mark(work, message, lane, LEASED)?;
    let count = signed(grant.positions.len());
    work.count(lane, Tally { waiting: -count, leased: count, ..Tally::default() });
    Ok(grant)
}

/// Lease and recipients are read separately.
pub(super) fn read_message(sql: &Sql<'_>, message: i64) -> rusqlite::Result<LeaseRow> {
    let found = sql.first(
        "SELECT id, received_at, sender, eight_bit, smtputf8, size, subject, listener, user, marks, since, recipients, digest
         FROM message WHERE key = ?1",
        [message],
        |row| {
            let fields = MessageFields::of_row(row)?;
            let sender = match &fields.sender {
                Some(text) => {
                    ReversePath::Mailbox(Mailbox::parse(text).map_err(|error| super::rows::bad_text(2, error))?)
                }
                None => ReversePath::Null,
            };
            let mut envelope = Envelope::new(sender);
            envelope.body = if fields.eight_bit == 0 { BodyType::SevenBit } else { BodyType::EightBitMime };
            envelope.smtputf8 = fields.smtputf8 != 0;
            Ok(LeaseRow {
                message,
                id: fields.id.parse().map_err(|error| super::rows::bad_text(0, error))?,
                received_at: from_column(fields.received_at),
                since: from_lived(row.get(10)?),
                origin: origin_from_columns(row, 7, 8)?,
                marks: marks_from_column(row, 9)?,
                envelope,
                positions: Vec::new(),
                size: unsigned(fields.size),
                attempts: 0,
                possible_duplicate: false,
                recipients: row.get(11)?,
                digest: row.get(12)?,
                fields,
            })
        },
    )?;
    found.ok_or(rusqlite::Error::QueryReturnedNoRows)
}

fn mark(work: &Work<'_>, message: i64, lane: &str, state: i64) -> rusqlite::Result<()> {
    work.execute("UPDATE job SET state = ?3 WHERE message = ?1 AND lane = ?2", (message, lane, state))?;
    Ok(())
}

/// A message that is set aside is never retried automatically.
pub(super) fn set_aside(work: &Work<'_>, message: i64, lane: &str) -> Result<(), Failure> {
    let state =
        work.first("SELECT state FROM job WHERE message = ?1 AND lane = ?2", (message, lane), |row| row.get(0))?;
    let state: i64 = state.unwrap_or(WAITING);
    // The recipients may be the unreadable part.
    let count = open_on(work, message, lane).unwrap_or(0);
    mark(work, message, lane, DAMAGED)?;
    work.count(lane, tally_of(state, -count));
    work.count(lane, tally_of(DAMAGED, count));
    Ok(())
}
