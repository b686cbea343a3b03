//! A configuration file and an environment of arbitrary octets: the result is settings, or problems that can be
//! printed.

use crate::config::{Environment, load_text};
use std::path::Path;

/// The file up to the first NUL; then variables, one `NAME=value` per line.
pub fn configuration(bytes: &[u8]) {
    let (file, variables) = bytes.split_at(memchr::memchr(0, bytes).unwrap_or(bytes.len()));
    let (Ok(file), Ok(variables)) = (std::str::from_utf8(file), std::str::from_utf8(variables)) else { return };
    // For example, a path could lead to devices that never end. An operator's own path is not an attack.
    if ["dev", "proc", "sys", "..", "\\"].iter().any(|part| file.contains(part) || variables.contains(part)) {
        return;
    }
    let pairs = variables.trim_start_matches('\0').lines().filter_map(|line| line.split_once('='));
    let environment = Environment::of(pairs.filter(|(name, _)| *name != "CONFIG_DIR"));
    match load_text(file, Path::new("/nonexistent"), &environment) {
        Ok(settings) => {
            assert!(!settings.upstreams.is_empty() && !format!("{settings:?}").is_empty());
            assert!(settings.listeners.iter().all(|listener| listener.options.max_connections > 0));
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            assert!(!format!("{problems}").is_empty() && !format!("{problems:#}").is_empty());
            for problem in problems.iter() {
                let inside = problem.position().is_none_or(|(line, _)| line <= file.matches('\n').count() + 1);
                assert!(inside, "{problem}");
            }
        }
    }
}
