//! The built program as a child process, with its log and its addresses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A guard against hanging, not an expectation.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to run it with. The environment is empty but for what is named here.
pub struct Setup {
    folder: tempfile::TempDir,
    environment: Vec<(String, String)>,
    has_config: bool,
}

impl Setup {
    /// `config`: text of the configuration file, or `None` to start from the environment alone.
    pub fn new(config: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        if let Some(text) = config {
            std::fs::write(folder.path().join("config.toml"), text).expect("the configuration is written");
        }
        let quiet = vec![("PATH".to_owned(), std::env::var("PATH").unwrap_or_default())];
        Self { folder, environment: quiet, has_config: config.is_some() }
    }

    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// Writes a file into the folder that relative paths of the configuration start from.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("the folder is made");
        std::fs::write(path, content).expect("the file is written");
        self
    }

    /// With one text of the configuration replaced.
    pub fn config_with(self, old: &str, new: &str) -> Self {
        let path = self.folder.path().join("config.toml");
        let text = std::fs::read_to_string(&path).expect("the configuration");
        assert!(text.contains(old), "{old:?} is not in the configuration");
        std::fs::write(path, text.replace(old, new)).expect("the configuration is written");
        self
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_waxseal"));
        command.current_dir(self.folder.path()).env_clear().envs(self.environment.iter().cloned());
        if self.has_config {
            command.args(["--config", "config.toml"]);
        }
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    /// The same, with something to read on its standard input.
    pub fn output_with_input(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        child.stdin.take().expect("its standard input").write_all(input.as_bytes()).expect("it reads");
        child.wait_with_output().expect("the program ends")
    }

    /// Starts `waxseal run` and waits until it listens on `listeners` addresses.
    pub fn start(self, listeners: usize) -> Gateway {
        let command = self.command(&["run"]);
        self.start_by(command, listeners, PATIENCE)
    }

    /// The same by another command, which becomes the program sooner or later.
    pub fn start_by(self, mut command: Command, listeners: usize, patience: Duration) -> Gateway {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let log = Log::default();
        log.follow(child.stdout.take().expect("its standard output"), Stream::Out);
        log.follow(child.stderr.take().expect("its standard error"), Stream::Error);
        let mut gateway = Gateway { child, log, addresses: Vec::new(), setup: self };
        gateway.addresses = gateway.wait_for_addresses(listeners, patience);
        gateway
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Error,
}

#[derive(Clone, Default)]
struct Log(Arc<Printed>);

#[derive(Default)]
struct Printed {
    lines: Mutex<Vec<(Stream, String)>>,
    more: Condvar,
    /// Streams that have ended.
    ended: AtomicUsize,
}

impl Log {
    fn follow(&self, source: impl Read + Send + 'static, stream: Stream) {
        let printed = Arc::clone(&self.0);
        thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                printed.lines.lock().expect("the log").push((stream, line));
                printed.more.notify_all();
            }
            // Standard output ends with the program: nobody needs to wait any longer.
            printed.ended.fetch_add(1, Ordering::Release);
            printed.more.notify_all();
        });
    }

    fn lines(&self, is_wanted: impl Fn(Stream) -> bool) -> Vec<String> {
        let lines = self.0.lines.lock().expect("the log");
        lines.iter().filter(|(stream, _)| is_wanted(*stream)).map(|(_, line)| line.clone()).collect()
    }

    fn wait_for<T>(&self, what: &str, patience: Duration, find: impl Fn(&[(Stream, String)]) -> Option<T>) -> T {
        let deadline = Instant::now() + patience;
        let mut lines = self.0.lines.lock().expect("the log");
        loop {
            if let Some(found) = find(&lines) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = self.0.ended.load(Ordering::Acquire) > 0;
            let all = || lines.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n");
            assert!(!left.is_zero() && !ended, "waited in vain for {what}; the log:\n{}", all());
            lines = self.0.more.wait_timeout(lines, left).expect("the log").0;
        }
    }
}

/// A running gateway; killed when dropped.
pub struct Gateway {
    child: Child,
    log: Log,
    addresses: Vec<SocketAddr>,
    setup: Setup,
}

impl Gateway {
    /// The first listener.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn folder(&self) -> PathBuf {
        self.setup.folder().to_owned()
    }

    /// Another command beside it, to its end.
    pub fn output(&self, arguments: &[&str]) -> Output {
        self.setup.output(arguments)
    }

    /// Everything that it printed.
    pub fn log(&self) -> Vec<String> {
        self.log.lines(|_| true)
    }

    /// Its log proper.
    pub fn standard_output(&self) -> Vec<String> {
        self.log.lines(|stream| stream == Stream::Out)
    }

    /// The first log line that holds every one of `words`.
    pub fn wait_for_line(&self, words: &[&str]) -> String {
        self.log.wait_for(&format!("a line with {words:?}"), PATIENCE, |lines| {
            let found = lines.iter().find(|(_, line)| words.iter().all(|word| line.contains(word)));
            found.map(|(_, line)| line.clone())
        })
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill -{name}");
    }

    /// Its end, after which everything that it printed has been read.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let both_ended = self.log.0.ended.load(Ordering::Acquire) == 2;
            if let Some(status) = self.child.try_wait().expect("the child's status").filter(|_| both_ended) {
                return status;
            }
            assert!(Instant::now() < deadline, "the gateway did not end; the log:\n{}", self.log().join("\n"));
            super::pause();
        }
    }

    fn wait_for_addresses(&self, count: usize, patience: Duration) -> Vec<SocketAddr> {
        self.log.wait_for(&format!("{count} listeners"), patience, |lines| {
            let found: Vec<SocketAddr> = lines.iter().filter_map(|(_, line)| listening_address(line)).collect();
            (found.len() == count).then_some(found)
        })
    }
}

/// In either format of the log.
fn listening_address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line
        .split_once("listening")
        .and_then(|_| line.split_once("\"address\":\"").or_else(|| line.split_once("address=")))?;
    rest.split(['"', ' ']).next()?.parse().ok()
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _it_may_have_ended = self.child.kill();
        let _reap = self.child.wait();
    }
}
