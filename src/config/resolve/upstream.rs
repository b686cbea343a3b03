//! `[[upstream]]`: where a provider is, how it is verified, what it can take: what was typed, else what its preset knows.
//! There is no setting without TLS or without verification. RFC 8314 §7.3 (ports), RFC 9525 (names).

use super::Resolver;
use crate::config::file::UpstreamTable;
use crate::config::input::Typed;
use crate::config::problem::Place;
use crate::config::reader::Section;
use crate::config::self_loop::{is_local_address, is_own_listener, literal_addresses};
use crate::config::settings::{ConnectionLimits, Endpoint, Provider, UpstreamSettings};
use crate::config::value::Count;
use crate::delivery::Profile;
use crate::relay::provider::{self, Host, Preset, Signing};
use crate::relay::{self, Port, Rate, TlsMode};
use crate::smtp::Domain;
use crate::tls;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Ports of submission with TLS from the start. RFC 8314 §7.3; SES has a second one.
const IMPLICIT_PORTS: [u16; 2] = [465, 2465];
const STARTTLS_PORTS: [u16; 4] = [25, 587, 2525, 2587];

impl Resolver<'_> {
    /// `ehlo_name`: an address literal where the gateway has no full name.
    pub(super) fn upstreams(
        &mut self,
        typed: Vec<UpstreamTable>,
        listeners: &[SocketAddr],
        ehlo_name: Option<&str>,
    ) -> Vec<UpstreamSettings> {
        let shared = self.shared_limits(&typed);
        let mut taken = HashSet::new();
        let resolved = typed.iter().map(|upstream| {
            let name = self.unique(&mut taken, "[[upstream]]", &upstream.name);
            let preset = upstream.provider.value?.0;
            self.refuse_a_name_that_is_none(upstream, preset, ehlo_name);
            let provider = self.provider(upstream, preset, listeners);
            let connections = self.connections(upstream, preset);
            let profile = self.profile(upstream, preset);
            let rates = rates(upstream, preset);
            let name = name?;
            let share_limits_with = shared.get(&*name).cloned();
            let (provider, connections, rates, profile) = (provider?, connections?, rates?, profile?);
            Some(UpstreamSettings { name, preset, provider, connections, rates, profile, share_limits_with })
        });
        let resolved: Vec<_> = resolved.collect();
        self.warn_about_accounts_of_two(&typed, &resolved);
        resolved.into_iter().flatten().collect()
    }

    /// Each with its own limits, where the provider counts both together.
    fn warn_about_accounts_of_two(&mut self, typed: &[UpstreamTable], resolved: &[Option<UpstreamSettings>]) {
        let owners: Vec<_> = typed
            .iter()
            .zip(resolved)
            .filter_map(|(typed, upstream)| {
                let upstream = upstream.as_ref().filter(|upstream| upstream.share_limits_with.is_none())?;
                let Provider::Smtp(endpoint) = &upstream.provider else { return None };
                Some((typed, &upstream.name, endpoint))
            })
            .collect();
        for (at, (typed, _, endpoint)) in owners.iter().enumerate() {
            let earlier = owners.iter().take(at).find(|(_, _, other)| endpoint.shares_an_account_with(other));
            let Some((_, owner, _)) = earlier else { continue };
            let text = format!(
                "\"{owner}\" has the same host and login: each keeps to its own limits, and both together may go beyond the \
                 account's; what this one has used of its quotas is kept under its name, and a new name starts at 0"
            );
            let help = format!("share_limits_with = \"{owner}\" makes their limits one");
            self.findings.warning(&typed.name.place, text).help(help);
        }
    }

    fn provider(
        &mut self,
        typed: &UpstreamTable,
        preset: &'static Preset,
        listeners: &[SocketAddr],
    ) -> Option<Provider> {
        if preset.is_embedded() {
            self.warn_about_what_the_sandbox_ignores(typed);
            return Some(Provider::Sandbox);
        }
        self.endpoint(typed, preset, listeners).map(Provider::Smtp)
    }

    fn refuse_a_name_that_is_none(&mut self, typed: &UpstreamTable, preset: &Preset, ehlo_name: Option<&str>) {
        if preset.wants_real_ehlo_name && ehlo_name.is_some_and(|name| name.starts_with('[')) {
            self.findings
                .error(
                    &typed.provider.place,
                    format!("{} drops clients that do not give a fully qualified name in EHLO", preset.title),
                )
                .help("set `hostname` (or WAXSEAL_HOSTNAME) to a full name such as \"gateway.example.com\"");
        }
    }

    fn warn_about_what_the_sandbox_ignores(&mut self, typed: &UpstreamTable) {
        let ignored = [
            ("host", &typed.host.place, typed.host.given),
            ("port", &typed.port.place, typed.port.given),
            ("tls", &typed.tls.place, typed.tls.given),
            ("server_name", &typed.server_name.place, typed.server_name.given),
            ("ca", &typed.ca.place, typed.ca.given),
            ("username", &typed.username.place, typed.username.given),
            ("password", &typed.password.place, typed.password.given),
            ("region", &typed.region.place, typed.region.given),
            ("secret_key", &typed.secret_key.place, typed.secret_key.given),
            ("source_address", &typed.source_address.place, typed.source_address.given),
            ("tracking", &typed.tracking.place, typed.tracking.given),
        ];
        for (key, place, _) in ignored.into_iter().filter(|(_, _, given)| *given) {
            self.findings.warning(place, format!("`{key}` has no effect with provider = \"sandbox\""));
        }
        if let Some(login) = typed.credentials.first() {
            self.findings.warning(login.place(), "[[upstream.credentials]] has no effect with provider = \"sandbox\"");
        }
    }

    fn endpoint(
        &mut self,
        typed: &UpstreamTable,
        preset: &'static Preset,
        listeners: &[SocketAddr],
    ) -> Option<Endpoint> {
        let region = self.region(typed, preset);
        let host = region.and_then(|region| self.host(typed, preset, region));
        let ports = self.ports(typed, preset);
        if let (Some(host), Some((first, others))) = (&host, &ports) {
            let numbers = std::iter::once(first).chain(others).map(|port| port.number);
            self.refuse_own_listener(host, numbers, &typed.host.place, listeners);
        }
        let server_name = self.server_name(typed, host.as_deref());
        let tls_config = self.client_config(typed);
        let credentials = self.credentials(typed, preset);
        let logins = self.logins(typed, preset);
        if typed.source_address.given && typed.source_address.value.is_none() {
            return None;
        }
        let (first, fallback_ports) = ports?;
        let (credentials, logins) = (credentials?, logins?);
        let redaction = relay::redaction(credentials.iter().chain(logins.iter().map(|(_, login)| login)));
        Some(Endpoint {
            host: host?,
            port: first.number,
            tls: first.tls,
            fallback_ports,
            server_name: server_name?,
            tls_config: tls_config?,
            credentials,
            logins,
            redaction: redaction.into(),
            source_address: typed.source_address.value,
        })
    }

    /// The outer `None` after a problem.
    fn region<'t>(&mut self, typed: &'t UpstreamTable, preset: &Preset) -> Option<Option<&'t str>> {
        let place = &typed.region.place;
        let Some(regions) = preset.regions() else {
            if typed.region.given {
                let name = preset.name;
                self.findings
                    .error(place, format!("`region` means nothing with provider = \"{name}\""))
                    .help("take it out");
                return None;
            }
            return Some(None);
        };
        let region = match &typed.region.value {
            Some(region) => region.as_str(),
            None => return (!typed.region.given).then_some(None),
        };
        let is_label = !region.is_empty() && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if is_label && preset.host_in(Some(region)).is_some() {
            return Some(Some(region));
        }
        self.findings
            .error(place, format!("`region`: {} has no region \"{region}\"", preset.title))
            .help(format!("write region = \"...\", {regions}"));
        None
    }

    fn host(&mut self, typed: &UpstreamTable, preset: &Preset, region: Option<&str>) -> Option<String> {
        if !typed.host.given {
            let host = preset.host_in(region);
            if host.is_none() {
                let (key, example) = match preset.regions() {
                    None => ("host", "add `host = \"smtp.example.com\"`".to_owned()),
                    Some(regions) => ("region", format!("add `region = \"...\"`, {regions}: the one of the account")),
                };
                let name = preset.name;
                self.findings
                    .error(typed.place(), format!("[[upstream]] with provider = \"{name}\" needs `{key}`"))
                    .help(example);
            }
            return host;
        }
        let text = typed.host.value.as_deref()?;
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        self.warn_about_a_known_host(text, preset, &typed.host.place);
        if bare.parse::<IpAddr>().is_ok() || (text.is_ascii() && Domain::parse(text.trim_end_matches('.')).is_ok()) {
            return Some(bare.to_owned());
        }
        let problem =
            self.findings.error(&typed.host.place, format!("`host`: \"{text}\" is not a host name or an IP address"));
        let bare = text.rsplit(['/', '@']).find(|part| !part.is_empty()).unwrap_or_default();
        match bare.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => {
                problem.help(format!("write host = \"{host}\" and port = {port}"));
            }
            _ if bare != text => problem.help(format!("write host = \"{bare}\"")),
            _ if !text.is_ascii() => problem.help("write the name in its xn-- form"),
            _ => {}
        }
        None
    }

    fn warn_about_a_known_host(&mut self, host: &str, preset: &Preset, place: &Place) {
        let known = provider::at_host(host).filter(|_| matches!(preset.host, Host::Configured));
        if let Some(known) = known {
            self.findings
                .warning(place, format!("this is {}'s host, but nothing that is known of it is used", known.title))
                .help(format!(
                    "write provider = \"{}\": it knows the provider's limits, headers and replies",
                    known.name
                ));
        }
    }

    /// The first to try, and those after it.
    fn ports(&mut self, typed: &UpstreamTable, preset: &Preset) -> Option<(Port, Vec<Port>)> {
        if !typed.port.given {
            if typed.tls.given && typed.tls.value.is_none() {
                return None;
            }
            let mut ports = preset.ports.iter().filter(|port| typed.tls.value.is_none_or(|mode| mode == port.tls));
            let usual = || match typed.tls.value {
                Some(TlsMode::Implicit) => Port { number: IMPLICIT_PORTS[0], tls: TlsMode::Implicit },
                _ => Port { number: STARTTLS_PORTS[1], tls: TlsMode::StartTls },
            };
            return Some((ports.next().copied().unwrap_or_else(usual), ports.copied().collect()));
        }
        let number = typed.port.value.and_then(|port| u16::try_from(port.0).ok())?;
        let tls = self.tls_mode(typed, number)?;
        Some((Port { number, tls }, Vec::new()))
    }

    fn tls_mode(&mut self, typed: &UpstreamTable, port: u16) -> Option<TlsMode> {
        let mode = match typed.tls.value {
            Some(mode) => mode,
            None if typed.tls.given => return None,
            None if IMPLICIT_PORTS.contains(&port) => TlsMode::Implicit,
            None => TlsMode::StartTls,
        };
        let (unusual, usual) = match mode {
            TlsMode::StartTls => (IMPLICIT_PORTS.contains(&port), "TLS from the start: tls = \"implicit\""),
            TlsMode::Implicit => (STARTTLS_PORTS.contains(&port), "STARTTLS: tls = \"starttls\""),
        };
        if unusual {
            self.findings.warning(&typed.tls.place, format!("port {port} is usually for {usual}"));
        }
        Some(mode)
    }

    fn refuse_own_listener(
        &mut self,
        host: &str,
        ports: impl Iterator<Item = u16>,
        place: &Place,
        listeners: &[SocketAddr],
    ) {
        let addresses: Vec<_> = ports.flat_map(|port| literal_addresses(host, port)).collect();
        if let Some(own) = is_own_listener(&addresses, listeners, is_local_address) {
            self.findings
                .error(place, format!("{own} is the gateway's own listener: mail would loop"))
                .help("name the provider's host and port here; the gateway's own address is for the application");
        }
    }

    fn server_name(&mut self, typed: &UpstreamTable, host: Option<&str>) -> Option<ServerName<'static>> {
        let (name, place) = match &typed.server_name {
            Typed { value: Some(name), place, .. } => (name.as_str(), place),
            Typed { given: true, .. } => return None,
            Typed { .. } => (host?, &typed.host.place),
        };
        match ServerName::try_from(name.trim_end_matches('.').to_owned()) {
            Ok(name) => Some(name),
            Err(_) => {
                self.findings.error(place, format!("\"{name}\" is not a name that a certificate can have"));
                None
            }
        }
    }

    fn client_config(&mut self, typed: &UpstreamTable) -> Option<Arc<ClientConfig>> {
        let ca = match &typed.ca.value {
            Some(path) => self.certificates("ca", &self.path(path), &typed.ca.place)?,
            None if typed.ca.given => return None,
            None => Vec::new(),
        };
        match tls::client(&ca) {
            Ok(config) => Some(config),
            Err(error) if typed.ca.given => {
                self.findings.error(&typed.ca.place, format!("`ca` cannot be used: {error}"));
                None
            }
            Err(error) => {
                self.findings.error(typed.place(), format!("no TLS: {error}"));
                None
            }
        }
    }

    /// What was typed counts, also above what the provider says.
    fn connections(&mut self, typed: &UpstreamTable, preset: &Preset) -> Option<ConnectionLimits> {
        let limits = &preset.limits;
        let (at_once, each) = (&typed.max_connections, &typed.max_messages_per_connection);
        let at_once = self.within(at_once, limits.connections, "connections at once", preset);
        let each = self.within(each, limits.messages_per_connection, "messages for each connection", preset);
        Some(ConnectionLimits {
            max_connections: match limits.connections {
                Some(known) if !typed.max_connections.given => known,
                _ => at_once?,
            },
            max_messages_per_connection: match limits.messages_per_connection {
                Some(known) if !typed.max_messages_per_connection.given => known.min(each?),
                _ => each?,
            },
            connect_timeout: typed.connect_timeout.value?,
            command_timeout: typed.command_timeout.value?,
            data_timeout: typed.data_timeout.value?,
            idle_timeout: typed.idle_timeout.value?,
            connect_retries: u32::try_from(typed.connect_retries.value?.0).ok()?,
        })
    }

    fn profile(&mut self, typed: &UpstreamTable, preset: &Preset) -> Option<Profile> {
        let mut profile = Profile::of(preset);
        let recipients = self.within(&typed.max_recipients, preset.limits.recipients, "recipients at once", preset);
        profile.max_recipients = given(&typed.max_recipients, recipients, profile.max_recipients)?;
        let size = typed.max_message_size.value.as_ref().map(|size| size.0);
        profile.max_size = given(&typed.max_message_size, size, profile.max_size)?;
        profile.signing = match (given(&typed.sign, typed.sign.value, None)?, preset.signing) {
            (Some(false), _) => Signing::LeftToProvider,
            (Some(true), Signing::LeftToProvider) => Signing::OURS,
            (_, known) => known,
        };
        // Where the provider signs what it has rewritten, tracking breaks nothing.
        if typed.tracking.value? || profile.signing == Signing::LeftToProvider {
            profile.vocabulary.no_tracking = None;
        }
        Some(profile)
    }

    fn within(&mut self, typed: &Typed<Count>, known: Option<usize>, what: &str, preset: &Preset) -> Option<usize> {
        let value = typed.value?.as_usize();
        if let Some(known) = known.filter(|&known| typed.given && value > known) {
            self.findings.warning(&typed.place, format!("{} allows {known} {what}", preset.title));
        }
        Some(value)
    }

    /// For each upstream that shares another's limits, the one whose they are.
    fn shared_limits(&mut self, typed: &[UpstreamTable]) -> HashMap<String, Arc<str>> {
        let names: Vec<&str> = typed.iter().filter_map(|upstream| upstream.name.value.as_deref()).collect();
        let next: HashMap<&str, &str> = typed
            .iter()
            .filter_map(|upstream| {
                Some((upstream.name.value.as_deref()?, upstream.share_limits_with.value.as_deref()?))
            })
            .collect();
        let mut shared = HashMap::new();
        for upstream in typed {
            let typed_owner = &upstream.share_limits_with;
            let (Some(name), Some(owner)) = (upstream.name.value.as_deref(), typed_owner.value.as_deref()) else {
                continue;
            };
            if !names.contains(&owner) {
                self.unknown_upstream("share_limits_with", owner, typed_owner, &names);
                continue;
            }
            match last_of_chain(name, &next) {
                Some(root) => shared.insert(name.to_owned(), root.into()),
                None => {
                    self.findings
                        .error(&typed_owner.place, format!("`share_limits_with` leads from \"{name}\" back to itself"))
                        .help("leave it out for the upstream whose limits count");
                    continue;
                }
            };
            for (place, given) in [
                (&upstream.max_connections.place, upstream.max_connections.given),
                (&upstream.rate.place, upstream.rate.given),
            ] {
                if given {
                    let text = format!("it has no effect: the limits of \"{owner}\" count for both");
                    self.findings.warning(place, text);
                }
            }
        }
        shared
    }
}

/// What was typed, else what is known of the provider.
fn rates(typed: &UpstreamTable, preset: &Preset) -> Option<Vec<Rate>> {
    match &typed.rate.value {
        Some(rates) => Some(rates.0.clone()),
        None if typed.rate.given => None,
        None => Some(preset.limits.rates.iter().filter_map(|text| Rate::parse(text).ok()).collect()),
    }
}

/// `None` if the chain is a ring.
fn last_of_chain<'a>(start: &'a str, next: &HashMap<&'a str, &'a str>) -> Option<&'a str> {
    let mut at = start;
    for _ in 0..=next.len() {
        match next.get(at) {
            Some(owner) => at = owner,
            None => return Some(at),
        }
    }
    None
}

/// The provider signs what goes there, and the gateway does not.
pub(super) fn leaves_signing_to_provider(typed: &UpstreamTable) -> bool {
    let known = typed.provider.value.is_some_and(|provider| provider.0.signing == Signing::LeftToProvider);
    !typed.sign.value.unwrap_or(!known)
}

/// What was typed, else what is known. The outer `None` after a problem.
fn given<T, V>(typed: &Typed<T>, value: Option<V>, known: Option<V>) -> Option<Option<V>> {
    if typed.given { value.map(Some) } else { Some(known) }
}
