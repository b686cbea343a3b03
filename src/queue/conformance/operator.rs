//! What an operator sees and does: lists, one message in full, retry, remove, history.

use super::*;

pub(crate) async fn pages_hold_everything_once(harness: &Harness) {
    let queue = harness.queue().await;
    assert_eq!(queue.list(&Filter::default(), None, 10).await.unwrap(), Page { rows: vec![], next: None });
    let mut ids = Vec::new();
    for number in 0..25 {
        ids.push(harness.put(plain(number, i64::from(number))).await.to_string());
    }
    for limit in [1, 7, 25, 26, 1000] {
        let found: Vec<_> = harness.rows(&Filter::default(), limit).await.into_iter().map(|row| row.id).collect();
        assert_eq!(found, ids, "oldest first, by {limit}");
    }
    let page = queue.list(&Filter::default(), None, 25).await.unwrap();
    assert_eq!((page.rows.len(), page.next), (25, None), "a last page says that it is the last");
    let page = queue.list(&Filter::default(), None, 10).await.unwrap();
    queue.remove(&[page.rows[9].id.parse().unwrap(), ids[10].parse().unwrap()]).await.unwrap();
    harness.put(plain(99, 99)).await;
    let next = queue.list(&Filter::default(), page.next, 10).await.unwrap();
    assert_eq!(next.rows[0].id, ids[11], "a cursor outlives its row");
    let row = &next.rows[0];
    assert_eq!(
        (row.sender.as_str(), row.subject.as_str(), row.received_at),
        ("sender@example.com", "mail 11", after(11))
    );
    assert_eq!(row.size, plain(11, 0).accepted.message.size() as u64);
}

pub(crate) async fn filters_find_what_they_name(harness: &Harness) {
    let mut named = mail(1, 1, "a@example.com", &["Alice@example.net"], "a");
    Arc::make_mut(&mut named.accepted).message = with_message_id("<one@example.com>");
    let waiting = harness.put(named).await;
    let leased = harness.put(mail(2, 2, "a@example.com", &["bob@example.net"], "b")).await;
    let initial_states = [
        ("carol@example.org", InitialState::Failed { lane: Lane::new("a"), attempt: attempted(3, "550") }),
        ("bob@example.net", InitialState::Waiting(Lane::new("c"))),
    ];
    let mixed = harness.put(mail_with(3, 3, "", &initial_states)).await;
    harness.lease_one("b", after(3)).await;
    let all = Filter::default();
    let state = |state| Filter { state: Some(state), ..Filter::default() };
    let recipient = |part: &str| Filter { recipient: Some(part.into()), ..Filter::default() };
    let upstream = |name: &str| Filter { upstream: Some(name.into()), ..Filter::default() };
    let message_id = |text: &str| Filter { message_id: Some(text.into()), ..Filter::default() };
    let table: Vec<(Filter, Vec<MailId>)> = vec![
        (message_id("<one@example.com>"), vec![waiting]),
        (message_id("one@example.com"), vec![waiting]),
        (message_id("one@example"), vec![]),
        (message_id("%"), vec![]),
        (Filter { message_id: Some("one@example.com".into()), ..state(RecipientState::Failed) }, vec![]),
        (Filter { message_id: Some("one@example.com".into()), ..recipient("alice") }, vec![waiting]),
        (all.clone(), vec![waiting, leased, mixed]),
        (state(RecipientState::Waiting), vec![waiting, mixed]),
        (state(RecipientState::Leased), vec![leased]),
        (state(RecipientState::Failed), vec![mixed]),
        (state(RecipientState::Damaged), vec![]),
        (recipient("alice@"), vec![waiting]),
        (recipient("bob"), vec![leased, mixed]),
        (recipient("%"), vec![]),
        (recipient("nobody"), vec![]),
        (upstream("a"), vec![waiting, mixed]),
        (upstream("company"), vec![mixed]),
        (Filter { received_before: Some(after(2)), ..all.clone() }, vec![waiting]),
        (Filter { received_before: Some(after(3)), state: Some(RecipientState::Leased), ..all.clone() }, vec![leased]),
        (Filter { recipient: Some("bob".into()), ..state(RecipientState::Failed) }, vec![]),
        (Filter { recipient: Some("bob".into()), ..upstream("company") }, vec![]),
        (Filter { recipient: Some("bob".into()), ..upstream("c") }, vec![mixed]),
    ];
    let queue = harness.queue().await;
    for (lane, later_than, most, expected) in [
        ("a", None, 10, 1),
        ("a", None, 0, 0),
        ("a", Some(0), 10, 1),
        ("a", Some(5), 10, 0),
        ("b", None, 10, 0),
        ("c", None, 10, 1),
        ("nowhere", None, 10, 0),
    ] {
        let counted = queue.count_waiting(&Lane::new(lane), later_than.map(after), most).await.unwrap();
        assert_eq!(counted, expected, "{lane} after {later_than:?}, at most {most}");
    }
    for (filter, expected) in table {
        let expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
        assert_eq!(harness.ids(&filter).await, expected, "{filter:?}");
    }
}

pub(crate) fn with_message_id(message_id: &str) -> RawMessage {
    let text = format!("Message-ID: {message_id}\r\nFrom: <a@example.com>\r\n\r\nHello.\r\n");
    RawMessage::from_data(text.into()).expect("a message")
}

pub(crate) async fn a_message_is_shown_with_all_that_happened(harness: &Harness) {
    let mut mail = mail(1, 0, "a@example.com", &["a@example.net", "b@example.net"], "a");
    mail.original = Some(Bytes::from_static(b"From: x\r\n\r\noriginal"));
    let id = harness.put(mail.clone()).await;
    for at in 0..150 {
        let leased = harness.lease_one("a", after(at)).await;
        let text = format!("451 attempt {at}");
        harness.settle(&leased, Settlement::Deferred(attempted(at, &text)), after(at + 1)).await;
    }
    let shown = harness.queue().await.show(id).await.unwrap().unwrap();
    assert_eq!(shown.header.as_bytes(), mail.accepted.message.header());
    assert!(shown.has_original);
    let texts: Vec<_> = shown.attempts.iter().map(|attempt| attempt.text.as_str()).collect();
    assert!(texts.len() >= 50 && texts.len() <= 150, "bounded: {}", texts.len());
    assert_eq!(texts.last(), Some(&"451 attempt 149"), "one entry for both recipients, oldest first");
    assert!(shown.attempts.is_sorted_by_key(|attempt| attempt.at));
    assert_eq!(shown.row.recipients[1].reason.as_deref(), Some("451 attempt 149"));
    assert_eq!(shown.row.recipients[1].attempts, 150);
    let leased = harness.lease_one("a", after(200)).await;
    harness.settle(&leased, Settlement::Delivered(delivered(200)), after(200)).await;
    let shown = harness.queue().await.show(id).await.unwrap().unwrap();
    assert_eq!(shown.row.recipients, [], "of what is done, history is left");
    assert_eq!((shown.row.subject.as_str(), shown.row.sender.as_str()), ("mail 1", "a@example.com"));
    assert_eq!(shown.row.size, mail.accepted.message.size() as u64);
    assert_eq!(shown.delivered[0].recipients, ["a@example.net", "b@example.net"]);
    assert!(harness.queue().await.show(plain(9, 9).accepted.id).await.unwrap().is_none());
}

pub(crate) async fn a_failed_message_is_tried_again_from_a_new_beginning(harness: &Harness) {
    let queue = harness.queue().await;
    let id = harness.put(mail(1, 0, "a@example.com", &["a@example.net", "b@example.net"], "a")).await;
    let leased = harness.lease_one("a", after(0)).await;
    queue.settle(leased.lease, vec![failed(0), deferred(0)], after(30)).await.unwrap();
    let unknown = plain(9, 9).accepted.id;
    harness.live(6 * DAY);
    assert_eq!(queue.retry(&[unknown, id], None, after(6 * DAY)).await.unwrap(), 2);
    harness.check_statistics().await;
    drop(queue);
    harness.crash().await;
    let leased = harness.lease_one("a", after(6 * DAY)).await;
    assert_eq!(leased.age, Duration::ZERO, "it must not expire at once");
    assert_eq!((leased.accepted.received_at, leased.accepted.envelope.recipients.len()), (after(0), 2));
    harness.settle(&leased, deferred(6 * DAY), after(7 * DAY)).await;
    assert_eq!(harness.queue().await.retry(&[id], None, after(6 * DAY + 1)).await.unwrap(), 2);
    let leased = harness.lease_one("a", after(6 * DAY + 1)).await;
    assert_eq!(harness.queue().await.retry(&[id], None, after(6 * DAY + 2)).await.unwrap(), 0, "it is being tried");
    harness.settle(&leased, Settlement::Delivered(delivered(0)), after(0)).await;
    assert_eq!(harness.queue().await.retry(&[id], None, after(6 * DAY + 2)).await.unwrap(), 0);
}

/// The provider may have the message: the answer was lost, and then the message expired.
pub(crate) async fn a_failure_with_a_lost_answer_makes_a_retry_suspect(harness: &Harness) {
    let queue = harness.queue().await;
    let lost = Attempted { possible_duplicate: true, ..attempted(0, "final dot: timed out") };
    let lane = || Lane::new("a");
    let id = harness.put(mail(1, 0, "a@example.com", &["a@example.net"], "a")).await;
    let leased = harness.lease_one("a", after(0)).await;
    harness.settle(&leased, Settlement::Failed(lost.clone()), after(0)).await;
    let of_direct_mode = InitialState::Failed { lane: lane(), attempt: lost };
    let other = harness.put(mail_with(2, 0, "b@example.com", &[("b@example.net", of_direct_mode)])).await;
    let refused = InitialState::Failed { lane: lane(), attempt: attempted(0, "550") };
    let third = harness.put(mail_with(3, 0, "c@example.com", &[("c@example.net", refused)])).await;
    assert_eq!(queue.retry(&[id, third], None, after(1)).await.unwrap(), 2);
    let stored = queue.stored(other).await.unwrap().unwrap();
    let revision = Revision {
        id: other,
        replaces: stored.accepted.envelope.recipients.clone(),
        envelope: stored.accepted.envelope,
        lanes: vec![lane()],
        header: b"Subject: revised\r\n".to_vec(),
        marks: Marks::default(),
        original: None,
        subject: "revised".into(),
    };
    assert!(queue.replace(revision, after(1)).await.unwrap());
    for leased in harness.lease("a", after(1), 3).await {
        assert_eq!(leased.possible_duplicate, leased.accepted.id != third, "{:?}", leased.accepted.envelope.recipients);
        harness.settle(&leased, failed(2), after(2)).await;
    }
    assert_eq!(queue.retry(&[id, other, third], None, after(3)).await.unwrap(), 3);
    let leased = harness.lease("a", after(3), 3).await;
    assert!(leased.len() == 3 && leased.iter().all(|leased| !leased.possible_duplicate), "an answer ends the doubt");
}

/// The answer for the message's other recipients said nothing about the one that joined them.
pub(crate) async fn a_retry_that_joins_a_lease_keeps_its_doubt(harness: &Harness) {
    let queue = harness.queue().await;
    let id = harness.put(mail(1, 0, "a@example.com", &["a@example.net", "b@example.net"], "a")).await;
    let lost = Attempted { possible_duplicate: true, ..attempted(0, "final dot: timed out") };
    let leased = harness.lease_one("a", after(0)).await;
    queue.settle(leased.lease, vec![deferred(0), Settlement::Failed(lost)], after(30)).await.unwrap();
    let leased = harness.lease_one("a", after(30)).await;
    assert_eq!(queue.retry(&[id], None, after(31)).await.unwrap(), 1);
    harness.settle(&leased, Settlement::Delivered(delivered(32)), after(32)).await;
    let leased = harness.lease_one("a", after(32)).await;
    assert_eq!(leased.accepted.envelope.recipients, [mailbox("b@example.net")]);
    assert!(leased.possible_duplicate, "the provider may have it");
    harness.settle(&leased, deferred(33), after(60)).await;
    assert!(!harness.lease_one("a", after(60)).await.possible_duplicate, "an answer ends the doubt");
}

pub(crate) async fn a_message_goes_to_a_corrected_address(harness: &Harness) {
    let queue = harness.queue().await;
    let id = harness.put(mail(1, 0, "a@example.com", &["yuo@example.net", "ok@example.net"], "a")).await;
    let two = mailbox("jürgen@example.net");
    let corrected = |to: &Mailbox| Correction { to: to.clone(), lane_of: None };
    assert_eq!(queue.retry(&[id], Some(&corrected(&two)), after(1)).await.unwrap(), 0, "which of the two?");
    let leased = harness.lease_one("a", after(1)).await;
    queue.settle(leased.lease, vec![failed(1), Settlement::Delivered(delivered(1))], after(1)).await.unwrap();
    assert_eq!(queue.retry(&[id], Some(&corrected(&two)), after(2)).await.unwrap(), 1);
    let leased = harness.lease_one("a", after(2)).await;
    assert_eq!(leased.accepted.envelope.recipients, [two]);
    assert!(leased.accepted.envelope.smtputf8, "the new address needs it");
    let other = corrected(&mailbox("x@example.net"));
    assert_eq!(queue.retry(&[id], Some(&other), after(2)).await.unwrap(), 0, "it is being tried");
    harness.settle(&leased, Settlement::Delivered(delivered(2)), after(2)).await;
    let delivered = queue.show(id).await.unwrap().unwrap().delivered;
    assert_eq!(delivered.last().unwrap().recipients, ["jürgen@example.net"]);
}

/// The old address's lane may be held, or have a long backlog.
pub(crate) async fn a_corrected_address_waits_on_its_own_lane(harness: &Harness) {
    let queue = harness.queue().await;
    let lane_of: LaneOf = Arc::new(|addressed: &Addressed<'_>| Lane::new(addressed.recipient.domain().as_str()));
    let correction = Correction { to: mailbox("you@example.org"), lane_of: Some(lane_of.clone()) };
    let failed = InitialState::Failed { lane: Lane::new("example.net"), attempt: attempted(0, "550") };
    let failed = harness.put(mail_with(1, 0, "a@example.com", &[("you@example.net", failed)])).await;
    let waiting = harness.put(mail(2, 1, "a@example.com", &["you@example.net"], "example.net")).await;
    queue.hold(Some(&Lane::new("example.net")), true).await.unwrap();
    for id in [failed, waiting] {
        assert_eq!(queue.retry(&[id], Some(&correction), after(2)).await.unwrap(), 1);
        harness.check_statistics().await;
        let leased = harness.lease_one("example.org", after(2)).await;
        assert_eq!((leased.accepted.id, &leased.accepted.envelope.recipients), (id, &vec![correction.to.clone()]));
    }
    harness.reassign_lanes("known", lane_of.clone()).await.unwrap();
    let id = harness.put(mail(3, 2, "a@example.com", &["they@example.net"], "example.net")).await;
    let unknown = Correction { lane_of: None, ..correction };
    assert_eq!(queue.retry(&[id], Some(&unknown), after(3)).await.unwrap(), 1);
    assert_eq!(
        harness.reassign_lanes("known", lane_of).await.unwrap(),
        1,
        "without known routes it is left to the next start"
    );
}

pub(crate) async fn a_retry_of_waiting_mail_restarts_its_age(harness: &Harness) {
    let queue = harness.queue().await;
    let id = harness.put(plain(1, 0)).await;
    harness.live(6 * DAY);
    assert_eq!(queue.retry(&[id], None, after(6 * DAY)).await.unwrap(), 1);
    drop(queue);
    harness.crash().await;
    let leased = harness.lease_one("a", after(6 * DAY)).await;
    assert_eq!(leased.age, Duration::ZERO, "it must not expire at once");
    assert_eq!(harness.queue().await.retry(&[id], None, after(7 * DAY)).await.unwrap(), 0, "it is being tried");
    harness.settle(&leased, deferred(6 * DAY), after(7 * DAY)).await;
    harness.live(DAY);
    assert_eq!(harness.lease_one("a", after(7 * DAY)).await.age, Duration::from_secs(DAY as u64));
}

pub(crate) async fn a_retry_during_a_lease_is_not_lost(harness: &Harness) {
    let queue = harness.queue().await;
    let id = harness.put(mail(1, 0, "a@example.com", &["a@example.net", "b@example.net"], "a")).await;
    let leased = harness.lease_one("a", after(0)).await;
    queue.settle(leased.lease, vec![failed(0), deferred(0)], after(30)).await.unwrap();
    for ending in [deferred(30), Settlement::Delivered(delivered(60))] {
        let leased = harness.lease_one("a", after(60)).await;
        assert_eq!(queue.retry(&[id], None, after(31)).await.unwrap(), 1, "the one that failed");
        harness.check_statistics().await;
        harness.settle(&leased, ending, after(5000)).await;
        harness.check_statistics().await;
        let mine = harness.lease_one("a", after(60)).await;
        let retried: Vec<_> = mine.accepted.envelope.recipients.iter().map(ToString::to_string).collect();
        assert!(retried.contains(&"a@example.net".to_owned()), "{retried:?}");
        let settlements =
            retried.iter().map(|to| if to.starts_with('a') { failed(60) } else { Settlement::Untried }).collect();
        queue.settle(mine.lease, settlements, after(60)).await.unwrap();
    }
    assert_eq!(harness.states(id).await, [("a@example.net".to_owned(), RecipientState::Failed)]);
}

pub(crate) async fn what_is_removed_is_gone_and_what_is_leased_stays(harness: &Harness) {
    let queue = harness.queue().await;
    let mut ids = Vec::new();
    for number in 0..450 {
        ids.push(harness.put(plain(number, 0)).await);
    }
    let leased = harness.lease_one("a", after(0)).await;
    assert_eq!(queue.remove(&ids).await.unwrap(), 449);
    assert_eq!(queue.remove(&ids).await.unwrap(), 0);
    assert!(harness.row(ids[449]).await.is_none());
    assert!(queue.content(ids[449]).await.unwrap().is_none());
    assert_eq!(harness.statistics().await, Statistics { leased: 1, ..Statistics::default() });
    harness.settle(&leased, failed(0), after(0)).await;
    assert_eq!(queue.remove(&ids).await.unwrap(), 1);
    assert_eq!(harness.statistics().await, Statistics::default());
    assert!(harness.lease("a", after(0), 10).await.is_empty());
}

pub(crate) async fn history_is_paged_newest_first(harness: &Harness) {
    for number in 0..25 {
        let mut mail = plain(number, i64::from(number));
        Arc::make_mut(&mut mail.accepted).message = with_message_id(&format!("<{number}@example.com>"));
        harness.put(mail).await;
        let leased = harness.lease_one("a", after(100)).await;
        harness.settle(&leased, Settlement::Delivered(delivered(100 + i64::from(number))), after(0)).await;
    }
    harness.crash().await;
    let queue = harness.queue().await;
    let mut before = None;
    let mut subjects = Vec::new();
    loop {
        let rows = queue.history(before, 10).await.unwrap();
        let Some(last) = rows.last() else { break };
        before = Some(last.cursor);
        subjects.extend(rows.into_iter().map(|row| row.subject));
    }
    let expected: Vec<_> = (0..25).rev().map(|number| format!("mail {number}")).collect();
    assert_eq!(subjects, expected);
    let newest = queue.history(None, 1).await.unwrap().remove(0);
    assert_eq!(newest.message_id.as_deref(), Some("<24@example.com>"));
    assert_eq!((newest.delivery, newest.received_at), (delivered(124), after(24)));
    assert_eq!(
        (newest.sender.as_str(), &newest.recipients[..]),
        ("sender@example.com", &["you@example.net".to_owned()][..])
    );
}

pub(crate) async fn old_failures_and_history_are_forgotten(harness: &Harness) {
    let queue = harness.queue().await;
    let mut ids = Vec::new();
    for number in 0..700 {
        ids.push(harness.put(plain(number, 0)).await);
        let leased = harness.lease_one("a", after(0)).await;
        let at = i64::from(number / 2);
        harness.live(i64::from(number > 0 && number % 2 == 0));
        let ending = if number % 2 == 0 { failed(at) } else { Settlement::Delivered(delivered(at)) };
        harness.settle(&leased, ending, after(at)).await;
    }
    let waiting = harness.put(plain(1000, -100)).await;
    // The last two ended 349 seconds after the first.
    let age_of = |at: u64| Duration::from_secs(349 - at);
    assert_eq!(queue.prune(Duration::from_secs(350), Duration::from_secs(350)).await.unwrap(), 0);
    assert_eq!(queue.prune(age_of(299), age_of(199)).await.unwrap(), 300 + 200);
    assert_eq!(queue.history(None, 1000).await.unwrap().len(), 150);
    assert_eq!(harness.statistics().await, Statistics { waiting: 1, failed: 50, ..Statistics::default() });
    assert!(queue.content(ids[0]).await.unwrap().is_none());
    assert_eq!(queue.prune(Duration::ZERO, Duration::ZERO).await.unwrap(), 200);
    assert!(harness.row(waiting).await.is_some(), "what waits is never forgotten");
    harness.check_statistics().await;
}
