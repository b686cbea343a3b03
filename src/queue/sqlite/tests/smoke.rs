use crate::message::accepted::Accepted;
use crate::message::{Author, Envelope, MailId, RawMessage};
use crate::queue::sqlite::{Options, SqliteQueue};
use crate::queue::*;
use crate::smtp::*;

#[tokio::test]
async fn smoke() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        |cache| Options { data_dir: folder.path().to_owned(), cache_octets: cache, schedule: Default::default() };
    for cache in [0, 1 << 20] {
        for size in [10, 1_000_000] {
            let queue = SqliteQueue::open(options(cache)).unwrap();
            let now: Timestamp = "2026-11-24T03:00:00Z".parse().unwrap();
            let mut envelope = Envelope::new(ReversePath::Mailbox(Mailbox::parse("a@example.com").unwrap()));
            envelope.add_recipient(Mailbox::parse("b@example.net").unwrap());
            let data = format!("From: <a@example.com>\r\nSubject: x\r\n\r\n{}", "x".repeat(size));
            let message = RawMessage::from_data(data.into()).unwrap();
            let author = Author::of(&message).ok();
            let accepted =
                Arc::new(Accepted { id: MailId::new(now, size as u32), received_at: now, envelope, message, author });
            let lane = Lane::new("default");
            queue
                .put(NewMail {
                    accepted: accepted.clone(),
                    fates: vec![Fate::Waiting(lane.clone())],
                    original: None,
                    subject: "x".into(),
                })
                .await
                .unwrap();
            assert_eq!(queue.next_due(&lane, now).await.unwrap(), Some(now));
            let leased = queue.lease(&lane, now, 10, 1 << 20).await.unwrap();
            assert_eq!(leased.len(), 1);
            assert_eq!(leased[0].accepted.message, accepted.message);
            assert_eq!(leased[0].accepted.envelope, accepted.envelope);
            assert!(!leased[0].suspect);
            drop(queue);
            let queue = SqliteQueue::open(options(cache)).unwrap();
            assert_eq!(queue.statistics().await.unwrap().waiting, 1);
            let leased = queue.lease(&lane, now, 10, 1 << 20).await.unwrap();
            assert!(leased[0].suspect);
            let at = Attempted { at: now, upstream: Some("u".into()), text: "421".into(), possible_duplicate: false };
            let due = now + jiff::SignedDuration::from_secs(30);
            queue.settle(leased[0].lease, vec![Settlement::Deferred(at)], due).await.unwrap();
            assert_eq!(queue.next_due(&lane, now).await.unwrap(), Some(due));
            let leased = queue.lease(&lane, due, 10, 1 << 20).await.unwrap();
            let d = Delivered { at: now, upstream: "u".into(), reply: "250 ok".into(), milliseconds: 3 };
            queue.settle(leased[0].lease, vec![Settlement::Delivered(d)], due).await.unwrap();
            assert_eq!(queue.statistics().await.unwrap(), Statistics::default());
            assert_eq!(queue.show(accepted.id).await.unwrap().unwrap().delivered.len(), 1);
            assert_eq!(std::fs::read_dir(folder.path().join("bodies")).unwrap().count(), 0);
            queue.prune(Timestamp::MAX, Timestamp::MAX).await.unwrap();
            assert!(queue.show(accepted.id).await.unwrap().is_none());
            queue.close().await;
            assert!(matches!(queue.statistics().await, Err(QueueError::Closed)));
        }
    }
}
