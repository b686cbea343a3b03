//! The queue alone fills its disk, down to the smallest floor that the configuration allows. Accepted mail is delivered
//! or removed, and the queue can be opened again, even if another program then uses up the rest of the disk, or its
//! last inode.

use super::campaign::{CAP, Campaign, Row};
use super::load::Load;
use super::{Scale, assert_kept};
use crate::support::gateway::{Gateway, Setup};
use crate::support::mount::Mount;
use crate::support::upstream::At;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

const CLIENTS: usize = 8;
/// Of 48 MiB: the space left above the floor and the reserve fills up quickly.
const BALLAST: usize = 13 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    None,
    Stop,
    Kill,
}

/// What happens to the room below the floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Free,
    Taken,
    /// Another program uses up its inodes.
    NoInodes,
}

/// A mail of more lines is over 256 KiB, and gets a file of its own.
const SMALL: usize = 50;
const LARGE: usize = 16_000;

const CASES: [(usize, End, Rest); 8] = [
    (SMALL, End::None, Rest::Free),
    (SMALL, End::Stop, Rest::Free),
    (SMALL, End::Kill, Rest::Free),
    (SMALL, End::Stop, Rest::Taken),
    (SMALL, End::Kill, Rest::Taken),
    (LARGE, End::Stop, Rest::Free),
    (LARGE, End::Kill, Rest::Taken),
    (SMALL, End::Stop, Rest::NoInodes),
];

fn take(rest: Rest, disk: &Path) {
    match rest {
        Rest::Free => {}
        Rest::Taken => {
            let mut file = OpenOptions::new().append(true).create(true).open(disk.join("filler")).unwrap();
            for block in [1 << 16, 512] {
                while file.write_all(&vec![0; block]).is_ok() {}
            }
        }
        Rest::NoInodes => {
            let made =
                (0..100_000).take_while(|number| File::create(disk.join(format!("filler-{number}"))).is_ok()).count();
            assert!(made < 100_000, "the disk never ran out of inodes");
        }
    }
}

async fn start(setup: Setup) -> Gateway {
    tokio::task::spawn_blocking(move || setup.start(1)).await.unwrap()
}

/// Until no more mail is accepted.
async fn fill(gateway: &Gateway, campaign: &Campaign) {
    let load = Load::start(gateway.address(), CLIENTS, &campaign.acknowledged);
    let mut before = usize::MAX;
    let mut still = 0;
    for _ in 0..900 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = campaign.acknowledged.count();
        still = if now == before && now > 1 { still + 1 } else { 0 };
        before = now;
        // The answer to MAIL may be a second old.
        if still == 15 {
            break;
        }
    }
    load.stop().await;
    assert!(!campaign.acknowledged.refused().is_empty() || still == 15, "the disk never ran full");
}

/// Hold, remove one, release: each of these has to be written.
fn operate(gateway: &Gateway, campaign: &Campaign) {
    let run = |arguments: &[&str]| {
        let output = gateway.output(&[&["queue"], arguments].concat());
        let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), told)
    };
    let (done, told) = run(&["hold", "--all"]);
    assert!(done, "{told}\n{}", gateway.log().join("\n"));
    // A message that is being sent at the moment stays.
    let removed = campaign.acknowledged.numbers().into_iter().rev().take(20).find(|number| {
        let (done, _) = run(&["remove", &campaign.acknowledged.id(*number), "--yes"]);
        done
    });
    campaign.acknowledged.forget(removed.expect("one that is not being sent can be removed"));
    let (done, told) = run(&["release", "--all"]);
    assert!(done, "{told}");
}

async fn campaign((lines, end, rest): (usize, End, Rest), scale: Scale) -> Option<Row> {
    let disk = Mount::tmpfs("48m,nr_inodes=2000")?;
    let mut campaign = Campaign::new().await.of_lines(lines);
    campaign.provider.always(At::Mail, "451 4.3.0 later");
    let gateway = start(campaign.setup_within(disk.path())).await;
    if scale == Scale::Short {
        std::fs::write(disk.path().join("ballast"), vec![0; BALLAST]).unwrap();
    }
    fill(&gateway, &campaign).await;
    take(rest, disk.path());
    let gateway = end_and_start(end, gateway, &mut campaign, || take(rest, disk.path())).await;
    tokio::task::block_in_place(|| operate(&gateway, &campaign));
    let full = campaign.acknowledged.count();
    campaign.provider.always(At::Mail, "250 2.1.0 ok");
    let retried = gateway.output(&["queue", "retry", "--all"]);
    assert!(retried.status.success(), "{retried:?}");
    campaign.until_delivered().await;
    if rest == Rest::Free {
        // It recovers by itself.
        let load = Load::start(gateway.address(), CLIENTS, &campaign.acknowledged);
        tokio::time::sleep(Duration::from_secs(3)).await;
        load.stop().await;
        assert!(campaign.acknowledged.count() > full, "mail is taken again once there is room, after {full}");
    }
    campaign.drain(gateway).await;
    let what = if lines == LARGE { "bodies in files" } else { "small mail" };
    let fault =
        format!("own disk full at the smallest floor (tmpfs of 48 MiB, floor at 16): {what}, {end:?}, {rest:?}");
    Some(campaign.audit(&fault, if end == End::Kill { CAP } else { 0 }))
}

async fn end_and_start(end: End, gateway: Gateway, campaign: &mut Campaign, meanwhile: impl Fn()) -> Gateway {
    let (log, setup) = match end {
        End::None => {
            campaign.fault(Vec::new());
            return gateway;
        }
        End::Stop => {
            let (status, log, setup) = tokio::task::spawn_blocking(move || gateway.stop()).await.unwrap();
            assert!(status.success(), "{status}");
            (log, setup)
        }
        End::Kill => tokio::task::spawn_blocking(move || gateway.kill()).await.unwrap(),
    };
    campaign.fault(log);
    meanwhile();
    start(setup).await
}

pub async fn rows(scale: Scale) -> Vec<Row> {
    rows_of(scale, |_| true).await
}

async fn rows_of(scale: Scale, is_wanted: fn(&(usize, End, Rest)) -> bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for case in CASES.into_iter().filter(is_wanted) {
        rows.extend(campaign(case, scale).await);
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_queue_fills_its_own_disk() {
    let own = rows_of(Scale::Short, |(lines, _, rest)| *lines == SMALL && *rest == Rest::Free);
    own.await.iter().for_each(assert_kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_somebody_else_takes_what_is_below_the_floor() {
    let taken = rows_of(Scale::Short, |(lines, _, rest)| *lines == SMALL && *rest != Rest::Free);
    taken.await.iter().for_each(assert_kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_large_mail_fills_the_disk() {
    rows_of(Scale::Short, |(lines, ..)| *lines == LARGE).await.iter().for_each(assert_kept);
}
