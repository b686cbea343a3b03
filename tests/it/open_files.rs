//! The system's limit of open files and sockets: a burst of clients must leave some for the providers.

use crate::support::gateway::{Gateway, Setup};
use std::process::Command;
use std::time::Duration;

const CONFIG: &str = "hostname = \"gateway.example.com\"\nunsigned = \"send\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
                      max_connections = 300\n[[upstream]]\nname = \"sandbox\"\nprovider = \"sandbox\"\n";

/// By a shell that lowers the limit first.
fn start_under(limit: &str) -> Gateway {
    let setup = Setup::new(Some(CONFIG));
    let program = setup.command(&["run"]);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("{limit} && exec \"$0\" \"$@\"")]).arg(program.get_program()).args(program.get_args());
    shell.current_dir(setup.folder());
    setup.start_by(shell, 1, Duration::from_secs(60))
}

fn warns(gateway: &Gateway) -> bool {
    gateway.log().iter().any(|line| line.contains("files and sockets may be open at once"))
}

#[test]
fn a_limit_that_may_be_raised_is() {
    let gateway = start_under("ulimit -S -n 256");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let [soft, hard]: [&str; 2] = line.split_whitespace().skip(3).take(2).collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(soft, hard, "{line}");
    assert!(!warns(&gateway), "{:?}", gateway.log());
}

#[test]
fn a_limit_that_may_not_suffice_is_named() {
    let gateway = start_under("ulimit -n 256");
    let line = gateway.wait_for_line(&["only 256 files and sockets may be open at once"]);
    assert!(line.contains("may need 404") && line.contains("LimitNOFILE"), "{line}");
}
