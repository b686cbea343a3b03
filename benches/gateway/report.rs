//! Numbers as people read them: a line for each run, tables of medians.

use super::run::{Measured, Scenario};
use super::yardstick::Alone;

pub fn alone(size: usize, alone: &Alone) {
    println!(
        "the source straight into the sink over TLS, {} KiB: {:.0}/s, CPU of both {:.3} ms, acknowledged {:.3} ms",
        size / 1024,
        alone.messages_per_second,
        alone.cpu,
        alone.acknowledged,
    );
}

pub fn line(scenario: &Scenario, turn: usize, measured: &Measured) {
    println!(
        "{:24} {}: {:7.1}/s, CPU {:.3} ms = {:.2} signatures of {:.3} ms, load {:.3} ms, {:.0} % of the ceiling, \
        acknowledged {:.2}/{:.2} ms, sync {:.2} ms, {:.1} MiB",
        scenario.name(),
        turn + 1,
        measured.messages_per_second,
        measured.server_cpu,
        measured.signatures(),
        measured.signature,
        measured.load_cpu,
        measured.share_of_ceiling() * 100.0,
        measured.acknowledged_p50,
        measured.acknowledged_p99,
        measured.sync,
        measured.peak_memory,
    );
}

/// CPU by the names of threads, the largest first.
pub fn threads(measured: &Measured) {
    let mut threads: Vec<(&String, &f64)> = measured.threads.iter().collect();
    threads.sort_by(|a, b| b.1.total_cmp(a.1));
    for (name, cpu) in threads {
        println!("  {name:16} {cpu:.3} ms per message, {:4.1} %", measured.share_of_thread(name) * 100.0);
    }
}

/// Each number's own median; `None` without any run.
pub fn median(runs: &[Measured]) -> Option<Measured> {
    let first = runs.first()?;
    let middle = |of: &dyn Fn(&Measured) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let thread = |name: &String| middle(&|one| one.threads.get(name).copied().unwrap_or_default());
    Some(Measured {
        messages_per_second: middle(&|one| one.messages_per_second),
        server_cpu: middle(&|one| one.server_cpu),
        load_cpu: middle(&|one| one.load_cpu),
        acknowledged_p50: middle(&|one| one.acknowledged_p50),
        acknowledged_p99: middle(&|one| one.acknowledged_p99),
        peak_memory: middle(&|one| one.peak_memory),
        signature: middle(&|one| one.signature),
        sync: middle(&|one| one.sync),
        threads: first.threads.keys().map(|name| (name.clone(), thread(name))).collect(),
    })
}
