//! `waxseal check`: every problem of the configuration, or what would run; with --message, what would happen to a
//! message. Starts nothing, connects nowhere. Prints places, values and remedies, never a secret.

mod diff;
mod dry_run;
mod message;
mod summary;

use super::WRONG;
use super::run::print_problems;
use crate::config::{self, ConfigFile, Defaults, Environment, Problems, Settings};
use serde::Serialize;
use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;
use summary::{ConfigSummary, ProblemSummary};

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Print every key with its default and its meaning, and check nothing
    #[arg(long)]
    defaults: bool,

    /// Print JSON, for programs
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    sample: message::SampleArgs,
}

pub fn run(file: &ConfigFile<'_>, args: &CheckArgs) -> anyhow::Result<ExitCode> {
    if args.defaults {
        print(if args.json { pretty(&Defaults.to_json()) } else { Defaults.to_string() });
        return Ok(ExitCode::SUCCESS);
    }
    let loaded = config::load(file, &Environment::of_process());
    if args.sample.is_given() {
        return match loaded {
            Ok(settings) => message::run(&args.sample, settings, args.json),
            Err(problems) => {
                print_problems(&problems);
                Ok(ExitCode::from(WRONG))
            }
        };
    }
    let status = if loaded.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(WRONG) };
    match &loaded {
        Err(_) if args.json => print(pretty(&CheckReport::of(&loaded))),
        Ok(settings) if args.json => print(settings.warnings.hide(&pretty(&CheckReport::of(&loaded)))),
        Ok(settings) => {
            print(settings.warnings.hide(&ConfigSummary::of(settings).to_string()));
            if !settings.warnings.is_empty() {
                print_problems(&settings.warnings);
            }
        }
        Err(problems) => print_problems(problems),
    }
    Ok(status)
}

fn print(text: impl Display) {
    let _a_closed_pipe_changes_nothing = writeln!(std::io::stdout(), "{text}");
}

fn pretty(value: &impl Serialize) -> String {
    serde_json::to_value(value).map_or_else(|error| error.to_string(), |value| format!("{value:#}"))
}

/// One line for people.
fn line(what: &str, text: impl Display) -> String {
    format!("{what:<14} {text}")
}

/// The JSON result.
#[derive(Debug, Serialize)]
struct CheckReport {
    ok: bool,
    problems: Vec<ProblemSummary>,
    /// The configuration that would run.
    #[serde(flatten)]
    summary: Option<ConfigSummary>,
}

impl CheckReport {
    fn of(loaded: &Result<Settings, Problems>) -> Self {
        match loaded {
            Ok(settings) => Self { ok: true, problems: Vec::new(), summary: Some(ConfigSummary::of(settings)) },
            Err(problems) => Self { ok: false, problems: ProblemSummary::all(problems), summary: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn report(loaded: &Result<Settings, Problems>) -> Value {
        serde_json::to_value(CheckReport::of(loaded)).expect("JSON")
    }

    fn load(text: &str) -> Result<Settings, Problems> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.toml");
        std::fs::write(&path, text).expect("a file");
        config::load(&ConfigFile { path: &path, explicit: true }, &Environment::of([("PASSWORD", "hunter2")]))
    }

    const GOOD: &str = "hostname = \"gateway.example.com\"\n[[dkim]]\ndomain = \"example.com\"\nselector = \"wax1\"\n\
        private_key = \"key.pem\"\ngenerate = true\n[[upstream]]\nname = \"company\"\nprovider = \"smtp\"\n\
        host = \"smtp.example.com\"\nusername = \"relay\"\npassword = { env = \"PASSWORD\" }\n\
        [[upstream]]\nname = \"sandbox\"\nprovider = \"sandbox\"\n[repair]\ntext_part = false\n";

    #[test]
    fn the_summary_names_what_would_run_and_no_secret() {
        let settings = load(GOOD).unwrap_or_else(|problems| panic!("{problems}"));
        let shown = ConfigSummary::of(&settings).to_string();
        for part in [
            "gateway        gateway.example.com; data in ",
            "listener       127.0.0.1:2525, delivery queue, tls off; clients from 127.0.0.0/8, ::1/128; senders *@example.com",
            "key            wax1._domainkey.example.com from ",
            ", to be made at start",
            "other domains  mail is refused",
            "upstream       company: an SMTP server, smtp.example.com port 587, tls starttls, login relay, at most 4 connections",
            "upstream       sandbox: the sandbox, which keeps mail and does NOT send it",
            "route          default: from * to * through company",
            "repair         every step but text_part",
            "queue          retries after 30 seconds, then up to 1 hour apart, for 5 days; keeps failed mail for 14 days; no bounces are sent",
            "warnings       1",
        ] {
            assert!(shown.contains(part), "{part}\n{shown}");
        }
        let json = pretty(&report(&Ok(settings)));
        assert!(!shown.contains("hunter2") && !json.contains("hunter2"));
        assert!(json.contains("\"host\": \"smtp.example.com\"") && json.contains("no route uses"), "{json}");
    }

    #[test]
    fn routes_are_shown_with_their_conditions() {
        let routes = "[[route]]\nname = \"reports\"\nsenders = [\"*@example.com\"]\nheader = { X-Kind = \"report*\" }\n\
            tag = [\"a\", \"b\"]\nupstreams = [\"company\", \"sandbox\"]\nretry_refused = true\n\
            [[route]]\nname = \"rest\"\nupstreams = { sandbox = 1, company = 3 }\n";
        let settings = load(&format!("{GOOD}{routes}")).unwrap_or_else(|problems| panic!("{problems}"));
        let shown = ConfigSummary::of(&settings).to_string();
        for part in [
            "route          reports: from *@example.com to *, header X-Kind: report*, tag a or b through company, then \
             sandbox; what one refuses is offered to the next",
            "route          rest: from * to * through company (3), sandbox (1) by weight",
        ] {
            assert!(shown.contains(part), "{part}\n{shown}");
        }
        let value = report(&Ok(settings));
        assert_eq!(value["upstreams"][0]["port"], json!(587));
        assert_eq!(value["upstreams"][1].get("port"), None, "the sandbox has none");
        assert_eq!((&value["queue"]["retry_first_seconds"], &value["unsigned"]), (&json!(30), &json!("refuse")));
        assert_eq!(value["routes"][0]["headers"], json!([{ "name": "X-Kind", "value": "report*" }]));
        assert_eq!(value["routes"][1]["weights"], json!([3, 1]));
    }

    #[test]
    fn problems_have_line_and_column_in_json() {
        let value = report(&load("drain = 8\n[[upstream]]\nname = \"p\"\nprovider = \"sandbox\"\n"));
        assert_eq!(value["ok"], json!(false));
        let [problem] = value["problems"].as_array().expect("a list").as_slice() else { panic!("{value}") };
        assert_eq!((&problem["line"], &problem["column"]), (&json!(1), &json!(9)));
    }
}
