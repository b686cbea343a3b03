//! Deduplication: a message that is submitted again is stored once, across crashes, and for its window only.

use super::*;

const WINDOW: i64 = 600;

fn keyed(number: u32, key: u8) -> NewMail {
    let window = Duration::from_secs(WINDOW.unsigned_abs());
    let deduplication = Some(Deduplication { key: IdempotencyKey([key; 32]), window });
    NewMail { deduplication, ..plain(number, 0) }
}

fn id(number: u32) -> MailId {
    plain(number, 0).accepted.id
}

pub(crate) async fn mail_of_a_known_key_is_stored_once(harness: &Harness) {
    let queue = harness.queue().await;
    let body = Bytes::from(vec![b'x'; 300_000]);
    assert_eq!(queue.stored_under(IdempotencyKey([1; 32])).await.unwrap(), None);
    assert_eq!(queue.put_once(with_body(keyed(1, 1), body.clone())).await.unwrap(), None);
    assert_eq!(queue.put_once(with_body(keyed(2, 1), body.clone())).await.unwrap(), Some(id(1)));
    assert_eq!(queue.put_once(keyed(3, 2)).await.unwrap(), None, "another key");
    assert_eq!(queue.put_once(plain(4, 0)).await.unwrap(), None, "without a key");
    assert_eq!(queue.put_once(plain(5, 0)).await.unwrap(), None, "without a key");
    assert_eq!(harness.statistics().await.waiting, 4);
    let leased = harness.lease("a", after(0), 9).await;
    let mut stored: Vec<_> = leased.iter().map(|leased| leased.accepted.id).collect();
    stored.sort_unstable();
    assert_eq!(stored, [id(1), id(3), id(4), id(5)]);
    let first = leased.iter().find(|leased| leased.accepted.id == id(1)).unwrap();
    assert_eq!(first.accepted.message.body(), &body, "its body is its own");
}

pub(crate) async fn a_key_is_known_after_a_crash_until_its_window_ends(harness: &Harness) {
    harness.queue().await.put_once(keyed(1, 1)).await.unwrap();
    harness.crash().await;
    harness.live(WINDOW - 1);
    assert_eq!(harness.queue().await.put_once(keyed(2, 1)).await.unwrap(), Some(id(1)));
    harness.live(2);
    let queue = harness.queue().await;
    assert_eq!(queue.stored_under(IdempotencyKey([1; 32])).await.unwrap(), None);
    assert_eq!(queue.put_once(keyed(3, 1)).await.unwrap(), None);
    assert_eq!(queue.put_once(keyed(4, 1)).await.unwrap(), Some(id(3)), "a window of its own");
    assert_eq!(harness.statistics().await.waiting, 2);
}

/// Both connections of an application that gave up too early may be open.
pub(crate) async fn of_many_at_once_with_one_key_one_is_stored(harness: &Harness) {
    let mut putting = tokio::task::JoinSet::new();
    for number in 1..=20 {
        let queue = harness.queue().await;
        putting.spawn(async move { (number, queue.put_once(keyed(number, 1)).await.unwrap()) });
    }
    let answers = putting.join_all().await;
    let stored: Vec<_> = answers.iter().filter(|(_, first)| first.is_none()).map(|(number, _)| id(*number)).collect();
    assert_eq!(stored.len(), 1, "{answers:?}");
    assert!(answers.iter().all(|(_, first)| first.is_none_or(|first| first == stored[0])), "{answers:?}");
    assert_eq!(harness.statistics().await.waiting, 1);
}

pub(crate) async fn a_key_is_known_whatever_became_of_its_mail(harness: &Harness) {
    let queue = harness.queue().await;
    for number in 1..=3 {
        queue.put_once(keyed(number, number as u8)).await.unwrap();
    }
    // As direct mode stores what the provider has taken already.
    let taken = InitialState::Delivered(delivered(0));
    let done = mail_with(4, 0, "sender@example.com", &[("you@example.net", taken)]);
    queue.put(NewMail { deduplication: keyed(4, 4).deduplication, ..done }).await.unwrap();
    for (leased, settlement) in
        harness.lease("a", after(0), 2).await.into_iter().zip([Settlement::Delivered(delivered(1)), failed(1)])
    {
        queue.settle(leased.lease, vec![settlement], after(60)).await.unwrap();
    }
    queue.remove(&[id(3)]).await.unwrap();
    queue.prune(Duration::ZERO, Duration::ZERO).await.unwrap();
    drop(queue);
    harness.crash().await;
    for number in 1..=4 {
        let first = harness.queue().await.put_once(keyed(number + 10, number as u8)).await.unwrap();
        assert_eq!(first, Some(id(number)));
    }
    harness.live(WINDOW + 1);
    harness.queue().await.prune(Duration::ZERO, Duration::ZERO).await.unwrap();
    let queue = harness.queue().await;
    assert_eq!(queue.prune(Duration::ZERO, Duration::ZERO).await.unwrap(), 0, "all is forgotten");
    assert_eq!(queue.put_once(keyed(21, 1)).await.unwrap(), None);
}

pub(crate) async fn what_could_not_be_stored_is_not_known(harness: &Harness) {
    let queue = harness.queue().await;
    let mut broken = keyed(1, 1);
    broken.initial_states.clear();
    let (broken, whole) = tokio::join!(queue.put_once(broken), queue.put_once(keyed(2, 2)));
    assert!(broken.is_err() && whole.is_ok());
    assert_eq!(queue.put_once(keyed(3, 1)).await.unwrap(), None);
}
