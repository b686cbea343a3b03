//! Runs SQLite's own check of the pages and interprets its findings: an index can be rebuilt from its table, a bad page
//! in a content table costs the messages on it, and anything else makes every further write dangerous.

use super::schema;
use rusqlite::Connection;
use std::collections::BTreeSet;

/// Databases up to this size, in octets, are checked at each start: half a second's work at most.
const CHECKED_AT_START: i64 = 64 * 1024 * 1024;

/// Tables of which every page belongs to single messages and is verified when it is read.
const APART: [&str; 4] = ["content", "original", "attempt", "history"];

/// Maximum number of findings; more would not help anyone.
const TOLD: i64 = 100;

/// Everything that is wrong; empty if nothing is.
pub(super) fn findings(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({TOLD})"))?;
    let mut rows = statement.query([])?;
    let mut found: Vec<String> = Vec::new();
    loop {
        match rows.next() {
            Ok(Some(row)) => found.push(row.get(0)?),
            Ok(None) => break,
            // The check ends at the first unreadable row; the pages were checked before.
            Err(_) if !found.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    let lines = found.iter().flat_map(|text| text.lines()).filter(|line| *line != "ok" && !line.starts_with("***"));
    Ok(lines.map(str::to_owned).collect())
}

/// Checks a small database. Damaged indexes are rebuilt if nothing else is damaged; `Err`: it must not be written to.
pub(super) fn at_start(connection: &Connection) -> Result<(), String> {
    let size =
        connection.query_row("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size", [], |row| {
            row.get::<_, i64>(0)
        });
    if size.map_err(|error| error.to_string())? > CHECKED_AT_START {
        return Ok(());
    }
    let found = findings(connection).map_err(|error| error.to_string())?;
    if found.is_empty() {
        return Ok(());
    }
    let apart = roots_apart().map_err(|error| error.to_string())?;
    if let Some(worst) = found.iter().find(|line| !is_of_index(line) && !is_apart(line, &apart)) {
        return Err(worst.clone());
    }
    if found.iter().any(|line| is_of_index(line)) {
        connection.execute_batch("REINDEX").map_err(|error| error.to_string())?;
        tracing::warn!(finding = found[0], "indexes of the queue were damaged; they were rebuilt from their tables");
    }
    let left = findings(connection).map_err(|error| error.to_string())?;
    if let Some(worst) = left.iter().find(|line| !is_apart(line, &apart)) {
        return Err(worst.clone());
    }
    if let Some(first) = left.first() {
        tracing::error!(
            finding = first,
            findings = left.len(),
            "the queue's database is damaged; what is not goes on. `waxseal queue check` says what is; stop the gateway and run \
             `waxseal queue salvage` for a database without damage"
        );
    }
    Ok(())
}

fn roots_apart() -> rusqlite::Result<BTreeSet<String>> {
    let roots = schema::roots(None)?;
    Ok(APART.iter().filter_map(|table| roots.get(*table)).map(|root| format!("Tree {root} ")).collect())
}

fn is_of_index(line: &str) -> bool {
    line.contains("missing from index")
        || line.starts_with("wrong # of entries in index")
        || line.starts_with("non-unique entry")
}

/// Concerns a page of such a table, or a page that only such a table referred to.
fn is_apart(line: &str, apart: &BTreeSet<String>) -> bool {
    apart.iter().any(|tree| line.starts_with(tree.as_str()))
        || (line.starts_with("Page ") && line.ends_with("never used"))
}
