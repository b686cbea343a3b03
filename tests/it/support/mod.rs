//! What the integration tests stand on: a listener with an intake that records, clients, certificates.

pub mod certificate;
pub mod client;
pub mod listener;
