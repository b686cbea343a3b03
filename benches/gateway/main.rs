//! waxseal beside other gateways: messages per second, CPU per message, latency, memory, against the cost of the signature itself.
//!
//! `make bench`. Servers take turns in every scenario; what counts are the ratios inside one run, and medians. benches/README.md
//! has the options.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark ends where it fails")]

mod mail;
mod measure;
mod options;
#[path = "../../tests/it/support/peers.rs"]
#[allow(dead_code, reason = "tests use all of it")]
mod peers;
#[path = "../../tests/it/support/ports.rs"]
#[allow(dead_code, reason = "tests use all of it")]
mod ports;
mod processes;
mod report;
mod results;
mod run;
mod servers;
mod sink;
mod source;
mod yardstick;

use clap::Parser as _;
use options::Options;
use results::Results;
use run::Bed;
use servers::Server;
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = Options::parse();
    let dkim_key = waxseal::dkim::generate(waxseal::dkim::KeyAlgorithm::Rsa2048).unwrap();
    let bed = Bed { parent: &options.folder(), dkim_key: dkim_key.reveal() };
    if cfg!(debug_assertions) {
        println!("A debug build: these numbers say nothing about the program.");
    }
    for size in options.sizes() {
        match yardstick::alone(&sink::Sink::start(), 20, options.messages(size), size) {
            Ok(alone) => report::alone(size, &alone),
            Err(e) => println!("the source straight into the sink FAILED: {e}"),
        }
    }
    let mut results = Results::default();
    for server in options.servers() {
        if let Some(reason) = server.missing() {
            println!("SKIPPED: {reason}");
        }
    }
    for scenario in options.scenarios() {
        for turn in 1..=options.runs() {
            let able =
                options.servers().into_iter().filter(|server| server.missing().is_none() && server.can(&scenario));
            for server in able {
                let start = |place: &servers::Place<'_>| server.start(&options.program, place);
                match bed.run(start, &scenario, options.messages(scenario.size)) {
                    Ok(measured) => {
                        report::line(&scenario, server, turn, &measured);
                        results.add(scenario, server, measured);
                    }
                    Err(e) => results.fail(format!("{}, {}: {e}", server.name(), scenario.name())),
                }
            }
        }
        if let Some(median) = results.median(&scenario, Server::Waxseal) {
            report::threads(&median);
        }
    }
    print!("{}", report::table(&results));
    if results.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One thread, for clients or for the sink.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
