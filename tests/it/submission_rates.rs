//! `rate` of users and listeners: one application that runs away uses up nobody else's share. What is over the rate is refused
//! with the time to come back, or waits and is spread out. Counts and order are asserted, never speeds.

use crate::support::application::{
    SENDER, configuration, hand_in, mail, numbered, queued_in_front_of, subjects, up_to_data,
};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::upstream::ScriptedUpstream;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use std::net::SocketAddr;

/// With these lines in its one [[listener]], and these further tables; the user's password is "canary-NAME".
fn setup(scripted: &ScriptedUpstream, delivery: &str, listener: &str, users: &[(&str, &str)]) -> Setup {
    let users: String = users
        .iter()
        .map(|(name, lines)| format!("[[user]]\nname = \"{name}\"\npassword = {{ file = \"{name}.pw\" }}\n{lines}\n"))
        .collect();
    let config = configuration(scripted.address(), delivery, &users, "").replacen(
        &format!("delivery = \"{delivery}\"\n"),
        &format!("delivery = \"{delivery}\"\n{listener}\n"),
        1,
    );
    let mut setup = Setup::new(Some(&config)).file("ca.pem", scripted.ca());
    for name in ["app", "other"] {
        setup = setup.file(&format!("{name}.pw"), format!("canary-{name}"));
    }
    setup
}

async fn logged_in(gateway: SocketAddr, user: Option<&str>) -> Client {
    let mut client = Client::connect(gateway).await;
    client.greet().await;
    if let Some(user) = user {
        let credentials = BASE64.encode(format!("\0{user}\0canary-{user}"));
        assert!(client.ask(&format!("AUTH PLAIN {credentials}")).await.starts_with("235 "));
    }
    client
}

/// The first reply that is not positive, or the one to the final dot.
async fn submit(client: &mut Client, recipients: &[&str], subject: &str) -> String {
    let mut commands = vec![format!("MAIL FROM:<{SENDER}> SIZE=200")];
    commands.extend(recipients.iter().map(|recipient| format!("RCPT TO:<{recipient}>")));
    for command in commands {
        let reply = client.ask(&command).await;
        if !reply.starts_with("250") {
            client.ask("RSET").await;
            return reply;
        }
    }
    assert!(client.ask("DATA").await.starts_with("354 "));
    client.ask(&format!("{}.", mail(subject))).await
}

/// The lines of the log with all of these words.
fn lines(log: &[String], words: &[&str]) -> usize {
    log.iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_runs_away_is_refused_with_the_time_to_come_back_and_the_others_are_served() {
    let scripted = ScriptedUpstream::start().await;
    let users = [("app", "rate = \"3/h\""), ("other", "rate = \"3/h\"")];
    let gateway = setup(&scripted, "queue", "", &users).start(1);
    let mut app = logged_in(gateway.address(), Some("app")).await;
    for number in 0..3 {
        assert!(submit(&mut app, &["you@example.net"], &format!("app {number}")).await.starts_with("250 "));
    }
    for _ in 0..50 {
        let reply = submit(&mut app, &["you@example.net"], "too many").await;
        assert!(reply.starts_with("452 4.7.0 User \"app\" has used up its rate of 3/h: try again in "), "{reply}");
        assert!(reply.ends_with(" minutes") || reply.ends_with(" hour"), "{reply}");
    }
    let mut other = logged_in(gateway.address(), Some("other")).await;
    let mut without = logged_in(gateway.address(), None).await;
    for number in 0..3 {
        assert!(submit(&mut other, &["you@example.net"], &format!("other {number}")).await.starts_with("250 "));
        assert!(submit(&mut without, &["you@example.net"], &format!("without {number}")).await.starts_with("250 "));
    }
    scripted.until_messages(9).await;
    assert!(!subjects(&scripted).contains(&"too many".to_owned()));
    let (_, log, _) = tokio::task::spawn_blocking(|| gateway.stop()).await.unwrap();
    assert_eq!(lines(&log, &["has used up its rate", "\"user\":\"app\""]), 1, "one line, not fifty");
    assert_eq!(lines(&log, &["has used up its rate", "\"user\":\"other\""]), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_too_many_is_refused_and_those_before_it_get_the_mail() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = setup(&scripted, "queue", "rate = \"3/h\"", &[]).start(1);
    let mut client = logged_in(gateway.address(), None).await;
    assert!(client.ask(&format!("MAIL FROM:<{SENDER}> SIZE=200")).await.starts_with("250 "));
    for (recipient, expected) in
        [("a", "250 "), ("b", "250 "), ("a", "250 "), ("c", "250 "), ("d", "452 4.7.0 Listener ")]
    {
        let reply = client.ask(&format!("RCPT TO:<{recipient}@example.net>")).await;
        assert!(reply.starts_with(expected), "{recipient}: {reply}");
    }
    assert!(client.ask("DATA").await.starts_with("354 "));
    assert!(client.ask(&format!("{}.", mail("three"))).await.starts_with("250 "));
    let reply = submit(&mut client, &["d@example.net"], "four").await;
    assert!(reply.starts_with("452 4.7.0 Listener 127.0.0.1:0 has used up its rate of 3/h"), "{reply}");
    scripted.until_messages(1).await;
    assert_eq!(scripted.messages()[0].recipients.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_rule_or_rate_refuses_counts_in_none() {
    let scripted = ScriptedUpstream::start().await;
    let users = [("app", "rate = \"2/h\""), ("other", "")];
    let gateway = setup(&scripted, "queue", "rate = \"4/h\"", &users).start(1);
    let mut app = logged_in(gateway.address(), Some("app")).await;
    let mut other = logged_in(gateway.address(), Some("other")).await;
    // Abandoned transactions, and messages that are refused at the final dot.
    for _ in 0..10 {
        drop(up_to_data(gateway.address(), &["a@example.net", "b@example.net"]).await);
        let reply = hand_in(gateway.address(), &["a@example.net"], "From: broken\r\nX: \0\r\n\r\nx\r\n").await;
        assert!(reply.starts_with("550 "), "{reply}");
    }
    for _ in 0..2 {
        assert!(submit(&mut app, &["you@example.net"], "app").await.starts_with("250 "));
    }
    for _ in 0..10 {
        assert!(submit(&mut app, &["you@example.net"], "app").await.starts_with("452 4.7.0 User \"app\""));
    }
    for _ in 0..2 {
        assert!(submit(&mut other, &["you@example.net"], "other").await.starts_with("250 "));
    }
    assert!(submit(&mut other, &["you@example.net"], "other").await.starts_with("452 4.7.0 Listener "));
    scripted.until_messages(4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_of_a_day_is_used_after_a_stop_and_after_a_kill() {
    let scripted = ScriptedUpstream::start().await;
    for over_rate in ["refuse", "wait"] {
        let lines = format!("rate = \"4/day\"\nover_rate = \"{over_rate}\"");
        let mut setup = setup(&scripted, "queue", "", &[("app", &lines)]);
        for round in 0..4 {
            let gateway = setup.start(1);
            let mut app = logged_in(gateway.address(), Some("app")).await;
            assert!(submit(&mut app, &["you@example.net"], &format!("{over_rate} {round}")).await.starts_with("250 "));
            drop(app);
            setup = if round % 2 == 0 { gateway.kill().1 } else { gateway.stop().2 };
        }
        let gateway = setup.config_with(&lines, "rate = \"4/day\"");
        let gateway = gateway.start(1);
        let mut app = logged_in(gateway.address(), Some("app")).await;
        let reply = submit(&mut app, &["you@example.net"], "one too many").await;
        assert!(reply.starts_with("452 4.7.0 User \"app\" has used up its rate of 4/day"), "{over_rate}: {reply}");
        let mut without = logged_in(gateway.address(), None).await;
        assert!(submit(&mut without, &["you@example.net"], "without").await.starts_with("250 "));
    }
}

fn listed(gateway: &Gateway) -> Value {
    serde_json::from_slice(&gateway.output(&["queue", "list", "--json"]).stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_waits_says_for_whose_rate_and_a_retry_sends_it_at_once() {
    let scripted = ScriptedUpstream::start().await;
    let users = [("app", "rate = \"2/h\"\nover_rate = \"wait\""), ("other", "")];
    let gateway = setup(&scripted, "queue", "", &users).start(1);
    let mut app = logged_in(gateway.address(), Some("app")).await;
    for subject in numbered(5) {
        let reply = submit(&mut app, &["you@example.net", "me@example.net"], &subject).await;
        assert!(reply.starts_with("250 2.0.0 Queued as "), "{reply}");
    }
    let mut other = logged_in(gateway.address(), Some("other")).await;
    assert!(submit(&mut other, &["you@example.net"], "other").await.starts_with("250 "));
    scripted.until_messages(2).await;
    assert_eq!(subjects(&scripted), ["0000", "other"]);
    tokio::task::spawn_blocking(move || {
        let value = listed(&gateway);
        let messages = value["messages"].as_array().unwrap();
        assert_eq!(messages.len(), 4, "{value}");
        let mut until = Vec::new();
        for message in messages {
            let hold = &message["recipients"][0]["hold"];
            assert_eq!(hold["by"], "submission_rate", "{value}");
            assert!(hold["text"].as_str().unwrap().contains("User \"app\" has used up its rate of 2/h"), "{value}");
            until.push(hold["until"].as_str().unwrap().to_owned());
        }
        let mut distinct = until.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct, until, "spread out, in the order in which they came");
        let text = String::from_utf8(gateway.output(&["queue", "list"]).stdout).unwrap();
        assert!(text.contains("4 waiting for the rate of their user or listener on lane default"), "{text}");
        assert!(text.contains("submission rate, "), "{text}");
        let id = messages[2]["id"].as_str().unwrap().to_owned();
        let shown = String::from_utf8(gateway.output(&["queue", "show", &id]).stdout).unwrap();
        assert!(shown.contains("has used up its rate of 2/h"), "{shown}");
        assert!(gateway.output(&["queue", "retry", &id]).status.success());
        eventually("the retried mail", || scripted.messages().len() == 3);
        assert_eq!(subjects(&scripted), ["0000", "0003", "other"]);
        let (log, setup) = gateway.kill();
        assert_eq!(lines(&log, &["has used up its rate", "accepted and waits", "\"user\":\"app\""]), 1);
        // What waits stays where it is, and what comes next waits behind it.
        let gateway = setup.start(1);
        let value = listed(&gateway);
        assert_eq!(value["messages"].as_array().unwrap().len(), 3, "{value}");
        assert_eq!(value["messages"][0]["recipients"][0]["hold"]["until"], until[0].as_str());
        gateway
    })
    .await
    .map(drop)
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_waits_is_sent_in_the_end_and_never_above_the_rate() {
    const MAILS: usize = 36;
    let scripted = ScriptedUpstream::start().await;
    let gateway = setup(&scripted, "queue", "rate = \"10/s\"\nover_rate = \"wait\"", &[]).start(1);
    let mut client = logged_in(gateway.address(), None).await;
    for subject in numbered(MAILS) {
        assert!(submit(&mut client, &["you@example.net"], &subject).await.starts_with("250 "));
    }
    scripted.until_messages(MAILS).await;
    assert_eq!(subjects(&scripted), numbered(MAILS));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_client_waits_for_the_provider_mail_over_the_rate_is_refused() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = setup(&scripted, "direct", "rate = \"2/h\"", &[]).start(1);
    let mut client = logged_in(gateway.address(), None).await;
    for _ in 0..2 {
        assert!(submit(&mut client, &["you@example.net"], "mail").await.starts_with("250 "));
    }
    assert!(submit(&mut client, &["you@example.net"], "mail").await.starts_with("452 4.7.0 "));
    assert_eq!(scripted.messages().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_is_submitted_again_and_answered_by_the_first_id_does_not_count() {
    let scripted = ScriptedUpstream::start().await;
    let setup = queued_in_front_of(&scripted, "", "deduplicate = \"10m\"")
        .config_with("delivery = \"queue\"\n", "delivery = \"queue\"\nrate = \"3/h\"\n");
    let gateway = setup.start(1);
    let named = |id: u32| format!("Message-ID: <{id}@app.example>\r\n{}", mail("mail"));
    for id in 0..2 {
        let first = hand_in(gateway.address(), &["you@example.net"], &named(id)).await;
        for _ in 0..5 {
            assert_eq!(hand_in(gateway.address(), &["you@example.net"], &named(id)).await, first);
        }
    }
    assert!(hand_in(gateway.address(), &["you@example.net"], &named(3)).await.starts_with("250 "));
    let mut client = logged_in(gateway.address(), None).await;
    assert!(submit(&mut client, &["you@example.net"], "one too many").await.starts_with("452 4.7.0 "));
}
