//! A private Redis or Valkey below a temporary folder: started, frozen, killed and started again on the same files, as a
//! member of a cluster, as a replica, or watched by Sentinel.
//!
//! Unit tests include this file too, beside `peers.rs` and `ports.rs`; it must use nothing else of the tests' support.
//! Its processes end with the values.
#![allow(dead_code, reason = "unit tests and integration tests each use a part of it")]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::peers;
use super::ports::ReservedPort;

/// A hang guard, far above what any start takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the queue requires of a server that does not know WAITAOF.
const DURABLE: [(&str, &str); 5] = [
    ("appendonly", "yes"),
    ("appendfsync", "always"),
    ("no-appendfsync-on-rewrite", "no"),
    ("maxmemory-policy", "noeviction"),
    ("save", ""),
];

/// Which program runs. Debian 12's Redis (7.0) does not know WAITAOF, Valkey does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Redis,
    Valkey,
}

impl Program {
    fn server(self) -> &'static str {
        match self {
            Self::Redis => "redis-server",
            Self::Valkey => "valkey-server",
        }
    }
}

/// What a server that speaks TLS needs: files in PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub private_key: PathBuf,
    pub ca: PathBuf,
}

impl TlsFiles {
    /// As in redis.conf and sentinel.conf; in clear it listens on no port.
    fn settings(&self, port: &str) -> Vec<(&'static str, String)> {
        let path = |path: &Path| path.display().to_string();
        vec![
            ("port", "0".to_owned()),
            ("tls-port", port.to_owned()),
            ("tls-cert-file", path(&self.certificate)),
            ("tls-key-file", path(&self.private_key)),
            ("tls-ca-cert-file", path(&self.ca)),
            ("tls-auth-clients", "no".to_owned()),
            ("tls-replication", "yes".to_owned()),
        ]
    }
}

#[derive(Debug)]
pub struct RedisServer {
    program: Program,
    port: Option<ReservedPort>,
    process: Option<Child>,
    folder: TempDir,
}

impl RedisServer {
    /// On a Unix socket, with every setting that makes an answer durable. `None` after saying that the test is skipped.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// With further settings, as in redis.conf; they win over [`DURABLE`].
    pub fn start_with(settings: &[(&str, &str)]) -> Option<Self> {
        Self::launch(Program::Redis, None, settings)
    }

    pub fn start_valkey() -> Option<Self> {
        Self::launch(Program::Valkey, None, &[])
    }

    /// On 127.0.0.1 besides.
    pub fn start_on_port(program: Program, settings: &[(&str, &str)]) -> Option<Self> {
        Self::launch(program, Some(ReservedPort::take()), settings)
    }

    /// Over TLS alone, on 127.0.0.1. `master`: the port of the server that it replicates.
    pub fn start_tls(tls: &TlsFiles, master: Option<u16>) -> Option<Self> {
        let port = ReservedPort::take();
        let settings = tls.settings(&port.number.to_string());
        let mut settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let master = master.map(|port| format!("127.0.0.1 {port}"));
        settings.extend(master.as_deref().map(|master| ("replicaof", master)));
        let server = Self::launch(Program::Redis, Some(port), &settings)?;
        if master.is_some() {
            eventually("the replica follows", || {
                server.command(&["INFO", "replication"]).contains("master_link_status:up")
            });
        }
        Some(server)
    }

    /// A cluster of one server that owns every slot: it refuses scripts whose keys lie in several slots.
    pub fn start_cluster() -> Option<Self> {
        let bus = ReservedPort::take();
        let number = bus.number.to_string();
        let settings = [("cluster-enabled", "yes"), ("cluster-port", &number)];
        let server = Self::launch(Program::Redis, Some(ReservedPort::take()), &settings)?;
        server.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
        eventually("the cluster serves every slot", || {
            server.command(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
        });
        Some(server)
    }

    /// A replica that has everything that this server has. This one must listen on a port.
    pub fn start_replica(&self) -> Option<Self> {
        let master = format!("127.0.0.1 {}", self.port());
        let replica = Self::launch(self.program, Some(ReservedPort::take()), &[("replicaof", &master)])?;
        eventually("the replica follows", || {
            replica.command(&["INFO", "replication"]).contains("master_link_status:up")
        });
        Some(replica)
    }

    fn launch(program: Program, port: Option<ReservedPort>, settings: &[(&str, &str)]) -> Option<Self> {
        peers::command(program.server())?;
        peers::command("redis-cli")?;
        let folder = TempDir::new().expect("a folder");
        let mut server = Self { program, port, process: None, folder };
        server.configure(settings);
        server.restart();
        Some(server)
    }

    fn configure(&self, settings: &[(&str, &str)]) {
        let number = self.port.as_ref().map_or(0, |port| port.number).to_string();
        let (folder, socket) = (self.folder.path().display().to_string(), self.socket().display().to_string());
        let place = [
            ("port", number.as_str()),
            ("bind", "127.0.0.1"),
            ("unixsocket", &socket),
            ("dir", &folder),
            ("logfile", "server.log"),
            ("daemonize", "no"),
        ];
        let mut text = String::new();
        let given = |name: &str| settings.iter().any(|(other, _)| *other == name);
        let defaults = place.iter().chain(DURABLE.iter()).filter(|(name, _)| !given(name));
        for (name, value) in defaults.chain(settings) {
            let value = if value.is_empty() { "\"\"" } else { value };
            writeln!(text, "{name} {value}").expect("text");
        }
        fs::write(self.configuration(), text).expect("written");
    }

    /// Starts it on the files that are there, and returns when it answers.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let _ = fs::remove_file(self.socket());
        let mut command = peers::command(self.program.server()).expect("it was there");
        command.arg(self.configuration()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().expect("redis starts"));
        let started = Instant::now();
        while !self.try_command(&["PING"]).is_some_and(|answer| answer == "PONG" || answer.starts_with("NOAUTH")) {
            let ended = self.process.as_mut().expect("started").try_wait().expect("a child");
            assert!(ended.is_none() && started.elapsed() < PATIENCE, "redis does not start: {}", self.log());
            pause();
        }
    }

    /// The end of its process, without any of its own doing.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().expect("killed");
        process.wait().expect("ended");
    }

    /// The regular end: SIGTERM.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        self.process.take().expect("it runs").wait().expect("ended");
    }

    /// It keeps its sockets and answers nothing.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    pub fn config_set(&self, name: &str, value: &str) {
        assert_eq!(self.command(&["CONFIG", "SET", name, value]), "OK");
    }

    /// The answer as redis-cli prints it without a terminal: plain text, one element of an array in each line.
    pub fn command(&self, words: &[&str]) -> String {
        self.try_command(words).unwrap_or_else(|| panic!("no answer to {words:?}: {}", self.log()))
    }

    fn try_command(&self, words: &[&str]) -> Option<String> {
        let mut command = peers::command("redis-cli").expect("it was there");
        let finished = peers::run(command.arg("-s").arg(self.socket()).args(words));
        finished.success.then(|| finished.stdout.trim_end().to_owned())
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.as_ref().expect("it listens on a Unix socket only").number
    }

    /// What `[queue.redis] url` names it by.
    pub fn url(&self) -> String {
        match &self.port {
            Some(port) => format!("redis://127.0.0.1:{}", port.number),
            None => format!("unix://{}", self.socket().display()),
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default()
    }

    fn configuration(&self) -> PathBuf {
        self.folder.path().join("redis.conf")
    }

    fn signal(&self, signal: Signal) {
        signal_to(self.process.as_ref().expect("it runs"), signal);
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
    }
}

/// Sentinels that watch one master, which they call "wax".
#[derive(Debug)]
pub struct Sentinels {
    processes: Vec<Child>,
    ports: Vec<ReservedPort>,
    tls: Option<TlsFiles>,
    folder: TempDir,
}

impl Sentinels {
    pub const MASTER: &str = "wax";

    /// So many of them; a majority decides. The master is away after one second.
    pub fn watch(master: &RedisServer, count: usize) -> Option<Self> {
        Self::watch_over(master, count, None)
    }

    /// With `tls` they speak nothing else, to the servers and to each other.
    pub fn watch_over(master: &RedisServer, count: usize, tls: Option<&TlsFiles>) -> Option<Self> {
        peers::command("redis-sentinel")?;
        let folder = TempDir::new().expect("a folder");
        let ports = (0..count).map(|_| ReservedPort::take()).collect::<Vec<_>>();
        let mut sentinels = Self { processes: Vec::new(), ports, tls: tls.cloned(), folder };
        for number in 0..count {
            let process = sentinels.launch(number, master.port());
            sentinels.processes.push(process);
        }
        let others = format!("num-other-sentinels\n{}", count - 1);
        eventually("the sentinels know each other and the replicas", || {
            (0..count).all(|number| {
                let known = sentinels.ask(number, &["SENTINEL", "MASTER", Self::MASTER]);
                known.is_some_and(|known| known.contains(&others) && !known.contains("num-slaves\n0\n"))
            })
        });
        Some(sentinels)
    }

    /// Makes a replica the master, as an operator does; returns when they name another port.
    pub fn fail_over(&self) {
        let before = self.master_port();
        let _ = self.ask(0, &["SENTINEL", "FAILOVER", Self::MASTER]);
        eventually("another master", || self.master_port().is_some_and(|now| Some(now) != before));
    }

    /// The port of the master that they agree on; `None` while they do not.
    pub fn master_port(&self) -> Option<u16> {
        let named = |number| {
            let answer = self.ask(number, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::MASTER])?;
            answer.lines().nth(1)?.parse::<u16>().ok()
        };
        let first = named(0)?;
        (1..self.ports.len()).all(|number| named(number) == Some(first)).then_some(first)
    }

    /// For `[queue.redis] sentinel.addresses`.
    pub fn addresses(&self) -> Vec<String> {
        self.ports.iter().map(|port| format!("127.0.0.1:{}", port.number)).collect()
    }

    fn launch(&self, number: usize, master: u16) -> Child {
        let (port, name, quorum) = (self.ports[number].number, Self::MASTER, self.ports.len() / 2 + 1);
        let own = self.folder.path().join(number.to_string());
        fs::create_dir(&own).expect("a folder");
        let configuration = own.join("sentinel.conf");
        let mut text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nlogfile sentinel.log\n\
             sentinel monitor {name} 127.0.0.1 {master} {quorum}\n\
             sentinel down-after-milliseconds {name} 1000\nsentinel failover-timeout {name} 5000\n",
            own.display()
        );
        for (name, value) in self.tls.iter().flat_map(|tls| tls.settings(&port.to_string())) {
            writeln!(text, "{name} {value}").expect("written to memory");
        }
        fs::write(&configuration, text).expect("written");
        let mut command = peers::command("redis-sentinel").expect("it was there");
        command.arg(configuration).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("a sentinel starts")
    }

    fn ask(&self, number: usize, words: &[&str]) -> Option<String> {
        let mut command: Command = peers::command("redis-cli").expect("it was there");
        if let Some(tls) = &self.tls {
            command.arg("--tls").arg("--cacert").arg(&tls.ca);
        }
        let finished = peers::run(command.args(["-p", &self.ports[number].number.to_string()]).args(words));
        finished.success.then_some(finished.stdout)
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn signal_to(process: &Child, signal: Signal) {
    let id = Pid::from_raw(i32::try_from(process.id()).expect("a process id")).expect("not zero");
    kill_process(id, signal).expect("it runs");
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "timed out waiting: {what}");
        pause();
    }
}

/// Between two checks of another process.
#[expect(clippy::disallowed_methods, reason = "nothing else runs on the thread of a test that blocks")]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}
