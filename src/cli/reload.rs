//! `waxseal reload`: asks the running gateway to read its configuration again, and prints what came of it.

use super::{PROBLEM_FOUND, complain, queue_location, small_runtime};
use crate::config::ConfigFile;
use crate::control::{self, ControlRequest, ControlResponse, Reloaded};
use anyhow::{Context as _, anyhow};
use std::process::ExitCode;

pub(super) const AFTER_HELP: &str = "\
The gateway reads the configuration file that it was started with, and checks all of it first. If anything is wrong, it
says what, and goes on as it was. Otherwise listeners, users, upstreams, limits, keys, certificates, rules and routes are
replaced while mail goes through: no connection is cut and no message is lost. What is under way ends as it began.

Read only at the next start: data_dir, max_memory, [log], [admin], [queue] backend, min_free_space, retry and expire. Variables of the
environment are those of the running process.

SIGHUP does the same and reports in the log (to a gateway on a terminal it is a stop). Certificates, keys and secrets in files need no reload: the gateway notices
within seconds when their content changes.

Exit status: 0 reloaded, 1 the configuration has a problem and nothing was changed, 2 no gateway answers.";

pub fn run(file: &ConfigFile<'_>) -> anyhow::Result<ExitCode> {
    let location = match queue_location(file) {
        Ok(location) => location,
        Err(status) => return Ok(status),
    };
    let data_dir = location.data_dir.display();
    let runtime = small_runtime()?;
    let response = runtime
        .block_on(control::ask(&location.data_dir, &ControlRequest::Reload))
        .with_context(|| format!("no gateway that uses {data_dir} answers; is it running, and as this user?"))??;
    match response {
        ControlResponse::Reloaded(reloaded) => Ok(print(&reloaded)),
        other => Err(anyhow!("the gateway's answer is not one to a reload: {other:?}")),
    }
}

fn print(reloaded: &Reloaded) -> ExitCode {
    let Reloaded { problems, changes, at_next_start, warnings } = reloaded;
    if !problems.is_empty() {
        problems.iter().for_each(|problem| eprintln!("error: {problem}"));
        complain("nothing was changed; the gateway goes on as it was");
        return ExitCode::from(PROBLEM_FOUND);
    }
    warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    if changes.is_empty() {
        println!("reloaded");
    } else {
        println!("reloaded:");
        changes.iter().for_each(|change| println!("  {change}"));
    }
    if !at_next_start.is_empty() {
        println!("changed, and in effect only after a restart: {}", at_next_start.join(", "));
    }
    ExitCode::SUCCESS
}
