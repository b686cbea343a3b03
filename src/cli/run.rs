//! `waxseal run`: the gateway in the foreground, until a signal. Decides nothing about mail: it reads the
//! configuration, starts the log and the runtime, and passes on signals.

use super::{PROBLEM_FOUND, WRONG, service};
use crate::cli::complain;
use crate::config::{ConfigFile, ConfigText, Environment, Problems};
use crate::dkim::DnsRecord;
use crate::doctor;
use crate::gateway::{Gateway, KeyRecords, Reloader, StopReason};
use crate::inbound::InheritedSockets;
use crate::observe::{fault, log};
use anyhow::Context as _;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How long to wait for other threads once everything is closed.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

pub(super) const AFTER_HELP: &str = "\
Without a configuration file, variables are enough:
  SMTP_HOST_ADDR, SMTP_HOST_PORT, SMTP_USER_NAME, SMTP_USER_PWD
                                    the provider, as Plausible reads it
  WAXSEAL_PROVIDER                  or a known one, such as postmark; sandbox needs no account
  WAXSEAL_LISTEN, WAXSEAL_ALLOW     where to listen, and the networks that may send
  DKIM_DOMAIN, DKIM_SELECTOR, DKIM_PRIVATE_KEY
                                    the key to sign with; or DKIM_GENERATE=true to make one

Each may also be a file of that name in /run/secrets. `waxseal check --defaults` lists all variables and all keys.";

pub fn run(file: &ConfigFile<'_>) -> anyhow::Result<ExitCode> {
    let resolved = |text: ConfigText| Ok((text.resolve(&Environment::of_process())?, text));
    let (settings, text) = match ConfigText::read(file).and_then(resolved) {
        Ok(resolved) => resolved,
        Err(problems) => {
            print_problems(&problems);
            return Ok(ExitCode::from(WRONG));
        }
    };
    log::start(&settings.log).context("the log cannot start")?;
    fault::watch();
    let inherited = InheritedSockets::of_process()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let status = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let reload = Arc::new(Notify::new());
        follow_signals(shutdown.clone(), reload.clone())?;
        match Gateway::start(settings, text, inherited).await {
            Ok(gateway) => {
                tokio::spawn(reload_on_signal(reload, gateway.reloader()));
                tokio::spawn(service::keep_alive());
                service::ready();
                tokio::spawn(watch_key_records(gateway.key_records(), shutdown.clone()));
                Ok(match gateway.serve(shutdown).await {
                    StopReason::AsAsked => ExitCode::SUCCESS,
                    StopReason::ByItself => ExitCode::from(PROBLEM_FOUND),
                })
            }
            Err(error) => {
                complain(format_args!("{error}"));
                Ok(ExitCode::from(WRONG))
            }
        }
    });
    // An abandoned name lookup may run as long as the resolver takes.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    log::flush();
    status
}

async fn watch_key_records(keys: KeyRecords, stop: CancellationToken) {
    let is_published =
        |server: Option<SocketAddr>, record: DnsRecord| async move { doctor::is_published(server, &record).await };
    keys.watch(is_published, stop).await;
}

pub(super) fn print_problems(problems: &Problems) {
    eprint!("{}", shown_problems(problems));
}

/// With marked source lines on a terminal, otherwise on one line each. The errors come first, then the warnings, and each
/// begins with that word.
pub(super) fn shown_problems(problems: &Problems) -> String {
    let on_terminal = std::io::stderr().is_terminal();
    let all = problems.iter().chain(problems.warnings());
    all.map(|problem| match on_terminal {
        true => format!("{problem:#}"),
        false => format!("{}: {problem}\n", problem.severity()),
    })
    .collect()
}

/// What it did is in the log.
async fn reload_on_signal(asked: Arc<Notify>, reloader: Reloader) {
    loop {
        asked.notified().await;
        service::reloading();
        reloader.reload().await;
        service::ready();
    }
}

/// The first SIGTERM or SIGINT asks for an orderly stop; the second ends the process at once. SIGHUP asks for a reload, or
/// for a stop if the gateway was started on a terminal.
/// SIGUSR1 and SIGUSR2, which end a process that does not expect them, only leave a line in the log.
#[expect(clippy::disallowed_methods, reason = "a second signal asks for an immediate end")]
fn follow_signals(shutdown: CancellationToken, reload: Arc<Notify>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    // Under nohup it is ignored, and stays ignored.
    let mut hangup = match is_ignored(SignalKind::hangup()) {
        true => None,
        false => Some(signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?),
    };
    let mut user_1 = signal(SignalKind::user_defined1()).context("cannot listen for SIGUSR1")?;
    let mut user_2 = signal(SignalKind::user_defined2()).context("cannot listen for SIGUSR2")?;
    let on_terminal = std::io::stdin().is_terminal();
    tokio::spawn(async move {
        let mut is_stopping = false;
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = received(hangup.as_mut()) => {
                    // Otherwise the terminal was closed.
                    if !on_terminal {
                        info!("SIGHUP: reading the configuration again");
                        reload.notify_one();
                        continue;
                    }
                    "SIGHUP"
                }
                _ = user_1.recv() => {
                    info!("SIGUSR1 has no meaning here and is ignored");
                    continue;
                }
                _ = user_2.recv() => {
                    info!("SIGUSR2 has no meaning here and is ignored");
                    continue;
                }
            };
            if !std::mem::replace(&mut is_stopping, true) {
                shutdown.cancel();
                service::stopping();
                info!("{name}: finishing mail in progress; a second signal stops at once");
            } else {
                warn!("{name} again: stopping at once");
                log::flush();
                std::process::exit(1);
            }
        }
    });
    Ok(())
}

/// Returns when the signal arrives; without a signal to wait for, it never returns.
pub(super) async fn received(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether this process ignores the signal, as its parent decided. proc(5), `SigIgn`: a mask in hexadecimal, signal 1 is bit 0.
fn is_ignored(signal: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal.as_raw_value() - 1)) != 0
}
