//! The database's tables, its migrations, and how every connection is set up.
//!
//! docs/queue.md explains each table. A version newer than this program's is refused and not touched.

use super::envelope;
use super::space::CHECKPOINT_PAGES;
use super::work::Sql;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// `PRAGMA application_id`: "wxsl".
pub(super) const APPLICATION: i32 = 0x7778_736c;

/// Migrations from version *n* to *n + 1*. Entries are never changed once released, only added.
const MIGRATIONS: &[&str] = &[VERSION_1, VERSION_2, VERSION_3, VERSION_4];

const VERSION_1: &str = "
CREATE TABLE message (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    received_at INTEGER NOT NULL,
    since INTEGER NOT NULL,
    sender TEXT,
    eight_bit INTEGER NOT NULL,
    smtputf8 INTEGER NOT NULL,
    size INTEGER NOT NULL,
    subject TEXT NOT NULL
) STRICT;
CREATE TABLE content (
    message INTEGER PRIMARY KEY,
    header BLOB NOT NULL,
    body BLOB,
    digest BLOB NOT NULL
) STRICT;
CREATE TABLE original (
    message INTEGER PRIMARY KEY,
    data BLOB
) STRICT;
CREATE TABLE job (
    message INTEGER NOT NULL,
    lane TEXT NOT NULL,
    domain TEXT NOT NULL,
    due INTEGER NOT NULL,
    state INTEGER NOT NULL,
    suspect INTEGER NOT NULL,
    PRIMARY KEY (message, lane)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_turns ON job (lane, domain, due) WHERE state = 0;
CREATE INDEX job_due ON job (lane, due) WHERE state = 0;
CREATE INDEX job_apart ON job (state, message) WHERE state > 0;
CREATE TABLE recipient (
    message INTEGER NOT NULL,
    position INTEGER NOT NULL,
    address TEXT NOT NULL,
    lane TEXT NOT NULL,
    failed_at INTEGER,
    attempts INTEGER NOT NULL,
    upstream TEXT,
    reason TEXT,
    PRIMARY KEY (message, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX recipient_failed ON recipient (message) WHERE failed_at IS NOT NULL;
CREATE INDEX recipient_failed_at ON recipient (failed_at) WHERE failed_at IS NOT NULL;
CREATE TABLE attempt (
    message INTEGER NOT NULL,
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    upstream TEXT,
    text TEXT NOT NULL,
    possible_duplicate INTEGER NOT NULL,
    PRIMARY KEY (message, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE history (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    sender TEXT,
    recipients TEXT NOT NULL,
    subject TEXT NOT NULL,
    size INTEGER NOT NULL,
    at INTEGER NOT NULL,
    upstream TEXT NOT NULL,
    reply TEXT NOT NULL,
    milliseconds INTEGER NOT NULL
) STRICT;
CREATE INDEX history_id ON history (id);
CREATE INDEX history_at ON history (at);
CREATE TABLE hold (
    lane TEXT PRIMARY KEY,
    held INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE ledger (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    held_all INTEGER NOT NULL,
    routes TEXT,
    waiting INTEGER NOT NULL,
    leased INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    damaged INTEGER NOT NULL
) STRICT;
INSERT INTO ledger VALUES (1, 0, NULL, 0, 0, 0, 0);
";

/// Where a message came in, and what is known about it beyond its text (JSON; NULL: nothing).
const VERSION_2: &str = "
ALTER TABLE message ADD COLUMN listener TEXT;
ALTER TABLE message ADD COLUMN user TEXT;
ALTER TABLE message ADD COLUMN marks TEXT;
";

/// Usage of the quotas that outlive a process.
const VERSION_3: &str = "
CREATE TABLE quota (
    name TEXT NOT NULL,
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    units INTEGER NOT NULL,
    PRIMARY KEY (name, number)
) STRICT, WITHOUT ROWID;
";

/// Digests of envelopes, and how many recipients a message still has. Also the queue's own clock, which begins at
/// thirty days (`lifetime::BEGINNING`) and by which ages are counted. Ages from before this version count as two days
/// at most, because they come from wall clocks that may have been wrong then or now.
///
/// Message-IDs are random. In one index of all of them, each new message would change another page, in a long queue one
/// that has to be read first. So the index has a group of its own for
/// each [`MESSAGE_ID_GROUP`] keys, and a search looks into one group after another.
const VERSION_4: &str = "
ALTER TABLE message ADD COLUMN recipients INTEGER;
ALTER TABLE message ADD COLUMN digest BLOB;
ALTER TABLE recipient ADD COLUMN digest BLOB;
CREATE TABLE lifetime (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    lived INTEGER NOT NULL,
    at INTEGER,
    latest INTEGER,
    boot TEXT,
    uptime INTEGER
) STRICT;
INSERT INTO lifetime VALUES (1, 2592000000, NULL, NULL, NULL, NULL);
ALTER TABLE message ADD COLUMN lived INTEGER NOT NULL DEFAULT 2419200000;
UPDATE message SET since = 2592000000 - MIN(MAX(unixepoch('now') * 1000 - since, 0), 172800000);
UPDATE recipient SET failed_at = 2592000000 - MIN(MAX(unixepoch('now') * 1000 - failed_at, 0), 172800000)
    WHERE failed_at IS NOT NULL;
UPDATE quota SET at = 2592000000 - MIN(MAX(unixepoch('now') * 1000 - at, 0), 172800000);
ALTER TABLE history ADD COLUMN lived INTEGER NOT NULL DEFAULT 2419200000;
DROP INDEX history_at;
CREATE INDEX history_lived ON history (lived);
ALTER TABLE message ADD COLUMN message_id TEXT;
ALTER TABLE history ADD COLUMN message_id TEXT;
CREATE INDEX message_by_message_id ON message (key >> 10, message_id) WHERE message_id IS NOT NULL;
CREATE TABLE deduplication (
    key BLOB PRIMARY KEY,
    id TEXT NOT NULL,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX deduplication_until ON deduplication (until);
";

/// Milliseconds on a queue's own clock when it begins; events from before the queue existed get earlier values.
pub(super) const BEGINNING: i64 = 2_592_000_000;

/// Keys in a group of `message_by_message_id`, which is `key >> 10`.
pub(super) const MESSAGE_ID_GROUP: i64 = 1 << 10;

/// The first version whose rows have digests.
pub(super) const COVERED: usize = 4;

#[derive(Debug, thiserror::Error)]
pub(super) enum SchemaError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("it was written by a newer waxseal (its schema has version {found}, this program knows {known})")]
    TooNew { found: i64, known: usize },
    #[error("it is a database of another program")]
    Foreign,
    #[error("write-ahead logging cannot be switched on there (journal mode {0:?}); is it a network file system?")]
    NoWal(String),
}

/// Opens the one connection that writes. Creates and migrates the tables.
pub(super) fn open_writer(path: &Path) -> Result<Connection, SchemaError> {
    let mut connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | FLAGS)?;
    connection.busy_timeout(BUSY)?;
    let found = pragma(&connection, "user_version")?;
    let application = pragma(&connection, "application_id")?;
    let known = MIGRATIONS.len();
    let version = usize::try_from(found).ok().filter(|version| *version <= known);
    let version = version.ok_or(SchemaError::TooNew { found, known })?;
    let is_empty = pragma(&connection, "schema_version")? == 0;
    if application != i64::from(APPLICATION) && !is_empty {
        return Err(SchemaError::Foreign);
    }
    if is_empty {
        // Only before the first table is created; later, free space is returned once a backlog is gone.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(SchemaError::NoWal(mode));
    }
    // FULL: a commit is on the disk when it returns. NORMAL would lose acknowledged mail in a power failure.
    connection.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -8000;
         PRAGMA cell_size_check = ON;",
    )?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES.cast_signed())?;
    keep_plans(&connection)?;
    connection.set_prepared_statement_cache_capacity(128);
    if version < known {
        migrate(&mut connection, version)?;
    }
    Ok(connection)
}

/// For lists and contents; sees committed data.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | FLAGS)?;
    connection.busy_timeout(BUSY)?;
    connection.execute_batch("PRAGMA temp_store = MEMORY; PRAGMA cache_size = -1000; PRAGMA cell_size_check = ON;")?;
    keep_plans(&connection)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Keeps prepared statements prepared. The bundled SQLite is built with STAT4, which prepares a statement again for
/// each new value that is bound to a range condition; the query planner stability guarantee turns that off
/// (<https://sqlite.org/queryplanner-ng.html#qpsg>).
fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

// Each connection is used by one thread at a time.
const FLAGS: OpenFlags = OpenFlags::SQLITE_OPEN_NO_MUTEX;
const BUSY: Duration = Duration::from_secs(10);

pub(super) const fn current_version() -> usize {
    MIGRATIONS.len()
}

fn migrate(connection: &mut Connection, version: usize) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for step in &MIGRATIONS[version..] {
        transaction.execute_batch(step)?;
    }
    if version < COVERED {
        envelope::cover_all(&Sql::new(&transaction))?;
    }
    transaction.pragma_update(None, "user_version", i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX))?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.commit()
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

/// Where each table and index begins. It is the same in every database of a version, because roots are kept at the
/// front and only migrations move them. `None`: the current version.
pub(super) fn roots(version: Option<usize>) -> rusqlite::Result<BTreeMap<String, i64>> {
    let connection = Connection::open_in_memory()?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    for step in MIGRATIONS.iter().take(version.unwrap_or(MIGRATIONS.len())) {
        connection.execute_batch(step)?;
    }
    let mut statement = connection.prepare("SELECT name, rootpage FROM sqlite_schema WHERE rootpage > 0")?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}
