//! What the gateway tells about itself and what it keeps to itself, and the clock it goes by.
//! The lowest layer: everything may use it, and it knows nothing of mail.

pub mod clock;
pub mod log;
pub mod secret;

pub use clock::Clock;
pub use secret::Secret;
