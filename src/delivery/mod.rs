//! Delivery: from the queue, or from a waiting client, to a provider and back to an outcome per recipient.
//!
//! `route` says which upstreams serve a recipient. `failover` tries them in order, one `Ready` connection per try, and
//! finalises the message for that connection, so that a failover or a rotated key takes effect. Direct mode and
//! `dispatch`, the queue's loop, both call [`Delivery::attempt`]. `settle` says what its outcomes mean for the queue,
//! `bounce` who is notified of failed mail. The relay decides how much an upstream can accept.

mod attempt;
mod bounce;
mod conversion_memory;
mod count;
mod credentials;
mod dispatch;
mod dry_run;
mod failover;
mod finalize;
mod lane_state;
mod profile;
mod progress;
mod quotas;
mod report;
mod route;
mod settle;
mod settled;
#[cfg(test)]
mod testing;
mod upstream_status;

pub use attempt::{Delivery, Target};
pub use bounce::{Bounce, Bouncer};
pub use credentials::Logins;
pub use dispatch::{DeliveryPlan, Dispatcher};
pub use dry_run::dry_run;
pub use lane_state::{HoldCause, LaneLimits, LaneObstacle, LaneState};
pub use profile::Profile;
pub use quotas::Quotas;
pub use report::named;
pub use route::{CHOSEN, Choice, NoRoute, RecipientRoute, Route, RouteConditions, Routes, UNROUTED, lane_of_upstream};
pub use settle::SettlementPolicy;
pub use settled::Attempt;
pub use upstream_status::{UpstreamState, UpstreamStatus};
