//! Ages: the time for which gateways ran while a message waited, plus as much of each stop as can be trusted; never
//! what a wall clock says.

use super::walk::Dice;
use super::*;
use crate::observe::clock::Boot;
use crate::queue::lifetime::LONGEST_STOP;

const HOUR: i64 = 3600;

/// The age of the only message on lane "a", which is due and stays.
async fn age(harness: &Harness) -> Duration {
    let now = harness.machine().wall;
    let leased = harness.lease_one("a", now).await;
    harness.settle(&leased, Settlement::Untried, now).await;
    leased.age
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds.unsigned_abs())
}

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

/// The search used the time of acceptance and ended there.
pub(crate) async fn mail_from_a_clock_that_was_ahead_hides_no_old_mail(harness: &Harness) {
    let mut ids = Vec::new();
    for (number, received) in [(1, 0), (2, 300 * DAY), (3, 1), (4, -7 * 365 * DAY), (5, 2)] {
        ids.push(harness.put(plain(number, received)).await);
        harness.live(1);
    }
    harness.live(5 * DAY);
    let young = harness.put(plain(6, 5 * DAY)).await;
    let (leased, next) = harness
        .queue()
        .await
        .lease_expired(&Lane::new("a"), seconds(5 * DAY), None, 9, u64::MAX)
        .await
        .expect("an answer");
    assert_eq!(
        leased.iter().map(|leased| leased.accepted.id).collect::<Vec<_>>(),
        ids,
        "all of one age, and not {young}"
    );
    assert_eq!(next, None);
}

pub(crate) async fn no_clock_that_is_set_makes_mail_older_or_younger(harness: &Harness) {
    for (number, knows_boots) in [(1, true), (2, false)] {
        if !knows_boots {
            harness.machine().boot = None;
        }
        harness.machine().jump(days(-7 * 365));
        let id = harness.put(plain(number, -7 * 365 * DAY)).await;
        harness.live(30);
        harness.machine().jump(days(7 * 365));
        harness.live(30);
        assert_eq!(age(harness).await, seconds(60), "accepted in 2019, and the clock is right again");
        harness.stop(0, |machine| machine.jump(days(300))).await;
        harness.live(60);
        assert_eq!(age(harness).await, seconds(120), "300 days ahead at the start");
        harness.machine().jump(days(-300));
        harness.live(60);
        assert_eq!(age(harness).await, seconds(180), "and corrected");
        harness.crash().await;
        assert_eq!(age(harness).await, seconds(180));
        harness.stop(0, |machine| machine.jump(days(-7 * 365))).await;
        harness.live(60);
        assert_eq!(age(harness).await, seconds(240), "behind at the start");
        harness.stop(0, |machine| machine.jump(days(7 * 365))).await;
        assert_eq!(age(harness).await, seconds(240));
        harness.queue().await.remove(&[id]).await.expect("removed");
    }
}

pub(crate) async fn a_stop_makes_mail_older_by_what_can_be_trusted_of_it(harness: &Harness) {
    let most = LONGEST_STOP.as_secs() as i64;
    let reboot = |machine: &mut Simulated| machine.reboot();
    harness.put(plain(1, 0)).await;
    let mut expected = 0;
    for (what, stopped, meanwhile, counted) in [
        ("the machine ran on", 20 * HOUR, None, 20 * HOUR),
        ("by more than the bound", 6 * DAY, None, most),
        ("it was started again, and its clock went on", 20 * HOUR, Some(days(0)), 20 * HOUR),
        ("by more than the bound", 6 * DAY, Some(days(0)), most),
        ("its clock is behind", 20 * HOUR, Some(days(-300)), 0),
        ("it is right again: no longer than by the latest time that was said", HOUR, Some(days(300)), 21 * HOUR),
        ("its clock is 300 days ahead", HOUR, Some(days(300)), 0),
        ("and so again", HOUR, Some(days(0)), HOUR),
        ("it is right", HOUR, Some(days(-300)), 0),
        ("it is two days ahead, which may be true", 0, Some(days(2)), 0),
    ] {
        harness
            .stop(stopped, |machine| {
                if let Some(jump) = meanwhile {
                    reboot(machine);
                    machine.jump(jump);
                }
            })
            .await;
        expected += counted;
        assert_eq!(age(harness).await, seconds(expected), "{what}");
    }
}

/// Failed mail and history were deleted by the wall clock.
pub(crate) async fn nothing_is_forgotten_by_a_clock_that_is_set(harness: &Harness) {
    for (number, ending) in [(1, failed(0)), (2, Settlement::Delivered(delivered(0)))] {
        harness.put(plain(number, 0)).await;
        let leased = harness.lease_one("a", after(0)).await;
        harness.settle(&leased, ending, after(0)).await;
    }
    let keep = seconds(14 * DAY);
    for jump in [300, -600, 300] {
        harness.machine().jump(days(jump));
        assert_eq!(harness.queue().await.prune(keep, keep).await.unwrap(), 0, "set while it runs");
        harness.stop(0, |machine| machine.reboot()).await;
        assert_eq!(harness.queue().await.prune(keep, keep).await.unwrap(), 0, "and at a start");
    }
    harness.live(14 * DAY - 1);
    assert_eq!(harness.queue().await.prune(keep, keep).await.unwrap(), 0);
    harness.machine().jump(days(-300));
    harness.live(1);
    assert_eq!(
        harness.queue().await.prune(keep, keep).await.unwrap(),
        2,
        "when it was kept long enough, whatever the clock says"
    );
}

/// Tries random sequences of runs, clock jumps, stops and crashes.
pub(crate) async fn ages_are_what_was_lived_whatever_the_clock_says(harness: &Harness) {
    let mut dice = Dice(0x1234_5678_9abc_def1);
    harness.put(plain(1, 0)).await;
    // The time that has certainly passed, and the most that may have been counted.
    let mut least = Duration::ZERO;
    let mut most = Duration::ZERO;
    for step in 0..400 {
        match dice.roll(6) {
            0..3 => {
                let time = dice.roll(5000) as i64;
                harness.live(time);
                (least, most) = (least + seconds(time), most + seconds(time));
            }
            3 => {
                let hours = dice.roll(20_000) as i64 - 10_000;
                harness.machine().jump(SignedDuration::from_hours(hours));
            }
            4 => {
                let time = dice.roll(200_000) as i64;
                let jump = SignedDuration::from_hours(dice.roll(2000) as i64 - 1000);
                let reboots = dice.roll(2) == 0;
                harness
                    .stop(time, |machine| {
                        machine.jump(jump);
                        if reboots {
                            machine.reboot();
                        }
                    })
                    .await;
                let counted = seconds(time).min(LONGEST_STOP);
                least += if reboots { Duration::ZERO } else { counted };
                most += if reboots { LONGEST_STOP } else { counted };
            }
            _ => harness.crash().await,
        }
        let age = age(harness).await;
        assert!(least <= age && age <= most, "after step {step}: {age:?} is not within {least:?} and {most:?}");
        if harness.machine().boot.as_ref().is_some_and(|boot| boot.uptime > seconds(40 * DAY)) {
            harness.machine().boot = Some(Boot { id: format!("after {step}"), uptime: Duration::ZERO });
        }
    }
}
