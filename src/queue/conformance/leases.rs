//! The life of a message: put, leased, settled, with the process ending between any two of these.

use super::*;

pub(crate) async fn what_was_put_is_leased_as_it_was(harness: &Harness) {
    let mut mail = mail(1, 0, "\"a b\"@Example.com", &["jürgen@exämple.net", "you@[127.0.0.1]"], "a");
    let mut accepted = (*mail.accepted).clone();
    accepted.envelope.body = crate::smtp::command::BodyType::EightBitMime;
    accepted.message =
        RawMessage::from_data(Bytes::from_static(b"From: a@b\r\n\r\n.\r\n\xff\r\n\r\n")).expect("a message");
    accepted.author = Author::of(&accepted.message).ok();
    accepted.origin = Origin { listener: Some("127.0.0.1:2525".into()), user: Some("shop".into()) };
    let mark = |text| Mark::new(text).expect("a mark");
    accepted.marks.tag = Some(mark("weekly report"));
    accepted.marks.metadata.insert(mark("site"), mark("exämple.net"));
    mail.accepted = Arc::new(accepted.clone());
    let bare = mail_with(2, 1, "", &[("you@example.net", InitialState::Waiting(Lane::new("a")))]);
    for crashed in [false, true] {
        if !crashed {
            harness.put(mail.clone()).await;
            harness.put(bare.clone()).await;
        }
        let mut leased = harness.lease("a", after(1), 10).await;
        leased.sort_by_key(|leased| leased.accepted.id);
        assert_eq!(leased.len(), 2);
        for (leased, put) in leased.iter().zip([&mail, &bare]) {
            let got = &leased.accepted;
            let put = &put.accepted;
            assert_eq!((got.id, got.received_at, &got.envelope), (put.id, put.received_at, &put.envelope));
            assert_eq!((&got.message, &got.author), (&put.message, &put.author));
            assert_eq!((&got.origin, &got.marks), (&put.origin, &put.marks));
            assert_eq!((leased.age, leased.attempts, leased.possible_duplicate), (Duration::ZERO, 0, crashed));
            let content = harness.queue().await.content(put.id).await.expect("content").expect("there");
            assert_eq!(content, put.message.to_bytes());
        }
        assert!(harness.lease("a", after(1), 10).await.is_empty(), "leased once only");
        harness.crash().await;
    }
    harness.check_statistics().await;
}

pub(crate) async fn a_large_message_is_whole_and_goes_with_its_last_recipient(harness: &Harness) {
    let body: Bytes = (0..3_000_000_u32).map(|at| b'a' + (at % 23) as u8).collect::<Vec<_>>().into();
    let mut mail = with_body(mail(1, 0, "a@example.com", &["b@example.net", "c@example.net"], "a"), body.clone());
    mail.original = Some(body.clone());
    let id = harness.put(mail.clone()).await;
    harness.crash().await;
    let leased = harness.lease_one("a", after(0)).await;
    assert_eq!(leased.accepted.message, mail.accepted.message);
    assert!(harness.queue().await.show(id).await.expect("shown").expect("there").has_original);
    harness
        .queue()
        .await
        .settle(leased.lease, vec![Settlement::Delivered(delivered(1)), failed(1)], after(1))
        .await
        .unwrap();
    assert!(harness.queue().await.content(id).await.expect("content").is_some(), "kept with its failed recipient");
    assert_eq!(harness.queue().await.remove(&[id]).await.unwrap(), 1);
    assert!(harness.queue().await.content(id).await.expect("content").is_none());
}

pub(crate) async fn each_recipient_is_settled_for_itself(harness: &Harness) {
    let addresses = ["a@example.net", "b@example.net", "c@example.net", "d@example.net"];
    let id = harness.put(mail(1, 0, "a@example.com", &addresses, "a")).await;
    let leased = harness.lease_one("a", after(0)).await;
    let settlements = vec![deferred(5), Settlement::Delivered(delivered(5)), failed(5), Settlement::Untried];
    harness.queue().await.settle(leased.lease, settlements, after(35)).await.unwrap();
    for _ in 0..2 {
        let shown = harness.queue().await.show(id).await.unwrap().unwrap();
        let rows: Vec<_> =
            shown.row.recipients.iter().map(|r| (r.address.as_str(), r.state, r.attempts, r.due)).collect();
        let due = Some(after(35));
        assert_eq!(
            rows,
            [
                ("a@example.net", RecipientState::Waiting, 1, due),
                ("c@example.net", RecipientState::Failed, 1, None),
                ("d@example.net", RecipientState::Waiting, 0, due)
            ]
        );
        assert_eq!(shown.delivered.len(), 1);
        assert_eq!(
            (&shown.delivered[0].recipients, &shown.delivered[0].delivery),
            (&vec!["b@example.net".to_owned()], &delivered(5))
        );
        assert_eq!(harness.statistics().await, Statistics { waiting: 2, leased: 0, failed: 1, damaged: 0 });
        harness.crash().await;
    }
    let leased = harness.lease_one("a", after(35)).await;
    assert_eq!((leased.attempts, leased.possible_duplicate), (1, false));
    assert_eq!(leased.accepted.envelope.recipients, [mailbox("a@example.net"), mailbox("d@example.net")]);
    harness.settle(&leased, Settlement::Delivered(delivered(40)), after(40)).await;
    assert_eq!(harness.states(id).await, [("c@example.net".to_owned(), RecipientState::Failed)]);
}

pub(crate) async fn a_deferred_message_waits_and_an_expired_one_has_failed(harness: &Harness) {
    let id = harness.put(plain(1, 0)).await;
    for (attempts, at) in [(0, 0), (1, 30), (2, 90)] {
        assert_eq!(harness.next_due("a", after(0)).await, Some(after(at)));
        assert!(harness.lease("a", after(at - 1), 1).await.is_empty());
        let leased = harness.lease_one("a", after(at)).await;
        assert_eq!(leased.attempts, attempts);
        assert_eq!(harness.next_due("a", after(at)).await, None, "nothing waits while it is leased");
        let due = if at == 0 { 30 } else { 90 };
        let ending = if at == 90 { failed(at) } else { deferred(at) };
        harness.settle(&leased, ending, after(due)).await;
        harness.crash().await;
    }
    assert_eq!(harness.states(id).await[0].1, RecipientState::Failed);
    assert!(harness.lease("a", after(10 * DAY), 1).await.is_empty());
    assert_eq!(harness.next_due("a", after(0)).await, None);
}

pub(crate) async fn an_untried_recipient_costs_no_attempt(harness: &Harness) {
    let id = harness.put(plain(1, 0)).await;
    let leased = harness.lease_one("a", after(3)).await;
    harness.settle(&leased, Settlement::Untried, after(100)).await;
    assert_eq!(harness.next_due("a", after(3)).await, Some(after(0)), "as if it had not been leased");
    let leased = harness.lease_one("a", after(3)).await;
    assert_eq!((leased.attempts, leased.possible_duplicate), (0, false));
    harness.settle(&leased, Settlement::Untried, Timestamp::MIN).await;
    assert_eq!(harness.next_due("a", after(3)).await, Some(after(0)), "whatever `due` says");
    harness.lease_one("a", after(3)).await;
    harness.crash().await;
    let leased = harness.lease_one("a", after(3)).await;
    harness.settle(&leased, Settlement::Untried, after(100)).await;
    assert!(harness.lease_one("a", after(3)).await.possible_duplicate, "still in doubt");
    assert!(harness.queue().await.show(id).await.unwrap().unwrap().attempts.is_empty());
}

pub(crate) async fn a_postponed_recipient_waits_and_costs_no_attempt(harness: &Harness) {
    let id = harness.put(plain(1, 0)).await;
    let leased = harness.lease_one("a", after(3)).await;
    harness.settle(&leased, Settlement::Postponed, after(100)).await;
    assert_eq!(harness.next_due("a", after(3)).await, Some(after(100)));
    harness.lease_one("a", after(100)).await;
    harness.crash().await;
    let leased = harness.lease_one("a", after(100)).await;
    assert_eq!((leased.attempts, leased.possible_duplicate), (0, true));
    harness.settle(&leased, Settlement::Postponed, after(200)).await;
    assert!(harness.lease_one("a", after(200)).await.possible_duplicate, "still in doubt");
    assert!(harness.queue().await.show(id).await.unwrap().unwrap().attempts.is_empty());
}

pub(crate) async fn a_lease_ends_once_and_covers_every_recipient(harness: &Harness) {
    harness.put(mail(1, 0, "a@example.com", &["a@example.net", "b@example.net"], "a")).await;
    let leased = harness.lease_one("a", after(0)).await;
    let queue = harness.queue().await;
    assert!(queue.settle(leased.lease, vec![deferred(0)], after(9)).await.is_err(), "one is missing");
    harness.settle(&leased, deferred(0), after(9)).await;
    let again = queue.settle(leased.lease, vec![failed(0), failed(0)], after(9)).await;
    assert!(matches!(again, Err(QueueError::NoSuchLease)), "{again:?}");
    let next = harness.lease_one("a", after(9)).await;
    assert_ne!(next.lease, leased.lease);
    let stale = queue.settle(leased.lease, vec![failed(0), failed(0)], after(9)).await;
    assert!(matches!(stale, Err(QueueError::NoSuchLease)), "{stale:?}");
    harness.settle(&next, Settlement::Delivered(delivered(9)), after(9)).await;
    assert_eq!(harness.statistics().await, Statistics::default());
}

pub(crate) async fn a_crash_makes_leased_messages_possible_duplicates(harness: &Harness) {
    let ids = [harness.put(plain(1, 0)).await, harness.put(plain(2, 1)).await];
    let leased = harness.lease_one("a", after(1)).await;
    assert_eq!((leased.accepted.id, leased.possible_duplicate), (ids[0], false));
    harness.crash().await;
    assert_eq!(harness.statistics().await, Statistics { waiting: 2, ..Statistics::default() });
    let suspects: Vec<_> =
        harness.lease("a", after(1), 2).await.iter().map(|one| (one.accepted.id, one.possible_duplicate)).collect();
    assert_eq!(suspects, [(ids[0], true), (ids[1], false)]);
    harness.crash().await;
    for leased in harness.lease("a", after(1), 2).await {
        assert!(leased.possible_duplicate);
        harness.settle(&leased, deferred(1), after(2)).await;
    }
    for leased in harness.lease("a", after(2), 2).await {
        assert!(!leased.possible_duplicate, "an attempt that was answered ends the doubt");
    }
}

pub(crate) async fn a_lost_answer_makes_the_next_attempt_suspect(harness: &Harness) {
    harness.put(plain(1, 0)).await;
    let lost = Attempted { possible_duplicate: true, ..attempted(0, "final dot: timed out") };
    let initial_state = InitialState::Deferred { lane: Lane::new("a"), due: after(0), attempt: lost.clone() };
    harness.put(mail_with(2, 0, "a@example.com", &[("you@example.net", initial_state)])).await;
    for leased in harness.lease("a", after(0), 2).await {
        assert_eq!(leased.possible_duplicate, leased.attempts == 1);
        harness.settle(&leased, Settlement::Deferred(lost.clone()), after(1)).await;
    }
    let leased = harness.lease("a", after(1), 2).await;
    assert!(leased.len() == 2 && leased.iter().all(|leased| leased.possible_duplicate));
}

pub(crate) async fn the_limits_of_a_lease_hold(harness: &Harness) {
    for number in 0..10 {
        harness.put(with_body(plain(number, 0), vec![b'x'; 10_000].into())).await;
    }
    let queue = harness.queue().await;
    let lane = Lane::new("a");
    assert!(queue.lease(&lane, after(0), 0, u64::MAX).await.unwrap().is_empty());
    assert!(queue.lease(&lane, after(0), 9, 0).await.unwrap().is_empty());
    assert_eq!(queue.lease(&lane, after(0), 9, 1).await.unwrap().len(), 1, "whatever its size");
    assert_eq!(queue.lease(&lane, after(0), 9, 20_000).await.unwrap().len(), 2);
    assert_eq!(queue.lease(&lane, after(0), 3, u64::MAX).await.unwrap().len(), 3);
    assert_eq!(queue.lease(&lane, after(0), 100, u64::MAX).await.unwrap().len(), 4);
    harness.check_statistics().await;
}

pub(crate) async fn direct_mode_keeps_what_it_could_not_deliver(harness: &Harness) {
    let lane = || Lane::new("a");
    let taken = mail_with(1, 0, "a@example.com", &[("a@example.net", InitialState::Delivered(delivered(1)))]);
    let initial_states = [
        ("a@example.net", InitialState::Delivered(delivered(1))),
        ("b@example.net", InitialState::Deferred { lane: lane(), due: after(31), attempt: attempted(1, "451 later") }),
        ("c@example.net", InitialState::Failed { lane: lane(), attempt: attempted(1, "550 no") }),
        ("d@example.net", InitialState::Delivered(delivered(1))),
    ];
    let whole = harness.put(taken).await;
    let mixed = harness.put(mail_with(2, 0, "a@example.com", &initial_states)).await;
    harness.crash().await;
    let queue = harness.queue().await;
    assert!(queue.content(whole).await.unwrap().is_none(), "only history");
    assert_eq!(queue.show(whole).await.unwrap().unwrap().delivered.len(), 1);
    let shown = queue.show(mixed).await.unwrap().unwrap();
    assert_eq!(shown.delivered[0].recipients, ["a@example.net", "d@example.net"]);
    assert_eq!(shown.attempts, [attempted(1, "451 later"), attempted(1, "550 no")]);
    let states =
        [("b@example.net".to_owned(), RecipientState::Waiting), ("c@example.net".to_owned(), RecipientState::Failed)];
    assert_eq!(harness.states(mixed).await, states);
    assert_eq!(harness.next_due("a", after(1)).await, Some(after(31)));
    let leased = harness.lease_one("a", after(31)).await;
    assert_eq!(leased.accepted.envelope.recipients, [mailbox("b@example.net")]);
    assert_eq!((leased.attempts, leased.possible_duplicate), (1, false));
    harness.check_statistics().await;
}

pub(crate) async fn many_at_once_are_each_leased_once(harness: &Harness) {
    let queue = harness.queue().await;
    let mut puts = tokio::task::JoinSet::new();
    for number in 0..200 {
        let queue = queue.clone();
        puts.spawn(async move { queue.put(plain(number, 0)).await });
    }
    let mut taken = std::collections::BTreeSet::new();
    let mut leases = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let queue = queue.clone();
        leases.spawn(async move { queue.lease(&Lane::new("a"), after(0), 10, u64::MAX).await });
    }
    while let Some(put) = puts.join_next().await {
        put.unwrap().unwrap();
    }
    let mut batches = Vec::new();
    while let Some(leased) = leases.join_next().await {
        batches.push(leased.unwrap().unwrap());
    }
    batches.push(harness.lease("a", after(0), 1000).await);
    for leased in batches.into_iter().flatten() {
        assert!(taken.insert(leased.accepted.id), "leased twice");
        harness.settle(&leased, Settlement::Delivered(delivered(0)), after(0)).await;
    }
    assert_eq!(taken.len(), 200);
    assert_eq!(harness.statistics().await, Statistics::default());
}

pub(crate) async fn a_closed_queue_says_so(harness: &Harness) {
    let id = harness.put(plain(1, 0)).await;
    let queue = harness.queue().await;
    queue.close().await;
    queue.close().await;
    assert!(matches!(queue.put(plain(2, 0)).await, Err(QueueError::Closed)));
    assert!(matches!(queue.lease(&Lane::new("a"), after(0), 1, 1).await, Err(QueueError::Closed)));
    assert!(matches!(queue.show(id).await, Err(QueueError::Closed)));
    drop(queue);
    harness.crash().await;
    assert_eq!(harness.statistics().await.waiting, 1);
}

pub(crate) async fn mail_that_is_too_old_is_leased_whether_due_or_not(harness: &Harness) {
    let queue = harness.queue().await;
    let mut ids = Vec::new();
    for number in 1..=5 {
        harness.live(1);
        ids.push(harness.put(plain(number, i64::from(number))).await);
    }
    harness.put(mail(6, 0, "sender@example.com", &["you@example.net"], "b")).await;
    let first = harness.lease_one("a", after(5)).await;
    harness.settle(&first, deferred(5), after(3600)).await;
    let tried_again = harness.lease_one("a", after(5)).await;
    harness.settle(&tried_again, failed(6), after(6)).await;
    harness.live(45);
    queue.retry(&[tried_again.accepted.id], None, after(50)).await.expect("tried again");
    harness.live(50);
    harness.put(plain(7, 100)).await;
    let age = Duration::from_secs(80);
    let lane = Lane::new("a");
    queue.hold(Some(&lane), true).await.expect("held");
    let held = queue.lease_expired(&lane, age, None, 9, u64::MAX).await.expect("an answer");
    assert!(held.0.is_empty(), "what is held is nobody's to end");
    queue.hold(Some(&lane), false).await.expect("released");
    let mut found = Vec::new();
    let mut cursor = None;
    for _ in 0..10 {
        let (leased, next) = queue.lease_expired(&lane, age, cursor, 2, u64::MAX).await.expect("an answer");
        assert!(leased.len() <= 2, "the limit holds");
        found.extend(leased);
        cursor = next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(cursor, None, "it comes to an end");
    let expected = ids.iter().filter(|id| **id != tried_again.accepted.id);
    assert!(
        found.iter().map(|leased| &leased.accepted.id).eq(expected),
        "in order of acceptance; a retry makes it young"
    );
    assert_eq!(found[0].attempts, 1);
    assert_eq!(
        queue.lease_expired(&lane, age, None, 9, u64::MAX).await.expect("an answer").0.len(),
        0,
        "leased once only"
    );
    for leased in &found {
        harness.settle(leased, failed(30), after(30)).await;
    }
    harness.check_statistics().await;
    let octets = queue.lease_expired(&lane, Duration::ZERO, None, 9, 1).await.expect("an answer").0.len();
    assert_eq!(octets, 1, "no further one once the octets are reached");
}
