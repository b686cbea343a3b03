//! The servers under test. Each gets a folder of its own on the disk that is measured, a port, and the sink as its only
//! upstream; each runs until its value is dropped.

pub mod exim;
pub mod postfix;
pub mod waxseal;

use super::processes::Processes;
use super::run::Scenario;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A hang guard, far above what any start takes.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Server {
    Waxseal,
    Postfix,
    Exim,
}

impl Server {
    pub fn name(self) -> &'static str {
        match self {
            Self::Waxseal => "waxseal",
            Self::Postfix => "Postfix + OpenDKIM",
            Self::Exim => "Exim",
        }
    }

    /// Why it cannot be measured here; `None` if it can.
    pub fn missing(self) -> Option<&'static str> {
        match self {
            Self::Waxseal => None,
            Self::Postfix => postfix::missing(),
            Self::Exim => exim::missing(),
        }
    }

    /// Exim has nothing that keeps it to a few connections without leaving mail for a later run of its queue.
    pub fn can(self, scenario: &Scenario) -> bool {
        self != Self::Exim || scenario.upstream_connections >= 20
    }

    /// Of so many messages: the slowest gets fewer, since a rate needs no more of them.
    pub fn messages(self, messages: usize) -> usize {
        if self == Self::Exim { messages.div_ceil(4) } else { messages }
    }

    pub fn start(self, program: &Path, place: &Place<'_>) -> Running {
        match self {
            Self::Waxseal => waxseal::Waxseal::new(program).start(place),
            Self::Postfix => postfix::start(place),
            Self::Exim => exim::start(place),
        }
    }
}

/// What a server is started with.
#[derive(Debug)]
pub struct Place<'a> {
    pub folder: &'a Path,
    pub sink: SocketAddr,
    /// The sink's certificate, as PEM.
    pub certificate: &'a str,
    /// An RSA-2048 key, as PEM.
    pub dkim_key: &'a str,
    /// Connections to the sink at once.
    pub upstream_connections: usize,
}

/// A started server.
#[derive(Debug)]
pub struct Running {
    pub address: SocketAddr,
    pub processes: Processes,
    /// Where it logs: shown when a run fails.
    log: PathBuf,
}

impl Running {
    /// The end of its log.
    pub fn last_words(&self) -> String {
        let log = String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Asks again and again for the address, until there is one or a process has ended.
    fn wait(mut processes: Processes, log: PathBuf, address: impl Fn() -> Option<SocketAddr>) -> Self {
        let asked = Instant::now();
        loop {
            if let Some(address) = address() {
                return Self { address, processes, log };
            }
            let text = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(!processes.has_ended(), "the server has ended:\n{}", text());
            assert!(asked.elapsed() < PATIENCE, "the server does not start:\n{}", text());
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }
}

/// User and group number of an account of this system.
fn account(name: &str) -> (u32, u32) {
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
    let fields = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let entry = fields.into_iter().find(|fields| fields[0] == name);
    let entry = entry.unwrap_or_else(|| panic!("this system has no account {name}"));
    (entry[2].parse().unwrap(), entry[3].parse().unwrap())
}

/// A new folder that belongs to this account.
fn folder_of(path: &Path, mode: u32, (user, group): (u32, u32)) {
    std::fs::DirBuilder::new().mode(mode).create(path).unwrap();
    chown(path, Some(user), Some(group)).unwrap();
}
