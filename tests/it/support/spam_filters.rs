//! The verdicts of SpamAssassin and rspamd on a message, with Debian's rules, without network and without memory of earlier
//! mail.

use super::awkward::dated;
use super::ports::ReservedPort;
use super::{clock, peers};
use aws_lc_rs::digest::{Context, SHA256};
use serde_json::Value;
use std::borrow::Cow;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A hang guard, for a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(240);

#[derive(Debug, Clone)]
pub struct Verdict {
    /// To one decimal.
    pub score: f64,
    pub symbols: Vec<String>,
}

/// One verdict for each file, in order; `None` after saying that it is skipped.
pub fn spamassassin(files: &[PathBuf]) -> Option<Vec<Verdict>> {
    let program = peers::find("spamassassin");
    let (Some(program), Some(mut perl)) = (program, peers::command("perl")) else {
        peers::skip("peer spamassassin missing, run make test");
        return None;
    };
    let root = root_of(&program);
    let state = TempDir::new().expect("a folder");
    let site = state.path().join("site");
    copy_packaged_configuration(&root.join("etc/spamassassin"), &site);
    perl.args(modules()).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/spamassassin_check.pl"));
    perl.arg(rules_of(&root)).arg(site).arg(state.path());
    let said = peers::run(perl.args(files));
    assert!(said.success, "{}", said.stderr);
    let verdicts: Vec<_> = said.stdout.lines().collect();
    assert_eq!(verdicts.len(), files.len(), "{}", said.stderr);
    let verdict = |line: &str| {
        let (score, symbols) = line.split_once(' ').expect("a score and names");
        let symbols = symbols.split(',').map(|name| name.trim().to_owned()).collect();
        Verdict { score: score.parse().expect("a number"), symbols }
    };
    Some(verdicts.into_iter().map(verdict).collect())
}

/// What the package puts there, without what the machine's administrator adds.
fn copy_packaged_configuration(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a folder");
    for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if Path::new(&name).extension().is_some_and(|extension| extension == "pre") || name == "65_debian.cf" {
            std::fs::copy(entry.path(), to.join(&name)).expect("a copy");
        }
    }
}

fn rules_of(root: &Path) -> PathBuf {
    root.join("usr/share/spamassassin")
}

/// The first octets, in hex, of a SHA-256 of the rules: packages of one version of the program bring different ones.
pub fn spamassassin_rules() -> Option<String> {
    let folder = rules_of(&root_of(&peers::find("spamassassin")?));
    let mut files: Vec<_> = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "cf"));
    files.sort();
    let mut digest = Context::new(&SHA256);
    for file in files {
        digest.update(&std::fs::read(file).ok()?);
    }
    Some(digest.finish().as_ref()[..4].iter().map(|octet| format!("{octet:02x}")).collect())
}

/// As in "SpamAssassin version 4.0.1".
pub fn spamassassin_version() -> Option<String> {
    let program = peers::find("spamassassin")?;
    let mut perl = peers::command("perl")?;
    // In taint mode it searches for modules only in the given directories.
    perl.arg("-T").args(modules()).arg(program).arg("--version");
    peers::run(&mut perl).stdout.lines().find(|line| line.contains("SpamAssassin version")).map(str::to_owned)
}

fn modules() -> Vec<String> {
    let listed = peers::environment().into_iter().find(|(name, _)| name == "PERL5LIB").map(|(_, folders)| folders);
    listed.unwrap_or_default().split(':').map(|folder| format!("-I{folder}")).collect()
}

/// Where the package of a program in usr/bin was unpacked: "/" for the machine's own.
fn root_of(program: &Path) -> PathBuf {
    program.ancestors().nth(3).expect("a program in usr/bin").to_owned()
}

/// A private daemon on loopback; ends with the value.
pub struct Rspamd {
    daemon: Child,
    port: ReservedPort,
    _folder: TempDir,
}

impl Rspamd {
    /// `None` after saying that it is skipped.
    pub fn start() -> Option<Self> {
        let mut command = rspamd()?;
        let root = root_of(&peers::find("rspamd")?);
        let port = ReservedPort::take();
        let folder = TempDir::new().expect("a folder");
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/rspamd/rspamd.conf");
        command.arg("--no-fork").arg("--config").arg(config);
        if peers::is_root() {
            command.arg("--insecure");
        }
        let own = folder.path().to_owned();
        let share = root.join("usr/share/rspamd");
        for (name, value) in [
            ("CONFDIR", root.join("etc/rspamd")),
            ("LOCAL_CONFDIR", own.clone()),
            ("SHAREDIR", share.clone()),
            ("RULESDIR", share.join("rules")),
            ("LUALIBDIR", share.join("lualib")),
            ("PLUGINSDIR", share.join("plugins")),
            ("WWWDIR", share.join("www")),
            ("DBDIR", own.clone()),
            ("RUNDIR", own.clone()),
            ("LOGDIR", own),
            ("PORT", port.number.to_string().into()),
        ] {
            command.arg(format!("--var={name}={}", value.display()));
        }
        let daemon = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("rspamd starts");
        let mut rspamd = Self { daemon, port, _folder: folder };
        rspamd.wait();
        Some(rspamd)
    }

    fn wait(&mut self) {
        let started = Instant::now();
        while self.ask("GET", "/ping", b"").is_none() {
            assert!(self.daemon.try_wait().expect("a child").is_none(), "rspamd did not start");
            assert!(started.elapsed() < PATIENCE, "rspamd does not answer");
            super::pause();
        }
    }

    pub fn check(&self, message: &[u8]) -> Verdict {
        let message = match clock::machine_time() {
            Some(its_now) => Cow::Owned(dated(message, its_now)),
            None => Cow::Borrowed(message),
        };
        let answer = self.ask("POST", "/checkv2", &message).expect("an answer");
        let value: Value = serde_json::from_slice(&answer).expect("JSON");
        let symbols = value["symbols"].as_object().expect("symbols");
        // Many only describe.
        let scored = symbols.iter().filter(|(_, symbol)| symbol["score"].as_f64().is_some_and(|score| score > 0.0));
        Verdict {
            // From the two decimals that it means: 1.55 is stored as a little less.
            score: ((value["score"].as_f64().expect("a score") * 100.0).round() / 10.0).round() / 10.0,
            symbols: scored.map(|(name, _)| name.clone()).collect(),
        }
    }

    /// The body of the answer to one HTTP request.
    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Option<Vec<u8>> {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port.number)).ok()?;
        connection.set_read_timeout(Some(PATIENCE)).ok()?;
        let head = format!("{method} {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
        connection.write_all(&[head.as_bytes(), body].concat()).ok()?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).ok()?;
        let end = memchr::memmem::find(&answer, b"\r\n\r\n")?;
        answer.starts_with(b"HTTP/").then(|| answer.split_off(end + 4))
    }
}

fn rspamd() -> Option<Command> {
    let mut command = peers::command("rspamd")?;
    clock::of_the_machine(&mut command);
    Some(command)
}

/// As in "Rspamd daemon version 3.4".
pub fn rspamd_version() -> Option<String> {
    let said = peers::run(rspamd()?.arg("--version"));
    said.stdout.lines().next().map(str::to_owned)
}

impl Drop for Rspamd {
    fn drop(&mut self) {
        // Its workers end with it only when it is asked to.
        let _asked = Command::new("kill").arg(self.daemon.id().to_string()).status();
        let _reaped = self.daemon.wait();
    }
}
