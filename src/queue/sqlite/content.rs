//! Reads a stored message, header and body, and distinguishes damage from temporary trouble.

use super::bodies::{Bodies, BodyError, BodyFile};
use super::envelope::Damage;
use super::failure::{Failure, is_damage, of_sqlite};
use super::put::digest;
use super::work::Sql;
use crate::message::{MailId, RawMessage};
use crate::queue::QueueError;
use std::io;

#[derive(Debug)]
pub(super) enum Unreadable {
    /// Reading it again will not help.
    Damaged(String),
    /// Reading it again may help: there were no file descriptors or no memory.
    Trouble(QueueError),
}

impl From<Damage> for Unreadable {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage.to_string())
    }
}

impl From<rusqlite::Error> for Unreadable {
    fn from(error: rusqlite::Error) -> Self {
        if is_damage(&error) { Self::Damaged(error.to_string()) } else { Self::Trouble(of_sqlite(&error)) }
    }
}

#[derive(Debug)]
pub(super) struct Content {
    pub message: RawMessage,
    /// Over the header and body.
    pub digest: Vec<u8>,
}

/// `None`: there is no such row.
pub(super) fn load(sql: &Sql<'_>, bodies: &Bodies, message: i64, id: MailId) -> Result<Option<Content>, Unreadable> {
    let found = sql.first("SELECT header, body, digest FROM content WHERE message = ?1", [message], |row| {
        Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Option<Vec<u8>>>(1)?, row.get::<_, Vec<u8>>(2)?))
    })?;
    let Some((header, body, expected)) = found else { return Ok(None) };
    let is_in_file = body.is_none();
    let body = match body {
        Some(body) => body,
        None => read_file(bodies, id)?,
    };
    if digest(&header, &body) != expected {
        if is_in_file {
            // A folder that replaced ours may contain an older copy.
            bodies.look().map_err(|moved| Unreadable::Trouble(moved.into()))?;
        }
        return Err(Unreadable::Damaged("what was read back is not what was stored".into()));
    }
    Ok(Some(Content { message: RawMessage::from_parts(header, body.into()), digest: expected }))
}

fn read_file(bodies: &Bodies, id: MailId) -> Result<Vec<u8>, Unreadable> {
    let mut body = Vec::new();
    match bodies.read((id, BodyFile::Body), &mut body) {
        Ok(()) => Ok(body),
        Err(BodyError::Io(error)) if is_lasting(&error) => {
            Err(Unreadable::Damaged(format!("its body cannot be read: {error}")))
        }
        Err(error) => Err(Unreadable::Trouble(error.into())),
    }
}

fn is_lasting(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::EIO)
}

impl From<Failure> for Unreadable {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Sqlite(error) => Self::Trouble(of_sqlite(&error)),
            Failure::Queue(error) => Self::Trouble(error),
        }
    }
}
