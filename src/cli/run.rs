//! `waxseal run`: the gateway in the foreground, until a signal.
//! Decides nothing about mail: it reads the configuration, starts the log and the runtime, and passes signals on.

use super::{NOT_WELL, WRONG};
use crate::cli::complain;
use crate::config::{self, ConfigFile, Environment, Problems};
use crate::gateway::{Gateway, StopReason};
use crate::observe::{fault, log};
use anyhow::Context as _;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How long to wait for other threads once everything is closed.
const LAST_WAIT: Duration = Duration::from_millis(500);

pub fn run(file: &ConfigFile<'_>) -> anyhow::Result<ExitCode> {
    let settings = match config::load(file, &Environment::of_process()) {
        Ok(settings) => settings,
        Err(problems) => {
            print_problems(&problems);
            return Ok(ExitCode::from(WRONG));
        }
    };
    log::start(&settings.log).context("the log cannot start")?;
    fault::watch();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let status = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        stop_on_signal(shutdown.clone())?;
        match Gateway::start(settings).await {
            Ok(gateway) => Ok(match gateway.serve(shutdown).await {
                StopReason::AsAsked => ExitCode::SUCCESS,
                StopReason::ByItself => ExitCode::from(NOT_WELL),
            }),
            Err(error) => {
                complain(format_args!("{error}"));
                Ok(ExitCode::from(WRONG))
            }
        }
    });
    // An abandoned name lookup may run as long as the resolver takes.
    runtime.shutdown_timeout(LAST_WAIT);
    log::flush();
    status
}

/// With marked source lines on a terminal, else one line each.
pub(super) fn print_problems(problems: &Problems) {
    if std::io::stderr().is_terminal() {
        eprintln!("{problems:#}");
    } else {
        eprintln!("{problems}");
    }
}

/// The first SIGTERM or SIGINT asks for an orderly stop; the second ends the process at once.
#[expect(clippy::disallowed_methods, reason = "a second signal asks for an immediate end")]
fn stop_on_signal(shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::spawn(async move {
        for round in 0.. {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if round == 0 {
                shutdown.cancel();
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
