//! Why mail waits, according to `waxseal queue list` and `show`, beside a running gateway and without one.

use crate::support::application::{hand_in, mail, queued_in_front_of};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::ports::ReservedPort;
use crate::support::upstream::{Action, At, ScriptedUpstream};
use serde_json::Value;

fn said(gateway: &Gateway, arguments: &[&str]) -> String {
    let output = gateway.output(&[&["queue"], arguments].concat());
    String::from_utf8(output.stdout).unwrap()
}

fn listed(gateway: &Gateway) -> Value {
    serde_json::from_str(&said(gateway, &["list", "--json"])).unwrap()
}

/// What holds each waiting recipient.
fn holds(gateway: &Gateway) -> Vec<Value> {
    let value = listed(gateway);
    let rows = value["messages"].as_array().unwrap().clone();
    let recipients = rows.iter().flat_map(|row| row["recipients"].as_array().unwrap().clone());
    recipients.filter(|recipient| recipient["state"] == "waiting").map(|recipient| recipient["hold"].clone()).collect()
}

/// Until a recipient is held by this; the list and `show` of its message then say these words.
async fn is_held_by(gateway: Gateway, by: &'static str, words: &'static [&'static str]) -> Gateway {
    tokio::task::spawn_blocking(move || {
        eventually(by, || holds(&gateway).iter().any(|hold| hold["by"] == by));
        eventually("the words", || {
            let text = said(&gateway, &["list"]);
            words.iter().all(|word| text.contains(word))
        });
        gateway
    })
    .await
    .unwrap()
}

async fn with_mail(setup: Setup, number: usize) -> Gateway {
    let gateway = setup.start(1);
    for number in 0..number {
        assert!(
            hand_in(gateway.address(), &["you@example.net"], &mail(&format!("{number}"))).await.starts_with("250 ")
        );
    }
    gateway
}

const NEVER: &str = "retry = { first = \"1h\", longest = \"2h\" }";

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_away_is_named_with_the_reason_and_the_next_try() {
    let scripted = ScriptedUpstream::start().await;
    let port = ReservedPort::take();
    let setup = queued_in_front_of(&scripted, "", "retry = { first = \"1s\", longest = \"1h\" }")
        .config_with(&format!("port = {}\n", scripted.address().port()), &format!("port = {}\n", port.number));
    let gateway = with_mail(setup, 3).await;
    let gateway = is_held_by(
        gateway,
        "breaker",
        &["waiting for company: ", "connection refused", "; next try in ", "breaker open, "],
    )
    .await;
    let (_, _, setup) = tokio::task::spawn_blocking(|| gateway.stop()).await.unwrap();
    // Without a gateway nothing is tried, even if it is due.
    let output = setup.output(&["queue", "list"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("The gateway is not running: 3 waiting for it.\n\n"), "{text}");
    assert_eq!(text.matches("gateway stopped").count(), 3, "{text}");
    let value: Value = serde_json::from_slice(&setup.output(&["queue", "list", "--json"]).stdout).unwrap();
    assert_eq!(value["gateway_running"], false);
    assert_eq!(value["messages"][0]["recipients"][0]["hold"]["by"], "gateway_stopped", "{value}");
    let id = value["messages"][0]["id"].as_str().unwrap();
    let shown = String::from_utf8(setup.output(&["queue", "show", id]).stdout).unwrap();
    assert!(shown.contains("you@example.net: gateway stopped"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_used_up_is_named_with_its_end() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = with_mail(queued_in_front_of(&scripted, "rate = \"1/day\"\n", ""), 3).await;
    let gateway =
        is_held_by(gateway, "quota", &["2 waiting for company: its quota of 1/day is reached; next try in "]).await;
    let value = tokio::task::spawn_blocking(move || listed(&gateway)).await.unwrap();
    let hold = &value["messages"][1]["recipients"][0]["hold"];
    assert!(hold["until"].is_string() && hold["upstream"] == "company", "{value}");
    assert_eq!(value["gateway_running"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_connections_busy_is_told() {
    let scripted = ScriptedUpstream::builder().always(At::Dot, Action::Stall).start().await;
    let gateway = with_mail(queued_in_front_of(&scripted, "max_connections = 1\n", ""), 3).await;
    is_held_by(
        gateway,
        "connections",
        &["company: its one connection is busy (`max_connections`)", "connections busy"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_told() {
    let scripted = ScriptedUpstream::start().await;
    let lines = "rate = \"10/min\"\nmax_connections = 1\n";
    let gateway = with_mail(queued_in_front_of(&scripted, lines, ""), 8).await;
    is_held_by(gateway, "rate", &["waiting for company: its `rate` spaces the mail out"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipients_own_trouble_is_a_backoff_with_its_reason() {
    let scripted = ScriptedUpstream::builder().recipient("you@", "450 4.2.1 mailbox busy").start().await;
    let gateway = with_mail(queued_in_front_of(&scripted, "", NEVER), 1).await;
    let words = &["1 waiting for the next try on lane default", "next try in ", "450 4.2.1 mailbox busy"];
    is_held_by(gateway, "backoff", words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_holds_is_held_whatever_else_there_is() {
    let scripted = ScriptedUpstream::start().await;
    let gateway = queued_in_front_of(&scripted, "", NEVER).start(1);
    let gateway = tokio::task::spawn_blocking(move || {
        assert!(gateway.output(&["queue", "hold", "default"]).status.success());
        gateway
    })
    .await
    .unwrap();
    hand_in(gateway.address(), &["you@example.net"], &mail("held")).await;
    let words = &["1 held on lane default", "  held  ", "resume it with: waxseal queue release default"];
    is_held_by(gateway, "operator", words).await;
}
