//! Opens the database and cleans up after a crash: leases without a holder, files without a message.

use super::bodies::{Bodies, BodyFile, BodyName, SweepError};
use super::failure::{self, of_io, of_sqlite};
use super::identity::{Files, lock_database};
use super::integrity;
use super::lane_counts::LaneCounter;
use super::lifetime;
use super::reserve::Reserve;
use super::rows::{key_of, unsigned};
use super::salvage;
use super::schema::{self, SchemaError};
use super::space::{FreeSpace, lacks_inodes};
use super::store::SqliteStore;
use super::wal;
use super::work::Work;
use super::writer::{Surroundings, Writer};
use crate::observe::Clock;
use crate::observe::metrics::QueueMetrics;
use crate::queue::QueueError;
use crate::queue::lifetime::Lifetime;
use crate::queue::schedule::Schedule;
use parking_lot::RwLock;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Exists and belongs to this process alone.
    pub data_dir: PathBuf,
    /// Octets of newly stored messages that are kept in memory until they are leased.
    pub cache_octets: u64,
    /// Octets of disk space that new mail leaves free.
    pub min_free_space: u64,
    /// Its horizon shows which due times were set before the clock was set back; its `expire` bounds how much of a stop
    /// is believed.
    pub schedule: Schedule,
    pub clock: Clock,
    pub metrics: QueueMetrics,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot open the queue in {}: {cause}", path.display())]
pub struct OpenError {
    path: PathBuf,
    cause: OpenCause,
}

#[derive(Debug, thiserror::Error)]
enum OpenCause {
    #[error(transparent)]
    Schema(SchemaError),
    #[error(transparent)]
    Sqlite(rusqlite::Error),
    #[error(transparent)]
    Io(io::Error),
    /// An error of SQLite or the system, which both have many names for a full disk.
    #[error(transparent)]
    NoRoom(QueueError),
    #[error(
        "the database is damaged: {0}. `waxseal queue check` says what is damaged; `waxseal queue salvage` makes a new database \
         from what can be read, and keeps this one aside"
    )]
    Damaged(String),
}

impl From<SchemaError> for OpenCause {
    fn from(error: SchemaError) -> Self {
        match error {
            SchemaError::Sqlite(error) => error.into(),
            _ => Self::Schema(error),
        }
    }
}

impl From<rusqlite::Error> for OpenCause {
    fn from(error: rusqlite::Error) -> Self {
        match of_sqlite(&error) {
            full @ QueueError::Full(_) => Self::NoRoom(full),
            _ if failure::is_unreadable(&error) => Self::Damaged(error.to_string()),
            _ => Self::Sqlite(error),
        }
    }
}

impl From<io::Error> for OpenCause {
    fn from(error: io::Error) -> Self {
        match of_io(&error) {
            full @ QueueError::Full(_) => Self::NoRoom(full),
            _ => Self::Io(error),
        }
    }
}

impl From<SweepError> for OpenCause {
    fn from(error: SweepError) -> Self {
        match error {
            SweepError::Io(error) => error.into(),
            SweepError::Sqlite(error) => error.into(),
        }
    }
}

pub(super) const DATABASE: &str = "queue.sqlite";

/// Whether a queue was ever opened there.
pub fn exists(data_dir: &Path) -> io::Result<bool> {
    Ok(data_dir.join(DATABASE).try_exists()? || salvage::is_unfinished(data_dir)?)
}

/// Whether opening it changes nothing: it was closed in order and is of this version. Looks at the file alone.
pub fn is_settled(data_dir: &Path) -> io::Result<bool> {
    // https://www.sqlite.org/fileformat.html#user_version_number
    const VERSION_AT: u64 = 60;
    let mut version = [0; 4];
    File::open(data_dir.join(DATABASE))?.read_exact_at(&mut version, VERSION_AT)?;
    let has_log = fs::metadata(data_dir.join(format!("{DATABASE}-wal"))).is_ok_and(|log| log.len() > 0);
    let is_current = usize::try_from(u32::from_be_bytes(version)) == Ok(schema::current_version());
    Ok(is_current && !has_log && !salvage::is_unfinished(data_dir)?)
}

pub(super) fn open(options: &SqliteOptions) -> Result<SqliteStore, OpenError> {
    let path = options.data_dir.join(DATABASE);
    let log = options.data_dir.join(format!("{DATABASE}-wal"));
    let reserve = Arc::new(Reserve::of(&options.data_dir));
    let space = Arc::new(FreeSpace::new(&options.data_dir, &path, &log, options.min_free_space));
    loop {
        let finished = salvage::finish(&options.data_dir).map_err(OpenCause::from);
        match finished.and_then(|()| open_at(options, &path, &reserve, &space)) {
            Err(cause) if is_no_room(&cause, &options.data_dir) && reserve.release() => {}
            opened => {
                if lacks_inodes(&options.data_dir, 1) {
                    // Space for the control socket.
                    reserve.release();
                }
                let opened = opened.inspect(|_| reserve.fill_if_ample(&space));
                return opened.map_err(|cause| OpenError { path, cause });
            }
        }
    }
}

/// Files that a start may have to create, the log and its index among them.
const NEW_FILES: u64 = 4;

/// If a log cannot be created, for example without an inode, SQLite only says that it cannot be opened.
fn is_no_room(cause: &OpenCause, data_dir: &Path) -> bool {
    match cause {
        OpenCause::NoRoom(_) => true,
        OpenCause::Sqlite(error) => {
            error.sqlite_error_code() == Some(ErrorCode::CannotOpen) && lacks_inodes(data_dir, NEW_FILES)
        }
        _ => false,
    }
}

fn open_at(
    options: &SqliteOptions,
    path: &Path,
    reserve: &Arc<Reserve>,
    space: &Arc<FreeSpace>,
) -> Result<SqliteStore, OpenCause> {
    let locked = lock_database(path)?;
    let remains = wal::remains(space.log())?;
    match remains.lost() {
        0 => {}
        lost => {
            return Err(OpenCause::Damaged(format!(
                "its write-ahead log is damaged, and {lost} transactions would be lost"
            )));
        }
    }
    let connection = schema::open_writer(path)?;
    integrity::at_start(&connection).map_err(OpenCause::Damaged)?;
    if remains.are_any() && !empty_log(&connection)? {
        tracing::warn!(
            "the rest of an unfinished transaction stays in the queue's log, because another program is reading the database"
        );
    }
    let suspects = return_leases(&connection)?;
    if suspects > 0 {
        tracing::warn!(
            suspects,
            "recipients were being delivered to when waxseal last ended; they will be tried again and may get their message twice"
        );
    }
    let bodies = Bodies::open(&options.data_dir)?;
    let litter = bodies.sweep(|name| is_named(&connection, name))?;
    if litter > 0 {
        tracing::info!(litter, "removed files of messages that were not accepted or are finished");
    }
    let record = lifetime::kept(&Work::new(&connection))?;
    let lifetime = Lifetime::resume(&record, options.clock.clone(), options.schedule.expire);
    // From now on the log and its index exist.
    space.note(&connection);
    let index = options.data_dir.join(format!("{DATABASE}-shm"));
    let files = Arc::new(Files::new(locked, path, &[space.log(), &index, bodies.folder()])?);
    let reserve = reserve.clone();
    let space = space.clone();
    let counter = Arc::new(LaneCounter::count(&connection)?);
    let metrics = options.metrics.clone();
    let surroundings = Surroundings { reserve, space, files, reading: Arc::new(RwLock::new(())), counter, metrics };
    let writer = Writer::start(connection, surroundings.clone())?;
    Ok(SqliteStore::new(writer, lifetime, bodies, surroundings, path.to_owned(), options))
}

/// Writes the log into the database and empties it; false: a reader prevented it.
pub(super) fn empty_log(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0)).map(|is_busy| !is_busy)
}

/// Every leased recipient waits again, and its next attempt may be a duplicate. Returns how many. Writes nothing if
/// there are none, because a full disk must not prevent the start.
fn return_leases(connection: &Connection) -> Result<u64, OpenCause> {
    let leased = "SELECT leased FROM ledger WHERE one = 1";
    let leased: i64 = Work::new(connection).first(leased, [], |row| row.get(0))?.unwrap_or_default();
    if leased == 0 {
        return Ok(0);
    }
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let work = Work::new(&transaction);
    work.execute("UPDATE job INDEXED BY job_apart SET state = 0, suspect = 1 WHERE state > 0 AND state = 1", [])?;
    work.execute("UPDATE ledger SET waiting = waiting + leased, leased = 0 WHERE one = 1", [])?;
    transaction.commit()?;
    Ok(unsigned(leased))
}

fn is_named(connection: &Connection, (id, part): BodyName) -> rusqlite::Result<bool> {
    let work = Work::new(connection);
    let Some(message) = key_of(&work, id)? else { return Ok(false) };
    let in_file = |row: &rusqlite::Row<'_>| row.get::<_, bool>(0);
    let found = match part {
        BodyFile::Body => work.first("SELECT body IS NULL FROM content WHERE message = ?1", [message], in_file)?,
        BodyFile::Original => work.first("SELECT data IS NULL FROM original WHERE message = ?1", [message], in_file)?,
    };
    Ok(found.unwrap_or(false))
}
