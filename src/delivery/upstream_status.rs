//! What each upstream is doing at this moment, for metrics, health and `waxseal status`. Decides nothing.

use super::attempt::{Delivery, Target};
use super::lane_state::{HoldCause, LaneObstacle};
use crate::rate::QuotaUsage;
use crate::relay::Upstream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One upstream of the running gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    pub name: String,
    pub state: UpstreamState,
    /// Why it gets no mail, in words; `None`: it gets mail.
    pub reason: Option<String>,
    /// When it is tried again.
    pub until: Option<Timestamp>,
    /// Being made, in use, idle or being closed.
    pub connections: usize,
    pub connections_allowed: usize,
    pub quotas: Vec<QuotaStatus>,
    /// The embedded sandbox provider.
    pub is_sandbox: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamState {
    Available,
    /// It gets a few messages at a time after a failure.
    Recovering,
    /// Its breaker is open.
    Unavailable,
    QuotaReached,
}

/// How much of one quota is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaStatus {
    /// The length of its window: "1h" or "1d".
    pub window: String,
    pub used: u64,
    pub limit: u64,
}

impl UpstreamState {
    pub const ALL: [Self; 4] = [Self::Available, Self::Recovering, Self::Unavailable, Self::QuotaReached];

    pub fn label(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Recovering => "recovering",
            Self::Unavailable => "unavailable",
            Self::QuotaReached => "quota_reached",
        }
    }

    /// It gets mail.
    pub fn is_well(self) -> bool {
        matches!(self, Self::Available | Self::Recovering)
    }
}

impl QuotaStatus {
    fn of(usage: QuotaUsage) -> Self {
        let hours = usage.rate.period().as_secs() / 3600;
        let window = if hours.is_multiple_of(24) { format!("{}d", hours / 24) } else { format!("{hours}h") };
        Self { window, used: usage.used, limit: u64::from(usage.rate.units()) }
    }

    /// From 0 to 1; more if the limit was lowered.
    #[expect(clippy::cast_precision_loss, reason = "a share for people and graphs")]
    pub fn ratio(&self) -> f64 {
        self.used as f64 / self.limit.max(1) as f64
    }
}

impl Delivery {
    /// In the order of the configuration.
    pub fn upstream_statuses(&self, now: Timestamp) -> Vec<UpstreamStatus> {
        self.targets.iter().filter_map(|target| target.status(now)).collect()
    }
}

impl Target {
    /// All its logins share one account; it gets mail if any of them does.
    fn status(&self, now: Timestamp) -> Option<UpstreamStatus> {
        let first = self.logins.all().next()?;
        let pause = self.pause(now);
        let state = match pause.as_ref().map(|pause| pause.cause) {
            Some(HoldCause::Quota) => UpstreamState::QuotaReached,
            Some(_) => UpstreamState::Unavailable,
            None if self.logins.all().all(Upstream::is_recovering) => UpstreamState::Recovering,
            None => UpstreamState::Available,
        };
        let (reason, until) = pause.map_or((None, None), |LaneObstacle { text, until, .. }| (Some(text), until));
        Some(UpstreamStatus {
            name: first.name().to_owned(),
            state,
            reason,
            until,
            connections: self.logins.all().map(Upstream::connections_open).sum(),
            connections_allowed: first.connections_allowed(),
            quotas: first.quota_usage().into_iter().map(QuotaStatus::of).collect(),
            is_sandbox: self.is_sandbox,
        })
    }
}
