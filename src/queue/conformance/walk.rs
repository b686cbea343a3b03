//! After any sequence of calls, with crashes in between, the queue contains what the model says.

use super::model::Model;
use super::*;

const LANES: [&str; 3] = ["a", "b", "c"];

const STEPS: u32 = 1500;

/// A small generator (xorshift), so that a failure can be reproduced.
pub(super) struct Dice(pub u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

struct Walk<'a> {
    harness: &'a Harness,
    model: Model,
    dice: Dice,
    out: Vec<Leased>,
    seconds: i64,
    number: u32,
}

pub(crate) async fn a_random_walk_agrees_with_the_model(harness: &Harness) {
    let mut walk = Walk {
        harness,
        model: Model::default(),
        dice: Dice(0x9e37_79b9_7f4a_7c15),
        out: vec![],
        seconds: 0,
        number: 0,
    };
    for step in 0..STEPS {
        walk.seconds += walk.dice.roll(10) as i64;
        walk.step().await;
        if step % 5 == 0 {
            walk.compare(step).await;
        }
    }
    walk.compare(STEPS).await;
    assert!(walk.model.delivered > 100, "the walk went somewhere: {}", walk.model.delivered);
}

impl Walk<'_> {
    fn now(&self) -> Timestamp {
        after(self.seconds)
    }

    async fn step(&mut self) {
        match self.dice.roll(100) {
            0..20 => self.put().await,
            20..50 => self.lease().await,
            50..88 => self.settle().await,
            88..92 => self.retry().await,
            92..94 => self.replace().await,
            94..95 => self.remove().await,
            95..97 => self.reassign_lanes().await,
            _ => self.crash().await,
        }
    }

    async fn put(&mut self) {
        self.number += 1;
        let sender = ["", "a@one.example", "b@two.example", "c@three.example"][self.dice.roll(4)];
        let recipients: Vec<_> =
            (0..=self.dice.roll(4)).map(|at| format!("r{at}@d{}.example", self.dice.roll(9))).collect();
        let initial_states: Vec<_> = recipients
            .iter()
            .map(|recipient| (recipient.as_str(), InitialState::Waiting(Lane::new(LANES[self.dice.roll(3)]))))
            .collect();
        let mut mail = mail_with(self.number, self.seconds, sender, &initial_states);
        if self.dice.roll(20) == 0 {
            mail = with_body(mail, vec![b'x'; 300_000].into());
        }
        self.model.put(&mail);
        self.harness.put(mail).await;
    }

    async fn lease(&mut self) {
        let lane = LANES[self.dice.roll(3)];
        let limit = self.dice.roll(5);
        let now = self.now();
        let expected = self.model.due(lane, now).min(limit);
        let leased = self.harness.lease(lane, now, limit).await;
        assert_eq!(leased.len(), expected, "on {lane}");
        for leased in leased {
            self.model.lease(&leased, now);
            self.out.push(leased);
        }
    }

    async fn settle(&mut self) {
        if self.out.is_empty() {
            return;
        }
        let leased = self.out.swap_remove(self.dice.roll(self.out.len()));
        let at = self.seconds;
        let settlements: Vec<_> = (0..leased.accepted.envelope.recipients.len())
            .map(|_| match self.dice.roll(8) {
                0..4 => Settlement::Delivered(delivered(at)),
                4 => failed(at),
                5 => Settlement::Untried,
                _ => deferred(at),
            })
            .collect();
        let due = after(at + self.dice.roll(60) as i64);
        self.harness.queue().await.settle(leased.lease, settlements.clone(), due).await.expect("settled");
        self.model.settle(&leased, &settlements, due);
    }

    fn some_message(&mut self) -> Option<MailId> {
        let count = self.model.messages.len();
        (count > 0).then(|| self.dice.roll(count)).and_then(|at| self.model.messages.keys().nth(at).copied())
    }

    async fn retry(&mut self) {
        let Some(id) = self.some_message() else { return };
        let expected = self.model.retry(id, self.now());
        let now = self.now();
        assert_eq!(self.harness.queue().await.retry(&[id], None, now).await.expect("retried"), expected);
    }

    async fn replace(&mut self) {
        let Some(id) = self.some_message() else { return };
        let queue = self.harness.queue().await;
        let Some(stored) = queue.stored(id).await.expect("read") else { panic!("{id} is in the queue") };
        let mut envelope = Envelope::new(ReversePath::Mailbox(mailbox("revised@one.example")));
        let known = stored.accepted.envelope.recipients.len();
        (0..=self.dice.roll(known)).for_each(|at| envelope.add_recipient(mailbox(&format!("n{at}@dd.example"))));
        let lanes = envelope.recipients.iter().map(|_| Lane::new(LANES[self.dice.roll(3)])).collect();
        let revision = Revision {
            id,
            replaces: stored.accepted.envelope.recipients,
            envelope,
            lanes,
            header: format!("Subject: revised {}\r\n", self.seconds).into(),
            marks: Marks::default(),
            original: stored.original.or(Some(Bytes::from_static(b"original"))),
            subject: "revised".into(),
        };
        let expected = self.model.replace(&revision, self.now());
        let now = self.now();
        assert_eq!(queue.replace(revision, now).await.expect("replaced"), expected);
    }

    async fn remove(&mut self) {
        let Some(id) = self.some_message() else { return };
        let expected = self.model.remove(id);
        assert_eq!(self.harness.queue().await.remove(&[id]).await.expect("removed"), expected);
    }

    async fn reassign_lanes(&mut self) {
        let shift = self.dice.roll(100);
        let lane =
            move |address: &str| LANES[(address.len() + usize::from(address.as_bytes()[4]) + shift) % 3].to_owned();
        self.model.reassign_lanes(lane);
        let lane_of: LaneOf =
            Arc::new(move |addressed: &Addressed<'_>| Lane::new(lane(&addressed.recipient.to_string())));
        let fingerprint = format!("{shift} {}", self.seconds);
        self.harness.reassign_lanes(&fingerprint, lane_of).await.expect("moved");
    }

    async fn crash(&mut self) {
        self.out.clear();
        self.model.crash();
        self.harness.crash().await;
    }

    async fn compare(&self, step: u32) {
        let rows = self.harness.rows(&Filter::default(), 50).await;
        let rows: Vec<_> = rows
            .into_iter()
            .map(|row| {
                let without_reason = |recipient| RecipientRow { reason: None, instance: None, ..recipient };
                (row.id, row.recipients.into_iter().map(without_reason).collect::<Vec<_>>())
            })
            .collect();
        let expected = self.model.rows();
        for (row, expected) in rows.iter().zip(&expected) {
            assert_eq!(row, expected, "after step {step}");
        }
        assert_eq!(rows.len(), expected.len(), "after step {step}");
        for lane in LANES {
            let due = self.harness.next_due(lane, self.now()).await;
            assert_eq!(due, self.model.next_due(lane), "on {lane} after step {step}");
        }
        self.harness.check_statistics().await;
    }
}
