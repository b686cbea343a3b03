//! Builds a new database from what can be read of a damaged one. The damaged one is only read and, at the end, moved
//! aside with its log; no body file is touched. Messages that do not match their digests are copied but set aside, and
//! are never sent automatically.
//!
//! Invariant: at every moment either `queue.sqlite` is the damaged database, complete with its log, or
//! `queue.sqlite.salvaged` is complete and the next opening renames it to `queue.sqlite`.

mod source;

use super::bodies::Bodies;
use super::envelope::RecipientFields;
use super::inspect::{Inspected, InspectedContent, InspectedJob, Inspector, all_rows};
use super::open::DATABASE;
use super::rows::{DAMAGED, LEASED, WAITING, signed};
use super::schema;
use super::wal;
use crate::message::{MailId, message_id};
use crate::queue::domain_of;
use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};
use source::SalvageSource;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

const BUILDING: &str = "queue.sqlite.salvaging";
const COMPLETE: &str = "queue.sqlite.salvaged";

/// The result of a salvage.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Salvaged {
    /// Messages that are as they were stored.
    pub whole: u64,
    /// Messages that are in the new database but set aside.
    pub damaged: Vec<Finding>,
    /// Messages of which only the id was found.
    pub lost: Vec<Finding>,
    /// Recipients in the old database's counters that were found in no message, intact or damaged. `None`: the counters
    /// cannot be read, so the number is unknown.
    pub missing_recipients: Option<u64>,
    /// Number of history rows copied.
    pub history: u64,
    /// Some of the history is lost.
    pub history_is_cut: bool,
    /// Where the damaged database is kept.
    pub kept_as: PathBuf,
}

impl Salvaged {
    /// The new database contains everything that the old one held, unchanged.
    pub fn is_whole(&self) -> bool {
        self.damaged.is_empty() && self.lost.is_empty() && self.missing_recipients == Some(0) && !self.history_is_cut
    }
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Empty if it is not known.
    pub id: String,
    /// The key of its row.
    pub row: i64,
    /// The recipients that can be read.
    pub recipients: Vec<String>,
    pub reasons: Vec<String>,
}

impl Finding {
    /// `name`: the id according to the index.
    pub(super) fn of(found: &Inspected, name: Option<&String>) -> Self {
        let address = |recipient: &super::inspect::InspectedRecipient| recipient.row.fields.address.clone();
        let own = found.message.as_ref().map(|message| &message.id);
        let mut reasons = found.faults.clone();
        if let (Some(own), Some(name)) = (own, name)
            && own != name
        {
            reasons.push(format!("its row calls it {own}"));
        }
        Self {
            id: name.or(own).cloned().unwrap_or_default(),
            row: found.key,
            recipients: found.recipients.iter().map(address).collect(),
            reasons,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the new database cannot be written: {0}")]
    Write(#[from] rusqlite::Error),
    #[error("the new database cannot be made: {0}")]
    Make(String),
    #[error("a copy and a new database need {needed} octets in the data folder, but only {free} are free there")]
    NoRoom { needed: u64, free: u64 },
}

/// The caller must hold the lock of `data_dir`. Blocks. `progress` receives the number of messages done and the total.
pub fn salvage(data_dir: &Path, now: Timestamp, mut progress: impl FnMut(u64, u64)) -> Result<Salvaged, SalvageError> {
    finish(data_dir)?;
    let path = data_dir.join(DATABASE);
    check_room(&path)?;
    let bodies = Bodies::open(data_dir)?;
    let source = SalvageSource::copy(&path)?;
    let building = data_dir.join(BUILDING);
    remove(&building)?;
    File::create(&building)?;
    let target = schema::open_writer(&building).map_err(|error| SalvageError::Make(error.to_string()))?;
    let mut salvage = Salvage { source: &source, target: &target, now, result: Salvaged::default(), found: 0 };
    target.execute_batch("BEGIN IMMEDIATE")?;
    salvage.messages(&bodies, &mut progress)?;
    salvage.beside()?;
    target.execute_batch("COMMIT")?;
    let mut result = salvage.result;
    // Everything goes into one file, without a log.
    target.pragma_update(None, "journal_mode", "DELETE")?;
    target.close().map_err(|(_, error)| error)?;
    File::open(&building)?.sync_all()?;
    fs::rename(&building, data_dir.join(COMPLETE))?;
    sync(data_dir)?;
    drop(source);
    result.kept_as = move_aside(&path, now)?;
    finish(data_dir)?;
    Ok(result)
}

/// Renames a complete new database to the name of the one that was moved aside. Called before any opening.
pub(super) fn finish(data_dir: &Path) -> io::Result<()> {
    let path = data_dir.join(DATABASE);
    let complete = data_dir.join(COMPLETE);
    if !complete.try_exists()? {
        return Ok(());
    }
    if path.try_exists()? {
        // A salvage was interrupted before its last step, and the queue has gone on with the database that is there. If
        // that one were ever moved away, this one would bring back mail that was delivered meanwhile.
        return remove(&complete);
    }
    // SQLite would apply another database's log to the new one.
    let log = beside(&path, "-wal");
    if log.try_exists()? {
        let aside = aside(&path).into_iter().next_back().unwrap_or_else(|| beside(&path, ".damaged"));
        fs::rename(&log, beside(&aside, "-wal"))?;
    }
    remove(&beside(&path, "-shm"))?;
    sync(data_dir)?;
    fs::rename(&complete, &path)?;
    sync(data_dir)
}

/// Whether a salvaged database is still to be renamed.
pub(super) fn is_unfinished(data_dir: &Path) -> io::Result<bool> {
    data_dir.join(COMPLETE).try_exists()
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Damaged databases that were moved aside, oldest first.
fn aside(path: &Path) -> Vec<PathBuf> {
    let Some(folder) = path.parent() else { return Vec::new() };
    let prefix = format!("{DATABASE}.damaged-");
    let is_one = |name: &str| name.starts_with(&prefix) && !name.ends_with("-wal");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<PathBuf> =
        entries.filter(|entry| entry.file_name().to_str().is_some_and(is_one)).map(|entry| entry.path()).collect();
    names.sort();
    names
}

fn move_aside(path: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let stamp = now.strftime(".damaged-%Y%m%dT%H%M%S").to_string();
    let free = |name: &PathBuf| matches!(name.try_exists(), Ok(false));
    let mut names = std::iter::once(stamp.clone()).chain((2..1000).map(|number| format!("{stamp}-{number}")));
    let name = names.find_map(|name| Some(beside(path, &name)).filter(free));
    let name = name.ok_or_else(|| io::Error::other("there is no free name for the damaged database"))?;
    fs::rename(path, &name)?;
    let log = beside(path, "-wal");
    if log.try_exists()? {
        fs::rename(log, beside(&name, "-wal"))?;
    }
    Ok(name)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io::Error::new(error.kind(), format!("{} cannot be removed: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn check_room(path: &Path) -> Result<(), SalvageError> {
    let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    let needed = 2 * (size(path) + size(&beside(path, "-wal"))) + (1 << 20);
    let free = path.parent().and_then(super::space::free_octets).unwrap_or(u64::MAX);
    if free < needed { Err(SalvageError::NoRoom { needed, free }) } else { Ok(()) }
}

/// For a database without digests, where nobody can tell whether a message is intact. The message gets digests and is
/// set aside; an operator can examine it and send it.
fn cover(found: &mut Inspected) {
    let Some(message) = &found.message else { return };
    let content = found.content.as_ref().map(|content| content.digest.clone()).unwrap_or_default();
    found.digest = Some(message.digest(&content));
    found.expected = Some(signed(found.recipients.len()));
    for recipient in &mut found.recipients {
        // A time by the wall clock.
        recipient.row.fields.failed_at = recipient.row.fields.failed_at.map(|_| schema::BEGINNING);
        recipient.row.digest = Some(recipient.row.fields.digest(&message.id));
    }
    found.faults.push(
        "it is from an older version, whose envelopes cannot be verified: see whether it is right, and retry it"
            .to_owned(),
    );
}

struct Salvage<'a> {
    source: &'a SalvageSource,
    target: &'a Connection,
    now: Timestamp,
    result: Salvaged,
    /// Number of recipients found.
    found: u64,
}

impl Salvage<'_> {
    fn messages(&mut self, bodies: &Bodies, progress: &mut impl FnMut(u64, u64)) -> rusqlite::Result<()> {
        let inspector = Inspector { connection: self.source.connection(), bodies, covered: self.source.is_covered };
        let names = self.source.names();
        let mut keys: BTreeSet<i64> = inspector.keys().into_iter().collect();
        keys.extend(names.keys());
        let all = keys.len() as u64;
        for (done, key) in (0..).zip(keys) {
            progress(done, all);
            let mut found = inspector.inspect(key);
            let name = names.get(&key);
            if !found.is_any() {
                if let Some(id) = name {
                    let reasons = vec!["only its message ID can be read".to_owned()];
                    self.result.lost.push(Finding { id: id.clone(), row: key, recipients: Vec::new(), reasons });
                }
                continue;
            }
            if !self.source.is_covered && found.is_well() {
                cover(&mut found);
            }
            self.keep(&mut found, name)?;
        }
        progress(all, all);
        Ok(())
    }

    fn keep(&mut self, found: &mut Inspected, name: Option<&String>) -> rusqlite::Result<()> {
        if !self.put_message(found, name)? {
            found.faults.push("another message has its message ID".to_owned());
            self.result.lost.push(Finding::of(found, name));
            return Ok(());
        }
        self.put_content(found)?;
        self.put_recipients(found)?;
        self.put_jobs(found)?;
        self.found += found.recipients.len() as u64;
        if found.is_well() {
            self.result.whole += 1;
        } else {
            self.result.damaged.push(Finding::of(found, name));
        }
        Ok(())
    }

    /// Returns false and does nothing if another message has its id.
    fn put_message(&self, found: &Inspected, name: Option<&String>) -> rusqlite::Result<bool> {
        let now = super::rows::to_column(self.now);
        let put = match &found.message {
            Some(fields) => self.target.prepare_cached(
                "INSERT OR IGNORE INTO message (key, id, received_at, since, lived, sender, eight_bit, smtputf8, size, subject,
                 listener, user, marks, recipients, digest, message_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                found.key,
                fields.id,
                fields.received_at,
                found.since.unwrap_or(schema::BEGINNING),
                found.lived.unwrap_or(schema::BEGINNING),
                fields.sender,
                fields.eight_bit,
                fields.smtputf8,
                fields.size,
                fields.subject,
                fields.listener,
                fields.user,
                fields.marks,
                found.expected,
                found.digest,
                found.content.as_ref().and_then(|content| message_id(&content.header)),
            ])?,
            // Without a digest the message is never sent, but an operator can look at it.
            None => self.target.execute(
                "INSERT OR IGNORE INTO message (key, id, received_at, since, lived, eight_bit, smtputf8, size, subject)
                 VALUES (?1, ?2, ?3, ?4, ?4, 0, 0, 0, '(its envelope is lost)')",
                params![found.key, name.cloned().unwrap_or_else(|| self.new_name(found.key)), now, schema::BEGINNING],
            )?,
        };
        Ok(put > 0)
    }

    fn new_name(&self, key: i64) -> String {
        MailId::new(self.now, u32::try_from(key & 0x3fff_ffff).unwrap_or_default()).to_string()
    }

    fn put_content(&self, found: &Inspected) -> rusqlite::Result<()> {
        let key = found.key;
        if let Some(InspectedContent { header, body, digest }) = &found.content {
            self.target
                .prepare_cached("INSERT INTO content (message, header, body, digest) VALUES (?, ?, ?, ?)")?
                .execute(params![key, header, body, digest])?;
        }
        if let Some(data) = &found.original {
            self.target.execute("INSERT INTO original (message, data) VALUES (?, ?)", params![key, data])?;
        }
        for attempt in &found.attempts {
            // A row that is not a valid attempt is skipped, since nothing depends on it.
            let _history_of_attempts_only = self
                .target
                .prepare_cached("INSERT OR IGNORE INTO attempt VALUES (?, ?, ?, ?, ?, ?)")?
                .execute(params_from_iter(attempt));
        }
        Ok(())
    }

    fn put_recipients(&self, found: &Inspected) -> rusqlite::Result<()> {
        let mut statement = self.target.prepare_cached(
            "INSERT INTO recipient (message, position, address, lane, failed_at, attempts, upstream, reason, digest)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?;
        for recipient in &found.recipients {
            let RecipientFields { position, address, lane, failed_at } = &recipient.row.fields;
            let attempts = recipient.row.attempts.max(0);
            let digest = &recipient.row.digest;
            let upstream = &recipient.upstream;
            let reason = &recipient.reason;
            statement
                .execute(params![found.key, position, address, lane, failed_at, attempts, upstream, reason, digest])?;
        }
        Ok(())
    }

    /// Creates one job for each lane with an open recipient. A message that was leased, or has no job left, may have
    /// been sent.
    fn put_jobs(&self, found: &Inspected) -> rusqlite::Result<()> {
        let open = found.recipients.iter().map(|recipient| &recipient.row.fields);
        let mut lanes: BTreeSet<&str> =
            open.filter(|fields| fields.failed_at.is_none()).map(|fields| fields.lane.as_str()).collect();
        if found.recipients.is_empty() {
            lanes.insert("");
        }
        let sender = found.message.as_ref().and_then(|message| message.sender.as_deref());
        for lane in lanes {
            let known = found.jobs.iter().find(|job| job.lane == lane);
            let (due, possible_duplicate) = known.map_or((super::rows::to_column(self.now), true), |job| {
                (job.due, job.possible_duplicate || job.state == LEASED)
            });
            let state = match known.map(|InspectedJob { state, .. }| *state) {
                _ if !found.is_well() => DAMAGED,
                None | Some(WAITING | LEASED) => WAITING,
                Some(_) => DAMAGED,
            };
            let domain = known.map_or_else(|| domain_of(sender), |job| job.domain.clone());
            self.target
                .prepare_cached(
                    "INSERT INTO job (message, lane, domain, due, state, suspect) VALUES (?, ?, ?, ?, ?, ?)",
                )?
                .execute(params![found.key, lane, domain, due, state, possible_duplicate])?;
        }
        Ok(())
    }

    /// Copies history, holds, quotas and what mail is recognised by, and computes the counters again.
    fn beside(&mut self) -> rusqlite::Result<()> {
        let source = self.source.connection();
        let (mut history, is_whole) = all_rows(source, "history", "key");
        let mut quotas = all_rows(source, "quota", "name, number").0;
        if !self.source.is_covered {
            // Times by the wall clock, or none: their age counts from now.
            history.iter_mut().filter_map(|row| row.get_mut(11)).for_each(|lived| *lived = schema::BEGINNING.into());
            quotas.iter_mut().filter_map(|row| row.get_mut(2)).for_each(|at| *at = schema::BEGINNING.into());
        }
        self.result.history =
            self.copy("INSERT OR IGNORE INTO history VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", &history)?;
        self.result.history_is_cut = !is_whole;
        self.copy("INSERT OR IGNORE INTO hold VALUES (?, ?)", &all_rows(source, "hold", "lane").0)?;
        self.copy("INSERT OR IGNORE INTO quota VALUES (?, ?, ?, ?)", &quotas)?;
        self.copy("INSERT OR REPLACE INTO lifetime VALUES (?, ?, ?, ?, ?, ?)", &all_rows(source, "lifetime", "one").0)?;
        self.copy("INSERT OR IGNORE INTO deduplication VALUES (?, ?, ?)", &all_rows(source, "deduplication", "key").0)?;
        // An application that submits a message again must not be told that it is stored if it is not, or not intact.
        self.target.execute(
            "DELETE FROM deduplication WHERE id NOT IN (SELECT id FROM history) AND id NOT IN (
               SELECT id FROM message WHERE NOT EXISTS (SELECT 1 FROM job WHERE job.message = message.key AND job.state = 2))",
            [],
        )?;
        let (ledger, _) = all_rows(source, "ledger", "one");
        let number = |column: usize| match ledger.first().and_then(|row| row.get(column)) {
            Some(Value::Integer(number)) => *number,
            _ => 0,
        };
        let counted = [3, 4, 5, 6].into_iter().map(|column| u64::try_from(number(column)).unwrap_or(0)).sum::<u64>();
        self.result.missing_recipients = (!ledger.is_empty()).then(|| counted.saturating_sub(self.found));
        self.target.execute(
            "UPDATE ledger SET held_all = ?1, (waiting, leased, failed, damaged) = (
               SELECT COALESCE(SUM(failed_at IS NULL AND job.state = 0), 0), 0, COALESCE(SUM(failed_at IS NOT NULL), 0),
                      COALESCE(SUM(failed_at IS NULL AND job.state = 2), 0)
               FROM recipient LEFT JOIN job ON job.message = recipient.message AND job.lane = recipient.lane)",
            [i64::from(number(1) == 1)],
        )?;
        Ok(())
    }

    /// Returns the number of rows copied; a row that the table rejects is skipped.
    fn copy(&self, sql: &str, rows: &[Vec<Value>]) -> rusqlite::Result<u64> {
        let mut statement = self.target.prepare(sql)?;
        let mut copied = 0;
        for row in rows {
            match statement.execute(params_from_iter(row)) {
                Ok(inserted) => copied += inserted as u64,
                Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) => return Err(error),
                Err(_) => {}
            }
        }
        Ok(copied)
    }
}

/// [`SalvageSource`] reads the whole log, including what lies beyond the end that SQLite sees.
fn log_of(path: &Path) -> io::Result<Option<wal::Frames>> {
    wal::Frames::open(&beside(path, "-wal"))
}
