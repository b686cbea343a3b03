//! Reads whatever can be read of a database that may be damaged, message by message, and says of each whether it is as
//! it was stored. Only tables are read, each row by its key: a bad page costs only the rows on it. Changes nothing.

use super::bodies::{Bodies, BodyFile};
use super::envelope::{EnvelopeRecipient, MessageFields, RecipientFields};
use super::put::digest;
use rusqlite::types::Value;
use rusqlite::{Connection, Params, Row};
use std::collections::{BTreeMap, BTreeSet};

/// Number of keys tried before the first and after the last one found, since bad pages at either end may have held
/// more.
const BEYOND: i64 = 2_000;

/// One message, each part as its table has it.
#[derive(Debug, Default)]
pub(super) struct Inspected {
    pub key: i64,
    pub message: Option<MessageFields>,
    pub since: Option<i64>,
    pub lived: Option<i64>,
    /// The number of recipients that the message's row states.
    pub expected: Option<i64>,
    pub digest: Option<Vec<u8>>,
    pub recipients: Vec<InspectedRecipient>,
    pub jobs: Vec<InspectedJob>,
    pub content: Option<InspectedContent>,
    /// `Some(None)`: it is in a file.
    pub original: Option<Option<Vec<u8>>>,
    pub attempts: Vec<Vec<Value>>,
    /// What is wrong with the message; empty if nothing is.
    pub faults: Vec<String>,
}

#[derive(Debug)]
pub(super) struct InspectedContent {
    pub header: Vec<u8>,
    /// `None`: it is in a file.
    pub body: Option<Vec<u8>>,
    pub digest: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct InspectedRecipient {
    pub row: EnvelopeRecipient,
    pub upstream: Option<String>,
    pub reason: Option<String>,
}

#[derive(Debug)]
pub(super) struct InspectedJob {
    pub lane: String,
    pub domain: String,
    pub due: i64,
    pub state: i64,
    pub possible_duplicate: bool,
}

impl Inspected {
    /// Whether any part of it was found.
    pub(super) fn is_any(&self) -> bool {
        self.message.is_some() || !self.recipients.is_empty() || !self.jobs.is_empty() || self.content.is_some()
    }

    pub(super) fn is_well(&self) -> bool {
        self.faults.is_empty()
    }
}

pub(super) struct Inspector<'a> {
    pub connection: &'a Connection,
    pub bodies: &'a Bodies,
    /// Whether rows have digests.
    pub covered: bool,
}

/// The rows before the first unreadable one, and why that one cannot be read.
fn rows<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> (Vec<T>, Option<rusqlite::Error>) {
    let mut found = Vec::new();
    let run = |found: &mut Vec<T>| {
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        while let Some(row) = rows.next()? {
            found.push(read(row)?);
        }
        Ok(())
    };
    let error = run(&mut found).err();
    (found, error)
}

/// All values of each row, in the order of a table's key; reads from both ends to get around bad pages.
pub(super) fn all_rows(connection: &Connection, table: &str, key: &str) -> (Vec<Vec<Value>>, bool) {
    let values = |row: &Row<'_>| (0..row.as_ref().column_count()).map(|column| row.get(column)).collect();
    let (mut found, error) = rows(connection, &format!("SELECT * FROM {table} ORDER BY {key}"), [], values);
    if error.is_none() {
        return (found, true);
    }
    let backward = key.split(", ").map(|column| format!("{column} DESC")).collect::<Vec<_>>().join(", ");
    let (mut rest, _) = rows(connection, &format!("SELECT * FROM {table} ORDER BY {backward}"), [], values);
    rest.reverse();
    found.extend(rest);
    (found, false)
}

/// Adds the keys between and beside those given, which a bad page may have held. A damaged key can be any number, so
/// the gap before a distant key is not filled.
fn with_neighbours(keys: &BTreeSet<i64>) -> Vec<i64> {
    let mut all = BTreeSet::new();
    for key in keys {
        let from = key.saturating_sub(BEYOND).max(1);
        let to = key.saturating_add(BEYOND);
        let from = all.last().map_or(from, |last: &i64| from.max(last.saturating_add(1)));
        all.extend(from..=to);
        all.insert(*key);
    }
    all.into_iter().collect()
}

/// The ids of messages by key, from a table or an index that is ordered by id.
pub(super) fn names(connection: &Connection, table: &str) -> BTreeMap<i64, String> {
    let mut names = BTreeMap::new();
    for order in ["", "DESC"] {
        let sql = format!("SELECT key, id FROM {table} ORDER BY id {order}");
        let (found, error) = rows(connection, &sql, [], |row| Ok((row.get(0).ok(), row.get(1).ok())));
        names.extend(found.into_iter().filter_map(|(key, id)| Option::zip(key, id)));
        if error.is_none() {
            break;
        }
    }
    names
}

impl Inspector<'_> {
    /// The keys of all messages of which any part is left; many more where pages are bad.
    pub(super) fn keys(&self) -> Vec<i64> {
        let mut keys = BTreeSet::new();
        let mut is_whole = true;
        let tables = [("message", "key"), ("content", "message"), ("recipient", "message"), ("job", "message")];
        for (table, key) in tables {
            for order in ["", "DESC"] {
                let sql = format!("SELECT {key} FROM {table} ORDER BY {key} {order}");
                let (found, error) = rows(self.connection, &sql, [], |row| row.get::<_, i64>(0));
                keys.extend(found);
                match error {
                    None => break,
                    Some(_) => is_whole = false,
                }
            }
        }
        if is_whole {
            return keys.into_iter().collect();
        }
        with_neighbours(&keys)
    }

    pub(super) fn inspect(&self, key: i64) -> Inspected {
        let mut found = Inspected { key, ..Inspected::default() };
        self.read_message(&mut found);
        self.read_recipients(&mut found);
        self.read_jobs(&mut found);
        self.read_content(&mut found);
        let sql = "SELECT message, number, at, upstream, text, possible_duplicate FROM attempt WHERE message = ?1";
        let values = |row: &Row<'_>| (0..6).map(|column| row.get(column)).collect();
        found.attempts = rows(self.connection, sql, [key], values).0;
        if found.is_any() {
            self.judge(&mut found);
        }
        found
    }

    fn read_message(&self, found: &mut Inspected) {
        let columns = if self.covered { "since, recipients, digest, lived" } else { "NULL, NULL, NULL, NULL" };
        let sql = format!(
            "SELECT id, received_at, sender, eight_bit, smtputf8, size, subject, listener, user, marks, {columns}
             FROM message WHERE key = ?1"
        );
        let read =
            |row: &Row<'_>| Ok((MessageFields::of_row(row)?, row.get(10)?, row.get(11)?, row.get(12)?, row.get(13)?));
        let (mut read, error) = rows(self.connection, &sql, [found.key], read);
        if let Some((fields, since, expected, digest, lived)) = read.pop() {
            found.message = Some(fields);
            (found.since, found.expected, found.digest, found.lived) = (since, expected, digest, lived);
        }
        found.faults.extend(error.map(|error| format!("its row cannot be read: {error}")));
    }

    fn read_recipients(&self, found: &mut Inspected) {
        let digest = if self.covered { "digest" } else { "NULL" };
        let read = |row: &Row<'_>| {
            Ok(InspectedRecipient { row: EnvelopeRecipient::of_row(row)?, upstream: row.get(6)?, reason: row.get(7)? })
        };
        for order in ["", "DESC"] {
            let sql = format!(
                "SELECT position, address, lane, failed_at, {digest}, attempts, upstream, reason FROM recipient
                 WHERE message = ?1 ORDER BY position {order}"
            );
            let (read, error) = rows(self.connection, &sql, [found.key], read);
            for one in read {
                let position = one.row.fields.position;
                if found.recipients.iter().all(|known| known.row.fields.position != position) {
                    found.recipients.push(one);
                }
            }
            match error {
                None => return,
                Some(error) if order.is_empty() => {
                    found.faults.push(format!("its recipients cannot all be read: {error}"));
                }
                Some(_) => {}
            }
        }
        found.recipients.sort_by_key(|recipient| recipient.row.fields.position);
    }

    fn read_jobs(&self, found: &mut Inspected) {
        let sql = "SELECT lane, domain, due, state, suspect FROM job WHERE message = ?1 ORDER BY lane";
        let read = |row: &Row<'_>| {
            Ok(InspectedJob {
                lane: row.get(0)?,
                domain: row.get(1)?,
                due: row.get(2)?,
                state: row.get(3)?,
                possible_duplicate: row.get::<_, i64>(4)? != 0,
            })
        };
        // Missing due times do not hold mail back: they are replaced.
        found.jobs = rows(self.connection, sql, [found.key], read).0;
    }

    fn read_content(&self, found: &mut Inspected) {
        let sql = "SELECT header, body, digest FROM content WHERE message = ?1";
        let (mut read, error) = rows(self.connection, sql, [found.key], |row| {
            Ok(InspectedContent { header: row.get(0)?, body: row.get(1)?, digest: row.get(2)? })
        });
        found.content = read.pop();
        found.faults.extend(error.map(|error| format!("its content cannot be read: {error}")));
        let sql = "SELECT data FROM original WHERE message = ?1";
        found.original = rows(self.connection, sql, [found.key], |row| row.get(0)).0.pop();
    }

    fn judge(&self, found: &mut Inspected) {
        let Some(message) = &found.message else {
            found.faults.push("its row with the sender is lost".to_owned());
            return;
        };
        let mut faults = Vec::new();
        let content = self.content_digest(message, found, &mut faults);
        let recipients = found.recipients.len();
        if recipients == 0 {
            faults.push("its recipients are lost".to_owned());
        }
        if self.covered {
            if found.digest.as_deref() != Some(&message.digest(content.as_deref().unwrap_or_default())) {
                faults.push("its envelope is not what was stored".to_owned());
            }
            if found.expected != i64::try_from(recipients).ok() && recipients > 0 {
                let expected = found.expected.map_or("an unknown number".to_owned(), |number| number.to_string());
                faults.push(format!("{recipients} of {expected} recipients are there"));
            }
            for RecipientFields { position, .. } in found
                .recipients
                .iter()
                .filter(|recipient| !recipient.row.fits(&message.id))
                .map(|recipient| &recipient.row.fields)
            {
                faults.push(format!("recipient {} is not what was stored", position + 1));
            }
        }
        found.faults.extend(faults);
    }

    /// The digest of the content as it is now.
    fn content_digest(&self, message: &MessageFields, found: &Inspected, faults: &mut Vec<String>) -> Option<Vec<u8>> {
        let Some(InspectedContent { header, body, digest: expected }) = &found.content else {
            faults.push("its content is lost".to_owned());
            return None;
        };
        let mut from_file = Vec::new();
        let body = match (body, message.id.parse()) {
            (Some(body), _) => body,
            (None, Ok(id)) => match self.bodies.read((id, BodyFile::Body), &mut from_file) {
                Ok(()) => &from_file,
                Err(error) => {
                    faults.push(format!("its body cannot be read: {error}"));
                    return Some(expected.clone());
                }
            },
            (None, Err(_)) => return None,
        };
        if digest(header, body) != *expected {
            faults.push("its content is not what was stored".to_owned());
        }
        Some(expected.clone())
    }
}
