//! How many recipients are on each lane, by state: counted once when the queue is opened, and then kept by the writer
//! with each commit. In memory only, so a commit writes nothing for it, and nobody counts a long queue to show it.

use super::rows::{LEASED, WAITING, from_column, unsigned};
use super::work::{LaneTallies, Sql, Tally};
use crate::queue::{LaneCounts, Suspension};
use jiff::Timestamp;
use parking_lot::Mutex;
use rusqlite::Connection;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// The oldest message of a lane with more messages than this is looked for at most once in [`STALE_AFTER`].
const EXACT: u64 = 20_000;
const STALE_AFTER: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct LaneCounter {
    lanes: Mutex<HashMap<String, Tally>>,
    oldest: Mutex<HashMap<String, FoundOldest>>,
}

/// The time at which a lane's oldest message was received.
#[derive(Debug, Clone, Copy)]
struct FoundOldest {
    received_at: Option<Timestamp>,
    found: Instant,
}

impl LaneCounter {
    /// Counts every recipient. Only for a connection of which no transaction is open.
    pub(super) fn count(connection: &Connection) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare(
            "SELECT recipient.lane, failed_at IS NOT NULL, job.state, COUNT(*) FROM recipient
             LEFT JOIN job ON job.message = recipient.message AND job.lane = recipient.lane
             GROUP BY 1, 2, 3",
        )?;
        let mut lanes: HashMap<String, Tally> = HashMap::new();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (is_failed, state, count): (bool, Option<i64>, i64) = (row.get(1)?, row.get(2)?, row.get(3)?);
            let tally = lanes.entry(row.get(0)?).or_default();
            match state {
                _ if is_failed => tally.failed += count,
                Some(WAITING) => tally.waiting += count,
                Some(LEASED) => tally.leased += count,
                _ => tally.damaged += count,
            }
        }
        drop(rows);
        Ok(Self { lanes: Mutex::new(lanes), oldest: Mutex::default() })
    }

    /// Called after each commit with what it changed.
    pub(super) fn apply(&self, tallies: &LaneTallies) {
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
            counts.oldest = self.oldest(sql, &counts.lane, unsigned(here.waiting + here.leased))?;
        }
        Ok(counts)
    }

    /// `recipients`: those that wait or are leased there.
    fn oldest(&self, sql: &Sql<'_>, lane: &str, recipients: u64) -> rusqlite::Result<Option<Timestamp>> {
        if recipients == 0 {
            self.oldest.lock().remove(lane);
            return Ok(None);
        }
        let known = self.oldest.lock().get(lane).copied();
        if let Some(known) = known.filter(|known| recipients > EXACT && known.found.elapsed() < STALE_AFTER) {
            return Ok(known.received_at);
        }
        let first = |query, state: Option<i64>| {
            let read = |row: &rusqlite::Row<'_>| row.get::<_, Option<i64>>(0);
            match state {
                Some(state) => sql.first(query, (lane, state), read),
                None => sql.first(query, [lane], read),
            }
        };
        let waiting = first("SELECT MIN(message) FROM job INDEXED BY job_due WHERE state = 0 AND lane = ?1", None)?;
        let leased = first(
            "SELECT MIN(message) FROM job INDEXED BY job_apart WHERE state > 0 AND lane = ?1 AND state = ?2",
            Some(LEASED),
        )?;
        let oldest = [waiting.flatten(), leased.flatten()].into_iter().flatten().min();
        let received_at = match oldest {
            Some(key) => sql.first("SELECT received_at FROM message WHERE key = ?1", [key], |row| row.get(0))?,
            None => None,
        };
        let received_at = received_at.map(from_column);
        self.oldest.lock().insert(lane.to_owned(), FoundOldest { received_at, found: Instant::now() });
        Ok(received_at)
    }
}
