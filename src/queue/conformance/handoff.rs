//! Direct handoff: new mail goes to a loop that offered to begin it, already leased, and to nobody else.

use super::*;

async fn offering(harness: &Harness, slots: usize, octets: u64) -> HandoffReceiver {
    let receiver = harness.queue().await.handoffs().receiver(&Lane::new("a"));
    receiver.offer(slots, octets);
    receiver
}

pub(crate) async fn new_mail_is_handed_to_a_loop_that_waits_for_it(harness: &Harness) {
    let mut receiver = offering(harness, 2, u64::MAX).await;
    let mut handed = Vec::new();
    for number in 1..=2 {
        let mail = mail(number, 0, "a@example.com", &["b@example.net", "c@example.net"], "a");
        harness.put(mail.clone()).await;
        let leased = receiver.receive().await;
        assert_eq!((leased.accepted.id, &leased.lane), (mail.accepted.id, &Lane::new("a")));
        assert_eq!(
            (&leased.accepted.envelope, &leased.accepted.message),
            (&mail.accepted.envelope, &mail.accepted.message)
        );
        assert_eq!((leased.attempts, leased.age, leased.possible_duplicate), (0, Duration::ZERO, false));
        handed.push(leased);
    }
    let third = harness.put(plain(3, 0)).await;
    assert_eq!(harness.statistics().await, Statistics { waiting: 1, leased: 4, failed: 0, damaged: 0 });
    harness.check_statistics().await;
    let found: Vec<MailId> = harness.lease("a", after(0), 9).await.iter().map(|leased| leased.accepted.id).collect();
    assert_eq!(found, [third], "what was handed over is leased");
    let queue = harness.queue().await;
    assert_eq!(queue.remove(&[handed[0].accepted.id]).await.expect("an answer"), 0, "what is leased stays");
    harness.settle(&handed[0], Settlement::Delivered(delivered(1)), after(1)).await;
    harness.settle(&handed[1], deferred(1), after(31)).await;
    let again = harness.lease_one("a", after(31)).await;
    assert_eq!((again.accepted.id, again.attempts, again.possible_duplicate), (handed[1].accepted.id, 1, false));
    harness.check_statistics().await;
}

pub(crate) async fn what_was_handed_over_is_a_possible_duplicate_after_a_crash(harness: &Harness) {
    let mut receiver = offering(harness, 1, u64::MAX).await;
    let ids = [harness.put(plain(1, 0)).await, harness.put(plain(2, 1)).await];
    assert_eq!(receiver.receive().await.accepted.id, ids[0]);
    drop(receiver);
    harness.crash().await;
    let found: Vec<_> =
        harness.lease("a", after(1), 9).await.iter().map(|one| (one.accepted.id, one.possible_duplicate)).collect();
    assert_eq!(found, [(ids[0], true), (ids[1], false)]);
}

/// Each of these waits as if nobody had offered anything.
pub(crate) async fn only_what_a_lease_would_return_is_handed_over(harness: &Harness) {
    let mut receiver = offering(harness, 9, 10_000).await;
    let queue = harness.queue().await;
    queue.hold(Some(&Lane::new("a")), true).await.expect("held");
    let held = harness.put(plain(1, 0)).await;
    queue.hold(Some(&Lane::new("a")), false).await.expect("released");
    let waits = |lane: &str| InitialState::Waiting(Lane::new(lane));
    let on_two = [("b@example.net", waits("a")), ("c@example.net", waits("b"))];
    let later = InitialState::Deferred { lane: Lane::new("a"), due: after(9), attempt: attempted(0, "451") };
    let others = [
        mail_with(2, 0, "a@example.com", &on_two),
        mail_with(3, 0, "a@example.com", &[("b@example.net", later)]),
        mail(4, 0, "a@example.com", &["b@example.net"], "b"),
        with_body(plain(5, 0), vec![b'x'; 20_000].into()),
    ];
    for mail in others {
        harness.put(mail).await;
    }
    assert!(receiver.close().is_empty());
    assert_eq!(harness.statistics().await, Statistics { waiting: 6, ..Statistics::default() });
    assert!(harness.lease("a", after(0), 9).await.iter().any(|leased| leased.accepted.id == held));
}

pub(crate) async fn mail_of_a_known_key_is_not_handed_over_again(harness: &Harness) {
    let mut receiver = offering(harness, 9, u64::MAX).await;
    let queue = harness.queue().await;
    let deduplication = Deduplication { key: IdempotencyKey([7; 32]), window: Duration::from_secs(600) };
    let mut firsts = Vec::new();
    for number in 1..=2 {
        let mail = NewMail { deduplication: Some(deduplication.clone()), ..plain(number, 0) };
        firsts.push(queue.put_once(mail).await.expect("an answer"));
    }
    assert_eq!(firsts, [None, Some(plain(1, 0).accepted.id)]);
    assert_eq!(receiver.close().len(), 1);
}

pub(crate) async fn what_no_loop_takes_over_waits_again(harness: &Harness) {
    let receiver = offering(harness, 9, u64::MAX).await;
    let id = harness.put(plain(1, 0)).await;
    assert_eq!(harness.statistics().await.leased, 1);
    drop(receiver);
    let id_of_next = harness.put(plain(2, 0)).await;
    assert_eq!(harness.statistics().await.waiting, 1, "nobody waits any more");
    let mut receiver = offering(harness, 9, u64::MAX).await;
    assert!(receiver.close().is_empty());
    let slot = harness.queue().await.handoffs().reserve(&Lane::new("a"), 1);
    assert!(slot.is_none(), "closed");
    assert_eq!(harness.lease_one("a", after(0)).await.accepted.id, id_of_next);
    harness.crash().await;
    let ids: Vec<_> = harness.lease("a", after(0), 9).await.iter().map(|leased| leased.accepted.id).collect();
    assert_eq!(ids, [id, id_of_next]);
}
