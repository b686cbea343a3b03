//! waxseal beside other gateways: messages per second, CPU per message, latency, memory, against the cost of the signature itself.
//!
//! `make bench`. Servers take turns in every scenario; what counts are the ratios inside one run, and medians. benches/README.md
//! has the options.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark ends where it fails")]

mod goals;
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
mod single;
mod sink;
mod source;
mod yardstick;

use clap::Parser as _;
use options::Options;
use results::Results;
use run::Bed;
use servers::Server;
use single::Single;
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = Options::parse();
    let dkim_key = waxseal::dkim::generate(waxseal::dkim::KeyAlgorithm::Rsa2048).unwrap();
    let bed = Bed { parent: &options.folder(), dkim_key: dkim_key.reveal() };
    if cfg!(debug_assertions) {
        println!("A debug build: these numbers say nothing about the program.");
    }
    let mut results = Results::default();
    for size in options.sizes() {
        match yardstick::alone(&sink::Sink::start(), 20, options.messages(size), size) {
            Ok(alone) => results.alone.push((size, alone)),
            Err(e) => results.fail(format!("the source straight into the sink: {e}")),
        }
    }
    print!("{}", report::alone(&results));
    compare(&options, &bed, &mut results);
    let single =
        if options.only_comparison() { Single::default() } else { single::all(&options, &bed, &mut results.failures) };
    let goals = goals::of(&results, &single);
    let text = report::page(&results, &single, &goals);
    println!("\n{text}");
    if options.write {
        report::write(&text, &mut results.failures);
    }
    for failure in &results.failures {
        println!("FAILED: {failure}");
    }
    let all_reached = goals.iter().all(goals::Goal::is_reached);
    if all_reached && results.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The servers in turns, in every scenario.
fn compare(options: &Options, bed: &Bed<'_>, results: &mut Results) {
    let (able, missing): (Vec<_>, Vec<_>) = options.servers().into_iter().partition(|it| it.missing().is_none());
    for server in missing {
        println!("{}: SKIPPED, {}", server.name(), server.missing().unwrap_or_default());
    }
    for scenario in options.scenarios() {
        for turn in 1..=options.runs() {
            for server in able.iter().filter(|server| server.can(&scenario)) {
                let start = |place: &servers::Place<'_>| server.start(&options.program, place);
                let messages = server.messages(options.messages(scenario.size));
                match bed.run(start, &scenario, messages) {
                    Ok(measured) => {
                        report::line(&scenario, *server, turn, &measured);
                        results.add(scenario, *server, measured);
                    }
                    Err(e) => results.fail(format!("{}, {}: {e}", server.name(), scenario.name())),
                }
            }
        }
        if let Some(median) = results.median(&scenario, Server::Waxseal) {
            report::threads(&median);
        }
    }
}

/// One thread, for clients or for the sink.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
