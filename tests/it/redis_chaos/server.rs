//! A Redis that is killed, frozen, made weaker or filled.

use super::*;
use crate::crash::load::hand_in;
use crate::support::upstream::{Action, At};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::block_in_place;

/// With and without time in which it is away. Nothing that was in flight may be sent twice: the gateways live.
pub async fn killed_server(scale: Scale, server: Option<RedisServer>, what: &str) -> Option<Row> {
    let mut server = server?;
    let mut campaign = Campaign::new().await;
    let mut gateways = Gateways::start(&campaign, &limits(), &in_redis(&server.url())).await;
    gateways.load(&campaign);
    for round in 0..scale.of(3, 50) {
        tokio::time::sleep(moment(round)).await;
        block_in_place(|| server.kill());
        tokio::time::sleep(moment(round + 1) * (round % 3) as u32).await;
        block_in_place(|| server.restart());
        campaign.fault(Vec::new());
    }
    gateways.drain(&mut campaign).await;
    Some(campaign.audit(&format!("SIGKILL of {what} under load of {COUNT} gateways"), 0))
}

/// With messages in flight, whose outcomes come while it is frozen.
pub async fn frozen_server(scale: Scale) -> Option<Row> {
    let server = redis()?;
    let in_flight = scale.of(6, 20);
    let mut campaign = Campaign::new().await;
    let answers = Arc::new(Semaphore::new(0));
    campaign.provider.always(At::Dot, Action::OnceAllowed(answers.clone()));
    let lines = format!("max_connections = {in_flight}");
    let gateways = Gateways::start(&campaign, &lines, &in_redis(&server.url())).await;
    for gateway in gateways.all() {
        hand_in(gateway.address(), in_flight, &campaign.acknowledged).await;
    }
    campaign.provider.until_messages(in_flight).await;
    server.freeze();
    campaign.fault(Vec::new());
    answers.add_permits(in_flight / 2);
    tokio::time::sleep(Duration::from_secs(scale.of(3, 60) as u64)).await;
    server.thaw();
    answers.add_permits(in_flight * COUNT);
    gateways.drain(&mut campaign).await;
    let most = campaign.provider.counts().max;
    assert!(most <= in_flight, "{most} connections instead of {in_flight}");
    let mut row = campaign.audit(&format!("SIGSTOP of Redis with {in_flight} in flight, SIGCONT"), 0);
    // The cap of this row is another one, which was checked above.
    row.most_connections = 0;
    Some(row)
}

/// `CONFIG SET appendfsync everysec`: mail is refused until that is undone, and deliveries go on or wait.
pub async fn weakened_server(scale: Scale) -> Option<Row> {
    let server = redis()?;
    let mut campaign = Campaign::new().await;
    let mut gateways = Gateways::start(&campaign, &limits(), &in_redis(&server.url())).await;
    gateways.load(&campaign);
    for round in 0..scale.of(1, 20) {
        tokio::time::sleep(moment(round)).await;
        server.config_set("appendfsync", if round % 2 == 0 { "everysec" } else { "no" });
        for gateway in gateways.all() {
            until_answered(gateway, "451 ").await;
            block_in_place(|| gateway.wait_for_line(&["cannot be used", "appendfsync is"]));
        }
        server.config_set("appendfsync", "always");
        for gateway in gateways.all() {
            until_answered(gateway, "250 ").await;
        }
        campaign.fault(Vec::new());
    }
    gateways.drain(&mut campaign).await;
    Some(campaign.audit("CONFIG SET appendfsync everysec or no, and back", 0))
}

/// New mail is refused, what is there is delivered, and a gateway that was killed starts in a full Redis.
pub async fn full_server(scale: Scale) -> Option<Row> {
    let server = redis()?;
    let mut campaign = Campaign::new().await.of_lines(2000);
    campaign.provider.always(At::Mail, "451 4.3.0 later");
    let mut gateways = Gateways::start(&campaign, &limits(), &in_redis(&server.url())).await;
    for round in 0..scale.of(1, 10) {
        server.config_set("maxmemory", "3mb");
        gateways.load(&campaign);
        for gateway in gateways.all() {
            until_answered(gateway, "452 ").await;
        }
        gateways.quiet().await;
        // Every write but those of the queue's own scripts is refused from now on.
        server.config_set("maxmemory", "1mb");
        gateways.kill_and_start(spread(round, COUNT), &mut campaign).await;
        campaign.provider.always(At::Mail, "250 2.1.0 ok");
        until_refused_at_full(&gateways).await;
        campaign.until_delivered().await;
        campaign.until_quiet().await;
        campaign.provider.always(At::Mail, "451 4.3.0 later");
    }
    server.config_set("maxmemory", "0");
    campaign.provider.always(At::Mail, "250 2.1.0 ok");
    gateways.drain(&mut campaign).await;
    // What was killed had nothing in the provider's hands.
    Some(campaign.audit("Redis full (maxmemory), drained by gateways of which one was killed", 0))
}

async fn until_refused_at_full(gateways: &Gateways) {
    for gateway in gateways.all() {
        until_answered(gateway, "452 ").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_when_redis_is_killed_under_load() {
    let row = killed_server(Scale::Short, redis(), "Redis").await;
    row.iter().for_each(assert_all_kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_when_valkey_is_killed_under_load() {
    let row = killed_server(Scale::Short, RedisServer::start_valkey(), "Valkey").await;
    row.iter().for_each(assert_all_kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_when_redis_is_frozen_while_messages_are_in_flight() {
    frozen_server(Scale::Short).await.iter().for_each(assert_all_kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_is_refused_while_redis_promises_less_than_it_must() {
    weakened_server(Scale::Short).await.iter().for_each(assert_all_kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_takes_no_mail_and_drains() {
    full_server(Scale::Short).await.iter().for_each(assert_all_kept);
}
