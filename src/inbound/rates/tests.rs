//! Rates of users and listeners, under paused time: who counts in what, what is said, and what outlives the process.

use super::*;
use crate::inbound::ListenerOptions;
use crate::inbound::testing::{Dialogue, options};
use crate::rate::{QuotaBucket, QuotaStore};
use crate::smtp::EhloName;
use async_trait::async_trait;
use std::collections::BTreeMap;
use tokio::time::advance;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Outlives the processes of a test.
#[derive(Debug)]
struct Ledger {
    began: Instant,
    rows: Mutex<BTreeMap<String, Vec<QuotaBucket>>>,
}

#[async_trait]
impl QuotaStore for Ledger {
    fn now(&self) -> Duration {
        30 * DAY + self.began.elapsed()
    }

    async fn load(&self, quota: &str) -> Result<Vec<QuotaBucket>, String> {
        Ok(self.rows.lock().get(quota).cloned().unwrap_or_default())
    }

    async fn write(&self, quota: &str, rows: Vec<QuotaBucket>, oldest: i64) -> Result<(), String> {
        let mut all = self.rows.lock();
        let known = all.entry(quota.to_owned()).or_default();
        known.retain(|old| old.number >= oldest && rows.iter().all(|new| new.number != old.number));
        known.extend(rows);
        known.sort_by_key(|row| row.number);
        Ok(())
    }
}

fn ledger() -> Arc<Ledger> {
    Arc::new(Ledger { began: Instant::now(), rows: Mutex::default() })
}

async fn rate(owner: RateOwner, text: &str, over: OverRate, ledger: &Arc<Ledger>) -> Arc<SubmissionRate> {
    let rates: Vec<Rate> = text.split(',').map(|text| Rate::parse(text).expect("a rate")).collect();
    let name: Arc<str> = owner.to_string().into();
    let stored = StoredUsage { ledger: ledger.clone(), name: name.clone(), former: name };
    let rate = SubmissionRate::new(owner, (&rates, over), 2 * DAY, Some(stored));
    rate.restore().await.expect("the ledger works");
    Arc::new(rate)
}

async fn users(all: &[(&str, &str, OverRate)], ledger: &Arc<Ledger>) -> SubmissionRates {
    let mut users = HashMap::new();
    for (name, text, over) in all {
        let name: Arc<str> = (*name).into();
        users.insert(name.clone(), rate(RateOwner::User(name), text, *over, ledger).await);
    }
    SubmissionRates { users: Arc::new(users), ..SubmissionRates::default() }
}

fn client(user: Option<&str>) -> Client {
    Client {
        peer: ([127, 0, 0, 1], 9).into(),
        ehlo: EhloName::parse(b"app").expect("a name"),
        esmtp: true,
        tls: None,
        user: user.map(Into::into),
    }
}

/// The wait of an accepted submission, or the reply.
async fn submit(rates: &SubmissionRates, user: Option<&str>, recipients: usize) -> Result<Duration, String> {
    let counted = rates.count(&client(user), recipients).await.map_err(|reply| reply.to_string())?;
    let wait = counted.wait.as_ref().map_or(Duration::ZERO, |wait| wait.wait);
    counted.keep();
    Ok(wait)
}

#[tokio::test(start_paused = true)]
async fn what_is_over_a_users_rate_is_refused_with_the_time_to_come_back_and_no_one_else_is() {
    let rates = users(&[("app", "3/min", OverRate::Refuse), ("other", "3/min", OverRate::Refuse)], &ledger()).await;
    for _ in 0..3 {
        assert_eq!(submit(&rates, Some("app"), 1).await, Ok(Duration::ZERO));
    }
    advance(MINUTE / 3).await;
    let refused = Err("452 4.7.0 User \"app\" has used up its rate of 3/min: try again in 40 seconds".to_owned());
    assert_eq!(submit(&rates, Some("app"), 1).await, refused);
    assert_eq!(submit(&rates, Some("other"), 3).await, Ok(Duration::ZERO));
    assert_eq!(submit(&rates, None, 100).await, Ok(Duration::ZERO), "a client without a login");
    advance(MINUTE).await;
    assert_eq!(submit(&rates, Some("app"), 3).await, Ok(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_anywhere_counts_nowhere() {
    let ledger = ledger();
    let listener = RateOwner::Listener(([127, 0, 0, 1], 2525).into());
    let listener = Some(rate(listener, "10/min", OverRate::Refuse, &ledger).await);
    let rates = SubmissionRates { listener, ..users(&[("app", "2/min", OverRate::Refuse)], &ledger).await };
    assert_eq!(submit(&rates, Some("app"), 2).await, Ok(Duration::ZERO));
    for _ in 0..50 {
        submit(&rates, Some("app"), 1).await.expect_err("over the user's rate");
    }
    // Submissions that fail later, for example because a rule refuses them.
    for _ in 0..50 {
        drop(rates.count(&client(None), 5).await.expect("within the listener's rate"));
    }
    assert_eq!(submit(&rates, None, 8).await, Ok(Duration::ZERO), "eight are left on the listener");
    let refused = submit(&rates, None, 1).await.expect_err("the listener's rate is used up");
    assert!(refused.starts_with("452 4.7.0 Listener 127.0.0.1:2525 has used up its rate of 10/min"), "{refused}");
    submit(&rates, Some("app"), 1).await.expect_err("and a user's mail counts there too");
}

#[tokio::test(start_paused = true)]
async fn mail_that_may_wait_is_spread_out_and_refused_only_if_it_would_wait_for_too_long() {
    let rates = users(&[("app", "60/min", OverRate::Wait), ("day", "10/day", OverRate::Wait)], &ledger()).await;
    for _ in 0..60 {
        assert_eq!(submit(&rates, Some("app"), 1).await, Ok(Duration::ZERO));
    }
    for number in 0..100 {
        assert_eq!(submit(&rates, Some("app"), 1).await, Ok(MINUTE + Duration::from_secs(number)));
    }
    let mut accepted = Vec::new();
    let refused = loop {
        match submit(&rates, Some("day"), 1).await {
            Ok(wait) => accepted.push(wait),
            Err(refused) => break refused,
        }
        assert!(accepted.len() < 100);
    };
    assert!(accepted.iter().all(|wait| *wait <= 2 * DAY), "{accepted:?}");
    assert_eq!(accepted.len(), 21, "ten at once, and ten a day from the next day to the end of the second");
    assert!(refused.starts_with("452 4.7.0 User \"day\" has used up its rate of 10/day: try again in"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_the_provider_is_refused_and_its_mail_does_not_wait() {
    let rates = users(&[("app", "2/min", OverRate::Wait)], &ledger()).await;
    let direct = SubmissionRates { client_waits: true, ..rates.clone() };
    assert_eq!(submit(&direct, Some("app"), 2).await, Ok(Duration::ZERO));
    submit(&direct, Some("app"), 1).await.expect_err("over the rate");
    assert_eq!(submit(&rates, Some("app"), 1).await, Ok(MINUTE), "one rate, whichever listener it comes to");
}

/// Stops in order and kills, with every kind of rate, and a restart with another `over_rate`.
#[tokio::test(start_paused = true)]
async fn what_was_used_of_hours_and_days_outlives_the_process() {
    for over in [OverRate::Refuse, OverRate::Wait] {
        for is_killed in [false, true] {
            let ledger = ledger();
            let of = async |over| users(&[("app", "3/h,5/day", over)], &ledger).await;
            let rates = of(over).await;
            assert_eq!(submit(&rates, Some("app"), 3).await, Ok(Duration::ZERO));
            if !is_killed {
                rates.users["app"].close().await.expect("the ledger works");
            }
            advance(MINUTE).await;
            let refused = submit(&of(OverRate::Refuse).await, Some("app"), 1).await;
            let refused = refused.expect_err("the hour is used up");
            assert!(refused.contains("rate of 3/h: try again in"), "{over:?} {is_killed} {refused}");
            advance(2 * HOUR).await;
            let rates = of(over).await;
            assert_eq!(submit(&rates, Some("app"), 2).await, Ok(Duration::ZERO), "{over:?} {is_killed}");
            advance(2 * HOUR).await;
            let refused = submit(&of(OverRate::Refuse).await, Some("app"), 1).await.expect_err("the day is used up");
            assert!(refused.contains("rate of 5/day: try again in"), "{over:?} {is_killed} {refused}");
            advance(DAY).await;
            assert_eq!(submit(&of(over).await, Some("app"), 1).await, Ok(Duration::ZERO), "{over:?} {is_killed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn mail_after_a_restart_waits_behind_what_waits_already() {
    for (text, is_killed) in [("10/min", false), ("10/min", true), ("20/h", false), ("20/h", true)] {
        let ledger = ledger();
        let of = async || users(&[("app", text, OverRate::Wait)], &ledger).await;
        let rates = of().await;
        let mut last = Duration::ZERO;
        for _ in 0..50 {
            last = submit(&rates, Some("app"), 1).await.expect("it may wait");
        }
        if !is_killed {
            rates.users["app"].close().await.expect("the ledger works");
        }
        let next = submit(&of().await, Some("app"), 1).await.expect("it may wait");
        assert!(next > last, "{text} {is_killed}: {next:?} after {last:?}");
        let slack = if is_killed { HOUR } else { 2 * MINUTE };
        assert!(next <= last + last / 10 + slack + MINUTE * 3, "{text} {is_killed}: {next:?} after {last:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_storage_that_fails_refuses_the_mail_and_counts_nothing() {
    #[derive(Debug)]
    struct Broken;
    #[async_trait]
    impl QuotaStore for Broken {
        fn now(&self) -> Duration {
            DAY
        }
        async fn load(&self, _: &str) -> Result<Vec<QuotaBucket>, String> {
            Ok(Vec::new())
        }
        async fn write(&self, _: &str, _: Vec<QuotaBucket>, _: i64) -> Result<(), String> {
            Err("no".to_owned())
        }
    }
    let name: Arc<str> = "app".into();
    let stored = StoredUsage { ledger: Arc::new(Broken), name: name.clone(), former: name.clone() };
    let limit = Rate::parse("2/day").expect("a rate");
    let rate = SubmissionRate::new(RateOwner::User(name.clone()), (&[limit], OverRate::Refuse), DAY, Some(stored));
    let users = Arc::new(HashMap::from([(name, Arc::new(rate))]));
    let rates = SubmissionRates { users, ..SubmissionRates::default() };
    for _ in 0..10 {
        let refused = submit(&rates, Some("app"), 1).await.expect_err("it cannot be recorded");
        assert!(refused.starts_with("451 4.3.0"), "{refused}");
    }
}

/// Whatever the order of commands, the refusal comes before the message does, and takes no recipient that was accepted.
#[tokio::test(start_paused = true)]
async fn the_session_refuses_at_mail_and_at_the_first_recipient_too_many() {
    let listener = RateOwner::Listener(([127, 0, 0, 1], 2525).into());
    let listener = Some(rate(listener, "2/min", OverRate::Refuse, &ledger()).await);
    let rates = SubmissionRates { listener, ..SubmissionRates::default() };
    let mut dialogue = Dialogue::new(ListenerOptions { rates: rates.clone(), ..options() });
    dialogue.send(b"EHLO app\r\nMAIL FROM:<a@example.com> SIZE=100\r\n");
    for number in 0..3 {
        dialogue.send(format!("RCPT TO:<r{number}@example.net>\r\n").as_bytes());
    }
    dialogue.send(b"RCPT TO:<r0@example.net>\r\nRSET\r\n");
    assert_eq!(dialogue.codes(), [220, 250, 250, 250, 250, 452, 250, 250]);
    assert_eq!(submit(&rates, None, 2).await, Ok(Duration::ZERO), "asking counts nothing");
    dialogue.send(b"MAIL FROM:<a@example.com> SIZE=100\r\nRCPT TO:<r0@example.net>\r\nDATA\r\nNOOP\r\n");
    assert_eq!(dialogue.codes()[8..], [452, 503, 503, 250]);
}
