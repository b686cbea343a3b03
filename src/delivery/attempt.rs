//! One attempt: sends a message to every recipient through its route's upstreams until each has an outcome. Also limits
//! how many attempts run at once. `failover` chooses the next upstream.

use super::credentials::Logins;
use super::finalize::Finalizer;
use super::profile::Profile;
use super::progress::AttemptProgress;
use super::route::Routes;
use super::settled::Attempt;
use crate::dkim::{Keyring, Unsigned};
use crate::message::accepted::Accepted;
use crate::message::{MemoryBudget, Outcome};
use crate::observe::fault;
use crate::observe::metrics::DeliveryMetrics;
use crate::queue::Lane;
use crate::relay::{Capacity, Deadline, Upstream};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// An upstream and its name in the log.
#[derive(Debug, Clone)]
pub struct Target {
    pub logins: Logins<Upstream>,
    /// What the upstream can carry, and in which form.
    pub profile: Profile,
    /// The embedded sandbox provider, which keeps mail instead of sending it.
    pub is_sandbox: bool,
}

impl Target {
    /// All its logins share one account, so the login with the most capacity has all of it.
    pub(super) fn capacity(&self) -> Capacity {
        self.logins.all().map(Upstream::capacity).reduce(Capacity::most).unwrap_or(Capacity::Slots(1))
    }

    pub(super) fn unavailable_for(&self) -> Duration {
        self.logins.all().map(Upstream::unavailable_for).min().unwrap_or_default()
    }

    /// True if the upstream could accept this mail now.
    pub(super) fn would_accept(&self, accepted: &Accepted) -> bool {
        self.logins.for_mail(accepted).is_ok_and(|upstream| matches!(upstream.capacity(), Capacity::Slots(_)))
    }
}

#[derive(Debug)]
pub struct Delivery {
    pub(super) targets: Vec<Target>,
    routes: Arc<Routes>,
    /// Each lane with its upstreams.
    lanes: Vec<(Lane, Vec<usize>)>,
    pub(super) finalizer: Finalizer,
    metrics: DeliveryMetrics,
}

impl Delivery {
    /// `targets`: in the order of the indices that routes use. `memory`: for copies of messages that have to be
    /// converted.
    pub fn new(
        targets: Vec<Target>,
        routes: Arc<Routes>,
        keyring: Arc<Keyring>,
        unsigned: Unsigned,
        memory: MemoryBudget,
        metrics: DeliveryMetrics,
    ) -> Self {
        Self { lanes: routes.lanes(), targets, routes, finalizer: Finalizer { keyring, unsigned, memory }, metrics }
    }

    pub fn metrics(&self) -> &DeliveryMetrics {
        &self.metrics
    }

    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The upstreams to which the lane's mail can go.
    pub(super) fn targets_of(&self, lane: &Lane) -> impl Iterator<Item = &Target> {
        let found = self.lanes.iter().find(|(known, _)| known == lane);
        let indices = found.map_or(&[][..], |(_, upstreams)| upstreams);
        indices.iter().filter_map(|&index| self.targets.get(index))
    }

    /// Every lane that mail can be on.
    pub fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter().map(|(lane, _)| lane)
    }

    /// Ends by the deadline with every recipient settled. Once `stop` is cancelled, recipients not yet begun are
    /// deferred as [`Cause::Stopping`](crate::message::outcome::Cause::Stopping); once `cut_off` is cancelled, it ends
    /// at once with what is known then.
    pub async fn attempt(
        &self,
        accepted: &Accepted,
        deadline: Deadline,
        stop: &CancellationToken,
        cut_off: &CancellationToken,
    ) -> Attempt {
        fault::provoke("attempt", &accepted.envelope.sender);
        let mut progress = AttemptProgress::new(accepted, deadline, stop);
        let is_whole = tokio::select! {
            biased;
            () = self.try_all(&mut progress) => true,
            () = cut_off.cancelled() => false,
        };
        if !is_whole {
            progress.interrupt();
        }
        progress.finish()
    }

    async fn try_all(&self, progress: &mut AttemptProgress<'_>) {
        for group in self.routes.group(progress.accepted) {
            match group.way {
                Ok(way) => self.try_in_order(&way, group.members, progress).await,
                Err(none) => progress.settle_all(&group.members, &Outcome::Deferred(none.reason())),
            }
        }
    }
}
