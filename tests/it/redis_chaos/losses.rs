//! A Redis that comes back without mail that was acknowledged: no gateway accepts any until an operator adopts what is there.

use super::*;
use crate::crash::load::hand_in;
use crate::support::until;
use crate::support::upstream::At;
use std::fs;
use std::path::Path;
use tokio::task::block_in_place;

/// Messages that each gateway accepts, before and after the backup.
const EACH: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Flushed,
    EmptyMaster,
    OldBackup,
}

impl Loss {
    fn missing(self) -> usize {
        match self {
            Self::Flushed | Self::EmptyMaster => 2 * EACH * COUNT,
            Self::OldBackup => EACH * COUNT,
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn lose(loss: Loss, server: &mut RedisServer, backup: &Path) {
    let files = server.folder().join("appendonlydir");
    if loss == Loss::Flushed {
        server.command(&["FLUSHALL"]);
        return;
    }
    server.kill();
    fs::remove_dir_all(&files).unwrap();
    if loss == Loss::OldBackup {
        copy(backup, &files);
    }
    server.restart();
}

async fn accept(gateways: &Gateways, campaign: &Campaign) {
    for gateway in gateways.all() {
        hand_in(gateway.address(), EACH, &campaign.acknowledged).await;
    }
    // Each gateway knows what the others have accepted a second later, and so after an end at any time after that.
    let all = format!("\"all\":{}", campaign.acknowledged.count());
    let knows = |gateway: &Gateway| {
        fs::read_to_string(gateway.folder().join("data").join("redis-queue.json"))
            .is_ok_and(|known| known.contains(&all))
    };
    until("each gateway knows what all have accepted", || gateways.all().all(knows)).await;
}

async fn refused_until_adopted(loss: Loss) {
    let Some(mut server) = redis() else { return };
    let mut campaign = Campaign::new().await;
    campaign.provider.always(At::Mail, "451 4.3.0 later");
    let gateways = Gateways::start(&campaign, &limits(), &in_redis(&server.url())).await;
    accept(&gateways, &campaign).await;
    let backup = tempfile::tempdir().unwrap();
    copy(&server.folder().join("appendonlydir"), backup.path());
    accept(&gateways, &campaign).await;
    block_in_place(|| lose(loss, &mut server, backup.path()));

    let missing = format!("{} acknowledged messages are missing", loss.missing());
    for gateway in gateways.all() {
        until_answered(gateway, "451 ").await;
        block_in_place(|| gateway.wait_for_line(&[&missing, "waxseal queue adopt"]));
    }
    let mut setups = gateways.stop(&mut campaign).await;
    for setup in &setups {
        let refused = setup.output(&["run"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && said.contains(&missing), "{loss:?}: {said}");
    }
    let adopted = setups[0].output(&["queue", "adopt", "--yes"]);
    let said = String::from_utf8_lossy(&adopted.stdout).into_owned();
    assert!(adopted.status.success() && said.contains(&format!("{} messages", loss.missing())), "{loss:?}: {said}");
    campaign.provider.always(At::Mail, "250 2.1.0 ok");
    let before = campaign.acknowledged.count();
    for setup in setups.drain(..) {
        let gateway = started(setup).await;
        hand_in(gateway.address(), EACH, &campaign.acknowledged).await;
        campaign.provider.until_messages(1).await;
        let (_, log, _) = tokio::task::spawn_blocking(|| gateway.stop()).await.unwrap();
        campaign.logged(log);
    }
    assert_eq!(campaign.acknowledged.count(), before + EACH * COUNT, "{loss:?}: each accepts mail again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_was_flushed_gets_no_mail_until_it_is_adopted() {
    refused_until_adopted(Loss::Flushed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_master_gets_no_mail_until_it_is_adopted() {
    refused_until_adopted(Loss::EmptyMaster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_gets_no_mail_until_it_is_adopted() {
    refused_until_adopted(Loss::OldBackup).await;
}
