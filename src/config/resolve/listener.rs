//! `[[listener]]`: certificates, who may send, and the rules that keep a listener from being open.
//! A listener that is reachable from other machines must say who may send, or the gateway does not start. RFC 6409
//! §4.3.

use super::Resolver;
use crate::config::file::{DeliveryMode, ListenerTable, ListenerTls};
use crate::config::input::{Reported, Resolved, Typed};
use crate::config::local_networks::local_networks;
use crate::config::pem_source::PemSource;
use crate::config::problem::Place;
use crate::config::reader::Section;
use crate::config::self_loop::is_loopback;
use crate::config::settings::ListenerSettings;
use crate::config::value::ByteSize;
use crate::inbound::{AuthMode, ListenerOptions, OverRate, READ_OVERHEAD, SubmissionRates, Tls};
use crate::message::SenderPatterns;
use crate::message::rewrite::Rules;
use crate::observe::metrics::ListenerMetrics;
use crate::smtp::Domain;
use crate::text::any_of;
use crate::tls::{self, ServerCertificate};
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;

impl Resolver<'_> {
    pub(super) fn listeners(
        &mut self,
        typed: &[ListenerTable],
        own_domains: &[&Domain],
        has_users: bool,
    ) -> Vec<ListenerSettings> {
        self.check_addresses(typed);
        typed.iter().filter_map(|listener| self.listener(listener, own_domains, has_users).ok()).collect()
    }

    fn listener(
        &mut self,
        typed: &ListenerTable,
        own_domains: &[&Domain],
        has_users: bool,
    ) -> Resolved<ListenerSettings> {
        let tls = self.listener_tls(typed);
        let certificate = tls.as_ref().ok().and_then(|(_, certificate)| certificate.clone());
        self.check_who_may_send(typed, has_users);
        self.check_load_balancers(typed);
        let senders = self.listener_senders(typed, own_domains);
        let rate = self.submission_rate(&typed.rate, &typed.over_rate);
        if typed.delivery.value() == Some(&DeliveryMode::Direct) && typed.over_rate.value() == Some(&OverRate::Wait) {
            self.findings
                .error(&typed.over_rate.place, "mail cannot wait where its client waits for the provider's reply")
                .help("set delivery = \"queue\", or over_rate = \"refuse\"");
        }
        Ok(ListenerSettings {
            options: ListenerOptions {
                address: typed.address.get()?,
                // The gateway's name, set once it is known.
                hostname: String::new(),
                tls: tls?.0,
                allow: typed.allow.get()?,
                proxy_protocol: typed.proxy_protocol.get()?,
                auth: offered_auth(typed.auth.get()?, has_users),
                line_endings: typed.line_endings.get()?,
                max_message_size: typed.max_message_size.get()?.0,
                max_recipients: typed.max_recipients.get()?.as_usize(),
                max_connections: typed.max_connections.get()?.as_usize(),
                max_connections_per_address: typed.max_connections_per_address.get()?.as_usize(),
                timeout: typed.timeout.get()?,
                // Of the running gateway.
                rates: SubmissionRates::default(),
                metrics: ListenerMetrics::default(),
            },
            delivery: typed.delivery.get()?,
            senders: senders?,
            rate: rate?,
            certificate,
        })
    }

    fn check_addresses(&mut self, typed: &[ListenerTable]) {
        let mut taken: Vec<SocketAddr> = Vec::new();
        for listener in typed {
            let Some(&address) = listener.address.value() else { continue };
            if let Some(other) = taken.iter().find(|other| collide(**other, address)) {
                self.findings
                    .error(&listener.address.place, format!("{address} is taken by the listener on {other}"))
                    .help("give each listener an address and port of its own");
            }
            taken.push(address);
        }
    }

    /// With the time at which its certificate expires.
    fn listener_tls(&mut self, typed: &ListenerTable) -> Resolved<(Tls, Option<ServerCertificate>)> {
        match typed.tls.get()? {
            ListenerTls::Off => {
                for file in [&typed.certificate, &typed.private_key].into_iter().filter(|file| file.is_given()) {
                    self.findings
                        .warning(&file.place, "it has no effect while tls = \"off\"")
                        .help("set tls = \"starttls\" or \"implicit\"");
                }
                Ok((Tls::Off, None))
            }
            ListenerTls::StartTls => self.server_config(typed).map(|(config, shown)| (Tls::StartTls(config), shown)),
            ListenerTls::Implicit => self.server_config(typed).map(|(config, shown)| (Tls::Implicit(config), shown)),
        }
    }

    fn server_config(&mut self, typed: &ListenerTable) -> Resolved<(Arc<ServerConfig>, Option<ServerCertificate>)> {
        let chain = self.needed_for_tls(typed, "certificate", &typed.certificate);
        let key = self.needed_for_tls(typed, "private_key", &typed.private_key);
        let chain = chain.and_then(|source| self.certificates("certificate", &source, &typed.certificate.place));
        let key = key.and_then(|source| self.private_key("private_key", &source, &typed.private_key.place));
        let chain = chain?;
        let shown = chain.first().and_then(ServerCertificate::of);
        match tls::server(chain, key?) {
            Ok(config) => Ok((config, shown)),
            Err(error) => {
                self.findings.error(&typed.certificate.place, format!("`certificate` cannot be used: {error}"));
                Err(Reported)
            }
        }
    }

    fn needed_for_tls(&mut self, typed: &ListenerTable, key: &str, file: &Typed<PemSource>) -> Resolved<PemSource> {
        if !file.is_given() {
            self.findings
                .error(&typed.tls.place, format!("this listener needs `{key}` for its `tls`"))
                .help(format!("add {key} = \"certs/...\", or set tls = \"off\" for clients on this machine"));
        }
        self.pem_source(key, file)
    }

    /// `allow` and `auth` decide who may send; a container's neighbours are as foreign as the Internet.
    fn check_who_may_send(&mut self, typed: &ListenerTable, has_users: bool) {
        let (Some(&address), Some(&auth)) = (typed.address.value(), typed.auth.value()) else { return };
        let from_environment = matches!(typed.place(), Place::Environment(_));
        if !is_loopback(address.ip()) && auth != AuthMode::Required && !typed.allow.is_given() {
            let problem = self.findings.error(
                &typed.address.place,
                format!("{address} can be reached from other machines, and nothing says who may send"),
            );
            match from_environment {
                true => problem.help(who_may_send_by_variables()),
                false => problem.help(
                    "name the application's network, as in allow = [\"172.18.0.0/16\"], or set auth = \"required\" and add a [[user]]",
                ),
            }
        }
        if auth == AuthMode::Required && !has_users {
            self.findings
                .error(&typed.auth.place, "auth = \"required\" without any [[user]]: nobody could send")
                .help("add a [[user]] table with a hash from `waxseal user hash`");
        }
        let allow = typed.allow.value().map_or(&[][..], Vec::as_slice);
        if auth == AuthMode::Required && typed.allow.is_given() {
            self.findings.warning(&typed.allow.place, "it has no effect while auth = \"required\"");
        }
        if auth == AuthMode::Off && typed.allow.is_given() && allow.is_empty() && typed.allow.value().is_some() {
            self.findings
                .error(&typed.allow.place, "auth = \"off\" and an empty `allow`: nobody could send")
                .help("name the application's network in `allow`");
        }
        if let Some(all) = allow.iter().find(|network| network.prefix_len() == 0) {
            self.findings
                .warning(&typed.allow.place, format!("{all} lets every machine that can reach {address} send mail"))
                .help("name the application's network instead");
        }
    }

    /// A load balancer is believed whatever address it names.
    fn check_load_balancers(&mut self, typed: &ListenerTable) {
        let networks = typed.proxy_protocol.value().map_or(&[][..], Vec::as_slice);
        let place = &typed.proxy_protocol.place;
        if let Some(all) = networks.iter().find(|network| network.prefix_len() == 0) {
            self.findings
                .error(place, format!("`proxy_protocol`: with {all} every client could claim any address"))
                .help("name the addresses of the load balancers, as in [\"10.0.0.5\", \"10.0.0.6\"]");
        }
        if !networks.is_empty() && !typed.allow.is_given() && typed.auth.value() != Some(&AuthMode::Required) {
            self.findings
                .warning(place, "the clients behind the load balancer are not in `allow`, which has only this machine")
                .help("name their networks in `allow`, or set auth = \"required\"");
        }
    }

    /// A listener's largest message must fit into memory together with what the rules need for it.
    pub(super) fn check_sizes(
        &mut self,
        listeners: &[ListenerTable],
        max_memory: &Typed<ByteSize>,
        rules: Option<&Rules>,
    ) {
        let Some(memory) = max_memory.value() else { return };
        for typed in listeners {
            let Some(size) = typed.max_message_size.value() else { continue };
            let octets = usize::try_from(size.0).unwrap_or(usize::MAX);
            let for_rules = rules.map_or(0, |rules| rules.largest_memory_needed(octets)) as u64;
            let room = READ_OVERHEAD + for_rules;
            // The other half belongs to the queue.
            if size.0.saturating_add(room) <= memory.0 / 2 {
                continue;
            }
            let place =
                if typed.max_message_size.is_given() { &typed.max_message_size.place } else { &max_memory.place };
            let why = if for_rules > 0 { " while there are rules" } else { "" };
            self.findings
                .error(
                    place,
                    format!(
                        "`max_message_size` must be at least {} KiB below half of `max_memory`{why}: a larger message would \
                         never fit",
                        room.div_ceil(1024),
                    ),
                )
                .help("raise `max_memory` (several messages are under way at once), or lower `max_message_size`");
        }
    }

    /// The default protects the domains' reputation: no one sends under a name for which the gateway cannot sign,
    /// unless the configuration names it.
    fn listener_senders(&mut self, typed: &ListenerTable, own_domains: &[&Domain]) -> Resolved<SenderPatterns> {
        if typed.senders.is_given() {
            return self.patterns("senders", &typed.senders);
        }
        let any = own_domains.is_empty();
        Ok(if any { SenderPatterns::any() } else { SenderPatterns::domains(own_domains.iter().copied()) })
    }
}

/// With this machine's own networks, one of which is the application's where both are containers.
fn who_may_send_by_variables() -> String {
    let login = "or WAXSEAL_USER and WAXSEAL_PASSWORD for a login";
    match local_networks().as_slice() {
        [] => format!("set WAXSEAL_ALLOW to the application's network, as in WAXSEAL_ALLOW=172.18.0.0/16, {login}"),
        networks => {
            let names = any_of(networks.iter().map(|(name, network)| format!("WAXSEAL_ALLOW={network} ({name})")));
            format!("set WAXSEAL_ALLOW to the application's network: this machine is in {names}; {login}")
        }
    }
}

/// Port 0 is a different port each time. IPv6 listeners accept only IPv6.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_family = one.is_ipv4() == other.is_ipv4();
    let same_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && same_family && same_ip
}

/// Without users every login would fail, and clients that log in whenever that is offered would lose mail.
fn offered_auth(typed: AuthMode, has_users: bool) -> AuthMode {
    if typed == AuthMode::Optional && !has_users { AuthMode::Off } else { typed }
}
