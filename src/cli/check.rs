//! `waxseal check`: every problem of the configuration, or what would run; with --message, what would happen to a
//! message. Starts nothing, connects nowhere. Prints places, values and remedies, never a secret.

mod diff;
mod dry_run;
mod message;
mod queue;
mod summary;

use super::run::print_problems;
use super::{PROBLEM_FOUND, WRONG};
use crate::config::{self, ConfigFile, Defaults, Environment, Problems, Settings, shown_path};
use serde::Serialize;
use std::fmt::Display;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use summary::{ConfigSummary, ProblemSummary};

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Print every key with its default and its meaning, and check nothing
    #[arg(long)]
    defaults: bool,

    /// Take warnings for errors: exit with status 1 if there are any
    #[arg(long, conflicts_with_all = ["defaults", "message"])]
    strict: bool,

    /// Take relative paths in the file as if it were in this folder. For a file that is checked before it is put there, as in
    /// Ansible's `validate: waxseal check --relative-to /etc/waxseal -c %s`
    #[arg(long, value_name = "DIR", conflicts_with = "defaults")]
    relative_to: Option<PathBuf>,

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
    if let Some(missing) = args.relative_to.as_deref().filter(|folder| !folder.is_dir()) {
        anyhow::bail!("--relative-to names {}, which is not a folder", shown_path(missing));
    }
    let environment = Environment::of_process();
    let loaded = match &args.relative_to {
        Some(base) => config::load_relative_to(file, base, &environment),
        None => config::load(file, &environment),
    };
    if args.sample.is_given() {
        return match loaded {
            Ok(settings) => message::run(&args.sample, settings, args.json),
            Err(problems) => {
                print_problems(&problems);
                Ok(ExitCode::from(WRONG))
            }
        };
    }
    match &loaded {
        Err(_) if args.json => print(pretty(&CheckReport::of(&loaded, args.strict))),
        Ok(settings) if args.json => print(settings.warnings.hide(&pretty(&CheckReport::of(&loaded, args.strict)))),
        Ok(settings) => {
            print(settings.warnings.hide(&ConfigSummary::of(settings).to_string()));
            print_problems(&settings.warnings);
        }
        Err(problems) => print_problems(problems),
    }
    Ok(match &loaded {
        Err(_) => ExitCode::from(WRONG),
        Ok(settings) if args.strict && !settings.warnings.is_empty() => ExitCode::from(PROBLEM_FOUND),
        Ok(_) => ExitCode::SUCCESS,
    })
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
    /// Those beside problems; else the summary has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<Vec<ProblemSummary>>,
    /// The configuration that would run.
    #[serde(flatten)]
    summary: Option<ConfigSummary>,
}

impl CheckReport {
    fn of(loaded: &Result<Settings, Problems>, is_strict: bool) -> Self {
        match loaded {
            Ok(settings) => Self {
                ok: !is_strict || settings.warnings.is_empty(),
                problems: Vec::new(),
                warnings: None,
                summary: Some(ConfigSummary::of(settings)),
            },
            Err(problems) => Self {
                ok: false,
                problems: ProblemSummary::all(problems.iter()),
                warnings: Some(ProblemSummary::all(problems.warnings())),
                summary: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn report(loaded: &Result<Settings, Problems>) -> Value {
        serde_json::to_value(CheckReport::of(loaded, false)).expect("JSON")
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
