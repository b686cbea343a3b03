//! The parts of the protocol that both directions share: addresses, commands, replies, extensions, data framing.
//!
//! Pure: bytes in, values out. No sockets, no waiting, no policy. RFC 5321, 1870, 2034, 2920, 3207, 4954, 6152, 6531.

pub(crate) mod address;
pub mod command;
pub mod dot;
pub(crate) mod extension;
pub mod reply;

pub(crate) use address::EhloName;
pub use address::{Domain, Mailbox, ReversePath};
pub(crate) use extension::Extensions;
pub use reply::{EnhancedCode, Reply};
