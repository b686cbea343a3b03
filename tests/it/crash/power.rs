//! Power cuts on an ext4 that loses everything that was not synced. The negative control: without syncs the same run
//! must lose mail, or it would show nothing.

use super::campaign::{CAP, Campaign, Row};
use super::load::Load;
use super::{Scale, assert_kept};
use crate::support::clock;
use crate::support::gateway::Setup;
use crate::support::mount::Mount;
use crate::support::peers;
use crate::support::upstream::{Action, At};
use std::time::Duration;

const CLIENTS: usize = 8;
/// A provider so slow that mail is waiting when the power fails: a few per round get through, and hundreds are
/// submitted.
const SLOW: Duration = Duration::from_millis(200);

async fn cuts(fault: &str, rounds: usize, prepare: impl Fn(Setup) -> Setup) -> Option<Row> {
    let mut disk = Mount::ext4()?;
    let mut campaign = Campaign::new().await;
    let mut setup = prepare(campaign.setup_within(disk.path()));
    for round in 0..rounds {
        // Alternately a queue that is full when the power fails, and one that is being emptied.
        let pace = if round % 2 == 0 { SLOW } else { Duration::ZERO };
        campaign.provider.always(At::Dot, Action::Late(pace));
        let started = tokio::task::spawn_blocking(move || setup.try_start(1)).await.unwrap();
        let gateway = match started {
            Ok(gateway) => gateway,
            // Only the negative control may end with a folder that cannot be opened any more.
            Err((log, _)) => {
                campaign.fault(log);
                return Some(campaign.audit(fault, rounds * CAP));
            }
        };
        let load = Load::start(gateway.address(), CLIENTS, &campaign.acknowledged);
        tokio::time::sleep(Duration::from_millis(100 + (round as u64 * 97) % 300)).await;
        // A sync that is under way when the power fails may still appear to succeed; the 250 that follows would reach
        // no one, so it does not count.
        campaign.acknowledged.freeze();
        let before = campaign.provider.counts().messages;
        disk.cut_power();
        let (log, left) = tokio::task::spawn_blocking(move || gateway.kill()).await.unwrap();
        campaign.ignore_since(before);
        load.stop().await;
        campaign.fault(log);
        disk.remount()?;
        setup = campaign.restored(left, disk.path());
    }
    campaign.provider.always(At::Dot, Action::Late(Duration::ZERO));
    let gateway = tokio::task::spawn_blocking(move || setup.try_start(1)).await.unwrap();
    match gateway {
        Ok(gateway) => drop(campaign.drain(gateway).await),
        Err((log, _)) => campaign.fault(log),
    }
    Some(campaign.audit(fault, rounds * CAP))
}

pub async fn power_cuts(scale: Scale) -> Option<Row> {
    let rounds = scale.of(4, 50);
    cuts(&format!("{rounds} power cuts (ext4, nothing flushed)"), rounds, |setup| setup).await
}

/// Every sync does nothing.
pub async fn without_syncs(scale: Scale) -> Option<Row> {
    let library = peers::library("libeatmydata.so")?;
    let rounds = scale.of(4, 10);
    let fault = format!("negative control: {rounds} power cuts without any sync");
    cuts(&fault, rounds, |setup| setup.env("LD_PRELOAD", clock::beside(&library))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_power_is_cut_and_the_test_has_teeth() {
    let Some(row) = power_cuts(Scale::Short).await else { return };
    assert_kept(&row);
    let Some(control) = without_syncs(Scale::Short).await else { return };
    println!("{control:?}");
    assert!(control.lost > 0, "without syncs mail must be lost: {control:?}");
}
