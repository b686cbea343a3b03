//! `[[upstream]]`: where a provider is, how it is verified, with what login; and which presets are still to come.
//! There is no setting without TLS or without verification. RFC 8314 §7.3 (ports), RFC 9525 (names).

use super::Resolver;
use crate::config::file::{ProviderName, Upstream};
use crate::config::later::Preset;
use crate::config::own::{is_local_address, is_own_listener, literal_addresses};
use crate::config::problem::Place;
use crate::config::schema::{Section, Typed};
use crate::config::secret::SecretSource;
use crate::config::settings::{Connections, Endpoint, Provider, UpstreamSettings};
use crate::relay::{Credentials, TlsMode};
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
    pub(super) fn upstreams(&mut self, typed: Vec<Upstream>, listeners: &[SocketAddr]) -> Vec<UpstreamSettings> {
        let shared = self.shared_limits(&typed);
        let mut taken = HashSet::new();
        let resolved = typed.iter().map(|upstream| {
            let name = self.unique(&mut taken, "[[upstream]]", &upstream.name);
            let provider = self.provider(upstream, listeners);
            let connections = connections(upstream);
            let name = name?;
            let share_limits_with = shared.get(&*name).cloned();
            Some(UpstreamSettings { name, provider: provider?, connections: connections?, share_limits_with })
        });
        resolved.collect::<Vec<_>>().into_iter().flatten().collect()
    }

    fn provider(&mut self, typed: &Upstream, listeners: &[SocketAddr]) -> Option<Provider> {
        match typed.provider.value? {
            ProviderName::Smtp => self.endpoint(typed, listeners).map(Provider::Smtp),
            ProviderName::Sandbox => {
                self.warn_about_what_the_sandbox_ignores(typed);
                Some(Provider::Sandbox)
            }
            ProviderName::Preset(preset) => {
                self.refuse_preset(preset, &typed.provider.place);
                None
            }
        }
    }

    fn refuse_preset(&mut self, Preset { name, host, login }: &Preset, place: &Place) {
        self.findings
            .error(place, format!("the preset \"{name}\" is not in this version yet"))
            .help(format!("use provider = \"smtp\", host = \"{host}\", port = 587; login: {login}"));
    }

    fn warn_about_what_the_sandbox_ignores(&mut self, typed: &Upstream) {
        let ignored = [
            ("host", &typed.host.place, typed.host.given),
            ("port", &typed.port.place, typed.port.given),
            ("tls", &typed.tls.place, typed.tls.given),
            ("server_name", &typed.server_name.place, typed.server_name.given),
            ("ca", &typed.ca.place, typed.ca.given),
            ("username", &typed.username.place, typed.username.given),
            ("password", &typed.password.place, typed.password.given),
            ("source_address", &typed.source_address.place, typed.source_address.given),
        ];
        for (key, place, _) in ignored.into_iter().filter(|(_, _, given)| *given) {
            self.findings.warning(place, format!("`{key}` has no effect with provider = \"sandbox\""));
        }
    }

    fn endpoint(&mut self, typed: &Upstream, listeners: &[SocketAddr]) -> Option<Endpoint> {
        let host = self.host(typed);
        let tls = self.tls_mode(typed);
        let port = port(typed);
        if let (Some(host), Some(port)) = (&host, port) {
            self.refuse_own_listener(host, port, &typed.host.place, listeners);
        }
        let server_name = self.server_name(typed, host.as_deref());
        let tls_config = self.client_config(typed);
        let credentials = self.credentials(typed);
        if typed.source_address.given && typed.source_address.value.is_none() {
            return None;
        }
        Some(Endpoint {
            host: host?,
            port: port?,
            tls: tls?,
            server_name: server_name?,
            tls_config: tls_config?,
            credentials: credentials?,
            source_address: typed.source_address.value,
        })
    }

    fn host(&mut self, typed: &Upstream) -> Option<String> {
        if !typed.host.given {
            self.findings
                .error(typed.place(), "[[upstream]] with provider = \"smtp\" needs `host`")
                .help("add `host = \"smtp.example.com\"`");
        }
        let text = typed.host.value.as_deref()?;
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if bare.parse::<IpAddr>().is_ok() || (text.is_ascii() && Domain::parse(text.trim_end_matches('.')).is_ok()) {
            return Some(bare.to_owned());
        }
        let text = without_login(text);
        let problem =
            self.findings.error(&typed.host.place, format!("`host`: \"{text}\" is no host name or IP address"));
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

    fn tls_mode(&mut self, typed: &Upstream) -> Option<TlsMode> {
        let port = port(typed)?;
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

    fn refuse_own_listener(&mut self, host: &str, port: u16, place: &Place, listeners: &[SocketAddr]) {
        let addresses = literal_addresses(host, port);
        if let Some(own) = is_own_listener(&addresses, listeners, is_local_address) {
            self.findings
                .error(place, format!("{own} is the gateway's own listener: mail would go round in circles"))
                .help("name the provider's host and port here; the gateway's own address is for the application");
        }
    }

    fn server_name(&mut self, typed: &Upstream, host: Option<&str>) -> Option<ServerName<'static>> {
        let (name, place) = match &typed.server_name {
            Typed { value: Some(name), place, .. } => (name.as_str(), place),
            Typed { given: true, .. } => return None,
            Typed { .. } => (host?, &typed.host.place),
        };
        match ServerName::try_from(name.trim_end_matches('.').to_owned()) {
            Ok(name) => Some(name),
            Err(_) => {
                self.findings
                    .error(place, format!("\"{}\" is no name that a certificate could have", without_login(name)));
                None
            }
        }
    }

    fn client_config(&mut self, typed: &Upstream) -> Option<Arc<ClientConfig>> {
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

    /// The outer `None` after a problem.
    fn credentials(&mut self, typed: &Upstream) -> Option<Option<Credentials>> {
        let lonely = match (typed.username.given, typed.password.given) {
            (false, false) => return Some(None),
            (true, true) => None,
            (true, false) => Some((&typed.username.place, "password")),
            (false, true) => Some((&typed.password.place, "username")),
        };
        if let Some((place, missing)) = lonely {
            self.findings.error(place, format!("a login needs `{missing}` too")).help("give both, or neither");
        }
        let password = typed.password.value.as_ref()?.resolve(self.base, self.environment);
        let password = password.map_err(|complaint| {
            self.findings.error(&typed.password.place, format!("`password`: {}", complaint.message)).help =
                complaint.help;
        });
        self.warn_about_shell_syntax(typed);
        Some(Some(Credentials { username: typed.username.value.clone()?, password: password.ok()? }))
    }

    /// `password = "$RELAY_PASSWORD"` is nothing but these characters here. They are not repeated: they may be right.
    fn warn_about_shell_syntax(&mut self, typed: &Upstream) {
        let Some(SecretSource::Literal(secret)) = &typed.password.value else { return };
        let name = secret.reveal().strip_prefix('$').map(|rest| rest.trim_matches(['{', '}']));
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b"_0123456789".contains(&b))
        };
        if name.is_some_and(is_name) {
            self.findings
                .warning(&typed.password.place, "`password` looks like a variable, but is taken as it stands")
                .help("write { env = \"NAME\" }");
        }
    }

    /// For each upstream that shares another's limits, the one whose they are.
    fn shared_limits(&mut self, typed: &[Upstream]) -> HashMap<String, Arc<str>> {
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
            if upstream.max_connections.given {
                self.findings.warning(
                    &upstream.max_connections.place,
                    format!("it has no effect: the limits of \"{owner}\" count for both"),
                );
            }
        }
        shared
    }
}

/// Such as "***@smtp.example.com": messages do not repeat a login that was typed before a host.
fn without_login(text: &str) -> String {
    text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, host)| format!("***@{host}"))
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

fn port(typed: &Upstream) -> Option<u16> {
    if !typed.port.given && typed.tls.value == Some(TlsMode::Implicit) {
        return Some(IMPLICIT_PORTS[0]);
    }
    typed.port.value.and_then(|port| u16::try_from(port.0).ok())
}

fn connections(typed: &Upstream) -> Option<Connections> {
    Some(Connections {
        max_connections: typed.max_connections.value?.as_usize(),
        max_messages_per_connection: typed.max_messages_per_connection.value?.as_usize(),
        connect_timeout: typed.connect_timeout.value?,
        command_timeout: typed.command_timeout.value?,
        data_timeout: typed.data_timeout.value?,
        idle_timeout: typed.idle_timeout.value?,
        connect_retries: u32::try_from(typed.connect_retries.value?.0).ok()?,
    })
}
