//! What operators ask and change: one set of requests and answers, the same words beside a running gateway (through its
//! socket) and without one.
//!
//! `protocol` has the requests and answers, `wire` their lines, `execute` and `change` carry them out on an
//! [`Operator`](crate::queue::Operator) with the current rules and routes, `server` and `client` are the two ends of the socket.
//! Answers are bounded: lists and changes of many messages go in pages.

mod change;
mod client;
mod execute;
mod protocol;
mod server;
mod socket;
mod wire;

pub use change::CurrentRules;
pub use client::{ask, connect};
pub use execute::execute;
pub use protocol::{
    Blame, Change, Changed, ControlRefusal, ControlRequest, ControlResponse, MAX_PAGE, MAX_RULED, MessageContent,
    Overview, RuledMessage, RuledPage, Which,
};
pub use server::{ControlServer, Wake};

#[cfg(test)]
mod tests;
