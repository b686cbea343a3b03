//! What can be chosen on the command line and in the environment.

use super::run::Scenario;
use super::servers::Server;
use clap::ValueEnum as _;
use std::path::PathBuf;

const KIB: usize = 1024;

/// Every combination that is measured.
const SCENARIOS: [Scenario; 6] = [
    Scenario { clients: 20, messages_per_connection: 1, upstream_connections: 20, size: 4 * KIB },
    Scenario { clients: 50, messages_per_connection: 100, upstream_connections: 20, size: 4 * KIB },
    Scenario { clients: 50, messages_per_connection: 100, upstream_connections: 4, size: 4 * KIB },
    Scenario { clients: 50, messages_per_connection: 100, upstream_connections: 1, size: 4 * KIB },
    Scenario { clients: 20, messages_per_connection: 1, upstream_connections: 20, size: 100 * KIB },
    Scenario { clients: 50, messages_per_connection: 100, upstream_connections: 20, size: 100 * KIB },
];

#[derive(Debug, clap::Parser)]
pub struct Options {
    /// Only scenarios whose name begins with this, as in "50x100, 4 KiB, 20 up", and nothing else
    #[arg(long)]
    scenario: Option<String>,
    /// Only these servers
    #[arg(long)]
    server: Vec<Server>,
    /// Runs of each scenario and server [env: WAXSEAL_BENCH_RUNS] [default: 5]
    #[arg(long)]
    runs: Option<usize>,
    /// Messages of a run; a tenth as many come before it, not counted [env: WAXSEAL_BENCH_MESSAGES]
    #[arg(long)]
    messages: Option<usize>,
    /// A waxseal to measure in the place of the one that was built with this program
    #[arg(long, default_value = env!("CARGO_BIN_EXE_waxseal"))]
    pub program: PathBuf,
    /// Only what is asked of waxseal alone: no scenarios
    #[arg(long)]
    single: bool,
    /// Messages that wait at the end of the outage
    #[arg(long, default_value_t = 100_000)]
    queued: usize,
    /// Write the tables into docs/performance.md
    #[arg(long)]
    pub write: bool,
    /// Cargo says this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub fn scenarios(&self) -> Vec<Scenario> {
        let name = self.scenario.as_deref().unwrap_or_default();
        SCENARIOS.into_iter().filter(|scenario| !self.single && scenario.name().starts_with(name)).collect()
    }

    /// Of the messages in these scenarios.
    pub fn sizes(&self) -> Vec<usize> {
        let mut sizes: Vec<usize> = self.scenarios().iter().map(|scenario| scenario.size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// Whether what is asked of waxseal alone is left out.
    pub fn only_comparison(&self) -> bool {
        self.scenario.is_some() || !self.server.is_empty()
    }

    pub fn queued(&self) -> usize {
        self.queued
    }

    pub fn servers(&self) -> Vec<Server> {
        if self.server.is_empty() { Server::value_variants().to_vec() } else { self.server.clone() }
    }

    pub fn runs(&self) -> usize {
        self.runs.or_else(|| variable("WAXSEAL_BENCH_RUNS")).unwrap_or(5)
    }

    pub fn messages(&self, size: usize) -> usize {
        let usual = if size > 64 * KIB { 2_000 } else { 5_000 };
        self.messages.or_else(|| variable("WAXSEAL_BENCH_MESSAGES")).unwrap_or(usual)
    }

    /// On the disk that is measured; absolute, since servers have working folders of their own.
    pub fn folder(&self) -> PathBuf {
        let folder = std::env::var("WAXSEAL_BENCH_FOLDER").unwrap_or_else(|_| "target".into());
        std::fs::canonicalize(folder).unwrap()
    }
}

fn variable(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.parse().ok()
}
