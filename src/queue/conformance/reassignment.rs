//! New routes: waiting mail is moved to its lanes while mail is accepted and leased, and nothing is leased on a lane
//! that is not its own.

use super::walk::Dice;
use super::*;
use std::collections::BTreeSet;

/// Lanes by the recipient's domain.
fn today() -> LaneOf {
    Arc::new(|addressed: &Addressed<'_>| lane_of(addressed.recipient))
}

fn lane_of(recipient: &Mailbox) -> Lane {
    Lane::new(recipient.domain().as_str().split('.').next().unwrap_or_default())
}

fn yesterday() -> LaneOf {
    Arc::new(|_| Lane::new("old"))
}

/// Puts this many messages on yesterday's lane. Half of them have a recipient whose lane is unchanged; all have others.
async fn backlog(harness: &Harness, messages: u32) {
    harness.reassign_lanes("yesterday", yesterday()).await.expect("nothing to do");
    for number in 0..messages {
        let recipients = match number % 4 {
            0 => vec!["a@old.example"],
            1 => vec!["a@one.example"],
            2 => vec!["a@one.example", "b@old.example", "c@two.example"],
            _ => vec!["a@two.example", "b@two.example"],
        };
        harness.put(mail(number, 0, "a@example.com", &recipients, "old")).await;
    }
}

/// Every recipient with its lane.
async fn lanes(harness: &Harness) -> BTreeSet<(String, String)> {
    let rows = harness.rows(&Filter::default(), 500).await;
    rows.into_iter().flat_map(|row| row.recipients).map(|recipient| (recipient.address, recipient.lane)).collect()
}

async fn assert_all_on_their_lanes(harness: &Harness) {
    for (address, lane) in lanes(harness).await {
        assert_eq!(lane, lane_of(&mailbox(&address)).as_str(), "{address}");
    }
    harness.check_statistics().await;
}

fn assert_on_its_own(leased: &Leased) {
    for recipient in &leased.accepted.envelope.recipients {
        assert_eq!(leased.lane, lane_of(recipient), "{recipient}");
    }
}

pub(crate) async fn lanes_are_reassigned_while_mail_is_taken_and_lent(harness: &Harness) {
    backlog(harness, 1600).await;
    let queue = harness.queue().await;
    let begun = queue.reassign_lanes("today", today(), None).await.unwrap();
    let Some(mut next) = begun.next else { panic!("there is something to do") };
    assert_eq!(begun.moved, 0, "at the beginning nothing is done yet, and listeners may open");
    let fresh = harness.put(mail(9000, 0, "a@example.com", &["new@one.example"], "one")).await;
    let leased = harness.lease("one", after(0), 9).await;
    assert_eq!(
        leased.iter().map(|leased| leased.accepted.id).collect::<Vec<_>>(),
        [fresh],
        "new mail goes out at once"
    );
    harness.settle(&leased[0], Settlement::Delivered(delivered(1)), after(1)).await;
    // Mail on a lane that still exists does not wait for other routes, and nothing else is leased there.
    queue.hold(Some(&Lane::new("one")), true).await.unwrap();
    let mut lent = Vec::new();
    for _ in 0..40 {
        let leased = harness.lease("old", after(0), 5).await;
        leased.iter().for_each(assert_on_its_own);
        lent.extend(leased);
    }
    assert!(lent.len() > 10, "{}", lent.len());
    let (old, _) = queue.lease_expired(&Lane::new("old"), Duration::ZERO, None, 50, u64::MAX).await.unwrap();
    old.iter().for_each(assert_on_its_own);
    for leased in lent.iter().chain(&old) {
        harness.settle(leased, deferred(1), after(31)).await;
    }
    assert!(harness.lease("one", after(31), 9).await.is_empty(), "it is held");
    harness.check_statistics().await;
    let mut steps = 0;
    while let Some(after) = queue.reassign_lanes("today", today(), Some(next)).await.unwrap().next {
        (next, steps) = (after, steps + 1);
        assert!(steps < 1000, "it comes to an end");
    }
    assert!(steps > 1, "and is not done in one transaction");
    assert_all_on_their_lanes(harness).await;
    assert_eq!(queue.reassign_lanes("today", yesterday(), None).await.unwrap().next, None, "the same routes");
    queue.hold(Some(&Lane::new("one")), false).await.unwrap();
    let mut left = harness.statistics().await.waiting;
    for lane in ["old", "one", "two"] {
        for leased in harness.lease(lane, after(31), 5000).await {
            assert_on_its_own(&leased);
            left -= leased.accepted.envelope.recipients.len() as u64;
        }
    }
    assert_eq!(left, 0, "nothing was left behind");
}

pub(crate) async fn a_reassignment_that_was_cut_off_is_begun_again(harness: &Harness) {
    backlog(harness, 1100).await;
    for steps in 0..4 {
        for (fingerprint, lane_of) in [("today", today()), ("yesterday", yesterday())] {
            let queue = harness.queue().await;
            let mut next = queue.reassign_lanes("today", today(), None).await.unwrap().next;
            for _ in 0..steps {
                next = queue.reassign_lanes("today", today(), next).await.unwrap().next;
            }
            let fresh = harness.put(mail(5000 + steps, 0, "b@example.com", &["new@two.example"], "two")).await;
            drop(queue);
            harness.crash().await;
            harness.reassign_lanes(fingerprint, lane_of).await.expect("everything");
            if fingerprint == "today" {
                assert_all_on_their_lanes(harness).await;
            } else {
                assert!(lanes(harness).await.iter().all(|(_, lane)| lane == "old"), "rolled back after {steps} steps");
            }
            harness.queue().await.remove(&[fresh]).await.unwrap();
        }
    }
}

pub(crate) async fn nothing_that_is_called_meanwhile_leaves_mail_on_a_wrong_lane(harness: &Harness) {
    let mut dice = Dice(0x0dd0_5eed_0dd0_5eed);
    backlog(harness, 1300).await;
    let ids: Vec<MailId> =
        harness.rows(&Filter::default(), 500).await.iter().map(|row| row.id.parse().expect("an id")).collect();
    let queue = harness.queue().await;
    let mut next = queue.reassign_lanes("today", today(), None).await.unwrap().next;
    let correction = Correction { to: mailbox("corrected@two.example"), lane_of: Some(today()) };
    let mut out: Vec<Leased> = Vec::new();
    for step in 0..600 {
        let id = ids[dice.roll(ids.len())];
        match dice.roll(12) {
            0..6 => {
                let lane = Lane::new(["old", "one", "two"][dice.roll(3)]);
                let leased = queue.lease(&lane, after(step), 1 + dice.roll(5), u64::MAX).await.unwrap();
                leased.iter().for_each(assert_on_its_own);
                out.extend(leased);
            }
            6..9 if !out.is_empty() => {
                let leased = out.swap_remove(dice.roll(out.len()));
                let ending = [deferred(step), failed(step), Settlement::Untried][dice.roll(3)].clone();
                harness.settle(&leased, ending, after(step + 30)).await;
            }
            9 => drop(queue.retry(&[id], None, after(step)).await.unwrap()),
            10 => drop(queue.retry(&[id], Some(&correction), after(step)).await.unwrap()),
            11 => drop(queue.remove(&[id]).await.unwrap()),
            _ => {}
        }
        if step % 100 == 99 && next.is_some() {
            next = queue.reassign_lanes("today", today(), next).await.unwrap().next;
        }
    }
    while next.is_some() {
        next = queue.reassign_lanes("today", today(), next).await.unwrap().next;
    }
    assert_all_on_their_lanes(harness).await;
}
