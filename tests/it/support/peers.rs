//! Finds the real peers: the machine's own, or those that `tests/peers/install` unpacked below target/peers.
//!
//! A missing peer is never ignored silently: the test prints SKIPPED (also in target/peers/skipped, since the output of a
//! passing test is not shown), and with `CI` set it fails.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a finished peer left: its exit status, and everything it printed.
#[derive(Debug)]
pub struct Finished {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

/// The program, ready to be given its arguments, or `None` after saying that the test is skipped.
pub fn command(program: &str) -> Option<Command> {
    let Some(path) = find(program) else {
        skip(&format!("peer {program} missing, run make test"));
        return None;
    };
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).env("HOME", "/nonexistent"); // no ~/.swaksrc and its like
    for (name, value) in environment() {
        command.env(name, value);
    }
    Some(command)
}

/// A script of tests/peers, run by the Python environment that has dkimpy.
pub fn python(script: &str) -> Option<Command> {
    let interpreter = installed().join("venv/bin/python3");
    if !interpreter.exists() {
        skip("peer dkimpy missing, run make test");
        return None;
    }
    let mut command = Command::new(interpreter);
    command.stdin(Stdio::null()).arg(project().join("tests/peers").join(script));
    Some(command)
}

/// Runs it to its end. A peer that hangs is ended by the test runner.
pub fn run(command: &mut Command) -> Finished {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
    Finished {
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Says aloud that this test shows nothing here, and why.
pub fn skip(reason: &str) {
    assert!(env::var_os("CI").is_none(), "{reason}");
    eprintln!("SKIPPED: {reason}");
    // An unprivileged run may find the folder to be root's; then the line above has to do.
    let _ = fs::create_dir_all(installed());
    let note = OpenOptions::new().create(true).append(true).open(installed().join("skipped"));
    if let Ok(mut note) = note {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let _ = writeln!(note, "SKIPPED {test}: {reason}");
    }
}

/// Postfix asks for root, or behaves otherwise under it.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

pub fn find(program: &str) -> Option<PathBuf> {
    let own = env::var_os("PATH").unwrap_or_default();
    let unpacked = environment().into_iter().find(|(name, _)| name == "PEER_PATH");
    let unpacked = unpacked.map(|(_, folders)| folders).unwrap_or_default();
    env::split_paths(&own)
        .chain(env::split_paths(&unpacked))
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// A shared library to be preloaded, or `None` after saying that the test is skipped.
pub fn library(name: &str) -> Option<PathBuf> {
    let unpacked = environment().into_iter().find(|(name, _)| name == "LD_LIBRARY_PATH").map(|(_, folders)| folders);
    let folders = env::split_paths(&unpacked.unwrap_or_default()).collect::<Vec<_>>();
    let machine = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let found = folders.into_iter().chain(machine).map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        skip(&format!("{name} is missing"));
    }
    found
}

/// Where the unpacked programs find their libraries and modules; empty when nothing was installed.
pub fn environment() -> Vec<(String, String)> {
    let text = fs::read_to_string(installed().join("env")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn installed() -> PathBuf {
    project().join("target/peers")
}
