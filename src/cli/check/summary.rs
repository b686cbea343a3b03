//! The configuration that would run, as one line for each thing or as JSON. Both print the same values and no secrets.

use super::line;
use super::queue::{QueuePlaceSummary, QueueSummary};
use crate::config::{
    DeliveryMode, DkimSettings, ListenerSettings, Located, Provider, RouteSettings, Settings, UpstreamSettings,
};
use crate::delivery::Choice;
use crate::dkim::Unsigned;
use crate::inbound::{AuthMode, Tls};
use crate::message::text_pattern::TextPattern;
use crate::rate::{Counts, Rate};
use crate::relay::TlsMode;
use crate::relay::provider::Signing;
use serde::Serialize;
use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, Serialize)]
pub(super) struct ConfigSummary {
    /// `None`: only the environment.
    file: Option<PathBuf>,
    hostname: String,
    data_dir: PathBuf,
    listeners: Vec<ListenerSummary>,
    users: Vec<String>,
    keys: Vec<KeySummary>,
    unsigned: UnsignedSummary,
    upstreams: Vec<UpstreamSummary>,
    routes: Vec<RouteSummary>,
    repairs_turned_off: Vec<&'static str>,
    rules: Vec<String>,
    queue: QueueSummary,
    queue_backend: QueuePlaceSummary,
    warnings: Vec<ProblemSummary>,
}

impl ConfigSummary {
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            file: settings.file.clone(),
            hostname: settings.hostname.clone(),
            data_dir: settings.data_dir.clone(),
            listeners: settings.listeners.iter().map(ListenerSummary::of).collect(),
            users: settings.users.iter().map(|user| user.name.to_string()).collect(),
            keys: settings.dkim.iter().map(KeySummary::of).collect(),
            unsigned: UnsignedSummary::of(&settings.unsigned),
            upstreams: settings.upstreams.iter().map(UpstreamSummary::of).collect(),
            routes: settings.routes.iter().map(RouteSummary::of).collect(),
            repairs_turned_off: settings.repairs.turned_off(),
            rules: settings.rules.0.iter().map(|rule| rule.name.to_string()).collect(),
            queue: QueueSummary::of(&settings.queue),
            queue_backend: QueuePlaceSummary::of(&settings.queue.backend),
            warnings: ProblemSummary::all(settings.warnings.iter()),
        }
    }
}

impl Display for ConfigSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match &self.file {
            Some(path) => path.display().to_string(),
            None => "the environment, without a file".to_owned(),
        };
        let mut lines = vec![
            line("configuration", format_args!("{source}: no mistakes")),
            line("gateway", format_args!("{}; data in {}", self.hostname, self.data_dir.display())),
        ];
        lines.extend(self.listeners.iter().map(|listener| line("listener", listener)));
        lines.extend(self.users.iter().map(|user| line("user", user)));
        lines.extend(self.keys.iter().map(|key| line("key", key)));
        lines.push(line("other domains", &self.unsigned));
        lines.extend(self.upstreams.iter().map(|upstream| line("upstream", upstream)));
        lines.extend(self.routes.iter().map(|route| line("route", route)));
        lines.push(match self.repairs_turned_off.as_slice() {
            [] => line("repair", "every step"),
            some => line("repair", format_args!("every step but {}", some.join(", "))),
        });
        if !self.rules.is_empty() {
            lines.push(line("rewrite", self.rules.join(", then ")));
        }
        lines.push(line("queue", &self.queue));
        lines.push(line("stored in", &self.queue_backend));
        lines.push(line("warnings", self.warnings.len()));
        f.write_str(&lines.join("\n"))
    }
}

#[derive(Debug, Serialize)]
struct ListenerSummary {
    address: SocketAddr,
    delivery: &'static str,
    tls: &'static str,
    auth: &'static str,
    allow: Vec<String>,
    proxy_protocol: Vec<String>,
    senders: Vec<String>,
}

impl ListenerSummary {
    fn of(listener: &ListenerSettings) -> Self {
        let options = &listener.options;
        Self {
            address: options.address,
            delivery: match listener.delivery {
                DeliveryMode::Queue => "queue",
                DeliveryMode::Direct => "direct",
            },
            tls: match options.tls {
                Tls::Off => "off",
                Tls::StartTls(_) => "starttls",
                Tls::Implicit(_) => "implicit",
            },
            auth: match options.auth {
                AuthMode::Off => "off",
                AuthMode::Optional => "optional",
                AuthMode::Required => "required",
            },
            allow: texts(&options.allow),
            proxy_protocol: texts(&options.proxy_protocol),
            senders: texts(listener.senders.iter()),
        }
    }
}

impl Display for ListenerSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks = self.allow.join(", ");
        let clients = match self.auth {
            "required" => "with a login".to_owned(),
            "optional" => format!("from {networks} or with a login"),
            _ => format!("from {networks}"),
        };
        let Self { address, delivery, tls, senders, .. } = self;
        let senders = senders.join(", ");
        write!(f, "{address}, delivery {delivery}, tls {tls}; clients {clients}; senders {senders}")?;
        match self.proxy_protocol.as_slice() {
            [] => Ok(()),
            networks => write!(f, "; load balancers in {}, with the PROXY protocol", networks.join(", ")),
        }
    }
}

#[derive(Debug, Serialize)]
struct KeySummary {
    domain: String,
    selector: String,
    /// `None`: it came from the environment.
    file: Option<PathBuf>,
    /// If not, it is created at start.
    exists: bool,
}

impl KeySummary {
    fn of(key: &DkimSettings) -> Self {
        Self {
            domain: key.domain.to_string(),
            selector: key.selector.to_string(),
            file: key.path.clone(),
            exists: key.key.is_some(),
        }
    }
}

impl Display for KeySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = self.file.as_ref().map_or("the environment".to_owned(), |path| path.display().to_string());
        let state = if self.exists { "" } else { ", to be made at start" };
        write!(f, "{}._domainkey.{} from {origin}{state}", self.selector, self.domain)
    }
}

/// As in the configuration.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum UnsignedSummary {
    All(&'static str),
    Domains(Vec<String>),
}

impl UnsignedSummary {
    fn of(unsigned: &Unsigned) -> Self {
        match unsigned {
            Unsigned::Refuse => Self::All("refuse"),
            Unsigned::Send => Self::All("send"),
            Unsigned::Domains(domains) => Self::Domains(domains.iter().map(ToString::to_string).collect()),
        }
    }
}

impl Display for UnsignedSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All("send") => f.write_str("mail is sent unsigned"),
            Self::All(_) => f.write_str("mail is refused"),
            Self::Domains(domains) => {
                write!(f, "mail is refused, except that of {}, which is sent unsigned", domains.join(", "))
            }
        }
    }
}

#[derive(Debug, Serialize)]
struct UpstreamSummary {
    name: String,
    provider: &'static str,
    #[serde(skip)]
    title: &'static str,
    max_connections: usize,
    rates: Vec<String>,
    share_limits_with: Option<String>,
    /// Whether the gateway signs mail for this upstream.
    sign: bool,
    /// `None` for the sandbox.
    #[serde(flatten)]
    server: Option<ServerSummary>,
}

#[derive(Debug, Serialize)]
struct ServerSummary {
    host: String,
    port: u16,
    fallback_ports: Vec<u16>,
    tls: &'static str,
    username: Option<String>,
    logins: Vec<LoginSummary>,
    client_certificate: Option<CertificateSummary>,
}

#[derive(Debug, Serialize)]
struct CertificateSummary {
    subject: String,
    sha256: String,
}

#[derive(Debug, Serialize)]
struct LoginSummary {
    domain: String,
    username: String,
}

impl UpstreamSummary {
    fn of(upstream: &UpstreamSettings) -> Self {
        let described = |rate: &Rate| match upstream.preset.limits.counting.of(*rate) {
            Counts::Messages => rate.to_string(),
            Counts::Recipients => format!("{rate} (recipients)"),
        };
        Self {
            name: upstream.name.to_string(),
            provider: upstream.preset.name,
            title: upstream.preset.title,
            max_connections: upstream.limits.max_connections,
            rates: upstream.rates.iter().map(described).collect(),
            share_limits_with: upstream.share_limits_with.as_ref().map(ToString::to_string),
            sign: upstream.profile.signing != Signing::LeftToProvider,
            server: ServerSummary::of(&upstream.provider),
        }
    }

    fn limits(&self) -> String {
        match &self.share_limits_with {
            Some(owner) => format!("within the limits of {owner}"),
            None => {
                let rates: String = self.rates.iter().map(|rate| format!(", {rate}")).collect();
                format!("at most {} connections{rates}", self.max_connections)
            }
        }
    }
}

impl ServerSummary {
    fn of(provider: &Provider) -> Option<Self> {
        let Provider::Smtp { endpoint, logins } = provider else { return None };
        let login = |(domain, login): &(String, crate::relay::Credentials)| LoginSummary {
            domain: domain.clone(),
            username: login.shown_username().to_owned(),
        };
        Some(Self {
            host: endpoint.host.clone(),
            port: endpoint.port,
            fallback_ports: endpoint.fallback_ports.iter().map(|port| port.number).collect(),
            tls: match endpoint.tls {
                TlsMode::StartTls => "starttls",
                TlsMode::Implicit => "implicit",
            },
            username: logins.own.as_ref().map(|login| login.shown_username().to_owned()),
            logins: logins.by_domain.iter().map(login).collect(),
            client_certificate: endpoint.client_certificate.as_ref().map(|certificate| CertificateSummary {
                subject: certificate.subject.clone(),
                sha256: certificate.fingerprint.clone(),
            }),
        })
    }

    fn logins(&self) -> String {
        let by_domain = self.logins.iter().map(|login| format!("login {} for {}", login.username, login.domain));
        let mut logins: Vec<String> = by_domain.collect();
        match &self.username {
            Some(username) => logins.push(format!("login {username}")),
            None if logins.is_empty() => logins.push("no login".to_owned()),
            None => logins.push("other mail waits".to_owned()),
        }
        if let Some(CertificateSummary { subject, sha256 }) = &self.client_certificate {
            logins.push(format!("client certificate {subject} (SHA-256 {sha256})"));
        }
        logins.join(", ")
    }
}

impl Display for UpstreamSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        let title = self.title;
        let Some(server) = &self.server else {
            return write!(f, "{name}: the sandbox, which keeps mail and does NOT send it");
        };
        let ServerSummary { host, port, tls, .. } = server;
        let others: String = server.fallback_ports.iter().map(|port| format!(" or {port}")).collect();
        let logins = server.logins();
        let limits = self.limits();
        let signing = if self.sign { "" } else { ", the provider signs, waxseal does not" };
        write!(f, "{name}: {title}, {host} port {port}{others}, tls {tls}, {logins}, {limits}{signing}")
    }
}

#[derive(Debug, Serialize)]
struct RouteSummary {
    name: String,
    /// All conditions, in words.
    conditions: String,
    senders: Vec<String>,
    recipients: Vec<String>,
    headers: Vec<HeaderSummary>,
    users: Vec<String>,
    tags: Vec<String>,
    upstreams: Vec<String>,
    /// One per upstream; `None` if they are tried in order.
    weights: Option<Vec<u32>>,
    retry_refused: bool,
}

#[derive(Debug, Serialize)]
struct HeaderSummary {
    name: String,
    value: String,
}

impl RouteSummary {
    fn of(route: &RouteSettings) -> Self {
        let conditions = &route.conditions;
        let patterns = |patterns: &[TextPattern]| texts(patterns.iter());
        let headers = conditions.headers.iter();
        Self {
            name: route.name.to_string(),
            conditions: conditions.to_string(),
            senders: texts(conditions.senders.iter()),
            recipients: texts(conditions.recipients.iter()),
            headers: headers.map(|it| HeaderSummary { name: it.name.clone(), value: it.value.to_string() }).collect(),
            users: patterns(&conditions.users),
            tags: patterns(&conditions.tags),
            upstreams: texts(route.upstreams.upstreams()),
            weights: match &route.upstreams {
                Choice::InOrder(_) => None,
                Choice::ByWeight(weights) => Some(weights.iter().map(|(_, weight)| *weight).collect()),
            },
            retry_refused: route.retry_refused,
        }
    }
}

impl Display for RouteSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let upstreams = match &self.weights {
            None => self.upstreams.join(", then "),
            Some(weights) => {
                let each = self.upstreams.iter().zip(weights).map(|(name, weight)| format!("{name} ({weight})"));
                format!("{} by weight", each.collect::<Vec<_>>().join(", "))
            }
        };
        let refused = if self.retry_refused { "; what one refuses is offered to the next" } else { "" };
        write!(f, "{}: {} through {upstreams}{refused}", self.name, self.conditions)
    }
}

/// A problem or a warning.
#[derive(Debug, Serialize)]
pub(super) struct ProblemSummary {
    place: String,
    line: Option<usize>,
    column: Option<usize>,
    message: String,
    help: Option<String>,
}

impl ProblemSummary {
    pub(super) fn all<'a>(problems: impl Iterator<Item = Located<'a>>) -> Vec<Self> {
        let of = |problem: Located<'_>| {
            let (line, column) = problem.position().unzip();
            let message = problem.message().to_owned();
            let help = problem.help().map(str::to_owned);
            Self { place: problem.place(), line, column, message, help }
        };
        problems.map(of).collect()
    }
}

fn texts(items: impl IntoIterator<Item = impl Display>) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}
