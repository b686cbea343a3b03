//! For tests of the queue's loop: an in-memory queue and a fake delivery that follows a script.

use super::bounce::{Bounce, Bouncer};
use super::dispatch::{Deliver, DeliveryPlan, Dispatcher};
use super::lane_state::LaneLimits;
use super::route::{Choice, Route, RouteConditions, Routes};
use super::settle::SettlementPolicy;
use super::settled::{Attempt, SettledRecipient};
use crate::message::accepted::{Accepted, Origin};
use crate::message::outcome::{Cause, Signal, Unavailable};
use crate::message::{Author, Envelope, MailId, Marks, Outcome, RawMessage, Reason, RelayStep, SenderPatterns};
use crate::observe::metrics::DeliveryMetrics;
use crate::observe::{Clock, jitter};
use crate::queue::schedule::Schedule;
use crate::queue::{
    Cursor, Handoffs, IdempotencyKey, InitialState, Lane, LaneOf, LeaseId, Leased, NewMail, Queue, QueueError,
    Reassigned, Settlement, Wakeups,
};
use crate::relay::Capacity;
use crate::relay::breaker::{Admission, Breaker};
use crate::smtp::{EnhancedCode, Mailbox, Reply, ReversePath};
use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// One message on one lane.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub lane: Lane,
    pub accepted: Arc<Accepted>,
    pub put: Instant,
    pub due: Timestamp,
    pub attempts: u32,
    pub lease: Option<i64>,
}

#[derive(Debug, Default)]
pub(super) struct FakeQueue {
    inner: Mutex<Inner>,
    wakeups: Wakeups,
    handoffs: Handoffs,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub waiting: Vec<Entry>,
    /// All settlements, in order.
    pub settled: Vec<(MailId, Vec<Settlement>)>,
    /// Number of settlements that fail before one succeeds.
    pub failing_settles: usize,
    /// What a lease on lane "one" returns instead.
    pub fault: Option<Fault>,
    next_lease: i64,
}

impl FakeQueue {
    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    pub fn settled(&self) -> usize {
        self.inner().settled.len()
    }

    /// Number of recipients with such a settlement.
    pub fn count(&self, wanted: impl Fn(&Settlement) -> bool) -> usize {
        self.inner().settled.iter().flat_map(|(_, settlements)| settlements).filter(|one| wanted(one)).count()
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    Panic,
    Closed,
}

impl Inner {
    fn lease(&mut self, wanted: impl Fn(&Entry) -> bool, limit: usize, octets: u64) -> Vec<Leased> {
        let mut leased = Vec::new();
        let mut total = 0;
        for entry in self.waiting.iter_mut().filter(|entry| entry.lease.is_none() && wanted(entry)) {
            if leased.len() == limit || (total >= octets && !leased.is_empty()) {
                break;
            }
            total += entry.accepted.message.size() as u64;
            self.next_lease += 1;
            entry.lease = Some(self.next_lease);
            leased.push(Leased {
                lease: LeaseId(self.next_lease),
                lane: entry.lane.clone(),
                accepted: entry.accepted.clone(),
                attempts: entry.attempts,
                age: entry.put.elapsed(),
                possible_duplicate: false,
            });
        }
        leased
    }
}

#[async_trait]
impl Queue for FakeQueue {
    async fn put(&self, mail: NewMail) -> Result<(), QueueError> {
        let woken = mail.waiting_lanes();
        let mut lanes: Vec<(Lane, Vec<Mailbox>)> = Vec::new();
        for (initial_state, recipient) in mail.initial_states.iter().zip(&mail.accepted.envelope.recipients) {
            let InitialState::Waiting(lane) = initial_state else { panic!("only waiting mail is put here") };
            match lanes.iter_mut().find(|(known, _)| known == lane) {
                Some((_, recipients)) => recipients.push(recipient.clone()),
                None => lanes.push((lane.clone(), vec![recipient.clone()])),
            }
        }
        for (lane, recipients) in lanes {
            let mut accepted = Accepted::clone(&mail.accepted);
            accepted.envelope.recipients = recipients;
            let accepted = Arc::new(accepted);
            let put = Instant::now();
            let due = Timestamp::UNIX_EPOCH;
            self.inner().waiting.push(Entry { lane, accepted, put, due, attempts: 0, lease: None });
        }
        self.wakeups.wake(&woken);
        Ok(())
    }

    async fn put_once(&self, mail: NewMail) -> Result<Option<MailId>, QueueError> {
        self.put(mail).await.map(|()| None)
    }

    async fn stored_under(&self, _: IdempotencyKey) -> Result<Option<MailId>, QueueError> {
        Ok(None)
    }

    async fn lease(&self, lane: &Lane, now: Timestamp, limit: usize, octets: u64) -> Result<Vec<Leased>, QueueError> {
        let fault = self.inner().fault.filter(|_| lane.as_str() == "one");
        match fault {
            Some(Fault::Panic) => panic!("scripted"),
            Some(Fault::Closed) => Err(QueueError::Closed),
            None => Ok(self.inner().lease(|entry| entry.lane == *lane && entry.due <= now, limit, octets)),
        }
    }

    /// Settled messages are removed, so that each run starts at the beginning.
    async fn lease_expired(
        &self,
        lane: &Lane,
        age: Duration,
        _: Option<Cursor>,
        limit: usize,
        octets: u64,
    ) -> Result<(Vec<Leased>, Option<Cursor>), QueueError> {
        let is_old = |entry: &Entry| entry.lane == *lane && entry.put.elapsed() >= age;
        let leased = self.inner().lease(is_old, limit, octets);
        let next = (leased.len() == limit).then_some(Cursor(0));
        Ok((leased, next))
    }

    async fn settle(&self, lease: LeaseId, settlements: Vec<Settlement>, due: Timestamp) -> Result<(), QueueError> {
        let mut inner = self.inner();
        if inner.failing_settles > 0 {
            inner.failing_settles -= 1;
            return Err(QueueError::Storage("scripted".to_owned()));
        }
        let at = inner.waiting.iter().position(|entry| entry.lease == Some(lease.0)).ok_or(QueueError::NoSuchLease)?;
        let mut entry = inner.waiting.remove(at);
        assert_eq!(settlements.len(), entry.accepted.envelope.recipients.len());
        let mut accepted = Accepted::clone(&entry.accepted);
        let mut stays = settlements
            .iter()
            .map(|s| matches!(s, Settlement::Deferred(_) | Settlement::Untried | Settlement::Postponed));
        accepted.envelope.recipients.retain(|_| stays.next().unwrap_or_default());
        let is_tried = |settlement: &Settlement| !matches!(settlement, Settlement::Untried | Settlement::Postponed);
        let tried = settlements.iter().any(is_tried);
        let postponed = settlements.contains(&Settlement::Postponed);
        inner.settled.push((accepted.id, settlements));
        if !accepted.envelope.recipients.is_empty() {
            (entry.accepted, entry.lease) = (Arc::new(accepted), None);
            if tried || postponed {
                (entry.due, entry.attempts) = (due, entry.attempts + u32::from(tried));
            }
            inner.waiting.insert(at, entry);
        }
        Ok(())
    }

    async fn next_due(&self, lane: &Lane, _: Timestamp) -> Result<Option<Timestamp>, QueueError> {
        let inner = self.inner();
        let waiting = inner.waiting.iter().filter(|entry| entry.lane == *lane && entry.lease.is_none());
        Ok(waiting.map(|entry| entry.due).min())
    }

    async fn reassign_lanes(&self, _: &str, _: LaneOf, _: Option<Cursor>) -> Result<Reassigned, QueueError> {
        Ok(Reassigned { moved: 0, next: None })
    }

    fn admit(&self, _octets: u64) -> Result<(), QueueError> {
        Ok(())
    }

    fn wakeups(&self) -> &Wakeups {
        &self.wakeups
    }

    fn handoffs(&self) -> &Handoffs {
        &self.handoffs
    }

    async fn close(&self) {}
}

/// Decides the outcome for a recipient.
pub(super) type Judge = Box<dyn Fn(&Mailbox) -> Outcome + Send + Sync>;

/// Has one upstream per lane, with the real health tracking.
pub(super) struct Scripted {
    /// Duration of each attempt.
    takes: Duration,
    breakers: Mutex<HashMap<Lane, Breaker>>,
    slots: usize,
    judge: Mutex<Judge>,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Notes {
    pub running: usize,
    /// The highest number at once since the last look.
    pub most: usize,
    pub begun: Vec<(Instant, MailId)>,
}

impl Scripted {
    pub fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock()
    }

    pub fn judge(&self, judge: impl Fn(&Mailbox) -> Outcome + Send + Sync + 'static) {
        *self.judge.lock() = Box::new(judge);
    }

    fn breaker<T>(&self, lane: &Lane, ask: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut breakers = self.breakers.lock();
        ask(breakers.entry(lane.clone()).or_insert_with(|| Breaker::new(self.slots)))
    }

    async fn judged(&self, accepted: &Accepted) -> Attempt {
        {
            let mut notes = self.notes();
            notes.running += 1;
            notes.most = notes.most.max(notes.running);
            notes.begun.push((Instant::now(), accepted.id));
        }
        sleep(self.takes).await;
        self.notes().running -= 1;
        let judge = self.judge.lock();
        settled(accepted, |recipient| judge(recipient))
    }
}

fn settled(accepted: &Accepted, judge: impl Fn(&Mailbox) -> Outcome) -> Attempt {
    let settled = accepted.envelope.recipients.iter().map(|recipient| SettledRecipient {
        recipient: recipient.clone(),
        outcome: judge(recipient),
        transaction: None,
    });
    Attempt::new(settled.collect())
}

fn lane_of(recipient: &Mailbox) -> Lane {
    Lane::new(if recipient.domain().as_str() == "one.example" { "one" } else { "default" })
}

impl Deliver for Scripted {
    async fn attempt(&self, accepted: &Accepted, stop: &CancellationToken, _: &CancellationToken) -> Attempt {
        assert!(!stop.is_cancelled(), "begun after the stop");
        let lane = lane_of(&accepted.envelope.recipients[0]);
        let Admission::Go(pass) = self.breaker(&lane, |breaker| breaker.admit(Instant::now(), false)) else {
            let unavailable = Reason::new(
                Some("company"),
                RelayStep::Permit,
                Cause::Unavailable(Box::new(Unavailable {
                    text: "scripted".to_owned(),
                    wait: Duration::from_secs(1),
                    lasting: self.unavailable_for(&lane),
                })),
            );
            return settled(accepted, |_| Outcome::Deferred(unavailable.clone()));
        };
        let attempt = self.judged(accepted).await;
        let is_away = |settled: &SettledRecipient| matches!(&settled.outcome, Outcome::Deferred(reason) if reason.is_about_upstream());
        let sign = if attempt.settled().iter().all(is_away) { Signal::Unavailable } else { Signal::Success };
        self.breaker(&lane, |breaker| breaker.ended(pass, sign, Instant::now(), jitter()));
        attempt
    }

    fn capacity(&self, lane: &Lane) -> Capacity {
        self.breaker(lane, |breaker| breaker.capacity(Instant::now()))
    }

    fn unavailable_for(&self, lane: &Lane) -> Duration {
        self.breaker(lane, |breaker| breaker.unavailable_for(Instant::now()))
    }

    fn cut_pause(&self, lane: &Lane) {
        self.breaker(lane, |breaker| breaker.cut_pause(Instant::now()));
    }
}

pub(super) fn delivered() -> Outcome {
    Outcome::Delivered(Reply::new(250, EnhancedCode::new(2, 0, 0), "taken"))
}

pub(super) fn refused() -> Outcome {
    let reply = Reply::new(550, EnhancedCode::new(5, 1, 1), "no such user");
    Outcome::Failed(Reason::new(Some("company"), RelayStep::Rcpt, Cause::Reply(reply)))
}

pub(super) fn later() -> Outcome {
    let reply = Reply::new(451, EnhancedCode::new(4, 7, 1), "greylisted");
    Outcome::Deferred(Reason::new(Some("company"), RelayStep::EndOfData, Cause::Reply(reply)))
}

/// The provider rejects the login, as after a password change.
pub(super) fn login_refused() -> Outcome {
    let reply = Reply::new(535, EnhancedCode::new(5, 7, 8), "wrong password");
    Outcome::Deferred(Reason::new(Some("company"), RelayStep::Auth, Cause::Reply(reply)))
}

/// A loop over a fake queue, with a clock that follows tokio's.
pub(super) struct Stage {
    pub fake_queue: Arc<FakeQueue>,
    pub deliver: Arc<Scripted>,
    pub stop: CancellationToken,
    pub clock: Clock,
    pub queue: Arc<dyn Queue>,
    settlement: SettlementPolicy,
    bounce: Bounce,
    bounce_sender: ReversePath,
    octets: u64,
    numbers: Mutex<u32>,
    /// Of the loop that runs.
    plans: Mutex<Option<watch::Sender<Arc<DeliveryPlan<Scripted>>>>>,
}

impl Stage {
    /// Lanes `one` (recipients at one.example) and `default`, with this many slots each.
    pub fn new(slots: usize, takes: Duration) -> Self {
        let fake_queue = Arc::new(FakeQueue::default());
        let at = Arc::new(Mutex::new("2026-11-24T03:00:00Z".parse().expect("a time")));
        let clock = Clock::Along { at, since: Instant::now() };
        let recipients = SenderPatterns::parse(["*@one.example"]).expect("a pattern");
        let conditions = RouteConditions { recipients, ..RouteConditions::none() };
        let upstreams = Choice::InOrder(vec![0]);
        let one = Route { name: "one".into(), conditions, upstreams, retry_refused: false };
        let routes = Arc::new(Routes::new(vec![one], vec!["company".into()]));
        let settlement = SettlementPolicy { schedule: Schedule::default(), routes, clock: clock.clone() };
        Self {
            queue: fake_queue.clone(),
            fake_queue,
            deliver: Arc::new(Scripted {
                takes,
                breakers: Mutex::default(),
                slots,
                judge: Mutex::new(Box::new(|_| delivered())),
                notes: Mutex::default(),
            }),
            stop: CancellationToken::new(),
            clock,
            settlement,
            bounce: Bounce::Off,
            bounce_sender: ReversePath::Null,
            octets: u64::MAX,
            numbers: Mutex::default(),
            plans: Mutex::default(),
        }
    }

    pub fn bounce(self, bounce: Bounce) -> Self {
        Self { bounce, ..self }
    }

    pub fn bounce_sender(self, bounce_sender: ReversePath) -> Self {
        Self { bounce_sender, ..self }
    }

    pub fn octets(self, octets: u64) -> Self {
        Self { octets, ..self }
    }

    /// Replaces the plan of the loop that runs.
    pub fn replan(&self, change: impl FnOnce(&mut DeliveryPlan<Scripted>)) {
        let plans = self.plans.lock();
        let plans = plans.as_ref().expect("a loop that runs");
        let former = plans.borrow().clone();
        let mut plan = DeliveryPlan {
            deliver: former.deliver.clone(),
            settlement: former.settlement.clone(),
            bouncer: former.bouncer.clone(),
            lanes: former.lanes.clone(),
            metrics: former.metrics.clone(),
        };
        change(&mut plan);
        plans.send_replace(Arc::new(plan));
    }

    /// Runs the loop in a task.
    pub fn run(&self) -> tokio::task::JoinHandle<()> {
        let settlement = self.settlement.clone();
        let bouncer = Arc::new(Bouncer {
            bounce: self.bounce.clone(),
            sender: self.bounce_sender.clone(),
            hostname: "gw.example.com".into(),
            settlement: settlement.clone(),
            queue: self.queue.clone(),
        });
        let lanes = self.settlement.routes.lanes().into_iter().map(|(lane, _)| lane).collect();
        let metrics = DeliveryMetrics::default();
        let plan = DeliveryPlan { deliver: self.deliver.clone(), settlement, bouncer, lanes, metrics };
        let (plans, plan) = watch::channel(Arc::new(plan));
        *self.plans.lock() = Some(plans);
        let dispatcher = Dispatcher {
            queue: self.queue.clone(),
            plan,
            octets: self.octets,
            cut_off: CancellationToken::new(),
            limits: LaneLimits::default(),
        };
        tokio::spawn(dispatcher.run(self.stop.clone()))
    }

    pub async fn put(&self, recipients: &[&str]) -> MailId {
        self.put_from(ReversePath::Mailbox(mailbox("a@example.com")), recipients).await
    }

    pub async fn put_from(&self, sender: ReversePath, recipients: &[&str]) -> MailId {
        let number = {
            let mut numbers = self.numbers.lock();
            *numbers += 1;
            *numbers
        };
        let data = format!("From: a@example.com\r\nMessage-ID: <{number}@example.com>\r\n\r\nbody\r\n");
        let message = RawMessage::from_data(data.into()).expect("a message");
        let mut envelope = Envelope::new(sender);
        recipients.iter().for_each(|recipient| envelope.add_recipient(mailbox(recipient)));
        let now = self.clock.now();
        let author = Author::of(&message).ok();
        let origin = Origin { listener: Some("127.0.0.1:2525".into()), user: None };
        let marks = Marks::default();
        let id = MailId::new(now, number);
        let accepted = Accepted { id, received_at: now, origin, envelope, message, author, marks };
        let id = accepted.id;
        let initial_states = self.settlement.waiting_states(&accepted);
        let mail = NewMail {
            accepted: Arc::new(accepted),
            initial_states,
            original: None,
            subject: String::new(),
            deduplication: None,
        };
        self.queue.put(mail).await.expect("stored");
        id
    }

    /// Sets the wall clock.
    pub fn jump(&self, by: jiff::SignedDuration) {
        let Clock::Along { at, .. } = &self.clock else { panic!("made so") };
        *at.lock() += by;
    }

    /// Fails after a day of tokio's clock, which stands still while anything runs.
    pub async fn until(&self, what: &str, condition: impl Fn(&FakeQueue) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(24 * 3600);
        while !condition(&self.fake_queue) {
            assert!(Instant::now() < deadline, "timed out waiting: {what}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

pub(super) fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).expect("an address")
}
