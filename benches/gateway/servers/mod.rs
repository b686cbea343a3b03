//! The servers under test. Each gets a folder of its own on the disk that is measured, a port, and the sink as its only
//! upstream; each runs until its value is dropped.

pub mod waxseal;

use super::measure::ProcessTree;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

/// A hang guard, far above what any start takes.
const PATIENCE: Duration = Duration::from_secs(120);

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
    /// Where it logs: shown when a run fails.
    pub log: PathBuf,
    children: Vec<Child>,
}

impl Running {
    pub fn processes(&self) -> Vec<ProcessTree> {
        self.children.iter().map(|child| ProcessTree::of(child.id())).collect()
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// SIGTERM, and waits for the end.
impl Drop for Running {
    fn drop(&mut self) {
        for child in self.children.drain(..).rev() {
            end(child);
        }
    }
}

fn end(mut child: Child) {
    if let Some(process) = rustix::process::Pid::from_raw(child.id() as i32) {
        let _it_may_have_ended = rustix::process::kill_process(process, rustix::process::Signal::TERM);
    }
    let asked = Instant::now();
    while asked.elapsed() < Duration::from_secs(20) {
        if child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let _it_may_have_ended = child.kill();
    let _reap = child.wait();
}

/// Asks again and again until `found` finds something, or the child has ended.
fn wait_for<T>(child: &mut Child, log: &Path, found: impl Fn() -> Option<T>) -> T {
    let asked = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        let ended = child.try_wait().unwrap();
        let log = || std::fs::read_to_string(log).unwrap_or_default();
        assert!(ended.is_none(), "the server ended with {ended:?}:\n{}", log());
        assert!(asked.elapsed() < PATIENCE, "the server does not start:\n{}", log());
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
