//! The rates of users and listeners at start: builds each one, with what earlier processes used of it.

use super::StartError;
use crate::config::{DeliveryMode, ListenerSettings, Settings, SubmissionRateSettings};
use crate::delivery::Quotas;
use crate::inbound::{RateOwner, SubmissionRate, SubmissionRates};
use crate::queue::QuotaLedger;
use crate::rate::{QuotaStore, StoredUsage};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tracing::error;

/// All of them, for as long as the gateway runs.
#[derive(Debug, Default)]
pub(super) struct GatewayRates {
    /// In the order of the configuration.
    listeners: Vec<Option<Arc<SubmissionRate>>>,
    users: Arc<HashMap<Arc<str>, Arc<SubmissionRate>>>,
}

impl GatewayRates {
    /// Rates that `former` has too go on counting. One that has changed begins with what is recorded of it.
    pub async fn restore(
        settings: &Settings,
        ledger: Arc<dyn QuotaLedger>,
        former: Option<(&Self, &Settings)>,
    ) -> Result<Self, StartError> {
        let mut start = RateStart {
            ledger: Arc::new(Quotas(ledger)),
            // The other half is for a provider that is unavailable.
            longest: settings.queue.schedule.expire / 2,
            names: HashSet::new(),
            former: former.map(|(rates, settings)| rates.configured(settings)).unwrap_or_default(),
        };
        let mut listeners = Vec::new();
        for listener in &settings.listeners {
            let owner = RateOwner::Listener(listener.options.address);
            listeners.push(match &listener.rate {
                Some(rate) => Some(start.restore(owner, rate).await?),
                None => None,
            });
        }
        let mut users = HashMap::new();
        for user in &settings.users {
            if let Some(rate) = &user.rate {
                users.insert(user.name.clone(), start.restore(RateOwner::User(user.name.clone()), rate).await?);
            }
        }
        Ok(Self { listeners, users: Arc::new(users) })
    }

    fn configured(&self, settings: &Settings) -> Vec<(SubmissionRateSettings, Arc<SubmissionRate>)> {
        let listeners = settings.listeners.iter().zip(&self.listeners);
        let listeners = listeners.filter_map(|(listener, rate)| Some((listener.rate.clone()?, rate.clone()?)));
        let users = settings.users.iter();
        let users = users.filter_map(|user| Some((user.rate.clone()?, self.users.get(&user.name)?.clone())));
        listeners.chain(users).collect()
    }

    /// Those that apply on one listener; `number`: its place in the configuration.
    pub fn on(&self, number: usize, listener: &ListenerSettings) -> SubmissionRates {
        SubmissionRates {
            listener: self.listeners.get(number).cloned().flatten(),
            users: self.users.clone(),
            client_waits: listener.delivery == DeliveryMode::Direct,
        }
    }

    /// Records the exact usage.
    pub async fn close(&self) {
        for rate in self.listeners.iter().flatten().chain(self.users.values()) {
            if let Err(cause) = rate.close().await {
                error!("usage of a rate could not be recorded exactly: {cause}");
            }
        }
    }
}

struct RateStart {
    ledger: Arc<dyn QuotaStore>,
    longest: Duration,
    names: HashSet<String>,
    former: Vec<(SubmissionRateSettings, Arc<SubmissionRate>)>,
}

impl RateStart {
    async fn restore(
        &mut self,
        owner: RateOwner,
        typed: &SubmissionRateSettings,
    ) -> Result<Arc<SubmissionRate>, StartError> {
        let known = self.former.iter().position(|(_, rate)| *rate.owner() == owner);
        if let Some((settings, rate)) = known.map(|at| self.former.swap_remove(at)) {
            if settings == *typed {
                return Ok(rate);
            }
            rate.close().await.map_err(|cause| StartError::Rates { whose: owner.to_string(), cause })?;
        }
        let mut name = match &owner {
            RateOwner::Listener(address) => format!("listener:{address}"),
            RateOwner::User(name) => format!("user:{name}"),
        };
        // Several listeners may leave the choice of their port to the system.
        while !self.names.insert(name.clone()) {
            name.push('+');
        }
        let name: Arc<str> = name.into();
        let stored = StoredUsage { ledger: self.ledger.clone(), name: name.clone(), former: name };
        let whose = owner.to_string();
        let rate = SubmissionRate::new(owner, (&typed.rates, typed.over), self.longest, Some(stored));
        rate.restore().await.map_err(|cause| StartError::Rates { whose, cause })?;
        Ok(Arc::new(rate))
    }
}
