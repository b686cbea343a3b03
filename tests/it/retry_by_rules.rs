//! "Sender not verified": mail that failed for its sender is sent once a rule sets another From; `waxseal queue retry
//! --rules`.

use crate::support::application::{field, hand_in, mail, queued_in_front_of};
use crate::support::gateway::{Gateway, Setup};
use crate::support::upstream::{Rules, ScriptedUpstream};
use serde_json::{Value, json};

const YOU: &[&str] = &["you@example.net"];
const RULE: &str =
    "[[rewrite]]\nname = \"verified\"\nset_from = \"Reports <verified@example.com>\"\nsubject_prefix = \"[new] \"\n";

/// A provider that knows one sender.
async fn strict() -> ScriptedUpstream {
    fn verified_only(message: &[u8]) -> Option<&'static str> {
        let is_verified = field(message, "From").contains("verified@example.com");
        (!is_verified).then_some("554 5.7.1 The from address does not match a verified Sender Identity")
    }
    let rules = Rules { message: verified_only, ..Rules::default() };
    ScriptedUpstream::builder().rules(rules, &["PIPELINING", "8BITMIME", "SMTPUTF8", "AUTH PLAIN LOGIN"]).start().await
}

async fn stopped(gateway: Gateway) -> Setup {
    let (_, _, setup) = tokio::task::spawn_blocking(|| gateway.stop()).await.unwrap();
    setup
}

/// Mail with these subjects that the provider refused, in a gateway that has stopped; their names.
async fn failed(scripted: &ScriptedUpstream, subjects: &[&str]) -> (Setup, Vec<String>) {
    let gateway = queued_in_front_of(scripted, "", "").start(1);
    let mut ids = Vec::new();
    for subject in subjects {
        let reply = hand_in(gateway.address(), YOU, &mail(subject)).await;
        let id = reply.strip_prefix("250 2.0.0 Queued as ").unwrap_or_else(|| panic!("{reply}")).to_owned();
        gateway.wait_for_line(&["\"failed\"", &id, "verified Sender Identity"]);
        ids.push(id);
    }
    (stopped(gateway).await, ids)
}

fn with_rules(setup: Setup, rules: &str) -> Setup {
    setup.config_with("[queue]\n", &format!("{rules}[queue]\n"))
}

async fn run(mut command: std::process::Command) -> (i32, String, String) {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

async fn both_arrived(scripted: &ScriptedUpstream) {
    scripted.until_messages(2).await;
    let mut subjects: Vec<_> = scripted.messages().iter().map(|message| field(&message.data, "Subject")).collect();
    subjects.sort_unstable();
    assert_eq!(subjects, ["[new] one", "[new] two"]);
    for message in scripted.messages() {
        assert_eq!(field(&message.data, "From"), "Reports <verified@example.com>");
        assert_eq!(message.recipients, YOU);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_running_gateway_its_own_rules_are_followed() {
    let scripted = strict().await;
    let (setup, ids) = failed(&scripted, &["one", "two"]).await;
    let gateway = with_rules(setup, RULE).start(1);
    let (status, text, complaints) = run(gateway.command(&["queue", "retry", &ids[0], &ids[1], "--rules"])).await;
    assert_eq!((status, complaints.as_str()), (0, ""), "{text}");
    let line = |id: &str| format!("{id}: rewritten by verified; changed: From, Subject\n");
    assert_eq!(text, format!("{}{}Due now: 2 messages for 2 recipients.\n", line(&ids[0]), line(&ids[1])));
    both_arrived(&scripted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_gateway_the_configurations_rules_are_followed() {
    let scripted = strict().await;
    let (setup, ids) = failed(&scripted, &["one", "two"]).await;
    let setup = with_rules(setup, RULE);
    let filters = ["queue", "retry", "--all", "--state", "failed", "--rules", "--json"];
    let (status, text, complaints) = run(setup.command(&filters)).await;
    assert_eq!((status, complaints.as_str()), (0, ""), "{text}");
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&value["messages"], &value["recipients"]), (&json!(2), &json!(2)));
    let ruled = |id: &str| json!({ "id": id, "result": "rewritten", "rules": ["verified"], "changed": ["From", "Subject"], "recipients": 1 });
    assert_eq!(value["rulings"], json!([ruled(&ids[0]), ruled(&ids[1])]));
    let _gateway = setup.start(1);
    both_arrived(&scripted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rule_would_not_take_stays_as_it_is_and_is_named() {
    let scripted = strict().await;
    let (setup, ids) = failed(&scripted, &["one", "two", "three"]).await;
    let rules = "[[rewrite]]\nname = \"a\"\nheader = { Subject = \"one\" }\nrefuse = \"not any more\"\n\
                 [[rewrite]]\nname = \"b\"\nheader = { Subject = \"two\" }\ndiscard = true\n";
    let setup = with_rules(setup, &format!("{rules}{RULE}"));
    let show = |id: &str| run(setup.command(&["queue", "show", id, "--json"]));
    let before = [show(&ids[0]).await, show(&ids[1]).await];
    let (status, text, complaints) = run(setup.command(&["queue", "retry", "--all", "--rules"])).await;
    assert_eq!(status, 1);
    for words in [
        format!("{}: left as it is: the rule \"a\" refuses it: not any more\n", ids[0]),
        format!("{}: left as it is: the rule \"b\" discards it; `waxseal queue remove {}` does so\n", ids[1], ids[1]),
    ] {
        assert!(complaints.contains(&words), "{words}{complaints}");
    }
    assert!(text.contains(&format!("{}: rewritten by verified", ids[2])), "{text}");
    assert_eq!([show(&ids[0]).await, show(&ids[1]).await], before);
    let (status, _, complaints) = run(setup.command(&["queue", "retry", "0000000000000000", "--rules"])).await;
    assert!(status == 1 && complaints.contains("0000000000000000: it is not in the queue"), "{complaints}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_cannot_be_read_are_not_followed() {
    let scripted = strict().await;
    let (setup, ids) = failed(&scripted, &["one"]).await;
    let setup = with_rules(setup, "[[rewrite]]\nset_form = \"verified@example.com\"\n");
    let (status, text, complaints) = run(setup.command(&["queue", "retry", &ids[0], "--rules"])).await;
    assert_eq!((status, text.as_str()), (2, ""));
    assert!(complaints.contains("did you mean `set_from`?"), "{complaints}");
    let (status, _, complaints) = run(setup.command(&["queue", "retry", &ids[0], "--rules", "--to", "a@b"])).await;
    assert!(status == 2 && complaints.contains("--to"), "{complaints}");
}
