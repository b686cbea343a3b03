//! Turns typed values into [`Settings`]: defaults that depend on others, files, references, and rules between settings.
//!
//! Continues after a problem, so that all are found; checks that depend on a wrong value are skipped.
//! Reads files; never connects anywhere and never writes.

mod admin;
mod bounce;
mod client_tls;
mod dkim;
mod expect;
mod files;
mod hostname;
mod listener;
mod login;
mod mailer;
mod queue;
mod redis;
mod redis_url;
mod rewrite;
mod route;
mod secret;
mod upstream;
mod user;

pub use hostname::own_name;

use super::environment::Environment;
use super::file::{DoctorTable, File, GatewayTable, ListenerTable, StormTable, UnsignedMail, UpstreamTable};
use super::file_digests::FileDigests;
use super::input::{Reported, Resolved, Typed};
use super::problem::{Findings, Problems, Source};
use super::settings::{DkimSettings, DoctorSettings, RouteSettings, Settings};
use super::value::PatternText;
use crate::dkim::Unsigned;
use crate::intake::StormOptions;
use crate::message::SenderPatterns;
use crate::observe::log::LogOptions;
use crate::smtp::Domain;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What resolving needs.
pub struct Resolver<'a> {
    /// Where relative paths start.
    pub base: &'a Path,
    pub environment: &'a Environment,
    pub findings: &'a mut Findings,
    /// The files that were read.
    pub files: FileDigests,
}

fn typed_addresses(listeners: &[ListenerTable]) -> Vec<SocketAddr> {
    listeners.iter().filter_map(|listener| listener.address.value().copied()).collect()
}

fn doctor(typed: &DoctorTable) -> Resolved<DoctorSettings> {
    Ok(DoctorSettings {
        at_start: typed.at_start.get()?,
        dns: typed.dns.optional()?.map(|server| server.0),
        ignore: typed.ignore.optional()?.unwrap_or_default(),
    })
}

impl Resolver<'_> {
    pub fn resolve(&mut self, file: File) -> Resolved<Settings> {
        let hostname = self.hostname(file.gateway.hostname.clone(), has_provider(&file.upstreams));
        let has_keys = !file.dkim.is_empty();
        let dkim = self.dkim(&file.dkim);
        let signs_nothing = file.upstreams.iter().all(upstream::leaves_signing_to_provider);
        let unsigned = self.unsigned(&file.gateway, has_keys, signs_nothing);
        let unsigned_mail = unsigned.as_ref().ok();
        let users = self.users(&file.users);
        let own_domains = own_domains(&dkim, unsigned_mail);
        self.warn_about_senders(&file.gateway.unsigned, has_keys, &file.listeners);
        let listeners = self.listeners(&file.listeners, &own_domains, !file.users.is_empty());
        self.check_waiting_users(&file.users, &file.listeners);
        self.warn_about_plausible(&listeners, &dkim, unsigned_mail);
        let addresses = listeners.iter().map(|listener| listener.options.address).collect::<Vec<_>>();
        let names = file.upstreams.iter().map(|upstream| upstream.name.clone()).collect::<Vec<_>>();
        let ehlo_name = hostname.as_ref().ok().map(|(_, ehlo_name)| ehlo_name.as_str());
        let upstreams = self.upstreams(&file.upstreams, &addresses, ehlo_name);
        let logins = users.iter().map(|user| user.name.clone()).collect::<Vec<_>>();
        let routes = self.routes_of(&file, &names, &logins);
        let known = rewrite::KnownNames {
            listeners: &typed_addresses(&file.listeners),
            users: &logins,
            upstreams: &names,
            dkim: &dkim,
            unsigned: unsigned_mail.filter(|_| !signs_nothing),
        };
        let rules = self.rules(&file.rewrites, &known);
        self.check_sizes(&file.listeners, &file.gateway.max_memory, rules.as_ref().ok());
        let queue = self.queue(&file.queue);
        self.warn_about_bounces(&file.queue, &upstreams, &routes, &known);
        let storm = self.storm(&file.storm);
        let expected = self.expected(&file.expected, &names);
        let admin = self.admin(&file.admin, &addresses);
        let (hostname, ehlo_name) = hostname?;
        self.environment.note_files(&mut self.files);
        Ok(Settings {
            listeners: listeners.into_iter().map(|listener| listener.with_hostname(&hostname)).collect(),
            hostname,
            ehlo_name,
            data_dir: self.path(&file.gateway.data_dir.get()?),
            unsigned: unsigned?,
            max_memory: file.gateway.max_memory.get()?.0,
            drain: file.gateway.drain.get()?,
            users,
            dkim,
            upstreams,
            routes,
            repairs: file.repair.repairs()?,
            received: file.trace.received.get()?,
            rules: rules?,
            storm: storm?,
            expected: expected?,
            queue: queue?,
            doctor: doctor(&file.doctor)?,
            admin: admin?,
            log: LogOptions { format: file.log.format.get()?, level: file.log.level.get()?.0 },
            file: None,
            files: std::mem::take(&mut self.files),
            warnings: Problems::new(Arc::new(Source::default()), Vec::new()),
        })
    }

    fn routes_of(&mut self, file: &File, upstreams: &[Typed<String>], users: &[Arc<str>]) -> Vec<RouteSettings> {
        let chosen: Vec<_> = file.rewrites.iter().filter_map(|rule| rule.upstream.value().cloned()).collect();
        self.routes(&file.routes, &route::RouteNames { upstreams, users, chosen: &chosen })
    }

    fn path(&self, typed: &Path) -> PathBuf {
        self.base.join(typed)
    }

    /// If every upstream's provider signs, no key is missing.
    fn unsigned(&mut self, gateway: &GatewayTable, has_keys: bool, signs_nothing: bool) -> Resolved<Unsigned> {
        let typed = &gateway.unsigned;
        if !has_keys && !typed.is_given() && signs_nothing {
            return Ok(Unsigned::Send);
        }
        if !has_keys && !typed.is_given() {
            self.findings.warning(&typed.place, "there is no DKIM key: mail is sent unsigned").help(
                "add a [[dkim]] table (or DKIM_DOMAIN, DKIM_SELECTOR and DKIM_PRIVATE_KEY), or say unsigned = \"send\"",
            );
            return Ok(Unsigned::Send);
        }
        let unsigned = match typed.get()? {
            UnsignedMail::Refuse => Unsigned::Refuse,
            UnsignedMail::Send => Unsigned::Send,
            UnsignedMail::Domains(domains) => Unsigned::Domains(domains),
        };
        if !has_keys && unsigned == Unsigned::Refuse {
            self.findings
                .warning(&typed.place, "there is no DKIM key and unsigned mail is refused: every message will be")
                .help("add a [[dkim]] table, or set unsigned = \"send\"");
        }
        Ok(unsigned)
    }

    /// A listener without its own `senders` accepts the domains that have a key, and no others.
    fn warn_about_senders(&mut self, unsigned: &Typed<UnsignedMail>, has_keys: bool, listeners: &[ListenerTable]) {
        let says_send = unsigned.is_given() && unsigned.value() == Some(&UnsignedMail::Send);
        if says_send && has_keys && listeners.iter().all(|listener| !listener.senders.is_given()) {
            self.findings
                .warning(
                    &unsigned.place,
                    "it has no effect: the listeners take only senders of the domains that have a key",
                )
                .help("add senders = [\"*\"] to a [[listener]]");
        }
    }

    fn storm(&mut self, typed: &StormTable) -> Resolved<Option<StormOptions>> {
        let within = typed.within.get()?;
        let Some(more_than) = typed.more_than.optional()? else {
            if typed.within.is_given() {
                self.findings
                    .warning(&typed.within.place, "`within` has no effect without `more_than`")
                    .help("add more_than = 20, say");
            }
            return Ok(None);
        };
        Ok(Some(StormOptions { more_than: usize::try_from(more_than.0).unwrap_or(usize::MAX), within }))
    }

    /// An empty list would match nothing.
    fn patterns(&mut self, key: &str, typed: &Typed<Vec<PatternText>>) -> Resolved<SenderPatterns> {
        let patterns = typed.value().ok_or(Reported)?;
        if patterns.is_empty() {
            self.findings
                .error(&typed.place, format!("`{key}` is an empty list, which no address matches"))
                .help("leave the key out for its default, or write [\"*\"] for every address");
            return Err(Reported);
        }
        SenderPatterns::parse(patterns.iter().map(|pattern| &pattern.0)).map_err(|_| Reported)
    }

    /// `None` if the key is left out.
    fn optional_patterns(&mut self, key: &str, typed: &Typed<Vec<PatternText>>) -> Resolved<Option<SenderPatterns>> {
        if typed.is_given() { self.patterns(key, typed).map(Some) } else { Ok(None) }
    }

    /// The name, unless an earlier table of this kind has it.
    fn unique(&mut self, taken: &mut HashSet<String>, what: &str, name: &Typed<String>) -> Resolved<Arc<str>> {
        let value = name.value().ok_or(Reported)?;
        if taken.insert(value.to_owned()) {
            return Ok(value.as_str().into());
        }
        self.findings
            .error(&name.place, format!("there is another {what} named \"{value}\""))
            .help("give each a name of its own");
        Err(Reported)
    }
}

/// The sandbox is not a provider: it accepts any EHLO name.
fn has_provider(upstreams: &[UpstreamTable]) -> bool {
    !upstreams.iter().all(|upstream| upstream.provider.value().is_some_and(|it| it.0.is_embedded()))
}

/// The domains whose mail can be signed, and those that may send unsigned mail; each once. None if there is no key.
fn own_domains<'a>(dkim: &'a [DkimSettings], unsigned: Option<&'a Unsigned>) -> Vec<&'a Domain> {
    let unsigned = match unsigned {
        Some(Unsigned::Domains(domains)) if !dkim.is_empty() => &domains[..],
        _ => &[],
    };
    let mut own: Vec<&Domain> = Vec::new();
    for domain in dkim.iter().map(|key| &key.domain).chain(unsigned) {
        if !own.contains(&domain) {
            own.push(domain);
        }
    }
    own
}
