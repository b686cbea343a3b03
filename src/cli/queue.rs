//! `waxseal queue`: inspect waiting and failed mail; retry, remove or hold it.
//!
//! Every command asks a running gateway through its socket; without one, the command takes the data folder's lock and
//! uses the queue directly. Text from messages stays on its line of a table.

mod adopt;
mod change;
mod check;
mod client;
mod hold;
mod instances;
mod list;
mod listing;
mod progress;
mod rules;
mod salvage;
mod selection;
mod show;
mod table;
mod text;
mod transfer;
mod waiting;
mod walk;

use super::run::print_problems;
use super::{PROBLEM_FOUND, WRONG, queue_location, small_runtime};
use crate::cli::complain;
use crate::config::{self, ConfigFile, Environment, QueueLocation};
use crate::control::{Blame, ControlRefusal};
use crate::gateway::backend::database_folder;
use crate::gateway::current_rules;
use clap::Subcommand;
pub(super) use client::{QueueClient, unexpected};
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::ExitCode;

pub(super) use text::{ago, size};

#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// List waiting, current and failed messages; or, with --history, delivered ones
    List(list::ListArgs),
    /// Everything about one message: recipients, each attempt, the header; with --content the message itself
    Show(show::ShowArgs),
    /// Retry messages now, failed ones included; --to corrects the recipient, --rules applies the current rules first
    Retry(change::RetryArgs),
    /// Retry all messages now, or all that match the filters: the same as retry --all
    Flush(change::FlushArgs),
    /// Remove messages permanently. Messages being sent at the moment stay
    #[command(visible_aliases = ["delete", "rm"])]
    Remove(change::RemoveArgs),
    /// Stop the delivery of one lane (a route's mail) or of all. Mail is still accepted, and waits
    Hold(hold::HoldArgs),
    /// Resume the delivery of a lane or of all lanes; or of messages that were stored on hold (`[storm]`)
    Release(hold::ReleaseArgs),
    /// Check the whole queue for damage: pages, indexes, each message and its file. Changes nothing
    Check(check::QueueCheckArgs),
    /// Build a new database from what can be read of a damaged one, which is kept aside. The gateway must be stopped
    Salvage(salvage::SalvageArgs),
    /// Write the whole queue to a file: messages with their states, held lanes, the history. The gateway may be running
    Export(transfer::ExportArgs),
    /// Read a file of `queue export` into the queue. What is there already stays as it is. The gateway must be stopped
    Import(transfer::ImportArgs),
    /// With a queue in Redis: the gateways that share it, and what each of them holds
    Instances(instances::InstancesArgs),
    /// With a queue in Redis: a gateway is gone for good. What it was sending is tried again, and its connections are free
    Forget(instances::ForgetArgs),
    /// With a queue in Redis that was lost or restored from an old copy: accept what is there now. The gateway must be stopped
    Adopt(adopt::AdoptArgs),
}

pub const AFTER_HELP: &str = "\
Examples:
  waxseal queue list --state failed
  waxseal queue list --history --message-id '<1f0e@app.example.com>'
  waxseal queue show 01kbtsb6g0000009
  waxseal queue retry 01kbtsb6g0000009 --to right.address@example.net
  waxseal queue retry --all --upstream company
  waxseal queue retry --all --state failed --rules
  waxseal queue remove --all --state failed --older-than 2d
  waxseal queue hold --all
  waxseal queue release --all --state held --recipient you@example.net
  waxseal queue check
  waxseal queue salvage
  waxseal queue export /backup/queue.wax
  waxseal queue import /backup/queue.wax

They work beside a running gateway and while it is stopped, as the user that the gateway runs as; salvage, adopt and import only
while it is stopped.

Exit status: 0 done, 1 a message that is not there, nothing that could be changed, or damage, 2 wrong usage, or no way to
the queue.";

pub fn run(command: QueueCommand, file: &ConfigFile<'_>) -> anyhow::Result<ExitCode> {
    let command = match command {
        QueueCommand::Flush(args) => QueueCommand::Retry(args.into()),
        command => command,
    };
    if let Some(wrong) = wrong_use(&command) {
        complain(format_args!("{wrong}"));
        return Ok(ExitCode::from(WRONG));
    }
    let location = match queue_location(file) {
        Ok(location) => location,
        Err(status) => return Ok(status),
    };
    match &command {
        QueueCommand::Check(args) => return of_database(&location, |folder| check::run(args, folder)),
        QueueCommand::Salvage(args) => return of_database(&location, |folder| salvage::run(args, folder)),
        _ => {}
    }
    let runtime = small_runtime()?;
    match &command {
        QueueCommand::Adopt(args) => return runtime.block_on(adopt::run(args, location)),
        QueueCommand::Export(args) => {
            return runtime.block_on(transfer::export(args, location)).or_else(ended_by_the_reader);
        }
        QueueCommand::Import(args) => return runtime.block_on(transfer::import(args, location)),
        _ => {}
    }
    let result = runtime.block_on(async {
        let mut client = QueueClient::open(&location).await?;
        let result = if (asks_the_rules(&command) || asks_the_routes(&command)) && !client.has_rules() {
            match config::load(file, &Environment::of_process()) {
                Ok(settings) => {
                    client.use_rules(current_rules(&settings));
                    dispatch(command, file, &client).await
                }
                // A secret may be available only to the gateway's service.
                Err(_) if !asks_the_rules(&command) => dispatch(command, file, &client).await,
                Err(problems) => {
                    print_problems(&problems);
                    Ok(ExitCode::from(WRONG))
                }
            }
        } else {
            dispatch(command, file, &client).await
        };
        client.close().await;
        result
    });
    result.or_else(|error| match blame(&error) {
        Some(Blame::Message | Blame::Queue) => {
            complain(format_args!("{error:#}"));
            Ok(ExitCode::from(PROBLEM_FOUND))
        }
        _ => ended_by_the_reader(error),
    })
}

fn of_database(
    location: &QueueLocation,
    run: impl FnOnce(&Path) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let Some(folder) = database_folder(location) else {
        complain(
            "the queue is in Redis: `check` and `salvage` are for the database of backend = \"sqlite\"; redis-check-aof examines \
             the files of Redis",
        );
        return Ok(ExitCode::from(WRONG));
    };
    run(folder).or_else(ended_by_the_reader)
}

fn ended_by_the_reader(error: anyhow::Error) -> anyhow::Result<ExitCode> {
    if is_closed_pipe(&error) { Ok(ExitCode::SUCCESS) } else { Err(error) }
}

fn wrong_use(command: &QueueCommand) -> Option<&'static str> {
    match command {
        QueueCommand::Retry(args) => args.wrong_use(),
        QueueCommand::Remove(args) => args.wrong_use(),
        QueueCommand::Release(args) => args.wrong_use(),
        _ => None,
    }
}

fn asks_the_rules(command: &QueueCommand) -> bool {
    matches!(command, QueueCommand::Retry(args) if args.asks_the_rules())
}

/// Whether the command needs the routes. Without routes, the next start assigns the lane of a corrected address.
fn asks_the_routes(command: &QueueCommand) -> bool {
    matches!(command, QueueCommand::Retry(args) if args.corrects())
}

async fn dispatch(command: QueueCommand, file: &ConfigFile<'_>, client: &QueueClient) -> anyhow::Result<ExitCode> {
    match command {
        QueueCommand::List(args) => list::run(&args, client).await,
        QueueCommand::Show(args) => show::run(&args, client).await,
        QueueCommand::Retry(args) => change::retry(&args, client).await,
        QueueCommand::Remove(args) => change::remove(&args, client).await,
        QueueCommand::Hold(args) => hold::hold(&args, file, client).await,
        QueueCommand::Release(args) => hold::release(&args, client).await,
        QueueCommand::Instances(args) => instances::list(&args, file, client).await,
        QueueCommand::Forget(args) => instances::forget(&args, client).await,
        QueueCommand::Check(_)
        | QueueCommand::Salvage(_)
        | QueueCommand::Adopt(_)
        | QueueCommand::Export(_)
        | QueueCommand::Import(_) => unreachable!("they have done their work"),
        QueueCommand::Flush(_) => unreachable!("it is a retry by now"),
    }
}

fn blame(error: &anyhow::Error) -> Option<Blame> {
    error.downcast_ref::<ControlRefusal>().map(|refusal| refusal.blame)
}

/// A reader that closes the pipe has read enough.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

pub(super) fn print(octets: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(octets.as_ref()).and_then(|()| out.flush())?;
    Ok(())
}

pub(super) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(serde_json::to_string_pretty(value)? + "\n")
}
