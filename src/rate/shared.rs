//! Limits that several gateways keep together: what one of them asks of their common ledger, and the answers.
//!
//! A queue that gateways share implements [`SharedLimits`]; a gateway with a queue of its own counts alone. Every time
//! is a duration from the call, because the ledger decides by its own clock and the gateways' clocks may differ. An
//! error leaves open whether the call took effect, so each request states the caller's whole position, not a change.

use async_trait::async_trait;
use std::fmt::Debug;
use std::time::Duration;

/// Interval between two renewals of a gateway's permits.
pub const HEARTBEAT: Duration = Duration::from_secs(2);
/// A gateway that has not renewed its permits for this long is gone: it gets no share, and its permits are free after
/// the idle time-out of its connections.
pub const GONE: Duration = Duration::from_secs(10);
/// How long permits may be used without a renewal; less than [`GONE`], so that a gateway stops before it counts as gone.
pub const GOOD_FOR: Duration = Duration::from_secs(8);
/// For how long one gateway goes first if there are fewer permits than gateways that want one.
pub const TURN: Duration = Duration::from_secs(5);

/// The common ledger, as one gateway sees it. Names of accounts and upstreams are opaque. An error's text is for people.
#[async_trait]
pub trait SharedLimits: Send + Sync + Debug + 'static {
    /// Renews this gateway's permits for an account and changes their number. The gateways' permits together never
    /// exceed the lowest cap that any of them states.
    async fn permits(&self, account: &str, request: PermitRequest) -> Result<PermitGrant, String>;

    /// Reports the usage of an account's rates and takes units of all of them, or of none.
    async fn rates(&self, account: &str, request: &RateRequest) -> Result<RateAnswer, String>;

    /// Records what happened to an upstream, or asks whether this gateway may probe it.
    async fn breaker(&self, account: &str, upstream: &str, change: &BreakerChange) -> Result<BreakerAnswer, String>;
}

/// A gateway's connections of one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PermitRequest {
    /// The most connections of all gateways together.
    pub cap: usize,
    /// Connections that exist: being made, in use, idle, or being closed.
    pub held: usize,
    /// How many would be used now if there were permits for them.
    pub need: usize,
    /// For how long permits stay taken once this gateway is gone, because its connections may still be open.
    pub idle_timeout: Duration,
    /// The gateway stops.
    pub is_leaving: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PermitGrant {
    /// How many connections there may be. Fewer than are held: the others must be closed when they are not in use.
    pub permits: usize,
    /// How many there could be if the gateway needed as many as possible.
    pub share: usize,
    /// Connections of other gateways, including those that are gone but may still have some.
    pub elsewhere: usize,
    /// Some gateway has fewer than it needs, so a change matters soon.
    pub is_contended: bool,
    /// The account's upstreams that have failed at some time.
    pub breakers: Vec<(String, BreakerRecord)>,
}

/// A gateway's position in all rates of an account.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RateRequest {
    pub rates: Vec<SharedRate>,
    /// False: usage is reported, and nothing is taken.
    pub takes: bool,
}

/// One rate, and the gateway's units of it. Usage belongs to the period, so a changed limit keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedRate {
    pub period: Duration,
    /// `None`: usage is only recorded, for a limit that may be configured later.
    pub limit: Option<u64>,
    /// Mail does not wait for it.
    pub is_quota: bool,
    /// To take.
    pub units: u64,
    /// Of transactions under way, without those to take.
    pub in_flight: u64,
    /// Of transactions that were not begun, since the last report.
    pub returned: u64,
    /// How much time the units take at an even pace; zero for a quota.
    pub span: Duration,
    pub returned_span: Duration,
    /// How much earlier than evenly spaced a unit may be used.
    pub tolerance: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateAnswer {
    pub verdict: RateVerdict,
    /// When the next unit is allowed by the pace alone.
    pub pace: Duration,
    /// How much of each rate of the request was used before it, by all gateways.
    pub used: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateVerdict {
    /// The units are taken, or nothing was to be taken.
    Granted,
    /// Not before this time has passed.
    Later(Duration),
    /// Not before a transaction has ended, here or at another gateway.
    InFlight,
    /// The quota at this place in the request is used up for so long.
    UsedUp(usize, Duration),
}

/// What happened to an upstream's breaker here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BreakerChange {
    Opened(OpenBreaker),
    /// The probe succeeded.
    Closed,
    /// Asks for the right to probe, which one gateway has at a time, and none during the pause for urgent callers.
    Probe,
    /// The probe ended without a result.
    Released,
    /// An operator ended the pause.
    Cut,
}

/// A pause, as the gateways share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenBreaker {
    pub pause: Duration,
    /// For a caller that waits for an answer.
    pub urgent_pause: Duration,
    pub failures: u32,
    /// For people; contains no secret.
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BreakerRecord {
    /// Increases with every change; 0: it was never open.
    pub generation: u64,
    /// `None`: closed. The pauses are what is left of them.
    pub open: Option<OpenBreaker>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BreakerAnswer {
    pub record: BreakerRecord,
    /// This gateway has the right to probe.
    pub may_probe: bool,
}

#[cfg(test)]
pub(crate) mod memory;
