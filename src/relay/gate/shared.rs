//! The gate of an account that several gateways share: their ledger counts, and this gateway reports what it has under
//! way.
//!
//! Every request states all that is under way here, so an answer that was lost corrects itself: what the ledger counts
//! and this gateway does not have counts as ended.

use super::{Gate, RateToken, TokenDenied};
use crate::rate::shared::{RateAnswer, RateRequest, RateVerdict};
use crate::rate::{Limiter, Load, QuotaUsage, Rate, RatePosition};
use crate::relay::deadline::{Deadline, Expired};
use crate::relay::ledger::AccountLedger;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Transactions of other gateways end without notice.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(super) struct SharedUsage {
    in_flight: Load,
    returned: Load,
    /// Transactions have ended that were not reported.
    is_unreported: bool,
    /// When the next unit is allowed by the pace.
    pace: Option<Instant>,
    used_up: Option<(Rate, Instant)>,
    /// Of each rate, by all gateways.
    used: Vec<u64>,
}

impl SharedUsage {
    pub(super) fn exhausted_quota(&self) -> Option<(Rate, Instant)> {
        self.used_up.filter(|(_, until)| *until > Instant::now())
    }

    /// As the ledger last said.
    pub(super) fn quota_usage(&self, limiter: &Limiter) -> Vec<QuotaUsage> {
        let rates = (0..).map_while(|place| limiter.rate(place)).enumerate().filter(|(_, rate)| !rate.is_short());
        rates.map(|(place, rate)| QuotaUsage { rate, used: self.used.get(place).copied().unwrap_or(0) }).collect()
    }

    pub(super) fn until_pace(&self) -> Duration {
        self.pace.map(|pace| pace.saturating_duration_since(Instant::now())).unwrap_or_default()
    }

    pub(super) fn end(&mut self, load: Load, began: bool) {
        self.in_flight = self.in_flight - load;
        if !began {
            self.returned = self.returned + load;
        }
        self.is_unreported = true;
    }
}

impl Gate {
    /// The caller is the first in line.
    pub(super) async fn shared_token(
        self: &Arc<Self>,
        ledger: &AccountLedger,
        load: Load,
        deadline: Deadline,
    ) -> Result<RateToken, TokenDenied> {
        let token = || RateToken { gate: Arc::clone(self), load, began: false };
        if self.has_no_rates() {
            return Ok(token());
        }
        loop {
            let asked = deadline.limit(self.ask(ledger, load, true)).await;
            let answer = asked.map_err(|Expired| TokenDenied::NotInTime(None))?.map_err(TokenDenied::Unshared)?;
            match answer.verdict {
                RateVerdict::Granted => {
                    let mut state = self.state.lock();
                    state.shared.in_flight = state.shared.in_flight + load;
                    return Ok(token());
                }
                RateVerdict::Later(wait) => self.sleep(self.now().moment + wait, deadline).await?,
                RateVerdict::InFlight => {
                    let again = Deadline::after(LOOK_AGAIN);
                    let ended = deadline.limit(again.limit(self.ended.notified())).await;
                    let _ended_or_look_again = ended.map_err(|Expired| TokenDenied::NotInTime(None))?;
                }
                RateVerdict::UsedUp(place, wait) => {
                    let mut state = self.state.lock();
                    let Some(rate) = state.limiter.rate(place) else {
                        return Err(TokenDenied::Unshared("the ledger names an unknown rate".to_owned()));
                    };
                    let now = Instant::now();
                    let until = now.checked_add(wait).unwrap_or(now);
                    state.shared.used_up = Some((rate, until));
                    return Err(TokenDenied::UsedUp { rate, until });
                }
            }
        }
    }

    /// Reports ended transactions, unless a caller in the line does so with its own request. `always`: reads the usage of
    /// the other gateways in any case.
    pub(in crate::relay) async fn report(&self, always: bool) {
        let Some(ledger) = &self.ledger else { return };
        let Ok(_turn) = self.turn.try_lock() else { return };
        let is_due = always || self.state.lock().shared.is_unreported;
        if is_due && !self.has_no_rates() {
            // Without an answer, the next request reports it.
            let _answer = self.ask(ledger, Load::default(), false).await;
        }
    }

    fn has_no_rates(&self) -> bool {
        self.state.lock().limiter.is_empty()
    }

    /// Only for the first in line: requests that overtake each other would count twice.
    async fn ask(&self, ledger: &AccountLedger, wanted: Load, takes: bool) -> Result<RateAnswer, String> {
        let request = {
            let mut state = self.state.lock();
            let returned = std::mem::take(&mut state.shared.returned);
            let position = RatePosition { wanted, in_flight: state.shared.in_flight, returned };
            state.shared.is_unreported = false;
            RateRequest { rates: state.limiter.position(position, state.throttle.share()), takes }
        };
        let answer = ledger.ask_rates(&request).await;
        let mut state = self.state.lock();
        match &answer {
            Ok(answer) => {
                let now = Instant::now();
                state.shared.pace = now.checked_add(answer.pace);
                state.shared.used.clone_from(&answer.used);
            }
            Err(_) => state.shared.is_unreported = true,
        }
        answer
    }
}
