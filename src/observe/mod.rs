//! Logging, secrets, fault reports, the clock, random numbers, retries and long work.
//! Everything above may use it, and it knows nothing of mail.

pub mod backoff;
pub mod clock;
pub mod fault;
pub mod log;
pub mod long_work;
pub mod random;
pub mod redaction;
pub mod secret;

pub use backoff::Backoff;
pub use clock::Clock;
pub use random::{jitter, random_u32};
pub use redaction::Redaction;
pub use secret::Secret;
