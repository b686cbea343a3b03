//! Configurations that must not start, each with its message. Nothing is started partially: the exit status is 2, and
//! nothing was created in the data folder.

use crate::support::gateway::Setup;

const UPSTREAM: &str = "[[upstream]]\nname = \"u\"\nprovider = \"smtp\"\nhost = \"smtp.example.com\"\n";

/// What it printed on standard error.
fn refused(setup: &Setup) -> String {
    let output = setup.output(&["run"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(!setup.folder().join("data/sandbox").exists(), "nothing was started");
    told
}

#[test]
fn each_is_refused_with_its_place_and_a_way_out() {
    for (what, config, words) in [
        (
            "an open listener",
            format!("[[listener]]\naddress = \"0.0.0.0:2525\"\n{UPSTREAM}"),
            &["config.toml:2", "allow", "0.0.0.0"][..],
        ),
        (
            "an upstream that is ourselves",
            "[[listener]]\naddress = \"127.0.0.1:2525\"\n[[upstream]]\nname = \"u\"\nprovider = \"smtp\"\n\
             host = \"localhost\"\nport = 2525\n"
                .to_owned(),
            &["config.toml:6", "own", "2525"],
        ),
        (
            "a missing key file",
            format!("[[dkim]]\ndomain = \"example.com\"\nselector = \"s\"\nprivate_key = \"gone.pem\"\n{UPSTREAM}"),
            &["config.toml:4", "gone.pem", "generate"],
        ),
        ("a misspelt key", format!("hostnme = \"a.example\"\n{UPSTREAM}"), &["config.toml:1:1", "hostname"]),
        (
            "a secret from a variable that is not set",
            format!("{UPSTREAM}username = \"u\"\npassword = {{ env = \"NOT_SET\" }}\n"),
            &["config.toml:6", "NOT_SET"],
        ),
        (
            "a Redis on another machine without TLS and without a password",
            format!("{UPSTREAM}[queue]\nbackend = \"redis\"\n[queue.redis]\nurl = \"redis://redis.example.com\"\n"),
            &["config.toml:8:7", "clear text", "rediss://", "no password", "requirepass"],
        ),
        (
            "a floor below what the queue itself needs",
            format!("{UPSTREAM}[queue]\nmin_free_space = \"8 MiB\"\n"),
            &["config.toml:6", "min_free_space", "\"16 MiB\"", "write-ahead log"],
        ),
        (
            "a data folder with files of something else, open to others",
            format!("data_dir = \"/etc\"\n{UPSTREAM}"),
            &["/etc", "mode 0755", "chmod 700", "below it"],
        ),
        (
            "a rate for a time that there is not",
            format!("{UPSTREAM}rate = [\"14/week\"]\n"),
            &["config.toml:5", "rate", "week", "14/day"],
        ),
    ] {
        let told = refused(&Setup::new(Some(&config)));
        for word in words {
            assert!(told.contains(word), "{what}: no {word:?} in:\n{told}");
        }
    }
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let told = refused(&Setup::new(Some(&format!("[[listener]]\naddress = \"{address}\"\n{UPSTREAM}"))));
    assert!(told.contains(&address.to_string()) && told.contains("another program"), "{told}");
}
