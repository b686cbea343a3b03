//! What only the running gateway knows, for metrics, health, `waxseal status` and `waxseal queue`. It keeps no part of the
//! gateway alive and changes nothing.

use super::generation::Generation;
use crate::config::{Provider, Settings, UpstreamSettings};
use crate::control::{CertificateStatus, DkimKeyStatus, LaneStatus, LiveStatus, LiveWatch};
use crate::delivery::{Delivery, LaneLimits, UpstreamStatus};
use crate::dkim::{DnsRecord, Keyring, SigningKey};
use crate::intake::SilenceWatch;
use crate::message::MemoryBudget;
use crate::observe::{Clock, fault};
use crate::queue::Backend;
use jiff::Timestamp;
use parking_lot::Mutex;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use tokio::sync::Notify;

/// The parts that a look at the gateway needs.
pub(super) struct LiveParts {
    pub queue: Weak<dyn Backend>,
    pub limits: LaneLimits,
    /// Of incoming messages, and of conversions.
    pub budgets: [MemoryBudget; 2],
    pub data_dir: PathBuf,
    pub disk_floor: u64,
    pub state: WatchedState,
}

/// What changes while the gateway runs. Clones share it.
#[derive(Clone, Default)]
pub(super) struct WatchedState {
    state: Arc<Mutex<Watched>>,
    /// Somebody should look again at what the DNS has.
    again: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Watched {
    listeners: Vec<String>,
    delivery: Weak<Delivery>,
    dkim: Vec<(DkimKeyStatus, DnsRecord)>,
    /// `None`: the system's server.
    dns: Option<SocketAddr>,
    certificates: Vec<CertificateStatus>,
    expected: SilenceWatch,
    refused: Option<String>,
}

impl WatchedState {
    /// At the start, and after each change of the configuration.
    pub fn follow(&self, generation: &Generation) {
        self.follow_keys(&generation.keyring);
        let mut watched = self.state.lock();
        watched.certificates = certificates(&generation.settings);
        watched.delivery = Arc::downgrade(&generation.plan.deliver);
        watched.expected = generation.expected.clone();
        watched.dns = generation.settings.doctor.dns;
    }

    /// An operator may have published what was missing.
    pub fn look_again(&self) {
        self.again.notify_one();
    }

    /// Returns when somebody asked for it since the last time.
    pub async fn asked_to_look_again(&self) {
        self.again.notified().await;
    }

    /// What is known of a key's record stays.
    pub fn follow_keys(&self, keyring: &Keyring) {
        let mut watched = self.state.lock();
        let known = std::mem::take(&mut watched.dkim);
        let key = |key: &Arc<SigningKey>| {
            let record = DnsRecord::of(key);
            let before = known.iter().find(|(_, it)| *it == record);
            let is_published = before.and_then(|(it, _)| it.is_published);
            let (domain, selector) = (key.domain().to_string(), key.selector().to_string());
            (DkimKeyStatus { domain, selector, is_published }, record)
        };
        watched.dkim = keyring.keys().map(key).collect();
    }

    pub fn keys(&self) -> Vec<DkimKeyStatus> {
        self.state.lock().dkim.iter().map(|(key, _)| key.clone()).collect()
    }

    /// With the DNS server that is to be asked.
    pub fn key_records(&self) -> (Option<SocketAddr>, Vec<DnsRecord>) {
        let watched = self.state.lock();
        (watched.dns, watched.dkim.iter().map(|(_, record)| record.clone()).collect())
    }

    /// `name`: of the record.
    pub fn set_published(&self, name: &str, is_published: bool) {
        for (key, _) in self.state.lock().dkim.iter_mut().filter(|(_, record)| record.name() == name) {
            key.is_published = Some(is_published);
        }
    }

    /// What became of the configuration that was last read.
    pub fn set_refused(&self, problems: &[String]) {
        self.state.lock().refused = problems.first().cloned();
    }

    /// The addresses that are open now; none once the gateway stops.
    pub fn set_listeners(&self, addresses: Vec<String>) {
        self.state.lock().listeners = addresses;
    }
}

impl fmt::Debug for WatchedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WatchedState").field(&*self.state.lock()).finish()
    }
}

impl LiveParts {
    pub fn into_watch(self) -> LiveWatch {
        let started_at = Clock::System.now();
        LiveWatch::new(move || self.look(started_at))
    }

    fn look(&self, started_at: Timestamp) -> LiveStatus {
        let now = Clock::System.now();
        let storage = match self.queue.upgrade() {
            Some(queue) => queue.admit(0).err().map(|error| error.to_string()),
            None => Some("the queue is closed".to_owned()),
        };
        let (delivery, listeners, certificates, expected, refused_configuration) = {
            let Watched { delivery, listeners, certificates, expected, refused, .. } = &*self.state.state.lock();
            (delivery.upgrade(), listeners.clone(), certificates.clone(), expected.clone(), refused.clone())
        };
        let delivery = delivery.map(|delivery| of_delivery(&delivery, &self.limits, now));
        let (upstreams, lanes) = delivery.unwrap_or_default();
        LiveStatus {
            started_at,
            listeners,
            storage,
            disk_free: free_octets(&self.data_dir),
            disk_floor: self.disk_floor,
            memory_used: self.budgets.iter().map(|budget| budget.total().saturating_sub(budget.available())).sum(),
            memory_total: self.budgets.iter().map(MemoryBudget::total).sum(),
            upstreams,
            lanes,
            dkim: self.state.keys(),
            certificates,
            expected: self.queue.upgrade().map(|queue| expected.statuses(queue.lived())).unwrap_or_default(),
            refused_configuration,
            faults: fault::panics(),
        }
    }
}

fn of_delivery(delivery: &Delivery, limits: &LaneLimits, now: Timestamp) -> (Vec<UpstreamStatus>, Vec<LaneStatus>) {
    let lanes = delivery.lane_states(limits, now).into_iter().map(|state| {
        let upstreams = delivery.upstreams_of(&state.lane);
        LaneStatus { state, upstreams }
    });
    (delivery.upstream_statuses(now), lanes.collect())
}

/// Space that an ordinary user may still write.
fn free_octets(folder: &Path) -> Option<u64> {
    rustix::fs::statvfs(folder).ok().map(|seen| seen.f_bavail.saturating_mul(seen.f_frsize))
}

/// The certificates that the gateway shows to clients and to providers.
fn certificates(settings: &Settings) -> Vec<CertificateStatus> {
    let status = |usage: &str, name: String, expires: Option<Timestamp>| {
        expires.map(|expires| CertificateStatus { usage: usage.to_owned(), name, expires })
    };
    let listeners = settings.listeners.iter().filter_map(|listener| {
        let expires = listener.certificate.as_ref().and_then(|it| Timestamp::from_second(it.not_after).ok());
        status("listener", listener.options.address.to_string(), expires)
    });
    let of_upstream = |upstream: &UpstreamSettings| match &upstream.provider {
        Provider::Smtp { endpoint, .. } => endpoint.client_certificate.as_ref().and_then(|it| it.expires),
        Provider::Sandbox => None,
    };
    let upstreams = settings.upstreams.iter().filter_map(|it| status("upstream", it.name.to_string(), of_upstream(it)));
    listeners.chain(upstreams).collect()
}
