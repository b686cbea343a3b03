//! Every variable that the gateway reads, once: its name, the key that it sets, its kind of value, and its meaning.
//! `waxseal check --defaults` and docs/configuration.md are written from this table.

/// The kind of value of a variable. Decides what is stripped from the value, and what messages may show of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Never shown, and used literally: quotes may belong to it.
    Secret,
    /// A word or a number. Any other text is not shown, because lines may have been mixed up.
    Word,
    /// A name, a path, or a list of them.
    Text,
    /// A path, or the PEM text itself.
    Pem,
}

#[derive(Debug)]
pub struct Variable {
    pub name: &'static str,
    pub kind: Kind,
    /// Table and key that it sets, as in "upstream.host"; empty if there is none.
    pub setting: &'static str,
    pub meaning: &'static str,
}

const fn secret(name: &'static str, setting: &'static str, meaning: &'static str) -> Variable {
    Variable { name, kind: Kind::Secret, setting, meaning }
}

const fn word(name: &'static str, setting: &'static str, meaning: &'static str) -> Variable {
    Variable { name, kind: Kind::Word, setting, meaning }
}

const fn text(name: &'static str, setting: &'static str, meaning: &'static str) -> Variable {
    Variable { name, kind: Kind::Text, setting, meaning }
}

const fn pem(name: &'static str, setting: &'static str, meaning: &'static str) -> Variable {
    Variable { name, kind: Kind::Pem, setting, meaning }
}

/// Names another folder of secrets, as it does for Plausible.
pub const SECRETS_FOLDER_VARIABLE: &str = "CONFIG_DIR";
/// The configuration file, for the command line.
pub const CONFIG_VARIABLE: &str = "WAXSEAL_CONFIG";

pub const VARIABLES: &[Variable] = &[
    text(
        "SMTP_HOST_ADDR",
        "upstream.host",
        "the provider; makes an upstream named `environment`, which gets what no route takes",
    ),
    word("SMTP_HOST_PORT", "upstream.port", "its port; default 587"),
    text("SMTP_USER_NAME", "upstream.username", "login at the provider, together with SMTP_USER_PWD"),
    secret("SMTP_USER_PWD", "upstream.password", "password at the provider, or its token"),
    word("SMTP_HOST_SSL_ENABLED", "upstream.tls", "true: TLS from the start; default: what the port is for"),
    word("SMTP_POOL_SIZE", "upstream.max_connections", "connections at once, `max_connections`"),
    word("SMTP_RETRIES", "upstream.connect_retries", "quick connect retries, `connect_retries`"),
    text("WAXSEAL_RATE", "upstream.rate", "how fast mail may go there, as in \"14/s,50000/day\", `rate`"),
    text(
        "WAXSEAL_PROVIDER",
        "upstream.provider",
        "a known provider, as in `provider`: makes the upstream without SMTP_HOST_ADDR; \"sandbox\" needs no account",
    ),
    text("WAXSEAL_REGION", "upstream.region", "the provider's `region`"),
    secret(
        "WAXSEAL_SECRET_KEY",
        "upstream.secret_key",
        "only for ses: the secret access key, in place of SMTP_USER_PWD",
    ),
    text(
        "WAXSEAL_SERVER_NAME",
        "upstream.server_name",
        "the name that the provider's certificate must have, `server_name`",
    ),
    pem(
        "WAXSEAL_CA",
        "upstream.ca",
        "certificates to trust besides the system's: the PEM text, or the path of its file",
    ),
    pem(
        "WAXSEAL_CLIENT_CERTIFICATE",
        "upstream.certificate",
        "the client certificate for the provider, with its chain: the PEM text, or the path of its file",
    ),
    pem(
        "WAXSEAL_CLIENT_PRIVATE_KEY",
        "upstream.private_key",
        "the client certificate's private key: the PEM text, or the path of its file",
    ),
    text("WAXSEAL_SOURCE_ADDRESS", "upstream.source_address", "the local address to connect from, `source_address`"),
    text(
        "WAXSEAL_LISTEN",
        "listener.address",
        "addresses to listen on, with commas; they replace the file's [[listener]] tables",
    ),
    text(
        "WAXSEAL_ALLOW",
        "listener.allow",
        "networks that may send without a login, with commas; for listeners without `allow`",
    ),
    text(
        "WAXSEAL_PROXY_PROTOCOL",
        "listener.proxy_protocol",
        "networks of load balancers that send a PROXY header, with commas; for listeners without `proxy_protocol`",
    ),
    text("WAXSEAL_USER", "user.name", "a login for applications, together with WAXSEAL_PASSWORD"),
    secret("WAXSEAL_PASSWORD", "user.password", "its password, or the hash that `waxseal user hash` prints"),
    text(
        "WAXSEAL_SENDERS",
        "listener.senders",
        "senders that are accepted, with commas; for listeners without `senders`",
    ),
    word("WAXSEAL_DELIVERY", "listener.delivery", "\"queue\" or \"direct\"; for listeners without `delivery`"),
    word("WAXSEAL_TLS", "listener.tls", "\"off\", \"starttls\" or \"implicit\"; for listeners without `tls`"),
    pem(
        "WAXSEAL_CERTIFICATE",
        "listener.certificate",
        "the listeners' certificate and chain: PEM text, or the path of its file",
    ),
    pem(
        "WAXSEAL_PRIVATE_KEY",
        "listener.private_key",
        "the certificate's private key: PEM text, or the path of its file",
    ),
    text(
        "WAXSEAL_MAX_MESSAGE_SIZE",
        "listener.max_message_size",
        "the largest message that is taken, as in \"25 MiB\"; for listeners without `max_message_size`",
    ),
    text("WAXSEAL_HOSTNAME", ".hostname", "`hostname`"),
    text("WAXSEAL_DATA_DIR", ".data_dir", "`data_dir`"),
    text("WAXSEAL_UNSIGNED", ".unsigned", "`unsigned`: \"refuse\", \"send\", or domains with commas"),
    text("WAXSEAL_MAX_MEMORY", ".max_memory", "`max_memory`"),
    text("WAXSEAL_DRAIN", ".drain", "`drain`"),
    text("WAXSEAL_BOUNCE", "queue.bounce", "`bounce` of the queue"),
    text("WAXSEAL_BOUNCE_SENDER", "queue.bounce_sender", "`bounce_sender` of the queue"),
    text("WAXSEAL_EXPIRE", "queue.expire", "`expire` of the queue"),
    text("WAXSEAL_MIN_FREE_SPACE", "queue.min_free_space", "`min_free_space` of the queue"),
    word("WAXSEAL_BACKEND", "queue.backend", "`backend` of the queue: \"sqlite\" or \"redis\""),
    secret(
        "WAXSEAL_REDIS_URL",
        "queue.redis.url",
        "the Redis of the queue, as in rediss://user:password@redis.example.com:6379; for WAXSEAL_BACKEND=redis",
    ),
    text("WAXSEAL_REDIS_USER", "queue.redis.user", "the user at Redis, unless the URL names one"),
    secret("WAXSEAL_REDIS_PASSWORD", "queue.redis.password", "the password at Redis, unless the URL has it"),
    pem(
        "WAXSEAL_REDIS_CA",
        "queue.redis.ca",
        "certificates to trust at Redis besides the system's: the PEM text, or the path of its file",
    ),
    text("WAXSEAL_REDIS_PREFIX", "queue.redis.prefix", "the beginning of all keys in Redis, `prefix`"),
    text("WAXSEAL_INSTANCE", "queue.redis.instance", "this gateway's name among those that share a queue, `instance`"),
    word("WAXSEAL_DOCTOR_AT_START", "doctor.at_start", "`at_start` of doctor: \"true\" or \"false\""),
    text("WAXSEAL_DOCTOR_DNS", "doctor.dns", "`dns` of doctor"),
    text(
        "WAXSEAL_ADMIN_ADDRESS",
        "admin.address",
        "`address` of [admin]: where health and metrics are served; or \"off\"",
    ),
    secret("WAXSEAL_ADMIN_TOKEN", "admin.token", "`token` of [admin], needed beyond loopback"),
    text("WAXSEAL_ADMIN_HOSTS", "admin.hosts", "`hosts` of [admin], with commas"),
    text("WAXSEAL_LOG_LEVEL", "log.level", "`level` of the log"),
    word("WAXSEAL_LOG_FORMAT", "log.format", "`format` of the log: \"pretty\" or \"json\""),
    text(
        CONFIG_VARIABLE,
        "",
        "the configuration file, unless `--config` names one; never a file of the secrets folder",
    ),
    text("DKIM_DOMAIN", "dkim.domain", "a DKIM key's domain, together with the next two"),
    text("DKIM_SELECTOR", "dkim.selector", "the key's selector"),
    pem("DKIM_PRIVATE_KEY", "dkim.private_key", "the key itself (PEM), or the path of its file"),
    word(
        "DKIM_GENERATE",
        "dkim.generate",
        "true: make the key at start if its file is missing, in the data folder where DKIM_PRIVATE_KEY names no other",
    ),
];

/// Plausible's variables that the gateway ignores or only reads for checks. They are often in the same file as ours.
pub const PLAUSIBLE_ONLY: &[&str] = &["MAILER_EMAIL", "MAILER_NAME", "MAILER_ADAPTER", SECRETS_FOLDER_VARIABLE];

pub fn named(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name)
}

impl Variable {
    /// Empty for the top of the file.
    pub fn table(&self) -> &'static str {
        self.setting.rsplit_once('.').map_or("", |(table, _)| table)
    }

    pub fn key(&self) -> &'static str {
        self.setting.rsplit_once('.').map_or("", |(_, key)| key)
    }
}

/// The variable that sets a key.
pub fn of_key(table: &str, key: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| !variable.setting.is_empty() && variable.table() == table && variable.key() == key)
}
