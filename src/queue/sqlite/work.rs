//! `Sql`: a connection that prepares each statement once; `Work`: the same inside the writer's transaction, and it
//! keeps the recipient counters correct.

use super::failure::Failure;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, Row};
use std::cell::{Cell, RefCell};
use std::ops::{AddAssign, Deref};

/// Every statement of the queue goes through this type; tests ask the planner about each (none may scan a table).
#[derive(Clone, Copy)]
pub(super) struct Sql<'a>(&'a Connection);

impl<'a> Sql<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self(connection)
    }

    /// For what reads rows that may be damaged, and therefore takes no part in the statements that tests know.
    pub(super) fn connection(&self) -> &'a Connection {
        self.0
    }

    pub(super) fn prepare(&self, sql: &'static str) -> rusqlite::Result<CachedStatement<'a>> {
        #[cfg(test)]
        super::tests::plans::saw(sql);
        self.0.prepare_cached(sql)
    }

    pub(super) fn execute(&self, sql: &'static str, params: impl Params) -> rusqlite::Result<usize> {
        self.prepare(sql)?.execute(params)
    }

    /// The first row, if there is one.
    pub(super) fn first<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        self.prepare(sql)?.query_row(params, read).optional()
    }

    pub(super) fn all<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        self.prepare(sql)?.query_map(params, read)?.collect()
    }
}

/// Changes to the numbers of recipients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub waiting: i64,
    pub leased: i64,
    pub failed: i64,
    pub damaged: i64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.waiting += other.waiting;
        self.leased += other.leased;
        self.failed += other.failed;
        self.damaged += other.damaged;
    }
}

/// Changes to the numbers of recipients, lane by lane. A batch touches few lanes.
#[derive(Debug, Clone, Default)]
pub(super) struct LaneTallies {
    lanes: Vec<(String, Tally)>,
    brings_back_mail: bool,
}

impl LaneTallies {
    pub(super) fn add(&mut self, lane: &str, change: Tally) {
        match self.lanes.iter_mut().find(|(known, _)| known == lane) {
            Some((_, tally)) => *tally += change,
            None => self.lanes.push((lane.to_owned(), change)),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Tally)> {
        self.lanes.iter().map(|(lane, tally)| (lane.as_str(), *tally))
    }

    /// A message came onto a lane that may have newer ones.
    pub(super) fn brings_back_mail(&self) -> bool {
        self.brings_back_mail
    }

    pub(super) fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.lanes.iter().for_each(|(_, tally)| total += *tally);
        total
    }
}

/// One transaction, shared by the operations of a batch.
pub(super) struct Work<'a> {
    sql: Sql<'a>,
    tallies: RefCell<LaneTallies>,
    keeps_records: bool,
    has_savepoints: bool,
    has_failed: Cell<bool>,
}

impl<'a> Deref for Work<'a> {
    type Target = Sql<'a>;

    fn deref(&self) -> &Sql<'a> {
        &self.sql
    }
}

impl<'a> Work<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        let sql = Sql::new(connection);
        Self {
            sql,
            tallies: RefCell::default(),
            keeps_records: true,
            has_savepoints: true,
            has_failed: Cell::default(),
        }
    }

    /// Without savepoints, which cost a copy of each page: if any operation fails, the whole transaction has to be rolled
    /// back.
    pub(super) fn all_or_nothing(connection: &'a Connection) -> Self {
        Self { has_savepoints: false, ..Self::new(connection) }
    }

    /// Only without savepoints: an operation has failed, or a part of one.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.get()
    }

    /// For a full disk: attempts and history, which only people read, are not written.
    pub(super) fn without_records(connection: &'a Connection) -> Self {
        Self { keeps_records: false, ..Self::new(connection) }
    }

    /// SQLite has rolled back the whole transaction by itself.
    pub(super) fn is_ended(&self) -> bool {
        self.sql.0.is_autocommit()
    }

    pub(super) fn keeps_records(&self) -> bool {
        self.keeps_records
    }

    /// `lane`: as its rows have it, with the prefix of a suspension.
    pub(super) fn count(&self, lane: &str, change: Tally) {
        self.tallies.borrow_mut().add(lane, change);
    }

    /// The operation brings a message onto a lane that may have newer ones.
    pub(super) fn bring_back_mail(&self) {
        self.tallies.borrow_mut().brings_back_mail = true;
    }

    /// Runs one operation completely or not at all, independently of the others in the batch. May be nested.
    pub(super) fn attempt<T>(&self, operation: impl FnOnce(&Self) -> Result<T, Failure>) -> Result<T, Failure> {
        if !self.has_savepoints {
            return operation(self).inspect_err(|_| self.has_failed.set(true));
        }
        let before = self.tallies.borrow().clone();
        self.execute("SAVEPOINT step", [])?;
        match operation(self) {
            Ok(result) => {
                self.execute("RELEASE step", [])?;
                Ok(result)
            }
            Err(failure) => {
                self.tallies.replace(before);
                // If SQLite rolled back the whole transaction, no savepoint is left; the caller checks for that.
                if self.execute("ROLLBACK TO step", []).is_ok() {
                    self.execute("RELEASE step", [])?;
                }
                Err(failure)
            }
        }
    }

    /// Must run before the commit. Returns what it wrote.
    pub(super) fn write_tally(&self) -> rusqlite::Result<LaneTallies> {
        let tallies = self.tallies.take();
        let tally = tallies.total();
        if tally != Tally::default() {
            self.execute(
                "UPDATE ledger SET waiting = waiting + ?1, leased = leased + ?2, failed = failed + ?3,
                 damaged = damaged + ?4 WHERE one = 1",
                (tally.waiting, tally.leased, tally.failed, tally.damaged),
            )?;
        }
        Ok(tallies)
    }
}
