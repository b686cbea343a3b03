//! The upstreams of a configuration: binds the sandbox, shares limits, and refuses upstreams that lead back to our own listeners.

use super::StartError;
use crate::config::{Provider, Settings, UpstreamLogins, UpstreamSettings, self_loop};
use crate::delivery::{Logins, Quotas, Target};
use crate::dkim::{Keyring, Records};
use crate::observe::Clock;
use crate::queue::QuotaLedger;
use crate::rate::{Counting, QuotaRecord, QuotaStore, Rate, StoredUsage};
use crate::relay::{Account, Credentials, Deadline, Endpoint, SharedAccount, TlsMode, Upstream};
pub(super) use crate::sandbox::SandboxAccess;
use crate::sandbox::{self, Sandbox, SandboxLimits};
use crate::text::host_and_port;
use crate::tls;
use aws_lc_rs::digest::{SHA256, digest};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// For all look-ups at start together: an unavailable resolver must not keep the listeners closed.
const LOOK_UP: Duration = Duration::from_secs(3);

/// Compares the addresses to which the hosts' names resolve; the configuration has checked literal addresses.
pub(super) async fn refuse_own_listeners(settings: &Settings) -> Result<(), StartError> {
    let listeners: Vec<_> = settings.listeners.iter().map(|listener| listener.options.address).collect();
    let mut look_ups = JoinSet::new();
    for upstream in &settings.upstreams {
        let Provider::Smtp { endpoint: Endpoint { host, port, fallback_ports, .. }, .. } = &upstream.provider else {
            continue;
        };
        let name = upstream.name.clone();
        let host = host.clone();
        let ports: Vec<u16> = std::iter::once(*port).chain(fallback_ports.iter().map(|port| port.number)).collect();
        look_ups.spawn(timeout(LOOK_UP, async move {
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            let on_each = |address: SocketAddr| ports.iter().map(move |&port| SocketAddr::new(address.ip(), port));
            io::Result::Ok((name, found.flat_map(on_each).collect::<Vec<_>>()))
        }));
    }
    while let Some(found) = look_ups.join_next().await {
        // A name that cannot be resolved now may be resolved later; delivery reports it then.
        let Ok(Ok(Ok((upstream, addresses)))) = found else { continue };
        if let Some(listener) = self_loop::is_own_listener(&addresses, &listeners, self_loop::is_local_address) {
            return Err(StartError::OwnListener { upstream: upstream.to_string(), listener });
        }
    }
    Ok(())
}

/// The embedded provider, if an upstream asks for it.
pub(super) fn bind_sandbox(settings: &Settings, keyring: &Keyring) -> Result<Option<Sandbox>, StartError> {
    if !settings.upstreams.iter().any(|upstream| matches!(upstream.provider, Provider::Sandbox)) {
        return Ok(None);
    }
    let sandbox = Sandbox::bind(sandbox::SandboxOptions {
        records: records(keyring),
        folder: settings.data_dir.join("sandbox"),
        limits: SandboxLimits::default(),
        // What listeners accept may change while it runs; this may not.
        max_message_size: settings.max_memory / 2,
        clock: Clock::System,
    })?;
    Ok(Some(sandbox))
}

/// What the sandbox verifies against.
pub(super) fn records(keyring: &Keyring) -> Records {
    Records::of_keys(keyring.keys().map(AsRef::as_ref))
}

/// The upstreams of a configuration, and the accounts that they belong to.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    /// In the order of the configuration.
    pub targets: Vec<Target>,
    accounts: HashMap<Arc<str>, ConfiguredAccount>,
}

/// One account, and what the configuration allows it.
#[derive(Debug, Clone)]
struct ConfiguredAccount {
    account: Account,
    /// Under which its usage is stored.
    name: Arc<str>,
    max_connections: usize,
    /// The longest of the upstreams that use it.
    idle_timeout: Duration,
    rates: Vec<Rate>,
    counting: Counting,
    /// The stored usage, if the rates differ from those so far.
    usage: Vec<QuotaRecord>,
}

impl Upstreams {
    /// Takes over from `former` what leads to the same server with the same login; an account stays the same one even if the
    /// configuration allows it something else.
    pub async fn build(
        settings: &Settings,
        sandbox: Option<&SandboxAccess>,
        ledger: Arc<dyn QuotaLedger>,
        former: Option<(&Self, &Settings)>,
    ) -> Result<Self, StartError> {
        let accounts = accounts(settings, ledger, former.map(|(upstreams, _)| upstreams)).await?;
        let mut targets = Vec::new();
        for upstream in &settings.upstreams {
            let (endpoint, logins, is_sandbox) = match (&upstream.provider, sandbox) {
                (Provider::Smtp { endpoint, logins }, _) => (endpoint.clone(), logins.clone(), false),
                (Provider::Sandbox, Some(sandbox)) => (sandbox_endpoint(sandbox)?, sandbox_login(sandbox), true),
                (Provider::Sandbox, None) => continue,
            };
            let profile = upstream.profile.clone();
            let account = accounts.get(upstream.share_limits_with.as_ref().unwrap_or(&upstream.name));
            let account = account.map(|configured| configured.account.clone());
            let account = account.unwrap_or_else(|| Account::new(upstream.limits.max_connections));
            let kept = former.and_then(|(former, before)| former.unchanged((before, settings), upstream, &account));
            let logins = kept.unwrap_or_else(|| {
                let logged_in = |credentials: Option<&Credentials>| {
                    let options = upstream.options(&endpoint, &logins, credentials, &settings.ehlo_name);
                    Upstream::new(options, account.clone())
                };
                logged_in_to(&upstream.name, &logins, logged_in)
            });
            targets.push(Target { logins, profile, is_sandbox });
        }
        Ok(Self { targets, accounts })
    }

    /// The logins of the same upstream, if connections to it would be made as before.
    fn unchanged(
        &self,
        (before, settings): (&Settings, &Settings),
        upstream: &UpstreamSettings,
        account: &Account,
    ) -> Option<Logins<Upstream>> {
        let at = before.upstreams.iter().position(|other| other.name == upstream.name)?;
        let logins = &self.targets.get(at)?.logins;
        let is_same = before.ehlo_name == settings.ehlo_name
            && before.upstreams[at].connects_like(upstream)
            && logins.all().all(|upstream| upstream.belongs_to(account));
        is_same.then(|| logins.clone())
    }

    pub fn all(&self) -> impl Iterator<Item = &Upstream> {
        self.targets.iter().flat_map(|target| target.logins.all())
    }

    /// Those that a later configuration does not use any more.
    pub fn not_in<'a>(&'a self, later: &'a Self) -> impl Iterator<Item = &'a Upstream> {
        self.all().filter(|upstream| !later.all().any(|other| other.is(upstream)))
    }

    /// Accounts that were taken over get what this configuration allows them.
    pub fn apply_limits(&mut self) {
        for configured in self.accounts.values_mut() {
            let ConfiguredAccount { account, max_connections, idle_timeout, rates, counting, usage, .. } = configured;
            account.allow((*max_connections, *idle_timeout), rates, *counting, usage);
            usage.clear();
        }
        self.all().for_each(Upstream::follow_account);
    }

    /// Usage of quotas is recorded exactly, and no connection is left, at the deadline at the latest.
    pub async fn close(&self, farewell: Instant) {
        let mut closing = JoinSet::new();
        for upstream in self.all() {
            let upstream = upstream.clone();
            closing.spawn(async move { upstream.close(Deadline { at: Some(farewell) }).await });
        }
        while closing.join_next().await.is_some() {}
    }
}

/// Mail whose domain has no login of its own uses the table's login. It needs none if the table has no logins at all, and
/// is not served if the table has only logins of domains.
fn logged_in_to(
    name: &str,
    logins: &UpstreamLogins,
    logged_in: impl Fn(Option<&Credentials>) -> Upstream,
) -> Logins<Upstream> {
    let serves_others = logins.by_domain.is_empty() || logins.own.is_some();
    let own = serves_others.then(|| logged_in(logins.own.as_ref()));
    let by_domain = logins.by_domain.iter();
    Logins::new(name, by_domain.map(|(domain, login)| (domain.clone(), logged_in(Some(login)))), own)
}

/// One for each upstream that does not share another's, with the stored usage of its quotas.
async fn accounts(
    settings: &Settings,
    ledger: Arc<dyn QuotaLedger>,
    former: Option<&Upstreams>,
) -> Result<HashMap<Arc<str>, ConfiguredAccount>, StartError> {
    let shared_limits = ledger.shared_limits();
    let ledger: Arc<dyn QuotaStore> = Arc::new(Quotas(ledger));
    let mut accounts = HashMap::new();
    let mut names = HashSet::new();
    for upstream in settings.upstreams.iter().filter(|upstream| upstream.share_limits_with.is_none()) {
        let mut name = account_name(&upstream.provider);
        if !names.insert(name.clone()) {
            // Each counts separately, as the configuration's warning says, and must not overwrite the other's count.
            name = format!("{name}/{}", upstream.name);
        }
        let name: Arc<str> = name.into();
        let counting = upstream.preset.limits.counting;
        let max_connections = upstream.limits.max_connections;
        let idle_timeout = longest_idle(settings, &upstream.name);
        let rates = upstream.rates.clone();
        let known = former.and_then(|former| former.accounts.values().find(|known| known.name == name));
        let unreadable = |cause| StartError::Quotas { upstream: upstream.name.to_string(), cause };
        let mut usage = Vec::new();
        let account = match known {
            Some(known) => {
                if known.rates != rates {
                    usage = known.account.usage().await.map_err(unreadable)?;
                }
                known.account.clone()
            }
            None => {
                let account = match &shared_limits {
                    // Each gateway has a sandbox of its own.
                    Some(limits) if !matches!(upstream.provider, Provider::Sandbox) => {
                        let shared = SharedAccount { limits: limits.clone(), name: name.clone(), idle_timeout };
                        Account::shared(max_connections, &rates, counting, shared)
                    }
                    _ => {
                        let ledger = ledger.clone();
                        let kept = StoredUsage { ledger, name: name.clone(), former: upstream.name.clone() };
                        Account::with_rates(max_connections, &rates, counting, Some(kept))
                    }
                };
                account.restore().await.map_err(unreadable)?;
                account
            }
        };
        accounts.insert(
            upstream.name.clone(),
            ConfiguredAccount { account, name, max_connections, idle_timeout, rates, counting, usage },
        );
    }
    Ok(accounts)
}

/// Of all upstreams that use the account of this one.
fn longest_idle(settings: &Settings, account: &str) -> Duration {
    let uses =
        |upstream: &&UpstreamSettings| **upstream.share_limits_with.as_ref().unwrap_or(&upstream.name) == *account;
    settings.upstreams.iter().filter(uses).map(|upstream| upstream.limits.idle_timeout).max().unwrap_or_default()
}

/// The names of the upstreams that use an account that gateways share, by the account's name.
pub(crate) fn upstreams_by_account(settings: &Settings) -> BTreeMap<String, Vec<String>> {
    let mut accounts = BTreeMap::<_, Vec<_>>::new();
    for upstream in &settings.upstreams {
        accounts.entry(account_name(&upstream.provider)).or_default().push(upstream.name.to_string());
    }
    accounts
}

/// Identifies the account by host and logins, or by the client certificate if there is no login, so that renaming the table
/// does not change it. A digest, because the database must not contain a login.
fn account_name(provider: &Provider) -> String {
    let Provider::Smtp { endpoint, logins } = provider else { return "account:sandbox".to_owned() };
    let mut names: Vec<&str> = logins.usernames().collect();
    names.sort_unstable();
    if let (true, Some(certificate)) = (names.is_empty(), &endpoint.client_certificate) {
        names.push(&certificate.fingerprint);
    }
    let host = endpoint.host.to_ascii_lowercase();
    names.splice(0..0, ["waxseal account", &host]);
    let digest = digest(&SHA256, names.join("\0").as_bytes());
    let digits: String = digest.as_ref().iter().take(16).map(|octet| format!("{octet:02x}")).collect();
    format!("account:{digits}")
}

fn sandbox_endpoint(sandbox: &SandboxAccess) -> Result<Endpoint, StartError> {
    let config = tls::client(std::slice::from_ref(&sandbox.ca)).map_err(sandbox::SandboxError::from)?;
    Ok(Endpoint {
        host: sandbox.address.ip().to_string(),
        port: sandbox.address.port(),
        tls: TlsMode::StartTls,
        fallback_ports: Vec::new(),
        server_name: sandbox.server_name.clone(),
        ca: vec![sandbox.ca.clone()],
        tls_config: config,
        client_certificate: None,
        source_address: None,
    })
}

fn sandbox_login(sandbox: &SandboxAccess) -> UpstreamLogins {
    let username = sandbox.username.to_owned();
    let password = sandbox.password.clone();
    UpstreamLogins::new(Some(Credentials { username, password, secret_key: None }), Vec::new())
}

/// For the line at start.
pub(super) fn describe(upstream: &UpstreamSettings) -> String {
    match &upstream.provider {
        Provider::Sandbox => "mail for this upstream is kept in the sandbox and NOT sent".to_owned(),
        Provider::Smtp { endpoint, .. } => {
            let tls = match endpoint.tls {
                TlsMode::StartTls => "STARTTLS",
                TlsMode::Implicit => "implicit TLS",
            };
            let cap = upstream.limits.max_connections;
            let title = upstream.preset.title;
            let server = host_and_port(&endpoint.host, endpoint.port);
            format!("relaying to {title}, {server} over {tls}, at most {cap} connections")
        }
    }
}
