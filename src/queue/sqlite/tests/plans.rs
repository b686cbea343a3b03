//! No statement scans a table: the planner is asked about every statement that the queue prepares, so that a backlog
//! delays no one.

use super::Folder;
use crate::queue::conformance::{self, Harness};
use crate::queue::sqlite::schema;
use parking_lot::Mutex;
use std::collections::BTreeSet;

static SEEN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

pub(in super::super) fn saw(sql: &'static str) {
    SEEN.lock().insert(sql);
}

/// Tables with a single row, or one row per lane.
const SMALL: [&str; 2] = ["ledger", "hold"];

/// Each step of a plan, as `SEARCH job USING INDEX job_due (lane=? AND due<?)`.
fn plan(connection: &rusqlite::Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    // Unbound parameters are NULL, and the plan is the same.
    statement.raw_query().mapped(|row| row.get(3)).map(Result::unwrap).collect()
}

fn is_cheap(step: &str) -> bool {
    let scanned = step.strip_prefix("SCAN ").and_then(|rest| rest.split_whitespace().next());
    let sorts = step.starts_with("USE TEMP B-TREE");
    !sorts && scanned.is_none_or(|table| SMALL.contains(&table) || table == "CONSTANT")
}

#[tokio::test]
async fn no_statement_scans_or_sorts_a_table() {
    async fn scene() -> Harness {
        Harness::of(Folder::new(0)).await
    }
    conformance::a_random_walk_agrees_with_the_model(&scene().await).await;
    conformance::a_crowd_of_domains_with_nothing_due_hides_nobody(&scene().await).await;
    conformance::a_message_is_shown_with_all_that_happened(&scene().await).await;
    conformance::a_message_goes_to_a_corrected_address(&scene().await).await;
    conformance::a_held_lane_leases_nothing_and_accepts_mail(&scene().await).await;
    conformance::every_lane_can_be_held_and_one_released(&scene().await).await;
    conformance::filters_find_what_they_name(&scene().await).await;
    conformance::history_is_paged_newest_first(&scene().await).await;
    conformance::old_failures_and_history_are_forgotten(&scene().await).await;
    conformance::mail_that_is_too_old_is_leased_whether_due_or_not(&scene().await).await;
    conformance::nothing_is_forgotten_by_a_clock_that_is_set(&scene().await).await;
    conformance::lanes_are_reassigned_while_mail_is_taken_and_lent(&scene().await).await;
    conformance::a_message_that_is_taken_out_and_stored_again_is_as_it_was(&scene().await).await;
    conformance::keys_and_history_are_imported_once(&scene().await).await;
    conformance::a_large_message_is_whole_and_goes_with_its_last_recipient(&scene().await).await;

    let folder = Folder::new(0);
    drop(folder.open());
    let connection = schema::open_writer(&folder.path().join("queue.sqlite")).unwrap();
    let seen = SEEN.lock().clone();
    assert!(seen.len() > 50, "the workload reaches the statements: {}", seen.len());
    let mut dear = Vec::new();
    for sql in seen {
        for step in plan(&connection, sql).into_iter().filter(|step| !is_cheap(step)) {
            dear.push(format!("{step}\n    {sql}"));
        }
    }
    assert!(dear.is_empty(), "{}", dear.join("\n"));
}

#[test]
fn the_check_sees_a_scan() {
    let folder = Folder::new(0);
    drop(folder.open());
    let connection = schema::open_writer(&folder.path().join("queue.sqlite")).unwrap();
    for sql in [
        "SELECT COUNT(*) FROM job WHERE state = 0",
        "SELECT * FROM message WHERE sender = ?1",
        "SELECT message FROM job WHERE state = 0 AND lane = ?1 ORDER BY suspect",
    ] {
        assert!(!plan(&connection, sql).iter().all(|step| is_cheap(step)), "{sql}");
    }
}
