//! `AccountLedger`: an account's limits as several gateways keep them together, as this gateway last heard of them.
//!
//! Holds what the ledger granted and what it has yet to be told; `renewal` talks to it. A grant is good for a few seconds,
//! so a gateway that was stopped, or cannot reach the ledger, begins nothing.

use crate::rate::shared::{
    BreakerAnswer, BreakerChange, BreakerRecord, GOOD_FOR, PermitGrant, PermitRequest, RateAnswer, RateRequest,
    SharedLimits,
};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// An answer that takes longer counts as none.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// While the ledger gives no answer: when to ask again.
pub(super) const AWAY_RETRY: Duration = Duration::from_millis(500);

/// Receives what other gateways found out about an upstream.
pub(super) trait FollowsBreaker: Send + Sync {
    /// The upstream's name in the ledger.
    fn shared_name(&self) -> &str;

    /// `is_own`: the answer to this gateway's own report of a change.
    fn follow(&self, record: &BreakerRecord, is_own: bool);
}

pub(super) struct AccountLedger {
    limits: Arc<dyn SharedLimits>,
    account: Arc<str>,
    state: Mutex<LedgerState>,
    followers: Mutex<Vec<Weak<dyn FollowsBreaker>>>,
    /// A caller needs a permit, or a breaker has changed.
    pub changed: Notify,
    /// A transaction under the account's rates has ended.
    pub ended: Notify,
}

#[derive(Debug)]
struct LedgerState {
    /// The longest time for which a connection of a gateway that is gone may still be open.
    idle_timeout: Duration,
    share: usize,
    elsewhere: usize,
    good_until: Option<Instant>,
    trouble: Option<String>,
    /// Changes of breakers that were not reported yet, by the upstream's name.
    unreported: VecDeque<(Arc<str>, BreakerChange)>,
}

impl AccountLedger {
    pub(super) fn new(limits: Arc<dyn SharedLimits>, account: Arc<str>, idle_timeout: Duration) -> Arc<Self> {
        let state = LedgerState {
            idle_timeout,
            share: 0,
            elsewhere: 0,
            good_until: None,
            trouble: None,
            unreported: VecDeque::new(),
        };
        Arc::new(Self {
            limits,
            account,
            state: Mutex::new(state),
            followers: Mutex::default(),
            changed: Notify::new(),
            ended: Notify::new(),
        })
    }

    pub(super) fn idle_timeout(&self) -> Duration {
        self.state.lock().idle_timeout
    }

    pub(super) fn set_idle_timeout(&self, idle_timeout: Duration) {
        self.state.lock().idle_timeout = idle_timeout;
    }

    /// How many there could be; at least one, so that a gateway whose turn has not come gets into the line.
    pub(super) fn share(&self) -> usize {
        self.state.lock().share.max(1)
    }

    /// Connections of other gateways.
    pub(super) fn elsewhere(&self) -> usize {
        self.state.lock().elsewhere
    }

    /// Why nothing may be begun: the ledger does not answer, or has not done so for too long.
    pub(super) fn trouble(&self) -> Option<String> {
        let state = self.state.lock();
        match &state.trouble {
            Some(trouble) => Some(trouble.clone()),
            None if state.is_good() => None,
            None => Some("no answer yet".to_owned()),
        }
    }

    /// The answer to a request that was sent at this time. Returns whether it ends a trouble.
    pub(super) fn grant(&self, grant: &PermitGrant, sent: Instant) -> bool {
        let had_trouble = {
            let mut state = self.state.lock();
            state.share = grant.share;
            state.elsewhere = grant.elsewhere;
            state.good_until = sent.checked_add(GOOD_FOR);
            state.trouble.take().is_some()
        };
        for (upstream, record) in &grant.breakers {
            // What is not reported yet is newer.
            if !self.state.lock().unreported.iter().any(|(name, _)| **name == **upstream) {
                self.tell(upstream, record, false);
            }
        }
        had_trouble
    }

    /// Returns whether this is news.
    pub(super) fn lose(&self, trouble: String) -> bool {
        let mut state = self.state.lock();
        state.good_until = None;
        state.trouble.replace(trouble).is_none()
    }

    pub(super) async fn ask_permits(&self, request: PermitRequest) -> Result<PermitGrant, String> {
        self.answer(self.limits.permits(&self.account, request)).await
    }

    pub(super) async fn ask_rates(&self, request: &RateRequest) -> Result<RateAnswer, String> {
        self.answer(self.limits.rates(&self.account, request)).await
    }

    /// Asks whether this gateway may probe the upstream.
    pub(super) async fn ask_probe(&self, upstream: &str) -> Result<BreakerAnswer, String> {
        self.report().await?;
        let answer = self.answer(self.limits.breaker(&self.account, upstream, &BreakerChange::Probe)).await?;
        if !answer.may_probe {
            self.tell(upstream, &answer.record, false);
        }
        Ok(answer)
    }

    /// Tells the other gateways, soon.
    pub(super) fn publish(&self, upstream: &Arc<str>, change: BreakerChange) {
        self.state.lock().unreported.push_back((upstream.clone(), change));
        self.changed.notify_one();
    }

    /// Reports what was published, in order.
    pub(super) async fn report(&self) -> Result<(), String> {
        loop {
            let Some((upstream, change)) = self.state.lock().unreported.front().cloned() else { return Ok(()) };
            let answer = self.answer(self.limits.breaker(&self.account, &upstream, &change)).await?;
            let is_own = !matches!(change, BreakerChange::Probe | BreakerChange::Released);
            {
                let mut state = self.state.lock();
                // Another caller may have reported it meanwhile; reporting twice changes nothing more.
                if state.unreported.front() == Some(&(upstream.clone(), change)) {
                    state.unreported.pop_front();
                }
            }
            self.tell(&upstream, &answer.record, is_own);
        }
    }

    pub(super) fn add_follower(&self, follower: Weak<dyn FollowsBreaker>) {
        self.followers.lock().push(follower);
    }

    fn tell(&self, upstream: &str, record: &BreakerRecord, is_own: bool) {
        let followers = self.followers.lock().clone();
        let followers = followers.iter().filter_map(Weak::upgrade);
        followers.filter(|follower| follower.shared_name() == upstream).for_each(|it| it.follow(record, is_own));
    }

    async fn answer<T>(&self, asked: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        let seconds = ANSWER_TIMEOUT.as_secs();
        timeout(ANSWER_TIMEOUT, asked).await.unwrap_or_else(|_late| Err(format!("no answer within {seconds} s")))
    }
}

impl LedgerState {
    fn is_good(&self) -> bool {
        self.good_until.is_some_and(|until| Instant::now() < until)
    }
}

impl fmt::Debug for AccountLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountLedger")
            .field("account", &self.account)
            .field("state", &*self.state.lock())
            .finish_non_exhaustive()
    }
}
