//! Health and metrics over HTTP (`[admin]`). Asks `control` for the state of everything and knows no table of the queue.
//!
//! `server` accepts connections and ends within the drain; `guard` is the one stack around the whole router: Host,
//! token, size, time, panics. `routes` lists every route, `health` and `exposition` answer them.

mod exposition;
mod guard;
mod health;
mod routes;
mod server;

pub(crate) use exposition::sum_up;
pub(crate) use health::HealthReport;
pub use server::{AdminError, AdminServer};

use crate::control::LiveWatch;
use crate::observe::metrics::MetricsRegistry;
use crate::observe::{Clock, Secret};
use crate::queue::Operator;
use std::net::SocketAddr;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminOptions {
    pub address: SocketAddr,
    /// Names by which it may be addressed, in lower case; besides its IP address, "localhost" and the gateway's hostname.
    pub hosts: Vec<String>,
    /// What each request must carry; `None`: nothing.
    pub token: Option<Secret>,
}

/// What the routes answer from. Cheap to clone.
#[derive(Clone)]
pub struct AdminState {
    pub queue: Arc<dyn Operator>,
    pub live: LiveWatch,
    pub metrics: MetricsRegistry,
    pub clock: Clock,
}
