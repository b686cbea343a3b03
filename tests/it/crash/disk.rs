//! A disk that is full or fails to write or sync, and a process that runs out of descriptors: mail that cannot be
//! stored is refused, and acknowledged mail stays.

use super::campaign::{CAP, Campaign, Row};
use super::load::{Load, hand_in};
use super::{Scale, assert_kept};
use crate::support::gateway::Setup;
use crate::support::mount::Mount;
use crate::support::peers;
use crate::support::upstream::At;
use std::time::Duration;

const CLIENTS: usize = 8;

/// Under load for a while with the fault, then without.
async fn while_it_fails(mut campaign: Campaign, setup: Setup, fault: &str, scale: Scale) -> Row {
    let load_time = Duration::from_millis(scale.of(700, 5000) as u64);
    let started = tokio::task::spawn_blocking(move || setup.try_start(1)).await.unwrap();
    let setup = match started {
        Ok(gateway) => {
            let load = Load::start(gateway.address(), CLIENTS, &campaign.acknowledged);
            tokio::time::sleep(load_time).await;
            let (log, setup) = tokio::task::spawn_blocking(move || gateway.kill()).await.unwrap();
            load.stop().await;
            campaign.fault(log);
            setup
        }
        Err((log, setup)) => {
            campaign.fault(log);
            setup
        }
    };
    let gateway = tokio::task::spawn_blocking(move || setup.wrapped(&[]).start(1)).await.unwrap();
    let load = Load::start(gateway.address(), CLIENTS, &campaign.acknowledged);
    tokio::time::sleep(load_time).await;
    load.stop().await;
    campaign.drain(gateway).await;
    campaign.audit(fault, 2 * CAP)
}

async fn injected(inject: &str, fault: &str, scale: Scale) -> Option<Row> {
    if peers::find("strace").is_none() {
        peers::skip("strace is missing");
        return None;
    }
    let campaign = Campaign::new().await;
    let call = inject.split(':').next().unwrap_or_default();
    let trace = format!("trace={call}");
    let inject = format!("inject={inject}");
    let setup = campaign.setup().wrapped(&["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject]);
    Some(while_it_fails(campaign, setup, fault, scale).await)
}

/// The disk fills up under load, mail is delivered, and mail is accepted again.
async fn full_disk(scale: Scale) -> Option<Row> {
    let disk = Mount::tmpfs("64m")?;
    let mut campaign = Campaign::new().await;
    let setup = campaign.setup_within(disk.path()).config_with("\"16 MiB\"", "\"32 MiB\"");
    // Nothing is delivered: every mail stays on the disk.
    campaign.provider.always(At::Mail, "451 4.3.0 later");
    let gateway = tokio::task::spawn_blocking(move || setup.start(1)).await.unwrap();
    let load = Load::start(gateway.address(), CLIENTS, &campaign.acknowledged);
    let mut before = usize::MAX;
    for _ in 0..scale.of(100, 400) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = campaign.acknowledged.count();
        if now == before {
            break;
        }
        before = now;
    }
    load.stop().await;
    campaign.fault(Vec::new());
    campaign.provider.always(At::Mail, "250 2.1.0 ok");
    let full = campaign.acknowledged.count();
    campaign.until_delivered().await;
    // It recovers by itself.
    let load = Load::start(gateway.address(), CLIENTS, &campaign.acknowledged);
    tokio::time::sleep(Duration::from_secs(2)).await;
    load.stop().await;
    assert!(campaign.acknowledged.count() > full, "mail is taken again once there is room, after {full}");
    campaign.drain(gateway).await;
    Some(campaign.audit("a disk that runs full (tmpfs of 64 MiB, floor at 32)", 0))
}

async fn few_descriptors(scale: Scale) -> Option<Row> {
    if peers::find("prlimit").is_none() {
        peers::skip("prlimit is missing");
        return None;
    }
    let campaign = Campaign::new().await;
    let setup = campaign.setup().wrapped(&["prlimit", "--nofile=40"]);
    Some(while_it_fails(campaign, setup, "EMFILE (40 descriptors)", scale).await)
}

/// In each process, the N-th call fails once, because the disk is full or cannot be written; the process refuses what
/// it could not store, and is killed. The next process must not find what was refused.
async fn refused_and_killed(call: &str, error: &str, scale: Scale) -> Option<Row> {
    if peers::find("strace").is_none() {
        peers::skip("strace is missing");
        return None;
    }
    let mut campaign = Campaign::new().await;
    campaign.provider.always(At::Mail, "451 4.3.0 later");
    let mut setup = campaign.setup();
    let times = scale.of(5, 100);
    for number in (1..=times).map(|number| number * scale.of(11, 1)) {
        let trace = format!("trace={call}");
        let inject = format!("inject={call}:error={error}:when={number}");
        setup = setup.wrapped(&["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject]);
        let (log, left) = match tokio::task::spawn_blocking(move || setup.try_start(1)).await.unwrap() {
            Ok(gateway) => {
                for _ in 0..3 {
                    hand_in(gateway.address(), 2, &campaign.acknowledged).await;
                }
                tokio::task::spawn_blocking(move || gateway.kill()).await.unwrap()
            }
            Err(ended) => ended,
        };
        campaign.fault(log);
        setup = left;
    }
    campaign.provider.always(At::Mail, "250 2.1.0 ok");
    let gateway = tokio::task::spawn_blocking(move || setup.wrapped(&[]).start(1)).await.unwrap();
    hand_in(gateway.address(), 1, &campaign.acknowledged).await;
    campaign.drain(gateway).await;
    let refused = campaign.acknowledged.refused().len();
    Some(campaign.audit(&format!("{error} at the N-th {call}, then SIGKILL; {refused} refused, none came back"), CAP))
}

pub async fn rows(scale: Scale) -> Vec<Row> {
    [
        refused_and_killed("pwrite64", "ENOSPC", scale).await,
        refused_and_killed("fsync,fdatasync", "EIO", scale).await,
        injected("fsync,fdatasync:error=EIO:when=20+7", "EIO at every 7th fsync,fdatasync", scale).await,
        injected("pwrite64:error=EIO:when=60+23", "EIO at every 23rd pwrite64", scale).await,
        injected("pwrite64:error=ENOSPC:when=60+5", "ENOSPC at every 5th pwrite64", scale).await,
        full_disk(scale).await,
        few_descriptors(scale).await,
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_by_a_failing_disk() {
    for row in rows(Scale::Short).await {
        assert_kept(&row);
    }
}
