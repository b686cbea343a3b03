//! Mail that is stored to be delayed or held: it is not leased before it is due or released, whatever happens meanwhile.

use super::*;

const REASON: &str = "why it is not sent yet";

fn waiting(lane: &str) -> InitialState {
    InitialState::Waiting(Lane::new(lane))
}

fn delayed(lane: &str, seconds: i64) -> InitialState {
    InitialState::Delayed { lane: Lane::new(lane), due: after(seconds), reason: REASON.into() }
}

fn held(lane: &str) -> InitialState {
    InitialState::Held { lane: Lane::new(lane), reason: REASON.into() }
}

async fn recipients_of(harness: &Harness, id: MailId) -> Vec<RecipientRow> {
    harness.row(id).await.expect("a row").recipients
}

pub(crate) async fn delayed_mail_is_leased_when_it_is_due_and_not_before(harness: &Harness) {
    let far = 3 * DAY;
    let id = harness.put(mail_with(1, 0, "a@example.com", &[("b@example.net", delayed("a", far))])).await;
    harness.put(mail_with(2, 0, "a@example.com", &[("b@example.net", delayed("a", 10))])).await;
    harness.put(mail_with(3, 0, "a@example.com", &[("b@example.net", delayed("b", 5))])).await;
    for _ in 0..2 {
        assert!(harness.lease("a", after(9), 9).await.is_empty());
        assert_eq!(harness.next_due("a", after(9)).await, Some(after(10)));
        harness.crash().await;
    }
    let leased = harness.lease_one("a", after(10)).await;
    assert_eq!((leased.accepted.id, leased.attempts), (mail(2, 0, "a@example.com", &[], "a").accepted.id, 0));
    harness.settle(&leased, Settlement::Delivered(delivered(10)), after(10)).await;
    assert!(harness.lease("a", after(11), 9).await.is_empty());
    assert_eq!(harness.next_due("a", after(11)).await, Some(after(far)), "however far ahead it is");
    let [row] = recipients_of(harness, id).await.try_into().expect("one recipient");
    assert_eq!((row.lane.as_str(), row.delayed, row.reason.as_deref()), ("a", true, Some(REASON)));
    harness.lease_one("a", after(far)).await;
    harness.check_statistics().await;
}

pub(crate) async fn a_retry_sends_delayed_and_held_mail_at_once(harness: &Harness) {
    let states = [("b@example.net", delayed("a", DAY)), ("c@example.net", held("a")), ("d@example.net", waiting("b"))];
    let id = harness.put(mail_with(1, 0, "a@example.com", &states)).await;
    assert!(harness.lease("a", after(100), 9).await.is_empty());
    let queue = harness.queue().await;
    assert_eq!(queue.retry(&[id], None, after(100)).await.unwrap(), 3);
    let leased = harness.lease_one("a", after(100)).await;
    assert_eq!(leased.accepted.envelope.recipients, [mailbox("b@example.net"), mailbox("c@example.net")]);
    harness.settle(&leased, Settlement::Untried, after(100)).await;
    assert!(recipients_of(harness, id).await.iter().all(|row| !row.delayed && row.reason.is_none()));
    harness.check_statistics().await;
}

pub(crate) async fn held_mail_stays_until_it_is_released_and_holds_no_other_recipient(harness: &Harness) {
    let states = [("b@example.net", held("a")), ("c@example.net", waiting("a"))];
    let id = harness.put(mail_with(1, 0, "a@example.com", &states)).await;
    let other = harness.put(mail_with(2, 0, "a@example.com", &[("b@example.net", held("a"))])).await;
    let first = harness.lease_one("a", after(0)).await;
    assert_eq!(first.accepted.envelope.recipients, [mailbox("c@example.net")]);
    // Released while the other recipient is being sent.
    let queue = harness.queue().await;
    assert_eq!(queue.release(&[id]).await.unwrap(), 1);
    harness.settle(&first, Settlement::Delivered(delivered(0)), after(0)).await;
    let second = harness.lease_one("a", after(0)).await;
    assert_eq!(second.accepted.envelope.recipients, [mailbox("b@example.net")]);
    harness.settle(&second, Settlement::Delivered(delivered(0)), after(0)).await;
    assert!(harness.row(id).await.is_none_or(|row| row.recipients.is_empty()));
    assert_eq!(queue.release(&[id]).await.unwrap(), 0);
    drop(queue);
    harness.crash().await;
    harness.live(10 * DAY);
    assert!(harness.lease("a", after(10 * DAY), 9).await.is_empty());
    let queue = harness.queue().await;
    let (expired, _) = queue.lease_expired(&Lane::new("a"), Duration::from_secs(1), None, 9, u64::MAX).await.unwrap();
    assert!(expired.is_empty(), "it does not fail by its age");
    assert_eq!(queue.release(&[other]).await.unwrap(), 1);
    let released = harness.lease_one("a", after(10 * DAY)).await;
    assert!(released.age < Duration::from_secs(60), "its age begins when it is released");
    harness.check_statistics().await;
}

pub(crate) async fn a_release_touches_no_recipient_that_is_not_held(harness: &Harness) {
    let failed = InitialState::Failed { lane: Lane::new("a"), attempt: attempted(0, "550 no") };
    let states = [("b@example.net", held("a")), ("c@example.net", failed), ("d@example.net", delayed("a", DAY))];
    let id = harness.put(mail_with(1, 0, "a@example.com", &states)).await;
    assert_eq!(harness.queue().await.release(&[id]).await.unwrap(), 1);
    let leased = harness.lease_one("a", after(0)).await;
    assert_eq!(leased.accepted.envelope.recipients, [mailbox("b@example.net")]);
    let states: Vec<_> = recipients_of(harness, id).await.iter().map(|row| (row.state, row.delayed)).collect();
    let expected = [(RecipientState::Leased, false), (RecipientState::Failed, false), (RecipientState::Waiting, true)];
    assert_eq!(states, expected);
    harness.check_statistics().await;
}

pub(crate) async fn new_routes_move_suspended_mail_and_do_not_wake_it(harness: &Harness) {
    let states = [("b@example.net", delayed("a", 10)), ("c@example.net", held("a")), ("d@example.net", waiting("a"))];
    let id = harness.put(mail_with(1, 0, "a@example.com", &states)).await;
    let moved = harness.reassign_lanes("new", Arc::new(|_| Lane::new("z"))).await.unwrap();
    assert_eq!(moved, 3);
    assert!(recipients_of(harness, id).await.iter().all(|row| row.lane == "z"));
    let leased = harness.lease_one("z", after(0)).await;
    assert_eq!(leased.accepted.envelope.recipients, [mailbox("d@example.net")]);
    harness.settle(&leased, Settlement::Delivered(delivered(0)), after(0)).await;
    let leased = harness.lease_one("z", after(10)).await;
    assert_eq!(leased.accepted.envelope.recipients, [mailbox("b@example.net")]);
    harness.settle(&leased, Settlement::Delivered(delivered(10)), after(10)).await;
    harness.queue().await.release(&[id]).await.unwrap();
    harness.lease_one("z", after(10)).await;
    harness.check_statistics().await;
}

pub(crate) async fn held_mail_is_listed_by_its_state_and_a_held_lane_keeps_delayed_mail(harness: &Harness) {
    let plain = harness.put(mail_with(1, 0, "a@example.com", &[("b@example.net", waiting("a"))])).await;
    let on_hold = harness.put(mail_with(2, 1, "a@example.com", &[("b@example.net", held("a"))])).await;
    let later = harness.put(mail_with(3, 2, "a@example.com", &[("b@example.net", delayed("a", 5))])).await;
    let of = |state| Filter { state: Some(state), ..Filter::default() };
    assert_eq!(harness.ids(&of(RecipientState::Held)).await, [on_hold.to_string()]);
    assert_eq!(harness.ids(&of(RecipientState::Waiting)).await, [plain.to_string(), later.to_string()]);
    let on_lane = Filter { upstream: Some("a".into()), ..Filter::default() };
    assert_eq!(harness.ids(&on_lane).await.len(), 3, "a suspension does not change the lane that is shown");
    let queue = harness.queue().await;
    queue.hold(Some(&Lane::new("a")), true).await.unwrap();
    assert!(harness.lease("a", after(10), 9).await.is_empty());
    assert_eq!(harness.next_due("a", after(10)).await, None);
    queue.hold(Some(&Lane::new("a")), false).await.unwrap();
    assert_eq!(harness.lease("a", after(10), 9).await.len(), 2);
    assert_eq!(queue.remove(&[on_hold]).await.unwrap(), 1);
    harness.check_statistics().await;
}
