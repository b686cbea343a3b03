//! What every [`Backend`] must do, as tests. A backend passes a [`Factory`] to [`conformance!`], which is one line, and gets one
//! test per promise: `conformance!(Folder::new(1 << 20));`
//!
//! Nothing here knows how or where a backend stores anything (tests/layering.rs), and nothing asserts on time. What only one backend
//! promises is tested beside it.

mod ages;
mod deduplication;
mod failures;
mod fairness;
mod handoff;
mod lanes;
mod leases;
mod model;
mod operator;
mod quotas;
mod reassignment;
mod revisions;
mod suspensions;
mod transfer;
mod wakeups;
mod walk;

pub(crate) use ages::*;
pub(crate) use deduplication::*;
pub(crate) use failures::*;
pub(crate) use fairness::*;
pub(crate) use handoff::*;
pub(crate) use lanes::*;
pub(crate) use leases::*;
pub(crate) use operator::*;
pub(crate) use quotas::*;
pub(crate) use reassignment::*;
pub(crate) use revisions::*;
pub(crate) use suspensions::*;
pub(crate) use transfer::*;
pub(crate) use wakeups::*;
pub(crate) use walk::*;

use super::*;
use crate::message::accepted::{Addressed, Origin};
use crate::message::{Author, Envelope, MailId, Mark, Marks, RawMessage};
use crate::observe::Clock;
use crate::observe::clock::Simulated;
use crate::smtp::{Mailbox, ReversePath};
use async_trait::async_trait;
use bytes::Bytes;
use jiff::SignedDuration;
use parking_lot::{Mutex, MutexGuard};

/// Storage of its own, empty at first, on which a queue can be opened repeatedly.
#[async_trait]
pub(crate) trait Factory: Send + Sync {
    /// The queue that was opened before is dropped without being closed, as if the process had ended there. The new one
    /// uses this clock.
    async fn open(&self, clock: Clock) -> Arc<dyn Backend>;
}

/// One test per promise, each on storage that the expression creates.
macro_rules! conformance {
    ($factory:expr) => {
        conformance! { $factory;
            what_was_put_is_leased_as_it_was,
            a_large_message_is_whole_and_goes_with_its_last_recipient,
            each_recipient_is_settled_for_itself,
            a_deferred_message_waits_and_an_expired_one_has_failed,
            an_untried_recipient_costs_no_attempt,
            a_postponed_recipient_waits_and_costs_no_attempt,
            a_lease_ends_once_and_covers_every_recipient,
            a_crash_makes_leased_messages_possible_duplicates,
            a_lost_answer_makes_the_next_attempt_suspect,
            the_limits_of_a_lease_hold,
            mail_that_is_too_old_is_leased_whether_due_or_not,
            mail_from_a_clock_that_was_ahead_hides_no_old_mail,
            no_clock_that_is_set_makes_mail_older_or_younger,
            a_stop_makes_mail_older_by_what_can_be_trusted_of_it,
            nothing_is_forgotten_by_a_clock_that_is_set,
            ages_are_what_was_lived_whatever_the_clock_says,
            direct_mode_keeps_what_it_could_not_deliver,
            a_message_on_two_lanes_is_two_leases,
            a_held_lane_leases_nothing_and_accepts_mail,
            every_lane_can_be_held_and_one_released,
            new_routes_move_waiting_and_failed_recipients,
            lanes_are_reassigned_while_mail_is_taken_and_lent,
            a_reassignment_that_was_cut_off_is_begun_again,
            nothing_that_is_called_meanwhile_leaves_mail_on_a_wrong_lane,
            the_clock_may_go_back_a_day,
            the_clock_may_go_forward_a_day,
            sender_domains_take_turns,
            turns_go_on_where_they_stopped,
            a_crowd_of_domains_with_nothing_due_hides_nobody,
            a_full_lane_does_not_delay_another,
            pages_hold_everything_once,
            filters_find_what_they_name,
            a_message_is_shown_with_all_that_happened,
            a_failed_message_is_tried_again_from_a_new_beginning,
            a_failure_with_a_lost_answer_makes_a_retry_suspect,
            a_retry_that_joins_a_lease_keeps_its_doubt,
            a_message_goes_to_a_corrected_address,
            a_corrected_address_waits_on_its_own_lane,
            a_retry_of_waiting_mail_restarts_its_age,
            a_retry_during_a_lease_is_not_lost,
            a_stored_message_is_read_with_all_that_is_not_settled,
            a_failed_message_is_replaced_and_due_at_once,
            what_is_in_memory_is_replaced_too,
            nothing_is_replaced_that_changed_meanwhile,
            what_is_removed_is_gone_and_what_is_leased_stays,
            history_is_paged_newest_first,
            old_failures_and_history_are_forgotten,
            what_is_put_down_of_a_quota_outlives_a_crash,
            mail_of_a_known_key_is_stored_once,
            a_key_is_known_after_a_crash_until_its_window_ends,
            of_many_at_once_with_one_key_one_is_stored,
            a_key_is_known_whatever_became_of_its_mail,
            what_could_not_be_stored_is_not_known,
            a_message_that_is_taken_out_and_stored_again_is_as_it_was,
            leased_mail_is_taken_out_as_a_possible_duplicate,
            only_recipients_that_have_no_mail_yet_are_stored,
            imported_mail_comes_onto_the_lanes_of_the_routes,
            keys_and_history_are_imported_once,
            one_that_fails_takes_nobody_with_it,
            a_panic_in_one_operation_is_its_own_failure,
            a_name_that_is_taken_is_refused_and_its_owner_is_unharmed,
            a_lease_whose_caller_is_gone_goes_back,
            delayed_mail_is_leased_when_it_is_due_and_not_before,
            a_retry_sends_delayed_and_held_mail_at_once,
            held_mail_stays_until_it_is_released_and_holds_no_other_recipient,
            a_release_touches_no_recipient_that_is_not_held,
            new_routes_move_suspended_mail_and_do_not_wake_it,
            held_mail_is_listed_by_its_state_and_a_held_lane_keeps_delayed_mail,
            what_can_make_mail_due_wakes_its_lanes,
            new_mail_is_handed_to_a_loop_that_waits_for_it,
            what_was_handed_over_is_a_possible_duplicate_after_a_crash,
            only_what_a_lease_would_return_is_handed_over,
            mail_of_a_known_key_is_not_handed_over_again,
            what_no_loop_takes_over_waits_again,
            a_closed_queue_says_so,
            many_at_once_are_each_leased_once,
            a_random_walk_agrees_with_the_model,
        }
    };
    ($factory:expr; $($promise:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $promise() {
                $crate::queue::conformance::$promise(&$crate::queue::conformance::Harness::of($factory).await).await;
            }
        )*
    };
}
pub(crate) use conformance;

/// A queue under test, with short names for what the tests do with it.
pub(crate) struct Harness {
    factory: Box<dyn Factory>,
    machine: Arc<Mutex<Simulated>>,
    queue: tokio::sync::Mutex<Option<Arc<dyn Backend>>>,
}

impl Harness {
    pub async fn of(factory: impl Factory + 'static) -> Self {
        let machine = Arc::new(Mutex::new(Simulated::starting(start(), true)));
        let queue = factory.open(Clock::Simulated(machine.clone())).await;
        Self { factory: Box::new(factory), machine, queue: tokio::sync::Mutex::new(Some(queue)) }
    }

    fn machine(&self) -> MutexGuard<'_, Simulated> {
        self.machine.lock()
    }

    /// The gateway runs for this many seconds.
    fn live(&self, seconds: i64) {
        self.machine().pass(Duration::from_secs(seconds.unsigned_abs()));
    }

    async fn queue(&self) -> Arc<dyn Backend> {
        self.queue.lock().await.clone().expect("open")
    }

    /// The process ends here and is started again.
    async fn crash(&self) {
        let mut queue = self.queue.lock().await;
        drop(queue.take());
        *queue = Some(self.factory.open(Clock::Simulated(self.machine.clone())).await);
    }

    /// The same after a stop of this length, during which `meanwhile` may change the machine.
    async fn stop(&self, seconds: i64, meanwhile: impl FnOnce(&mut Simulated)) {
        let mut queue = self.queue.lock().await;
        if let Some(queue) = queue.take() {
            queue.close().await;
        }
        self.live(seconds);
        meanwhile(&mut self.machine());
        *queue = Some(self.factory.open(Clock::Simulated(self.machine.clone())).await);
    }

    /// Completes a reassignment.
    async fn reassign_lanes(&self, fingerprint: &str, lane_of: LaneOf) -> Result<u64, QueueError> {
        reassign_all(&*self.queue().await, fingerprint, lane_of).await
    }

    async fn put(&self, mail: NewMail) -> MailId {
        let id = mail.accepted.id;
        self.queue().await.put(mail).await.expect("stored");
        id
    }

    async fn lease(&self, lane: &str, now: Timestamp, limit: usize) -> Vec<Leased> {
        self.queue().await.lease(&Lane::new(lane), now, limit, u64::MAX).await.expect("a lease")
    }

    async fn lease_one(&self, lane: &str, now: Timestamp) -> Leased {
        let mut leased = self.lease(lane, now, 1).await;
        assert_eq!(leased.len(), 1, "one message is due on {lane}");
        leased.remove(0)
    }

    /// Settles every recipient in the same way.
    async fn settle(&self, leased: &Leased, settlement: Settlement, due: Timestamp) {
        let settlements = vec![settlement; leased.accepted.envelope.recipients.len()];
        self.queue().await.settle(leased.lease, settlements, due).await.expect("settled");
    }

    async fn next_due(&self, lane: &str, now: Timestamp) -> Option<Timestamp> {
        self.queue().await.next_due(&Lane::new(lane), now).await.expect("a due time")
    }

    async fn statistics(&self) -> Statistics {
        self.queue().await.statistics().await.expect("numbers")
    }

    async fn row(&self, id: MailId) -> Option<Row> {
        self.queue().await.show(id).await.expect("a message").map(|shown| shown.row)
    }

    async fn states(&self, id: MailId) -> Vec<(String, RecipientState)> {
        let row = self.row(id).await.expect("a row");
        row.recipients.into_iter().map(|recipient| (recipient.address, recipient.state)).collect()
    }

    /// Every row, in pages of `limit`.
    async fn rows(&self, filter: &Filter, limit: usize) -> Vec<Row> {
        let queue = self.queue().await;
        let mut rows = Vec::new();
        let mut after = None;
        loop {
            let page = queue.list(filter, after, limit).await.expect("a page");
            assert!(page.rows.len() <= limit);
            rows.extend(page.rows);
            match page.next {
                Some(next) => after = Some(next),
                None => return rows,
            }
        }
    }

    async fn ids(&self, filter: &Filter) -> Vec<String> {
        self.rows(filter, 7).await.into_iter().map(|row| row.id).collect()
    }

    /// Checks that the statistics agree with the rows.
    async fn check_statistics(&self) {
        let mut counted = Statistics::default();
        let rows = self.rows(&Filter::default(), 100).await;
        let figures = self.queue().await.figures().await.expect("figures");
        assert_eq!(figures.lanes, testing::lane_counts(&rows));
        for recipient in rows.into_iter().flat_map(|row| row.recipients) {
            match recipient.state {
                RecipientState::Waiting | RecipientState::Held => counted.waiting += 1,
                RecipientState::Leased => counted.leased += 1,
                RecipientState::Failed => counted.failed += 1,
                RecipientState::Damaged => counted.damaged += 1,
            }
        }
        assert_eq!(self.statistics().await, counted);
    }
}

pub(crate) async fn reassign_all(queue: &dyn Queue, fingerprint: &str, lane_of: LaneOf) -> Result<u64, QueueError> {
    let mut moved = 0;
    let mut next = None;
    loop {
        let step = queue.reassign_lanes(fingerprint, lane_of.clone(), next).await?;
        (moved, next) = (moved + step.moved, step.next);
        if next.is_none() {
            return Ok(moved);
        }
    }
}

/// When the tests' time begins.
pub(crate) fn start() -> Timestamp {
    "2026-11-24T03:00:00Z".parse().expect("a time")
}

pub(crate) fn after(seconds: i64) -> Timestamp {
    start() + SignedDuration::from_secs(seconds)
}

const DAY: i64 = 24 * 3600;

/// A message from `sender` (empty: the null path), received `seconds` after the start, with its recipients' initial
/// states.
pub(crate) fn mail_with(number: u32, seconds: i64, sender: &str, initial_states: &[(&str, InitialState)]) -> NewMail {
    let path = match sender {
        "" => ReversePath::Null,
        _ => ReversePath::Mailbox(mailbox(sender)),
    };
    let mut envelope = Envelope::new(path);
    for (recipient, _) in initial_states {
        envelope.add_recipient(mailbox(recipient));
    }
    let text = format!("From: <a@example.com>\r\nSubject: mail {number}\r\n\r\nmail {number}\r\n");
    let message = RawMessage::from_data(text.into()).expect("a message");
    let received_at = after(seconds);
    let id = MailId::new(received_at, number);
    let author = Author::of(&message).ok();
    NewMail {
        accepted: Arc::new(Accepted {
            id,
            received_at,
            origin: Origin::default(),
            envelope,
            message,
            author,
            marks: Marks::default(),
        }),
        initial_states: initial_states.iter().map(|(_, initial_state)| initial_state.clone()).collect(),
        original: None,
        subject: format!("mail {number}"),
        deduplication: None,
    }
}

/// A message that waits on `lane` for each of the recipients.
pub(crate) fn mail(number: u32, seconds: i64, sender: &str, recipients: &[&str], lane: &str) -> NewMail {
    let initial_states: Vec<_> =
        recipients.iter().map(|recipient| (*recipient, InitialState::Waiting(Lane::new(lane)))).collect();
    mail_with(number, seconds, sender, &initial_states)
}

/// A message with one recipient, on lane "a".
pub(crate) fn plain(number: u32, seconds: i64) -> NewMail {
    mail(number, seconds, "sender@example.com", &["you@example.net"], "a")
}

fn with_body(mut mail: NewMail, body: Bytes) -> NewMail {
    let mut accepted = (*mail.accepted).clone();
    accepted.message = RawMessage::from_parts(accepted.message.header().to_vec(), body);
    mail.accepted = Arc::new(accepted);
    mail
}

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).expect("a mailbox")
}

fn attempted(seconds: i64, text: &str) -> Attempted {
    Attempted { at: after(seconds), upstream: Some("company".into()), text: text.into(), possible_duplicate: false }
}

fn deferred(seconds: i64) -> Settlement {
    Settlement::Deferred(attempted(seconds, "upstream \"company\", connect: refused"))
}

fn failed(seconds: i64) -> Settlement {
    Settlement::Failed(attempted(seconds, "upstream \"company\", RCPT TO: 550 5.1.1 no such user"))
}

fn delivered(seconds: i64) -> Delivered {
    Delivered { at: after(seconds), upstream: "company".into(), reply: "250 2.0.0 taken".into(), milliseconds: 12 }
}
