//! What can be typed in `config.toml`: every table, every key, each once, with its documentation and default.
//!
//! Values are of the right form here, no more: files are not read and references not followed; that is `settings`.

use super::masking::is_key_without_its_frame;
use super::patterns::{HeaderPatterns, OneOrMore, UpstreamNames};
use super::problem::{Findings, Place};
use super::queue::{QueueBackend, RetryTimes};
use super::rates::Rates;
use super::reader::{Section, Sections, settings};
use super::repair::RepairTable;
use super::rewrite::RewriteTable;
use super::schema::Schema;
use super::secret::SecretSource;
use super::value::{
    ByteSize, Complaint, Complaints, Count, PatternText, PortNumber, Retries, Text, Value, not_among, words,
};
use crate::delivery::Bounce;
use crate::dkim::Selector;
use crate::inbound::{AuthMode, LineEndings};
use crate::message::text_pattern::TextPattern;
use crate::observe::Secret;
use crate::observe::log::Format;
use crate::relay::TlsMode;
use crate::relay::provider::{self, Preset};
use crate::smtp::Domain;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The whole file.
#[derive(Debug, Clone)]
pub struct File {
    pub gateway: GatewayTable,
    pub listeners: Vec<ListenerTable>,
    pub users: Vec<UserTable>,
    pub dkim: Vec<DkimTable>,
    pub upstreams: Vec<UpstreamTable>,
    pub routes: Vec<RouteTable>,
    pub repair: RepairTable,
    pub rewrites: Vec<RewriteTable>,
    pub queue: QueueTable,
    pub log: LogTable,
}

/// The one table that is required.
pub const UPSTREAM_TABLE: &str = "upstream";

pub const SCHEMA: Schema = Schema(&[
    GatewayTable::TABLE,
    ListenerTable::TABLE,
    UserTable::TABLE,
    DkimTable::TABLE,
    UpstreamTable::TABLE,
    UpstreamLoginTable::TABLE,
    RouteTable::TABLE,
    RepairTable::TABLE,
    RewriteTable::TABLE,
    QueueTable::TABLE,
    LogTable::TABLE,
]);

settings! {
    /// The gateway as a whole. These keys belong at the top of the file, before the first [table].
    GatewayTable = "" {
        /// The name in the greeting, in EHLO and in Received headers; default: the host's full name. A name without a
        /// dot becomes an address literal in EHLO (some providers drop mail from "localhost").
        hostname: Domain, optional r#""gateway.example.com""#;
        /// Where the gateway keeps what it must not lose, for its own user only. Relative paths start at the folder of
        /// this file.
        data_dir: PathBuf, default r#""data""#;
        /// Mail whose From domain has no DKIM key: "refuse" (550 at once), "send" (it is sent unsigned), or a list of
        /// the domains that may. Without any key at all the default is "send", and every start says so.
        unsigned: UnsignedMail, default r#""refuse""#;
        /// Memory for messages in flight, both sides together; what does not fit waits or gets a 452. A body whose repair
        /// would take more than the half that is for mail coming in stays as it is.
        max_memory: ByteSize, default r#""256 MiB""#;
        /// How long a stop (SIGTERM) waits for messages that are under way. Container engines give 10 seconds.
        drain: Duration, default r#""8s""#;
    }
}

settings! {
    /// Where applications submit mail; several listeners are several tables. Without any: 127.0.0.1:2525 and
    /// [::1]:2525.
    ListenerTable = "listener", many: true {
        /// Address and port.
        address: SocketAddr, required r#""127.0.0.1:2525""#;
        /// "queue": the message is answered for as soon as it is on disk, and delivered and retried from there;
        /// "direct": the client waits and gets the provider's own answer.
        delivery: DeliveryMode, default r#""queue""#;
        /// "off", "starttls" (required before MAIL) or "implicit". Plausible does STARTTLS whenever it is offered and
        /// insists on a certificate of a public authority, so leave it off on loopback.
        tls: ListenerTls, default r#""off""#;
        /// PEM file with the certificate and its chain, for "starttls" and "implicit".
        certificate: PathBuf, optional r#""certs/gateway.pem""#;
        /// PEM file with the certificate's key.
        private_key: PathBuf, optional r#""certs/gateway.key""#;
        /// Networks that may send without a login. A listener beyond loopback needs a list of its own, or
        /// auth = "required".
        allow: Vec<IpNet>, default r#"["127.0.0.0/8", "::1/128"]"#;
        /// "off": only `allow`; "optional": `allow` or a login; "required": a login.
        auth: AuthMode, default r#""optional""#;
        /// Who may be the sender, in the envelope and in the From header. Default: the domains that have a [[dkim]]
        /// key or are listed in `unsigned`, and those below them; without any key: everyone.
        senders: Vec<PatternText>, optional r#"["*@example.com"]"#;
        /// Bare CR and LF in a message: "normalize" (they become CRLF) or "reject".
        line_endings: LineEndings, default r#""normalize""#;
        /// The largest message that is taken. It must fit into half of `max_memory`, together with what [[rewrite]] needs for it.
        max_message_size: ByteSize, default r#""25 MiB""#;
        /// Recipients of one message.
        max_recipients: Count, default "1000";
        /// Clients at once; a quarter is kept for those inside `allow`, unless `auth` is "required".
        max_connections: Count, default "1000";
        /// Clients at once from one address; outside `allow` an IPv6 network of 64 bits is one address.
        max_connections_per_address: Count, default "200";
        /// How long a client may take for each command; message data also has a minimum rate, and a client that needs
        /// a login has two minutes and a hundred commands for it.
        timeout: Duration, default r#""5m""#;
    }
}

settings! {
    /// Logins for applications.
    UserTable = "user", many: true {
        /// The name to log in with.
        name: String, required r#""plausible""#;
        /// The password's hash, as `waxseal user hash` prints it; as a secret it may also come from { env = "NAME" } or
        /// { file = "/run/secrets/NAME" }.
        password: SecretSource, required r#""$argon2id$...""#;
        /// Whom this login may send as, within the listener's `senders`. Default: whatever the listener allows.
        senders: Vec<PatternText>, optional r#"["*@example.com"]"#;
    }
}

settings! {
    /// DKIM keys. Several keys for one domain sign together (RSA and Ed25519); a domain's key serves the
    /// domains below it too.
    DkimTable = "dkim", many: true {
        /// The domain in the From header.
        domain: Domain, required r#""example.com""#;
        /// The name of the public key in the DNS: SELECTOR._domainkey.DOMAIN.
        selector: Selector, required r#""wax1""#;
        /// PEM file with the private key, as `waxseal dkim generate` makes it.
        private_key: KeySource, required r#""certs/dkim/example.com.wax1.pem""#;
        /// true: make the key at start if the file is missing, and print its DNS record.
        generate: bool, default "false";
    }
}

settings! {
    /// Providers that mail is relayed to. Always over verified TLS.
    UpstreamTable = "upstream", many: true {
        /// Its name in routes and in the log.
        name: String, required r#""company""#;
        /// "postmark", "mailgun", "mandrill", "sendgrid", "ses", "gmail" or "microsoft365", whose host, ports and limits are
        /// known (docs/providers.md); "smtp": any server; "sandbox": the one inside the gateway, which sends nothing.
        provider: ProviderName, required r#""smtp""#;
        /// Where the provider's servers are: "us" or "eu" for mailgun (default: "us"), such as "eu-central-1" for ses.
        region: String, optional r#""eu""#;
        /// Name or address of the server; needed for "smtp". Default: what is known of the provider.
        host: String, optional r#""smtp.example.com""#;
        /// The server's port. Left out, a known provider's other ports are tried where nothing answers on this one.
        port: PortNumber, default "587";
        /// "starttls" or "implicit"; default: what the port is for (465 and 2465: "implicit").
        tls: TlsMode, optional r#""starttls""#;
        /// Whom the certificate must name; default: `host`.
        server_name: String, optional r#""smtp.example.com""#;
        /// PEM file with certificates to trust besides the system's; may hold the server's own certificate.
        ca: PathBuf, optional r#""certs/company-ca.pem""#;
        /// The login. Leave both out for a server that asks for none.
        username: String, optional r#""relay""#;
        /// A literal, { env = "NAME" } or { file = "/run/secrets/NAME" }.
        password: SecretSource, optional r#"{ env = "RELAY_PASSWORD" }"#;
        /// Only for ses: the secret access key, from which the region's SMTP password is made.
        secret_key: SecretSource, optional r#"{ env = "AWS_SECRET_ACCESS_KEY" }"#;
        /// Connections at once, over everything: what the provider allows for the account. Known providers may have another
        /// default.
        max_connections: Count, default "4";
        /// Messages after which a connection is closed and a new one made.
        max_messages_per_connection: Count, default "100";
        /// Recipients of one transaction; more go in several. Default: what is known of the provider.
        max_recipients: Count, optional "50";
        /// Larger messages are not offered to this server. Default: what is known of the provider.
        max_message_size: ByteSize, optional r#""10 MiB""#;
        /// Whether the gateway signs what goes here. Default: true, but for postmark, which would break the signature.
        sign: bool, optional "true";
        /// true: the provider's open and click tracking is left as it is set up there, though it breaks the signature.
        tracking: bool, default "false";
        /// The local address to connect from; default: the system's choice.
        source_address: IpAddr, optional r#""192.0.2.10""#;
        /// How fast mail may go there, over all connections: one rate or several, each a number and a period (s, min, h,
        /// day), never exceeded in any stretch of that length. What is used of hours and days is remembered across
        /// restarts. Messages are counted, or recipients where the provider does. Default: what is known of the provider;
        /// [] for none.
        rate: Rates, optional r#"["14/s", "50000/day"]"#;
        /// Another upstream with the same account: its limits (connections and rates) count for both.
        share_limits_with: String, optional r#""other-upstream""#;
        /// For name lookup and connect, over all addresses of the host together; the TLS handshake gets as much again.
        connect_timeout: Duration, default r#""10s""#;
        /// For the reply to each command. RFC 5321 §4.5.3.2 asks for five minutes. A client that waits ("direct") is
        /// answered after 25 seconds whatever stands here.
        command_timeout: Duration, default r#""5m""#;
        /// For the reply to the whole message. RFC 5321 §4.5.3.2.6 asks for ten minutes.
        data_timeout: Duration, default r#""10m""#;
        /// After which an unused connection is closed; keep it below the provider's own.
        idle_timeout: Duration, default r#""30s""#;
        /// Immediate reconnects before an attempt counts as deferred.
        connect_retries: Retries, default "1";
    }
    nested credentials: UpstreamLoginTable
}

settings! {
    /// Logins of the [[upstream]] above for the mail of single domains, where the provider has one for each. Other mail uses
    /// the upstream's own login; if it has none, such mail waits.
    UpstreamLoginTable = "upstream.credentials", many: true {
        /// The domain in the From header, else of the envelope's sender. Its login serves the domains below it too.
        domain: Domain, required r#""example.com""#;
        /// As in [[upstream]].
        username: String, optional r#""postmaster@example.com""#;
        /// As in [[upstream]].
        password: SecretSource, optional r#"{ env = "EXAMPLE_COM_PASSWORD" }"#;
    }
}

settings! {
    /// Which mail goes to which upstream: the first match wins, and what matches none is not sent. Without routes all
    /// mail goes to the first upstream.
    RouteTable = "route", many: true {
        /// Its name in the log.
        name: String, required r#""reports""#;
        /// Envelope senders.
        senders: Vec<PatternText>, default r#"["*"]"#;
        /// Envelope recipients.
        recipients: Vec<PatternText>, default r#"["*"]"#;
        /// Headers, each of which must be there and fit: a pattern as in "report*", or a regular expression as in
        /// "/^report/".
        header: HeaderPatterns, optional r#"{ X-Kind = "report*" }"#;
        /// The login that the mail came in with: a name, a pattern, or a list. Mail without a login does not fit.
        user: OneOrMore<TextPattern>, optional r#""plausible""#;
        /// The mail's tag, likewise. Mail without a tag does not fit.
        tag: OneOrMore<TextPattern>, optional r#""weekly-*""#;
        /// Names of upstreams in order: the next is tried when one is unavailable. With weights, as in
        /// { company = 3, backup = 1 }, one of them is drawn for each message, and the others follow.
        upstreams: UpstreamNames, required r#"["company", "backup"]"#;
        /// true: what one upstream refuses permanently is offered to the next; the last reply counts.
        retry_refused: bool, default "false";
    }
}

settings! {
    /// The queue: mail that was accepted and not yet delivered, and what is remembered of mail that was.
    QueueTable = "queue" {
        /// "sqlite": a database in `data_dir`.
        backend: QueueBackend, default r#""sqlite""#;
        /// Waits between attempts grow from the first to the longest.
        retry: RetryTimes, default r#"{ first = "30s", longest = "1h" }"#;
        /// The age at which undelivered mail fails. RFC 5321 §4.5.4.1 asks for four to five days.
        expire: Duration, default r#""5d""#;
        /// How long failed mail is kept, whole, to be looked at and sent again.
        keep_failed: Duration, default r#""14d""#;
        /// How long a one-row summary is kept for each delivered message: addresses, time, upstream, reply.
        keep_history: Duration, default r#""14d""#;
        /// Who gets a bounce for failed mail: "off" (nobody; see `waxseal queue`), "sender", or an address.
        bounce: Bounce, default r#""off""#;
        /// Free space in `data_dir` below which no new mail is accepted; delivery continues. At least "16 MiB", which
        /// it needs for that.
        min_free_space: ByteSize, default r#""256 MiB""#;
    }
}

settings! {
    /// The log, on standard output.
    LogTable = "log" {
        /// "pretty" or "json".
        format: Format, default r#""pretty""#;
        /// "error", "warn", "info", "debug" or "trace"; or a filter such as "info,waxseal::relay=debug".
        level: String, default r#""info""#;
    }
}

/// `unsigned` as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnsignedMail {
    Refuse,
    Send,
    Domains(Vec<Domain>),
}

words! { UnsignedWord, "\"refuse\", \"send\" or a list of domains", {
    "refuse" => UnsignedWord(UnsignedMail::Refuse),
    "send" => UnsignedWord(UnsignedMail::Send),
} }
struct UnsignedWord(UnsignedMail);

impl Value for UnsignedMail {
    fn read(value: &Spanned<DeValue<'_>>, complaints: &mut Complaints<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Array(_) => Vec::read(value, complaints).map(Self::Domains),
            _ => <UnsignedWord as Value>::read(value, complaints).map(|word| word.0),
        }
    }
}

/// Where a DKIM key comes from. In the file it is always a path; the environment may hold the key itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    Path(PathBuf),
    Pem(Secret),
}

impl Text for KeySource {
    const EXPECTED: &'static str = PathBuf::EXPECTED;

    fn parse(text: &str) -> Result<Self, Complaint> {
        if is_key_without_its_frame(text) {
            return Err(Complaint::new(
                "it holds a key without its BEGIN and END lines",
                "give the path of a file, or the whole PEM text where that may stand",
            ));
        }
        <PathBuf as Text>::parse(text).map(Self::Path)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryMode {
    Direct,
    Queue,
}

words! { DeliveryMode, "\"queue\" or \"direct\"", { "queue" => Self::Queue, "direct" => Self::Direct } }

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerTls {
    Off,
    StartTls,
    Implicit,
}

words! { ListenerTls, "\"off\", \"starttls\" or \"implicit\"", {
    "off" => Self::Off,
    "starttls" => Self::StartTls,
    "implicit" => Self::Implicit,
} }

words! { AuthMode, "\"off\", \"optional\" or \"required\"", {
    "off" => Self::Off,
    "optional" => Self::Optional,
    "required" => Self::Required,
} }

words! { LineEndings, "\"normalize\" or \"reject\"", {
    "normalize" => Self::Normalize,
    "reject" => Self::Reject,
} }

words! { TlsMode, "\"starttls\" or \"implicit\"", {
    "starttls" => Self::StartTls,
    "implicit" => Self::Implicit,
} }

words! { Format, "\"pretty\" or \"json\"", { "pretty" => Self::Pretty, "json" => Self::Json } }

/// A provider of which something is known.
#[derive(Debug, Clone, Copy)]
pub struct ProviderName(pub &'static Preset);

impl Text for ProviderName {
    const EXPECTED: &'static str = "a provider's name such as \"smtp\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        provider::named(text).map(Self).ok_or_else(|| not_among(text, &provider::ALL.map(|preset| preset.name)))
    }
}

impl File {
    /// Reads a parsed document.
    pub fn read(document: &DeTable<'_>, findings: &mut Findings) -> Self {
        let mut sections = Sections { document, schema: SCHEMA, findings };
        Self {
            gateway: sections.read(document, Place::Nowhere),
            listeners: sections.many(),
            users: sections.many(),
            dkim: sections.many(),
            upstreams: sections.many(),
            routes: sections.many(),
            repair: sections.one(),
            rewrites: sections.many(),
            queue: sections.one(),
            log: sections.one(),
        }
    }

    /// A file in which nothing was typed.
    pub fn empty() -> Self {
        Self {
            gateway: GatewayTable::empty(Place::Nowhere),
            listeners: Vec::new(),
            users: Vec::new(),
            dkim: Vec::new(),
            upstreams: Vec::new(),
            routes: Vec::new(),
            repair: RepairTable::empty(Place::Nowhere),
            rewrites: Vec::new(),
            queue: QueueTable::empty(Place::Nowhere),
            log: LogTable::empty(Place::Nowhere),
        }
    }
}
