//! SIGKILL at random moments, SIGKILL at every system call that touches the disk, and graceful restarts.

use super::campaign::{CAP, Campaign, Row};
use super::load::{Load, hand_in};
use super::{Scale, assert_kept};
use crate::support::gateway::{Gateway, Setup};
use crate::support::peers;
use std::time::Duration;

const CLIENTS: usize = 8;

async fn start(setup: Setup) -> Gateway {
    tokio::task::spawn_blocking(move || setup.start(1)).await.unwrap()
}

/// Moments spread over the life of the process by a fixed sequence, so that a failure can be reproduced.
fn moment(round: usize) -> Duration {
    Duration::from_millis(20 + (round as u64).wrapping_mul(2_654_435_761) % 300)
}

pub async fn random_kills(scale: Scale) -> Row {
    let mut campaign = Campaign::new().await;
    let mut setup = campaign.setup();
    let rounds = scale.of(12, 200);
    for round in 0..rounds {
        let gateway = start(setup).await;
        let load = Load::start(gateway.address(), CLIENTS, &campaign.acknowledged);
        tokio::time::sleep(moment(round)).await;
        let (log, left) = tokio::task::spawn_blocking(move || gateway.kill()).await.unwrap();
        load.stop().await;
        campaign.fault(log);
        setup = left;
    }
    let gateway = start(setup).await;
    campaign.drain(gateway).await;
    campaign.audit(&format!("SIGKILL at {rounds} random moments under load"), rounds * CAP)
}

pub async fn graceful_restarts(scale: Scale) -> Row {
    let mut campaign = Campaign::new().await;
    let mut setup = campaign.setup();
    let rounds = scale.of(5, 100);
    for round in 0..rounds {
        let gateway = start(setup).await;
        let load = Load::start(gateway.address(), CLIENTS, &campaign.acknowledged);
        tokio::time::sleep(moment(round)).await;
        let (status, log, left) = tokio::task::spawn_blocking(move || gateway.stop()).await.unwrap();
        assert!(status.success(), "{status}");
        load.stop().await;
        campaign.fault(log);
        setup = left;
    }
    let gateway = start(setup).await;
    campaign.drain(gateway).await;
    campaign.audit(&format!("{rounds} graceful restarts under load"), 0)
}

/// In each process the N-th call is fatal, until N is past the end of one message's life.
pub async fn kills_at_each_call(call: &str, scale: Scale) -> Option<Row> {
    peers::find("strace").or_else(|| {
        peers::skip("strace is missing");
        None
    })?;
    let mut campaign = Campaign::new().await;
    let mut setup = campaign.setup();
    let most = scale.of(6, 500);
    let mut deaths = 0;
    for number in 1..=most {
        let inject = format!("inject={call}:signal=SIGKILL:when={number}");
        let wrapped =
            setup.wrapped(&["strace", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject]);
        match tokio::task::spawn_blocking(move || wrapped.try_start(1)).await.unwrap() {
            Err((log, left)) => {
                campaign.fault(log);
                (setup, deaths) = (left, deaths + 1);
            }
            Ok(mut gateway) => {
                hand_in(gateway.address(), 2, &campaign.acknowledged).await;
                // Its delivery continues after the 250.
                campaign.until_quiet().await;
                let survived = gateway.is_alive();
                let (log, left) = tokio::task::spawn_blocking(move || gateway.kill()).await.unwrap();
                campaign.fault(log);
                setup = left;
                if survived {
                    break;
                }
                deaths += 1;
            }
        }
    }
    let gateway = start(setup.wrapped(&[])).await;
    // A mail after the storm: the folder still works.
    hand_in(gateway.address(), 1, &campaign.acknowledged).await;
    campaign.drain(gateway).await;
    assert!(deaths > 0 || scale == Scale::Full, "the gateway never made a call to {call}: nothing was shown");
    Some(campaign.audit(&format!("SIGKILL at the N-th {call}, {deaths} deaths"), (deaths + 1) * CAP))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_it_is_killed_under_load() {
    assert_kept(&random_kills(Scale::Short).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_by_graceful_restarts() {
    assert_kept(&graceful_restarts(Scale::Short).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_it_dies_at_a_sync_or_a_write() {
    for call in ["fsync,fdatasync", "pwrite64"] {
        let Some(row) = kills_at_each_call(call, Scale::asked()).await else { return };
        assert_kept(&row);
    }
}
