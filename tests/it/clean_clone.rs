//! Runs the README's first command, word for word, in a clean clone of the commit.
//!
//! Builds in release below target/clean-clone, so that only the first time takes long.

use crate::support::gateway::Setup;
use crate::support::peers::{find, skip};
use crate::support::real_clients::swaks;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A guard against hanging, not an expectation: everything is built from scratch.
const BUILD: Duration = Duration::from_secs(3600);

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// From the README, without the comment.
fn first_command() -> Vec<String> {
    let readme = std::fs::read_to_string(project().join("README.md")).unwrap();
    let block = readme.split("```sh\n").nth(1).expect("a block of commands");
    let command = block.lines().next().unwrap().split('#').next().unwrap();
    command.split_whitespace().map(str::to_owned).collect()
}

fn git(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let output = Command::new("git").current_dir(folder).args(arguments).stdin(Stdio::null()).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// In the environment of the test run, without what the test runner and the gateway read from it.
fn command(words: &[String], folder: &Path) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).current_dir(folder).stdin(Stdio::null());
    let of_this_run = ["CARGO_PKG_", "CARGO_BIN_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_PRIMARY_", "NEXTEST"];
    let of_the_gateway = ["WAXSEAL_", "SMTP_", "DKIM_", "CONFIG_DIR"];
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if of_this_run.iter().chain(&of_the_gateway).any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command.env("CARGO_TARGET_DIR", project().join("target/clean-clone")).env("WAXSEAL_LISTEN", "127.0.0.1:0");
    command
}

#[test]
fn the_readmes_first_command_starts_a_gateway_that_takes_mail() {
    if find("git").is_none() {
        return skip("git is missing, so nothing can be cloned");
    }
    if !project().join(".git").exists() || !git(project(), &["rev-parse", "HEAD"]).0 {
        return skip("this tree is not a git repository, so nothing can be cloned");
    }
    let setup = Setup::new(None);
    let clone = setup.folder().join("waxseal");
    let (cloned, said) = git(setup.folder(), &["clone", "--quiet", &project().display().to_string(), "waxseal"]);
    assert!(cloned, "{said}");

    let words = first_command();
    assert_eq!(words.join(" "), "cargo run --release -- run");
    let mut gateway = setup.start_by(command(&words, &clone), 1, BUILD);
    for words in ["kept in the sandbox and NOT sent", "Name:  wax1._domainkey.example.com", "Value: v=DKIM1; k=rsa; p="]
    {
        gateway.wait_for_line(&[words]);
    }

    let server = gateway.address().to_string();
    let sent = swaks(&["--server", &server, "--from", "reports@example.com", "--to", "you@example.net"]);
    if let Some(sent) = sent {
        assert!(sent.success, "{sent:?}");
        assert!(sent.stdout.contains("250 2.0.0 Queued as "), "{sent:?}");
        let line = gateway.wait_for_line(&["kept in the sandbox, NOT sent", "reports@example.com", "you@example.net"]);
        assert!(line.contains("DKIM pass (wax1._domainkey.example.com)"), "{line}");
        assert_eq!(std::fs::read_dir(clone.join("data/sandbox")).unwrap().count(), 1);
    }

    gateway.signal("TERM");
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.log().join("\n"));
    assert_eq!(git(&clone, &["status", "--porcelain"]), (true, String::new()), "keys and mail are not for git");
}
