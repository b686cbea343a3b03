//! Failovers by Sentinel. Replication is not synchronous, so mail can be lost: each loss must be noticed and counted.

use super::*;
use crate::support::redis::{Program, Sentinels};
use tokio::task::block_in_place;

/// How a master is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Command,
    Kill,
}

pub struct FailoverRow {
    row: Row,
    /// Acknowledged messages that the gateways said are missing.
    named: usize,
}

impl FailoverRow {
    pub fn print(&self) {
        let Self { row, named } = self;
        println!(
            "| {}; {named} named as missing | {} | {} | {} | {} | {} | none |",
            row.fault, row.faults, row.acknowledged, row.delivered, row.lost, row.duplicates
        );
    }

    /// Every loss was named. Nothing else may go wrong.
    pub fn assert_counted(&self) {
        println!("{:?}, {} named", self.row, self.named);
        assert!(self.row.lost <= self.named, "{:?}, but {} named", self.row, self.named);
        assert!(self.row.cut_or_mixed == 0 && self.row.acknowledged > 0, "{:?}", self.row);
    }
}

struct Watched {
    servers: [RedisServer; 2],
    sentinels: Sentinels,
}

impl Watched {
    fn start() -> Option<Self> {
        let master = RedisServer::start_on_port(Program::Redis, &[])?;
        let replica = master.start_replica()?;
        let sentinels = Sentinels::watch(&master, 3)?;
        Some(Self { servers: [master, replica], sentinels })
    }

    fn queue(&self) -> String {
        let (name, addresses) = (Sentinels::MASTER, self.sentinels.addresses());
        format!(
            "backend = \"redis\"\n[queue.redis]\nsentinel = {{ master = \"{name}\", addresses = {addresses:?} }}\n\
             timeout = \"1s\""
        )
    }

    /// Returns when the other server is the master and the old one follows it.
    fn fail_over(&mut self, cause: Cause) {
        let old = self.servers.iter().position(|server| Some(server.port()) == self.sentinels.master_port());
        let old = old.expect("the sentinels agree on a master");
        if cause == Cause::Command {
            self.sentinels.fail_over();
        } else {
            self.servers[old].kill();
            let new = Some(self.servers[1 - old].port());
            crate::support::eventually("the replica is the master", || self.sentinels.master_port() == new);
            self.servers[old].restart();
        }
        let follows = || self.servers[old].command(&["INFO", "replication"]).contains("master_link_status:up");
        crate::support::eventually("the old master follows", follows);
    }
}

async fn failovers_by(cause: Cause, rounds: usize) -> Option<FailoverRow> {
    let mut watched = Watched::start()?;
    let mut campaign = Campaign::new().await;
    let mut gateways = Gateways::start(&campaign, &limits(), &watched.queue()).await;
    let mut named = 0;
    for round in 0..rounds {
        gateways.load(&campaign);
        tokio::time::sleep(moment(round)).await;
        block_in_place(|| watched.fail_over(cause));
        campaign.fault(Vec::new());
        if is_refused(&gateways).await {
            let (missing, setups) = adopted(gateways, &mut campaign).await;
            named += missing;
            let mut running = Vec::new();
            for setup in setups {
                running.push((started(setup).await, None));
            }
            gateways = Gateways { running };
        }
    }
    gateways.quiet().await;
    campaign.until_delivered().await;
    campaign.until_quiet().await;
    gateways.stop(&mut campaign).await;
    let how = if cause == Cause::Command { "by command" } else { "by SIGKILL of the master" };
    Some(FailoverRow { row: campaign.audit(&format!("Sentinel failover {how}"), usize::MAX), named })
}

/// Whether some gateway misses mail; waits until each can say so.
async fn is_refused(gateways: &Gateways) -> bool {
    for gateway in gateways.all() {
        for _ in 0..1200 {
            if answer_to_mail(gateway).await.starts_with("250 ") {
                break;
            }
            if gateway.log().iter().any(|line| line.contains("acknowledged messages are missing")) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    false
}

/// All gateways are stopped, and each adopts what is there.
async fn adopted(gateways: Gateways, campaign: &mut Campaign) -> (usize, Vec<Setup>) {
    let setups = gateways.stop(campaign).await;
    let mut missing = 0;
    for setup in &setups {
        let output = setup.output(&["queue", "adopt", "--yes"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        missing += said.split_ascii_whitespace().find_map(|word| word.parse::<usize>().ok()).unwrap_or_default();
    }
    (missing, setups)
}

pub async fn failovers(scale: Scale) -> Vec<FailoverRow> {
    let rounds = scale.of(1, 30);
    let mut rows = Vec::new();
    rows.extend(failovers_by(Cause::Command, rounds).await);
    rows.extend(failovers_by(Cause::Kill, rounds).await);
    rows
}
