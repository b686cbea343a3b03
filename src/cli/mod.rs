//! The command line: one file per command.
//!
//! Exit status: 0 success, 1 the check or the operation found a problem, 2 wrong usage or configuration.

mod check;
mod completions;
mod dkim;
mod doctor;
mod health;
mod init;
mod man;
mod message_file;
mod queue;
mod reload;
mod run;
mod service;
mod status;
mod suggestions;
mod user;

use crate::config::{self, CONFIG_VARIABLE, ConfigFile, Environment, QueueLocation, shown_path};
use crate::message::MailId;
use crate::observe::{Redaction, fault};
use anyhow::Context as _;
use clap::{Parser, Subcommand};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::LazyLock;
use tokio::runtime::Runtime;

/// The check found a problem.
pub const PROBLEM_FOUND: u8 = 1;
/// Wrong usage or configuration.
pub const WRONG: u8 = 2;

const DEFAULT_CONFIG: &str = "config.toml";

/// A local SMTP gateway: accepts an application's mail, repairs it, signs it with DKIM, and relays it to your provider
/// over verified TLS.
#[derive(Debug, Parser)]
#[command(name = "waxseal", version, propagate_version = true, after_help = AFTER_HELP)]
struct Arguments {
    /// Configuration file. Default: the one that WAXSEAL_CONFIG names, else ./config.toml if it exists; the environment
    /// alone is enough too.
    #[arg(long, short, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: CliCommand,
}

const AFTER_HELP: &str = "\
First steps:
  waxseal init                      write a configuration for your provider and domain
  waxseal run                       start with the shipped config.toml: mail is kept in a sandbox, not sent
  waxseal check                     look for mistakes in the configuration, without starting anything
  waxseal dkim generate DOMAIN --selector wax1
                                    make a signing key and print its DNS record

Exit status: 0 success, 1 the check or the operation found a problem, 2 wrong usage or configuration.";

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Set up a first configuration: asks for provider and domain, writes config.toml, the DKIM key and the DNS records.
    #[command(after_help = init::AFTER_HELP)]
    Init(Box<init::InitArgs>),
    /// Start the gateway. Stops on SIGTERM or Ctrl-C, after letting mail in progress finish.
    #[command(after_help = run::AFTER_HELP)]
    Run,
    /// Make the running gateway read its configuration again, without losing mail or connections.
    #[command(after_help = reload::AFTER_HELP)]
    Reload,
    /// Check the configuration and report every mistake; start nothing, connect nowhere.
    Check(check::CheckArgs),
    /// Look at every link between the application and the recipient, and say which one is broken and what to do. Sends no
    /// mail, unless --send-to asks for one.
    #[command(after_help = doctor::AFTER_HELP)]
    Doctor(doctor::DoctorArgs),
    /// Create DKIM keys, print their DNS records, check signatures.
    #[command(subcommand)]
    Dkim(dkim::DkimCommand),
    /// Inspect waiting and failed mail; retry, remove or hold it.
    #[command(subcommand, after_help = queue::AFTER_HELP)]
    Queue(queue::QueueCommand),
    /// Show the running gateway on one screen: queue, upstreams, quotas, what is wrong.
    #[command(after_help = status::AFTER_HELP)]
    Status(status::StatusArgs),
    /// Ask whether the running gateway is alive, for a container's health check.
    #[command(after_help = health::AFTER_HELP)]
    Health(health::HealthArgs),
    /// Logins for applications.
    User(user::UserArgs),
    /// Print a script with which a shell completes commands and options.
    #[command(after_help = completions::AFTER_HELP)]
    Completions(completions::CompletionsArgs),
    /// Print the manual page, or write one for each command to a folder.
    #[command(after_help = man::AFTER_HELP)]
    Man(man::ManArgs),
}

/// Parses the process's arguments and runs the command.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let error = suggestions::without_unsafe_proposals(error);
            let wrong = error.use_stderr();
            let text = error.render().to_string();
            let shown = HIDDEN_ARGUMENTS.hide(&error.render().to_string());
            if text == shown || !wrong {
                let _a_closed_pipe_changes_nothing = error.print();
            } else {
                eprint!("{shown}");
            }
            return if wrong { ExitCode::from(WRONG) } else { ExitCode::SUCCESS };
        }
    };
    fault::watch_without_log();
    let named =
        arguments.config.or_else(|| Environment::of_process().variable(CONFIG_VARIABLE).map(|path| path.trim().into()));
    let explicit = named.is_some();
    let path = named.unwrap_or_else(|| DEFAULT_CONFIG.into());
    let config = ConfigFile { path: &path, explicit };
    let result = match arguments.command {
        CliCommand::Init(args) => init::run(&config, *args),
        CliCommand::Run => run::run(&config),
        CliCommand::Reload => reload::run(&config),
        CliCommand::Check(args) => check::run(&config, &args),
        CliCommand::Doctor(args) => doctor::run(&config, args),
        CliCommand::Dkim(command) => dkim::run(command, &config),
        CliCommand::Queue(command) => queue::run(command, &config),
        CliCommand::Status(args) => status::run(&config, &args),
        CliCommand::Health(args) => health::run(&config, &args),
        CliCommand::User(args) => user::run(&args),
        CliCommand::Completions(args) => completions::run(&args),
        CliCommand::Man(args) => man::run(&args),
    };
    result.unwrap_or_else(|error| {
        complain(format_args!("{error:#}"));
        ExitCode::from(WRONG)
    })
}

/// Where the queue is. If the configuration does not say, its problems are printed, and the exit status comes back.
fn queue_location(file: &ConfigFile<'_>) -> Result<QueueLocation, ExitCode> {
    config::queue_location(file, &Environment::of_process()).map_err(|problems| {
        run::print_problems(&problems);
        ExitCode::from(WRONG)
    })
}

/// For a command that asks one thing after the other.
fn small_runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

/// Why a file that an argument names cannot be read.
fn unreadable(path: &Path, error: &std::io::Error) -> anyhow::Error {
    let what_to_do = config::unreadable::what_to_do(path, error).map_or(String::new(), |text| format!("; {text}"));
    anyhow::anyhow!("{} {}{what_to_do}", path.display(), config::unreadable::why(error))
}

/// Prints what is wrong on standard error, without any secret from an argument.
fn complain(text: impl Display) {
    eprintln!("waxseal: {}", HIDDEN_ARGUMENTS.hide(&text.to_string()));
}

/// Arguments that no error may repeat, such as a secret given in place of a path or a name. What follows `user hash`
/// may be the password.
static HIDDEN_ARGUMENTS: LazyLock<Redaction> = LazyLock::new(|| {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let place_of = |command: &str| arguments.iter().position(|argument| argument == command);
    let is_queue = place_of("queue").is_some();
    let behind_hash = place_of("user").and(place_of("hash"));
    let mut hidden = Redaction::default();
    for (at, argument) in arguments.iter().enumerate() {
        let value =
            argument.split_once('=').filter(|_| argument.starts_with("--")).map_or(&argument[..], |(_, value)| value);
        let is_password = behind_hash.is_some_and(|hash| at > hash) && !argument.starts_with('-');
        let is_id = is_queue && value.parse::<MailId>().is_ok();
        if is_password || (!is_id && shown_path(Path::new(value)) != value) {
            hidden.add_secret(value);
        }
    }
    hidden
});
