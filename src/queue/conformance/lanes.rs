//! Lanes: independent of each other, held and released, reassigned; and due times when the clock jumps.

use super::*;

pub(crate) async fn a_message_on_two_lanes_is_two_leases(harness: &Harness) {
    let on = |lane: &str| InitialState::Waiting(Lane::new(lane));
    let initial_states = [("a@example.net", on("a")), ("b@example.net", on("b")), ("c@example.net", on("a"))];
    let id = harness.put(mail_with(1, 0, "a@example.com", &initial_states)).await;
    let on_a = harness.lease_one("a", after(0)).await;
    let on_b = harness.lease_one("b", after(0)).await;
    assert_eq!(on_a.accepted.envelope.recipients, [mailbox("a@example.net"), mailbox("c@example.net")]);
    assert_eq!(on_b.accepted.envelope.recipients, [mailbox("b@example.net")]);
    harness.settle(&on_a, Settlement::Delivered(delivered(1)), after(1)).await;
    assert_eq!(harness.states(id).await, [("b@example.net".to_owned(), RecipientState::Leased)]);
    harness.settle(&on_b, deferred(1), after(31)).await;
    let on_b = harness.lease_one("b", after(31)).await;
    assert_eq!(on_b.attempts, 1);
    harness.settle(&on_b, Settlement::Delivered(delivered(31)), after(31)).await;
    assert!(harness.queue().await.content(id).await.unwrap().is_none());
    assert_eq!(harness.statistics().await, Statistics::default());
}

pub(crate) async fn a_held_lane_leases_nothing_and_accepts_mail(harness: &Harness) {
    let queue = harness.queue().await;
    queue.hold(Some(&Lane::new("a")), true).await.unwrap();
    harness.put(plain(1, 0)).await;
    harness.put(mail(2, 0, "a@example.com", &["b@example.net"], "b")).await;
    drop(queue);
    harness.crash().await;
    let queue = harness.queue().await;
    assert_eq!(queue.holds().await.unwrap(), [HeldLane { lane: Some("a".into()), except: vec![] }]);
    assert!(harness.lease("a", after(0), 1).await.is_empty());
    assert_eq!(harness.next_due("a", after(0)).await, None);
    let other = harness.lease_one("b", after(0)).await;
    queue.hold(Some(&Lane::new("b")), true).await.unwrap();
    harness.settle(&other, Settlement::Delivered(delivered(0)), after(0)).await;
    for lane in ["a", "b"] {
        queue.hold(Some(&Lane::new(lane)), false).await.unwrap();
    }
    assert_eq!(queue.holds().await.unwrap(), []);
    assert_eq!(harness.next_due("a", after(0)).await, Some(after(0)));
    harness.lease_one("a", after(0)).await;
}

pub(crate) async fn every_lane_can_be_held_and_one_released(harness: &Harness) {
    let queue = harness.queue().await;
    queue.hold(Some(&Lane::new("b")), true).await.unwrap();
    queue.hold(None, true).await.unwrap();
    for (number, lane) in ["a", "b", "new"].into_iter().enumerate() {
        harness.put(mail(number as u32, 0, "a@example.com", &["b@example.net"], lane)).await;
        assert!(harness.lease(lane, after(0), 1).await.is_empty());
    }
    queue.hold(Some(&Lane::new("new")), false).await.unwrap();
    assert_eq!(queue.holds().await.unwrap(), [HeldLane { lane: None, except: vec!["new".into()] }]);
    harness.lease_one("new", after(0)).await;
    assert!(harness.lease("b", after(0), 1).await.is_empty());
    queue.hold(None, false).await.unwrap();
    assert_eq!(queue.holds().await.unwrap(), []);
    harness.lease_one("a", after(0)).await;
    harness.lease_one("b", after(0)).await;
}

pub(crate) async fn new_routes_move_waiting_and_failed_recipients(harness: &Harness) {
    let old = || Lane::new("old");
    let new = Lane::new("new");
    let initial_states = [
        ("a@example.net", InitialState::Waiting(old())),
        ("b@example.net", InitialState::Deferred { lane: old(), due: after(60), attempt: attempted(0, "451") }),
        ("c@example.net", InitialState::Failed { lane: old(), attempt: attempted(0, "550") }),
        ("stays@example.org", InitialState::Waiting(old())),
    ];
    let id = harness.put(mail_with(1, 0, "a@example.com", &initial_states)).await;
    let lent = harness.put(mail(2, 0, "", &["d@example.net"], "elsewhere")).await;
    let leased = harness.lease_one("elsewhere", after(0)).await;
    for number in 10..600 {
        harness.put(mail(number, 0, "a@example.com", &["e@example.net"], "old")).await;
    }
    let lane_of: LaneOf = Arc::new(move |addressed: &Addressed<'_>| match addressed.recipient.domain().as_str() {
        "example.net" => new.clone(),
        _ => Lane::new("old"),
    });
    assert_eq!(harness.reassign_lanes("second", lane_of.clone()).await.unwrap(), 3 + 590, "what is leased stays");
    assert_eq!(harness.reassign_lanes("second", Arc::new(|_| Lane::new("never"))).await.unwrap(), 0, "the same routes");
    let lanes: Vec<_> = harness.row(id).await.unwrap().recipients.into_iter().map(|r| (r.lane, r.due)).collect();
    let due = Some(after(0));
    assert_eq!(lanes, [("new".into(), due), ("new".into(), due), ("new".into(), None), ("old".into(), due)]);
    assert_eq!(harness.states(lent).await[0].1, RecipientState::Leased);
    harness.settle(&leased, deferred(0), after(0)).await;
    assert_eq!(harness.reassign_lanes("third", lane_of).await.unwrap(), 1);
    assert_eq!(harness.lease("new", after(0), 1000).await.len(), 592);
    assert_eq!(harness.lease("old", after(0), 1000).await.len(), 1);
    assert!(harness.lease("elsewhere", after(0), 1000).await.is_empty());
    harness.check_statistics().await;
}

pub(crate) async fn the_clock_may_go_back_a_day(harness: &Harness) {
    harness.put(plain(1, DAY)).await;
    let leased = harness.lease_one("a", after(DAY)).await;
    harness.settle(&leased, deferred(DAY), after(DAY + 30)).await;
    harness.put(plain(2, DAY)).await;
    // The clock is set back a day. No schedule could have made such due times, so they count as due.
    assert_eq!(harness.next_due("a", after(0)).await, Some(after(0)));
    let leased = harness.lease("a", after(0), 10).await;
    assert_eq!(leased.len(), 2);
    for leased in &leased {
        harness.settle(leased, deferred(0), after(30)).await;
    }
    assert_eq!(harness.next_due("a", after(0)).await, Some(after(30)), "and wait like any other from then on");
    assert!(harness.lease("a", after(29), 10).await.is_empty());
    assert_eq!(harness.lease("a", after(30), 10).await.len(), 2);
}

pub(crate) async fn the_clock_may_go_forward_a_day(harness: &Harness) {
    for number in 0..20 {
        harness.put(plain(number, 0)).await;
    }
    for leased in harness.lease("a", after(0), 20).await {
        harness.settle(&leased, deferred(0), after(30)).await;
    }
    // Everything is due at once; the limit of each lease prevents a storm.
    assert_eq!(harness.lease("a", after(DAY), 3).await.len(), 3);
    let rest = harness.lease("a", after(DAY), 100).await;
    assert_eq!(rest.len(), 17);
    assert_eq!(harness.statistics().await.leased, 20);
}
