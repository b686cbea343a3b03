//! `[storm]`: an application that sends the same mail again and again has the surplus held, with one line in the log, until an
//! operator releases or removes it. Everything else goes its way.

use crate::support::application::{
    SENDER, hand_in, hand_in_many, in_front_of, mail, mail_from, numbered, queued_in_front_of, subjects,
};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::upstream::ScriptedUpstream;
use serde_json::Value;

const STORM: &str = "[storm]\nmore_than = 3\nwithin = \"10m\"\n";

/// The log's lines with all of these words.
fn lines(log: &[String], words: &[&str]) -> usize {
    log.iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

fn listed(gateway: &Gateway, more: &[&str]) -> Value {
    let output = gateway.output(&[&["queue", "list", "--json"], more].concat());
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn repeated(gateway: &Gateway, recipient: &str, subject: &str, times: usize) {
    hand_in_many(gateway.address(), SENDER, recipient, &vec![subject.to_owned(); times]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_surplus_of_equal_mails_is_held_with_one_line_and_released_by_hand() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = queued_in_front_of(&scripted, STORM, "").start(1);
    repeated(&gateway, "you@example.net", "again", 20).await;
    repeated(&gateway, "you@example.net", "another subject", 3).await;
    repeated(&gateway, "me@example.net", "again", 3).await;
    let other = "other@example.com";
    hand_in_many(gateway.address(), other, "you@example.net", &vec!["again".to_owned(); 3]).await;
    hand_in_many(gateway.address(), SENDER, "you@example.net", &numbered(20)).await;
    scripted.until_messages(3 + 9 + 20).await;
    tokio::task::spawn_blocking(move || {
        let value = listed(&gateway, &["--state", "held"]);
        let messages = value["messages"].as_array().unwrap();
        assert_eq!(messages.len(), 17, "{value}");
        let recipient = &messages[0]["recipients"][0];
        assert_eq!((&recipient["state"], &recipient["hold"]["by"]), (&"held".into(), &"storm".into()), "{value}");
        assert!(
            recipient["hold"]["text"].as_str().unwrap().starts_with("more than 3 mails with this sender"),
            "{value}"
        );
        let text = String::from_utf8(gateway.output(&["queue", "list"]).stdout).unwrap();
        assert!(text.contains("17 held by [storm] on lane default"), "{text}");
        // All lanes are another thing.
        assert!(!gateway.output(&["queue", "release", "--all"]).status.success());
        let id = messages[0]["id"].as_str().unwrap().to_owned();
        assert!(gateway.output(&["queue", "release", &id]).status.success());
        eventually("the one that was released", || scripted.messages().len() == 33);
        let remove = ["queue", "remove", "--all", "--yes", "--state", "held", "--recipient", "you@example.net"];
        assert!(gateway.output(&remove).status.success());
        assert_eq!(listed(&gateway, &[])["messages"].as_array().unwrap().len(), 0);
        let (_, log, _) = gateway.stop();
        assert_eq!(scripted.messages().len(), 33);
        let begin =
            lines(&log, &["a storm of equal mails", "queue release --all --state held --recipient you@example.net"]);
        assert_eq!(begin, 1, "one line for seventeen mails");
        assert_eq!(lines(&log, &["storm of equal mails: the gateway stops; 17 mails held", "\"held\":17"]), 1);
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_recipients_of_a_held_mail_get_it_in_either_mode() {
    for direct in [false, true] {
        let scripted = ScriptedUpstream::start().await;
        let setup = if direct { in_front_of(&scripted, STORM) } else { queued_in_front_of(&scripted, STORM, "") };
        let gateway = setup.start(1);
        for _ in 0..3 {
            assert!(hand_in(gateway.address(), &["you@example.net"], &mail("again")).await.starts_with("250 "));
        }
        let recipients = ["a@example.net", "you@example.net", "b@example.net"];
        assert!(hand_in(gateway.address(), &recipients, &mail("again")).await.starts_with("250 "));
        let reply = hand_in(gateway.address(), &["you@example.net"], &mail("again")).await;
        assert!(reply.starts_with("250 2.0.0 Queued as "), "direct: {direct}: {reply}");
        scripted.until_messages(4).await;
        tokio::task::spawn_blocking(move || {
            assert_eq!(scripted.messages()[3].recipients, ["a@example.net", "b@example.net"]);
            assert_eq!(listed(&gateway, &["--state", "held"])["messages"].as_array().unwrap().len(), 2);
            let release = ["queue", "release", "--all", "--state", "held"];
            assert!(gateway.output(&release).status.success());
            eventually("both held mails", || scripted.messages().len() == 6);
            assert!(scripted.messages()[4..].iter().all(|message| message.recipients == ["you@example.net"]));
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_stays_held_over_a_kill_and_counting_begins_again() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = queued_in_front_of(&scripted, STORM, "").start(1);
    repeated(&gateway, "you@example.net", "again", 5).await;
    scripted.until_messages(3).await;
    let (_, setup) = tokio::task::spawn_blocking(|| gateway.kill()).await.unwrap();
    let gateway = setup.start(1);
    repeated(&gateway, "you@example.net", "again", 4).await;
    scripted.until_messages(6).await;
    let held = tokio::task::spawn_blocking(move || listed(&gateway, &["--state", "held"])).await.unwrap();
    assert_eq!(held["messages"].as_array().unwrap().len(), 3, "{held}");
    assert_eq!(subjects(&scripted), ["again"; 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_is_submitted_again_and_known_does_not_count() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = queued_in_front_of(&scripted, STORM, "deduplicate = \"10m\"").start(1);
    let named = |id: u32| format!("Message-ID: <{id}@app.example>\r\n{}", mail("again"));
    for id in 0..3 {
        for _ in 0..5 {
            assert!(hand_in(gateway.address(), &["you@example.net"], &named(id)).await.starts_with("250 "));
        }
    }
    scripted.until_messages(3).await;
    let held = |gateway: &Gateway| listed(gateway, &["--state", "held"])["messages"].as_array().unwrap().len();
    let gateway = tokio::task::spawn_blocking(move || {
        assert_eq!(held(&gateway), 0);
        gateway
    })
    .await
    .unwrap();
    hand_in(gateway.address(), &["you@example.net"], &named(9)).await;
    tokio::task::spawn_blocking(move || assert_eq!(held(&gateway), 1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn subjects_that_read_the_same_are_equal_however_they_are_encoded() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = queued_in_front_of(&scripted, STORM, "").start(1);
    for subject in ["=?UTF-8?Q?gr=C3=BCn?=", "=?UTF-8?B?Z3LDvG4=?=", "=?ISO-8859-1?Q?gr=FCn?=", "=?utf-8?q?gr=c3=bcn?="]
    {
        let message = mail_from(SENDER, subject);
        assert!(hand_in(gateway.address(), &["you@example.net"], &message).await.starts_with("250 "));
    }
    scripted.until_messages(3).await;
    let held = tokio::task::spawn_blocking(move || listed(&gateway, &["--state", "held"])).await.unwrap();
    assert_eq!(held["messages"].as_array().unwrap().len(), 1, "{held}");
}
