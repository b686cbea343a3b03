//! What holds each lane's waiting mail at this moment, for `waxseal queue list` and `show`. Decides nothing.

use super::attempt::{Delivery, Target};
use crate::observe::clock::plus;
use crate::queue::Lane;
use crate::relay::UpstreamObstacle;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::time::Instant;

/// Of one lane of the running gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneState {
    pub lane: String,
    /// `None`: what is due is begun at once.
    pub obstacle: Option<LaneObstacle>,
    /// Messages that wait there, counted up to [`LaneState::MOST`].
    pub waiting: u64,
    /// Those of them whose next attempt comes only after the obstacle, or, without one, later.
    pub later: u64,
    /// Messages with recipients that were stored on hold.
    #[serde(default)]
    pub held: u64,
    /// Messages that wait for the rate of their user or listener.
    #[serde(default)]
    pub delayed: u64,
}

impl LaneState {
    /// Counting further would only make people wait.
    pub const MOST: u64 = 100_000;
}

/// Why nothing more of a lane is begun just now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneObstacle {
    pub cause: HoldCause,
    /// The upstream that is free again first, if it is one.
    pub upstream: Option<String>,
    /// In words, with the reason.
    pub text: String,
    /// `None`: until a message that is under way is done.
    pub until: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldCause {
    Quota,
    Breaker,
    Recovery,
    Rate,
    Connections,
    /// Limits that several gateways share cannot be checked.
    Ledger,
    Memory,
}

/// Why a lane's loop last began nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoopLimit {
    /// As many are under way as the upstreams allow.
    Slots,
    /// The memory for leased messages is used up.
    Memory,
}

/// What the lanes' loops say of themselves; shared by its clones.
#[derive(Debug, Clone, Default)]
pub struct LaneLimits(Arc<Mutex<HashMap<Lane, LoopLimit>>>);

impl LaneLimits {
    pub(super) fn note(&self, lane: &Lane, limit: Option<LoopLimit>) {
        let mut limits = self.0.lock();
        match limit {
            Some(limit) if limits.get(lane) != Some(&limit) => drop(limits.insert(lane.clone(), limit)),
            Some(_) => {}
            None => drop(limits.remove(lane)),
        }
    }

    fn of(&self, lane: &Lane) -> Option<LoopLimit> {
        self.0.lock().get(lane).copied()
    }
}

impl Delivery {
    /// One for each lane that mail can be on, without the numbers, which the queue has.
    pub fn lane_states(&self, limits: &LaneLimits, now: Timestamp) -> Vec<LaneState> {
        let state = |lane: &Lane| LaneState {
            lane: lane.to_string(),
            obstacle: self.obstacle(lane, limits, now),
            waiting: 0,
            later: 0,
            held: 0,
            delayed: 0,
        };
        self.lanes().map(state).collect()
    }

    /// The names of a lane's upstreams, in the order in which they are tried.
    pub fn upstreams_of(&self, lane: &str) -> Vec<String> {
        let names = |target: &Target| target.logins.all().next().map(|upstream| upstream.name().to_owned());
        self.targets_of(&Lane::new(lane)).filter_map(names).collect()
    }

    fn obstacle(&self, lane: &Lane, limits: &LaneLimits, now: Timestamp) -> Option<LaneObstacle> {
        let targets: Vec<&Target> = self.targets_of(lane).collect();
        let mut pauses: Vec<_> = targets.iter().filter_map(|target| target.pause(now)).collect();
        if !pauses.is_empty() && pauses.len() == targets.len() {
            pauses.sort_by_key(|pause| pause.until);
            return Some(pauses.remove(0));
        }
        match limits.of(lane)? {
            LoopLimit::Memory => Some(LaneObstacle {
                cause: HoldCause::Memory,
                upstream: None,
                text: "the memory for messages that are being sent is used up (`max_memory`)".to_owned(),
                until: None,
            }),
            LoopLimit::Slots => targets.iter().find(|target| target.pause(now).is_none())?.bottleneck(now),
        }
    }
}

impl Target {
    /// If none of its logins may be used: that of the one that is free again first.
    pub(super) fn pause(&self, now: Timestamp) -> Option<LaneObstacle> {
        let mut pauses = Vec::new();
        for upstream in self.logins.all() {
            pauses.push(LaneObstacle::of(upstream.name(), &upstream.pause()?, now));
        }
        pauses.into_iter().min_by_key(|pause| pause.until)
    }

    fn bottleneck(&self, now: Timestamp) -> Option<LaneObstacle> {
        let upstream = self.logins.all().find(|upstream| upstream.pause().is_none())?;
        Some(LaneObstacle::of(upstream.name(), &upstream.bottleneck(), now))
    }
}

impl LaneObstacle {
    fn of(upstream: &str, obstacle: &UpstreamObstacle, now: Timestamp) -> Self {
        let at = |until: &Instant| Some(plus(now, until.saturating_duration_since(Instant::now())));
        let (cause, text, until) = match obstacle {
            UpstreamObstacle::Quota { rate, until } => {
                (HoldCause::Quota, format!("its quota of {rate} is reached"), at(until))
            }
            UpstreamObstacle::Breaker { reason, until } => (HoldCause::Breaker, reason.clone(), at(until)),
            UpstreamObstacle::Recovery => {
                (HoldCause::Recovery, "it is recovering, and gets a few messages at a time".to_owned(), None)
            }
            UpstreamObstacle::Rate => (HoldCause::Rate, "its `rate` spaces the mail out".to_owned(), None),
            UpstreamObstacle::Connections(1) => {
                (HoldCause::Connections, "its one connection is busy (`max_connections`)".to_owned(), None)
            }
            UpstreamObstacle::Connections(allowed) => {
                (HoldCause::Connections, format!("all {allowed} connections are busy (`max_connections`)"), None)
            }
            UpstreamObstacle::OtherGateways { allowed, elsewhere } => (
                HoldCause::Connections,
                format!(
                    "all {allowed} connections are busy, {elsewhere} of them at other gateways (`max_connections`)"
                ),
                None,
            ),
            UpstreamObstacle::Ledger { trouble } => {
                (HoldCause::Ledger, format!("the limits that the gateways share cannot be checked: {trouble}"), None)
            }
        };
        Self { cause, upstream: Some(upstream.to_owned()), text, until }
    }
}
