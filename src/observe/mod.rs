//! What the gateway tells about itself and what it keeps to itself, and the clock and the chance it goes by.
//! The lowest layer: everything may use it, and it knows nothing of mail.

pub mod chance;
pub mod clock;
pub mod fault;
pub mod log;
pub mod redaction;
pub mod secret;
pub mod words;

pub use chance::{chance, small_chance};
pub use clock::Clock;
pub use redaction::Redaction;
pub use secret::Secret;
pub use words::{in_words, roughly};
