//! waxseal, an SMTP gateway: the modules in the order in which mail passes them.
//!
//! | module | what it does | read first |
//! |---|---|---|
//! | [`inbound`] | the server side of SMTP: commands in, replies out | [`inbound::Listener`], [`inbound::Intake`] |
//! | [`intake`] | policy, repairs and rules; the reply to the final dot | [`intake::QueuedIntake`], [`intake::DirectIntake`] |
//! | [`message`] | a message as octets, its repairs and conversions; pure | [`message::RawMessage`], [`message::outcome`] |
//! | [`queue`] | durable storage, leases, states | [`queue::Queue`], [`queue::sqlite`] |
//! | [`smtp`] | the grammar both sides share: commands, replies, addresses; pure | [`smtp::Reply`], [`smtp::Mailbox`] |
//! | [`delivery`] | routes, attempts, and what they mean for the queue | [`delivery::Delivery`], [`delivery::Dispatcher`] |
//! | [`dkim`] | keys, records, signing, verifying; pure | [`dkim::SigningKey`] |
//! | [`relay`] | the client side of SMTP: pool, limits, verified TLS | [`relay::Upstream`] |
//! | [`rate`] | how much may pass in a period, and what of it was used; pure | [`rate::Rate`] |
//! | [`sandbox`] | a provider inside the process | [`sandbox::Sandbox`] |
//! | [`control`] | what operators ask and change; the control socket | [`control::ControlRequest`], [`control::execute`] |
//! | [`admin`] | health and metrics over HTTP | [`admin::AdminServer`] |
//! | [`tls`] | the only TLS configurations | |
//! | [`doctor`] | looks at every link of the chain, and says which one is broken | [`doctor::Examination`] |
//! | [`cli`], [`config`], [`gateway`] | commands, settings, and the assembler of all of the above | [`gateway::Gateway`], [`config::load`] |
//! | [`observe`], [`pem`] | log, metrics, clock, secrets, faults, retries; reading PEM files | [`observe::Secret`] |
//! | [`text`] | text for people, and which characters in text from others must not be shown | [`text::is_deceptive`] |
//!
//! docs/flow.md follows a message through them; docs/architecture.md has the layers, which tests/layering.rs enforces.

#![allow(rustdoc::private_intra_doc_links, reason = "the documentation is for developers: it has private items, too")]

pub mod inbound;
pub mod intake;
pub mod message;
pub mod queue;
pub mod smtp;

pub(crate) mod delivery;
pub mod dkim;
pub(crate) mod rate;
pub mod relay;
pub(crate) mod sandbox;
pub mod tls;

pub(crate) mod admin;
pub mod cli;
pub(crate) mod config;
pub mod control;
pub(crate) mod doctor;
pub mod gateway;
pub mod observe;
pub mod pem;
pub(crate) mod text;

/// Only for fuzzing and tests: no build of the program has it.
#[cfg(any(test, fuzzing))]
pub mod fuzzing;

#[cfg(test)]
#[path = "../tests/it/support/lookalikes.rs"]
mod lookalikes;
#[cfg(test)]
#[path = "../tests/it/support/tally.rs"]
mod tally;
