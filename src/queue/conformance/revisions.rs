//! Replacing a stored message by another form of it: all of it or nothing, and never while the message is being sent.

use super::*;

/// A message as later rules might change it: another sender, header and tag, with its recipients on these lanes.
fn revision(stored: &StoredMail, recipients: &[(&str, &str)]) -> Revision {
    let mut envelope = Envelope::new(ReversePath::Mailbox(mailbox("verified@example.org")));
    recipients.iter().for_each(|(address, _)| envelope.add_recipient(mailbox(address)));
    Revision {
        id: stored.accepted.id,
        replaces: stored.accepted.envelope.recipients.clone(),
        envelope,
        lanes: recipients.iter().map(|(_, lane)| Lane::new(*lane)).collect(),
        header: b"From: <verified@example.org>\r\nSubject: revised\r\n".to_vec(),
        marks: Marks { tag: Mark::new("revised").ok(), ..Marks::default() },
        original: Some(Bytes::from_static(b"what it was")),
        subject: "revised".into(),
    }
}

async fn stored(harness: &Harness, id: MailId) -> StoredMail {
    harness.queue().await.stored(id).await.expect("read").expect("a message")
}

pub(crate) async fn a_stored_message_is_read_with_all_that_is_not_settled(harness: &Harness) {
    let initial_states = [
        ("a@example.net", InitialState::Waiting(Lane::new("a"))),
        ("b@example.net", InitialState::Delivered(delivered(0))),
        ("c@example.net", InitialState::Failed { lane: Lane::new("b"), attempt: attempted(0, "550") }),
    ];
    let mut mail = with_body(mail_with(1, 0, "a@example.com", &initial_states), vec![b'x'; 300_000].into());
    mail.original = Some(vec![b'o'; 300_000].into());
    let mut accepted = (*mail.accepted).clone();
    accepted.marks.tag = Mark::new("report").ok();
    accepted.origin = Origin { listener: Some("127.0.0.1:2525".into()), user: Some("plausible".into()) };
    mail.accepted = Arc::new(accepted);
    let id = harness.put(mail.clone()).await;
    harness.lease_one("a", after(0)).await;
    for _ in 0..2 {
        let found = stored(harness, id).await;
        let addresses: Vec<_> = found.accepted.envelope.recipients.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["a@example.net", "c@example.net"]);
        assert_eq!(found.accepted.message, mail.accepted.message);
        assert_eq!(found.accepted.envelope.sender, mail.accepted.envelope.sender);
        assert_eq!(
            (found.accepted.marks, found.accepted.origin),
            (mail.accepted.marks.clone(), mail.accepted.origin.clone())
        );
        assert_eq!((found.accepted.author, found.original), (mail.accepted.author.clone(), mail.original.clone()));
        harness.crash().await;
    }
    assert!(harness.queue().await.stored(plain(9, 9).accepted.id).await.expect("read").is_none());
}

pub(crate) async fn a_failed_message_is_replaced_and_due_at_once(harness: &Harness) {
    let mut mail =
        with_body(mail(1, 0, "a@example.com", &["a@example.net", "b@example.net"], "a"), vec![b'x'; 300_000].into());
    mail.original = Some(vec![b'o'; 300_000].into());
    let id = harness.put(mail.clone()).await;
    let leased = harness.lease_one("a", after(0)).await;
    let settlements = vec![failed(0), deferred(0)];
    harness.queue().await.settle(leased.lease, settlements, after(5000)).await.expect("settled");
    let to = [("new@example.net", "b"), ("b@example.net", "c")];
    let form = revision(&stored(harness, id).await, &to);
    harness.live(6 * DAY);
    assert!(harness.queue().await.replace(form.clone(), after(6 * DAY)).await.expect("replaced"));
    harness.check_statistics().await;
    assert!(harness.lease("a", after(6 * DAY), 9).await.is_empty());
    for (address, lane) in to {
        let leased = harness.lease_one(lane, after(6 * DAY)).await;
        let accepted = &leased.accepted;
        assert_eq!(accepted.envelope.recipients, [mailbox(address)]);
        assert_eq!(accepted.envelope.sender, form.envelope.sender);
        assert_eq!(
            (accepted.message.header(), accepted.message.body()),
            (&form.header[..], mail.accepted.message.body())
        );
        assert_eq!(
            (&accepted.marks, accepted.author.as_ref().map(ToOwned::to_owned)),
            (&form.marks, Author::of(&accepted.message).ok())
        );
        assert_eq!(
            (leased.attempts, leased.age, leased.possible_duplicate),
            (0, Duration::ZERO, false),
            "a new beginning"
        );
        harness.settle(&leased, deferred(6 * DAY), after(6 * DAY + 1)).await;
    }
    harness.crash().await;
    let found = stored(harness, id).await;
    assert_eq!((found.original, found.accepted.message.header()), (form.original.clone(), &form.header[..]));
    let shown = harness.queue().await.show(id).await.expect("shown").expect("a message");
    assert_eq!((shown.row.subject.as_str(), shown.row.sender.as_str()), ("revised", "verified@example.org"));
    assert_eq!(shown.row.size, found.accepted.message.size() as u64);
    assert_eq!(shown.attempts.len(), 4, "what happened before stays on record");
}

pub(crate) async fn what_is_in_memory_is_replaced_too(harness: &Harness) {
    let id = harness.put(plain(1, 0)).await;
    let mut form = revision(&stored(harness, id).await, &[("you@example.net", "a")]);
    form.original = None;
    assert!(harness.queue().await.replace(form.clone(), after(0)).await.expect("replaced"));
    let leased = harness.lease_one("a", after(0)).await;
    assert_eq!(leased.accepted.message.header(), form.header);
    assert_eq!((&leased.accepted.marks, &leased.accepted.envelope), (&form.marks, &form.envelope));
    assert!(stored(harness, id).await.original.is_none());
}

pub(crate) async fn nothing_is_replaced_that_changed_meanwhile(harness: &Harness) {
    let queue = harness.queue().await;
    let id = harness.put(mail(1, 0, "a@example.com", &["a@example.net", "b@example.net"], "a")).await;
    let form = revision(&stored(harness, id).await, &[("new@example.net", "b")]);
    let leased = harness.lease_one("a", after(0)).await;
    assert!(!queue.replace(form.clone(), after(0)).await.expect("asked"), "it is being sent");
    let settlements = vec![
        Settlement::Delivered(delivered(0)),
        Settlement::Deferred(Attempted { possible_duplicate: true, ..attempted(0, "451") }),
    ];
    queue.settle(leased.lease, settlements, after(0)).await.expect("settled");
    assert!(!queue.replace(form.clone(), after(0)).await.expect("asked"), "one of them has it");
    assert_eq!(harness.states(id).await, [("b@example.net".to_owned(), RecipientState::Waiting)]);
    harness.check_statistics().await;
    let form = revision(&stored(harness, id).await, &[("b@example.net", "b")]);
    for broken in [
        Revision { lanes: vec![], ..form.clone() },
        Revision { envelope: Envelope::new(ReversePath::Null), lanes: vec![], ..form.clone() },
    ] {
        queue.replace(broken, after(0)).await.expect_err("a message needs recipients and lanes");
        assert_eq!(
            stored(harness, id).await.accepted.envelope.recipients,
            [mailbox("b@example.net")],
            "all or nothing"
        );
    }
    harness.check_statistics().await;
    assert!(queue.replace(form.clone(), after(0)).await.expect("replaced"));
    assert!(harness.lease_one("b", after(0)).await.possible_duplicate, "the provider may have the other form");
    queue.remove(&[id]).await.expect("asked");
    let gone = Revision { id: plain(9, 9).accepted.id, ..form };
    assert!(!queue.replace(gone, after(0)).await.expect("asked"));
}
