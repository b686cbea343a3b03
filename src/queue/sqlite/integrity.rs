//! What SQLite's own check of the pages finds, and what it means: an index can be made again from its table, a table of contents
//! costs the messages that are on its bad pages, and anything else makes every further write a danger.

use super::schema;
use rusqlite::Connection;
use std::collections::BTreeSet;

/// Octets of a database that is checked at each start: half a second's work at most.
const CHECKED_AT_START: i64 = 64 * 1024 * 1024;

/// Tables whose pages carry nothing but what belongs to one message, and is verified when it is read.
const APART: [&str; 4] = ["content", "original", "attempt", "history"];

/// Findings that are told; of a database with more, more would help nobody.
const TOLD: i64 = 100;

/// Everything that is wrong; empty: nothing.
pub(super) fn findings(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({TOLD})"))?;
    let mut rows = statement.query([])?;
    let mut found: Vec<String> = Vec::new();
    loop {
        match rows.next() {
            Ok(Some(row)) => found.push(row.get(0)?),
            Ok(None) => break,
            // It ends at the first row that cannot be read; the pages were looked at before.
            Err(_) if !found.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    let lines = found.iter().flat_map(|text| text.lines()).filter(|line| *line != "ok" && !line.starts_with("***"));
    Ok(lines.map(str::to_owned).collect())
}

/// Of a small database. Indexes are made again where they alone are damaged; `Err`: it must not be written to.
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
        tracing::warn!(finding = found[0], "indexes of the queue were damaged; they were made again from their tables");
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

/// Of a page of such a table, or of one that it alone knew.
fn is_apart(line: &str, apart: &BTreeSet<String>) -> bool {
    apart.iter().any(|tree| line.starts_with(tree.as_str()))
        || (line.starts_with("Page ") && line.ends_with("never used"))
}
