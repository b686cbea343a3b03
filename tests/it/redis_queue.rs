//! Several gateways, one queue in Redis: any of them accepts, any of them delivers, and the cap is that of all together.

use crate::support::application::{hand_in, mail, numbered, queued_in_front_of, subjects};
use crate::support::gateway::Gateway;
use crate::support::provider::Provider;
use crate::support::redis::RedisServer;
use crate::support::until;
use crate::support::upstream::ScriptedUpstream;

const YOU: [&str; 1] = ["you@example.net"];

/// `None` after saying that the test is skipped.
fn redis() -> Option<RedisServer> {
    RedisServer::start()
}

/// Lines of [queue].
fn in_redis(server: &RedisServer) -> String {
    format!("backend = \"redis\"\n[queue.redis]\nurl = \"{}\"", server.url())
}

async fn submit(gateway: &Gateway, subjects: &[String]) {
    for subject in subjects {
        let reply = hand_in(gateway.address(), &YOU, &mail(subject)).await;
        assert!(reply.starts_with("250 "), "{reply}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_gateway_accepts_and_delivers_and_together_they_keep_the_cap() {
    let Some(server) = redis() else { return };
    let scripted = ScriptedUpstream::start().await;
    let start = || queued_in_front_of(&scripted, "max_connections = 3", &in_redis(&server)).start(1);
    let gateways = [start(), start()];
    let all = numbered(40);
    let (left, right) = all.split_at(20);
    tokio::join!(submit(&gateways[0], left), submit(&gateways[1], right));
    until("everything has arrived", || scripted.messages().len() >= all.len()).await;
    assert_eq!(subjects(&scripted), all, "each once");
    assert!(scripted.counts().max <= 3, "{:?}", scripted.counts());
    for gateway in &gateways {
        let rows = || {
            let listed = gateway.output(&["queue", "list", "--history"]);
            String::from_utf8_lossy(&listed.stdout).lines().filter(|line| line.contains("queued as SCRIPTED")).count()
        };
        until("each shows the whole queue", || rows() == all.len()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_had_accepted_another_one_delivers() {
    let Some(server) = redis() else { return };
    let provider = Provider::away();
    let setup = || provider.queued("", &in_redis(&server));
    let first = setup().start(1);
    submit(&first, &numbered(10)).await;
    let second = setup().start(1);
    tokio::task::spawn_blocking(|| first.stop()).await.unwrap();
    let scripted = provider.start().await;
    until("the other one delivers", || scripted.messages().len() >= 10).await;
    assert_eq!(subjects(&scripted), numbered(10));
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_takes_back_what_it_had_leased() {
    let Some(server) = redis() else { return };
    let provider = Provider::away();
    let gateway = provider.queued("", &in_redis(&server)).start(1);
    submit(&gateway, &numbered(5)).await;
    let (_, setup) = tokio::task::spawn_blocking(|| gateway.kill()).await.unwrap();
    let scripted = provider.start().await;
    let _again = setup.start(1);
    until("everything has arrived", || scripted.messages().len() >= 5).await;
    assert_eq!(subjects(&scripted), numbered(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_can_lose_mail_is_refused_and_one_that_lost_it_is_adopted_on_request() {
    let Some(server) = redis() else { return };
    let provider = Provider::away();
    let setup = || provider.queued("", &in_redis(&server));
    server.config_set("appendfsync", "everysec");
    let refused = setup().output(&["run"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("appendfsync"), "{said}");
    server.config_set("appendfsync", "always");

    let gateway = setup().start(1);
    submit(&gateway, &numbered(3)).await;
    let (status, _, setup) = tokio::task::spawn_blocking(|| gateway.stop()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    server.command(&["FLUSHALL"]);
    let refused = setup.output(&["run"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("waxseal queue adopt") && said.contains('3'), "{said}");
    let adopted = setup.output(&["queue", "adopt", "--yes"]);
    assert!(adopted.status.success(), "{}", String::from_utf8_lossy(&adopted.stderr));
    assert!(String::from_utf8_lossy(&adopted.stdout).contains("3 messages"));
    let gateway = setup.start(1);
    submit(&gateway, &numbered(1)).await;
}

/// What `queue instances` says of the one of this name.
fn instance(gateway: &Gateway, name: &str) -> serde_json::Value {
    let answer = gateway.output(&["queue", "instances", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&answer.stdout).expect("JSON");
    let rows = listed["instances"].as_array().expect("a list").clone();
    rows.into_iter().find(|row| row["name"] == name).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_gone_for_good_is_forgotten_and_one_that_runs_is_not() {
    let Some(server) = redis() else { return };
    let scripted = ScriptedUpstream::start().await;
    let start = |name: &str| {
        let queue = format!("{}\ninstance = \"{name}\"", in_redis(&server));
        queued_in_front_of(&scripted, "", &queue).start(1)
    };
    let (left, right) = (start("left"), start("right"));
    submit(&left, &numbered(1)).await;
    until("it is delivered", || !scripted.messages().is_empty()).await;
    assert_eq!(instance(&right, "left")["is_alive"], true);
    let table = String::from_utf8_lossy(&right.output(&["queue", "instances"]).stdout).into_owned();
    assert!(table.contains("right (this one)") && table.contains("company: "), "{table}");
    for (name, word) in [("left", "runs"), ("nobody", "no instance")] {
        let refused = right.output(&["queue", "forget", name, "--yes"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains(word), "{said}");
    }
    let (_, setup) = tokio::task::spawn_blocking(|| left.kill()).await.unwrap();
    // As if some time had passed.
    let id = instance(&right, "left")["id"].as_str().expect("an id").to_owned();
    server.command(&["HSET", "{wax:0}:inst", &id, r#"{"name":"left","seen":1}"#]);
    let unconfirmed = right.output(&["queue", "forget", "left"]);
    assert_eq!(unconfirmed.status.code(), Some(2), "there is no terminal to ask on");
    let forgotten = right.output(&["queue", "forget", "left", "--yes"]);
    let said = String::from_utf8_lossy(&forgotten.stdout).into_owned();
    assert!(forgotten.status.success() && said.contains("left is forgotten"), "{said}");
    assert!(instance(&right, "left").is_null());
    // Beside no gateway, and it is in the list again once it runs.
    let listed = setup.output(&["queue", "instances", "--json"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("\"right\""));
    let _again = setup.start(1);
    assert_eq!(instance(&right, "left")["is_alive"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_fallback_mail_is_taken_without_redis_and_arrives_once_when_it_is_back() {
    let Some(mut server) = redis() else { return };
    let scripted = ScriptedUpstream::start().await;
    let queue = format!("{}\nfallback = \"sqlite\"", in_redis(&server));
    let setup = queued_in_front_of(&scripted, "", &queue);
    let checked = setup.output(&["check"]);
    assert!(String::from_utf8_lossy(&checked.stdout).contains("moved into Redis"), "{checked:?}");
    let gateway = setup.start(1);
    let all = numbered(9);
    submit(&gateway, &all[..3]).await;
    until("Redis delivers", || scripted.messages().len() == 3).await;
    server.kill();
    submit(&gateway, &all[3..6]).await;
    let said =
        |gateway: &Gateway, arguments: &[&str]| String::from_utf8_lossy(&gateway.output(arguments).stdout).into_owned();
    let listed = said(&gateway, &["queue", "list"]);
    assert!(listed.contains("in the spool") && listed.contains("Redis does not answer"), "{listed}");
    assert!(said(&gateway, &["status"]).contains("waits in the spool"), "{}", said(&gateway, &["status"]));
    assert_eq!(scripted.messages().len(), 3, "nothing is delivered from the spool");
    let (_, setup) = tokio::task::spawn_blocking(|| gateway.kill()).await.unwrap();
    let listed = setup.output(&["queue", "list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("3 messages"), "{listed:?}");
    // It starts without Redis, and so stops.
    let gateway = setup.start(1);
    submit(&gateway, &all[6..]).await;
    let (status, _, setup) = tokio::task::spawn_blocking(|| gateway.stop()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    let gateway = setup.start(1);
    server.restart();
    until("all has arrived", || scripted.messages().len() >= all.len()).await;
    assert_eq!(subjects(&scripted), all, "each once");
    until("nothing is left", || said(&gateway, &["queue", "list"]).contains("The queue is empty")).await;
}
