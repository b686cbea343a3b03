//! The failure of one call, or the end of its caller, must not affect the others.

use super::*;
use std::panic::panic_any;

/// One of a group that shares a commit.
pub(crate) async fn one_that_fails_takes_nobody_with_it(harness: &Harness) {
    let queue = harness.queue().await;
    let first = plain(1, 0);
    let mut broken = plain(2, 0);
    let last = plain(3, 0);
    broken.initial_states.clear();
    let (first, broken, last) = tokio::join!(queue.put(first), queue.put(broken), queue.put(last));
    assert!(first.is_ok() && broken.is_err() && last.is_ok());
    assert_eq!(harness.statistics().await.waiting, 2);
}

/// The panic ended the writer thread: no mail was accepted or leased any more, but the gateway kept running.
pub(crate) async fn a_panic_in_one_operation_is_its_own_failure(harness: &Harness) {
    harness.put(plain(1, 0)).await;
    let queue = harness.queue().await;
    let moving = harness.reassign_lanes("new", Arc::new(|_| panic_any("scripted")));
    let (moved, put) = tokio::join!(moving, queue.put(plain(2, 0)));
    assert!(matches!(moved, Err(QueueError::Storage(_))), "{moved:?}");
    put.unwrap();
    let leased = harness.lease("a", after(0), 9).await;
    assert_eq!(leased.len(), 2, "nothing of it was done, and all goes on");
    harness.put(plain(3, 0)).await;
    let moved = harness.reassign_lanes("new", Arc::new(|_| Lane::new("b"))).await;
    assert_eq!(moved.unwrap(), 1, "it is not taken for done");
}

/// Ids are random: one that is already in use must not cost anyone mail.
pub(crate) async fn a_name_that_is_taken_is_refused_and_its_owner_is_unharmed(harness: &Harness) {
    for (number, size) in [(1, 300_000), (2, 100)] {
        let of_size = |size| with_body(plain(number, 0), vec![b'x'; size].into());
        let first = of_size(size);
        harness.put(first.clone()).await;
        harness.queue().await.put(of_size(size + 1)).await.unwrap_err();
        let leased = harness.lease("a", after(100), 2).await;
        assert_eq!(leased.len(), 1, "{size} octets of a body");
        assert!(leased[0].accepted.message == first.accepted.message, "{size} octets of a body");
    }
    harness.check_statistics().await;
}

/// Its mail would wait for the next start.
pub(crate) async fn a_lease_whose_caller_is_gone_goes_back(harness: &Harness) {
    let queue = harness.queue().await;
    let lane = Lane::new("a");
    harness.put(plain(1, 0)).await;
    for _ in 0..10 {
        // Requested and dropped at once.
        let asked = tokio::time::timeout(Duration::ZERO, queue.lease(&lane, after(0), 1, u64::MAX)).await;
        for leased in asked.ok().into_iter().flat_map(|leased| leased.expect("a lease")) {
            harness.settle(&leased, Settlement::Untried, after(0)).await;
        }
    }
    let mut found = Vec::new();
    for _ in 0..1000 {
        found = harness.lease("a", after(0), 1).await;
        if !found.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let [leased] = found.as_slice() else { panic!("it is still leased") };
    assert_eq!((leased.attempts, leased.possible_duplicate), (0, false), "as if it had not been leased");
}
