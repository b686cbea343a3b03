//! One run: a server in a folder of its own, a warm-up, and a load whose every mail has to arrive.

use super::measure::peak_memory;
use super::servers::{Place, Running};
use super::sink::Sink;
use super::source::{Load, send};
use super::yardstick;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// A run fails once no mail has arrived for so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What is sent, and through how many connections it may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scenario {
    pub clients: usize,
    pub messages_per_connection: usize,
    pub upstream_connections: usize,
    /// Octets of a message.
    pub size: usize,
}

impl Scenario {
    /// As in `50x100, 4 KiB, 20 up`.
    pub fn name(&self) -> String {
        let Self { clients, messages_per_connection, upstream_connections, size } = self;
        format!("{clients}x{messages_per_connection}, {} KiB, {upstream_connections} up", size / 1024)
    }

    fn load(&self, running: &Running, messages: usize) -> Load {
        Load {
            address: running.address,
            tls: None,
            clients: self.clients,
            messages_per_connection: self.messages_per_connection,
            messages,
            size: self.size,
        }
    }
}

/// Times in milliseconds, memory in MiB, CPU in milliseconds per message.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    pub messages_per_second: f64,
    pub server_cpu: f64,
    /// Of the source and the sink.
    pub load_cpu: f64,
    pub acknowledged_p50: f64,
    pub acknowledged_p99: f64,
    pub peak_memory: f64,
    /// One signature, in the same minute.
    pub signature: f64,
    /// One sync of a message's octets, in the same minute.
    pub sync: f64,
    /// The server's CPU by the names of its threads.
    pub threads: BTreeMap<String, f64>,
}

impl Measured {
    pub fn signatures(&self) -> f64 {
        self.server_cpu / self.signature
    }

    /// Of what the cores could do if a message cost one signature and the load.
    pub fn share_of_ceiling(&self) -> f64 {
        let ceiling = yardstick::cores() as f64 * 1000.0 / (self.signature + self.load_cpu);
        self.messages_per_second / ceiling
    }

    /// Of the threads with this name, among all CPU of the server.
    pub fn share_of_thread(&self, name: &str) -> f64 {
        self.threads.get(name).copied().unwrap_or_default() / self.server_cpu
    }
}

/// What is needed for a run and outlives it.
pub struct Bed<'a> {
    /// On the disk that is measured.
    pub parent: &'a Path,
    pub dkim_key: &'a str,
}

impl Bed<'_> {
    /// A folder that daemons without privileges can enter.
    pub fn folder(&self) -> tempfile::TempDir {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::Builder::new().prefix("bench").tempdir_in(self.parent).unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    pub fn place<'b>(&'b self, folder: &'b Path, sink: &'b Sink, upstream_connections: usize) -> Place<'b> {
        Place {
            folder,
            sink: sink.address,
            certificate: &sink.certificate,
            dkim_key: self.dkim_key,
            upstream_connections,
        }
    }

    pub fn run(
        &self,
        start: impl FnOnce(&Place<'_>) -> Running,
        scenario: &Scenario,
        messages: usize,
    ) -> Result<Measured, String> {
        let (sink, folder) = (Sink::start(), self.folder());
        let signature = yardstick::signature(self.dkim_key);
        let sync = yardstick::sync(folder.path(), scenario.size.min(1 << 20));
        let running = start(&self.place(folder.path(), &sink, scenario.upstream_connections));
        let measured = measure(&running, &sink, scenario, messages);
        let measured = measured.map_err(|e| format!("{e}; the server's log ends with\n{}", running.last_words()));
        drop(running);
        Ok(Measured { signature, sync, ..measured? })
    }
}

fn measure(running: &Running, sink: &Sink, scenario: &Scenario, messages: usize) -> Result<Measured, String> {
    let warm_up = (messages / 10).max(scenario.clients);
    sink.expect(warm_up);
    send(scenario.load(running, warm_up))?;
    sink.wait(PATIENCE)?;
    sink.expect(messages);
    let (before, sink_before) = (running.processes.cpu(), sink.thread.cpu());
    let (sent, memory) = peak_memory(&running.processes, || {
        let sent = send(scenario.load(running, messages))?;
        sink.wait(PATIENCE).map(|(last, tally)| (sent, last, tally))
    });
    let (after, sink_cpu) = (running.processes.cpu(), sink.thread.cpu() - sink_before);
    let (sent, last, tally) = sent?;
    if tally.unsigned > 0 || tally.duplicates > 0 {
        return Err(format!("{} mails came unsigned and {} twice", tally.unsigned, tally.duplicates));
    }
    let per_message = |cpu: Duration| cpu.as_secs_f64() * 1000.0 / messages as f64;
    Ok(Measured {
        messages_per_second: messages as f64 / (last - sent.began).as_secs_f64(),
        server_cpu: per_message(after.since(&before)),
        load_cpu: per_message(sent.cpu + sink_cpu),
        acknowledged_p50: sent.acknowledged(0.5),
        acknowledged_p99: sent.acknowledged(0.99),
        peak_memory: memory,
        threads: after.threads_since(&before).into_iter().map(|(name, cpu)| (name, per_message(cpu))).collect(),
        ..Measured::default()
    })
}
