//! `waxseal queue check`: examines the whole queue and changes nothing. Beside a running gateway it sees a snapshot.

use super::bodies::Bodies;
use super::inspect::{Inspector, names};
use super::open::DATABASE;
use super::salvage::{Finding, beside};
use super::{integrity, schema, wal};
use crate::queue::Statistics;
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// The result of the check.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Checked {
    /// Why the database cannot be read at all.
    pub unreadable: Option<String>,
    /// Faults of pages and indexes, as SQLite words them; at most a hundred.
    pub integrity: Vec<String>,
    /// Transactions in the write-ahead log that follow a damaged place.
    pub lost_transactions: u64,
    /// Number of messages examined.
    pub messages: u64,
    /// Messages that differ from what was stored, or of which something is missing.
    pub damaged: Vec<Finding>,
    /// Recipients as counted by this check.
    pub counted: Statistics,
    /// Recipients by the database's own counters.
    pub ledger: Statistics,
}

impl Checked {
    pub fn is_well(&self) -> bool {
        self.unreadable.is_none()
            && self.integrity.is_empty()
            && self.lost_transactions == 0
            && self.damaged.is_empty()
            && self.counted == self.ledger
            && self.counted.damaged == 0
    }
}

/// Blocks. `progress` receives the number of messages done and the total. `Err`: the folder cannot be read.
pub fn check(data_dir: &Path, progress: impl FnMut(u64, u64)) -> io::Result<Checked> {
    let path = data_dir.join(DATABASE);
    std::fs::File::open(&path)?;
    let mut checked = Checked {
        lost_transactions: wal::remains_beside_a_writer(&beside(&path, "-wal"))?.lost(),
        ..Checked::default()
    };
    let looked = schema::open_reader(&path).and_then(|connection| look(&connection, data_dir, &mut checked, progress));
    checked.unreadable = looked.err().map(|error| error.to_string());
    Ok(checked)
}

fn look(
    connection: &Connection,
    data_dir: &Path,
    checked: &mut Checked,
    mut progress: impl FnMut(u64, u64),
) -> rusqlite::Result<()> {
    // One snapshot, whatever is written meanwhile.
    connection.execute_batch("BEGIN")?;
    let version: usize = connection
        .pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))
        .map(|version| usize::try_from(version).unwrap_or_default())?;
    checked.integrity = integrity::findings(connection)?;
    let bodies = Bodies::in_folder(data_dir);
    let inspector = Inspector { connection, bodies: &bodies, covered: version >= schema::COVERED };
    let keys = inspector.keys();
    let all = keys.len() as u64;
    let mut suspects = Vec::new();
    for (done, key) in (0..).zip(keys) {
        progress(done, all);
        let found = inspector.inspect(key);
        checked.messages += u64::from(found.is_any());
        if found.is_any() && !found.is_well() {
            suspects.push(key);
        }
    }
    progress(all, all);
    checked.counted = statistics(connection, COUNTED)?;
    checked.ledger = statistics(connection, "SELECT waiting, leased, failed, damaged FROM ledger WHERE one = 1")?;
    // A message of the old snapshot that was delivered meanwhile has no file any more, but is not damaged.
    connection.execute_batch("COMMIT; BEGIN")?;
    let again = suspects.into_iter().map(|key| inspector.inspect(key));
    let again: Vec<_> = again.filter(|found| found.is_any() && !found.is_well()).collect();
    let names = if again.is_empty() { BTreeMap::new() } else { names(connection, BY_NAME) };
    checked.damaged = again.iter().map(|found| Finding::of(found, names.get(&found.key))).collect();
    Ok(())
}

/// Reads the index alone, because the id in a damaged row may be wrong.
const BY_NAME: &str = "message INDEXED BY sqlite_autoindex_message_1";

const COUNTED: &str = "
    SELECT COALESCE(SUM(failed_at IS NULL AND job.state = 0), 0), COALESCE(SUM(failed_at IS NULL AND job.state = 1), 0),
           COALESCE(SUM(failed_at IS NOT NULL), 0), COALESCE(SUM(failed_at IS NULL AND COALESCE(job.state NOT IN (0, 1), 1)), 0)
    FROM recipient LEFT JOIN job ON job.message = recipient.message AND job.lane = recipient.lane";

fn statistics(connection: &Connection, sql: &str) -> rusqlite::Result<Statistics> {
    connection.query_row(sql, [], |row| {
        let count = |column| row.get(column).map(super::rows::unsigned);
        Ok(Statistics { waiting: count(0)?, leased: count(1)?, failed: count(2)?, damaged: count(3)? })
    })
}
