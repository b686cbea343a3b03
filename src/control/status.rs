//! The state of the gateway as a whole: what is in the queue, what holds it, what is wrong. One function gathers it for
//! the socket, for `waxseal status`, for health and for the metrics.

use crate::delivery::{HoldCause, LaneState, UpstreamState, UpstreamStatus};
use crate::intake::ExpectedStatus;
use crate::queue::{HeldLane, Lane, Operator, QueueError, QueueFigures, SpoolFigures, Statistics, Suspension};
use crate::text::{any_of, briefly, in_words, roughly};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Mail that is older is a sign of trouble.
pub const OLD_MAIL: Duration = Duration::from_secs(15 * 60);
/// A certificate that expires sooner is.
const CERTIFICATE_ENDS: Duration = Duration::from_secs(14 * 24 * 3600);
const QUOTA_IS_HIGH: f64 = 0.8;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GatewayStatus {
    pub version: String,
    pub counts: Statistics,
    pub held: Vec<HeldLane>,
    pub figures: QueueFigures,
    /// What waits for a shared queue that does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<SpoolFigures>,
    /// `None`: no gateway runs.
    pub live: Option<LiveStatus>,
}

/// What only the running gateway knows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LiveStatus {
    pub started_at: Timestamp,
    /// The addresses that it listens on; empty once it stops.
    pub listeners: Vec<String>,
    /// Why no mail can be stored; `None`: it can.
    pub storage: Option<String>,
    /// `None`: the system does not report it.
    pub disk_free: Option<u64>,
    /// `min_free_space`.
    pub disk_floor: u64,
    /// Octets of messages in memory, and how many there may be.
    pub memory_used: u64,
    pub memory_total: u64,
    pub upstreams: Vec<UpstreamStatus>,
    pub lanes: Vec<LaneStatus>,
    pub dkim: Vec<DkimKeyStatus>,
    pub certificates: Vec<CertificateStatus>,
    /// `[[expect]]`
    pub expected: Vec<ExpectedStatus>,
    /// Why the configuration that was last read is not in force; `None`: it is.
    #[serde(default)]
    pub refused_configuration: Option<String>,
    pub faults: u64,
}

/// One lane that the routes name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneStatus {
    pub state: LaneState,
    /// Its upstreams, in the order in which they are tried.
    pub upstreams: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DkimKeyStatus {
    pub domain: String,
    pub selector: String,
    /// Whether the DNS has its record; `None`: not known.
    pub is_published: Option<bool>,
}

/// A certificate of the gateway itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// "listener" or "upstream".
    pub usage: String,
    /// The listener's address or the upstream's name.
    pub name: String,
    pub expires: Timestamp,
}

/// Asks the running gateway what only it knows. Cheap to clone.
#[derive(Clone)]
pub struct LiveWatch(Arc<dyn Fn() -> LiveStatus + Send + Sync>);

impl LiveWatch {
    pub fn new(look: impl Fn() -> LiveStatus + Send + Sync + 'static) -> Self {
        Self(Arc::new(look))
    }

    /// The numbers of the lanes are 0: the queue has them.
    pub fn look(&self) -> LiveStatus {
        (self.0)()
    }
}

impl fmt::Debug for LiveWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveWatch").finish_non_exhaustive()
    }
}

/// Something that an operator should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusProblem {
    /// A fixed word for programs.
    pub id: &'static str,
    pub text: String,
}

pub async fn gather(
    queue: &dyn Operator,
    live: Option<&LiveWatch>,
    now: Timestamp,
) -> Result<GatewayStatus, QueueError> {
    let counts = queue.statistics().await?;
    let held = queue.holds().await?;
    let figures = queue.figures().await?;
    let spool = queue.spool().await?;
    let mut live = live.map(LiveWatch::look);
    for lane in live.iter_mut().flat_map(|live| &mut live.lanes) {
        count(queue, &mut lane.state, now, GatewayStatus::COUNTED).await?;
    }
    Ok(GatewayStatus { version: env!("CARGO_PKG_VERSION").to_owned(), counts, held, figures, spool, live })
}

/// The states of all lanes, with how many messages wait on each; where they cannot be counted, the states alone.
pub(super) async fn lanes(queue: &dyn Operator, live: &LiveWatch, now: Timestamp) -> Vec<LaneState> {
    let mut states: Vec<LaneState> = live.look().lanes.into_iter().map(|lane| lane.state).collect();
    for state in &mut states {
        let _the_state_alone = count(queue, state, now, LaneState::MOST).await;
    }
    states
}

/// Counts up to `most` of each kind.
async fn count(queue: &dyn Operator, state: &mut LaneState, now: Timestamp, most: u64) -> Result<(), QueueError> {
    let lane = Lane::new(state.lane.as_str());
    let free = state.obstacle.as_ref().and_then(|obstacle| obstacle.until).map_or(now, |until| until.max(now));
    state.waiting = queue.count_waiting(&lane, None, most).await?;
    state.later = if state.waiting > 0 { queue.count_waiting(&lane, Some(free), most).await? } else { 0 };
    let suspended = async |suspension: Suspension| queue.count_waiting(&suspension.of(&state.lane), None, most).await;
    (state.held, state.delayed) = (suspended(Suspension::Held).await?, suspended(Suspension::Delayed).await?);
    Ok(())
}

/// What recipients of a lane wait for, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitReason {
    Hold,
    SubmissionRate,
    Backoff,
    /// It is about to be sent.
    Turn,
    Lane(HoldCause),
}

impl WaitReason {
    pub const ALL: [Self; 11] = [
        Self::Hold,
        Self::SubmissionRate,
        Self::Backoff,
        Self::Turn,
        Self::Lane(HoldCause::Quota),
        Self::Lane(HoldCause::Breaker),
        Self::Lane(HoldCause::Recovery),
        Self::Lane(HoldCause::Rate),
        Self::Lane(HoldCause::Connections),
        Self::Lane(HoldCause::Ledger),
        Self::Lane(HoldCause::Memory),
    ];

    pub fn label(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::SubmissionRate => "submission_rate",
            Self::Backoff => "backoff",
            Self::Turn => "turn",
            Self::Lane(HoldCause::Quota) => "quota",
            Self::Lane(HoldCause::Breaker) => "breaker",
            Self::Lane(HoldCause::Recovery) => "recovery",
            Self::Lane(HoldCause::Rate) => "rate",
            Self::Lane(HoldCause::Connections) => "connections",
            Self::Lane(HoldCause::Ledger) => "ledger",
            Self::Lane(HoldCause::Memory) => "memory",
        }
    }
}

impl GatewayStatus {
    /// Messages of a lane that are counted for [`GatewayStatus::waiting`]: more would make a look at a long queue slow.
    pub const COUNTED: u64 = 10_000;

    /// What the recipients of a lane wait for. The sum is the number of waiting and held ones. Where some are due and others
    /// are not, they are divided as their messages are, of which up to [`GatewayStatus::COUNTED`] of a kind are counted.
    pub fn waiting(&self, lane: &LaneStatus) -> Vec<(WaitReason, u64)> {
        let LaneState { obstacle, waiting: messages, later, delayed, .. } = &lane.state;
        let figures = self.figures.lanes.iter().find(|figures| figures.lane == lane.state.lane);
        let (recipients, held) = figures.map_or((0, 0), |figures| (figures.waiting, figures.held));
        if is_held(&self.held, &lane.state.lane) {
            return vec![(WaitReason::Hold, recipients + held)];
        }
        let all = messages + delayed;
        let share = |part: u64| recipients.saturating_mul(part).checked_div(all).unwrap_or(0);
        let (delayed, later) = (share(*delayed), share(*later));
        let now = recipients.saturating_sub(delayed).saturating_sub(later);
        let cause = obstacle.as_ref().map_or(WaitReason::Turn, |obstacle| WaitReason::Lane(obstacle.cause));
        vec![
            (WaitReason::Hold, held),
            (WaitReason::SubmissionRate, delayed),
            (WaitReason::Backoff, later),
            (cause, now),
        ]
    }

    pub fn oldest(&self) -> Option<Timestamp> {
        self.figures.lanes.iter().filter_map(|lane| lane.oldest).min()
    }

    /// What an operator should look at, the worst first.
    pub fn problems(&self, now: Timestamp) -> Vec<StatusProblem> {
        let mut problems = Vec::new();
        let mut add = |id, text: String| problems.push(StatusProblem { id, text });
        let Some(live) = &self.live else {
            add("gateway", "the gateway is not running: no mail is accepted or sent".to_owned());
            return problems;
        };
        if let Some(error) = &live.storage {
            add("storage", format!("no mail can be stored: {error}"));
        }
        if live.storage.is_none() && live.disk_free.is_some_and(|free| free < live.disk_floor.saturating_mul(2)) {
            let text = "the disk of `data_dir` is nearly full: less than twice `min_free_space` is free";
            add("disk", text.to_owned());
        }
        if let Some(why) = &live.refused_configuration {
            add("configuration", format!("the configuration cannot be used, and the former one goes on: {why}"));
        }
        if let Some(SpoolFigures { away: Some(reason), recipients, .. }) = &self.spool {
            add(
                "spool",
                format!(
                    "Redis does not answer, nothing is sent, and {recipients} recipients' mail waits in the spool: {reason}"
                ),
            );
        }
        let (well, failing): (Vec<_>, Vec<_>) = live.upstreams.iter().partition(|upstream| upstream.state.is_well());
        for upstream in failing.into_iter().chain(well) {
            upstream_problems(upstream, now, &mut add);
        }
        for held in &self.held {
            let lane = held.lane.as_deref().map_or("all lanes are".to_owned(), |lane| format!("lane {lane} is"));
            add("hold", format!("{lane} held by an operator; `waxseal queue release` ends it"));
        }
        if let Some(age) = self.oldest().and_then(|oldest| Duration::try_from(now.duration_since(oldest)).ok())
            && age > OLD_MAIL
        {
            add("oldest", format!("the oldest mail has been waiting for {}", roughly(age)));
        }
        if self.counts.damaged > 0 {
            add("damaged", format!("{} recipients are damaged; see `waxseal queue check`", self.counts.damaged));
        }
        for expected in live.expected.iter().filter(|expected| expected.is_silent) {
            add("silence", in_silence(expected));
        }
        for key in live.dkim.iter().filter(|key| key.is_published == Some(false)) {
            let name = format!("{}._domainkey.{}", key.selector, key.domain);
            add("dkim", format!("the DNS record {name} is missing or is not the key's"));
        }
        for certificate in &live.certificates {
            if certificate.expires < now + CERTIFICATE_ENDS {
                let CertificateStatus { usage, name, expires } = certificate;
                add(
                    "certificate",
                    format!("the certificate of {usage} {name} ends on {}", expires.strftime("%Y-%m-%d")),
                );
            }
        }
        problems
    }
}

fn upstream_problems(upstream: &UpstreamStatus, now: Timestamp, add: &mut impl FnMut(&'static str, String)) {
    let name = &upstream.name;
    if !upstream.state.is_well() {
        let id = if upstream.state == UpstreamState::QuotaReached { "quota" } else { "upstream" };
        let again = upstream.until.map(|until| format!("; next try in {}", left(now, until))).unwrap_or_default();
        let reason = upstream.reason.as_deref().unwrap_or("it cannot be used");
        return add(id, format!("{name}: {reason}{again}"));
    }
    for quota in upstream.quotas.iter().filter(|quota| quota.ratio() > QUOTA_IS_HIGH) {
        add("quota", format!("{name}: {} of {} per {} are used", quota.used, quota.limit, quota.window));
    }
}

/// Whether an operator holds this lane.
pub fn is_held(held: &[HeldLane], lane: &str) -> bool {
    held.iter().any(|held| match &held.lane {
        Some(name) => name == lane,
        None => !held.except.iter().any(|name| name == lane),
    })
}

fn in_silence(expected: &ExpectedStatus) -> String {
    let ExpectedStatus { name, senders, every_seconds, quiet_seconds, .. } = expected;
    let (quiet, every) = (Duration::from_secs(*quiet_seconds), Duration::from_secs(*every_seconds));
    let (senders, quiet, every) = (any_of(senders), roughly(quiet), in_words(every));
    format!("no mail from {senders} for {quiet}; it is expected every {every} ([[expect]] \"{name}\")")
}

fn left(now: Timestamp, until: Timestamp) -> String {
    briefly((until.as_second() - now.as_second()).max(1).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(live: LiveStatus) -> Vec<&'static str> {
        let (counts, figures) = (Statistics::default(), QueueFigures::default());
        let status =
            GatewayStatus { version: String::new(), counts, held: Vec::new(), figures, spool: None, live: Some(live) };
        status.problems(Timestamp::UNIX_EPOCH).into_iter().map(|problem| problem.id).collect()
    }

    /// Each has an alert too.
    #[test]
    fn a_disk_that_is_nearly_full_and_a_refused_configuration_are_problems() {
        let disk = |free: Option<u64>| LiveStatus { disk_free: free, disk_floor: 100, ..LiveStatus::default() };
        for (live, found) in [
            (disk(Some(200)), &[][..]),
            (disk(None), &[]),
            (disk(Some(199)), &["disk"]),
            (LiveStatus { storage: Some("the disk is full".into()), ..disk(Some(50)) }, &["storage"]),
            (LiveStatus { refused_configuration: Some("1:1: no".into()), ..disk(None) }, &["configuration"]),
        ] {
            assert_eq!(ids(live.clone()), found, "{live:?}");
        }
    }
}
