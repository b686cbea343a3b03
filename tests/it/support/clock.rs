//! The clock of `make test-future`: libfaketime, preloaded into every process of the run by `tests/in-days`. Programs that
//! a test starts with an empty environment get it too; otherwise the gateway would have another date than its test.

use jiff::{SignedDuration, Timestamp};
use std::path::Path;
use std::process::Command;

const PRELOAD: &str = "LD_PRELOAD";

/// The variables that set this run's clock; none in a run of today.
pub fn of_this_run() -> Vec<(String, String)> {
    let is_faked = std::env::vars().any(|(name, _)| name == "FAKETIME");
    let sets_the_clock = |name: &str| is_faked && (name == PRELOAD || name.starts_with("FAKETIME"));
    std::env::vars().filter(|(name, _)| sets_the_clock(name)).collect()
}

/// For programs with an allocator of their own (rustc, cargo, rspamd), which libfaketime makes hang as they start: they keep
/// the machine's clock.
pub fn of_the_machine(command: &mut Command) -> &mut Command {
    for (name, _) in of_this_run() {
        command.env_remove(name);
    }
    command
}

/// What that clock says, if it is not this run's.
pub fn machine_time() -> Option<Timestamp> {
    let ahead = std::env::var("FAKETIME").ok()?;
    let days = ahead.strip_prefix('+').and_then(|days| days.strip_suffix('d')).expect("days, from tests/in-days");
    Some(Timestamp::now() - SignedDuration::from_hours(24 * days.parse::<i64>().expect("a number of days")))
}

/// What to preload where a test has a library of its own to preload.
pub fn beside(library: &Path) -> String {
    let clock = of_this_run().into_iter().find(|(name, _)| name == PRELOAD).map(|(_, clock)| clock);
    clock.into_iter().chain([library.display().to_string()]).collect::<Vec<_>>().join(":")
}
