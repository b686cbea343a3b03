//! `[queue.redis]`: the place of the shared queue, its login and its TLS. Beyond this machine both a password and TLS are
//! required: the queue holds the mail. No message quotes the URL, which may contain a password.

use super::Resolver;
use super::client_tls::ClientTlsKeys;
use super::redis_url::{self, RedisUrl};
use super::secret::fetch;
use crate::config::input::{Reported, Resolved, Typed};
use crate::config::problem::Place;
use crate::config::reader::Section;
use crate::config::redis::{RedisTable, SentinelPlace};
use crate::config::secret::SecretSource;
use crate::observe::Secret;
use crate::queue::redis::options::{RedisLogin, RedisOptions, RedisPlace, RedisTls, ServerAddress};
use std::time::Duration;

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// A lease of 60 seconds is renewed at a third of it.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(20);
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(100);

/// What `url` or `sentinel` says.
struct RedisAccess {
    place: RedisPlace,
    tls: bool,
    login: Option<RedisLogin>,
    database: u32,
}

impl Resolver<'_> {
    pub(super) fn redis(&mut self, typed: &RedisTable) -> Resolved<RedisOptions> {
        let access = self.redis_access(typed);
        let login = self.redis_login(typed, access.as_ref().ok());
        let tls = self.redis_tls(typed, access.as_ref().ok());
        let timeout = self.redis_timeout(&typed.timeout);
        if let (Ok(access), Ok(login)) = (&access, &login) {
            self.check_what_others_can_reach(typed, access, login.is_some())?;
        }
        let access = access?;
        Ok(RedisOptions {
            place: access.place,
            login: login?,
            database: access.database,
            tls: tls?,
            prefix: typed.prefix.get()?.0,
            instance: typed.instance.optional()?,
            timeout: timeout?,
            accept_data_loss: typed.accept_data_loss.get()?,
            fallback: typed.fallback.get()?,
        })
    }

    /// Every key without effect because the queue is not in Redis.
    pub(super) fn warn_about_unused_redis(&mut self, typed: &RedisTable, table: &Place) {
        if typed.place() != table || typed.url.is_given() {
            let place = if typed.place() == table { &typed.url.place } else { typed.place() };
            self.findings
                .warning(place, "[queue.redis] has no effect with backend = \"sqlite\"")
                .help("set backend = \"redis\" in [queue], or take the table out");
        }
    }

    fn redis_access(&mut self, typed: &RedisTable) -> Resolved<RedisAccess> {
        let cluster = typed.cluster.get()?;
        if typed.shards.is_given() && !cluster {
            self.findings
                .warning(&typed.shards.place, "`shards` has no effect without cluster = true")
                .help("a single server has one part");
        }
        for (key, place, is_given) in [
            ("sentinel_user", &typed.sentinel_user.place, typed.sentinel_user.is_given()),
            ("sentinel_password", &typed.sentinel_password.place, typed.sentinel_password.is_given()),
        ] {
            if is_given && !typed.sentinel.is_given() {
                let text = format!("`{key}` has no effect without `sentinel`");
                self.findings.warning(place, text).help("take it out, or add `sentinel`");
            }
        }
        match (typed.sentinel.is_given(), typed.url.is_given()) {
            (true, _) if cluster => {
                self.findings
                    .error(&typed.sentinel.place, "`sentinel` and cluster = true exclude each other")
                    .help("a cluster elects its masters itself: name its nodes in `url`, and take `sentinel` out");
                Err(Reported)
            }
            (true, true) => {
                self.findings
                    .error(&typed.url.place, "`url` and `sentinel` are two ways to say where Redis is")
                    .help("take `url` out: the Sentinels name the master");
                Err(Reported)
            }
            (true, false) => self.sentinels(typed),
            (false, true) => self.redis_url(typed, cluster),
            (false, false) => {
                self.findings
                    .error(typed.place(), "backend = \"redis\" needs `url` in [queue.redis]")
                    .help("add url = \"rediss://HOST:PORT\", or `sentinel`");
                Err(Reported)
            }
        }
    }

    fn redis_url(&mut self, typed: &RedisTable, cluster: bool) -> Resolved<RedisAccess> {
        let text = self.redis_secret("url", &typed.url)?;
        let place = &typed.url.place;
        let parsed = redis_url::parse(text.reveal(), REDIS_PORT);
        let RedisUrl { tls, mut addresses, login, database } = parsed.map_err(|complaint| {
            self.findings.error(place, format!("`url`: {}", complaint.message)).help = complaint.help;
            Reported
        })?;
        let mut refuse = |message: &str, help: &str| {
            self.findings.error(place, message).help(help);
            Err(Reported)
        };
        if cluster {
            if database != 0 {
                return refuse("`url`: a cluster has only database 0", "take the number out, and use `prefix`");
            }
            if addresses.iter().any(|address| matches!(address, ServerAddress::Unix(_))) {
                return refuse("`url`: a cluster cannot be reached by a Unix socket", "write redis://HOST:PORT");
            }
            let shards = u16::try_from(typed.shards.get()?.0).map_err(|_| Reported)?;
            return Ok(RedisAccess { place: RedisPlace::Cluster { addresses, shards }, tls, login, database });
        }
        if addresses.len() > 1 {
            return refuse(
                "`url` names several servers, which only cluster = true can use",
                "name one, set cluster = true, or use `sentinel`",
            );
        }
        let address = addresses.pop().ok_or(Reported)?;
        Ok(RedisAccess { place: RedisPlace::Single(address), tls, login, database })
    }

    fn sentinels(&mut self, typed: &RedisTable) -> Resolved<RedisAccess> {
        let SentinelPlace { master, addresses } = typed.sentinel.get()?;
        let place = &typed.sentinel.place;
        let parse = |text: &String| match text.contains("://") {
            true => redis_url::parse(text, SENTINEL_PORT),
            false => {
                let address = redis_url::address(text, SENTINEL_PORT)?;
                Ok(RedisUrl { tls: false, addresses: vec![address], login: None, database: 0 })
            }
        };
        let parsed = addresses.iter().map(parse).collect::<Result<Vec<_>, _>>().map_err(|complaint| {
            self.findings.error(place, format!("`sentinel`: an address is not valid: {}", complaint.message)).help =
                complaint.help;
            Reported
        })?;
        let mut refuse = |message: &str, help: &str| {
            self.findings.error(place, message).help(help);
            Err(Reported)
        };
        if parsed.iter().any(|url| url.login.is_some() || url.database != 0) {
            return refuse(
                "`sentinel`: an address has a login or a database, which belong to the master",
                "write `user` and `password` for the master, `sentinel_user` and `sentinel_password` for the Sentinels",
            );
        }
        let tls = parsed.iter().any(|url| url.tls);
        if parsed.iter().any(|url| url.tls != tls) {
            return refuse(
                "`sentinel`: some addresses are with TLS and some without",
                "write rediss:// before each, or before none; it holds for the master too",
            );
        }
        let user = typed.sentinel_user.optional();
        let login = self.login_of(user?, "sentinel_user", &typed.sentinel_password, "sentinel_password", typed.place());
        let addresses = parsed.into_iter().flat_map(|url| url.addresses).collect();
        Ok(RedisAccess {
            place: RedisPlace::Sentinel { master, addresses, login: login? },
            tls,
            login: None,
            database: 0,
        })
    }

    fn redis_login(&mut self, typed: &RedisTable, access: Option<&RedisAccess>) -> Resolved<Option<RedisLogin>> {
        let user = typed.user.optional();
        let keys = self.login_of(user?, "user", &typed.password, "password", &typed.user.place)?;
        let in_url = access.and_then(|access| access.login.clone());
        if keys.is_some() && in_url.is_some() {
            self.findings
                .error(&typed.password.place, "`password` and `url` both contain a login")
                .help("take one of them out");
            return Err(Reported);
        }
        Ok(keys.or(in_url))
    }

    fn login_of(
        &mut self,
        user: Option<String>,
        user_key: &str,
        password: &Typed<SecretSource>,
        password_key: &str,
        place: &Place,
    ) -> Resolved<Option<RedisLogin>> {
        if !password.is_given() && user.is_none() {
            return Ok(None);
        }
        if !password.is_given() {
            self.findings
                .error(place, format!("`{user_key}` needs `{password_key}` too"))
                .help(format!("add {password_key} = {{ env = \"NAME\" }}"));
            return Err(Reported);
        }
        Ok(Some(RedisLogin { user, password: self.redis_secret(password_key, password)? }))
    }

    fn redis_tls(&mut self, typed: &RedisTable, access: Option<&RedisAccess>) -> Resolved<Option<RedisTls>> {
        let Some(access) = access else { return Err(Reported) };
        let keys = ClientTlsKeys {
            place: typed.place(),
            ca: &typed.ca,
            certificate: &typed.certificate,
            private_key: &typed.private_key,
        };
        if access.tls {
            return self.client_tls(&keys).map(|tls| Some(RedisTls { config: tls.config }));
        }
        for (key, place, is_given) in keys.given() {
            if is_given {
                self.findings
                    .error(place, format!("`{key}` is for TLS, and the address begins with redis://"))
                    .help("write rediss://, or take the key out");
                return Err(Reported);
            }
        }
        Ok(None)
    }

    fn redis_timeout(&mut self, typed: &Typed<Duration>) -> Resolved<Duration> {
        let timeout = typed.get()?;
        if (SHORTEST_TIMEOUT..=LONGEST_TIMEOUT).contains(&timeout) {
            return Ok(timeout);
        }
        self.findings
            .error(&typed.place, "`timeout` must be between \"100ms\" and \"20s\"")
            .help("leases of a minute have to be renewed within it; \"5s\" is the default");
        Err(Reported)
    }

    /// The connection carries all mail, and a client that needs no password could change the queue.
    fn check_what_others_can_reach(&mut self, typed: &RedisTable, access: &RedisAccess, login: bool) -> Resolved<()> {
        if access.place.addresses().iter().all(ServerAddress::is_local) {
            return Ok(());
        }
        let place = if typed.sentinel.is_given() { &typed.sentinel.place } else { &typed.url.place };
        if !access.tls {
            self.findings
                .error(place, "mail would cross the network in clear text: this Redis is not on this machine and its address begins with redis://")
                .help("write rediss:// (redis.conf: tls-port), or reach it by 127.0.0.1 or a Unix socket, for example through a tunnel");
        }
        if !login {
            self.findings
                .error(place, "this Redis is not on this machine and has no password: everyone who can reach it could read and change the queue")
                .help("give it one (redis.conf: requirepass or an ACL user), and add password = { env = \"NAME\" }");
        }
        if access.tls && login { Ok(()) } else { Err(Reported) }
    }

    fn redis_secret(&mut self, key: &str, typed: &Typed<SecretSource>) -> Resolved<Secret> {
        fetch(typed.value().ok_or(Reported)?, self.base, self.environment).map_err(|complaint| {
            self.findings.error(&typed.place, format!("`{key}`: {}", complaint.message)).help = complaint.help;
            Reported
        })
    }
}
