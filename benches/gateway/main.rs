//! waxseal beside other gateways: messages per second, CPU per message, latency, memory, against the cost of the signature itself.
//!
//! `make bench`. Servers take turns in every scenario; what counts are the ratios inside one run, and medians. benches/README.md
//! has the options.

#![allow(clippy::unwrap_used, reason = "a benchmark ends where it fails")]

mod mail;
mod measure;
mod options;
mod report;
mod run;
mod servers;
mod sink;
mod source;
mod yardstick;

use clap::Parser as _;
use options::Options;
use run::Bed;
use servers::waxseal::Waxseal;
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
    let gateway = Waxseal::new(&options.program);
    let mut all_well = true;
    for scenario in options.scenarios() {
        let mut runs = Vec::new();
        for turn in 0..options.runs() {
            match bed.run(|place| gateway.start(place), &scenario, options.messages(scenario.size)) {
                Ok(measured) => {
                    report::line(&scenario, turn, &measured);
                    runs.push(measured);
                }
                Err(e) => {
                    all_well = false;
                    println!("{}: FAILED: {e}", scenario.name());
                }
            }
        }
        if let Some(median) = report::median(&runs) {
            report::threads(&median);
        }
    }
    if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One thread, for clients or for the sink.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
