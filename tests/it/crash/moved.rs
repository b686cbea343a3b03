//! Files that the running gateway has open are deleted, replaced, moved away or mounted over. It then accepts no more
//! mail, because no start would find it; mail accepted earlier is delivered, or is there after an orderly stop.

use super::assert_kept;
use super::campaign::{Campaign, Row};
use super::load::hand_in;
use crate::support::application::{mail, up_to_data};
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::peers;
use crate::support::upstream::At;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Submitted before each change.
const MAILS: usize = 5;

type Step = fn(&Path) -> bool;

struct Case {
    what: &'static str,
    /// In the folder of the configuration; false: it cannot be done here.
    moves: Step,
    /// What the operator does once the gateway has stopped.
    repairs: Step,
    /// Expected in the log.
    says: &'static [&'static str],
}

fn remove(folder: &Path, names: &[&str]) -> bool {
    names.iter().for_each(|name| fs::remove_file(folder.join("data").join(name)).unwrap());
    true
}

const CASES: [Case; 8] = [
    Case {
        what: "queue.sqlite deleted",
        moves: |folder| remove(folder, &["queue.sqlite"]),
        repairs: |_| true,
        says: &["queue.sqlite was deleted", "SIGTERM", "was restored"],
    },
    Case {
        what: "queue.sqlite, -wal and -shm deleted",
        moves: |folder| remove(folder, &["queue.sqlite", "queue.sqlite-wal", "queue.sqlite-shm"]),
        repairs: |_| true,
        says: &["queue.sqlite was deleted", "SIGTERM", "was restored"],
    },
    Case {
        what: "the log of the database deleted",
        moves: |folder| remove(folder, &["queue.sqlite-wal"]),
        repairs: |_| true,
        says: &["queue.sqlite-wal was deleted", "restart"],
    },
    Case {
        what: "data_dir deleted",
        moves: |folder| fs::remove_dir_all(folder.join("data")).is_ok(),
        repairs: |_| true,
        says: &["queue.sqlite was deleted", "SIGTERM", "was restored"],
    },
    Case {
        what: "queue.sqlite replaced",
        moves: |folder| {
            let path = folder.join("data/queue.sqlite");
            fs::write(folder.join("data/new"), "").is_ok() && fs::rename(folder.join("data/new"), path).is_ok()
        },
        repairs: |folder| {
            let data = folder.join("data");
            let rescued = fs::read_dir(&data).unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            let rescued = rescued.filter(|name| name.starts_with("queue-rescued-")).max().expect("it was written anew");
            for stale in ["queue.sqlite-wal", "queue.sqlite-shm"] {
                let _it_may_be_gone = fs::remove_file(data.join(stale));
            }
            fs::rename(data.join(rescued), data.join("queue.sqlite")).is_ok()
        },
        says: &["is not the one that is open", "queue-rescued-"],
    },
    Case {
        what: "data_dir moved away",
        moves: |folder| fs::rename(folder.join("data"), folder.join("elsewhere")).is_ok(),
        repairs: |folder| fs::rename(folder.join("elsewhere"), folder.join("data")).is_ok(),
        says: &["queue.sqlite was deleted or moved away", "still exists"],
    },
    Case {
        what: "data_dir mounted over",
        moves: |folder| mount(&["-t", "tmpfs", "none"], &folder.join("data")),
        repairs: |folder| Command::new("umount").arg(folder.join("data")).status().is_ok_and(|status| status.success()),
        says: &["queue.sqlite was deleted or moved away", "mounted over"],
    },
    Case {
        what: "the folder of large bodies moved away",
        moves: |folder| fs::rename(folder.join("data/bodies"), folder.join("bodies")).is_ok(),
        repairs: |folder| fs::rename(folder.join("bodies"), folder.join("data/bodies")).is_ok(),
        says: &["bodies was deleted or moved away", "Move it back"],
    },
];

fn mount(arguments: &[&str], at: &Path) -> bool {
    if !peers::is_root() {
        peers::skip("mounting a file system needs root");
        return false;
    }
    Command::new("mount").args(arguments).arg(at).status().is_ok_and(|status| status.success())
}

async fn start(setup: Setup) -> Gateway {
    tokio::task::spawn_blocking(move || setup.start(1)).await.unwrap()
}

/// Refused at MAIL, and at the final dot if MAIL was answered before.
async fn assert_nothing_is_taken(gateway: &Gateway, mut client: Client) {
    let late = client.ask(&format!("{}.", mail("late"))).await;
    assert!(late.starts_with("451 4.3.0 ") && late.contains("moved or deleted"), "{late}");
    for _ in 0..3 {
        let mut client = Client::connect(gateway.address()).await;
        client.greet().await;
        let refused = client.ask("MAIL FROM:<reports@example.com>").await;
        assert!(refused.starts_with("451 4.3.0 ") && refused.contains("moved or deleted"), "{refused}");
    }
}

/// `delivered` before the stop, or by the next start.
async fn row(case: &Case, at_once: bool) -> Option<Row> {
    let mut campaign = Campaign::new().await;
    campaign.provider.always(At::Mail, "451 4.3.0 later");
    let gateway = start(campaign.setup()).await;
    let folder = gateway.folder();
    hand_in(gateway.address(), MAILS, &campaign.acknowledged).await;
    let client = up_to_data(gateway.address(), &["you@example.net"]).await;
    let before = campaign.acknowledged.count();
    assert_eq!(before, MAILS);
    if !(case.moves)(&folder) {
        return None;
    }
    assert_nothing_is_taken(&gateway, client).await;
    hand_in(gateway.address(), MAILS, &campaign.acknowledged).await;
    assert_eq!(campaign.acknowledged.count(), before, "{}: acknowledged afterwards", case.what);
    if at_once {
        campaign.provider.always(At::Mail, "250 2.1.0 ok");
        campaign.until_delivered().await;
    }
    let (status, log, setup) = tokio::task::spawn_blocking(move || gateway.stop()).await.unwrap();
    assert!(status.success(), "{status}");
    let told = log.join("\n");
    case.says.iter().for_each(|words| assert!(told.contains(words), "{}: no {words:?} in:\n{told}", case.what));
    campaign.fault(log);
    assert!((case.repairs)(&folder), "{}", case.what);
    campaign.provider.always(At::Mail, "250 2.1.0 ok");
    let gateway = start(setup).await;
    hand_in(gateway.address(), 1, &campaign.acknowledged).await;
    assert_eq!(campaign.acknowledged.count(), before + 1, "{}: mail is taken again", case.what);
    campaign.drain(gateway).await;
    let when = if at_once { "delivered by the process that has it" } else { "delivered after a restart" };
    Some(campaign.audit(&format!("{} under it, {when}", case.what), 0))
}

pub async fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for case in &CASES {
        for at_once in [true, false] {
            rows.extend(row(case, at_once).await);
        }
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_taken_or_lost_once_the_queue_was_deleted_or_moved() {
    for row in rows().await {
        assert_kept(&row);
    }
}
