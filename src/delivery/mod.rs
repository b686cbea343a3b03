//! Delivery: from the queue, or from a waiting client, to a provider and back to an outcome per recipient.
//!
//! `route` says which upstreams serve a recipient, `failover` tries them in order, one `Ready` connection per try, and
//! seals at the door, so that a failover or a rotated key gives the form that leaves. Direct mode and `dispatch`, the
//! queue's loop, call the very same [`Delivery::attempt`]; `settle` says what its outcomes mean for the queue, `bounce`
//! who is told of failed mail. How much an upstream bears is the relay's to say.

mod attempt;
mod bounce;
mod dispatch;
mod door;
mod failover;
mod login;
mod profile;
mod progress;
mod quotas;
mod rehearsal;
mod report;
mod room;
mod route;
mod settle;
#[cfg(test)]
mod testing;

pub use attempt::{Attempt, Delivery, Settled, Target, Transaction};
pub use bounce::{Bounce, Bouncer};
pub use dispatch::{Courier, Dispatcher};
pub use login::Logins;
pub use profile::Profile;
pub use quotas::Quotas;
pub use rehearsal::rehearse;
pub use route::{CHOSEN, Choice, Conditions, NoWay, Route, Routes, UNROUTED, Way, lane_of_upstream};
pub use settle::Clerk;
