//! `waxseal init`: a person or a script gets to a configuration that passes every check, and nothing is ever half written or
//! lost.

use crate::support::clock;
use crate::support::eventually;
use crate::support::gateway::Setup;
use crate::support::peers;
use crate::support::real_clients::swaks;
use crate::support::running::Running;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn waxseal(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waxseal"));
    command.current_dir(folder).env_clear().envs(clock::of_this_run()).args(arguments).stdin(Stdio::null());
    command
}

fn output(folder: &Path, arguments: &[&str]) -> Output {
    waxseal(folder, arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Flags for each provider. The password is in the file `pw`.
const PROVIDERS: [(&str, &[&str]); 9] = [
    ("smtp", &["--host", "smtp.example.com", "--username", "relay", "--password-file", "pw"]),
    ("postmark", &["--password-file", "pw"]),
    ("mailgun", &["--region", "eu", "--username", "postmaster@mg.example.com", "--password-file", "pw"]),
    ("mandrill", &["--password-file", "pw"]),
    ("sendgrid", &["--password-file", "pw"]),
    ("ses", &["--region", "eu-central-1", "--username", "AKIAIOSFODNN7EXAMPLE", "--secret-key-file", "pw"]),
    ("gmail", &["--username", "reports@example.com", "--password-file", "pw"]),
    ("microsoft365", &["--username", "reports@example.com", "--password-file", "pw"]),
    ("sandbox", &[]),
];

fn flags<'a>(provider: &'a str, login: &[&'a str]) -> Vec<&'a str> {
    [&["init", "--provider", provider, "--domain", "example.com"], login].concat()
}

/// Every file and folder with its mode and content.
fn tree(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let content = if metadata.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
            if metadata.is_dir() {
                open.push(path.clone());
            }
            found.insert(path, (metadata.mode() & 0o7777, content));
        }
    }
    found
}

#[test]
fn every_provider_on_the_page_has_a_configuration_that_passes_the_strict_check() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/providers.md")).unwrap();
    let documented = page.lines().filter_map(|line| line.strip_prefix("provider = \"")?.strip_suffix('"'));
    let unknown: Vec<_> = documented.filter(|name| !PROVIDERS.iter().any(|(known, _)| known == name)).collect();
    assert!(unknown.is_empty(), "{unknown:?} are on the page, but not here");
    for (provider, login) in PROVIDERS {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pw"), "s3cret canary\n").unwrap();
        std::fs::set_permissions(folder.path().join("pw"), PermissionsExt::from_mode(0o600)).unwrap();
        let made = output(folder.path(), &flags(provider, login));
        assert_eq!(made.status.code(), Some(0), "{provider}: {}", said(&made));
        assert!(!said(&made).contains("canary"), "{provider}: {}", said(&made));
        let checked = output(folder.path(), &["check", "--strict"]);
        assert_eq!(checked.status.code(), Some(0), "{provider}: {}", said(&checked));
        let config = std::fs::read_to_string(folder.path().join("config.toml")).unwrap();
        assert!(config.lines().count() < 40 && !config.contains("canary"), "{provider}: {config}");

        let records = std::fs::read_to_string(folder.path().join("dns-records.txt")).unwrap();
        assert!(records.contains("\n_dmarc.example.com. IN TXT \"v=DMARC1; p=none;"), "{provider}: {records}");
        let key = folder.path().join("certs/dkim/example.com.wax1.pem");
        assert_eq!(key.exists(), provider != "postmark", "{provider}: it signs, and nobody else");
        if key.exists() {
            assert_eq!(key.metadata().unwrap().mode() & 0o777, 0o600);
            let zone = output(folder.path(), &["dkim", "record", "--json"]);
            let zone: serde_json::Value = serde_json::from_slice(&zone.stdout).unwrap();
            assert!(records.contains(zone[0]["zone"].as_str().unwrap()), "{provider}: {records}");
            assert!(said(&made).contains(zone[0]["value"].as_str().unwrap()), "{provider}: {}", said(&made));
        }
        let include = match provider {
            "smtp" => Some("a:smtp.example.com"),
            "gmail" => Some("include:_spf.google.com"),
            "microsoft365" => Some("include:spf.protection.outlook.com"),
            _ => None,
        };
        let published = include.map(|include| format!("\nexample.com. IN TXT \"v=spf1 {include} ~all\"\n"));
        assert_eq!(published.is_some(), records.contains("v=spf1"), "{provider}: {records}");
        assert!(published.is_none_or(|line| records.contains(&line)), "{provider}: {records}");
        assert!(!folder.path().join(".waxseal-init").exists(), "{provider}");
    }
}

#[test]
fn from_an_empty_folder_to_a_mail_in_the_sandbox() {
    let setup = Setup::new(None);
    let made = setup.output(&["init", "--provider", "sandbox", "--domain", "example.com", "--listen", "127.0.0.1:0"]);
    assert_eq!(made.status.code(), Some(0), "{}", said(&made));
    let gateway = setup.start(1);
    let server = gateway.address().to_string();
    let Some(sent) = swaks(&["--server", &server, "--from", "reports@example.com", "--to", "you@example.net"]) else {
        return;
    };
    assert!(sent.success, "{sent:?}");
    gateway.wait_for_line(&["kept in the sandbox, NOT sent", "DKIM pass (wax1._domainkey.example.com)"]);
}

/// Each leaves the folder as it was, and says what is wrong.
#[test]
fn bad_input_writes_nothing_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pw"), "canary\n").unwrap();
    std::fs::write(folder.path().join("ca.pem"), "not a certificate").unwrap();
    let good = ["--provider", "postmark", "--domain", "example.com", "--password-file", "pw"];
    let before = tree(folder.path());
    for (arguments, wanted) in [
        (&["init"][..], "--provider NAME, --domain DOMAIN"),
        (
            &["init", "--provider", "gmail"],
            "--username NAME, --password-file FILE (or --password-env VARIABLE), --domain DOMAIN",
        ),
        (&["init", "--provider", "smtp", "--domain", "a.example"], "--host NAME"),
        (
            &["init", "--provider", "ses", "--domain", "a.example"],
            "--region NAME, --username NAME, --secret-key-file FILE",
        ),
        (&["init", "--provider", "postmrk", "--domain", "a.example"], "'postmark'"),
        (&["init", "--provider", "postmark", "--domain", "me@a.example"], "write \"a.example\""),
        (&["init", "--provider", "postmark", "--domain", "localhost"], "in full"),
        (&["init", "--hostname", "box"], "as in \"gateway.example.com\""),
        (&["init", "--selector", "a b"], "a selector consists of"),
        (&["init", "--listen", "2525"], "write \"127.0.0.1:2525\""),
        (&["init", "--application", "ghots"], "'ghost'"),
        (&["init", "--password", "hunter2 canary"], "--password-file FILE"),
        (&["init", "--password=hunter2canary"], "--password-file FILE"),
        (&["init", "--password-env", "hunter2!canary", "--provider", "postmark"], "the name of a variable"),
        (&[&["init", "--listen", "0.0.0.0:2525"], &good[..]].concat(), "--allow NETWORK"),
        (&[&["init", "--allow", "172.18.0.0/16"], &good[..]].concat(), "--listen ADDRESS"),
        (&["init", "--provider", "postmark", "--domain", "a.example", "--password-file", "gone"], "gone"),
        (
            &["init", "--provider", "postmark", "--domain", "a.example", "--password-env", "NOT_SET"],
            "NOT_SET is not set",
        ),
        (&[&["init", "--ca", "ca.pem"], &good[..]].concat(), "ca.pem"),
        (&[&["init", "--region", "eu"], &good[..]].concat(), "`region` means nothing"),
        (&[&["--config", "pw/config.toml", "init"], &good[..]].concat(), "pw cannot be written: not a directory"),
        (&[&["--config", ".", "init", "--force"], &good[..]].concat(), "is a folder"),
    ] {
        let refused = output(folder.path(), arguments);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {}", said(&refused));
        assert!(said(&refused).contains(wanted), "{arguments:?}: no {wanted:?} in {}", said(&refused));
        assert!(!said(&refused).contains(".waxseal-init"), "{arguments:?}: {}", said(&refused));
        assert!(refused.stdout.is_empty() && !said(&refused).contains("canary"), "{arguments:?}: {}", said(&refused));
        assert!(tree(folder.path()) == before, "{arguments:?} changed {:?}", tree(folder.path()).keys());
    }
}

#[test]
fn what_is_there_is_never_overwritten_without_being_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let good = flags("gmail", &["--username", "a@example.com", "--password-file", "-"]);
    let with_password = |arguments: &[&str]| {
        let mut command = waxseal(folder.path(), arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _it_may_have_refused_before_reading = child.stdin.take().unwrap().write_all(b"first canary\n");
        child.wait_with_output().unwrap()
    };
    // Each file alone is in the way, even if the configuration is not there.
    for name in ["config.toml", "dns-records.txt", "secrets/gmail_password"] {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "mine").unwrap();
        let before = tree(folder.path());
        let refused = with_password(&good);
        assert_eq!(refused.status.code(), Some(2), "{name}");
        assert!(said(&refused).contains(name) && said(&refused).contains("--force"), "{name}: {}", said(&refused));
        assert!(tree(folder.path()) == before, "{name}");
        std::fs::remove_file(path).unwrap();
    }
    std::fs::remove_dir(folder.path().join("secrets")).unwrap();

    let made = with_password(&good);
    assert_eq!(made.status.code(), Some(0), "{}", said(&made));
    let secret = folder.path().join("secrets/gmail_password");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "first canary\n");
    assert_eq!(secret.metadata().unwrap().mode() & 0o777, 0o600);
    assert_eq!(secret.parent().unwrap().metadata().unwrap().mode() & 0o777, 0o700);

    let before = tree(folder.path());
    let key = folder.path().join("certs/dkim/example.com.wax1.pem");
    let other = flags("sandbox", &["--hostname", "other.example.com"]);
    assert_eq!(output(folder.path(), &other).status.code(), Some(2));
    assert!(tree(folder.path()) == before);
    let forced = output(folder.path(), &[&other[..], &["--force"]].concat());
    assert_eq!(forced.status.code(), Some(0), "{}", said(&forced));
    let after = tree(folder.path());
    assert_eq!(after[&key], before[&key], "a key is never replaced");
    assert!(said(&forced).contains("was there and is used"), "{}", said(&forced));
    let config = folder.path().join("config.toml");
    assert!(String::from_utf8_lossy(&after[&config].1).contains("other.example.com"));
}

/// A step in the middle fails: a folder is where the records should go.
#[test]
fn a_failure_half_way_takes_everything_back() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("dns-records.txt")).unwrap();
    std::fs::write(folder.path().join("config.toml"), "mine").unwrap();
    std::fs::set_permissions(folder.path().join("config.toml"), PermissionsExt::from_mode(0o640)).unwrap();
    let before = tree(folder.path());
    let failed = output(folder.path(), &[&flags("sandbox", &[])[..], &["--force"]].concat());
    assert_eq!(failed.status.code(), Some(2), "{}", said(&failed));
    assert!(said(&failed).contains("dns-records.txt cannot be written"), "{}", said(&failed));
    assert!(tree(folder.path()) == before, "{:?}", tree(folder.path()).keys());
    // A new folder goes too.
    let nested =
        output(folder.path(), &[&["--config", "new/sub/config.toml"][..], &flags("smtp", &["--host", "a b"])].concat());
    assert_eq!(nested.status.code(), Some(2), "{}", said(&nested));
    assert!(tree(folder.path()) == before, "{:?}", tree(folder.path()).keys());
}

#[test]
fn a_run_that_was_killed_is_cleared_and_two_at_once_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let staging = folder.path().join(".waxseal-init");
    std::fs::create_dir_all(staging.join("secrets")).unwrap();
    std::fs::write(staging.join("secrets/old_password"), "left").unwrap();
    let lock = std::fs::File::open(&staging).unwrap();
    lock.lock().unwrap();
    let busy = output(folder.path(), &flags("sandbox", &[]));
    assert!(busy.status.code() == Some(2) && said(&busy).contains("another `waxseal init`"), "{}", said(&busy));
    drop(lock);
    let made = output(folder.path(), &flags("sandbox", &[]));
    assert_eq!(made.status.code(), Some(0), "{}", said(&made));
    assert!(!staging.exists() && !folder.path().join("secrets").exists());
}

#[test]
fn relative_paths_are_right_wherever_it_was_started() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["etc", "work", "elsewhere"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    for name in ["etc/inside", "work/outside"] {
        std::fs::write(folder.path().join(name), "canary\n").unwrap();
        std::fs::set_permissions(folder.path().join(name), PermissionsExt::from_mode(0o600)).unwrap();
    }
    let work = folder.path().join("work");
    for (password, data, written) in
        [("../etc/inside", "../etc/q", "{ file = \"inside\" }"), ("outside", "q", "/work/outside\" }")]
    {
        let login = ["--password-file", password, "--data-dir", data, "--force"];
        let made = output(&work, &[&["--config", "../etc/config.toml"], &flags("mandrill", &login)[..]].concat());
        assert_eq!(made.status.code(), Some(0), "{}", said(&made));
        assert!(said(&made).contains("waxseal --config ../etc/config.toml run"), "{}", said(&made));
        let config = std::fs::read_to_string(folder.path().join("etc/config.toml")).unwrap();
        assert!(config.contains(written) && config.contains("\"certs/dkim/example.com.wax1.pem\""), "{config}");
        assert!(folder.path().join("etc/certs/dkim/example.com.wax1.pem").exists());
        assert_eq!(std::fs::read_dir(&work).unwrap().count(), 1, "nothing is written where it was started");
        let checked =
            output(&folder.path().join("elsewhere"), &["--config", "../etc/config.toml", "check", "--strict"]);
        assert_eq!(checked.status.code(), Some(0), "{}", said(&checked));
    }
    // Started beside the configuration, a path in its folder stays relative.
    let login = ["--password-file", "inside", "--force"];
    let made = output(&folder.path().join("etc"), &flags("mandrill", &login));
    assert_eq!(made.status.code(), Some(0), "{}", said(&made));
    assert!(std::fs::read_to_string(folder.path().join("etc/config.toml")).unwrap().contains("{ file = \"inside\" }"));
}

/// Otherwise the service could not read what root made for it.
#[test]
fn what_root_makes_belongs_to_the_owner_of_the_data_folder() {
    if !peers::is_root() {
        return peers::skip("files are given away only by root");
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("queue");
    std::fs::create_dir(&data).unwrap();
    std::os::unix::fs::chown(&data, Some(4711), Some(4712)).unwrap();
    let mut command = waxseal(folder.path(), &flags("gmail", &["--username", "a@example.com", "--password-file", "-"]));
    let mut child = command.args(["--data-dir", "queue"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"canary\n").unwrap();
    assert!(child.wait().unwrap().success());
    for (name, owner) in [
        ("certs/dkim/example.com.wax1.pem", (4711, 4712)),
        ("certs/dkim", (4711, 4712)),
        ("certs", (4711, 4712)),
        ("secrets/gmail_password", (4711, 4712)),
        ("secrets", (4711, 4712)),
        ("config.toml", (0, 0)),
    ] {
        let metadata = folder.path().join(name).metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), owner, "{name}");
    }
}

/// A guard against hanging, not an expectation.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program on a terminal of its own, as script(1) makes it.
struct OnTerminal {
    child: Running,
    shown: std::sync::mpsc::Receiver<Vec<u8>>,
    text: String,
}

impl OnTerminal {
    fn start(folder: &Path) -> Self {
        let program = format!("tty; exec {} init", env!("CARGO_BIN_EXE_waxseal"));
        let mut command = Command::new("script");
        command.current_dir(folder).env_clear().env("PATH", std::env::var("PATH").unwrap_or_default());
        command.env("SHELL", "/bin/sh").envs(clock::of_this_run());
        command.args(["--quiet", "--return", "--command", &program, "/dev/null"]);
        let mut child = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()));
        let mut output = child.stdout.take().unwrap();
        let (sender, shown) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                let _the_test_may_have_ended = sender.send(buffer[..read].to_vec());
            }
        });
        Self { child, shown, text: String::new() }
    }

    /// Waits for the prompt, then types a line.
    fn answer(&mut self, prompt: &str, line: &str) {
        self.wait_for(prompt);
        self.child.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// The same once the terminal no longer shows what is typed, which is a moment after the prompt.
    fn answer_unseen(&mut self, prompt: &str, line: &str) {
        self.wait_for(prompt);
        let terminal = self.text.lines().next().unwrap().trim().to_owned();
        let shows = || {
            let settings = Command::new("stty").args(["-F", &terminal, "-a"]).output().unwrap();
            !String::from_utf8_lossy(&settings.stdout).contains(" -echo ")
        };
        eventually("the terminal to hide what is typed", || !shows());
        self.child.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn wait_for(&mut self, prompt: &str) {
        let from = self.text.len();
        let deadline = Instant::now() + PATIENCE;
        while !self.text[from..].contains(prompt) {
            let left = deadline.saturating_duration_since(Instant::now());
            let more = self.shown.recv_timeout(left).unwrap_or_else(|_| panic!("no {prompt:?} in {}", self.text));
            self.text.push_str(&String::from_utf8_lossy(&more));
        }
    }

    fn end(mut self) -> (bool, String) {
        while let Ok(more) = self.shown.recv_timeout(PATIENCE) {
            self.text.push_str(&String::from_utf8_lossy(&more));
        }
        (self.child.ended().success(), self.text)
    }
}

#[test]
fn a_person_at_a_terminal_is_asked_and_the_password_is_not_shown() {
    if peers::find("script").is_none() {
        return peers::skip("script(1) is missing");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = OnTerminal::start(folder.path());
    terminal.answer("Provider: ", "mailgn");
    terminal.answer("did you mean \"mailgun\"?", "mailgun");
    terminal.answer("Region [us]: ", "");
    terminal.answer("User name: ", "postmaster@example.com");
    terminal.answer_unseen("Password or token (not shown): ", "hunter2-canary");
    terminal.answer("Domain: ", "example.com");
    terminal.answer("Name [", "gateway.example.com");
    terminal.answer("Application [plausible]: ", "");
    terminal.answer("yes or no [no]: ", "");
    let (succeeded, text) = terminal.end();
    assert!(succeeded, "{text}");
    assert!(!text.contains("canary"), "{text}");
    assert!(text.contains("SMTP_HOST_ADDR=127.0.0.1") && text.contains("doctor --send-to"), "{text}");
    assert_eq!(std::fs::read_to_string(folder.path().join("secrets/mailgun_password")).unwrap(), "hunter2-canary\n");
    let checked = output(folder.path(), &["check", "--strict"]);
    assert_eq!(checked.status.code(), Some(0), "{}", said(&checked));
}
