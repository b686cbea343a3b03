//! The parts of the protocol that both directions share: addresses, commands, replies, extensions, data framing.
//!
//! Pure: bytes in, values out. No sockets, no waiting, no policy. RFC 5321, 1870, 2034, 2920, 3207, 4954, 6152, 6531.

pub mod address;
pub mod command;
pub mod dot;
pub mod extension;
pub mod reply;

pub use address::{Domain, EhloName, Mailbox, ReversePath};
pub use command::Command;
pub use extension::Extensions;
pub use reply::{EnhancedCode, Reply};
