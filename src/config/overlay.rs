//! Applies the environment to what was typed in the file: an upstream, listeners, a user, a key, the gateway's name.
//!
//! The block of variables that Plausible reads works here unchanged; the gateway's own begin with WAXSEAL_ or DKIM_.

use super::environment::{Environment, Found};
use super::file::{
    DkimTable, File, GatewayTable, ListenerTable, ProviderName, RouteTable, UnsignedMail, UpstreamTable, UserTable,
};
use super::input::Typed;
use super::patterns::UpstreamNames;
use super::pem_source::PemSource;
use super::problem::{Findings, Place};
use super::rates::Rates;
use super::reader::Section;
use super::secret::SecretSource;
use super::self_loop::is_loopback;
use crate::dkim::Selector;
use crate::inbound::AuthMode;
use crate::observe::Secret;
use crate::relay::TlsMode;
use crate::relay::provider::{self, Login};
use crate::smtp::Domain;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The name of the environment's upstream.
pub const UPSTREAM: &str = "environment";
/// The gateway listens on this port of both loopback addresses unless configured otherwise.
const DEFAULT_PORT: u16 = 2525;

pub fn apply(environment: &Environment, file: &mut File, findings: &mut Findings) {
    gateway(environment, file, findings);
    if let Some(upstream) = upstream(environment, findings) {
        make_default(upstream, file);
    }
    let dkim = dkim(environment, &file.gateway, findings);
    file.dkim.extend(dkim);
    let user = user(environment, findings);
    listeners(environment, user.is_some(), file, findings);
    file.users.extend(user);
}

/// Variables that the file refers to by `{ env = "NAME" }`: whatever their names, they are not meant for us.
pub fn referenced_variables(file: &File) -> BTreeSet<String> {
    let upstreams = file.upstreams.iter().flat_map(|upstream| {
        let logins = upstream.credentials.iter().map(|login| &login.password);
        [&upstream.password, &upstream.secret_key].into_iter().chain(logins)
    });
    let redis = &file.queue.redis;
    let others = [&redis.url, &redis.password, &redis.sentinel_password, &file.admin.token];
    let secrets = upstreams.chain(file.users.iter().map(|user| &user.password)).chain(others);
    let name = |secret: &Typed<SecretSource>| match secret.value() {
        Some(SecretSource::Variable(name)) => Some(name.clone()),
        _ => None,
    };
    let of_upstreams = file.upstreams.iter().flat_map(|it| [&it.ca, &it.certificate, &it.private_key]);
    let of_listeners = file.listeners.iter().flat_map(|it| [&it.certificate, &it.private_key]);
    let of_redis = [&redis.ca, &redis.certificate, &redis.private_key];
    let pems = of_upstreams.chain(of_listeners).chain(of_redis).chain(file.dkim.iter().map(|key| &key.private_key));
    let name_of_pem = |pem: &Typed<PemSource>| match pem.value() {
        Some(PemSource::Variable(name)) => Some(name.clone()),
        _ => None,
    };
    secrets.filter_map(name).chain(pems.filter_map(name_of_pem)).collect()
}

fn replace<T>(typed: &mut Typed<T>, from_environment: Option<Typed<T>>) {
    if let Some(found) = from_environment {
        *typed = found;
    }
}

/// The keys of which there is one each.
fn gateway(environment: &Environment, file: &mut File, findings: &mut Findings) {
    replace(&mut file.gateway.hostname, environment.text("WAXSEAL_HOSTNAME", findings));
    replace(&mut file.gateway.data_dir, environment.text("WAXSEAL_DATA_DIR", findings));
    replace(&mut file.gateway.unsigned, environment.read("WAXSEAL_UNSIGNED", findings, UnsignedMail::of_variable));
    replace(&mut file.gateway.max_memory, environment.text("WAXSEAL_MAX_MEMORY", findings));
    replace(&mut file.gateway.drain, environment.text("WAXSEAL_DRAIN", findings));
    replace(&mut file.queue.bounce, environment.text("WAXSEAL_BOUNCE", findings));
    replace(&mut file.queue.bounce_sender, environment.text("WAXSEAL_BOUNCE_SENDER", findings));
    replace(&mut file.queue.expire, environment.text("WAXSEAL_EXPIRE", findings));
    replace(&mut file.queue.min_free_space, environment.text("WAXSEAL_MIN_FREE_SPACE", findings));
    replace(&mut file.queue.backend, environment.text("WAXSEAL_BACKEND", findings));
    replace(&mut file.queue.redis.url, secret(environment, "WAXSEAL_REDIS_URL", findings));
    replace(&mut file.queue.redis.user, environment.text("WAXSEAL_REDIS_USER", findings));
    replace(&mut file.queue.redis.password, secret(environment, "WAXSEAL_REDIS_PASSWORD", findings));
    replace(&mut file.queue.redis.ca, pem_source(environment, "WAXSEAL_REDIS_CA", findings));
    replace(&mut file.queue.redis.prefix, environment.text("WAXSEAL_REDIS_PREFIX", findings));
    replace(&mut file.queue.redis.instance, environment.text("WAXSEAL_INSTANCE", findings));
    replace(&mut file.doctor.at_start, environment.flag("WAXSEAL_DOCTOR_AT_START", findings));
    replace(&mut file.doctor.dns, environment.text("WAXSEAL_DOCTOR_DNS", findings));
    replace(&mut file.admin.address, environment.text("WAXSEAL_ADMIN_ADDRESS", findings));
    replace(&mut file.admin.token, secret(environment, "WAXSEAL_ADMIN_TOKEN", findings));
    replace(&mut file.admin.hosts, environment.list("WAXSEAL_ADMIN_HOSTS", findings));
    replace(&mut file.log.level, environment.text("WAXSEAL_LOG_LEVEL", findings));
    replace(&mut file.log.format, environment.text("WAXSEAL_LOG_FORMAT", findings));
}

/// What makes an upstream is its host, or a provider whose host is known.
fn upstream(environment: &Environment, findings: &mut Findings) -> Option<UpstreamTable> {
    let host = environment.text::<String>("SMTP_HOST_ADDR", findings);
    let provider = environment.text::<ProviderName>("WAXSEAL_PROVIDER", findings);
    let place = host.as_ref().map(|host| &host.place).or(provider.as_ref().map(|it| &it.place)).cloned();
    let mut upstream = UpstreamTable::empty(place.clone().unwrap_or(Place::Nowhere));
    replace(&mut upstream.port, environment.number("SMTP_HOST_PORT", findings));
    if let Some(implicit) = environment.flag("SMTP_HOST_SSL_ENABLED", findings) {
        upstream.tls = implicit.map(|implicit| if implicit { TlsMode::Implicit } else { TlsMode::StartTls });
    }
    replace(&mut upstream.username, environment.text("SMTP_USER_NAME", findings));
    replace(&mut upstream.password, secret(environment, "SMTP_USER_PWD", findings));
    replace(&mut upstream.secret_key, secret(environment, "WAXSEAL_SECRET_KEY", findings));
    replace(&mut upstream.region, environment.text("WAXSEAL_REGION", findings));
    replace(&mut upstream.server_name, environment.text("WAXSEAL_SERVER_NAME", findings));
    replace(&mut upstream.ca, pem_source(environment, "WAXSEAL_CA", findings));
    replace(&mut upstream.certificate, pem_source(environment, "WAXSEAL_CLIENT_CERTIFICATE", findings));
    replace(&mut upstream.private_key, pem_source(environment, "WAXSEAL_CLIENT_PRIVATE_KEY", findings));
    replace(&mut upstream.source_address, environment.text("WAXSEAL_SOURCE_ADDRESS", findings));
    replace(&mut upstream.max_connections, environment.number("SMTP_POOL_SIZE", findings));
    replace(&mut upstream.connect_retries, environment.number("SMTP_RETRIES", findings));
    replace(&mut upstream.rate, environment.read("WAXSEAL_RATE", findings, Rates::of_variable));
    let Some(place) = place else {
        warn_without_provider(&upstream, findings);
        return None;
    };
    upstream.name = Typed::given(UPSTREAM.to_owned(), place.clone());
    if let Some(host) = host {
        // Counts as given even if it is not: Plausible's default applies whatever SMTP_HOST_SSL_ENABLED says.
        upstream.port.mark_given();
        let known = host.value().map(String::as_str).and_then(provider::at_host);
        upstream.provider = Typed::given(ProviderName(known.unwrap_or(&provider::SMTP)), place);
        upstream.host = host;
    }
    replace(&mut upstream.provider, provider);
    let needs_both = upstream.provider.value().is_none_or(|it| matches!(it.0.login, Login::Optional));
    if needs_both && upstream.username.is_given() != upstream.password.is_given() {
        let (lonely, other) = match upstream.username.is_given() {
            true => (&upstream.username.place, "SMTP_USER_PWD"),
            false => (&upstream.password.place, "SMTP_USER_NAME"),
        };
        findings.error(lonely, must_be_set(other)).help(BOTH);
        (upstream.username, upstream.password) = (Typed::invalid(Place::Nowhere), Typed::invalid(Place::Nowhere));
    }
    Some(upstream)
}

/// The first variable that only makes sense with a provider.
fn warn_without_provider(upstream: &UpstreamTable, findings: &mut Findings) {
    let given = [
        (upstream.port.is_given(), &upstream.port.place),
        (upstream.username.is_given(), &upstream.username.place),
        (upstream.password.is_given(), &upstream.password.place),
        (upstream.tls.is_given(), &upstream.tls.place),
        (upstream.secret_key.is_given(), &upstream.secret_key.place),
        (upstream.region.is_given(), &upstream.region.place),
        (upstream.server_name.is_given(), &upstream.server_name.place),
        (upstream.ca.is_given(), &upstream.ca.place),
        (upstream.certificate.is_given(), &upstream.certificate.place),
        (upstream.private_key.is_given(), &upstream.private_key.place),
        (upstream.source_address.is_given(), &upstream.source_address.place),
        (upstream.max_connections.is_given(), &upstream.max_connections.place),
        (upstream.connect_retries.is_given(), &upstream.connect_retries.place),
        (upstream.rate.is_given(), &upstream.rate.place),
    ];
    if let Some((_, place)) = given.iter().find(|(is_given, _)| *is_given) {
        findings
            .warning(place, "it has no effect without SMTP_HOST_ADDR")
            .help("set SMTP_HOST_ADDR to the provider's host");
    }
}

fn secret(environment: &Environment, name: &str, findings: &mut Findings) -> Option<Typed<SecretSource>> {
    let found = environment.find(name, findings)?;
    Some(Typed::given(SecretSource::Literal(Secret::new(found.text)), found.place))
}

/// The text itself, or a path.
fn pem_source(environment: &Environment, name: &str, findings: &mut Findings) -> Option<Typed<PemSource>> {
    environment.read(name, findings, PemSource::of_variable)
}

/// Puts it first among the upstreams, so that it gets all mail if there are no routes; if there are, it gets the mail
/// that no other route matches.
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

fn dkim(environment: &Environment, gateway: &GatewayTable, findings: &mut Findings) -> Option<DkimTable> {
    let domain = environment.text::<Domain>("DKIM_DOMAIN", findings);
    let selector = environment.text::<Selector>("DKIM_SELECTOR", findings);
    let generate = environment.flag("DKIM_GENERATE", findings);
    let is_made = generate.as_ref().is_some_and(|generate| generate.value() == Some(&true));
    let key = pem_source(environment, "DKIM_PRIVATE_KEY", findings);
    let names = [
        ("DKIM_DOMAIN", domain.is_some()),
        ("DKIM_SELECTOR", selector.is_some()),
        (if is_made && key.is_none() { "DKIM_GENERATE" } else { "DKIM_PRIVATE_KEY" }, key.is_some() || is_made),
    ];
    let named = |wanted: bool| names.iter().filter(move |(_, there)| *there == wanted).map(|(name, _)| *name);
    let missing = named(false).collect::<Vec<_>>().join(" and ");
    if let Some(present) = named(true).next().filter(|_| !missing.is_empty()) {
        findings
            .error(&Place::Environment(present.to_owned()), format!("{missing} must be set too"))
            .help("a key needs all three: DKIM_DOMAIN, DKIM_SELECTOR, DKIM_PRIVATE_KEY (or DKIM_GENERATE=true)");
    }
    let domain = domain?;
    let selector = selector?;
    let mut dkim = DkimTable::empty(domain.place.clone());
    dkim.private_key = key.or_else(|| is_made.then(|| path_of_made_key(gateway, &domain, &selector)))?;
    dkim.domain = domain;
    dkim.selector = selector;
    replace(&mut dkim.generate, generate);
    Some(dkim)
}

/// In the data folder, the one place that a container's user can write to.
fn path_of_made_key(gateway: &GatewayTable, domain: &Typed<Domain>, selector: &Typed<Selector>) -> Typed<PemSource> {
    match (gateway.data_dir.value(), domain.value(), selector.value()) {
        (Some(data_dir), Some(domain), Some(selector)) => {
            let path = data_dir.join("dkim").join(format!("{domain}.{selector}.pem"));
            Typed::given(PemSource::Path(path), Place::Environment("DKIM_GENERATE".to_owned()))
        }
        _ => Typed::invalid(Place::Nowhere),
    }
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
                findings
                    .warning(&addresses.place, "it replaces the [[listener]] tables of the file")
                    .help("set it to nothing, WAXSEAL_LISTEN=, for those of the file");
            }
            let login_only = has_user && allow.is_none();
            let listen = |address| environment_listener(address, &addresses.place, login_only);
            file.listeners = addresses.value().into_iter().flatten().copied().map(listen).collect();
        }
        None if file.listeners.is_empty() => file.listeners = default_listeners(),
        None => {}
    }
    let proxy_protocol = environment.list("WAXSEAL_PROXY_PROTOCOL", findings);
    let senders = environment.list("WAXSEAL_SENDERS", findings);
    let delivery = environment.text("WAXSEAL_DELIVERY", findings);
    let tls = environment.text("WAXSEAL_TLS", findings);
    let certificate = pem_source(environment, "WAXSEAL_CERTIFICATE", findings);
    let private_key = pem_source(environment, "WAXSEAL_PRIVATE_KEY", findings);
    let max_message_size = environment.text("WAXSEAL_MAX_MESSAGE_SIZE", findings);
    for listener in &mut file.listeners {
        fill(&mut listener.allow, allow.as_ref());
        fill(&mut listener.proxy_protocol, proxy_protocol.as_ref());
        fill(&mut listener.senders, senders.as_ref());
        fill(&mut listener.delivery, delivery.as_ref());
        fill(&mut listener.tls, tls.as_ref());
        fill(&mut listener.certificate, certificate.as_ref());
        fill(&mut listener.private_key, private_key.as_ref());
        fill(&mut listener.max_message_size, max_message_size.as_ref());
    }
}

/// Of several listeners each may have its own in the file.
fn fill<T: Clone>(typed: &mut Typed<T>, from_environment: Option<&Typed<T>>) {
    if !typed.is_given() {
        replace(typed, from_environment.cloned());
    }
}

/// Beyond loopback, a user without networks means that a login is required, because any container may have such an
/// address.
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
    findings.error(&lonely.place, must_be_set(other)).help(BOTH);
    None
}

const BOTH: &str = "set both, or neither";

fn must_be_set(name: &str) -> String {
    format!("{name} must be set too")
}
