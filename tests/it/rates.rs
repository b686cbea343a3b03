//! `rate` as the provider counts it: never more in any period of its length, in bursts, after a restart, and with two
//! tables for one account. Asserts counts, never speeds.

use crate::support::application::{
    SENDER, further, hand_in, hand_in_many, in_front_of, mail, numbered, queued_in_front_of, subjects,
};
use crate::support::gateway::Gateway;
use crate::support::until;
use crate::support::upstream::ScriptedUpstream;
use std::time::Duration;

async fn hand_in_numbered(gateway: &Gateway, count: usize) {
    hand_in_many(gateway.address(), SENDER, "you@example.net", &numbered(count)).await;
}

/// Every message that waits was looked at, and none could go.
async fn until_used_up(gateway: &Gateway) {
    gateway.wait_for_line(&["the quota is reached", "\"upstream\":\"company\""]);
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// Over a minute and more, at the provider's own counter. Sleeps most of the time.
#[tokio::test(flavor = "multi_thread")]
async fn fourteen_a_second_and_three_hundred_a_minute() {
    const MAILS: usize = 320;
    let scripted = ScriptedUpstream::start().await;
    let gateway = queued_in_front_of(&scripted, "rate = [\"14/s\", \"300/min\"]", "").start(1);
    hand_in_numbered(&gateway, MAILS).await;
    for _ in 0..2400 {
        if scripted.messages().len() >= MAILS {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(subjects(&scripted), numbered(MAILS), "all of them in the end, each once");
    let second = Duration::from_secs(1);
    let minute = Duration::from_secs(60);
    assert!(scripted.most_within(second) <= 14, "{} in a second", scripted.most_within(second));
    assert!(scripted.most_within(minute) <= 300, "{} in a minute", scripted.most_within(minute));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_beyond_the_days_quota_goes_through_the_next_upstream_also_after_a_kill() {
    let company = ScriptedUpstream::start().await;
    let backup = ScriptedUpstream::start().await;
    let lines = "rate = \"20/day\"\n".to_owned()
        + &further("backup", &backup, "")
        + "[[route]]\nname = \"all\"\nupstreams = [\"company\", \"backup\"]\n";
    let mut setup = queued_in_front_of(&company, &lines, "").file("backup.pem", backup.ca());
    for round in 1..=3 {
        let gateway = setup.start(1);
        hand_in_numbered(&gateway, 12).await;
        let counts = (company.messages().len(), backup.messages().len());
        let arrived = || company.messages().len() + backup.messages().len();
        until("every mail arrives at one of the two", || arrived() >= 12 * round).await;
        assert!(company.messages().len() <= 20, "round {round}: {counts:?}");
        (_, setup) = gateway.kill();
    }
    assert_eq!((company.messages().len(), backup.messages().len()), (20, 16));
}

/// Nothing is forgotten at a stop, and what is written in the configuration next applies to what waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_was_raised_lets_waiting_mail_go_and_what_was_used_stays_used() {
    let company = ScriptedUpstream::start().await;
    let gateway = queued_in_front_of(&company, "rate = \"5/day\"", "").start(1);
    hand_in_numbered(&gateway, 12).await;
    company.until_messages(5).await;
    until_used_up(&gateway).await;
    assert_eq!(company.messages().len(), 5);
    let (_, _, setup) = tokio::task::spawn_blocking(|| gateway.stop()).await.unwrap();
    let gateway = setup.config_with("5/day", "8/day").start(1);
    company.until_messages(8).await;
    until_used_up(&gateway).await;
    assert_eq!(company.messages().len(), 8);
    let (_, setup) = gateway.kill();
    let _gateway = setup.config_with("rate = \"8/day\"", "").start(1);
    company.until_messages(12).await;
    assert_eq!(subjects(&company), numbered(12));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tables_of_one_account_have_one_quota() {
    let company = ScriptedUpstream::start().await;
    let lines = "rate = \"6/day\"\nmax_connections = 1\n".to_owned()
        + &further("other", &company, "share_limits_with = \"company\"")
        + "[[route]]\nname = \"some\"\nrecipients = [\"*@some.example\"]\nupstreams = [\"other\"]\n\
           [[route]]\nname = \"rest\"\nupstreams = [\"company\"]\n";
    let gateway = queued_in_front_of(&company, &lines, "").file("other.pem", company.ca()).start(1);
    for recipient in ["you@some.example", "you@rest.example"] {
        hand_in_many(gateway.address(), SENDER, recipient, &numbered(5)).await;
    }
    company.until_messages(6).await;
    until_used_up(&gateway).await;
    assert_eq!((company.messages().len(), company.counts().max), (6, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_client_is_refused_when_its_turn_would_come_too_late() {
    let company = ScriptedUpstream::start().await;
    let gateway = in_front_of(&company, "rate = \"2/min\"").start(1);
    let first = hand_in(gateway.address(), &["you@example.net"], &mail("first")).await;
    assert!(first.starts_with("250 "), "{first}");
    let second = hand_in(gateway.address(), &["you@example.net"], &mail("second")).await;
    assert!(second.starts_with("451 4.4.0 upstream \"company\", waiting for capacity: `rate`"), "{second}");
    assert_eq!(subjects(&company), ["first"]);
}
