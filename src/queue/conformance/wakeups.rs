//! Wake-ups: when a call that can make mail due returns, it has woken the lanes concerned and no others.

use super::*;
use std::future::ready;
use tokio::sync::Notify;

async fn is_woken(wakeup: &Notify) -> bool {
    tokio::select! {
        biased;
        () = wakeup.notified() => true,
        () = ready(()) => false,
    }
}

pub(crate) async fn what_can_make_mail_due_wakes_its_lanes(harness: &Harness) {
    let queue = harness.queue().await;
    let lanes = ["a", "b"].map(|name| queue.wakeups().of(&Lane::new(name)));
    let woken = async || (is_woken(&lanes[0].mail).await, is_woken(&lanes[1].mail).await);
    assert_eq!(woken().await, (false, false));
    let waiting = harness.put(plain(1, 0)).await;
    assert_eq!(woken().await, (true, false), "new mail on one lane");
    let initial_states = [
        ("a@example.net", InitialState::Failed { lane: Lane::new("a"), attempt: attempted(0, "550") }),
        ("b@example.net", InitialState::Deferred { lane: Lane::new("b"), due: after(9), attempt: attempted(0, "451") }),
    ];
    harness.put(mail_with(2, 0, "a@example.com", &initial_states)).await;
    assert_eq!(woken().await, (false, true), "what has failed is not due, what is deferred will be");
    let leased = harness.lease_one("a", after(0)).await;
    harness.settle(&leased, deferred(0), after(30)).await;
    queue.hold(Some(&Lane::new("a")), true).await.expect("held");
    queue.show(waiting).await.expect("shown");
    woken().await;
    queue.hold(Some(&Lane::new("a")), false).await.expect("released");
    assert!(woken().await.0, "a lane that is released");
    queue.retry(&[waiting], None, after(1)).await.expect("retried");
    assert!(woken().await.0, "a retry");
    harness.reassign_lanes("other", Arc::new(|_| Lane::new("b"))).await.expect("moved");
    assert!(woken().await.1, "other routes");
    let stored = queue.stored(waiting).await.expect("read").expect("there");
    let revision = Revision {
        id: waiting,
        replaces: stored.accepted.envelope.recipients.clone(),
        lanes: vec![Lane::new("a")],
        header: stored.accepted.message.header().to_vec(),
        envelope: stored.accepted.envelope,
        marks: Marks::default(),
        original: None,
        subject: String::new(),
    };
    assert!(queue.replace(revision, after(2)).await.expect("replaced"));
    assert!(woken().await.0, "another form");
    for lane in &lanes {
        assert!(!is_woken(&lane.retry).await, "nobody asked for a retry of what a lane waits for");
    }
}
