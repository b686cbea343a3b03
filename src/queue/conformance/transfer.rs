//! A message in the form that belongs to no backend has everything that the queue keeps of it, and is stored from it once.

use super::*;
use crate::queue::portable::{ImportSource, Imported, PortableHistory, PortableKey, PortableMail};

/// One of each state, a large body and an original among them.
async fn several(harness: &Harness) -> Vec<MailId> {
    let held = InitialState::Held { lane: Lane::new("a"), reason: "a storm".into() };
    let delayed = InitialState::Delayed { lane: Lane::new("a"), due: after(900), reason: "its rate".into() };
    let failed = InitialState::Failed { lane: Lane::new("b"), attempt: attempted(3, "550 5.1.1") };
    let doubtful = Attempted { possible_duplicate: true, ..attempted(4, "final dot: no reply") };
    let again = InitialState::Deferred { lane: Lane::new("b"), due: after(600), attempt: doubtful };
    let waits = InitialState::Waiting(Lane::new("a"));
    let states =
        [("h@example.net", held), ("d@example.net", delayed), ("f@example.net", failed), ("w@example.net", waits)];
    let mut mixed = mail_with(1, 1, "", &states);
    mixed.original = Some(Bytes::from(vec![b'o'; 300_000]));
    let large = with_body(plain(2, 2), Bytes::from(vec![b'x'; 400_000]));
    let mut marked = mail_with(3, 3, "s@example.com", &[("r@example.net", again)]);
    let accepted = Arc::make_mut(&mut marked.accepted);
    accepted.marks.tag = Some(Mark::new("weekly").expect("a mark"));
    accepted.origin = Origin { listener: Some("127.0.0.1:2525".into()), user: Some("plausible".into()) };
    let mut ids = Vec::new();
    for mail in [mixed, large, marked, mail(4, 4, "s@example.com", &["x@example.net", "y@example.net"], "b")] {
        ids.push(harness.put(mail).await);
        harness.live(60);
    }
    ids
}

async fn portable(harness: &Harness, id: MailId) -> PortableMail {
    harness.queue().await.portable(id).await.expect("read").expect("there")
}

pub(crate) async fn a_message_that_is_taken_out_and_stored_again_is_as_it_was(harness: &Harness) {
    let ids = several(harness).await;
    let queue = harness.queue().await;
    let leased = harness.lease("b", after(5), 9).await;
    let [one] = &leased[..] else { panic!("{leased:?}") };
    let settlements = vec![Settlement::Delivered(delivered(5)), deferred(5)];
    queue.settle(one.lease, settlements, after(300)).await.unwrap();
    let rows = harness.rows(&Filter::default(), 9).await;
    let mut taken = Vec::new();
    for id in &ids {
        let portable = portable(harness, *id).await;
        assert_eq!(portable.check(), Ok(()));
        assert_eq!(queue.import(portable.clone(), ImportSource::OwnSpool).await.unwrap(), Imported::Present);
        taken.push((portable, queue.stored(*id).await.unwrap().expect("there"), queue.show(*id).await.unwrap()));
    }
    assert_eq!(queue.remove(&ids).await.unwrap(), 4);
    harness.check_statistics().await;
    for (portable, _, _) in &taken {
        assert_eq!(queue.import(portable.clone(), ImportSource::Elsewhere).await.unwrap(), Imported::Stored);
        assert_eq!(queue.import(portable.clone(), ImportSource::Elsewhere).await.unwrap(), Imported::Present);
    }
    harness.check_statistics().await;
    assert_eq!(harness.rows(&Filter::default(), 9).await, rows);
    drop(queue);
    harness.crash().await;
    let queue = harness.queue().await;
    for (before, stored, shown) in taken {
        let id = before.id;
        let now = queue.stored(id).await.unwrap().expect("there");
        assert_eq!(now.accepted.message.to_bytes(), stored.accepted.message.to_bytes());
        assert_eq!((now.original, &now.accepted.envelope), (stored.original, &stored.accepted.envelope));
        assert_eq!((&now.accepted.marks, &now.accepted.origin), (&stored.accepted.marks, &stored.accepted.origin));
        let attempts = |shown: Option<MessageDetails>| shown.expect("there").attempts;
        assert_eq!(attempts(queue.show(id).await.unwrap()), attempts(shown));
        let again = portable(harness, id).await;
        assert_eq!(again, before, "its age and its due times, too");
    }
    let retried = harness.lease("b", after(600), 9).await;
    let doubtful = retried.iter().find(|leased| leased.accepted.id == ids[2]).expect("leased");
    assert!(doubtful.possible_duplicate && doubtful.age >= Duration::from_secs(120), "{doubtful:?}");
    assert_eq!(retried.iter().filter(|leased| leased.possible_duplicate).count(), 1, "{retried:?}");
    assert_eq!(queue.release(&[ids[0]]).await.unwrap(), 1, "what was held is held");
}

pub(crate) async fn leased_mail_is_taken_out_as_a_possible_duplicate(harness: &Harness) {
    let id = harness.put(plain(1, 0)).await;
    let leased = harness.lease_one("a", after(1)).await;
    let portable = portable(harness, id).await;
    assert!(portable.jobs["a"].possible_duplicate);
    harness.settle(&leased, Settlement::Delivered(delivered(2)), after(2)).await;
    let queue = harness.queue().await;
    assert_eq!(queue.portable(id).await.unwrap(), None);
    // The history knows better.
    assert_eq!(queue.import(portable, ImportSource::Elsewhere).await.unwrap(), Imported::Delivered);
    assert_eq!(harness.rows(&Filter::default(), 9).await, []);
}

pub(crate) async fn only_recipients_that_have_no_mail_yet_are_stored(harness: &Harness) {
    let id = harness.put(mail(1, 0, "s@example.com", &["x@example.net", "y@example.net"], "a")).await;
    let before = portable(harness, id).await;
    let leased = harness.lease_one("a", after(1)).await;
    let queue = harness.queue().await;
    let settlements = vec![Settlement::Delivered(delivered(1)), deferred(1)];
    queue.settle(leased.lease, settlements, after(9)).await.unwrap();
    queue.remove(&[id]).await.unwrap();
    assert_eq!(queue.import(before, ImportSource::Elsewhere).await.unwrap(), Imported::Stored);
    assert_eq!(harness.states(id).await, [("y@example.net".to_owned(), RecipientState::Waiting)]);
    harness.check_statistics().await;
}

pub(crate) async fn imported_mail_comes_onto_the_lanes_of_the_routes(harness: &Harness) {
    let lane_of: LaneOf = Arc::new(|_| Lane::new("b"));
    harness.reassign_lanes("routes", lane_of.clone()).await.unwrap();
    let id = harness.put(plain(1, 0)).await;
    let other = portable(harness, id).await;
    let queue = harness.queue().await;
    for (source, moved) in [(ImportSource::OwnSpool, 0), (ImportSource::Elsewhere, 1)] {
        queue.remove(&[id]).await.unwrap();
        assert_eq!(queue.import(other.clone(), source).await.unwrap(), Imported::Stored);
        assert_eq!(harness.reassign_lanes("routes", lane_of.clone()).await.unwrap(), moved, "{source:?}");
    }
    harness.lease_one("b", after(1)).await;
}

pub(crate) async fn keys_and_history_are_imported_once(harness: &Harness) {
    let queue = harness.queue().await;
    let [first, second] = [1, 2].map(|number| plain(number, 0).accepted.id);
    let key = |id| PortableKey { key: "ab".repeat(32), id, left: 60_000 };
    assert_eq!(queue.import_keys(vec![key(first)]).await.unwrap(), []);
    assert_eq!(queue.import_keys(vec![key(first)]).await.unwrap(), []);
    assert_eq!(queue.import_keys(vec![key(second)]).await.unwrap(), [second], "another one has it");
    let known = key(first).key().expect("a key");
    assert_eq!(queue.stored_under(known).await.unwrap(), Some(first));
    harness.live(61);
    assert_eq!(queue.stored_under(known).await.unwrap(), None);
    let row = |at, ago| PortableHistory {
        id: first,
        received_at: after(0),
        sender: Some("s@example.com".into()),
        recipients: vec!["you@example.net".into()],
        subject: "a subject".into(),
        size: 9,
        message_id: None,
        delivery: delivered(at),
        ago,
    };
    assert_eq!(queue.import_history(vec![row(1, 5_000), row(2, 4_000)]).await.unwrap(), 2);
    assert_eq!(queue.import_history(vec![row(1, 5_000), row(3, 3_000)]).await.unwrap(), 1);
    let shown = queue.show(first).await.unwrap().expect("its history");
    assert_eq!(shown.delivered.len(), 3);
    assert_eq!(queue.prune(Duration::ZERO, Duration::from_secs(4)).await.unwrap(), 3, "two rows, and the key");
}
