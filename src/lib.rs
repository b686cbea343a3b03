//! waxseal, an SMTP gateway: the modules in the order mail passes them.
//!
//! An application's mail comes in through `inbound`, is repaired and admitted by `intake`, sealed by `delivery` with
//! `dkim`, and leaves through `relay`. Layers and the path are drawn in docs/flow.md; tests/layering.rs holds them.

pub mod inbound;
pub mod intake;
pub mod message;
pub mod queue;
pub mod smtp;

pub mod delivery;
pub mod dkim;
pub mod relay;
pub mod sandbox;
pub mod tls;

pub mod cli;
pub mod config;
pub mod gateway;
pub mod observe;
pub mod pem;

/// Only for fuzzing and tests: no build of the program has it.
#[cfg(any(test, fuzzing))]
pub mod fuzzing;

#[cfg(test)]
#[path = "../tests/it/support/lookalikes.rs"]
mod lookalikes;
#[cfg(test)]
#[path = "../tests/it/support/tally.rs"]
mod tally;
