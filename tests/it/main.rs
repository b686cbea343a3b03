//! All integration tests in one binary: linked once. One file per scenario, named by what a user would see.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

mod configuration_mistakes;
mod dialogs;
mod dkim_verify;
mod peers_work;
mod replay;
mod smuggling;
