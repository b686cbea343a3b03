//! When mail expires, with a simulated machine and a real queue, whatever happens to its clocks.

use super::super::route::{Choice, Route, RouteConditions};
use super::super::testing::{later, mailbox};
use super::*;
use crate::message::accepted::Origin;
use crate::message::{Author, Envelope, MailId, Marks, RawMessage};
use crate::observe::clock::Simulated;
use crate::queue::lifetime::LONGEST_STOP;
use crate::queue::sqlite::{SqliteOptions, SqliteQueue};
use crate::queue::{Lane, NewMail, Operator, Queue};
use crate::smtp::ReversePath;
use jiff::SignedDuration;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::Path;
use tokio::task::JoinSet;

/// A machine with a gateway that tries all due mail without success.
struct World {
    folder: tempfile::TempDir,
    machine: Arc<Mutex<Simulated>>,
    settlement: SettlementPolicy,
    queue: Arc<SqliteQueue>,
    number: u32,
    /// For each waiting message: how long it has waited while a gateway ran, and by how much its age may be
    /// overestimated.
    waiting: HashMap<MailId, Truth>,
    expired: usize,
}

#[derive(Debug, Default, Clone, Copy)]
struct Truth {
    ran: Duration,
    doubt: Duration,
    attempts_since_the_start: u32,
}

fn open(folder: &Path, settlement: &SettlementPolicy) -> Arc<SqliteQueue> {
    let schedule = settlement.schedule;
    let clock = settlement.clock.clone();
    let options = SqliteOptions {
        data_dir: folder.to_owned(),
        cache_octets: 1 << 20,
        min_free_space: 0,
        schedule,
        clock,
        metrics: Default::default(),
    };
    Arc::new(SqliteQueue::open(options).expect("a queue"))
}

impl World {
    fn new(knows_boots: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let wall = "2026-11-24T03:00:00Z".parse().expect("a time");
        let machine = Arc::new(Mutex::new(Simulated::starting(wall, knows_boots)));
        let upstreams = Choice::InOrder(vec![0]);
        let all = Route { name: "all".into(), conditions: RouteConditions::none(), upstreams, retry_refused: false };
        let routes = Arc::new(Routes::new(vec![all], vec!["company".into()]));
        let settlement =
            SettlementPolicy { schedule: Schedule::default(), routes, clock: Clock::Simulated(machine.clone()) };
        let queue = open(folder.path(), &settlement);
        Self { folder, machine, settlement, queue, number: 0, waiting: HashMap::new(), expired: 0 }
    }

    async fn put(&mut self) {
        self.number += 1;
        let now = self.settlement.clock.now();
        let message = RawMessage::from_data("From: a@example.com\r\n\r\nbody\r\n".into()).expect("a message");
        let mut envelope = Envelope::new(ReversePath::Mailbox(mailbox("a@example.com")));
        envelope.add_recipient(mailbox("you@example.net"));
        let author = Author::of(&message).ok();
        let id = MailId::new(now, self.number);
        let origin = Origin::default();
        let marks = Marks::default();
        let accepted = Accepted { id, received_at: now, origin, envelope, message, author, marks };
        let initial_states = self.settlement.waiting_states(&accepted);
        let mail = NewMail {
            accepted: Arc::new(accepted),
            initial_states,
            original: None,
            subject: String::new(),
            deduplication: None,
        };
        self.queue.put(mail).await.expect("stored");
        self.waiting.insert(id, Truth::default());
    }

    /// The gateway runs and tries due mail.
    async fn run(&mut self, time: Duration) {
        self.machine.lock().pass(time);
        self.waiting.values_mut().for_each(|truth| truth.ran += time);
        // As the gateway does every hour; it also stores the clock.
        self.queue.prune(Duration::MAX, Duration::MAX).await.expect("nothing");
        self.try_what_is_due().await;
    }

    async fn try_what_is_due(&mut self) {
        let lane = Lane::new("all");
        let expire = self.settlement.schedule.expire;
        let mut settling = JoinSet::new();
        for leased in self.queue.lease(&lane, self.settlement.clock.now(), 1000, u64::MAX).await.expect("a lease") {
            let id = leased.accepted.id;
            let truth = self.waiting.get_mut(&id).expect("known");
            truth.attempts_since_the_start += 1;
            let attempt = leased.accepted.envelope.recipients.iter();
            let attempt = attempt
                .map(|to| SettledRecipient { recipient: to.clone(), outcome: later(), transaction: None })
                .collect();
            let lease_settlement = self.settlement.settle(&leased, &Attempt::new(attempt));
            if lease_settlement.expired.is_empty() {
                assert!(truth.ran < expire, "it should have expired: {truth:?}");
            } else {
                assert!(truth.ran + truth.doubt >= expire, "expired before its time: {truth:?}");
                assert!(truth.attempts_since_the_start > 0);
                self.waiting.remove(&id);
                self.expired += 1;
            }
            let queue = self.queue.clone();
            settling.spawn(async move {
                queue.settle(leased.lease, lease_settlement.settlements, lease_settlement.due).await
            });
        }
        settling.join_all().await.into_iter().for_each(|settled| settled.expect("settled"));
    }

    /// The process ends, orderly or not, and another one begins.
    async fn restart(&mut self, in_order: bool, stop: Duration, meanwhile: impl FnOnce(&mut Simulated)) {
        if in_order {
            self.queue.close().await;
        } else {
            // Two processes cannot have it open at once.
            let aside = tempfile::tempdir().expect("a folder");
            drop(std::mem::replace(&mut self.queue, open(aside.path(), &self.settlement)));
        }
        let mut machine = self.machine.lock();
        machine.pass(stop);
        meanwhile(&mut machine);
        drop(machine);
        self.queue = open(self.folder.path(), &self.settlement);
        // A crash loses some of the running time, which later runs have to make up for.
        let lost = if in_order { Duration::ZERO } else { Duration::from_secs(10) };
        for truth in self.waiting.values_mut() {
            truth.ran = truth.ran.saturating_sub(lost);
            truth.doubt += LONGEST_STOP.min(self.settlement.schedule.expire / 4).max(stop.min(LONGEST_STOP)) + lost;
            truth.attempts_since_the_start = 0;
        }
    }
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// No mail expires before it has lived for `expire`, each expires soon after, and each has had an attempt since the
/// start.
#[tokio::test]
async fn mail_expires_by_what_it_has_lived_through_whatever_the_clocks_do() {
    for (seed, knows_boots) in [(1, true), (2, false), (3, true)] {
        let mut world = World::new(knows_boots);
        let mut dice = Dice(seed);
        for _ in 0..400 {
            match dice.roll(12) {
                0..2 => world.put().await,
                2..8 => world.run(Duration::from_secs(dice.roll(12 * 3600))).await,
                8..10 => {
                    let hours = dice.roll(20_000).cast_signed() - 10_000;
                    world.machine.lock().jump(SignedDuration::from_hours(hours));
                    world.try_what_is_due().await;
                }
                10 => {
                    let stop = Duration::from_secs(dice.roll(8 * 86_400));
                    let hours = dice.roll(1000).cast_signed() - 500;
                    let in_order = dice.roll(2) == 0;
                    let reboots = dice.roll(2) == 0;
                    let meanwhile = |machine: &mut Simulated| {
                        machine.jump(SignedDuration::from_hours(hours));
                        if reboots {
                            machine.reboot();
                        }
                    };
                    world.restart(in_order, stop, meanwhile).await;
                    world.try_what_is_due().await;
                }
                _ => world.restart(false, Duration::ZERO, |_| {}).await,
            }
        }
        // Whatever the clock says, an attempt comes within the longest wait.
        for _ in 0..40 {
            world.run(Duration::from_secs(4 * 3600)).await;
        }
        assert!(world.waiting.is_empty(), "{:?}", world.waiting);
        assert!(world.expired > 20, "{}", world.expired);
    }
}

/// Every known fault, with each message accepted under one clock and tried under another.
#[tokio::test]
async fn no_pair_of_clocks_expires_fresh_mail() {
    let days = |days: i64| SignedDuration::from_hours(24 * days);
    for knows_boots in [true, false] {
        for accepted in [-2600, 0, 2, 300] {
            for tried in [-2600, 0, 2, 300] {
                let mut world = World::new(knows_boots);
                world.machine.lock().jump(days(accepted));
                world.put().await;
                world.run(Duration::from_secs(12)).await;
                world
                    .restart(true, Duration::ZERO, |machine| {
                        machine.jump(days(tried - accepted));
                        machine.reboot();
                    })
                    .await;
                for _ in 0..22 {
                    world.run(Duration::from_secs(4 * 3600)).await;
                }
                assert_eq!(
                    (world.expired, world.waiting.len()),
                    (0, 1),
                    "accepted at {accepted} days, tried at {tried}"
                );
                for _ in 0..10 {
                    world.run(Duration::from_secs(4 * 3600)).await;
                }
                assert_eq!(world.expired, 1, "in time: accepted at {accepted} days, tried at {tried}");
            }
        }
    }
}
