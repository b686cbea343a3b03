//! What hostile bytes must not do, one function per target, which panics if they do. Not part of any build of the
//! program.
//!
//! `fuzz/` runs them with libFuzzer (`make fuzz`); the tests below replay its seeds and crashers, so that old findings
//! are checked without a nightly compiler.

#![allow(clippy::expect_used, clippy::panic, reason = "a target reports what it found by panicking")]

mod adapt;
mod command;
mod configuration;
mod data;
mod header;
mod html;
mod queue;
mod reply;
mod rewrite;
mod sandbox;
mod session;
#[cfg(test)]
mod tests;

pub use self::command::command;
pub use self::configuration::configuration;
pub use self::data::data;
pub use self::header::header;
pub use self::html::html;
pub use self::queue::queue;
pub use self::reply::reply;
pub use self::rewrite::rewrite;
pub use self::sandbox::sandbox;
pub use self::session::session;

pub type Target = fn(&[u8]);

/// Every target by the name of its file in `fuzz/fuzz_targets`.
pub const TARGETS: &[(&str, Target)] = &[
    ("command", command),
    ("configuration", configuration),
    ("data", data),
    ("header", header),
    ("html", html),
    ("queue", queue),
    ("reply", reply),
    ("rewrite", rewrite),
    ("sandbox", sandbox),
    ("session", session),
];

/// The first octets, as numbers; zeros where there are none.
fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> [u8; N] {
    let (head, rest): (&'a [u8], &'a [u8]) = bytes.split_at(N.min(bytes.len()));
    *bytes = rest;
    let mut taken = [0; N];
    taken[..head.len()].copy_from_slice(head);
    taken
}

/// Characters that the wire never carries within a line.
fn breaks_a_line(text: &str) -> bool {
    text.contains(['\r', '\n', '\0'])
}

/// A folder for this process alone, in memory if the system supports that.
fn scratch(name: &str) -> std::path::PathBuf {
    let memory = std::path::Path::new("/dev/shm");
    let top = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = top.join(format!("waxseal-fuzzing-{name}-{}", std::process::id()));
    // Left over from an earlier process with the same number.
    let _there_is_none = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}
