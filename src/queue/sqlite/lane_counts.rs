//! How many recipients are on each lane, by state: counted once when the queue is opened, and then kept by the writer
//! with each commit. In memory only, so a commit writes nothing for it, and nobody counts a long queue to show it.

use super::rows::{DAMAGED, LEASED, from_column, tally_of, unsigned};
use super::work::{LaneTallies, Sql, Tally};
use crate::queue::{LaneCounts, Suspension};
use jiff::Timestamp;
use parking_lot::Mutex;
use rusqlite::Connection;
use std::collections::{BTreeMap, HashMap};

/// Of a lane with no more recipients than this, all index entries are examined for its oldest message.
const FEW: u64 = 2_000;
/// Rows that are examined at once for the oldest message of another lane.
const STEP: usize = 20_000;

#[derive(Debug, Default)]
pub(super) struct LaneCounter {
    lanes: Mutex<HashMap<String, Tally>>,
    fronts: Mutex<Fronts>,
}

/// Where lanes begin: below this key, no message of the lane waits or is leased. Keys grow from message to message, so the
/// front of a lane only advances, except when an operation brings back older mail.
#[derive(Debug, Default)]
struct Fronts {
    by_lane: HashMap<String, i64>,
    /// Changes whenever the fronts are forgotten.
    era: u64,
}

impl LaneCounter {
    /// Counts every recipient. Only for a connection of which no transaction is open.
    pub(super) fn count(connection: &Connection) -> rusqlite::Result<Self> {
        // Counted here: SQLite would sort all rows in memory to group them.
        let mut statement = connection.prepare(
            "SELECT recipient.lane, failed_at IS NOT NULL, job.state FROM recipient
             LEFT JOIN job ON job.message = recipient.message AND job.lane = recipient.lane",
        )?;
        let mut tallies = LaneTallies::default();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let change = match row.get(2)? {
                _ if row.get(1)? => Tally { failed: 1, ..Tally::default() },
                Some(state) => tally_of(state, 1),
                None => Tally { damaged: 1, ..Tally::default() },
            };
            tallies.add(row.get_ref(0)?.as_str()?, change);
        }
        drop(rows);
        let lanes = tallies.iter().map(|(lane, tally)| (lane.to_owned(), tally)).collect();
        Ok(Self { lanes: Mutex::new(lanes), fronts: Mutex::default() })
    }

    /// Called after each commit with what it changed.
    pub(super) fn apply(&self, tallies: &LaneTallies) {
        if tallies.brings_back_mail() {
            let mut fronts = self.fronts.lock();
            fronts.by_lane.clear();
            fronts.era += 1;
        }
        let mut lanes = self.lanes.lock();
        for (lane, change) in tallies.iter() {
            match lanes.get_mut(lane) {
                Some(tally) => *tally += change,
                None => drop(lanes.insert(lane.to_owned(), change)),
            }
        }
        lanes.retain(|_, tally| *tally != Tally::default());
    }

    /// Suspended mail is counted on the lane that it is for.
    pub(super) fn snapshot(&self, sql: &Sql<'_>) -> rusqlite::Result<Vec<LaneCounts>> {
        let lanes = self.lanes.lock().clone();
        let mut counts: BTreeMap<&str, LaneCounts> = BTreeMap::new();
        for (name, tally) in &lanes {
            let (suspension, lane) = Suspension::split(name);
            let counts =
                counts.entry(lane).or_insert_with(|| LaneCounts { lane: lane.to_owned(), ..LaneCounts::default() });
            match suspension {
                Some(Suspension::Held) => counts.held += unsigned(tally.waiting),
                Some(Suspension::Delayed) | None => counts.waiting += unsigned(tally.waiting),
            }
            counts.leased += unsigned(tally.leased);
            counts.failed += unsigned(tally.failed);
            counts.damaged += unsigned(tally.damaged);
        }
        let mut counts: Vec<LaneCounts> = counts.into_values().collect();
        for counts in &mut counts {
            let here = lanes.get(&counts.lane).copied().unwrap_or_default();
            #[cfg(test)]
            self.compare_searches(sql, &counts.lane)?;
            counts.oldest = self.oldest(sql, &counts.lane, unsigned(here.waiting + here.leased))?;
        }
        Ok(counts)
    }

    /// The conformance suite knows only short lanes.
    #[cfg(test)]
    fn compare_searches(&self, sql: &Sql<'_>, lane: &str) -> rusqlite::Result<()> {
        if let Some(oldest) = oldest_of_few(sql, lane)? {
            assert_eq!(self.advance(sql, lane)?, Some(oldest), "on {lane}");
        }
        Ok(())
    }

    /// When the lane's oldest message was received. `recipients`: those that wait or are leased there.
    fn oldest(&self, sql: &Sql<'_>, lane: &str, recipients: u64) -> rusqlite::Result<Option<Timestamp>> {
        let oldest = match recipients {
            0 => None,
            1..=FEW => oldest_of_few(sql, lane)?,
            _ => self.advance(sql, lane)?,
        };
        let received_at = match oldest {
            Some(key) => sql.first("SELECT received_at FROM message WHERE key = ?1", [key], |row| row.get(0))?,
            None => None,
        };
        Ok(received_at.map(from_column))
    }

    /// The lane's first message; or, if it is not among the next rows, where the search goes on the next time: the message
    /// is not older than that one.
    fn advance(&self, sql: &Sql<'_>, lane: &str) -> rusqlite::Result<Option<i64>> {
        let (front, era) = {
            let fronts = self.fronts.lock();
            (fronts.by_lane.get(lane).copied().unwrap_or(i64::MIN), fronts.era)
        };
        let mut statement = sql.prepare("SELECT message, lane, state FROM job WHERE message >= ?1 ORDER BY message")?;
        let mut rows = statement.query([front])?;
        let mut reached = None;
        for _ in 0..STEP {
            let Some(row) = rows.next()? else { break };
            reached = Some(row.get(0)?);
            if row.get_ref(1)?.as_str().is_ok_and(|name| name == lane) && row.get::<_, i64>(2)? != DAMAGED {
                break;
            }
        }
        let mut fronts = self.fronts.lock();
        if let Some(reached) = reached.filter(|_| fronts.era == era) {
            fronts.by_lane.insert(lane.to_owned(), reached);
        }
        Ok(reached)
    }
}

fn oldest_of_few(sql: &Sql<'_>, lane: &str) -> rusqlite::Result<Option<i64>> {
    let read = |row: &rusqlite::Row<'_>| row.get::<_, Option<i64>>(0);
    let waiting = "SELECT MIN(message) FROM job INDEXED BY job_due WHERE state = 0 AND lane = ?1";
    let waiting = sql.first(waiting, [lane], read)?;
    let leased = "SELECT MIN(message) FROM job INDEXED BY job_apart WHERE state > 0 AND lane = ?1 AND state = ?2";
    let leased = sql.first(leased, (lane, LEASED), read)?;
    Ok([waiting.flatten(), leased.flatten()].into_iter().flatten().min())
}

#[cfg(test)]
mod tests;
