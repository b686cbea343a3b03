//! Quotas: recorded usage survives a crash, by name, and old rows are deleted.

use super::*;

fn spent(number: i64, seconds: u64, units: u64) -> QuotaRow {
    QuotaRow { number, at: Duration::from_secs(seconds), units }
}

pub(crate) async fn what_is_put_down_of_a_quota_outlives_a_crash(harness: &Harness) {
    let queue = harness.queue().await;
    assert_eq!(queue.spent("a/3600s").await.unwrap(), []);
    queue.spend("a/3600s", vec![spent(1, 36, 10), spent(2, 72, 20)], 1).await.unwrap();
    queue.spend("b/3600s", vec![spent(1, 5, 7)], 0).await.unwrap();
    queue.spend("a/3600s", vec![spent(2, 70, 15), spent(3, 108, u64::from(u32::MAX))], 2).await.unwrap();
    drop(queue);
    harness.crash().await;
    let queue = harness.queue().await;
    let kept = [spent(2, 70, 15), spent(3, 108, u64::from(u32::MAX))];
    assert_eq!(queue.spent("a/3600s").await.unwrap(), kept);
    assert_eq!(queue.spent("b/3600s").await.unwrap(), [spent(1, 5, 7)], "each quota for itself");
    queue.spend("a/3600s", Vec::new(), 4).await.unwrap();
    assert_eq!(queue.spent("a/3600s").await.unwrap(), []);
    queue.close().await;
    assert!(matches!(queue.spend("a/3600s", vec![spent(4, 0, 1)], 0).await, Err(QueueError::Closed)));
}
