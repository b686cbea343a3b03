//! Messages in the form that belongs to no backend: reads them, and stores those that come from elsewhere.

use super::batch::Addition;
use super::bodies::{Bodies, BodyFile, MAX_INLINE};
use super::envelope::{MessageFields, RecipientFields};
use super::failure::{Failure, of_io};
use super::inspect::{Inspected, InspectedRecipient, Inspector};
use super::put::{NewMessageRow, RecipientProgress, digest, put_recipient, put_texts};
use super::rows::{
    DAMAGED, LEASED, Summary, WAITING, from_column, from_lived, key_of, lived_to_column, marks_to_column,
    note_attempts, signed, to_column, unsigned,
};
use super::space::PAGE;
use super::store::{SqliteStore, write_files};
use super::work::{Sql, Tally, Work};
use super::{SqliteQueue, deduplication, reassign};
use crate::message::{MailId, message_id};
use crate::queue::portable::{
    ImportSource, Imported, PortableContent, PortableHistory, PortableJob, PortableKey, PortableMail,
    PortableRecipient, Transfer, milliseconds,
};
use crate::queue::{Attempted, Deduplication, QueueError, detached, domain_of};
use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::types::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;

#[async_trait]
impl Transfer for SqliteQueue {
    async fn portable(&self, id: MailId) -> Result<Option<PortableMail>, QueueError> {
        let bodies = self.store.bodies.clone();
        let lived = lived_to_column(self.store.lifetime.now());
        self.store
            .read(move |sql| {
                let Some(key) = key_of(sql, id)? else { return Ok(None) };
                let found = Inspector { connection: sql.connection(), bodies: &bodies, covered: true }.inspect(key);
                let read = portable_of(found, &bodies, lived);
                Ok(Some(read.map_err(|reason| QueueError::Storage(format!("{id} is damaged: {reason}")))?))
            })
            .await
    }

    async fn import(&self, mail: PortableMail, source: ImportSource) -> Result<Imported, QueueError> {
        let store = self.store.clone();
        let imported = detached(async move { store.import(mail, source).await }).await?;
        self.wakeups.wake_all();
        Ok(imported)
    }

    async fn import_keys(&self, keys: Vec<PortableKey>) -> Result<Vec<MailId>, QueueError> {
        let lived = lived_to_column(self.store.lifetime.now());
        let import = move |work: &Work<'_>| {
            let mut others = Vec::new();
            for known in &keys {
                let Some(key) = known.key() else { continue };
                match deduplication::stored_under(work, key, lived)? {
                    Some(first) if first != known.id => others.push(known.id),
                    _ => {
                        let remembered = Deduplication { key, window: known.window() };
                        deduplication::remember(work, known.id, &remembered, lived)?;
                    }
                }
            }
            Ok(others)
        };
        self.store.writer.call_if_there_is_room(import).await
    }

    async fn import_history(&self, rows: Vec<PortableHistory>) -> Result<u64, QueueError> {
        let lived = lived_to_column(self.store.lifetime.now());
        self.store.writer.call_if_there_is_room(move |work| import_history(work, &rows, lived)).await
    }
}

/// For what moves messages elsewhere, with what they are remembered by.
impl SqliteQueue {
    /// At most so many keys whose time is not over.
    pub(in crate::queue) async fn keys(&self, most: usize) -> Result<Vec<PortableKey>, QueueError> {
        let lived = lived_to_column(self.store.lifetime.now());
        let rows = self.store.read(move |sql| Ok(deduplication::after(sql, &[], lived, signed(most))?)).await?;
        let portable = |(key, id, until): deduplication::KeyRow| {
            let (key, id) = (key.as_slice().try_into().ok()?, id.parse().ok()?);
            portable_key(key, id, until, lived)
        };
        Ok(rows.into_iter().filter_map(portable).collect())
    }

    pub(in crate::queue) async fn forget_keys(&self, keys: Vec<PortableKey>) -> Result<(), QueueError> {
        let forget = move |work: &Work<'_>| {
            for known in &keys {
                known.key().map_or(Ok(()), |key| deduplication::forget(work, known.id, key))?;
            }
            Ok(())
        };
        self.store.writer.call(forget).await
    }
}

impl SqliteStore {
    async fn import(self: Arc<Self>, mail: PortableMail, source: ImportSource) -> Result<Imported, QueueError> {
        let id = mail.id;
        // The files of a message that is there must not be touched.
        if self.read(move |sql| Ok(key_of(sql, id)?)).await?.is_some() {
            return Ok(Imported::Present);
        }
        let prepared = Arc::new(self.prepare_import(mail, source).await?);
        let octets = prepared.octets();
        let addition = Addition { id, octets, key: None };
        let stored = self.writer.add(addition, {
            let prepared = prepared.clone();
            move |work| prepared.store(work)
        });
        let stored = stored.await;
        if !matches!(stored, Ok(Imported::Stored)) {
            self.remove_files(prepared.files().map(|part| (id, part)).collect()).await;
        }
        stored
    }

    /// Writes large parts to their files, before the transaction that names them.
    async fn prepare_import(&self, mail: PortableMail, source: ImportSource) -> Result<PreparedImport, QueueError> {
        let (bodies, surroundings) = (self.bodies.clone(), self.surroundings.clone());
        let lived = lived_to_column(self.lifetime.now());
        let prepare = move || {
            let PortableContent { header, body, original } = &mail.content;
            let prepared = PreparedImport { digest: digest(header, body), lived, source, mail: mail.clone() };
            let in_file = |part| prepared.files().any(|written| written == part);
            let body = in_file(BodyFile::Body).then_some(&body[..]);
            let original = original.as_deref().filter(|_| in_file(BodyFile::Original));
            let octets = body.map_or(0, <[u8]>::len) + original.map_or(0, <[u8]>::len);
            if octets > 0 {
                surroundings.files.look()?;
                let _until_they_are_there = surroundings.space.promise(octets as u64)?;
                write_files(&bodies, mail.id, body, original).map_err(|error| of_io(&error))?;
            }
            Ok(prepared)
        };
        spawn_blocking(prepare).await.map_err(|_| QueueError::fault())?
    }
}

/// A message whose large parts are in their files.
struct PreparedImport {
    mail: PortableMail,
    digest: Vec<u8>,
    lived: i64,
    source: ImportSource,
}

impl PreparedImport {
    fn files(&self) -> impl Iterator<Item = BodyFile> {
        let PortableContent { body, original, .. } = &self.mail.content;
        let is_large = |part: Option<&Bytes>| part.is_some_and(|part| inline(part).is_none());
        let body = is_large(Some(body)).then_some(BodyFile::Body);
        body.into_iter().chain(is_large(original.as_ref()).then_some(BodyFile::Original))
    }

    fn octets(&self) -> u64 {
        let PortableContent { header, body, original } = &self.mail.content;
        let length = |part: &Bytes| inline(part).map_or(0, <[u8]>::len);
        let recipients = self.mail.recipients.len() * 512;
        (header.len() + length(body) + original.as_ref().map_or(0, length) + recipients) as u64 + PAGE / 2
    }

    fn store(&self, work: &Work<'_>) -> Result<Imported, Failure> {
        if key_of(work, self.mail.id)?.is_some() {
            return Ok(Imported::Present);
        }
        let delivered = delivered_to(work, self.mail.id)?;
        let Some(mail) = self.mail.clone().without(&delivered) else { return Ok(Imported::Delivered) };
        let message = self.store_message(work, &mail)?;
        let PortableContent { header, body, original } = &mail.content;
        let texts = (&header[..], inline(body), &self.digest[..]);
        put_texts(work, message, texts, original.as_ref().map(inline))?;
        mail.recipients.iter().try_for_each(|recipient| self.store_recipient(work, message, &mail, recipient))?;
        let domain = domain_of(mail.sender.as_deref());
        for (lane, PortableJob { due, possible_duplicate, set_aside }) in &mail.jobs {
            let state = if *set_aside { DAMAGED } else { WAITING };
            work.execute(
                "INSERT INTO job (message, lane, domain, due, state, suspect) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                (message, lane, &domain, to_column(*due), state, possible_duplicate),
            )?;
        }
        note_attempts(work, message, &mail.attempts.iter().collect::<Vec<_>>())?;
        // It may be older than what is there, and its lanes may be those of other routes.
        work.bring_back_mail();
        if self.source == ImportSource::Elsewhere {
            reassign::forget_fingerprint(work)?;
        }
        Ok(Imported::Stored)
    }

    fn store_message(&self, work: &Work<'_>, mail: &PortableMail) -> rusqlite::Result<i64> {
        let fields = MessageFields {
            id: mail.id.to_string(),
            received_at: to_column(mail.received_at),
            sender: mail.sender.clone(),
            eight_bit: i64::from(mail.eight_bit),
            smtputf8: i64::from(mail.smtputf8),
            size: signed(mail.size()),
            subject: mail.subject.clone(),
            listener: mail.listener.clone(),
            user: mail.user.clone(),
            marks: marks_to_column(&mail.marks),
        };
        let digest = fields.digest(&self.digest);
        let since = |age: u64| self.lived.saturating_sub(signed(age));
        let row = NewMessageRow {
            fields,
            since: since(mail.age),
            lived: since(mail.accepted),
            recipients: signed(mail.recipients.len()),
            digest,
            message_id: message_id(&mail.content.header),
        };
        row.insert(work)
    }

    fn store_recipient(
        &self,
        work: &Work<'_>,
        message: i64,
        mail: &PortableMail,
        recipient: &PortableRecipient,
    ) -> rusqlite::Result<()> {
        let PortableRecipient { position, address, lane, failed, attempts, upstream, reason, .. } = recipient;
        let failed_at = failed.map(|failed| self.lived.saturating_sub(signed(failed)));
        let fields =
            RecipientFields { position: i64::from(*position), address: address.clone(), lane: lane.clone(), failed_at };
        let progress =
            RecipientProgress { attempts: *attempts, upstream: upstream.as_deref(), reason: reason.as_deref() };
        put_recipient(work, (message, mail.id.as_str()), &fields, &progress)?;
        let is_set_aside = mail.jobs.get(lane).is_some_and(|job| job.set_aside);
        let tally = match failed {
            Some(_) => Tally { failed: 1, ..Tally::default() },
            None if is_set_aside => Tally { damaged: 1, ..Tally::default() },
            None => Tally { waiting: 1, ..Tally::default() },
        };
        work.count(lane, tally);
        Ok(())
    }
}

/// `None`: it is in a file.
fn inline(part: &Bytes) -> Option<&[u8]> {
    (part.len() <= MAX_INLINE).then_some(&part[..])
}

/// Who has a message already.
fn delivered_to(sql: &Sql<'_>, id: MailId) -> rusqlite::Result<Vec<String>> {
    let lists =
        sql.all("SELECT recipients FROM history WHERE id = ?1", [id.as_str()], |row| row.get::<_, String>(0))?;
    let read = |list: &String| serde_json::from_str::<Vec<String>>(list).unwrap_or_default();
    Ok(lists.iter().flat_map(read).collect())
}

fn import_history(work: &Work<'_>, rows: &[PortableHistory], lived: i64) -> Result<u64, Failure> {
    let mut added = 0;
    for row in rows {
        let recipients = serde_json::to_string(&row.recipients).unwrap_or_default();
        let is_known = work.first(
            "SELECT 1 FROM history WHERE id = ?1 AND at = ?2 AND recipients = ?3",
            (row.id.as_str(), to_column(row.delivery.at), &recipients),
            |_| Ok(()),
        )?;
        if is_known.is_some() {
            continue;
        }
        let summary = Summary {
            id: row.id.to_string(),
            received_at: to_column(row.received_at),
            sender: row.sender.clone(),
            subject: row.subject.clone(),
            size: signed(row.size),
            message_id: row.message_id.clone(),
        };
        summary.insert(work, &recipients, &row.delivery, lived.saturating_sub(signed(row.ago)))?;
        added += 1;
    }
    Ok(added)
}

/// `lived`: the queue's own clock now. `Err`: what is wrong with the message.
pub(super) fn portable_of(found: Inspected, bodies: &Bodies, lived: i64) -> Result<PortableMail, String> {
    if !found.is_well() {
        return Err(found.faults.join("; "));
    }
    let missing = || "a part of it is missing".to_owned();
    let (message, content) = (found.message.ok_or_else(missing)?, found.content.ok_or_else(missing)?);
    let id: MailId = message.id.parse().map_err(|_| "its name is not valid".to_owned())?;
    let ago = |then: i64| milliseconds(from_lived(lived.saturating_sub(then)));
    let from_file = |part| {
        let mut data = Vec::new();
        bodies.read((id, part), &mut data).map_err(|error| format!("a part of it cannot be read: {error}"))?;
        Ok::<_, String>(data)
    };
    let body = content.body.map_or_else(|| from_file(BodyFile::Body), Ok)?;
    let original = found.original.map(|data| data.map_or_else(|| from_file(BodyFile::Original), Ok)).transpose()?;
    let attempts: Vec<Attempted> = found.attempts.iter().filter_map(|row| attempt_of(row)).collect();
    let recipients = found.recipients.into_iter().map(|recipient| recipient_of(recipient, &attempts, ago)).collect();
    let marks = message.marks.as_deref().map(serde_json::from_str).transpose();
    let mut mail = PortableMail {
        id,
        received_at: from_column(message.received_at),
        sender: message.sender,
        eight_bit: message.eight_bit != 0,
        smtputf8: message.smtputf8 != 0,
        subject: message.subject,
        listener: message.listener,
        user: message.user,
        marks: marks.map_err(|error| error.to_string())?.unwrap_or_default(),
        age: found.since.map_or(0, ago),
        accepted: found.lived.map_or(0, ago),
        recipients,
        jobs: Default::default(),
        attempts,
        content: PortableContent {
            header: content.header.into(),
            body: body.into(),
            original: original.map(Into::into),
        },
    };
    for job in found.jobs {
        let is_leased = job.state == LEASED;
        let portable = PortableJob {
            due: from_column(job.due),
            possible_duplicate: job.possible_duplicate || is_leased,
            set_aside: !is_leased && job.state != WAITING,
        };
        mail.jobs.insert(job.lane, portable);
    }
    mail.check()?;
    Ok(mail)
}

/// `ago`: how long before now something was, in milliseconds of the queue's own clock.
fn recipient_of(found: InspectedRecipient, attempts: &[Attempted], ago: impl Fn(i64) -> u64) -> PortableRecipient {
    let InspectedRecipient { row, upstream, reason } = found;
    let is_its_own = |attempt: &&Attempted| Some(&attempt.text) == reason.as_ref() && attempt.upstream == upstream;
    PortableRecipient {
        position: u32::try_from(row.fields.position).unwrap_or(u32::MAX),
        failed: row.fields.failed_at.map(ago),
        attempts: u32::try_from(row.attempts).unwrap_or(u32::MAX),
        in_doubt: attempts.iter().filter(is_its_own).any(|attempt| attempt.possible_duplicate),
        address: row.fields.address,
        lane: row.fields.lane,
        upstream,
        reason,
    }
}

/// message, number, at, upstream, text, possible_duplicate
fn attempt_of(row: &[Value]) -> Option<Attempted> {
    let [_, _, Value::Integer(at), upstream, Value::Text(text), Value::Integer(possible_duplicate)] = row else {
        return None;
    };
    let upstream = match upstream {
        Value::Text(name) => Some(name.clone()),
        _ => None,
    };
    Some(Attempted { at: from_column(*at), upstream, text: text.clone(), possible_duplicate: *possible_duplicate != 0 })
}

/// `None`: its time is over.
pub(super) fn portable_key(key: &[u8; 32], id: MailId, until: i64, lived: i64) -> Option<PortableKey> {
    let left = unsigned(until.saturating_sub(lived));
    (left > 0).then(|| PortableKey::of(key, id, Duration::from_millis(left)))
}
