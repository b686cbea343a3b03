//! Logging, secrets, fault reports, the clock and random numbers.
//! The lowest layer: everything may use it, and it knows nothing of mail.

pub mod clock;
pub mod durations;
pub mod fault;
pub mod log;
pub mod random;
pub mod redaction;
pub mod secret;

pub use clock::Clock;
pub use durations::{in_words, roughly};
pub use random::{jitter, random_u32};
pub use redaction::Redaction;
pub use secret::Secret;
