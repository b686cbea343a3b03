//! `waxseal queue salvage`: builds a new database from what can be read of a damaged one, under the data folder's lock.

use super::change::asked;
use super::check::{Watched, findings, refuse_without_a_queue};
use super::{print, print_json};
use crate::cli::PROBLEM_FOUND;
use crate::gateway::lock::Lock;
use crate::queue::sqlite::{self, Salvaged};
use crate::text::counted;
use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde_json::json;
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct SalvageArgs {
    /// Do not ask for confirmation; required without a terminal
    #[arg(long, short)]
    yes: bool,

    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

pub fn run(args: &SalvageArgs, data_dir: &Path) -> anyhow::Result<ExitCode> {
    refuse_without_a_queue(data_dir)?;
    let _lock = Lock::take_as_owner(data_dir).context("a salvage needs the queue for itself")?;
    if !args.yes && !confirmed(data_dir)? {
        eprintln!("Nothing was changed.");
        return Ok(ExitCode::from(PROBLEM_FOUND));
    }
    let mut progress = Watched::start("reading messages");
    let salvaged = sqlite::salvage(data_dir, Timestamp::now(), |done, all| progress.reach(done, all));
    drop(progress);
    let salvaged = salvaged.with_context(|| format!("the queue in {} is as it was", data_dir.display()))?;
    if args.json {
        print_json(&json!(salvaged))?;
    } else {
        print(description(&salvaged))?;
    }
    Ok(if salvaged.is_whole() { ExitCode::SUCCESS } else { ExitCode::from(PROBLEM_FOUND) })
}

fn confirmed(data_dir: &Path) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        bail!("there is no terminal to ask on; nothing was changed: add --yes to confirm");
    }
    asked(&format!(
        "Make a new database from what can be read of the one in {}, and keep that aside?",
        data_dir.display()
    ))
}

fn description(salvaged: &Salvaged) -> String {
    let mut text = String::new();
    let mut line = |line: String| text.extend([line.as_str(), "\n"]);
    line(format!("As they were stored: {}.", counted(salvaged.whole, "message")));
    if !salvaged.damaged.is_empty() {
        let number = counted(salvaged.damaged.len() as u64, "message");
        line(format!("Set aside as damaged, and never sent by themselves: {number}."));
        findings(&salvaged.damaged, &mut line);
    }
    if !salvaged.lost.is_empty() {
        line(format!("Lost: {}.", counted(salvaged.lost.len() as u64, "message")));
        findings(&salvaged.lost, &mut line);
    }
    match salvaged.missing_recipients {
        Some(0) => {}
        Some(missing) => line(format!(
            "By its own count the database had {} more, of messages of which nothing can be found; the gateway's log has the id \
             of each message that was accepted.",
            counted(missing, "recipient")
        )),
        None => line(
            "The database's own count of messages cannot be read: more may be missing. The gateway's log has the id of each \
             message that was accepted."
                .to_owned(),
        ),
    }
    let history = counted(salvaged.history, "row");
    let cut = if salvaged.history_is_cut { "; the rest cannot be read" } else { "" };
    line(format!("History: {history}{cut}."));
    line(format!(
        "The damaged database is kept as {}. Remove it when nothing in it is missed.",
        salvaged.kept_as.display()
    ));
    text
}
