//! Flipped octets, zeroed pages, truncated files and damaged logs: the gateway starts, or refuses to and the database
//! is salvaged, and no changed mail is sent. Mail that does not arrive is reported by the salvage, the check or the
//! list.

use super::campaign::{Campaign, Row};
use super::load::hand_in;
use super::{Scale, assert_kept};
use crate::support::gateway::Setup;
use crate::support::upstream::At;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const MAILS: usize = 25;
const PAGE: usize = 4096;

fn database(setup: &Setup) -> PathBuf {
    setup.folder().join("data").join("queue.sqlite")
}

/// Alternately in the database and, if there is one, in its log. Octets follow a fixed sequence, so that a failure can
/// be reproduced.
fn damage(database: &Path, round: usize) {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    let log = PathBuf::from(log);
    let kind = round / 2 % 4;
    let path = if round % 2 == 1 && fs::metadata(&log).is_ok_and(|log| log.len() > 0) { &*log } else { database };
    let mut bytes = fs::read(path).unwrap();
    let spread = |number: usize| (round * 1009 + number + 1).wrapping_mul(2_654_435_761) >> 7;
    // If the last transaction of a log is damaged, it looks like one that was not acknowledged.
    let end = if path == database { bytes.len() } else { bytes.len() / 2 };
    let page = spread(0) % (end / PAGE) * PAGE;
    match kind {
        0 | 1 => (0..1 << (round % 5)).for_each(|number| bytes[spread(number) % end] ^= 1 << (number % 8)),
        2 => bytes[page..page + PAGE].fill(0),
        3 if path == database => bytes.truncate((end / 2).max(page)),
        _ => bytes[page + 100..page + PAGE].fill(0xa5),
    }
    fs::write(path, bytes).unwrap();
}

/// Removes reported ids from `ids`; returns how many more are reported as a number.
fn told(report: &Value, ids: &mut BTreeSet<String>) -> u64 {
    for key in ["damaged", "lost", "messages"] {
        for finding in report[key].as_array().into_iter().flatten() {
            ids.extend(finding["id"].as_str().map(str::to_owned));
        }
    }
    // Null: the salvage says that it does not know.
    if report["missing_recipients"].is_null() && report.get("kept_as").is_some() {
        u64::MAX
    } else {
        report["missing_recipients"].as_u64().unwrap_or(0)
    }
}

fn report(setup: &Setup, arguments: &[&str]) -> Value {
    let output = setup.output(arguments);
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// One database. Returns how many of its mails are neither delivered nor reported.
async fn one(round: usize) -> (Row, usize) {
    let mut campaign = Campaign::new().await;
    campaign.provider.always(At::Mail, "451 4.3.0 later");
    let setup = campaign.setup();
    let gateway = tokio::task::spawn_blocking(move || setup.start(1)).await.unwrap();
    hand_in(gateway.address(), MAILS, &campaign.acknowledged).await;
    campaign.until_quiet().await;
    let (log, setup) = if round.is_multiple_of(2) {
        let (_, log, setup) = tokio::task::spawn_blocking(move || gateway.stop()).await.unwrap();
        (log, setup)
    } else {
        tokio::task::spawn_blocking(move || gateway.kill()).await.unwrap()
    };
    campaign.fault(log);
    damage(&database(&setup), round);
    campaign.provider.always(At::Mail, "250 2.1.0 ok");
    let mut ids = BTreeSet::new();
    let mut more = 0_u64;
    let setup = match tokio::task::spawn_blocking(move || setup.try_start(1)).await.unwrap() {
        Ok(gateway) => drain(&mut campaign, gateway).await,
        Err((log, setup)) => {
            assert!(log.iter().any(|line| line.contains("queue salvage")), "round {round}: no way on: {log:?}");
            campaign.fault(log);
            more = told(&report(&setup, &["queue", "salvage", "--yes", "--json"]), &mut ids);
            let gateway = tokio::task::spawn_blocking(move || setup.start(1)).await.unwrap();
            drain(&mut campaign, gateway).await
        }
    };
    more = more.saturating_add(told(&report(&setup, &["queue", "check", "--json"]), &mut ids));
    more = more.saturating_add(told(&report(&setup, &["queue", "list", "--all", "--json"]), &mut ids));
    let row = campaign.audit("", usize::MAX);
    let arrived: BTreeSet<String> = campaign.provider.messages().iter().map(|message| id_of(&message.data)).collect();
    for message in campaign.provider.messages() {
        assert!(message.mail.starts_with("<reports@example.com>"), "round {round}: another sender: {}", message.mail);
        assert_eq!(message.recipients, ["you@example.net"], "round {round}: another recipient");
    }
    let numbers = campaign.acknowledged.numbers().into_iter().map(|number| campaign.acknowledged.id(number));
    let untold = numbers.filter(|id| !arrived.contains(id) && !ids.contains(id)).count();
    if untold > usize::try_from(more).unwrap_or(usize::MAX) {
        println!("round {round}: {:#}", report(&setup, &["queue", "check", "--json"]));
    }
    (row, untold.saturating_sub(usize::try_from(more).unwrap_or(usize::MAX)))
}

async fn drain(campaign: &mut Campaign, gateway: crate::support::gateway::Gateway) -> Setup {
    campaign.until_quiet().await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    campaign.until_quiet().await;
    let (_status, log, setup) = tokio::task::spawn_blocking(move || gateway.stop()).await.unwrap();
    campaign.fault(log);
    setup
}

fn id_of(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    let id = text.split_once(" id ").and_then(|(_, rest)| rest.split(';').next());
    id.unwrap_or_default().trim().to_owned()
}

/// Lost: neither delivered nor reported. Cut or mixed: changed in any way.
pub async fn damaged_databases(scale: Scale) -> Row {
    let rounds = scale.of(8, 80);
    let mut all: Option<Row> = None;
    for round in 0..rounds {
        let (row, untold) = one(round).await;
        println!("round {round}: {} of {} delivered, {untold} untold", row.delivered, row.acknowledged);
        let sum = all.get_or_insert_with(|| Row {
            faults: 0,
            acknowledged: 0,
            delivered: 0,
            lost: 0,
            duplicates: 0,
            ..row.clone()
        });
        sum.faults += 1;
        sum.acknowledged += row.acknowledged;
        sum.delivered += row.delivered;
        sum.lost += untold;
        sum.duplicates += row.duplicates;
        sum.cut_or_mixed = sum.cut_or_mixed.max(row.cut_or_mixed);
    }
    let all = all.expect("a round at least");
    Row { fault: format!("flipped bytes, emptied pages, cut files ({rounds} databases)"), duplicates_bound: 0, ..all }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_changed_is_sent_from_a_damaged_database() {
    assert_kept(&damaged_databases(Scale::Short).await);
}
