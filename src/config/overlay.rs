//! Lays the environment over what was typed in the file: an upstream, listeners, a user, a key, the gateway's name.
//!
//! The block that Plausible reads works here unchanged; what the gateway adds begins with WAXSEAL_ or DKIM_.

use super::environment::{Environment, Found};
use super::file::{DkimTable, File, KeySource, ListenerTable, ProviderName, RouteTable, UpstreamTable, UserTable};
use super::input::Typed;
use super::patterns::UpstreamNames;
use super::problem::{Findings, Place};
use super::reader::Section;
use super::secret::SecretSource;
use super::self_loop::is_loopback;
use super::value::Text as _;
use crate::dkim::Selector;
use crate::inbound::AuthMode;
use crate::observe::Secret;
use crate::pem;
use crate::relay::{TlsMode, provider};
use crate::smtp::Domain;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the upstream of the environment is called.
pub const UPSTREAM: &str = "environment";
/// Where the gateway listens, on both loopback addresses, if nothing says otherwise.
const DEFAULT_PORT: u16 = 2525;

pub fn apply(environment: &Environment, file: &mut File, findings: &mut Findings) {
    environment.warn_about_misspellings(findings);
    replace(&mut file.gateway.hostname, environment.text("WAXSEAL_HOSTNAME", findings));
    replace(&mut file.gateway.data_dir, environment.text("WAXSEAL_DATA_DIR", findings));
    if let Some(upstream) = upstream(environment, findings) {
        make_default(upstream, file);
    }
    file.dkim.extend(dkim(environment, findings));
    let user = user(environment, findings);
    listeners(environment, user.is_some(), file, findings);
    file.users.extend(user);
}

fn replace<T>(typed: &mut Typed<T>, from_environment: Option<Typed<T>>) {
    if let Some(found) = from_environment {
        *typed = found;
    }
}

fn upstream(environment: &Environment, findings: &mut Findings) -> Option<UpstreamTable> {
    let host = environment.text::<String>("SMTP_HOST_ADDR", findings);
    let port = environment.number("SMTP_HOST_PORT", findings);
    let login = both(environment, "SMTP_USER_NAME", "SMTP_USER_PWD", findings);
    let implicit = environment.flag("SMTP_HOST_SSL_ENABLED", findings);
    let max_connections = environment.number("SMTP_POOL_SIZE", findings);
    let connect_retries = environment.number("SMTP_RETRIES", findings);
    let Some(host) = host else {
        let lonely = port.as_ref().map(|port| &port.place).or(login.as_ref().map(|(name, _)| &name.place));
        if let Some(place) = lonely {
            findings
                .warning(place, "it has no effect without SMTP_HOST_ADDR")
                .help("set SMTP_HOST_ADDR to the provider's host");
        }
        return None;
    };
    let place = host.place.clone();
    let mut upstream = UpstreamTable::empty(place.clone());
    upstream.name = Typed::given(UPSTREAM.to_owned(), place.clone());
    let known = host.value().map(String::as_str).and_then(provider::at_host);
    upstream.provider = Typed::given(ProviderName(known.unwrap_or(&provider::SMTP)), place.clone());
    upstream.host = host;
    // Given even if it is not: Plausible's default holds whatever SMTP_HOST_SSL_ENABLED says.
    upstream.port.insist();
    replace(&mut upstream.port, port);
    if let Some(implicit) = implicit {
        upstream.tls = implicit.map(|implicit| if implicit { TlsMode::Implicit } else { TlsMode::StartTls });
    }
    if let Some((name, password)) = login {
        upstream.username = Typed::given(name.text, name.place);
        upstream.password = Typed::given(SecretSource::Literal(Secret::new(password.text)), password.place);
    }
    replace(&mut upstream.max_connections, max_connections);
    replace(&mut upstream.connect_retries, connect_retries);
    Some(upstream)
}

/// First among the upstreams, so that without routes it gets all mail; with routes, what no other takes.
fn make_default(upstream: UpstreamTable, file: &mut File) {
    if !file.routes.is_empty() {
        let place = upstream.place().clone();
        let mut route = RouteTable::empty(place.clone());
        route.name = Typed::given(UPSTREAM.to_owned(), place.clone());
        route.upstreams = Typed::given(UpstreamNames::InOrder(vec![UPSTREAM.to_owned()]), place);
        file.routes.push(route);
    }
    file.upstreams.insert(0, upstream);
}

fn dkim(environment: &Environment, findings: &mut Findings) -> Option<DkimTable> {
    const NAMES: [&str; 3] = ["DKIM_DOMAIN", "DKIM_SELECTOR", "DKIM_PRIVATE_KEY"];
    let domain = environment.text::<Domain>(NAMES[0], findings);
    let selector = environment.text::<Selector>(NAMES[1], findings);
    let key = environment.find(NAMES[2], findings);
    let there = [domain.is_some(), selector.is_some(), key.is_some()];
    let (Some(domain), Some(selector), Some(key)) = (domain, selector, key) else {
        let named =
            |wanted: bool| NAMES.iter().zip(there).filter(move |(_, there)| *there == wanted).map(|(name, _)| *name);
        if let Some(present) = named(true).next() {
            let missing = named(false).collect::<Vec<_>>().join(" and ");
            findings
                .error(&Place::Environment(present.to_owned()), format!("{missing} must be set too"))
                .help("a key needs all three: DKIM_DOMAIN, DKIM_SELECTOR, DKIM_PRIVATE_KEY");
        }
        return None;
    };
    let mut dkim = DkimTable::empty(domain.place.clone());
    dkim.domain = domain;
    dkim.selector = selector;
    dkim.private_key = if pem::is_pem(&key.text) {
        Typed::given(KeySource::Pem(Secret::new(key.text)), key.place)
    } else {
        match KeySource::parse(&key.text) {
            Ok(path) => Typed::given(path, key.place),
            Err(complaint) => {
                findings.error(&key.place, complaint.message).help = complaint.help;
                Typed::invalid(key.place)
            }
        }
    };
    Some(dkim)
}

fn user(environment: &Environment, findings: &mut Findings) -> Option<UserTable> {
    let (name, password) = both(environment, "WAXSEAL_USER", "WAXSEAL_PASSWORD", findings)?;
    let mut user = UserTable::empty(name.place.clone());
    user.name = Typed::given(name.text, name.place);
    user.password = Typed::given(SecretSource::Literal(Secret::new(password.text)), password.place);
    Some(user)
}

fn listeners(environment: &Environment, has_user: bool, file: &mut File, findings: &mut Findings) {
    let allow = environment.list::<IpNet>("WAXSEAL_ALLOW", findings);
    match environment.list::<SocketAddr>("WAXSEAL_LISTEN", findings) {
        Some(addresses) => {
            if !file.listeners.is_empty() {
                findings.warning(&addresses.place, "it replaces the [[listener]] tables of the file");
            }
            let login_only = has_user && allow.is_none();
            let listen = |address| environment_listener(address, &addresses.place, login_only);
            file.listeners = addresses.value().into_iter().flatten().copied().map(listen).collect();
        }
        None if file.listeners.is_empty() => file.listeners = default_listeners(),
        None => {}
    }
    if let Some(allow) = allow {
        for listener in file.listeners.iter_mut().filter(|listener| !listener.allow.is_given()) {
            listener.allow = allow.clone();
        }
    }
}

/// Beyond loopback a user without networks means that the login is needed: container addresses are anybody's.
fn environment_listener(address: SocketAddr, place: &Place, login_only: bool) -> ListenerTable {
    let mut listener = ListenerTable::empty(place.clone());
    listener.address = Typed::given(address, place.clone());
    if login_only && !is_loopback(address.ip()) {
        listener.auth = Typed::given(AuthMode::Required, place.clone());
    }
    listener
}

fn default_listeners() -> Vec<ListenerTable> {
    [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)]
        .map(|ip| {
            let mut listener = ListenerTable::empty(Place::Nowhere);
            listener.address = Typed::given(SocketAddr::new(ip, DEFAULT_PORT), Place::Nowhere);
            listener
        })
        .into()
}

/// Both or neither; one without the other is a problem.
fn both(environment: &Environment, first: &str, second: &str, findings: &mut Findings) -> Option<(Found, Found)> {
    match (environment.find(first, findings), environment.find(second, findings)) {
        (Some(one), Some(other)) => Some((one, other)),
        (None, None) => None,
        (Some(lonely), None) => lacks(&lonely, second, findings),
        (None, Some(lonely)) => lacks(&lonely, first, findings),
    }
}

fn lacks(lonely: &Found, other: &str, findings: &mut Findings) -> Option<(Found, Found)> {
    findings.error(&lonely.place, format!("{other} must be set too")).help("set both, or neither");
    None
}
