//! Logging, metrics, secrets, fault reports, the clock, random numbers, retries and long work.
//! Every layer above may use it, and it knows nothing of mail.

pub(crate) mod backoff;
pub(crate) mod check_id;
pub(crate) mod clock;
pub(crate) mod fault;
pub(crate) mod log;
pub(crate) mod long_work;
pub(crate) mod metrics;
pub(crate) mod random;
pub(crate) mod redaction;
pub(crate) mod secret;

pub(crate) use backoff::Backoff;
pub use check_id::CheckId;
pub use clock::Clock;
pub(crate) use random::{jitter, random_u32};
pub(crate) use redaction::Redaction;
pub use secret::Secret;
