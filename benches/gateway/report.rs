//! Numbers as people read them: a line for each run, tables of medians.

use super::goals::{Bound, Goal};
use super::results::Results;
use super::run::{Measured, Scenario};
use super::servers::Server;
use super::single::Single;
use super::yardstick::Alone;

const BEGIN: &str = "<!-- measured by make bench -->";
const END: &str = "<!-- end of what was measured -->";

/// The source straight into the sink.
pub fn alone(results: &Results) -> String {
    let line = |(size, alone): &(usize, Alone)| {
        format!(
            "The source straight into the sink over TLS, {} KiB: {:.0} messages/s, {:.3} ms of CPU for both, acknowledged in \
            {:.2} ms.\n",
            size / 1024,
            alone.messages_per_second,
            alone.cpu,
            alone.acknowledged,
        )
    };
    results.alone.iter().map(line).collect()
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

/// Everything that is written into docs/performance.md.
pub fn page(results: &Results, single: &Single, goals: &[Goal]) -> String {
    format!(
        "Measured on {} with `{}`, on {} cores of \"{}\".{}\n\n{}\n{}\n{}\n{}",
        jiff::Timestamp::now().strftime("%Y-%m-%d"),
        command(),
        super::yardstick::cores(),
        processor(),
        signature(results),
        alone(results),
        table(results),
        of_single(single),
        goals_table(goals),
    )
}

/// The median over all runs.
fn signature(results: &Results) -> String {
    let mut signatures: Vec<f64> = results.medians().iter().map(|(_, _, median)| median.signature).collect();
    signatures.sort_by(f64::total_cmp);
    let median = signatures.get(signatures.len() / 2);
    median.map_or_else(String::new, |median| format!(" One signature takes {median:.3} ms of CPU."))
}

/// As it was typed, as far as this program knows.
fn command() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    format!("cargo bench --bench gateway -- {}", arguments.join(" ")).trim_end_matches(" -- ").to_owned()
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or("an unknown processor", |(_, name)| name).to_owned()
}

fn of_single(single: &Single) -> String {
    let mut table = String::from("| waxseal alone | |\n|---|---|\n");
    let mut row = |what: &str, value: Option<String>| {
        table.push_str(&format!("| {what} | {} |\n", value.unwrap_or_else(|| "not measured".to_owned())));
    };
    let lone = single.lone.map(|(wait, sync)| format!("{wait:.2} ms; a sync took {sync:.2} ms"));
    row("a lone mail of 4 KiB, acknowledged in", lone);
    row("direct mode, added to the sink's own answer", single.direct_added.map(|added| format!("{added:.2} ms")));
    row("memory when idle", single.idle_memory.map(|memory| format!("{memory:.1} MiB")));
    row("with 10,000 idle connections", single.idle_connections_memory.map(|memory| format!("{memory:.1} MiB")));
    let large = single.large.map(|(rate, memory)| format!("{rate:.1}/s, at most {memory:.0} MiB"));
    row("messages of 25 MiB, 20 at once", large);
    row("syncs per message, 50x100", single.syncs_per_message.map(|syncs| format!("{syncs:.2}")));
    let drain = single.drain;
    row("after an outage", drain.map(|(rate, empty, _)| format!("{rate:.0}/s; {empty:.0}/s with an empty queue")));
    row("start after a kill, with that queue", drain.map(|(_, _, start)| format!("{start:.0} ms")));
    table
}

fn goals_table(goals: &[Goal]) -> String {
    let mut table = String::from("| goal | bound | measured | |\n|---|---|---|---|\n");
    for goal in goals {
        let bound = match goal.bound {
            Bound::AtLeast(bound) => format!("at least {bound}"),
            Bound::AtMost(bound) => format!("at most {bound}"),
        };
        let verdict = if goal.is_reached() { "reached" } else { "**missed**" };
        table.push_str(&format!("| {} | {bound} | {:.2} | {verdict} |\n", goal.what, goal.measured));
    }
    table
}

/// Puts it between the markers of the page; the words around them stay.
pub fn write(text: &str, failures: &mut Vec<String>) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (Some(start), Some(end)) = (page.find(BEGIN), page.find(END)) else {
        failures.push(format!("{} lacks the lines {BEGIN} and {END}", path.display()));
        return;
    };
    let written = format!("{}{BEGIN}\n\n{text}\n{}", &page[..start], &page[end..]);
    std::fs::write(&path, written).unwrap();
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
