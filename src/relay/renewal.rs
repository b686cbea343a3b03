//! Keeps an account's permits renewed while several gateways share its limits: asks for as many connections as callers
//! need, gives back what is not used, and reports usage.
//!
//! Invariant: the ledger never has fewer permits for this gateway than it has connections. The pool is therefore held at
//! what it has while a request is under way, and grows only by an answer.

use super::connection::{PooledConnection, retire};
use super::gate::Gate;
use super::ledger::{AWAY_RETRY, AccountLedger};
use super::pool::Pool;
use super::surplus::ConnectionLimit;
use crate::observe::log::Clean;
use crate::rate::shared::{GOOD_FOR, HEARTBEAT, PermitGrant, PermitRequest};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

/// While some gateway has fewer permits than it needs.
const CONTENDED: Duration = Duration::from_millis(250);
/// Callers that come one after the other are asked for together.
const TOGETHER: Duration = Duration::from_millis(5);

/// The parts of an account that a renewal needs. Does not keep the account alive.
#[derive(Debug)]
pub(super) struct Renewal {
    pub ledger: Arc<AccountLedger>,
    pub pool: Weak<Pool<PooledConnection>>,
    pub gate: Weak<Gate>,
    pub connections: Arc<ConnectionLimit>,
}

impl Renewal {
    /// Ends with the account.
    pub(super) async fn run(self) {
        while let Some(pool) = self.pool.upgrade() {
            let due = Instant::now() + self.renew(&pool, false).await;
            drop(pool);
            self.report_usage(true).await;
            sleep(TOGETHER).await;
            loop {
                tokio::select! {
                    () = self.ledger.changed.notified() => break,
                    () = sleep_until(due) => break,
                    () = self.ledger.ended.notified() => {
                        sleep(TOGETHER).await;
                        self.report_usage(false).await;
                    }
                }
            }
        }
    }

    async fn report_usage(&self, always: bool) {
        if let Some(gate) = self.gate.upgrade() {
            gate.report(always).await;
        }
    }

    /// Returns when the next renewal is due. `is_leaving`: no more connections are made.
    pub(super) async fn renew(&self, pool: &Arc<Pool<PooledConnection>>, is_leaving: bool) -> Duration {
        let demand = pool.freeze();
        let allowed = self.connections.allowed();
        let in_use = demand.held.saturating_sub(demand.idle + demand.closing);
        let request = PermitRequest {
            cap: pool.cap(),
            held: demand.held,
            need: (in_use + demand.waiting).min(allowed),
            idle_timeout: self.ledger.idle_timeout(),
            is_leaving,
        };
        let sent = Instant::now();
        match self.ask(request, sent).await {
            Ok(grant) => {
                if self.ledger.grant(&grant, sent) {
                    info!("the limits that the gateways share can be checked again");
                }
                pool.set_granted(grant.permits).into_iter().for_each(retire);
                if grant.is_contended { CONTENDED } else { HEARTBEAT }
            }
            Err(error) => {
                if self.ledger.lose(error.clone()) {
                    let error = Clean(&error);
                    warn!(%error, "the limits that the gateways share cannot be checked; no delivery begins until they can");
                }
                pool.set_granted(0).into_iter().for_each(retire);
                AWAY_RETRY
            }
        }
    }

    async fn ask(&self, request: PermitRequest, sent: Instant) -> Result<PermitGrant, String> {
        self.ledger.report().await?;
        let grant = self.ledger.ask_permits(request).await?;
        // The process was stopped meanwhile, and others may have been given these permits.
        if sent.elapsed() >= GOOD_FOR {
            return Err("the answer came too late".to_owned());
        }
        Ok(grant)
    }
}

#[cfg(test)]
mod tests;
