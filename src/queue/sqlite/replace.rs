//! Replaces a stored message by another form of it: its current form is read in one snapshot of the database and
//! replaced in one transaction. Bodies stay where they are.

use super::bodies::{BodyError, BodyFile, BodyName};
use super::content::{self, Content, Unreadable};
use super::envelope::{self, EnvelopeRecipient, MessageFields, RecipientFields};
use super::failure::{Failure, is_damage};
use super::lease::read_message;
use super::lifetime;
use super::operate::{jobs_of, uncount_failed};
use super::put::{RecipientProgress, digest, put_recipient};
use super::rows::{
    LEASED, bad_text, has_failed_in_doubt, key_of, lived_to_column, marks_to_column, signed, tally_of, wait_on,
};
use super::store::SqliteStore;
use super::work::{Sql, Tally, Work};
use crate::message::accepted::Accepted;
use crate::message::message_id;
use crate::message::{Author, MailId, RawMessage};
use crate::queue::{QueueError, Revision, StoredMail, domain_of};
use crate::smtp::Mailbox;
use bytes::Bytes;
use std::sync::Arc;

impl SqliteStore {
    pub(super) async fn stored(self: &Arc<Self>, id: MailId) -> Result<Option<StoredMail>, QueueError> {
        let store = self.clone();
        self.read(move |sql| {
            // One snapshot, whatever is written meanwhile.
            sql.execute("BEGIN", [])?;
            let stored = match key_of(sql, id)? {
                Some(message) => store.read_stored(sql, message, id)?,
                None => None,
            };
            sql.execute("COMMIT", [])?;
            Ok(stored)
        })
        .await
    }

    fn read_stored(&self, sql: &Sql<'_>, message: i64, id: MailId) -> Result<Option<StoredMail>, Failure> {
        let Some(content) = self.load(sql, message, id)? else { return Ok(None) };
        let mut grant = read_message(sql, message)?;
        let recipients = grant.verify(&content.digest).map_err(rusqlite::Error::from);
        let recipients =
            recipients.and_then(|()| envelope::verified_recipients(sql, message, id.as_str(), grant.recipients));
        let recipients = recipients.map_err(|error| damaged(id, error))?;
        for EnvelopeRecipient { fields, .. } in recipients {
            grant.envelope.add_recipient(Mailbox::parse(&fields.address).map_err(|error| bad_text(0, error))?);
        }
        let original = self.read_original(sql, message, id)?;
        let author = Author::of(&content.message).ok();
        let accepted = Accepted {
            id,
            received_at: grant.received_at,
            origin: grant.origin,
            envelope: grant.envelope,
            message: content.message,
            author,
            marks: grant.marks,
        };
        Ok(Some(StoredMail { accepted, original }))
    }

    fn load(&self, sql: &Sql<'_>, message: i64, id: MailId) -> Result<Option<Content>, Failure> {
        content::load(sql, &self.bodies, message, id).map_err(|unreadable| match unreadable {
            Unreadable::Damaged(reason) => QueueError::Storage(format!("{id} is damaged: {reason}")).into(),
            Unreadable::Trouble(error) => error.into(),
        })
    }

    fn read_original(&self, sql: &Sql<'_>, message: i64, id: MailId) -> Result<Option<Bytes>, Failure> {
        let found = sql
            .first("SELECT data FROM original WHERE message = ?1", [message], |row| row.get::<_, Option<Vec<u8>>>(0))?;
        let Some(inline) = found else { return Ok(None) };
        let in_file = || {
            let mut data = Vec::new();
            self.bodies.read((id, BodyFile::Original), &mut data).map(|()| data)
        };
        match inline.map_or_else(in_file, Ok) {
            Ok(data) => Ok(Some(data.into())),
            Err(error @ BodyError::Moved(_)) => Err(QueueError::from(error).into()),
            Err(error) => Err(QueueError::Storage(format!("the original of {id} cannot be read: {error}")).into()),
        }
    }

    pub(super) async fn replace(self: &Arc<Self>, revision: Revision, now: i64) -> Result<bool, QueueError> {
        let id = revision.id;
        let store = self.clone();
        let content = self.read(move |sql| match key_of(sql, id)? {
            Some(message) => store.load(sql, message, id),
            None => Ok(None),
        });
        let Some(content) = content.await? else { return Ok(false) };
        let Content { message, digest: was } = content;
        let form = ReplacementRows {
            was,
            digest: digest(&revision.header, message.body()),
            size: RawMessage::from_parts(revision.header.clone(), message.body().clone()).size(),
            revision,
            lived: lived_to_column(self.lifetime.now()),
        };
        drop(message);
        // Before the commit, so that no later lease finds the old form.
        self.cache.lock().remove(id);
        let record = self.lifetime.record_if_due();
        let replaced = self.writer.call(move |work| {
            lifetime::keep(work, record.as_ref())?;
            replace(work, &form, now)
        });
        let replaced = replaced.await?;
        let is_replaced = replaced.is_some();
        self.remove_files(replaced.unwrap_or_default()).await;
        Ok(is_replaced)
    }
}

struct ReplacementRows {
    revision: Revision,
    /// The digest of the content that it replaces.
    was: Vec<u8>,
    digest: Vec<u8>,
    /// Octets of the whole message.
    size: usize,
    /// Milliseconds of the queue's own clock.
    lived: i64,
}

/// Returns the files that are litter once this is committed; `None` if the message must not be replaced.
fn replace(work: &Work<'_>, form: &ReplacementRows, now: i64) -> Result<Option<Vec<BodyName>>, Failure> {
    let Revision { id, replaces, header, original, .. } = &form.revision;
    let Some(message) = key_of(work, *id)? else { return Ok(None) };
    let jobs = jobs_of(work, message)?;
    let is_as_it_was =
        addresses_of(work, message)?.iter().eq(&replaces.iter().map(ToString::to_string).collect::<Vec<_>>());
    if !is_as_it_was || jobs.iter().any(|job| job.state == LEASED) {
        return Ok(None);
    }
    for job in jobs {
        work.count(&job.lane, tally_of(job.state, -job.open));
    }
    uncount_failed(work, message)?;
    work.bring_back_mail();
    let possible_duplicate =
        work.first("SELECT MAX(suspect) FROM job WHERE message = ?1", [message], |row| row.get::<_, Option<bool>>(0))?;
    let possible_duplicate = possible_duplicate.flatten().unwrap_or(false) || has_failed_in_doubt(work, message, None)?;
    work.execute("DELETE FROM job WHERE message = ?1", [message])?;
    work.execute("DELETE FROM recipient WHERE message = ?1", [message])?;
    update_message(work, message, form)?;
    work.execute("UPDATE content SET header = ?2, digest = ?3 WHERE message = ?1", (message, header, &form.digest))?;
    put_recipients(work, message, &form.revision, now, possible_duplicate)?;
    let in_file = work.first("DELETE FROM original WHERE message = ?1 RETURNING data IS NULL", [message], |row| {
        row.get::<_, bool>(0)
    })?;
    if let Some(original) = original {
        // Without a body it is never large.
        work.execute("INSERT INTO original (message, data) VALUES (?1, ?2)", (message, &original[..]))?;
    }
    Ok(Some(in_file.filter(|in_file| *in_file).map(|_| (*id, BodyFile::Original)).into_iter().collect()))
}

fn update_message(work: &Work<'_>, message: i64, form: &ReplacementRows) -> rusqlite::Result<()> {
    let Revision { envelope, marks, subject, .. } = &form.revision;
    let before = read_message(work, message)?;
    before.verify(&form.was)?;
    let fields = MessageFields {
        sender: envelope.sender.mailbox().map(ToString::to_string),
        smtputf8: i64::from(envelope.smtputf8),
        size: signed(form.size),
        subject: subject.clone(),
        marks: marks_to_column(marks),
        ..before.fields
    };
    let digest = fields.digest(&form.digest);
    work.execute(
        "UPDATE message SET since = MAX(since, ?2), sender = ?3, smtputf8 = ?4, size = ?5, subject = ?6, marks = ?7,
         recipients = ?8, digest = ?9, message_id = ?10 WHERE key = ?1",
        (
            message,
            form.lived,
            fields.sender,
            fields.smtputf8,
            fields.size,
            fields.subject,
            fields.marks,
            signed(envelope.recipients.len()),
            digest,
            message_id(&form.revision.header),
        ),
    )?;
    Ok(())
}

fn put_recipients(
    work: &Work<'_>,
    message: i64,
    revision: &Revision,
    now: i64,
    possible_duplicate: bool,
) -> Result<(), Failure> {
    let Revision { envelope, lanes, .. } = revision;
    if lanes.len() != envelope.recipients.len() || lanes.is_empty() {
        return Err(QueueError::Storage("a message needs recipients, and one lane for each".into()).into());
    }
    let domain = domain_of(envelope.sender.mailbox().map(ToString::to_string).as_deref());
    let mut last = None;
    for (position, (recipient, lane)) in (0..).zip(envelope.recipients.iter().zip(lanes)) {
        let recipient =
            RecipientFields { position, address: recipient.to_string(), lane: lane.to_string(), failed_at: None };
        put_recipient(work, (message, revision.id.as_str()), &recipient, &RecipientProgress::default())?;
        // Hundreds of recipients on one lane share one job.
        if last != Some(lane) {
            wait_on(work, message, lane.as_str(), &domain, now, possible_duplicate)?;
            last = Some(lane);
        }
        work.count(lane.as_str(), Tally { waiting: 1, ..Tally::default() });
    }
    Ok(())
}

fn damaged(id: MailId, error: rusqlite::Error) -> Failure {
    if is_damage(&error) { QueueError::Storage(format!("{id} is damaged: {error}")).into() } else { error.into() }
}

fn addresses_of(sql: &Sql<'_>, message: i64) -> rusqlite::Result<Vec<String>> {
    sql.all("SELECT address FROM recipient WHERE message = ?1 ORDER BY position", [message], |row| row.get(0))
}
