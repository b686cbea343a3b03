//! Numbers as people read them: a line for each run, tables of medians.

use super::results::Results;
use super::run::{Measured, Scenario};
use super::servers::Server;
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

pub fn line(scenario: &Scenario, server: Server, turn: usize, measured: &Measured) {
    println!(
        "{:24} {:18} {turn}: {:7.1}/s, CPU {:.3} ms = {:.2} signatures of {:.3} ms, load {:.3} ms, {:.0} % of the ceiling, \
        acknowledged {:.2}/{:.2} ms, sync {:.2} ms, {:.1} MiB",
        scenario.name(),
        server.name(),
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

/// The medians of every scenario, as a Markdown table.
pub fn table(results: &Results) -> String {
    let mut table = String::from(
        "| clients x messages, size, connections out | server | messages/s | of the ceiling | CPU ms per message | \
        ÷ a signature | acknowledged p50 / p99, ms | ÷ a sync | memory, MiB |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for (scenario, server, median) in results.medians() {
        table.push_str(&format!(
            "| {} | {} | {:.0} | {:.0} % | {:.2} | {:.2} | {:.1} / {:.1} | {:.1} | {:.0} |\n",
            scenario.name(),
            server.name(),
            median.messages_per_second,
            median.share_of_ceiling() * 100.0,
            median.server_cpu,
            median.signatures(),
            median.acknowledged_p50,
            median.acknowledged_p99,
            median.acknowledged_p50 / median.sync,
            median.peak_memory,
        ));
    }
    table
}
