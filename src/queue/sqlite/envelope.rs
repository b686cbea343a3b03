//! Digests over everything that decides where and how mail is sent: one in each message's row, one in each recipient's.
//! They detect damage, not tampering: anyone who can write to the database can compute them.
//!
//! Invariant: a digest is computed from values that were accepted, decided or verified in the same transaction, never
//! from a row that was only read. Otherwise a damaged row would be certified as intact. Values that do not affect how
//! mail is sent are not covered: age, due time, attempts, reasons.

use super::work::Sql;
use crate::message::message_id;
use aws_lc_rs::digest::{Context, SHA256};

/// Octets kept of a SHA-256: a random match has a probability of 1 in 2^128.
const LENGTH: usize = 16;

#[derive(Debug, thiserror::Error)]
pub(super) enum Damage {
    #[error("its envelope is not what was stored")]
    Message,
    #[error("recipient {} is not what was stored", .0 + 1)]
    Recipient(i64),
    #[error("{found} of its {expected} recipients can be found")]
    Missing { found: i64, expected: i64 },
}

/// Reported like an unreadable row.
impl From<Damage> for rusqlite::Error {
    fn from(damage: Damage) -> Self {
        Self::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, Box::new(damage))
    }
}

/// The covered part of a message's row, which excludes `since`. The texts are those of the columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MessageFields {
    pub id: String,
    pub received_at: i64,
    pub sender: Option<String>,
    pub eight_bit: i64,
    pub smtputf8: i64,
    pub size: i64,
    pub subject: String,
    pub listener: Option<String>,
    pub user: Option<String>,
    pub marks: Option<String>,
}

impl MessageFields {
    /// Expects the columns of `message` in this order.
    pub(super) fn of_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            received_at: row.get(1)?,
            sender: row.get(2)?,
            eight_bit: row.get(3)?,
            smtputf8: row.get(4)?,
            size: row.get(5)?,
            subject: row.get(6)?,
            listener: row.get(7)?,
            user: row.get(8)?,
            marks: row.get(9)?,
        })
    }

    /// `content`: the digest of the header and body, which ties the message to its own content.
    pub(super) fn digest(&self, content: &[u8]) -> Vec<u8> {
        Digest::default()
            .text(Some(&self.id))
            .number(Some(self.received_at))
            .text(self.sender.as_deref())
            .number(Some(self.eight_bit))
            .number(Some(self.smtputf8))
            .number(Some(self.size))
            .text(Some(&self.subject))
            .text(self.listener.as_deref())
            .text(self.user.as_deref())
            .text(self.marks.as_deref())
            .octets(Some(content))
            .finish()
    }
}

/// The covered part of a recipient's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecipientFields {
    pub position: i64,
    pub address: String,
    pub lane: String,
    pub failed_at: Option<i64>,
}

impl RecipientFields {
    /// The message's id is part of it, which ties the recipient to its message.
    pub(super) fn digest(&self, id: &str) -> Vec<u8> {
        Digest::default()
            .text(Some(id))
            .number(Some(self.position))
            .text(Some(&self.address))
            .text(Some(&self.lane))
            .number(self.failed_at)
            .finish()
    }
}

/// A recipient with the digest that was stored with it.
#[derive(Debug)]
pub(super) struct EnvelopeRecipient {
    pub fields: RecipientFields,
    pub digest: Option<Vec<u8>>,
    pub attempts: i64,
}

impl EnvelopeRecipient {
    pub(super) fn fits(&self, id: &str) -> bool {
        self.digest.as_deref() == Some(&self.fields.digest(id))
    }

    /// Expects the columns of `recipient` in the order of [`recipients`].
    pub(super) fn of_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let fields =
            RecipientFields { position: row.get(0)?, address: row.get(1)?, lane: row.get(2)?, failed_at: row.get(3)? };
        Ok(Self { fields, digest: row.get(4)?, attempts: row.get(5)? })
    }

    /// The digest for changed fields. If the old one did not match, it is kept, so the row still does not match.
    pub(super) fn digest_for(&self, id: &str, changed: &RecipientFields) -> Option<Vec<u8>> {
        if self.fits(id) { Some(changed.digest(id)) } else { self.digest.clone() }
    }
}

/// A message's recipients that are not delivered, in order.
pub(super) fn recipients(sql: &Sql<'_>, message: i64) -> rusqlite::Result<Vec<EnvelopeRecipient>> {
    sql.all(
        "SELECT position, address, lane, failed_at, digest, attempts FROM recipient WHERE message = ?1 ORDER BY position",
        [message],
        EnvelopeRecipient::of_row,
    )
}

/// As [`recipients`], but fails unless each is as it was stored and none is missing.
pub(super) fn verified_recipients(
    sql: &Sql<'_>,
    message: i64,
    id: &str,
    expected: i64,
) -> rusqlite::Result<Vec<EnvelopeRecipient>> {
    let rows = recipients(sql, message)?;
    if let Some(row) = rows.iter().find(|row| !row.fits(id)) {
        return Err(Damage::Recipient(row.fields.position).into());
    }
    let found = super::rows::signed(rows.len());
    if found != expected {
        return Err(Damage::Missing { found, expected }.into());
    }
    Ok(rows)
}

/// Hashes fields one after the other, each preceded by its length, so that no two sequences of fields look alike.
struct Digest(Context);

impl Default for Digest {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Digest {
    fn octets(mut self, octets: Option<&[u8]>) -> Self {
        let length = octets.map_or(u64::MAX, |octets| octets.len() as u64);
        self.0.update(&length.to_be_bytes());
        self.0.update(octets.unwrap_or_default());
        self
    }

    fn text(self, text: Option<&str>) -> Self {
        self.octets(text.map(str::as_bytes))
    }

    fn number(self, number: Option<i64>) -> Self {
        self.octets(number.map(i64::to_be_bytes).as_ref().map(|octets| &octets[..]))
    }

    fn finish(self) -> Vec<u8> {
        self.0.finish().as_ref()[..LENGTH].to_vec()
    }
}

/// Rows per step.
const STEP: i64 = 1000;

/// For a database from before digests existed: its contents are trusted as they are. Also notes each Message-ID.
pub(super) fn cover_all(sql: &Sql<'_>) -> rusqlite::Result<()> {
    let mut after = i64::MIN;
    loop {
        let messages = sql.all(
            "SELECT id, received_at, sender, eight_bit, smtputf8, size, subject, listener, user, marks, key, content.digest
             FROM message LEFT JOIN content ON content.message = key WHERE key > ?1 ORDER BY key LIMIT ?2",
            (after, STEP),
            |row| Ok((MessageFields::of_row(row)?, row.get::<_, i64>(10)?, row.get::<_, Option<Vec<u8>>>(11)?)),
        )?;
        for (fields, message, content) in &messages {
            let rows = recipients(sql, *message)?;
            for EnvelopeRecipient { fields: recipient, .. } in &rows {
                sql.execute(
                    "UPDATE recipient SET digest = ?3 WHERE message = ?1 AND position = ?2",
                    (message, recipient.position, recipient.digest(&fields.id)),
                )?;
            }
            let header: Option<Vec<u8>> =
                sql.first("SELECT header FROM content WHERE message = ?1", [message], |row| row.get(0))?;
            let digest = fields.digest(content.as_deref().unwrap_or_default());
            let message_id = header.and_then(|header| message_id(&header));
            sql.execute(
                "UPDATE message SET digest = ?2, recipients = ?3, message_id = ?4 WHERE key = ?1",
                (message, digest, super::rows::signed(rows.len()), message_id),
            )?;
            after = *message;
        }
        if messages.is_empty() {
            return Ok(());
        }
    }
}
