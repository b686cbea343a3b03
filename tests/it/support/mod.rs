//! The basis of the integration tests: real peers run from their binaries, a listener with an intake that records, a
//! scripted provider, certificates, free ports.
//!
//! If a peer is missing, its test returns early and says so; with `CI` set, it fails. Everything listens on loopback and ends
//! with the test.

pub mod application;
pub mod awkward;
pub mod bench;
pub mod black_hole;
pub mod canaries;
pub mod certificate;
pub mod client;
pub mod clock;
pub mod corpus;
pub mod dkim;
pub mod dns;
pub mod doctor;
pub mod gateway;
pub mod keys;
pub mod listener;
pub mod log_fields;
pub mod log_lines;
pub mod lookalikes;
pub mod mail;
pub mod maildir;
pub mod mount;
pub mod peers;
pub mod ports;
pub mod postfix;
pub mod provider;
pub mod provider_servers;
pub mod real_clients;
pub mod redis;
pub mod redis_proxy;
pub mod relay;
pub mod running;
pub mod spam_filters;
pub mod stored;
pub mod tally;
pub mod transcript;
pub mod upstream;

/// Returns when the condition holds. For tests that block.
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + client::HANG_GUARD;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "timed out waiting: {what}");
        pause();
    }
}

/// The same for tests that wait beside others.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + client::HANG_GUARD;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "timed out waiting: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Between two checks of another process.
#[expect(clippy::disallowed_methods, reason = "nothing else runs on the thread of a test that blocks")]
fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(20));
}
