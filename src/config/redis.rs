//! Values of `[queue.redis]`: where the shared queue is, and what is asked of it.

use super::maps::known_keys;
use super::pem_source::PemSource;
use super::reader::settings;
use super::secret::SecretSource;
use super::value::{Complaint, Complaints, Number, Text, Value, words};
use crate::queue::redis::options::Fallback;
use std::time::Duration;
use toml::Spanned;
use toml::de::DeValue;

settings! {
    /// With backend = "redis": the Redis (7.0 or later) or Valkey in which several gateways have one queue. docs/scale.md says
    /// how to run them, which promise each set-up keeps, and what happens when Redis is away.
    RedisTable = "queue.redis" {
        /// Where it is: redis://HOST:PORT/DATABASE, rediss:// for TLS, or unix:///PATH for a socket on this machine; itself, or
        /// { env = "NAME" } or { file = "/run/secrets/NAME" }, because it may contain a login, as in
        /// rediss://USER:PASSWORD@HOST:PORT. Beyond this machine TLS and a password are required. Of a cluster several nodes can
        /// be named, with commas between them.
        url: SecretSource, optional r#""rediss://redis.example.com:6379""#;
        /// The user (ACL) at Redis. Default: the server's default user.
        user: String, optional r#""waxseal""#;
        /// The user's password: itself, { env = "NAME" } or { file = "/run/secrets/NAME" }.
        password: SecretSource, optional r#"{ env = "REDIS_PASSWORD" }"#;
        /// In the place of `url`: the name of a master that Sentinel watches, and where the Sentinels are, as in
        /// "sentinel1.example.com:26379" or, with TLS to them and to the master, "rediss://sentinel1.example.com:26379".
        sentinel: SentinelPlace, optional r#"{ master = "wax", addresses = ["rediss://sentinel1.example.com:26379"] }"#;
        /// The login at the Sentinels, if they ask for one; it is not that of the master.
        sentinel_user: String, optional r#""waxseal""#;
        /// The password at the Sentinels.
        sentinel_password: SecretSource, optional r#"{ env = "SENTINEL_PASSWORD" }"#;
        /// true: `url` names nodes of a Redis Cluster.
        cluster: bool, default "false";
        /// Parts into which a cluster's queue is divided, each on one node. It cannot be changed while mail is in the queue.
        shards: Number<1, 1024>, default "16";
        /// PEM file with certificates to trust besides the system's authorities. It may contain the server's own certificate.
        ca: PemSource, optional r#""certs/redis-ca.pem""#;
        /// For a server that asks for a client certificate (tls-auth-clients): PEM file with the gateway's certificate and its
        /// chain.
        certificate: PemSource, optional r#""certs/redis-client.pem""#;
        /// The certificate's private key.
        private_key: PemSource, optional r#""certs/redis-client.key""#;
        /// The beginning of every key. Gateways with the same prefix in the same database share a queue.
        prefix: KeyPrefix, default r#""wax""#;
        /// This gateway's name in the log and in Redis. Default: the machine's name.
        instance: String, optional r#""gateway-1""#;
        /// The time limit of one command, and of connecting.
        timeout: Duration, default r#""5s""#;
        /// A Redis whose settings can lose mail that was acknowledged with a 250 is refused. true: it is accepted, and every start
        /// says what can be lost.
        accept_data_loss: bool, default "false";
        /// What happens to new mail while Redis cannot be reached: "off": clients get a 451 and try again. "sqlite": it is
        /// stored in `data_dir`, acknowledged, and moved into Redis when that answers; nothing is delivered meanwhile.
        fallback: Fallback, default r#""off""#;
    }
}

words! { Fallback, "\"off\" or \"sqlite\"", { "off" => Self::Off, "sqlite" => Self::Sqlite } }

/// `sentinel` as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentinelPlace {
    pub master: String,
    pub addresses: Vec<String>,
}

const EXAMPLE: &str = "{ master = \"wax\", addresses = [\"sentinel1.example.com:26379\"] }";

impl Value for SentinelPlace {
    fn expected() -> String {
        format!("a table such as {EXAMPLE}")
    }

    fn read(value: &Spanned<DeValue<'_>>, complaints: &mut Complaints<'_>) -> Option<Self> {
        let [master, addresses] = known_keys(value, ["master", "addresses"], EXAMPLE, complaints)?;
        let master = String::read(master, complaints);
        let at = addresses.span();
        let addresses = Vec::<String>::read(addresses, complaints)?;
        if addresses.is_empty() {
            let message = "`addresses` is an empty list";
            complaints.bad_value(at, Complaint::new(message, "name each Sentinel with its port, usually 26379"));
            return None;
        }
        Some(Self { master: master?, addresses })
    }
}

/// The beginning of keys. Braces would choose the hash slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPrefix(pub String);

impl Text for KeyPrefix {
    const EXPECTED: &'static str = "a word such as \"wax\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
        if (1..=64).contains(&text.len()) && text.bytes().all(is_part) {
            return Ok(Self(text.to_owned()));
        }
        Err(Complaint::new(
            "it is not a valid prefix",
            "use at most 64 letters, digits, and the signs `_`, `.`, `:` and `-`, as in \"wax\"",
        ))
    }
}
