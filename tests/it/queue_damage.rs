//! `waxseal queue check` and `waxseal queue salvage` as an operator sees them: their output, in words and in JSON, and
//! their exit status, for each state that a queue can be in, and how the gateway continues afterwards.

use crate::support::application::{hand_in, mail};
use crate::support::gateway::Setup;
use crate::support::stored;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

const CONFIG: &str = "unsigned = \"send\"\n[log]\nformat = \"json\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
    [[upstream]]\nname = \"sandbox\"\nprovider = \"sandbox\"\n";
/// Messages that wait.
const WAITING: u64 = 40;
/// And those that failed.
const FAILED: u64 = 2;
const ALL: u64 = WAITING + FAILED;

const CHECK: [&str; 2] = ["queue", "check"];
const SALVAGE: [&str; 3] = ["queue", "salvage", "--yes"];

fn data(setup: &Setup) -> PathBuf {
    setup.folder().join("data")
}

/// With mail that is not due for a while.
async fn queue() -> Setup {
    let setup = Setup::new(Some(CONFIG));
    fs::create_dir_all(data(&setup)).unwrap();
    let queue = stored::open(&data(&setup));
    for number in 0..WAITING {
        stored::put(&queue, 1, &format!("waiting {number}"), &[("you@example.net", stored::deferred())]).await;
    }
    for number in 0..FAILED {
        stored::put(&queue, 1, &format!("failed {number}"), &[("they@example.net", stored::failed())]).await;
    }
    stored::put(&queue, 1, "delivered", &[("them@example.net", stored::delivered())]).await;
    waxseal::queue::Queue::close(&queue).await;
    setup
}

/// Exit status, and everything printed.
fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned())
}

fn json(setup: &Setup, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = setup.output(&[arguments, &["--json"]].concat());
    let text = said(&output).1;
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// In the form from before envelopes had digests.
fn make_version_3(data: &Path) {
    let sql = "DROP TABLE deduplication; DROP TABLE lifetime; DROP INDEX history_lived; ALTER TABLE history DROP COLUMN lived;
        ALTER TABLE message DROP COLUMN lived; CREATE INDEX history_at ON history (at);
        ALTER TABLE message DROP COLUMN digest; ALTER TABLE message DROP COLUMN recipients;
        ALTER TABLE recipient DROP COLUMN digest; PRAGMA user_version = 3; PRAGMA wal_checkpoint(TRUNCATE);";
    rusqlite::Connection::open(data.join("queue.sqlite")).unwrap().execute_batch(sql).unwrap();
}

fn rewrite(data: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let path = data.join("queue.sqlite");
    let mut octets = fs::read(&path).unwrap();
    change(&mut octets);
    fs::write(path, octets).unwrap();
}

struct Case {
    what: &'static str,
    change: fn(&Path),
    /// The exit status and output of the check and the salvage.
    check: (i32, &'static [&'static str]),
    salvage: (i32, &'static [&'static str]),
    /// Messages that are unchanged in the new database, and those set aside; at least.
    whole: u64,
    damaged: u64,
    /// The check's exit status afterwards: set-aside mail counts as damage.
    after: i32,
}

const HEALTHY: (i32, &[&str]) = (0, &["42 messages looked at; nothing is damaged."]);
const DAMAGED: (i32, &[&str]) = (1, &["cannot be read", "queue salvage"]);
const WHOLE: (i32, &[&str]) =
    (0, &["As they were stored: 42 messages.", "History: 1 row.", "is kept as", "queue.sqlite.damaged-"]);

const CASES: [Case; 7] = [
    Case { what: "healthy", change: |_| (), check: HEALTHY, salvage: WHOLE, whole: ALL, damaged: 0, after: 0 },
    Case {
        what: "its first page overwritten",
        change: |data| rewrite(data, |octets| octets[..4096].fill(0xa5)),
        check: DAMAGED,
        salvage: WHOLE,
        whole: ALL,
        damaged: 0,
        after: 0,
    },
    Case {
        what: "its header whole and the rest of the first page gone",
        change: |data| rewrite(data, |octets| octets[100..4096].fill(0)),
        check: DAMAGED,
        salvage: WHOLE,
        whole: ALL,
        damaged: 0,
        after: 0,
    },
    Case {
        what: "cut in the middle",
        change: |data| rewrite(data, |octets| octets.truncate(octets.len() / 2)),
        check: (1, &["queue salvage"]),
        salvage: (1, &["own count of messages cannot be read", "the rest cannot be read", "is kept as"]),
        whole: 0,
        damaged: 0,
        after: 0,
    },
    Case {
        what: "cut in the middle of its first page",
        change: |data| rewrite(data, |octets| octets.truncate(1000)),
        check: DAMAGED,
        salvage: (1, &["As they were stored: 0 messages.", "own count of messages cannot be read", "is kept as"]),
        whole: 0,
        damaged: 0,
        after: 0,
    },
    Case {
        what: "of an older version",
        change: make_version_3,
        check: HEALTHY,
        salvage: (1, &["Set aside as damaged", "older version", "retry it", "History: 1 row."]),
        whole: 0,
        damaged: ALL,
        after: 1,
    },
    Case {
        what: "of an older version, its first page overwritten",
        change: |data| {
            make_version_3(data);
            rewrite(data, |octets| octets[100..4096].fill(0));
        },
        check: DAMAGED,
        salvage: (1, &["Set aside as damaged", "older version", "History: 1 row."]),
        whole: 0,
        damaged: ALL,
        after: 1,
    },
];

fn assert_says(what: &str, output: &Output, code: i32, words: &[&str]) {
    let (status, text) = said(output);
    assert_eq!(status, Some(code), "{what}: {text}");
    words.iter().for_each(|words| assert!(text.contains(words), "{what}: no {words:?} in {text}"));
}

#[tokio::test]
async fn each_state_of_a_queue_is_told_and_leads_to_one_that_starts() {
    for case in CASES {
        let what = case.what;
        let setup = queue().await;
        (case.change)(&data(&setup));
        assert_says(what, &setup.output(&CHECK), case.check.0, case.check.1);
        let (code, checked) = json(&setup, &CHECK);
        let is_well = case.check.0 == 0;
        assert_eq!((code, checked["well"].as_bool()), (Some(case.check.0), Some(is_well)), "{what}: {checked:#}");
        if case.check == DAMAGED {
            assert!(checked["unreadable"].is_string(), "{what}: {checked:#}");
            let (status, text) = said(&setup.output(&["run"]));
            assert!(status == Some(2) && text.contains("queue salvage"), "{what}: {text}");
        }
        assert_says(what, &setup.output(&SALVAGE), case.salvage.0, case.salvage.1);
        let kept = fs::read_dir(data(&setup)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let kept: Vec<_> = kept.filter(|name| name.starts_with("queue.sqlite.") && !name.ends_with("-wal")).collect();
        assert!(kept.len() == 1 && kept[0].starts_with("queue.sqlite.damaged-"), "{what}: {kept:?}");
        assert_eq!(setup.output(&CHECK).status.code(), Some(case.after), "{what}: {}", said(&setup.output(&CHECK)).1);
        let (_, list) = json(&setup, &["queue", "list", "--all"]);
        let listed = list["messages"].as_array().unwrap().len() as u64;
        assert!(listed >= case.whole + case.damaged, "{what}: {listed} are listed");
        let gateway = tokio::task::spawn_blocking(move || setup.start(1)).await.unwrap();
        let taken = hand_in(gateway.address(), &["you@example.net"], &mail("new")).await;
        assert!(taken.starts_with("250 "), "{what}: {taken}");
    }
}

#[tokio::test]
async fn the_salvage_reports_the_same_in_json() {
    for case in CASES {
        let what = case.what;
        let setup = queue().await;
        (case.change)(&data(&setup));
        let (code, salvaged) = json(&setup, &SALVAGE);
        assert_eq!(code, Some(case.salvage.0), "{what}: {salvaged:#}");
        let count = |key: &str| salvaged[key].as_array().unwrap().len() as u64;
        assert!(salvaged["whole"].as_u64() >= Some(case.whole), "{what}: {salvaged:#}");
        assert!(count("damaged") >= case.damaged, "{what}: {salvaged:#}");
        let kept = Path::new(salvaged["kept_as"].as_str().unwrap());
        assert!(setup.folder().join(kept).exists(), "{what}: {salvaged:#}");
    }
}

/// Beside a gateway the check reads, and the salvage is refused and changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn beside_a_running_gateway_only_the_check_works() {
    let setup = queue().await;
    let gateway = tokio::task::spawn_blocking(move || setup.start(1)).await.unwrap();
    let run = |arguments: &[&str]| gateway.output(arguments);
    assert_says("beside a gateway", &run(&CHECK), 0, &["nothing is damaged"]);
    let holder = format!("process {}", gateway.pid());
    let refusal: [&str; 3] = ["a salvage needs the queue for itself", &holder, "stop it first"];
    for arguments in [&SALVAGE[..], &["queue", "salvage", "--yes", "--json"], &["queue", "salvage"]] {
        let (status, text) = said(&run(arguments));
        assert_eq!(status, Some(2), "{text}");
        refusal.iter().for_each(|words| assert!(text.contains(words), "no {words:?} in {text}"));
    }
    let names: Vec<_> =
        fs::read_dir(gateway.folder().join("data")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().contains("salvag")), "{names:?}");
    let taken = hand_in(gateway.address(), &["you@example.net"], &mail("new")).await;
    assert!(taken.starts_with("250 "), "{taken}");
}

#[tokio::test]
async fn what_stands_in_the_way_is_named_and_nothing_is_changed() {
    let none = Setup::new(Some(CONFIG));
    for command in [&CHECK[..], &SALVAGE] {
        assert_says("no queue", &none.output(command), 2, &["there is no queue in", "--config"]);
    }
    assert!(!data(&none).exists(), "nothing is made");
    let setup = queue().await;
    let before = fs::read(data(&setup).join("queue.sqlite")).unwrap();
    assert_says("nobody to ask", &setup.output(&["queue", "salvage"]), 2, &["no terminal", "--yes"]);
    // The remains of an interrupted salvage are replaced; if that is not possible, they are named.
    for name in ["queue.sqlite.salvaging", "queue.sqlite.reading"] {
        fs::create_dir_all(data(&setup).join(name).join("full")).unwrap();
        assert_says(name, &setup.output(&SALVAGE), 2, &["is as it was", name]);
        fs::remove_dir_all(data(&setup).join(name)).unwrap();
        fs::write(data(&setup).join(name), "left over").unwrap();
    }
    assert!(fs::read(data(&setup).join("queue.sqlite")).unwrap() == before);
    fs::write(data(&setup).join("queue.sqlite.salvaged"), "left over").unwrap();
    let (_, first) = json(&setup, &SALVAGE);
    // A second salvage in the same second: its name is already in use.
    let (code, second) = json(&setup, &SALVAGE);
    assert_eq!((code, second["whole"].as_u64()), (Some(0), Some(ALL)), "{second:#}");
    assert_ne!(first["kept_as"], second["kept_as"]);
}
