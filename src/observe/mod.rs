//! What the gateway tells about itself and what it keeps to itself, and the clock it goes by.

pub mod clock;
pub mod log;
pub mod secret;

pub use clock::Clock;
pub use secret::Secret;
