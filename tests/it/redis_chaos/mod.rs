//! Three gateways on one queue in Redis, under load, while processes are killed or frozen, answers are lost and Redis forgets:
//! no acknowledged mail is lost, what arrives twice was in flight, and the limits are those of all gateways together.
//!
//! As in the crash matrix each row is a campaign. `make crash` runs the rows in full and prints the table of docs/scale.md;
//! the tests here run a short version of each.

mod answers;
mod failover;
mod gateways;
mod losses;
mod server;

use crate::crash::campaign::{CAP, Campaign, Row};
use crate::crash::load::Load;
use crate::crash::{Scale, assert_kept};
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::RedisServer;
use std::time::Duration;

/// Gateways that share the queue.
const COUNT: usize = 3;
/// Clients of each of them.
const CLIENTS: usize = 2;
/// Of a client, after each mail: the queue grows no faster than the provider takes mail.
const PAUSE: Duration = Duration::from_millis(60);
/// Messages per second to the provider, by all gateways.
const RATE: usize = 80;

/// Lines of the upstream's table.
fn limits() -> String {
    format!("max_connections = {CAP}\nrate = \"{RATE}/s\"")
}

/// Lines of [queue] for this server.
fn in_redis(url: &str) -> String {
    format!("backend = \"redis\"\n[queue.redis]\nurl = \"{url}\"\ntimeout = \"1s\"")
}

/// A fixed sequence of numbers, so that a failure can be reproduced.
fn spread(round: usize, below: usize) -> usize {
    (round.wrapping_add(1).wrapping_mul(2_654_435_761) >> 8) % below
}

fn moment(round: usize) -> Duration {
    Duration::from_millis(100 + spread(round, 300) as u64)
}

/// Each with its own data folder.
struct Gateways {
    running: Vec<(Gateway, Option<Load>)>,
}

impl Gateways {
    async fn start(campaign: &Campaign, lines: &str, queue: &str) -> Self {
        let mut running = Vec::new();
        for _ in 0..COUNT {
            running.push((started(campaign.setup_in(lines, queue)).await, None));
        }
        Self { running }
    }

    fn gateway(&self, at: usize) -> &Gateway {
        &self.running[at].0
    }

    fn all(&self) -> impl Iterator<Item = &Gateway> {
        self.running.iter().map(|(gateway, _)| gateway)
    }

    /// Clients submit mail to each of them until `quiet`.
    fn load(&mut self, campaign: &Campaign) {
        for (gateway, load) in &mut self.running {
            load.get_or_insert_with(|| Load::paced(gateway.address(), CLIENTS, &campaign.acknowledged, PAUSE));
        }
    }

    async fn quiet(&mut self) {
        for (_, load) in &mut self.running {
            if let Some(load) = load.take() {
                load.stop().await;
            }
        }
    }

    /// SIGKILL under load, and a start in the same folder.
    async fn kill_and_start(&mut self, at: usize, campaign: &mut Campaign) {
        let (gateway, load) = self.running.remove(at);
        let (log, setup) = tokio::task::spawn_blocking(|| gateway.kill()).await.unwrap();
        if let Some(load) = load {
            load.stop().await;
        }
        campaign.fault(log);
        self.running.insert(at, (started(setup).await, None));
    }

    /// The orderly end of all of them; what they can be started with again.
    async fn stop(mut self, campaign: &mut Campaign) -> Vec<Setup> {
        self.quiet().await;
        let mut setups = Vec::new();
        for (gateway, _) in self.running {
            let (status, log, setup) = tokio::task::spawn_blocking(|| gateway.stop()).await.unwrap();
            assert!(status.success(), "{status}\n{}", log.join("\n"));
            campaign.logged(log);
            setups.push(setup);
        }
        setups
    }

    /// Waits until what was acknowledged has arrived, and ends.
    async fn drain(mut self, campaign: &mut Campaign) -> Vec<Setup> {
        self.quiet().await;
        campaign.until_delivered().await;
        campaign.until_quiet().await;
        self.stop(campaign).await
    }
}

async fn started(setup: Setup) -> Gateway {
    tokio::task::spawn_blocking(|| setup.start(1)).await.unwrap()
}

/// How MAIL is answered now.
async fn answer_to_mail(gateway: &Gateway) -> String {
    let mut client = Client::connect(gateway.address()).await;
    client.greet().await;
    client.ask("MAIL FROM:<reports@example.com>").await
}

/// Waits until MAIL is answered by such a code.
async fn until_answered(gateway: &Gateway, code: &str) -> String {
    for _ in 0..1200 {
        let answer = answer_to_mail(gateway).await;
        if answer.starts_with(code) {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("MAIL is never answered with {code}:\n{}", gateway.log().join("\n"))
}

fn assert_all_kept(row: &Row) {
    assert_kept(row);
    assert!(row.most_connections <= CAP, "{row:?}");
}

/// Redis or Valkey, as the queue requires it.
fn redis() -> Option<RedisServer> {
    RedisServer::start()
}

async fn rows(scale: Scale) -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(gateways::killed_gateways(scale).await);
    rows.extend(gateways::frozen_gateways(scale).await);
    rows.extend(server::killed_server(scale, redis(), "Redis (appendfsync always)").await);
    rows.extend(server::killed_server(scale, RedisServer::start_valkey(), "Valkey (WAITAOF)").await);
    rows.extend(server::frozen_server(scale).await);
    rows.extend(server::weakened_server(scale).await);
    rows.extend(server::full_server(scale).await);
    rows.extend(answers::swallowed_answers(scale).await);
    rows.extend(answers::refused_after_lost_answers(scale).await);
    rows
}

/// Runs in full only on request; the rows' own tests run the short version.
#[tokio::test(flavor = "multi_thread")]
async fn the_crash_matrix_of_redis() {
    if Scale::asked() != Scale::Full {
        return;
    }
    let rows = rows(Scale::Full).await;
    let failovers = failover::failovers(Scale::Full).await;
    println!("| fault | times | acknowledged | delivered | lost | twice | bound |");
    println!("|---|---|---|---|---|---|---|");
    rows.iter().for_each(Row::print);
    failovers.iter().for_each(failover::FailoverRow::print);
    rows.iter().for_each(assert_all_kept);
    failovers.iter().for_each(failover::FailoverRow::assert_counted);
}
