//! `[[upstream]]`: a provider's address, its verification and its limits: what was typed, otherwise what the preset
//! knows. No setting turns off TLS or verification. RFC 8314 §7.3 (ports), RFC 9525 (names).

use super::Resolver;
use super::client_tls::{ClientTlsKeys, UpstreamTls};
use crate::config::file::UpstreamTable;
use crate::config::input::{Input, Reported, Resolved, Typed};
use crate::config::problem::Place;
use crate::config::reader::Section;
use crate::config::self_loop::{is_local_address, is_own_listener, literal_addresses};
use crate::config::settings::{Provider, UpstreamLogins, UpstreamSettings};
use crate::config::value::Count;
use crate::delivery::Profile;
use crate::rate::Rate;
use crate::relay::provider::{self, Host, Preset, Signing};
use crate::relay::{ConnectionLimits, Endpoint, Port, TlsMode};
use crate::smtp::Domain;
use rustls::pki_types::ServerName;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Ports of submission with TLS from the start. RFC 8314 §7.3; SES has a second one.
const IMPLICIT_PORTS: [u16; 2] = [465, 2465];
const STARTTLS_PORTS: [u16; 4] = [25, 587, 2525, 2587];

impl Resolver<'_> {
    /// `ehlo_name`: an address literal if the gateway has no full name.
    pub(super) fn upstreams(
        &mut self,
        typed: &[UpstreamTable],
        listeners: &[SocketAddr],
        ehlo_name: Option<&str>,
    ) -> Vec<UpstreamSettings> {
        let shared = self.shared_limits(typed);
        let mut taken = HashSet::new();
        let resolved: Vec<_> = typed
            .iter()
            .map(|upstream| {
                let name = self.unique(&mut taken, "[[upstream]]", &upstream.name);
                self.upstream(upstream, name, listeners, ehlo_name, &shared)
            })
            .collect();
        self.warn_about_accounts_of_two(typed, &resolved);
        resolved.into_iter().flatten().collect()
    }

    fn upstream(
        &mut self,
        typed: &UpstreamTable,
        name: Resolved<Arc<str>>,
        listeners: &[SocketAddr],
        ehlo_name: Option<&str>,
        shared: &HashMap<String, Arc<str>>,
    ) -> Resolved<UpstreamSettings> {
        let preset = typed.provider.get()?.0;
        self.refuse_a_name_that_is_none(typed, preset, ehlo_name);
        let provider = self.provider(typed, preset, listeners);
        let limits = self.connections(typed, preset);
        let profile = self.profile(typed, preset);
        let rates = rates(typed, preset);
        let name = name?;
        let share_limits_with = shared.get(&*name).cloned();
        Ok(UpstreamSettings {
            name,
            preset,
            provider: provider?,
            limits: limits?,
            rates: rates?,
            profile: profile?,
            share_limits_with,
        })
    }

    /// Two upstreams with their own limits, although the provider counts them together.
    fn warn_about_accounts_of_two(&mut self, typed: &[UpstreamTable], resolved: &[Resolved<UpstreamSettings>]) {
        let owners: Vec<_> = typed
            .iter()
            .zip(resolved)
            .filter_map(|(typed, upstream)| {
                let upstream = upstream.as_ref().ok().filter(|upstream| upstream.share_limits_with.is_none())?;
                Some((typed, &upstream.name, &upstream.provider))
            })
            .collect();
        for (at, (typed, _, provider)) in owners.iter().enumerate() {
            let earlier = owners.iter().take(at).find(|(_, _, other)| provider.shares_an_account_with(other));
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
    ) -> Resolved<Provider> {
        if preset.is_embedded() {
            self.warn_about_what_the_sandbox_ignores(typed);
            return Ok(Provider::Sandbox);
        }
        let endpoint = self.endpoint(typed, preset, listeners);
        let logins = self.upstream_logins(typed, preset);
        Ok(Provider::Smtp { endpoint: endpoint?, logins: logins? })
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
            ("host", &typed.host.place, typed.host.is_given()),
            ("port", &typed.port.place, typed.port.is_given()),
            ("tls", &typed.tls.place, typed.tls.is_given()),
            ("server_name", &typed.server_name.place, typed.server_name.is_given()),
            ("ca", &typed.ca.place, typed.ca.is_given()),
            ("certificate", &typed.certificate.place, typed.certificate.is_given()),
            ("private_key", &typed.private_key.place, typed.private_key.is_given()),
            ("username", &typed.username.place, typed.username.is_given()),
            ("password", &typed.password.place, typed.password.is_given()),
            ("region", &typed.region.place, typed.region.is_given()),
            ("secret_key", &typed.secret_key.place, typed.secret_key.is_given()),
            ("source_address", &typed.source_address.place, typed.source_address.is_given()),
            ("tracking", &typed.tracking.place, typed.tracking.is_given()),
        ];
        for (key, place, _) in ignored.into_iter().filter(|(_, _, is_given)| *is_given) {
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
    ) -> Resolved<Endpoint> {
        let host = self.region(typed, preset).and_then(|region| self.host(typed, preset, region));
        let ports = self.ports(typed, preset);
        if let (Ok(host), Ok((first, others))) = (&host, &ports) {
            let numbers = std::iter::once(first).chain(others).map(|port| port.number);
            self.refuse_own_listener(host, numbers, &typed.host.place, listeners);
        }
        let server_name = self.server_name(typed, host.as_deref().ok());
        let tls = self.client_tls(&ClientTlsKeys {
            place: typed.place(),
            ca: &typed.ca,
            certificate: &typed.certificate,
            private_key: &typed.private_key,
        });
        let (first, fallback_ports) = ports?;
        let UpstreamTls { ca, config: tls_config, certificate: client_certificate } = tls?;
        Ok(Endpoint {
            host: host?,
            port: first.number,
            tls: first.tls,
            fallback_ports,
            server_name: server_name?,
            ca,
            tls_config,
            client_certificate,
            source_address: typed.source_address.optional()?,
        })
    }

    fn upstream_logins(&mut self, typed: &UpstreamTable, preset: &'static Preset) -> Resolved<UpstreamLogins> {
        let own = self.credentials(typed, preset);
        let by_domain = self.logins(typed, preset);
        Ok(UpstreamLogins::new(own?, by_domain?))
    }

    /// `None` for the provider's default, and if it has no regions.
    fn region<'t>(&mut self, typed: &'t UpstreamTable, preset: &Preset) -> Resolved<Option<&'t str>> {
        let place = &typed.region.place;
        let Some(regions) = preset.regions() else {
            if typed.region.is_given() {
                let name = preset.name;
                self.findings
                    .error(place, format!("`region` means nothing with provider = \"{name}\""))
                    .help("take it out");
                return Err(Reported);
            }
            return Ok(None);
        };
        let region = match &typed.region.input {
            Input::Default(region) | Input::Given(region) => region.as_str(),
            Input::Absent => return Ok(None),
            Input::Invalid => return Err(Reported),
        };
        let is_label = !region.is_empty() && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if is_label && preset.host_in(Some(region)).is_some() {
            return Ok(Some(region));
        }
        self.findings
            .error(place, format!("`region`: {} has no region \"{region}\"", preset.title))
            .help(format!("write region = \"...\", {regions}"));
        Err(Reported)
    }

    fn host(&mut self, typed: &UpstreamTable, preset: &Preset, region: Option<&str>) -> Resolved<String> {
        if !typed.host.is_given() {
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
            return host.ok_or(Reported);
        }
        let text = typed.host.value().ok_or(Reported)?;
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        self.warn_about_a_known_host(text, preset, &typed.host.place);
        if bare.parse::<IpAddr>().is_ok() || (text.is_ascii() && Domain::parse(text.trim_end_matches('.')).is_ok()) {
            return Ok(bare.to_owned());
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
        Err(Reported)
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

    /// The first port to try, and those after it.
    fn ports(&mut self, typed: &UpstreamTable, preset: &Preset) -> Resolved<(Port, Vec<Port>)> {
        if !typed.port.is_given() {
            let mode = typed.tls.optional()?;
            let mut ports = preset.ports.iter().filter(|port| mode.is_none_or(|mode| mode == port.tls));
            let usual = || match mode {
                Some(TlsMode::Implicit) => Port { number: IMPLICIT_PORTS[0], tls: TlsMode::Implicit },
                _ => Port { number: STARTTLS_PORTS[1], tls: TlsMode::StartTls },
            };
            return Ok((ports.next().copied().unwrap_or_else(usual), ports.copied().collect()));
        }
        let number = u16::try_from(typed.port.get()?.0).map_err(|_| Reported)?;
        let tls = self.tls_mode(typed, number)?;
        Ok((Port { number, tls }, Vec::new()))
    }

    fn tls_mode(&mut self, typed: &UpstreamTable, port: u16) -> Resolved<TlsMode> {
        let mode = match typed.tls.optional()? {
            Some(mode) => mode,
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
        Ok(mode)
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

    fn server_name(&mut self, typed: &UpstreamTable, host: Option<&str>) -> Resolved<ServerName<'static>> {
        let (name, place) = match &typed.server_name.input {
            Input::Default(name) | Input::Given(name) => (name.as_str(), &typed.server_name.place),
            Input::Absent => (host.ok_or(Reported)?, &typed.host.place),
            Input::Invalid => return Err(Reported),
        };
        match ServerName::try_from(name.trim_end_matches('.').to_owned()) {
            Ok(name) => Ok(name),
            Err(_) => {
                self.findings.error(place, format!("\"{name}\" is not a name that a certificate can have"));
                Err(Reported)
            }
        }
    }

    /// The typed value applies, even if it exceeds the provider's.
    fn connections(&mut self, typed: &UpstreamTable, preset: &Preset) -> Resolved<ConnectionLimits> {
        let limits = &preset.limits;
        let at_once = &typed.max_connections;
        let each = &typed.max_messages_per_connection;
        let at_once = self.within(at_once, limits.connections, "connections at once", preset);
        let each = self.within(each, limits.messages_per_connection, "messages for each connection", preset);
        Ok(ConnectionLimits {
            max_connections: match limits.connections {
                Some(known) if !typed.max_connections.is_given() => known,
                _ => at_once?,
            },
            max_messages_per_connection: match limits.messages_per_connection {
                Some(known) if !typed.max_messages_per_connection.is_given() => known.min(each?),
                _ => each?,
            },
            connect_timeout: typed.connect_timeout.get()?,
            command_timeout: typed.command_timeout.get()?,
            data_timeout: typed.data_timeout.get()?,
            idle_timeout: typed.idle_timeout.get()?,
            connect_retries: u32::try_from(typed.connect_retries.get()?.0).map_err(|_| Reported)?,
        })
    }

    fn profile(&mut self, typed: &UpstreamTable, preset: &Preset) -> Resolved<Profile> {
        let mut profile = Profile::of(preset);
        if typed.max_recipients.is_given() {
            let recipients = self.within(&typed.max_recipients, preset.limits.recipients, "recipients at once", preset);
            profile.max_recipients = Some(recipients?);
        }
        profile.max_size = typed.max_message_size.optional()?.map(|size| size.0).or(profile.max_size);
        profile.signing = match (typed.sign.optional()?, preset.signing) {
            (Some(false), _) => Signing::LeftToProvider,
            (Some(true), Signing::LeftToProvider) => Signing::OURS,
            (_, known) => known,
        };
        // If the provider signs after rewriting, tracking breaks nothing.
        if typed.tracking.get()? || profile.signing == Signing::LeftToProvider {
            profile.vocabulary.no_tracking = None;
        }
        Ok(profile)
    }

    fn within(&mut self, typed: &Typed<Count>, known: Option<usize>, what: &str, preset: &Preset) -> Resolved<usize> {
        let value = typed.get()?.as_usize();
        if let Some(known) = known.filter(|&known| typed.is_given() && value > known) {
            self.findings.warning(&typed.place, format!("{} allows {known} {what}", preset.title));
        }
        Ok(value)
    }

    /// For each upstream that shares another's limits, the one that owns them.
    fn shared_limits(&mut self, typed: &[UpstreamTable]) -> HashMap<String, Arc<str>> {
        let names: Vec<&str> = typed.iter().filter_map(|upstream| upstream.name.value().map(String::as_str)).collect();
        let next: HashMap<&str, &str> = typed
            .iter()
            .filter_map(|upstream| {
                Some((upstream.name.value()?.as_str(), upstream.share_limits_with.value()?.as_str()))
            })
            .collect();
        let mut shared = HashMap::new();
        for upstream in typed {
            let typed_owner = &upstream.share_limits_with;
            let (Some(name), Some(owner)) = (upstream.name.value(), typed_owner.value()) else {
                continue;
            };
            if !names.contains(&owner.as_str()) {
                self.unknown_upstream("share_limits_with", owner, typed_owner, &names);
                continue;
            }
            match last_of_chain(name, &next) {
                Some(root) => shared.insert(name.clone(), root.into()),
                None => {
                    self.findings
                        .error(&typed_owner.place, format!("`share_limits_with` leads from \"{name}\" back to itself"))
                        .help("leave it out for the upstream whose limits count");
                    continue;
                }
            };
            for (place, given) in [
                (&upstream.max_connections.place, upstream.max_connections.is_given()),
                (&upstream.rate.place, upstream.rate.is_given()),
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

/// The typed rates, otherwise those known for the provider.
fn rates(typed: &UpstreamTable, preset: &Preset) -> Resolved<Vec<Rate>> {
    let known = || preset.limits.rates.iter().filter_map(|text| Rate::parse(text).ok()).collect();
    Ok(typed.rate.optional()?.map_or_else(known, |rates| rates.0))
}

/// `None` if the chain is a circle.
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

/// The provider signs mail for this upstream, and the gateway does not.
pub(super) fn leaves_signing_to_provider(typed: &UpstreamTable) -> bool {
    let known = typed.provider.value().is_some_and(|provider| provider.0.signing == Signing::LeftToProvider);
    !typed.sign.value().copied().unwrap_or(!known)
}
