//! `waxseal queue` beside a running gateway: what an operator sees while the provider is unavailable and once it is
//! back.

use crate::support::application::{hand_in, mail, queued_in_front_of};
use crate::support::gateway::{Gateway, Setup};
use crate::support::upstream::{At, ScriptedUpstream};
use serde_json::Value;
use std::time::{Duration, Instant};

/// A guard against hanging.
const PATIENCE: Duration = Duration::from_secs(60);

struct Desk(Gateway);

impl Desk {
    async fn run(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = self.0.command(&[&["queue"], arguments].concat());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let complaints = String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned() + &complaints)
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let (_, text) = self.run(&[arguments, &["--json"]].concat()).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Repeats the command until the condition holds.
    async fn wait(&self, arguments: &[&str], is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.json(arguments).await;
            if is_so(&value) {
                return value;
            }
            assert!(
                Instant::now() < deadline,
                "{arguments:?} never came to it: {value:#}\n{}",
                self.0.log().join("\n")
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn queueing(scripted: &ScriptedUpstream) -> Setup {
    // Nothing is due again by itself while the test waits.
    queued_in_front_of(scripted, "", "retry = { first = \"1h\", longest = \"1h\" }")
}

/// `250 2.0.0 Queued as ID`
fn queued_as(reply: &str) -> String {
    let id = reply.strip_prefix("250 2.0.0 Queued as ").unwrap_or_else(|| panic!("{reply}"));
    id.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_message_is_shown_and_sent_on_retry() {
    let scripted = ScriptedUpstream::builder().once(At::Mail, "451 4.3.0 come back later").start().await;
    let desk = Desk(queueing(&scripted).start(1));
    let id = queued_as(&hand_in(desk.0.address(), &["you@example.net"], &mail("one")).await);
    let row = |value: &Value| value["messages"][0]["recipients"][0].clone();
    let list = desk.wait(&["list"], |value| row(value)["attempts"] == 1 && row(value)["state"] == "waiting").await;
    assert_eq!(list["messages"][0]["id"], id.as_str());
    let (_, text) = desk.run(&["show", &id]).await;
    assert!(text.contains("451 4.3.0 come back later") && text.contains("next try in "), "{text}");
    assert_eq!(desk.run(&["retry", &id]).await.0, 0);
    let history = desk.wait(&["list", "--history"], |value| value["delivered"][0]["id"] == id.as_str()).await;
    assert_eq!(history["delivered"][0]["recipients"], serde_json::json!(["you@example.net"]));
    assert_eq!(scripted.messages().len(), 1);
    assert_eq!(desk.json(&["list"]).await["messages"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_message_is_sent_to_the_right_address() {
    let scripted = ScriptedUpstream::builder().recipient("wrong@", "550 5.1.1 no such user").start().await;
    let desk = Desk(queueing(&scripted).start(1));
    let id = queued_as(&hand_in(desk.0.address(), &["wrong@example.net"], &mail("one")).await);
    desk.wait(&["list", "--state", "failed"], |value| value["messages"][0]["id"] == id.as_str()).await;
    let (_, content) = desk.run(&["show", &id, "--content"]).await;
    assert!(content.contains("Subject: one\r\n") && content.ends_with("Hello.\r\n"), "{content}");
    assert_eq!(desk.run(&["retry", &id, "--to", "right@example.net"]).await.0, 0);
    desk.wait(&["list", "--history"], |value| value["delivered"][0]["id"] == id.as_str()).await;
    assert_eq!(scripted.messages()[0].recipients, ["right@example.net"]);
}

/// Whatever holds back the old address, such as a hold, does not affect the new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_corrected_address_goes_by_its_own_route_at_once() {
    const ROUTES: &str = "[[route]]\nname = \"partners\"\nrecipients = [\"*@example.org\"]\nupstreams = [\"company\"]\n\
                          [[route]]\nname = \"others\"\nrecipients = [\"*\"]\nupstreams = [\"company\"]\n";
    let scripted = ScriptedUpstream::builder().recipient("wrong@", "550 5.1.1 no such user").start().await;
    let setup = queued_in_front_of(&scripted, ROUTES, "retry = { first = \"1h\", longest = \"1h\" }");
    let desk = Desk(setup.start(1));
    let mut ids = Vec::new();
    for subject in ["one", "two"] {
        ids.push(queued_as(&hand_in(desk.0.address(), &["wrong@example.net"], &mail(subject)).await));
    }
    desk.wait(&["list", "--state", "failed"], |value| value["messages"].as_array().unwrap().len() == 2).await;
    assert_eq!(desk.run(&["hold", "others"]).await.0, 0);
    assert_eq!(desk.run(&["retry", &ids[0], "--to", "right@example.org"]).await.0, 0);
    desk.wait(&["list", "--history"], |value| value["delivered"][0]["id"] == ids[0].as_str()).await;
    // Without a gateway the routes are those of the configuration.
    let (status, log, setup) = desk.0.stop();
    assert!(status.success(), "{}", log.join("\n"));
    let output = setup.output(&["queue", "retry", &ids[1], "--to", "right@example.org"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let output = setup.output(&["queue", "list", "--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let recipient = &value["messages"][0]["recipients"][0];
    assert_eq!((&recipient["address"], &recipient["lane"]), (&"right@example.org".into(), &"partners".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn held_mail_is_taken_and_leaves_when_it_is_released() {
    let scripted = ScriptedUpstream::builder().start().await;
    let desk = Desk(queueing(&scripted).start(1));
    assert_eq!(desk.run(&["hold", "default"]).await.0, 0);
    let id = queued_as(&hand_in(desk.0.address(), &["you@example.net"], &mail("one")).await);
    let (_, text) = desk.run(&["list"]).await;
    assert!(text.contains(&id) && text.contains("  held  "), "{text}");
    assert!(scripted.messages().is_empty());
    assert_eq!(desk.run(&["release", "default"]).await.0, 0);
    desk.wait(&["list", "--history"], |value| value["delivered"][0]["id"] == id.as_str()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_stopped_leaves_its_queue_to_the_commands() {
    let scripted = ScriptedUpstream::builder().always(At::Mail, "451 4.3.0 come back later").start().await;
    let desk = Desk(queueing(&scripted).start(1));
    let id = queued_as(&hand_in(desk.0.address(), &["you@example.net"], &mail("one")).await);
    let (status, log, setup) = desk.0.stop();
    assert!(status.success(), "{}", log.join("\n"));
    assert!(!setup.folder().join("data/control.sock").exists());
    let output = setup.output(&["queue", "list", "--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["messages"][0]["id"], id.as_str());
    assert_eq!(setup.output(&["queue", "remove", &id]).status.code(), Some(0));
    assert_eq!(setup.output(&["queue", "show", &id]).status.code(), Some(1));
}
