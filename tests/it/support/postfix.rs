//! A private Postfix as the provider: STARTTLS or implicit TLS required, SASL PLAIN and LOGIN through Cyrus, and a Maildir
//! with what it accepted, octet for octet.
//!
//! Never touches the machine's own Postfix: it has its own configuration, queue, ports and log. Its processes end with the
//! value, and after ten minutes if the test was killed.

use std::fs::{self, DirBuilder, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::certificate::Issued;
use super::maildir::{self, Arrival};
use super::peers;
use super::ports::{ReservedPort, greets, has_ipv6};

/// The only login it knows.
pub const USER: &str = "relay";
pub const PASSWORD: &str = "correct canary horse";

/// A hang guard, far above what any start or delivery takes.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Postfix {
    /// STARTTLS is required on this one, on 127.0.0.1 and ::1.
    pub submission: u16,
    /// TLS from the first octet.
    pub smtps: u16,
    master: Child,
    folder: TempDir,
    _reserved: [ReservedPort; 2],
}

impl Postfix {
    /// `None` after saying that the test is skipped: no Postfix here, or not root, which its master must be.
    pub fn start(certificate: &Issued) -> Option<Self> {
        Self::start_with(certificate, &[])
    }

    /// With further lines for main.cf, which win over ours.
    pub fn start_with(certificate: &Issued, settings: &[(&str, &str)]) -> Option<Self> {
        let master = peers::command("master")?;
        let saslpasswd = peers::command("saslpasswd2")?;
        if !peers::is_root() {
            peers::skip("Postfix's master runs as root only");
            return None;
        }
        let reserved = [ReservedPort::take(), ReservedPort::take()];
        let [submission, smtps] = [reserved[0].number, reserved[1].number];
        let folder = workspace();
        lay_out(folder.path());
        configure(folder.path(), certificate, settings, [submission, smtps]);
        add_login(folder.path(), saslpasswd);
        let master = launch(folder.path(), master);
        let mut postfix = Self { submission, smtps, master, folder, _reserved: reserved };
        postfix.await_greeting();
        Some(postfix)
    }

    /// Waits until this many deliveries are there (one per accepted recipient) and returns them, oldest first.
    pub fn arrivals(&self, count: usize) -> Vec<Arrival> {
        let started = Instant::now();
        loop {
            let arrived = maildir::read(&self.folder.path().join("mail/inbox/new"));
            if arrived.len() >= count {
                return arrived;
            }
            let found = arrived.len();
            assert!(started.elapsed() < PATIENCE, "{found} of {count} mails\n{}", self.log());
            super::pause();
        }
    }

    /// Everything Postfix has logged so far: each connection, TLS session, login and delivery.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn await_greeting(&mut self) {
        let started = Instant::now();
        while !greets(self.submission) {
            let ended = self.master.try_wait().expect("the master can be waited for");
            assert!(ended.is_none(), "Postfix ended with {ended:?}\n{}", self.log());
            assert!(started.elapsed() < PATIENCE, "Postfix does not answer\n{}", self.log());
            super::pause();
        }
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // The master leads a process group of its own and takes its daemons with it.
        let group = format!("kill -s TERM -- -{}", self.master.id());
        let asked = Command::new("sh").args(["-c", &group]).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = self.master.kill();
        }
        let _ = self.master.wait();
    }
}

/// A folder that Postfix's unprivileged daemons can reach and that leaves room for socket names (108 octets).
fn workspace() -> TempDir {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let open_to_all = |folder: &Path| fs::metadata(folder).is_ok_and(|it| it.mode() & 0o001 != 0);
    let suits = target.as_os_str().len() < 70 && target.ancestors().all(open_to_all);
    let parent = if suits { target.to_owned() } else { std::env::temp_dir() };
    let folder = tempfile::Builder::new().prefix("postfix").tempdir_in(parent);
    let folder = folder.expect("a folder for Postfix");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("its own folder");
    folder
}

/// The folders that `postfix start` would make, with the owners its daemons insist on.
fn lay_out(folder: &Path) {
    let daemon = account("daemon");
    let nobody = account("nobody");
    let make = |name: &str, mode: u32, (user, group): (u32, u32)| {
        let path = folder.join(name);
        DirBuilder::new().mode(mode).create(&path).expect("a new folder");
        chown(&path, Some(user), Some(group)).expect("root may give it away");
    };
    for name in ["conf", "conf/sasl", "queue", "queue/pid"] {
        make(name, 0o755, (0, 0));
    }
    make("mail", 0o700, nobody);
    make("data", 0o700, daemon);
    for name in "active bounce corrupt defer deferred flush hold incoming private public saved trace".split(' ') {
        make(&format!("queue/{name}"), 0o700, daemon);
    }
}

fn configure(folder: &Path, certificate: &Issued, settings: &[(&str, &str)], ports: [u16; 2]) {
    let conf = folder.join("conf");
    let (uid, gid) = account("nobody");
    let daemons = peers::find("trivial-rewrite").expect("Postfix comes with its daemons");
    let environment: Vec<String> = peers::environment().iter().map(|(n, v)| format!("{n}={v}")).collect();
    let filled = |template: &str| {
        template
            .replace("@DIR@", &folder.display().to_string())
            .replace("@DAEMONS@", &daemons.with_file_name("").display().to_string())
            .replace("@ENVIRONMENT@", &environment.join(" "))
            .replace("@PROTOCOLS@", if has_ipv6() { "all" } else { "ipv4" })
            .replace("@SUBMISSION@", &ports[0].to_string())
            .replace("@SMTPS@", &ports[1].to_string())
            .replace("@UID@", &uid.to_string())
            .replace("@GID@", &gid.to_string())
    };
    let mut main = filled(include_str!("../../peers/postfix/main.cf"));
    for (name, value) in settings {
        main.push_str(&format!("{name} = {value}\n"));
    }
    let sasl = "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN\n";
    let chain = format!("{}{}", certificate.private_key, certificate.certificate);
    write(conf.join("main.cf"), &main);
    write(conf.join("master.cf"), &filled(include_str!("../../peers/postfix/master.cf")));
    write(conf.join("chain.pem"), &chain);
    write(conf.join("sasl/smtpd.conf"), &format!("{sasl}sasldb_path: {}\n", conf.join("sasl/db").display()));
}

fn add_login(folder: &Path, mut saslpasswd: Command) {
    let database = folder.join("conf/sasl/db");
    saslpasswd.arg("-f").arg(&database).args(["-p", "-c", "-u", "mx.provider.test", USER]);
    let mut child = saslpasswd.stdin(Stdio::piped()).spawn().expect("saslpasswd2 starts");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(PASSWORD.as_bytes()).expect("saslpasswd2 reads the password");
    drop(input);
    assert!(child.wait().expect("saslpasswd2 ends").success(), "saslpasswd2 failed");
    chown(&database, Some(account("daemon").0), None).expect("smtpd must be able to read it");
}

fn launch(folder: &Path, mut master: Command) -> Child {
    let output = fs::File::create(folder.join("output")).expect("a new file");
    master.arg("-c").arg(folder.join("conf")).args(["-d", "-e", "600"]).process_group(0);
    master.stdout(output.try_clone().expect("a second handle")).stderr(output);
    master.spawn().expect("Postfix's master starts")
}

/// User and group number of an account of this system.
fn account(name: &str) -> (u32, u32) {
    let accounts = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let fields = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let entry = fields.into_iter().find(|fields| fields[0] == name);
    let entry = entry.unwrap_or_else(|| panic!("this system has no account {name}"));
    let number = |field: usize| entry[field].parse().expect("a number in /etc/passwd");
    (number(2), number(3))
}

fn write(path: PathBuf, content: &str) {
    fs::write(&path, content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
