//! The oldest message of a long lane, for which not every row is examined.

use super::*;
use rusqlite::Connection;

/// Messages 1, 2, 3, …, each on the lane of its place and received that many milliseconds after 1970.
fn jobs(lanes: impl IntoIterator<Item = &'static str>) -> Connection {
    let connection = Connection::open_in_memory().expect("a database");
    connection
        .execute_batch(
            "CREATE TABLE job (message INTEGER NOT NULL, lane TEXT NOT NULL, due INTEGER NOT NULL DEFAULT 0,
               state INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (message, lane)) STRICT, WITHOUT ROWID;
             CREATE INDEX job_due ON job (lane, due) WHERE state = 0;
             CREATE INDEX job_apart ON job (state, message) WHERE state > 0;
             CREATE TABLE message (key INTEGER PRIMARY KEY, received_at INTEGER NOT NULL) STRICT;",
        )
        .expect("tables");
    for (key, lane) in (1_i64..).zip(lanes) {
        connection.execute("INSERT INTO job (message, lane) VALUES (?1, ?2)", (key, lane)).expect("a job");
        connection.execute("INSERT INTO message VALUES (?1, ?1)", [key]).expect("a message");
    }
    connection
}

fn oldest(counter: &LaneCounter, connection: &Connection, lane: &str, recipients: u64) -> Option<i64> {
    let found = counter.oldest(&Sql::new(connection), lane, recipients).expect("an answer");
    found.map(Timestamp::as_millisecond)
}

const MANY: u64 = FEW + 1;

#[test]
fn the_front_of_a_lane_advances_and_goes_back_when_older_mail_returns() {
    let connection = jobs(["a", "b", "a", "a", "b"]);
    let counter = LaneCounter::default();
    for recipients in [1, MANY] {
        assert_eq!(oldest(&counter, &connection, "a", recipients), Some(1));
        assert_eq!(oldest(&counter, &connection, "b", recipients), Some(2));
        assert_eq!(oldest(&counter, &connection, "a", 0), None);
    }
    connection.execute_batch("UPDATE job SET state = 1 WHERE message = 1; DELETE FROM job WHERE message = 2").unwrap();
    for recipients in [1, MANY] {
        assert_eq!(oldest(&counter, &connection, "a", recipients), Some(1), "one that is being sent");
        assert_eq!(oldest(&counter, &connection, "b", recipients), Some(5));
    }
    connection.execute_batch("UPDATE job SET state = 2 WHERE message = 1").unwrap();
    assert_eq!(oldest(&counter, &connection, "a", MANY), Some(3), "not a damaged one");
    connection.execute_batch("UPDATE job SET state = 0 WHERE message = 1").unwrap();
    assert_eq!(oldest(&counter, &connection, "a", MANY), Some(3), "the front has passed it");
    let work = super::super::work::Work::new(&connection);
    work.bring_back_mail();
    connection.execute_batch("CREATE TABLE ledger (one, waiting, leased, failed, damaged)").unwrap();
    counter.apply(&work.write_tally().unwrap());
    assert_eq!(oldest(&counter, &connection, "a", MANY), Some(1));
}

#[test]
fn a_lane_far_behind_another_is_reached_step_by_step() {
    let connection = jobs(std::iter::repeat_n("a", 2 * STEP + 10).chain(["b"; 3]));
    let counter = LaneCounter::default();
    let last = i64::try_from(2 * STEP).unwrap() + 11;
    let answers: Vec<_> = (0..4).map(|_| oldest(&counter, &connection, "b", MANY).unwrap()).collect();
    assert!(answers.is_sorted() && answers[0] < last, "not older than each answer: {answers:?}");
    assert_eq!(answers[2..], [last, last]);
    assert_eq!(oldest(&counter, &connection, "b", 3), Some(last), "few are found at once");
}
