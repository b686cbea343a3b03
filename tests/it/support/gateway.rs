//! The built program as a child process, with its log and its addresses.

use super::{canaries, clock, log_fields};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A guard against hanging, not an expectation.
const PATIENCE: Duration = Duration::from_secs(60);

/// How to run it. The environment contains only what is named here.
pub struct Setup {
    folder: Folder,
    environment: Vec<(String, String)>,
    has_config: bool,
    wrapper: Vec<String>,
}

enum Folder {
    Temporary(tempfile::TempDir),
    /// On a file system of the test's own.
    Given(PathBuf),
}

impl Setup {
    /// `config`: text of the configuration file, or `None` to start from the environment alone.
    pub fn new(config: Option<&str>) -> Self {
        let folder = Folder::Temporary(tempfile::tempdir().expect("a temporary folder"));
        let mut environment = vec![("PATH".to_owned(), std::env::var("PATH").unwrap_or_default())];
        // Its default port can serve one gateway at a time; a test of it sets another address.
        environment.push(("WAXSEAL_ADMIN_ADDRESS".to_owned(), "off".to_owned()));
        environment.extend(clock::of_this_run());
        // What a scripted upstream hears and counts is the test's own.
        environment.push(("WAXSEAL_DOCTOR_AT_START".to_owned(), "false".to_owned()));
        let setup = Self { folder, environment, has_config: config.is_some(), wrapper: Vec::new() };
        if let Some(text) = config {
            std::fs::write(setup.folder().join("config.toml"), text).expect("the configuration is written");
        }
        setup
    }

    /// With its files, in a folder that outlives the setup.
    pub fn moved_to(mut self, folder: &Path) -> Self {
        for entry in std::fs::read_dir(self.folder()).expect("the folder") {
            let entry = entry.expect("an entry");
            std::fs::copy(entry.path(), folder.join(entry.file_name())).expect("the file is copied");
        }
        self.folder = Folder::Given(folder.to_owned());
        self
    }

    /// The program is run by this one, as in `["strace", "-f"]`.
    pub fn wrapped(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// Writes a file into the folder that relative paths of the configuration start from.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.folder().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("the folder is made");
        std::fs::write(path, content).expect("the file is written");
        self
    }

    /// With one text of the configuration replaced.
    pub fn config_with(self, old: &str, new: &str) -> Self {
        let path = self.folder().join("config.toml");
        let text = std::fs::read_to_string(&path).expect("the configuration");
        assert!(text.contains(old), "{old:?} is not in the configuration");
        std::fs::write(path, text.replace(old, new)).expect("the configuration is written");
        self
    }

    pub fn folder(&self) -> &Path {
        match &self.folder {
            Folder::Temporary(folder) => folder.path(),
            Folder::Given(folder) => folder,
        }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_waxseal");
        let mut command = match self.wrapper.split_first() {
            Some((wrapper, words)) => {
                let mut command = Command::new(wrapper);
                command.args(words).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.current_dir(self.folder()).env_clear().envs(self.environment.iter().cloned());
        if self.has_config {
            command.args(["--config", "config.toml"]);
        }
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn output(&self, arguments: &[&str]) -> Output {
        canaries::expect_canaries(self.folder(), &self.environment);
        let output = self.command(arguments).output().expect("the program runs");
        for said in [&output.stdout, &output.stderr] {
            let said = String::from_utf8_lossy(said);
            assert!(!canaries::Search::now().finds(&*said), "a secret was printed by {arguments:?}: {said}");
        }
        output
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
    pub fn start_by(self, command: Command, listeners: usize, patience: Duration) -> Gateway {
        let mut gateway = self.spawn(command);
        gateway.addresses = gateway
            .log
            .wait_for(&format!("{listeners} listeners"), patience, |lines| found_addresses(lines, listeners));
        gateway
    }

    /// For one that may end before it listens: then the log and the setup come back.
    pub fn try_start(self, listeners: usize) -> Result<Gateway, (Vec<String>, Self)> {
        let command = self.command(&["run"]);
        let mut gateway = self.spawn(command);
        match gateway.log.wait(PATIENCE, |lines| found_addresses(lines, listeners)) {
            Some(addresses) => {
                gateway.addresses = addresses;
                Ok(gateway)
            }
            None => Err(gateway.kill()),
        }
    }

    /// At TRACE unless the test chose a level: what the log must not hold is searched for at the end.
    fn tell_everything(&self) {
        const LEVEL: &str = "level = \"trace\"\n";
        let path = self.folder().join("config.toml");
        let Ok(text) = std::fs::read_to_string(&path) else { return };
        let text = match text.find("[log]\n") {
            _ if !self.has_config || text.contains("level = ") => return,
            Some(at) => [&text[..at], "[log]\n", LEVEL, &text[at + "[log]\n".len()..]].concat(),
            None => format!("{text}\n[log]\n{LEVEL}"),
        };
        std::fs::write(path, text).expect("the configuration is written");
    }

    fn spawn(self, mut command: Command) -> Gateway {
        canaries::expect_canaries(self.folder(), &self.environment);
        self.tell_everything();
        // A group of its own, so that what a wrapper runs can be ended with it.
        command.process_group(0);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let log = Log::default();
        let readers = vec![
            log.follow(child.stdout.take().expect("its standard output"), Stream::Out),
            log.follow(child.stderr.take().expect("its standard error"), Stream::Error),
        ];
        Gateway { child, log, readers, addresses: Vec::new(), setup: Some(self) }
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
    fn follow(&self, source: impl Read + Send + 'static, stream: Stream) -> JoinHandle<()> {
        let printed = Arc::clone(&self.0);
        thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                printed.lines.lock().expect("the log").push((stream, line));
                printed.more.notify_all();
            }
            // Standard output ends with the program, so there is nothing more to wait for.
            printed.ended.fetch_add(1, Ordering::Release);
            printed.more.notify_all();
        })
    }

    fn lines(&self, is_wanted: impl Fn(Stream) -> bool) -> Vec<String> {
        let lines = self.0.lines.lock().expect("the log");
        lines.iter().filter(|(stream, _)| is_wanted(*stream)).map(|(_, line)| line.clone()).collect()
    }

    fn wait_for<T>(&self, what: &str, patience: Duration, find: impl Fn(&[(Stream, String)]) -> Option<T>) -> T {
        let all = || self.lines(|_| true).join("\n");
        self.wait(patience, find).unwrap_or_else(|| panic!("timed out waiting for {what}; the log:\n{}", all()))
    }

    /// `None` if the program ends first, or never says it.
    fn wait<T>(&self, patience: Duration, find: impl Fn(&[(Stream, String)]) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + patience;
        let mut lines = self.0.lines.lock().expect("the log");
        loop {
            let ended = self.0.ended.load(Ordering::Acquire) > 0;
            if let Some(found) = find(&lines) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || ended {
                return None;
            }
            lines = self.0.more.wait_timeout(lines, left).expect("the log").0;
        }
    }
}

/// A running gateway; killed when dropped.
pub struct Gateway {
    child: Child,
    log: Log,
    readers: Vec<JoinHandle<()>>,
    addresses: Vec<SocketAddr>,
    /// `None` once it was handed back.
    setup: Option<Setup>,
}

impl Gateway {
    /// Another command of the program, with the same configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.setup.as_ref().expect("not yet handed back").command(arguments)
    }

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
        self.setup.as_ref().expect("not handed back yet").folder().to_owned()
    }

    /// SIGKILL; what it had logged, and what it can be started with again.
    pub fn kill(mut self) -> (Vec<String>, Setup) {
        self.end();
        (self.log(), self.setup.take().expect("not handed back yet"))
    }

    /// SIGTERM, and the end of its own accord.
    pub fn stop(mut self) -> (ExitStatus, Vec<String>, Setup) {
        self.signal("TERM");
        let status = self.wait();
        let (log, setup) = self.kill();
        (status, log, setup)
    }

    /// Whether it is still running.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("the child's status").is_none()
    }

    /// With everything in its process group, and its log read to the end.
    fn end(&mut self) {
        let group = format!("-{}", self.child.id());
        let _it_may_have_ended = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _reap = self.child.wait();
        for reader in self.readers.drain(..) {
            let _a_panic_shows_elsewhere = reader.join();
        }
        log_fields::check_types(&self.standard_output());
        if let Some(setup) = &self.setup {
            canaries::search_remains(&format!("gateway {}", self.child.id()), &self.log(), setup.folder());
        }
    }

    /// Another command beside it, to its end.
    pub fn output(&self, arguments: &[&str]) -> Output {
        self.setup.as_ref().expect("not handed back yet").output(arguments)
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
}

fn found_addresses(lines: &[(Stream, String)], count: usize) -> Option<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = lines.iter().filter_map(|(_, line)| listening_address(line)).collect();
    (found.len() == count).then_some(found)
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
        self.end();
    }
}
