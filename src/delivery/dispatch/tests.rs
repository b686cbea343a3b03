//! The loop under paused time.

use super::super::testing::{Fault as Scripted, Stage, delivered, later, login_refused, mailbox, refused};
use super::*;
use crate::delivery::Bounce;
use crate::queue::Settlement;
use crate::smtp::ReversePath;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const MOMENT: Duration = Duration::from_millis(100);

fn is_delivered(settlement: &Settlement) -> bool {
    matches!(settlement, Settlement::Delivered(_))
}

fn is_failed(settlement: &Settlement) -> bool {
    matches!(settlement, Settlement::Failed(_))
}

#[tokio::test(start_paused = true)]
async fn new_mail_is_begun_at_once() {
    let stage = Stage::new(4, MOMENT);
    stage.run();
    sleep(Duration::from_secs(5)).await;
    let put = Instant::now();
    stage.put(&["you@example.net"]).await;
    stage.until("delivered", |fake_queue| fake_queue.settled() == 1).await;
    assert!(Instant::now() - put < 3 * MOMENT, "the wake-up was lost");
}

#[tokio::test(start_paused = true)]
async fn never_more_than_the_slots_are_under_way() {
    let stage = Stage::new(3, MOMENT);
    for _ in 0..50 {
        stage.put(&["you@example.net"]).await;
    }
    stage.run();
    stage.until("all delivered", |fake_queue| fake_queue.count(is_delivered) == 50).await;
    assert_eq!(stage.deliver.notes().most, 3);
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_fails_nothing_and_recovery_causes_no_burst() {
    const MAILS: usize = 1000;
    let stage = Stage::new(8, MOMENT);
    for _ in 0..MAILS {
        stage.put(&["you@example.net"]).await;
    }
    stage.deliver.judge(|_| login_refused());
    stage.run();
    sleep(Duration::from_secs(3600)).await;
    let tried = stage.deliver.notes().begun.len();
    assert!(tried < 8 + 30, "an hour of a wrong password costs a few logins, not {tried}");
    assert_eq!(stage.fake_queue.count(is_failed), 0);
    stage.deliver.judge(|_| delivered());
    stage.deliver.notes().begun.clear();
    stage.deliver.notes().most = 0;
    stage.until("all delivered", |fake_queue| fake_queue.count(is_delivered) == MAILS).await;
    let notes = stage.deliver.notes().clone();
    assert_eq!((notes.most, stage.fake_queue.count(is_failed)), (8, 0));
    let since_the_first = |at: usize| notes.begun[at].0 - notes.begun[0].0;
    assert!(since_the_first(1) >= MOMENT, "the first one goes alone");
    assert!(since_the_first(3) >= 2 * MOMENT && since_the_first(7) >= 3 * MOMENT, "then two, then four");
}

#[tokio::test(start_paused = true)]
async fn a_nudge_cuts_the_pause_and_one_goes_ahead_alone() {
    let stage = Stage::new(8, MOMENT);
    for _ in 0..100 {
        stage.put(&["you@example.net"]).await;
    }
    stage.deliver.judge(|_| login_refused());
    stage.run();
    sleep(Duration::from_secs(1800)).await;
    stage.deliver.notes().begun.clear();
    let retry_now = Instant::now();
    for _ in 0..50 {
        stage.queue.wakeups().retry_now();
    }
    sleep(3 * MOMENT).await;
    let begun = stage.deliver.notes().begun.clone();
    assert!(
        matches!(begun.as_slice(), [one] if one.0 - retry_now < MOMENT),
        "one probe for all the nudges: {}",
        begun.len()
    );
    stage.deliver.judge(|_| delivered());
    stage.queue.wakeups().retry_now();
    sleep(20 * MOMENT).await;
    let done = stage.fake_queue.count(is_delivered);
    assert!(done > 90, "it runs again at once, but for what was tried lately and is not due: {done}");
}

#[tokio::test(start_paused = true)]
async fn one_lane_away_does_not_stop_the_other() {
    let stage = Stage::new(2, MOMENT);
    stage.deliver.judge(|to| if to.domain().as_str() == "one.example" { login_refused() } else { delivered() });
    for _ in 0..100 {
        stage.put(&["you@one.example"]).await;
    }
    stage.put(&["you@example.net", "me@one.example"]).await;
    stage.run();
    stage.until("the other lane's mail", |fake_queue| fake_queue.count(is_delivered) == 1).await;
    assert_eq!(stage.fake_queue.count(is_failed), 0);
}

#[tokio::test(start_paused = true)]
async fn each_recipient_is_settled_for_itself() {
    let stage = Stage::new(2, MOMENT);
    stage.deliver.judge(|to| match to.local_part() {
        "gone" => refused(),
        "grey" => later(),
        _ => delivered(),
    });
    stage.put(&["you@example.net", "gone@example.net", "grey@example.net"]).await;
    stage.run();
    stage.until("the first attempt", |fake_queue| fake_queue.settled() == 1).await;
    assert!(matches!(
        stage.fake_queue.inner().settled[0].1.as_slice(),
        [Settlement::Delivered(_), Settlement::Failed(_), Settlement::Deferred(_)]
    ));
    stage.deliver.judge(|_| delivered());
    stage.until("the second attempt", |fake_queue| fake_queue.settled() == 2).await;
    assert!(matches!(stage.fake_queue.inner().settled[1].1.as_slice(), [Settlement::Delivered(_)]));
    let begun = stage.deliver.notes().begun.clone();
    let wait = begun[1].0 - begun[0].0;
    assert!(wait >= Duration::from_secs(24) && wait <= Duration::from_secs(68), "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn mail_deferred_for_five_days_fails_and_its_sender_gets_a_bounce() {
    let stage = Stage::new(2, MOMENT).bounce(Bounce::Sender);
    stage.deliver.judge(|to| if to.domain().as_str() == "example.com" { delivered() } else { later() });
    let id = stage.put(&["grey@example.net"]).await;
    stage.run();
    for _ in 0..6 {
        sleep(Duration::from_secs(24 * 3600)).await;
    }
    let inner = stage.fake_queue.inner();
    let [.., (failed, settlements), (_, bounce)] = inner.settled.as_slice() else { panic!("{:?}", inner.settled) };
    let [Settlement::Failed(attempted)] = settlements.as_slice() else { panic!("{settlements:?}") };
    assert_eq!(*failed, id);
    assert!(attempted.text.starts_with("expired after 5 days: upstream \"company\""), "{}", attempted.text);
    assert!(matches!(bounce.as_slice(), [Settlement::Delivered(_)]));
    assert!(inner.waiting.is_empty());
}

/// They were only tried as probes before, one per pause, so the last of a thousand failed three days late.
#[tokio::test(start_paused = true)]
async fn what_waits_for_an_upstream_that_is_gone_fails_on_time_though_nobody_asks_for_it() {
    const MAILS: usize = 1000;
    let stage = Stage::new(4, MOMENT);
    stage.deliver.judge(|to| if to.domain().as_str() == "one.example" { delivered() } else { login_refused() });
    for _ in 0..MAILS {
        stage.put(&["you@example.net"]).await;
    }
    stage.run();
    sleep(Duration::from_secs(5 * 24 * 3600 - 60)).await;
    assert_eq!(stage.fake_queue.count(is_failed), 0, "not before its time");
    let young = stage.put(&["you@example.net"]).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(stage.fake_queue.count(is_failed), MAILS);
    let inner = stage.fake_queue.inner();
    let Some((_, settlements)) = inner.settled.iter().rev().find(|(_, settlements)| settlements.iter().any(is_failed))
    else {
        panic!("{MAILS} failed")
    };
    let [Settlement::Failed(attempted)] = settlements.as_slice() else { panic!("{settlements:?}") };
    assert!(attempted.text.starts_with("expired after 5 days: upstream \"company\""), "{}", attempted.text);
    assert!(inner.waiting.iter().map(|entry| entry.accepted.id).eq([young]), "the young one waits");
}

/// The gateway or its network was down for a week: old mail gets an attempt once an upstream is available.
#[tokio::test(start_paused = true)]
async fn a_short_absence_fails_nothing_however_old_it_is() {
    const MAILS: usize = 100;
    let stage = Stage::new(4, MOMENT);
    stage.deliver.judge(|_| login_refused());
    for _ in 0..MAILS {
        stage.put(&["you@example.net"]).await;
    }
    stage.jump(jiff::SignedDuration::from_hours(7 * 24));
    stage.run();
    sleep(Duration::from_secs(1800)).await;
    let probes = stage.deliver.notes().begun.len();
    assert!(stage.fake_queue.count(is_failed) <= probes && probes < 20, "{probes}");
    stage.deliver.judge(|_| delivered());
    stage.until("the others are delivered", |fake_queue| fake_queue.count(is_delivered) + probes >= MAILS).await;
}

#[tokio::test(start_paused = true)]
async fn a_bounce_goes_to_whom_it_should_and_never_for_the_null_path() {
    let postmaster = Bounce::Address(mailbox("postmaster@example.com"));
    for (bounce, sender, to) in [
        (Bounce::Sender, ReversePath::Mailbox(mailbox("a@example.com")), Some("a@example.com")),
        (postmaster.clone(), ReversePath::Mailbox(mailbox("a@example.com")), Some("postmaster@example.com")),
        (Bounce::Off, ReversePath::Mailbox(mailbox("a@example.com")), None),
        (Bounce::Sender, ReversePath::Null, None),
        (postmaster, ReversePath::Null, None),
    ] {
        let stage = Stage::new(1, MOMENT).bounce(bounce);
        stage.deliver.judge(|_| refused());
        stage.put_from(sender, &["gone@example.net"]).await;
        stage.run();
        // The bounce is refused too, and causes no bounce.
        let expected = 1 + usize::from(to.is_some());
        stage.until("all settled", |fake_queue| fake_queue.count(is_failed) == expected).await;
        sleep(Duration::from_secs(600)).await;
        assert_eq!(stage.fake_queue.settled(), expected, "{to:?}");
    }
}

/// Each report that fails would cause the next one, as long as the sender is an address.
#[tokio::test(start_paused = true)]
async fn a_bounce_from_an_address_causes_no_other_one() {
    for to in [Bounce::Sender, Bounce::Address(mailbox("postmaster@example.com"))] {
        let sender = ReversePath::Mailbox(mailbox("postmaster@example.com"));
        let stage = Stage::new(1, MOMENT).bounce(to).bounce_sender(sender.clone());
        stage.deliver.judge(|_| refused());
        stage.put(&["gone@example.net"]).await;
        stage.run();
        stage.until("all settled", |fake_queue| fake_queue.count(is_failed) == 2).await;
        sleep(Duration::from_secs(600)).await;
        assert_eq!(stage.fake_queue.settled(), 2);
        // Mail of an application from the same address still gets its bounce.
        stage.put_from(sender, &["gone@example.net"]).await;
        stage.until("all settled", |fake_queue| fake_queue.count(is_failed) == 4).await;
        sleep(Duration::from_secs(600)).await;
        assert_eq!(stage.fake_queue.settled(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slot_is_free_only_when_the_settlement_is_durable() {
    let stage = Stage::new(1, MOMENT);
    stage.fake_queue.inner().failing_settles = 5;
    stage.put(&["a@example.net"]).await;
    stage.put(&["b@example.net"]).await;
    stage.run();
    sleep(Duration::from_secs(20)).await;
    assert_eq!(stage.deliver.notes().begun.len(), 1, "the second waits for the first one's settlement");
    stage.until("both delivered", |fake_queue| fake_queue.count(is_delivered) == 2).await;
    assert_eq!(stage.deliver.notes().begun.len(), 2, "each was sent once");
}

#[tokio::test(start_paused = true)]
async fn at_the_stop_what_is_under_way_is_finished_and_nothing_begun() {
    let stage = Stage::new(2, Duration::from_secs(3));
    for _ in 0..10 {
        stage.put(&["you@example.net"]).await;
    }
    let running = stage.run();
    sleep(Duration::from_secs(1)).await;
    stage.stop.cancel();
    running.await.expect("an orderly end");
    assert_eq!((stage.fake_queue.count(is_delivered), stage.deliver.notes().begun.len()), (2, 2));
    let inner = stage.fake_queue.inner();
    assert_eq!(inner.waiting.iter().filter(|entry| entry.lease.is_some()).count(), 0, "no lease is left");
    assert_eq!(inner.waiting.len(), 8);
}

/// The failure was logged, but that lane's mail was never tried again while the gateway went on with the others.
#[tokio::test(start_paused = true)]
async fn a_lane_whose_loop_ends_ends_them_all_once_what_is_under_way_is_settled() {
    for fault in [Scripted::Panic, Scripted::Closed] {
        let stage = Stage::new(2, Duration::from_secs(30));
        stage.put(&["you@example.net"]).await;
        let running = stage.run();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(stage.deliver.notes().begun.len(), 1);
        stage.fake_queue.inner().fault = Some(fault);
        stage.put(&["you@one.example"]).await;
        running.await.expect("an orderly end");
        assert!(!stage.stop.is_cancelled(), "by itself");
        assert_eq!(stage.fake_queue.count(is_delivered), 1, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_our_own_defers_the_message() {
    let stage = Stage::new(1, MOMENT);
    stage.deliver.judge(|_| panic!("scripted"));
    stage.put(&["you@example.net"]).await;
    stage.run();
    stage.until("settled", |fake_queue| fake_queue.settled() == 1).await;
    let inner = stage.fake_queue.inner();
    let [Settlement::Deferred(attempted)] = inner.settled[0].1.as_slice() else { panic!("{:?}", inner.settled) };
    assert!(attempted.possible_duplicate, "whether it was sent is not known");
}

/// A panic, or a dropped task, between the lease and the first command to a provider.
#[tokio::test(start_paused = true)]
async fn what_is_leased_and_not_begun_goes_back_as_it_came() {
    for panics in [false, true] {
        let stage = Stage::new(1, MOMENT);
        stage.put(&["you@example.net", "me@example.net"]).await;
        let lane = stage.fake_queue.inner().waiting[0].lane.clone();
        let leased =
            stage.queue.lease(&lane, jiff::Timestamp::UNIX_EPOCH, 1, u64::MAX).await.expect("a lease").remove(0);
        let unbegun = Unbegun::new(&stage.queue, leased);
        let holding = tokio::spawn(async move {
            let _unbegun = unbegun;
            assert!(!panics, "scripted");
            std::future::pending::<()>().await;
        });
        sleep(MOMENT).await;
        holding.abort();
        stage.until("given back", |fake_queue| fake_queue.settled() == 1).await;
        let inner = stage.fake_queue.inner();
        assert_eq!(inner.settled[0].1, [Settlement::Untried, Settlement::Untried]);
        assert!(inner.waiting.iter().all(|entry| entry.lease.is_none() && entry.attempts == 0));
    }
}

/// After the first command the provider may have the message, so only the next start may release the lease.
#[tokio::test(start_paused = true)]
async fn what_has_begun_and_is_dropped_stays_leased() {
    let stage = Stage::new(1, Duration::from_secs(60));
    stage.put(&["you@example.net"]).await;
    let running = stage.run();
    sleep(MOMENT).await;
    assert_eq!(stage.deliver.notes().begun.len(), 1);
    running.abort();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(stage.fake_queue.settled(), 0);
    assert!(stage.fake_queue.inner().waiting[0].lease.is_some());
}

#[tokio::test(start_paused = true)]
async fn memory_bounds_what_is_leased() {
    // The busy one of three lanes gets half of it and its part of the other half; a message has some 60 octets.
    let stage = Stage::new(10, MOMENT).octets(100);
    for _ in 0..20 {
        stage.put(&["you@example.net"]).await;
    }
    stage.run();
    stage.until("all delivered", |fake_queue| fake_queue.count(is_delivered) == 20).await;
    assert!(stage.deliver.notes().most <= 2, "{}", stage.deliver.notes().most);
}

#[tokio::test(start_paused = true)]
async fn a_clock_set_forward_by_a_month_fails_nothing_and_causes_no_burst() {
    let stage = Stage::new(3, MOMENT);
    stage.deliver.judge(|_| later());
    for _ in 0..100 {
        stage.put(&["you@example.net"]).await;
    }
    stage.run();
    stage.until("all tried four times", |fake_queue| fake_queue.settled() == 400).await;
    stage.deliver.notes().most = 0;
    stage.jump(jiff::SignedDuration::from_hours(30 * 24));
    stage.until("all tried once more", |fake_queue| fake_queue.settled() == 500).await;
    assert!(stage.deliver.notes().most <= 3);
    assert_eq!(stage.fake_queue.count(is_failed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_plan_begins_its_lanes_ends_the_others_and_interrupts_nothing() {
    let stage = Stage::new(1, 4 * MOMENT);
    let only = |lane: &'static str| move |plan: &mut DeliveryPlan<_>| plan.lanes.retain(|it| it.as_str() == lane);
    let all = stage.put(&["you@example.net"]).await;
    stage.run();
    sleep(MOMENT).await;
    let mut lanes = Vec::new();
    stage.replan(|plan| lanes.clone_from(&plan.lanes));
    stage.replan(only("one"));
    stage.until("what was under way ends", |fake_queue| fake_queue.count(is_delivered) == 1).await;
    stage.put(&["you@example.net"]).await;
    stage.put(&["you@one.example"]).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.fake_queue.count(is_delivered), 2, "one lane has no loop, and waits");
    stage.replan(|plan| plan.lanes = lanes);
    stage.until("the lane is back", |fake_queue| fake_queue.count(is_delivered) == 3).await;
    assert_eq!(stage.deliver.notes().begun.iter().filter(|begun| begun.1 == all).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_plan_is_followed_at_once_even_during_a_pause() {
    let stage = Stage::new(1, MOMENT);
    stage.deliver.judge(|_| login_refused());
    stage.put(&["you@example.net"]).await;
    stage.run();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(stage.fake_queue.count(is_delivered), 0, "paused");
    let working = Stage::new(1, MOMENT).deliver;
    let now = Instant::now();
    stage.put(&["you@example.net"]).await;
    stage.replan(|plan| plan.deliver = working);
    stage.until("delivered", |fake_queue| fake_queue.count(is_delivered) > 0).await;
    assert!(now.elapsed() < Duration::from_secs(2), "{:?}", now.elapsed());
}
