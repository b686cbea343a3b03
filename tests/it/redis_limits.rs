//! The limits of a provider's account, over all gateways that share a queue: under load, with a gateway that is frozen while it
//! has connections, and with one that is killed and started again.

use crate::support::application::{SENDER, hand_in_many, numbered, queued_in_front_of, subjects};
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::RedisServer;
use crate::support::until;
use crate::support::upstream::{Action, At, ScriptedUpstream};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

const CAP: usize = 6;
const COUNT: usize = 3;

fn setup(scripted: &ScriptedUpstream, server: &RedisServer, lines: &str) -> Setup {
    let queue = format!("backend = \"redis\"\n[queue.redis]\nurl = \"{}\"", server.url());
    queued_in_front_of(scripted, &format!("max_connections = {CAP}\n{lines}"), &queue)
}

fn all_of(scripted: &ScriptedUpstream, server: &RedisServer, lines: &str) -> Vec<Gateway> {
    (0..COUNT).map(|_| setup(scripted, server, lines).start(1)).collect()
}

async fn submit(gateway: &Gateway, subjects: &[String]) {
    hand_in_many(gateway.address(), SENDER, "you@example.net", subjects).await;
}

/// To each of them the same number.
async fn submit_to_all(gateways: &[Gateway], subjects: &[String]) {
    for (gateway, subjects) in gateways.iter().zip(subjects.chunks(subjects.len() / gateways.len())) {
        submit(gateway, subjects).await;
    }
}

fn assert_cap(scripted: &ScriptedUpstream) {
    assert!(scripted.counts().max <= CAP, "{:?}", scripted.counts());
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_the_gateways_together_keep_the_cap_and_the_rate() {
    const RATE: usize = 30;
    let Some(server) = RedisServer::start() else { return };
    let scripted = ScriptedUpstream::start().await;
    let gateways = all_of(&scripted, &server, &format!("rate = \"{RATE}/s\""));
    let all = numbered(150);
    let each = all.chunks(all.len() / COUNT);
    let [one, two, three] = &each.collect::<Vec<_>>()[..] else { panic!("three gateways") };
    tokio::join!(submit(&gateways[0], one), submit(&gateways[1], two), submit(&gateways[2], three));
    until("everything has arrived", || scripted.messages().len() >= all.len()).await;
    assert_eq!(subjects(&scripted), all, "each once");
    assert_cap(&scripted);
    let most = scripted.most_within(Duration::from_secs(1));
    assert!(most <= RATE, "{most} in a second");
}

/// It keeps its connections, though it does not say so any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_gateways_connections_count_and_it_goes_on_within_the_cap() {
    let Some(server) = RedisServer::start() else { return };
    let scripted = ScriptedUpstream::start().await;
    let answers = Arc::new(Semaphore::new(0));
    scripted.always(At::Dot, Action::OnceAllowed(answers.clone()));
    let gateways = all_of(&scripted, &server, "");
    let all = numbered(120);
    submit_to_all(&gateways, &all).await;
    scripted.until_messages(CAP).await;
    assert_eq!(scripted.counts().now, CAP, "the cap is used up");
    gateways[0].signal("STOP");
    // The others go on with what they have, also after the time at which the frozen one counts as gone.
    for _ in 0..140 {
        answers.add_permits(1);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_cap(&scripted);
    }
    gateways[0].signal("CONT");
    answers.add_permits(2 * all.len());
    until("everything has arrived", || scripted.messages().len() >= all.len()).await;
    assert_eq!(subjects(&scripted), all, "each once");
    assert_cap(&scripted);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_permits_of_a_killed_gateway_are_free_when_it_is_back() {
    let Some(server) = RedisServer::start() else { return };
    let scripted = ScriptedUpstream::start().await;
    let answers = Arc::new(Semaphore::new(0));
    scripted.always(At::Dot, Action::OnceAllowed(answers.clone()));
    let mut gateways = all_of(&scripted, &server, "");
    let all = numbered(30);
    // One gateway has the whole cap when it is killed.
    let killed = gateways.remove(0);
    submit(&killed, &all[..20]).await;
    scripted.until_messages(1).await;
    let (_, left) = tokio::task::spawn_blocking(|| killed.kill()).await.unwrap();
    answers.add_permits(10 * all.len());
    scripted.until_alone().await;
    submit(&gateways[0], &all[20..]).await;
    gateways.push(tokio::task::spawn_blocking(|| left.start(1)).await.unwrap());
    let distinct = || {
        let mut arrived = subjects(&scripted);
        arrived.dedup();
        arrived.len()
    };
    until("everything has arrived", || distinct() >= all.len()).await;
    assert_cap(&scripted);
}
