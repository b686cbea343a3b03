//! Lanes: apart from each other, held and released, named anew; and due times when the clock jumps.

use super::*;

pub(crate) async fn a_message_on_two_lanes_is_two_leases(scene: &Scene) {
    let on = |lane: &str| Fate::Waiting(Lane::new(lane));
    let fates = [("a@example.net", on("a")), ("b@example.net", on("b")), ("c@example.net", on("a"))];
    let id = scene.put(mail_with(1, 0, "a@example.com", &fates)).await;
    let (on_a, on_b) = (scene.lease_one("a", after(0)).await, scene.lease_one("b", after(0)).await);
    assert_eq!(on_a.accepted.envelope.recipients, [mailbox("a@example.net"), mailbox("c@example.net")]);
    assert_eq!(on_b.accepted.envelope.recipients, [mailbox("b@example.net")]);
    scene.settle(&on_a, Settlement::Delivered(delivered(1)), after(1)).await;
    assert_eq!(scene.states(id).await, [("b@example.net".to_owned(), State::Leased)]);
    scene.settle(&on_b, deferred(1), after(31)).await;
    let on_b = scene.lease_one("b", after(31)).await;
    assert_eq!(on_b.attempts, 1);
    scene.settle(&on_b, Settlement::Delivered(delivered(31)), after(31)).await;
    assert!(scene.queue().await.content(id).await.unwrap().is_none());
    assert_eq!(scene.statistics().await, Statistics::default());
}

pub(crate) async fn a_held_lane_lends_nothing_and_takes_mail(scene: &Scene) {
    let queue = scene.queue().await;
    queue.hold(Some(&Lane::new("a")), true).await.unwrap();
    scene.put(plain(1, 0)).await;
    scene.put(mail(2, 0, "a@example.com", &["b@example.net"], "b")).await;
    drop(queue);
    scene.crash().await;
    let queue = scene.queue().await;
    assert_eq!(queue.holds().await.unwrap(), [HeldLane { lane: Some("a".into()), except: vec![] }]);
    assert!(scene.lease("a", after(0), 1).await.is_empty());
    assert_eq!(scene.next_due("a", after(0)).await, None);
    let other = scene.lease_one("b", after(0)).await;
    queue.hold(Some(&Lane::new("b")), true).await.unwrap();
    scene.settle(&other, Settlement::Delivered(delivered(0)), after(0)).await;
    for lane in ["a", "b"] {
        queue.hold(Some(&Lane::new(lane)), false).await.unwrap();
    }
    assert_eq!(queue.holds().await.unwrap(), []);
    assert_eq!(scene.next_due("a", after(0)).await, Some(after(0)));
    scene.lease_one("a", after(0)).await;
}

pub(crate) async fn every_lane_can_be_held_and_one_released(scene: &Scene) {
    let queue = scene.queue().await;
    queue.hold(Some(&Lane::new("b")), true).await.unwrap();
    queue.hold(None, true).await.unwrap();
    for (number, lane) in ["a", "b", "new"].into_iter().enumerate() {
        scene.put(mail(number as u32, 0, "a@example.com", &["b@example.net"], lane)).await;
        assert!(scene.lease(lane, after(0), 1).await.is_empty());
    }
    queue.hold(Some(&Lane::new("new")), false).await.unwrap();
    assert_eq!(queue.holds().await.unwrap(), [HeldLane { lane: None, except: vec!["new".into()] }]);
    scene.lease_one("new", after(0)).await;
    assert!(scene.lease("b", after(0), 1).await.is_empty());
    queue.hold(None, false).await.unwrap();
    assert_eq!(queue.holds().await.unwrap(), []);
    scene.lease_one("a", after(0)).await;
    scene.lease_one("b", after(0)).await;
}

pub(crate) async fn new_routes_move_waiting_and_failed_recipients(scene: &Scene) {
    let (old, new) = (|| Lane::new("old"), Lane::new("new"));
    let fates = [
        ("a@example.net", Fate::Waiting(old())),
        ("b@example.net", Fate::Deferred { lane: old(), due: after(60), attempt: attempted(0, "451") }),
        ("c@example.net", Fate::Failed { lane: old(), attempt: attempted(0, "550") }),
        ("stays@example.org", Fate::Waiting(old())),
    ];
    let id = scene.put(mail_with(1, 0, "a@example.com", &fates)).await;
    let lent = scene.put(mail(2, 0, "", &["d@example.net"], "elsewhere")).await;
    let leased = scene.lease_one("elsewhere", after(0)).await;
    for number in 10..600 {
        scene.put(mail(number, 0, "a@example.com", &["e@example.net"], "old")).await;
    }
    let lane_of: LaneOf = Arc::new(move |addressed: &Addressed<'_>| match addressed.recipient.domain().as_str() {
        "example.net" => new.clone(),
        _ => Lane::new("old"),
    });
    assert_eq!(scene.reassign_lanes("second", lane_of.clone()).await.unwrap(), 3 + 590, "what is lent stays");
    assert_eq!(scene.reassign_lanes("second", Arc::new(|_| Lane::new("never"))).await.unwrap(), 0, "the same routes");
    let lanes: Vec<_> = scene.row(id).await.unwrap().recipients.into_iter().map(|r| (r.lane, r.due)).collect();
    let due = Some(after(0));
    assert_eq!(lanes, [("new".into(), due), ("new".into(), due), ("new".into(), None), ("old".into(), due)]);
    assert_eq!(scene.states(lent).await[0].1, State::Leased);
    scene.settle(&leased, deferred(0), after(0)).await;
    assert_eq!(scene.reassign_lanes("third", lane_of).await.unwrap(), 1);
    assert_eq!(scene.lease("new", after(0), 1000).await.len(), 592);
    assert_eq!(scene.lease("old", after(0), 1000).await.len(), 1);
    assert!(scene.lease("elsewhere", after(0), 1000).await.is_empty());
    scene.check_statistics().await;
}

pub(crate) async fn the_clock_may_go_back_a_day(scene: &Scene) {
    scene.put(plain(1, DAY)).await;
    let leased = scene.lease_one("a", after(DAY)).await;
    scene.settle(&leased, deferred(DAY), after(DAY + 30)).await;
    scene.put(plain(2, DAY)).await;
    // Now it is yesterday again. No schedule could have made such due times, so they count as due.
    assert_eq!(scene.next_due("a", after(0)).await, Some(after(0)));
    let leased = scene.lease("a", after(0), 10).await;
    assert_eq!(leased.len(), 2);
    for leased in &leased {
        scene.settle(leased, deferred(0), after(30)).await;
    }
    assert_eq!(scene.next_due("a", after(0)).await, Some(after(30)), "and wait like any other from then on");
    assert!(scene.lease("a", after(29), 10).await.is_empty());
    assert_eq!(scene.lease("a", after(30), 10).await.len(), 2);
}

pub(crate) async fn the_clock_may_go_forward_a_day(scene: &Scene) {
    for number in 0..20 {
        scene.put(plain(number, 0)).await;
    }
    for leased in scene.lease("a", after(0), 20).await {
        scene.settle(&leased, deferred(0), after(30)).await;
    }
    // Everything is due at once; the limit of each lease is what keeps it from being a storm.
    assert_eq!(scene.lease("a", after(DAY), 3).await.len(), 3);
    let rest = scene.lease("a", after(DAY), 100).await;
    assert_eq!(rest.len(), 17);
    assert_eq!(scene.statistics().await.leased, 20);
}
