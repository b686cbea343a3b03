//! `waxseal queue adopt`: accepts what Redis holds now as this gateway's queue, after a loss that cannot be undone.

use super::change::asked;
use super::print;
use crate::cli::{PROBLEM_FOUND, WRONG, complain};
use crate::config::QueueLocation;
use crate::gateway::backend::{self, BackendOptions};
use crate::gateway::lock::Lock;
use crate::text::counted;
use anyhow::{Context as _, bail};
use std::io::IsTerminal as _;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct AdoptArgs {
    /// Do not ask for confirmation; required without a terminal
    #[arg(long, short)]
    yes: bool,
}

pub async fn run(args: &AdoptArgs, location: QueueLocation) -> anyhow::Result<ExitCode> {
    if backend::database_folder(&location).is_some() {
        complain("the queue is a database in `data_dir`: only a queue in Redis can be adopted");
        return Ok(ExitCode::from(WRONG));
    }
    let _lock = Lock::take_as_owner(&location.data_dir).context("stop the gateway first")?;
    if !args.yes && !confirmed()? {
        eprintln!("Nothing was changed.");
        return Ok(ExitCode::from(PROBLEM_FOUND));
    }
    let missing = backend::adopt(location, BackendOptions::for_commands()).await?;
    print(match missing {
        0 => "Adopted: nothing that this gateway knows of is missing.\n".to_owned(),
        missing => format!("Adopted, without {} that were acknowledged and are gone.\n", counted(missing, "message")),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn confirmed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        bail!("there is no terminal to ask on; nothing was changed: add --yes to confirm");
    }
    asked("Give up what is missing, and accept what Redis holds now as the queue?")
}
