//! Delivery: one try to bring a message to a provider, from choosing the upstream to an outcome per recipient.
//!
//! `route` says which upstreams serve a recipient, `attempt` tries them in order, one `Ready` connection per try, and
//! seals at the door, so that a failover or a rotated key gives the form that leaves. Direct mode and, later, the
//! queue's lease loop call the very same [`Delivery::attempt`].

mod attempt;
mod report;
mod route;

pub use attempt::{Attempt, Delivery, Settled, Target, Transaction};
pub use route::{Route, Routes};
