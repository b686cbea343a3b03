//! `waxseal doctor` in a scripted world: its own DNS server, scripted upstreams, and its results as JSON.

use super::application::queued_in_front_of;
use super::dns::DnsServer;
use super::gateway::{Gateway, Setup};
use super::keys::{TestKey, tables, with_files};
use super::upstream::ScriptedUpstream;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

/// A report, and the exit status that came with it.
#[derive(Debug)]
pub struct Report {
    pub status: i32,
    pub value: Value,
}

/// One check of a report: `["id", "subject", "verdict"]` and its texts.
impl Report {
    pub fn of(output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout);
        let complaints = String::from_utf8_lossy(&output.stderr);
        let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{complaints}"));
        Self { status: output.status.code().expect("an exit status"), value }
    }

    pub fn checks(&self, id: &str) -> Vec<&Value> {
        self.value["checks"].as_array().expect("checks").iter().filter(|check| check["id"] == id).collect()
    }

    /// The worst one of this name.
    pub fn check(&self, id: &str) -> &Value {
        let rank = |check: &&Value| {
            let order = ["not_applicable", "ok", "unknown", "warning", "failed"];
            order.iter().position(|verdict| check["verdict"] == *verdict).expect("a verdict")
        };
        self.checks(id).into_iter().max_by_key(rank).unwrap_or_else(|| panic!("no {id} in {:#}", self.value))
    }

    pub fn verdict(&self, id: &str) -> &str {
        self.check(id)["verdict"].as_str().expect("a verdict")
    }

    /// Those that failed or warn.
    pub fn problems(&self) -> Vec<&str> {
        let checks = self.value["checks"].as_array().expect("checks").iter();
        let wrong = checks.filter(|check| check["verdict"] == "failed" || check["verdict"] == "warning");
        wrong.map(|check| check["id"].as_str().expect("an id")).collect()
    }

    #[track_caller]
    pub fn assert(&self, id: &str, verdict: &str, words: &[&str]) {
        let check = self.check(id);
        assert_eq!(check["verdict"], verdict, "{check:#}");
        let text = check.to_string();
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {check:#}");
        }
        if verdict == "failed" {
            for part in ["evidence", "cause", "fix"] {
                assert!(check[part].is_string(), "a failed check without its {part}: {check:#}");
            }
        }
    }
}

/// The setup of a gateway for `example.com` with these keys, in front of `scripted`, that asks `dns`.
pub fn world(scripted: &ScriptedUpstream, dns: &DnsServer, keys: &[TestKey], lines: &str) -> Setup {
    let lines = format!("{lines}\n[doctor]\ndns = \"{}\"\n{}", dns.address, tables(keys));
    let setup = with_files(queued_in_front_of(scripted, &lines, ""), keys).config_with("unsigned = \"send\"\n", "");
    for entry in std::fs::read_dir(setup.folder()).expect("the folder") {
        let path = entry.expect("an entry").path();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("the file's owner");
    }
    setup
}

/// The records with which nothing is wrong.
pub fn publish(dns: &DnsServer, keys: &[TestKey]) {
    for key in keys {
        let (name, text) = key.record();
        dns.txt(&name, &text);
    }
    dns.txt("example.com", "v=spf1 ip4:192.0.2.10 ~all");
    dns.txt("_dmarc.example.com", "v=DMARC1; p=reject; rua=mailto:postmaster@example.com");
}

/// Runs beside the test's own servers.
async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().expect("the program runs")).await.expect("no panic")
}

fn searched(output: Output) -> Output {
    for said in [&output.stdout, &output.stderr] {
        let said = String::from_utf8_lossy(said);
        assert!(!said.contains("canary"), "a secret is printed: {said}");
        assert!(!super::canaries::Search::now().finds(&*said), "a secret is printed: {said}");
    }
    output
}

pub async fn doctor(setup: &Setup, arguments: &[&str]) -> Report {
    Report::of(&doctor_output(setup, &[arguments, &["--json"]].concat()).await)
}

pub async fn doctor_output(setup: &Setup, arguments: &[&str]) -> Output {
    searched(run(setup.command(&[&["doctor"], arguments].concat())).await)
}

pub async fn doctor_beside(gateway: &Gateway, arguments: &[&str]) -> Report {
    Report::of(&searched(run(gateway.command(&[&["doctor", "--json"], arguments].concat())).await))
}
