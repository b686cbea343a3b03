//! What is to be reached, and whether it was. A goal whose figure was not measured is left out.

use super::results::Results;
use super::run::{Measured, Scenario};
use super::servers::Server;
use super::single::Single;

#[derive(Debug)]
pub struct Goal {
    pub what: String,
    pub measured: f64,
    pub bound: Bound,
}

#[derive(Debug, Clone, Copy)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    pub fn is_reached(&self) -> bool {
        match self.bound {
            Bound::AtLeast(bound) => self.measured >= bound,
            Bound::AtMost(bound) => self.measured <= bound,
        }
    }
}

/// The two loads that the goals are set for, and how many signatures a mail may cost in each.
const LOADS: [(Scenario, f64); 2] = [
    (Scenario { clients: 20, messages_per_connection: 1, upstream_connections: 20, size: 4096 }, 1.8),
    (Scenario { clients: 50, messages_per_connection: 100, upstream_connections: 20, size: 4096 }, 1.6),
];

/// Bounds are those for two cores, the load and the sink among what they carry.
pub fn of(results: &Results, single: &Single) -> Vec<Goal> {
    let mut goals = Vec::new();
    for (scenario, signatures) in LOADS {
        let Some(ours) = results.median(&scenario, Server::Waxseal) else { continue };
        let name = scenario.name();
        goals.push(at_most(format!("CPU per message ÷ a signature, {name}"), ours.signatures(), signatures));
        goals.push(at_least(format!("of the ceiling, {name}"), ours.share_of_ceiling(), 0.65));
        goals.push(at_most(
            format!("queue-writer's part of the CPU, {name}"),
            ours.share_of_thread("queue-writer"),
            0.15,
        ));
        if let Some(theirs) = results.median(&scenario, Server::Postfix) {
            goals.extend(against_postfix(&name, &ours, &theirs));
        }
    }
    goals.extend(of_single(single));
    goals
}

fn against_postfix(name: &str, ours: &Measured, theirs: &Measured) -> [Goal; 2] {
    let rate = ours.messages_per_second / theirs.messages_per_second;
    let cpu = theirs.server_cpu / ours.server_cpu;
    [
        at_least(format!("messages/s ÷ those of Postfix + OpenDKIM, {name}"), rate, 6.5),
        at_least(format!("CPU of Postfix + OpenDKIM ÷ ours, {name}"), cpu, 7.0),
    ]
}

fn of_single(single: &Single) -> Vec<Goal> {
    let lone = single.lone.map(|(wait, sync)| {
        at_most("a lone mail's acknowledgement ÷ (1.5 syncs + 1 ms)".to_owned(), wait / (1.5 * sync + 1.0), 1.0)
    });
    let syncs = single.syncs_per_message.map(|syncs| at_most("syncs per message, 50x100".to_owned(), syncs, 0.3));
    let idle = single.idle_memory.map(|memory| at_most("memory when idle, MiB".to_owned(), memory, 15.0));
    let held = single.idle_connections_memory;
    let held = held.map(|memory| at_most("memory with 10,000 idle connections, MiB".to_owned(), memory, 60.0));
    let drain = single.drain.map(|(rate, empty, _)| {
        at_least("rate after an outage ÷ that with an empty queue".to_owned(), rate / empty, 0.8)
    });
    [lone, syncs, idle, held, drain].into_iter().flatten().collect()
}

fn at_least(what: String, measured: f64, bound: f64) -> Goal {
    Goal { what, measured, bound: Bound::AtLeast(bound) }
}

fn at_most(what: String, measured: f64, bound: f64) -> Goal {
    Goal { what, measured, bound: Bound::AtMost(bound) }
}
