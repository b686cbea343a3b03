//! A copy of a damaged database that SQLite can read as far as the pages allow: it includes the log's contents and a
//! rebuilt first page. All databases of one schema version have their tables at the same places, so neither the damaged
//! schema nor an index is needed.

use super::super::inspect::names;
use super::super::schema;
use super::super::wal::PAGE;
use super::{SalvageError, beside, log_of, remove};
use rusqlite::{Connection, OpenFlags, params};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Maximum number of pages that the log may address beyond the end of the database and of itself.
const SLACK: u64 = 16;

/// The tables that a salvage reads, without constraints that a damaged row could violate. `name_index` is the index of
/// `message.id`, read as a table: it has the ids of messages whose rows are lost.
const TABLES: [(&str, &str, &str); 13] = [
    (
        "message",
        "message",
        "key INTEGER PRIMARY KEY,id,received_at,since,sender,eight_bit,smtputf8,size,subject,listener,user,marks,recipients,digest,lived,message_id",
    ),
    ("name_index", "sqlite_autoindex_message_1", "id,key,PRIMARY KEY(id,key)"),
    ("content", "content", "message INTEGER PRIMARY KEY,header,body,digest"),
    ("original", "original", "message INTEGER PRIMARY KEY,data"),
    ("job", "job", "message,lane,domain,due,state,suspect,PRIMARY KEY(message,lane)"),
    (
        "recipient",
        "recipient",
        "message,position,address,lane,failed_at,attempts,upstream,reason,digest,PRIMARY KEY(message,position)",
    ),
    ("attempt", "attempt", "message,number,at,upstream,text,possible_duplicate,PRIMARY KEY(message,number)"),
    (
        "history",
        "history",
        "key INTEGER PRIMARY KEY,id,received_at,sender,recipients,subject,size,at,upstream,reply,milliseconds,lived,message_id",
    ),
    ("hold", "hold", "lane,held,PRIMARY KEY(lane)"),
    ("ledger", "ledger", "one INTEGER PRIMARY KEY,held_all,routes,waiting,leased,failed,damaged"),
    ("quota", "quota", "name,number,at,units,PRIMARY KEY(name,number)"),
    ("deduplication", "deduplication", "key,id,until,PRIMARY KEY(key)"),
    ("lifetime", "lifetime", "one INTEGER PRIMARY KEY,lived,at,latest,boot,uptime"),
];

#[derive(Debug)]
pub(super) struct SalvageSource {
    connection: Connection,
    path: PathBuf,
    /// Whether its rows have digests.
    pub(super) is_covered: bool,
}

impl SalvageSource {
    pub(super) fn copy(path: &Path) -> Result<Self, SalvageError> {
        let copy = beside(path, ".reading");
        let scratch = beside(path, ".template");
        for left in [&copy, &scratch] {
            remove(left)?;
            remove(&beside(left, "-journal"))?;
        }
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&copy)?;
        io::copy(&mut File::open(path)?, &mut file)?;
        apply_log(path, &file)?;
        let version = version(&file);
        let is_covered = version.is_none_or(|version| version >= schema::COVERED);
        let first = first_page(&scratch, version).map_err(|error| SalvageError::Make(error.to_string()))?;
        remove(&scratch)?;
        let pages = file.metadata()?.len() / PAGE as u64;
        file.set_len(pages.max(1) * PAGE as u64)?;
        file.write_all_at(&first, 0)?;
        let size = u32::try_from(pages.max(1)).unwrap_or(u32::MAX);
        file.write_all_at(&size.to_be_bytes(), 28)?;
        let connection = Connection::open_with_flags(&copy, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.execute_batch("PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY;")?;
        Ok(Self { connection, path: copy, is_covered })
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The ids of messages by key, from their index.
    pub(super) fn names(&self) -> BTreeMap<i64, String> {
        names(self.connection(), "name_index")
    }
}

impl Drop for SalvageSource {
    fn drop(&mut self) {
        let _litter_that_the_next_one_removes = remove(&self.path);
    }
}

/// `None`: its header is damaged.
fn version(file: &File) -> Option<usize> {
    let mut header = [0; 100];
    file.read_exact_at(&mut header, 0).ok()?;
    let word = |at: usize| header.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_be_bytes);
    let is_ours = header.starts_with(b"SQLite format 3\0") && word(68) == Some(schema::APPLICATION.cast_unsigned());
    word(60).filter(|_| is_ours).and_then(|version| usize::try_from(version).ok()).filter(|version| *version > 0)
}

fn apply_log(path: &Path, file: &File) -> io::Result<()> {
    let Some(frames) = log_of(path)? else { return Ok(()) };
    let log = std::fs::metadata(beside(path, "-wal"))?.len();
    let pages = (file.metadata()?.len() + log) / PAGE as u64 + SLACK;
    // Pages that no commit follows belong to a transaction that was never acknowledged.
    let mut pending = Vec::new();
    for frame in frames {
        let frame = frame?;
        if (1..=pages).contains(&u64::from(frame.page)) {
            pending.push((frame.page, frame.data));
        }
        if frame.is_commit {
            for (page, data) in pending.drain(..) {
                file.write_all_at(&data, (u64::from(page) - 1) * PAGE as u64)?;
            }
        }
    }
    Ok(())
}

/// A first page that lists all tables and no index.
fn first_page(scratch: &Path, version: Option<usize>) -> Result<Vec<u8>, SalvageError> {
    let roots = schema::roots(version).map_err(|error| SalvageError::Make(error.to_string()))?;
    let template = Connection::open(scratch)?;
    template
        .execute_batch("PRAGMA page_size = 4096; PRAGMA auto_vacuum = INCREMENTAL; CREATE TABLE t(a); DROP TABLE t;")?;
    template.execute_batch("PRAGMA writable_schema = ON")?;
    for (name, of, columns) in TABLES {
        let Some(root) = roots.get(of) else { continue };
        let rowid = if columns.contains("INTEGER PRIMARY KEY") { "" } else { "WITHOUT ROWID" };
        template.execute(
            "INSERT INTO sqlite_schema (type, name, tbl_name, rootpage, sql) VALUES ('table', ?1, ?1, ?2, ?3)",
            params![name, root, format!("CREATE TABLE {name}({columns}){rowid}")],
        )?;
    }
    template.close().map_err(|(_, error)| error)?;
    let mut page = std::fs::read(scratch)?;
    page.truncate(PAGE);
    // The largest root page; it only has to show that the database contains pages of pointers.
    let largest = roots.values().copied().max().and_then(|root| u32::try_from(root).ok()).unwrap_or(1);
    if let Some(slot) = page.get_mut(52..56) {
        slot.copy_from_slice(&largest.to_be_bytes());
    }
    Ok(page)
}
