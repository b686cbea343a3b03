//! The resolved configuration: every default filled in, every file read, every reference checked.
//!
//! Any `Settings` value can be started. It holds each module's own options; what was typed is in `file.rs`.

use super::file::DeliveryMode;
use super::file_digests::FileDigests;
use super::problem::Problems;
use crate::admin::AdminOptions;
use crate::delivery::{Bounce, Choice, Profile, RouteConditions};
use crate::dkim::{Selector, SigningKey, Unsigned};
use crate::inbound;
use crate::inbound::users::Password;
use crate::intake::{Expectation, StormOptions};
use crate::message::SenderPatterns;
use crate::message::repair::Repairs;
use crate::message::rewrite::Rules;
use crate::message::trace::ReceivedDetail;
use crate::observe::{CheckId, log};
use crate::queue::redis::options::RedisOptions;
use crate::queue::schedule::Schedule;
use crate::rate::Rate;
use crate::relay;
use crate::relay::provider::{Preset, Signing};
use crate::smtp::{Domain, ReversePath};
use crate::tls::ServerCertificate;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
pub struct Settings {
    /// For the greeting and the Received field.
    pub hostname: String,
    /// `hostname`, or an address literal if it has no dot.
    pub ehlo_name: String,
    pub data_dir: PathBuf,
    pub unsigned: Unsigned,
    /// Octets of messages in flight, both sides together.
    pub max_memory: u64,
    pub drain: Duration,
    /// At least one.
    pub listeners: Vec<ListenerSettings>,
    pub users: Vec<UserSettings>,
    pub dkim: Vec<DkimSettings>,
    /// At least one.
    pub upstreams: Vec<UpstreamSettings>,
    /// In order, the first match is used; at least one. Mail that matches none cannot be sent.
    pub routes: Vec<RouteSettings>,
    pub repairs: Repairs,
    /// What the gateway's own Received field contains.
    pub received: ReceivedDetail,
    /// Carried out after the repairs.
    pub rules: Rules,
    /// `None`: equal mails are not held.
    pub storm: Option<StormOptions>,
    /// Mail that should come regularly; the names differ.
    pub expected: Vec<Expectation>,
    pub queue: QueueSettings,
    pub doctor: DoctorSettings,
    /// `None`: it is off.
    pub admin: Option<AdminSettings>,
    pub log: log::LogOptions,
    /// `None` if the environment alone configures the gateway.
    pub file: Option<PathBuf>,
    /// The files with certificates, keys and secrets that were read.
    pub files: FileDigests,
    /// Logged at every start.
    pub warnings: Problems,
}

impl Settings {
    pub fn queue_location(&self) -> QueueLocation {
        QueueLocation { data_dir: self.data_dir.clone(), backend: self.queue.backend.clone() }
    }

    /// Whether both have the same users with the same passwords.
    pub fn has_logins_of(&self, other: &Self) -> bool {
        let logins = |settings: &Self| -> Vec<_> {
            settings.users.iter().map(|user| (user.name.clone(), user.password.clone())).collect()
        };
        logins(self) == logins(other)
    }

    /// Keeps what counts only from a start on as it is in `running`, and names the keys that differ.
    pub fn keep_until_next_start(&mut self, running: &Self) -> Vec<&'static str> {
        let mut kept = Vec::new();
        let mut keep = |key, is_same: bool| {
            if !is_same {
                kept.push(key)
            }
        };
        keep("data_dir", self.data_dir == running.data_dir);
        keep("max_memory", self.max_memory == running.max_memory);
        keep("[queue] backend and [queue.redis]", self.queue.backend == running.queue.backend);
        keep("[queue] min_free_space", self.queue.min_free_space == running.queue.min_free_space);
        keep("[queue] retry and expire", self.queue.schedule == running.queue.schedule);
        keep("[log]", self.log == running.log);
        keep("[admin]", self.admin == running.admin);
        self.data_dir.clone_from(&running.data_dir);
        self.max_memory = running.max_memory;
        self.queue.backend = running.queue.backend.clone();
        self.queue.min_free_space = running.queue.min_free_space;
        self.queue.schedule = running.queue.schedule;
        self.log = running.log.clone();
        self.admin.clone_from(&running.admin);
        kept
    }

    /// Octets of memory that the largest message of any listener needs while it comes in, what rules need for it included.
    pub fn largest_message_needs(&self) -> u64 {
        let largest = self.listeners.iter().map(|listener| listener.options.max_message_size).max().unwrap_or_default();
        let for_rules = self.rules.largest_memory_needed(usize::try_from(largest).unwrap_or(usize::MAX)) as u64;
        largest.saturating_add(inbound::READ_OVERHEAD + for_rules)
    }

    /// What happens at intake to mail from a domain without a key. If nothing is signed here at all, no key is
    /// required.
    pub fn unsigned_at_intake(&self) -> Unsigned {
        let is_left = |upstream: &UpstreamSettings| upstream.profile.signing == Signing::LeftToProvider;
        if self.upstreams.iter().all(is_left) { Unsigned::Send } else { self.unsigned.clone() }
    }
}

#[derive(Debug, Clone)]
pub struct ListenerSettings {
    pub options: inbound::ListenerOptions,
    pub delivery: DeliveryMode,
    /// The permitted senders, in the envelope and in the From header.
    pub senders: SenderPatterns,
    pub rate: Option<SubmissionRateSettings>,
    /// What it shows to clients; `None` without TLS.
    pub certificate: Option<ServerCertificate>,
}

/// Where health and metrics are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSettings {
    pub options: AdminOptions,
    /// The address was typed: the gateway does not start without it.
    pub is_given: bool,
}

/// How much mail a listener's clients or a user may submit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmissionRateSettings {
    /// All of them are kept.
    pub rates: Vec<Rate>,
    pub over: inbound::OverRate,
}

impl ListenerSettings {
    pub(super) fn with_hostname(mut self, hostname: &str) -> Self {
        self.options.hostname = hostname.to_owned();
        self
    }
}

#[derive(Debug, Clone)]
pub struct UserSettings {
    pub name: Arc<str>,
    pub password: Password,
    /// `None`: as the listener allows.
    pub senders: Option<SenderPatterns>,
    pub rate: Option<SubmissionRateSettings>,
}

#[derive(Debug)]
pub struct DkimSettings {
    pub domain: Domain,
    pub selector: Selector,
    /// `None` if the key came in the environment.
    pub path: Option<PathBuf>,
    /// `None`: the file does not exist yet and will be created at start.
    pub key: Option<SigningKey>,
}

#[derive(Debug, Clone)]
pub struct UpstreamSettings {
    pub name: Arc<str>,
    /// What is known of its provider; the fields below hold the configuration's values.
    pub preset: &'static Preset,
    pub provider: Provider,
    pub limits: relay::ConnectionLimits,
    /// How a message is adapted before it is sent there.
    pub profile: Profile,
    /// All of them apply.
    pub rates: Vec<Rate>,
    /// The upstream whose limits also apply to this one; never one that itself shares.
    pub share_limits_with: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there are a handful of upstreams, each made once")]
pub enum Provider {
    Smtp {
        endpoint: relay::Endpoint,
        logins: UpstreamLogins,
    },
    /// The embedded provider; its endpoint is known once it runs.
    Sandbox,
}

impl Provider {
    /// The same login at the same host; without a login, the same server and the same client certificate.
    pub fn shares_an_account_with(&self, other: &Self) -> bool {
        let (Self::Smtp { endpoint, logins }, Self::Smtp { endpoint: other, logins: other_logins }) = (self, other)
        else {
            return false;
        };
        let has_login = |logins: &UpstreamLogins| logins.usernames().next().is_some();
        let is_same = if has_login(logins) || has_login(other_logins) {
            logins.usernames().any(|username| other_logins.usernames().any(|it| it == username))
        } else {
            endpoint.port == other.port && endpoint.client_certificate == other.client_certificate
        };
        is_same && endpoint.host.eq_ignore_ascii_case(&other.host)
    }
}

/// The gateway's logins at a provider.
#[derive(Debug, Clone)]
pub struct UpstreamLogins {
    /// For mail whose domain has no login of its own. `None` while there are others in `by_domain`: such mail waits.
    pub own: Option<relay::Credentials>,
    /// By domain in DNS spelling; each also serves its subdomains.
    pub by_domain: Vec<(String, relay::Credentials)>,
    /// Covers all logins, and the key from which a password is derived.
    pub redaction: Arc<crate::observe::Redaction>,
}

impl PartialEq for UpstreamLogins {
    fn eq(&self, other: &Self) -> bool {
        self.own == other.own && self.by_domain == other.by_domain
    }
}

impl UpstreamLogins {
    pub fn new(own: Option<relay::Credentials>, by_domain: Vec<(String, relay::Credentials)>) -> Self {
        let redaction = relay::redaction(own.iter().chain(by_domain.iter().map(|(_, login)| login))).into();
        Self { own, by_domain, redaction }
    }

    pub fn usernames(&self) -> impl Iterator<Item = &str> {
        let own = self.own.iter();
        own.chain(self.by_domain.iter().map(|(_, login)| login)).map(|login| login.username.as_str())
    }
}

#[derive(Debug, Clone)]
pub struct RouteSettings {
    pub name: Arc<str>,
    pub conditions: RouteConditions,
    /// Names.
    pub upstreams: Choice<Arc<str>>,
    pub retry_refused: bool,
}

/// How `waxseal doctor` looks, and whether the gateway itself looks at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoctorSettings {
    pub at_start: bool,
    /// `None`: the system's.
    pub dns: Option<SocketAddr>,
    /// Their results do not count.
    pub ignore: Vec<CheckId>,
}

/// The backend of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendSettings {
    /// A database in `data_dir`.
    Sqlite,
    /// Shared with other gateways.
    Redis(Box<RedisOptions>),
}

/// Where the queue is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueLocation {
    pub data_dir: PathBuf,
    pub backend: BackendSettings,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSettings {
    pub backend: BackendSettings,
    pub schedule: Schedule,
    pub keep_failed: Duration,
    pub keep_history: Duration,
    pub bounce: Bounce,
    /// The envelope's sender of bounces.
    pub bounce_sender: ReversePath,
    /// Octets.
    pub min_free_space: u64,
    /// `None`: every submitted message is sent.
    pub deduplicate: Option<Duration>,
}

impl UpstreamSettings {
    /// Whether connections to both are made and used in the same way.
    pub fn connects_like(&self, other: &Self) -> bool {
        let provider = match (&self.provider, &other.provider) {
            (Provider::Sandbox, Provider::Sandbox) => true,
            (Provider::Smtp { endpoint, logins }, Provider::Smtp { endpoint: other, logins: other_logins }) => {
                endpoint.is_same(other) && logins == other_logins
            }
            _ => false,
        };
        provider && self.name == other.name && self.limits == other.limits && self.preset.name == other.preset.name
    }

    /// The relay's options for `endpoint`, with one of `logins`.
    pub fn options(
        &self,
        endpoint: &relay::Endpoint,
        logins: &UpstreamLogins,
        credentials: Option<&relay::Credentials>,
        ehlo_name: &str,
    ) -> relay::UpstreamOptions {
        relay::UpstreamOptions {
            name: self.name.clone(),
            endpoint: endpoint.clone(),
            credentials: credentials.cloned(),
            redaction: logins.redaction.clone(),
            ehlo_name: ehlo_name.to_owned(),
            limits: self.limits.clone(),
            slow_down: self.preset.slow_down,
        }
    }
}
