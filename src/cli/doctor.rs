//! `waxseal doctor`: runs the examination and shows its results as they come: a checklist that fills on a terminal, plain
//! lines otherwise, or JSON at the end. Decides nothing about what is well.

mod report;
mod screen;

use super::queue::QueueClient;
use super::run::{print_problems, received};
use super::{PROBLEM_FOUND, WRONG};
use crate::config::{self, ConfigFile, Environment, QueueLocation, Settings};
use crate::control::{ControlRequest, ControlResponse};
use crate::doctor::{CheckResult, DoctorRequest, Examination, QueueAccess, QueueOpener, of_problems};
use crate::gateway::backend;
use crate::smtp::Mailbox;
use anyhow::{Context as _, anyhow};
use async_trait::async_trait;
use report::DoctorReport;
use screen::Screen;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

pub const AFTER_HELP: &str = "\
Examples:
  waxseal doctor
  waxseal doctor --upstream company --from reports@example.com
  waxseal doctor --send-to me@example.net
  waxseal doctor --json

Every check has a name, such as upstream.tls.name; docs/troubleshooting.md explains each, and `ignore` in [doctor] names those
whose results do not count. It is not meant as a container's health check: it connects to the provider and logs in.

Exit status: 0 nothing is wrong (what is unknown does not count), 1 a check failed or has a warning, 2 wrong usage or
configuration; with --watch that of the last whole round, or 130 if Ctrl-C came before the first one ended.";

/// Results that may wait for the screen.
const PARTS_AHEAD: usize = 16;

/// Between two rounds of --watch: providers count logins.
const DEFAULT_PAUSE: &str = "60";
const SHORTEST_PAUSE: u64 = 5;

/// Ctrl-C before the first round of --watch has ended: nothing is known. What shells report for a program that SIGINT ended.
const INTERRUPTED: u8 = 130;

#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// Only this upstream
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,

    /// The sender that the provider is asked for, and whose domain is looked at. Default: what the configuration tells
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    from: Option<Mailbox>,

    /// Send one test mail to this address, through the running gateway, and follow it to its outcome
    #[arg(long, value_name = "ADDRESS", value_parser = address, conflicts_with = "watch")]
    send_to: Option<Mailbox>,

    /// Repeat it every minute, or as often as given here in seconds, and show what has changed; until Ctrl-C
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = DEFAULT_PAUSE,
          value_parser = clap::value_parser!(u64).range(SHORTEST_PAUSE..))]
    watch: Option<u64>,

    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

fn address(text: &str) -> Result<Mailbox, String> {
    Mailbox::parse(text).map_err(|_| "it is not an address such as you@example.com".to_owned())
}

pub fn run(file: &ConfigFile<'_>, args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let status = runtime.block_on(rounds(file, &args));
    // An abandoned name lookup may run as long as the resolver takes.
    runtime.shutdown_timeout(Duration::from_millis(100));
    status
}

async fn rounds(file: &ConfigFile<'_>, args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    // Once, for all rounds: a signal that arrives while nothing waits for it is kept for the next wait.
    let mut interrupt = match args.watch {
        Some(_) => Some(signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?),
        None => None,
    };
    let mut before: Option<Vec<CheckResult>> = None;
    loop {
        let results = tokio::select! {
            biased;
            () = received(interrupt.as_mut()) => return Ok(last_status(before.as_deref())),
            round = round(file, args, before.as_deref()) => round?,
        };
        let Some(results) = results else { return Ok(ExitCode::from(WRONG)) };
        let Some(pause) = args.watch else { return Ok(status(&results)) };
        before = Some(results);
        tokio::select! {
            biased;
            () = received(interrupt.as_mut()) => return Ok(last_status(before.as_deref())),
            () = tokio::time::sleep(Duration::from_secs(pause)) => {}
        }
    }
}

/// `None`: the configuration cannot be used, and its problems are printed.
async fn round(
    file: &ConfigFile<'_>,
    args: &DoctorArgs,
    before: Option<&[CheckResult]>,
) -> anyhow::Result<Option<Vec<CheckResult>>> {
    let settings = match config::load(file, &Environment::of_process()) {
        Ok(settings) => settings,
        Err(problems) => {
            if args.json {
                report::print_json(&DoctorReport::of(of_problems(&problems)));
            } else {
                print_problems(&problems);
            }
            return Ok(None);
        }
    };
    check_upstream(&settings, args.upstream.as_deref())?;
    let results = examine(settings, args, before.is_none()).await?;
    if let Some(before) = before {
        report::print_changes(before, &results, args.json);
    }
    Ok(Some(results))
}

/// Of a watch that was interrupted: that of its last whole round.
fn last_status(before: Option<&[CheckResult]>) -> ExitCode {
    before.map_or(ExitCode::from(INTERRUPTED), status)
}

fn check_upstream(settings: &Settings, wanted: Option<&str>) -> anyhow::Result<()> {
    let Some(wanted) = wanted else { return Ok(()) };
    let names: Vec<&str> = settings.upstreams.iter().map(|upstream| &*upstream.name).collect();
    match names.contains(&wanted) {
        true => Ok(()),
        false => Err(anyhow!("there is no upstream of this name; there is {}", crate::text::any_of(names))),
    }
}

/// `shows`: the results are printed, not only returned.
async fn examine(settings: Settings, args: &DoctorArgs, shows: bool) -> anyhow::Result<Vec<CheckResult>> {
    let opener = Box::new(StoppedQueue(settings.queue_location()));
    let request =
        DoctorRequest { upstream: args.upstream.clone(), from: args.from.clone(), send_to: args.send_to.clone() };
    let exam = Arc::new(Examination::new(settings, request, opener).await);
    let mut screen = Screen::new(exam.titles(), shows && !args.json);
    let (sender, mut parts) = mpsc::channel(PARTS_AHEAD);
    let examining = tokio::spawn(exam.run(sender));
    while let Some(part) = parts.recv().await {
        screen.put(part);
    }
    examining.await.context("the examination ended in a fault of the program")?;
    let results = screen.finish();
    if shows && args.json {
        report::print_json(&DoctorReport::of(results.clone()));
    } else if shows {
        report::print_problems(&results);
    }
    Ok(results)
}

fn status(results: &[CheckResult]) -> ExitCode {
    if results.iter().any(CheckResult::counts) { ExitCode::from(PROBLEM_FOUND) } else { ExitCode::SUCCESS }
}

/// The queue in `data_dir`, under its lock.
#[derive(Debug)]
struct StoppedQueue(QueueLocation);

#[async_trait]
impl QueueOpener for StoppedQueue {
    async fn open(&self) -> anyhow::Result<Option<Box<dyn QueueAccess>>> {
        if !backend::exists(&self.0)? {
            return Ok(None);
        }
        if !backend::is_settled(&self.0)? {
            anyhow::bail!(
                "the gateway was not stopped in order, or was of another version: the next start tidies up the queue"
            );
        }
        Ok(Some(Box::new(QueueClient::open(&self.0).await?)))
    }
}

#[async_trait]
impl QueueAccess for QueueClient {
    async fn ask(&self, request: ControlRequest) -> anyhow::Result<ControlResponse> {
        Self::ask(self, request).await
    }

    async fn close(self: Box<Self>) {
        Self::close(*self).await;
    }
}
