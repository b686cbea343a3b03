//! Everything that was measured, and its medians.

use super::run::{Measured, Scenario};
use super::servers::Server;
use super::yardstick::Alone;

#[derive(Debug, Default)]
pub struct Results {
    /// The source straight into the sink: octets of a message, and what was measured.
    pub alone: Vec<(usize, Alone)>,
    runs: Vec<(Scenario, Server, Measured)>,
    /// Runs that did not end as they should.
    pub failures: Vec<String>,
}

impl Results {
    pub fn add(&mut self, scenario: Scenario, server: Server, measured: Measured) {
        self.runs.push((scenario, server, measured));
    }

    pub fn fail(&mut self, what: String) {
        println!("FAILED: {what}");
        self.failures.push(what);
    }

    pub fn median(&self, scenario: &Scenario, server: Server) -> Option<Measured> {
        let of = |run: &&(Scenario, Server, Measured)| run.0 == *scenario && run.1 == server;
        let runs: Vec<Measured> = self.runs.iter().filter(of).map(|run| run.2.clone()).collect();
        median(&runs)
    }

    /// In the order in which they were measured.
    pub fn medians(&self) -> Vec<(Scenario, Server, Measured)> {
        let mut pairs: Vec<(Scenario, Server)> = Vec::new();
        for (scenario, server, _) in &self.runs {
            if !pairs.contains(&(*scenario, *server)) {
                pairs.push((*scenario, *server));
            }
        }
        let with_median = |(scenario, server)| self.median(&scenario, server).map(|median| (scenario, server, median));
        pairs.into_iter().filter_map(with_median).collect()
    }
}

/// Each number's own median; `None` without any run.
fn median(runs: &[Measured]) -> Option<Measured> {
    let first = runs.first()?;
    let middle = |of: &dyn Fn(&Measured) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let thread = |name: &String| middle(&|one| one.threads.get(name).copied().unwrap_or_default());
    Some(Measured {
        messages_per_second: middle(&|one| one.messages_per_second),
        server_cpu: middle(&|one| one.server_cpu),
        load_cpu: middle(&|one| one.load_cpu),
        acknowledged_p50: middle(&|one| one.acknowledged_p50),
        acknowledged_p99: middle(&|one| one.acknowledged_p99),
        peak_memory: middle(&|one| one.peak_memory),
        signature: middle(&|one| one.signature),
        sync: middle(&|one| one.sync),
        threads: first.threads.keys().map(|name| (name.clone(), thread(name))).collect(),
    })
}
