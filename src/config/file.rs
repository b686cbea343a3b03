//! What can be typed in `config.toml`: every table, every key, each once, with its documentation and default.
//!
//! Values are only checked one by one: `resolve` reads files and follows references.

use super::admin::{AdminAddress, AdminHost};
use super::doctor::DnsServer;
use super::expect::NotifyAddress;
use super::patterns::{HeaderPatterns, OneOrMore, UpstreamNames};
use super::pem_source::PemSource;
use super::problem::{Findings, Place};
use super::queue::{MinFreeSpace, QueueBackend, RetryTimes};
use super::rates::Rates;
use super::reader::{Section, Sections, settings};
use super::redis::RedisTable;
use super::repair::RepairTable;
use super::rewrite::RewriteTable;
use super::schema::Schema;
use super::secret::SecretSource;
use super::suggest::one_of;
use super::value::{
    ByteSize, Complaint, Complaints, Count, HostName, LogLevel, Number, PatternText, PortNumber, Retries, Text, Value,
    not_among, words,
};
use crate::delivery::Bounce;
use crate::dkim::Selector;
use crate::inbound::{AuthMode, LineEndings, OverRate};
use crate::message::Mark;
use crate::message::text_pattern::TextPattern;
use crate::message::trace::ReceivedDetail;
use crate::observe::CheckId;
use crate::observe::log::Format;
use crate::relay::TlsMode;
use crate::relay::provider::{self, Preset};
use crate::smtp::{Domain, ReversePath};
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
    pub trace: TraceTable,
    pub storm: StormTable,
    pub expected: Vec<ExpectTable>,
    pub queue: QueueTable,
    pub doctor: DoctorTable,
    pub admin: AdminTable,
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
    TraceTable::TABLE,
    StormTable::TABLE,
    ExpectTable::TABLE,
    QueueTable::TABLE,
    RedisTable::TABLE,
    DoctorTable::TABLE,
    AdminTable::TABLE,
    LogTable::TABLE,
]);

settings! {
    /// These keys belong at the top of the file, before the first [table].
    GatewayTable = "" {
        /// The gateway's name in greetings, in EHLO and in Received headers. Default: the host's full name. Give a full name
        /// such as this one: some providers drop mail from "localhost", and a name without a dot becomes an address literal
        /// in EHLO.
        hostname: HostName, optional r#""gateway.example.com""#;
        /// The folder for the gateway's data, readable only by its own user. It is created if it is missing; a folder that
        /// contains other files and that other users may enter is refused.
        data_dir: PathBuf, default r#""data""#;
        /// What to do with mail whose From domain has no DKIM key below: "refuse" (an immediate 550), "send" (unsigned), or a
        /// list of the domains whose mail may be sent unsigned, as in ["example.org"]. If there is no key at all, the default
        /// is "send", with a warning at every start.
        unsigned: UnsignedMail, default r#""refuse""#;
        /// Memory for all messages in progress, incoming and outgoing; a message that does not fit waits or gets a 452. Half
        /// of it is for incoming mail; a body whose repair would need more than that half stays as it is.
        max_memory: ByteSize, default r#""256 MiB""#;
        /// How long a stop (SIGTERM) waits for messages in progress. Container engines allow 10 seconds in total.
        drain: Duration, default r#""8s""#;
    }
}

settings! {
    /// One table for each listener. Without any, the gateway listens on 127.0.0.1:2525 and [::1]:2525.
    ListenerTable = "listener", many: true {
        /// The address and port to listen on.
        address: SocketAddr, required r#""127.0.0.1:2525""#;
        /// "queue": the application gets its 250 as soon as the message is safe on disk; it is delivered immediately, and
        /// retried for days if necessary. "direct": the application waits for the provider's own answer, and gets it.
        delivery: DeliveryMode, default r#""queue""#;
        /// "off", "starttls" (required before mail is accepted) or "implicit" (TLS from the start). Use "off" on one machine:
        /// Plausible uses STARTTLS whenever it is offered, and then requires a publicly trusted certificate.
        tls: ListenerTls, default r#""off""#;
        /// PEM file with the certificate and its chain, for "starttls" and "implicit".
        certificate: PemSource, optional r#""certs/gateway.pem""#;
        /// PEM file with the certificate's private key.
        private_key: PemSource, optional r#""certs/gateway.key""#;
        /// The networks that may send without a login. A listener that other machines can reach needs its own list, or
        /// auth = "required".
        allow: Vec<IpNet>, default r#"["127.0.0.0/8", "::1/128"]"#;
        /// Who may send: "off" (only the networks in `allow`), "optional" (those, or a client with a login) or "required"
        /// (only clients with a login).
        auth: AuthMode, default r#""optional""#;
        /// The networks of load balancers (HAProxy, cloud balancers for TCP) that begin each connection with a PROXY header,
        /// version 1 or 2. From them the header is required, and `allow`, the limits per address, the log and the Received header
        /// see the real client; from any other address it is refused. Default: none.
        proxy_protocol: Vec<IpNet>, default "[]";
        /// Which senders are accepted, in the envelope and in the From header. Default: the domains that have a [[dkim]] key
        /// or are listed in `unsigned`, and the domains below them; without any key, all senders.
        senders: Vec<PatternText>, optional r#"["*@example.com"]"#;
        /// What to do with a bare CR or LF in a message: "normalize" makes it CRLF, "reject" refuses the message.
        line_endings: LineEndings, default r#""normalize""#;
        /// The largest message that is accepted. It must fit into half of `max_memory`, together with the memory that your
        /// rules need for it.
        max_message_size: ByteSize, default r#""25 MiB""#;
        /// The maximum number of recipients of one message.
        max_recipients: Count, default "1000";
        /// Simultaneous clients. A quarter of them is reserved for clients inside `allow`, unless auth = "required".
        max_connections: Count, default "1000";
        /// Simultaneous clients from one address; outside `allow` an IPv6 network of 64 bits counts as one address.
        ///
        /// An address from which nobody has logged in during the last day may use half of it, and may have sixty connections
        /// per minute that end without a login. For other addresses, a new connection replaces the one that has waited longest
        /// for its login.
        max_connections_per_address: Count, default "200";
        /// How long a client may take for each command. Message data also has a minimum rate, and a client that needs a login
        /// has two minutes and a hundred commands for it.
        timeout: Duration, default r#""5m""#;
        /// How much mail may come in here, from all clients together: one rate or several, per s, min, h or day. Every recipient counts
        /// once its message is accepted. What was used of hours and days is remembered across restarts. Default: no limit.
        rate: Rates, optional r#"["100/min", "5000/day"]"#;
        /// What becomes of mail that is over its rate: "refuse" (a 452, which says when to come back) or "wait" (it is
        /// accepted, and sent when the rate permits, evenly spread; what would have to wait longer than half of `expire` is
        /// refused). A client that waits for the provider's reply (delivery = "direct") is refused in any case.
        over_rate: OverRate, default r#""refuse""#;
    }
}

settings! {
    /// One table for each application that logs in.
    UserTable = "user", many: true {
        /// The name to log in with. Names are logged: never use a token as one.
        name: String, required r#""plausible""#;
        /// The password's hash, as `waxseal user hash` prints it. It can also come from { env = "NAME" } or
        /// { file = "/run/secrets/NAME" }, where the password itself is accepted too.
        password: SecretSource, required r#""$argon2id$...""#;
        /// The senders that this login may use, within the listener's `senders`. Default: all that the listener accepts.
        senders: Vec<PatternText>, optional r#"["*@example.com"]"#;
        /// How much mail may come in with this login, on all listeners together: one rate or several, per s, min, h or day. Every recipient counts
        /// once its message is accepted. What was used of hours and days is remembered across restarts. Default: no limit.
        rate: Rates, optional r#"["100/min", "5000/day"]"#;
        /// What becomes of mail that is over its rate: "refuse" (a 452, which says when to come back) or "wait" (it is
        /// accepted, and sent when the rate permits, evenly spread; what would have to wait longer than half of `expire` is
        /// refused). A client that waits for the provider's reply (delivery = "direct") is refused in any case.
        over_rate: OverRate, default r#""refuse""#;
    }
}

settings! {
    /// Several keys for one domain all sign (RSA and Ed25519). A key also signs for the domains below its own.
    DkimTable = "dkim", many: true {
        /// The domain in the From header.
        domain: Domain, required r#""example.com""#;
        /// The name of the public key in the DNS: SELECTOR._domainkey.DOMAIN.
        selector: Selector, required r#""wax1""#;
        /// PEM file with the private key.
        private_key: PemSource, required r#""certs/dkim/example.com.wax1.pem""#;
        /// true: create the key at start if the file is missing, and print its DNS record. Default: false; create keys with
        /// `waxseal dkim generate example.com --selector wax1`.
        generate: bool, default "false";
    }
}

settings! {
    /// Where the mail goes: a known provider, or any other server. TLS is always used and always verified. docs/providers.md
    /// describes each known provider (host, ports, limits, headers, how it says "slow down") and what to set up there.
    UpstreamTable = "upstream", many: true {
        /// Its name in routes and in the log.
        name: String, required r#""company""#;
        /// A provider that waxseal knows, whose host, ports and limits are then the defaults; "smtp" for any other server; or
        /// "sandbox", the one inside the gateway, which checks the signature and keeps the mail.
        provider: ProviderName, required r#""smtp""#;
        /// Where the provider's servers are: "us" or "eu" for mailgun (default: "us"), a region such as "eu-central-1" for
        /// ses.
        region: String, optional r#""eu""#;
        /// The server's name or address. Required with provider = "smtp"; default: the provider's.
        host: String, optional r#""smtp.example.com""#;
        /// The server's port. Without this key, a known provider's other ports are tried if this one does not answer.
        port: PortNumber, default "587";
        /// How TLS begins: "starttls" or "implicit". Default: "implicit" on ports 465 and 2465, "starttls" on others.
        tls: TlsMode, optional r#""starttls""#;
        /// The name that the certificate must have. Default: `host`.
        server_name: String, optional r#""smtp.example.com""#;
        /// PEM file with certificates to trust besides the system's authorities. It may contain the server's own certificate.
        ca: PemSource, optional r#""certs/company-ca.pem""#;
        /// For a server that asks for a client certificate: PEM file with the gateway's certificate and its chain, or
        /// { env = "NAME" } for a variable that holds the PEM text or the path of its file. Without `username` it is also
        /// the login, if the server offers AUTH EXTERNAL.
        certificate: PemSource, optional r#""certs/gateway-client.pem""#;
        /// The certificate's private key, in the same way.
        private_key: PemSource, optional r#""certs/gateway-client.key""#;
        /// The login. Leave out both keys for a server that asks for none.
        username: String, optional r#""relay""#;
        /// The password itself, { env = "NAME" } or { file = "/run/secrets/NAME" }.
        password: SecretSource, optional r#"{ env = "RELAY_PASSWORD" }"#;
        /// Only for ses: the secret access key. The region's SMTP password is derived from it.
        secret_key: SecretSource, optional r#"{ env = "AWS_SECRET_ACCESS_KEY" }"#;
        /// Simultaneous connections, as many as the provider allows for the account. Known providers may have another default.
        max_connections: Count, default "4";
        /// Messages after which a connection is replaced by a new one. Known providers may have another default.
        max_messages_per_connection: Count, default "100";
        /// Recipients of one transaction; more are split over several. Default: the provider's limit.
        max_recipients: Count, optional "50";
        /// Larger messages are not offered to this server. Default: the provider's limit.
        max_message_size: ByteSize, optional r#""10 MiB""#;
        /// Whether the gateway signs mail for this upstream. Default: true, except for postmark, which rewrites mail and signs
        /// it itself.
        sign: bool, optional "true";
        /// Open and click tracking breaks signatures, so providers are asked to turn it off for each mail. true: the
        /// provider's own setting applies.
        tracking: bool, default "false";
        /// The local address to connect from. Default: the system's choice.
        source_address: IpAddr, optional r#""192.0.2.10""#;
        /// The maximum rate over all connections: one rate or several, per s, min, h or day, never exceeded in any period of
        /// that length. Counts messages, or recipients if the provider counts those. The usage of hours and days is kept
        /// across restarts. Default: the provider's limits; [] for no limit. A provider that asks for a slower pace always
        /// gets it.
        rate: Rates, optional r#"["14/s", "50000/day"]"#;
        /// Another upstream with the same account: its connections and rates count for both.
        share_limits_with: String, optional r#""other-upstream""#;
        /// For name lookup and connecting together, over all addresses of the host; the TLS handshake has the same time again.
        connect_timeout: Duration, default r#""10s""#;
        /// For the reply to each command. RFC 5321 §4.5.3.2 asks for five minutes. An application that waits
        /// (delivery = "direct") gets its answer after 25 seconds at most, whatever the value.
        command_timeout: Duration, default r#""5m""#;
        /// For the reply to the whole message. RFC 5321 §4.5.3.2.6 asks for ten minutes.
        data_timeout: Duration, default r#""10m""#;
        /// After this time an unused connection is closed. Keep it below the provider's own.
        idle_timeout: Duration, default r#""30s""#;
        /// Immediate reconnects before an attempt counts as failed.
        connect_retries: Retries, default "1";
    }
    nested credentials: UpstreamLoginTable;
}

settings! {
    /// For providers with a separate login for each sender domain: one table for each, after the keys of its upstream. Other
    /// mail uses the upstream's own login; without one, such mail waits.
    UpstreamLoginTable = "upstream.credentials", many: true {
        /// The domain in the From header, otherwise of the envelope's sender. The login is also used for the domains below it.
        domain: Domain, required r#""example.com""#;
        /// As in [[upstream]].
        username: String, optional r#""postmaster@example.com""#;
        /// As in [[upstream]].
        password: SecretSource, optional r#"{ env = "EXAMPLE_COM_PASSWORD" }"#;
    }
}

settings! {
    /// The first route whose conditions all match is used; mail that matches no route is not sent. Without routes, all mail
    /// goes to the first upstream. A changed route also applies to mail that is already waiting.
    RouteTable = "route", many: true {
        /// Its name in the log.
        name: String, required r#""reports""#;
        /// Condition: the envelope's sender.
        senders: Vec<PatternText>, default r#"["*"]"#;
        /// Condition: the envelope's recipient.
        recipients: Vec<PatternText>, default r#"["*"]"#;
        /// Condition: headers, each of which must exist and match: a pattern as in "report*", or a regular expression as in
        /// "/^report/".
        header: HeaderPatterns, optional r#"{ X-Kind = "report*" }"#;
        /// Condition: the login that submitted the mail: a name, a pattern, or a list of them. Mail without a login does not
        /// match.
        user: OneOrMore<TextPattern>, optional r#""plausible""#;
        /// Condition: the mail's tag, in the same way. Mail without a tag does not match.
        tag: OneOrMore<TextPattern>, optional r#""weekly-*""#;
        /// The upstreams to use. In a list, the next is tried when one is unavailable. With weights, as in
        /// { company = 3, backup = 1 }, one is chosen at random for each message, and the others are tried when it is
        /// unavailable.
        upstreams: UpstreamNames, required r#"["company", "backup"]"#;
        /// Mail that a provider refuses permanently is not tried elsewhere. true: it is offered to the next upstream, and the
        /// last reply counts.
        retry_refused: bool, default "false";
    }
}

settings! {
    /// A Received header says where a message came from; every recipient of the mail can read it.
    TraceTable = "trace" {
        /// What the gateway's own Received header contains: "full" (the application's address and name, the gateway's name, id
        /// and time), "without-client" (without the application's address and name), or "off" (no such header; a mail loop
        /// through this gateway is then detected only by the headers of other servers).
        received: ReceivedDetail, default r#""full""#;
    }
}

settings! {
    /// Many equal mails to one recipient: what is too many is accepted and held, until `waxseal queue release` sends it or
    /// `waxseal queue remove` removes it. The log says once that a storm has begun, and once how many were held.
    ///
    /// Equal are mails with one envelope sender, one decoded subject and one recipient; other recipients of the same
    /// message get it. Counting begins at zero with each start. A mail that is submitted again and recognised
    /// (`deduplicate`) does not count. Where the client waits (delivery = "direct"), it gets a 250 for mail that is held.
    StormTable = "storm" {
        /// How many equal mails are sent within the time; each further one is held. Default: off, nothing is held.
        more_than: Number<1, 10_000>, optional "20";
        /// The time.
        within: Duration, default r#""10m""#;
    }
}

settings! {
    /// Mail that should come regularly, such as a weekly report. If none has come for longer than `every`, the log warns once,
    /// `waxseal status` and the metrics show it, and the log says when mail comes again. Only accepted mail counts.
    ///
    /// Counting begins at the first start with the table, and continues across restarts and reloads. docs/expect.md.
    ExpectTable = "expect", many: true {
        /// Its name in the log and the metrics. A table that keeps its name keeps the time of the last mail. Default: `sender`.
        name: String, optional r#""weekly report""#;
        /// A pattern or a list of them. Mail counts if its envelope's sender or its From address matches, after the rules.
        sender: OneOrMore<PatternText>, required r#""reports@example.com""#;
        /// The longest time between two mails that is normal: the interval, and a margin.
        every: Duration, required r#""8d""#;
        /// Who gets a mail about a silence, one for each. It is signed with the first key and comes from `bounce_sender`; choose
        /// an address that does not depend on the flow that is expected.
        notify: NotifyAddress, optional r#""ops@example.net""#;
        /// The upstream that this mail goes through, so that it arrives when the usual one is the reason for the silence.
        /// Default: as the routes say.
        notify_upstream: Mark, optional r#""backup""#;
    }
}

settings! {
    /// Mail that was accepted and is not yet delivered, and the history of delivered mail.
    QueueTable = "queue" {
        /// "sqlite": a database in `data_dir`, which needs no maintenance. "redis": several gateways share one queue in Redis or
        /// Valkey, which [queue.redis] names; see docs/scale.md.
        backend: QueueBackend, default r#""sqlite""#;
        /// A provider that is unavailable or defers mail is tried again, soon at first, then less and less often.
        retry: RetryTimes, default r#"{ first = "30s", longest = "1h" }"#;
        /// The age at which undelivered mail fails, even if its provider was unavailable all the time. RFC 5321 §4.5.4.1 asks
        /// for four to five days.
        expire: Duration, default r#""5d""#;
        /// How long failed mail is kept with its content, so that `waxseal queue` can show it and send it again.
        keep_failed: Duration, default r#""14d""#;
        /// How long one row is kept for each delivered message: addresses, time, upstream, reply.
        keep_history: Duration, default r#""14d""#;
        /// Who gets a bounce for failed mail: "off" (nobody; see `waxseal queue`), "sender", or an address such as
        /// "postmaster@example.com".
        bounce: Bounce, default r#""off""#;
        /// The envelope sender of bounces: "<>", the null path that RFC 5321 asks for, or an address for providers that refuse
        /// the null path, such as ses. Bounces then have this address in From too, so the provider must accept it as a
        /// sender.
        bounce_sender: ReversePath, default r#""<>""#;
        /// Below this much free space in `data_dir` no new mail is accepted (452: the application tries again); delivery
        /// continues. At least "16 MiB", which the queue itself needs to deliver and remove accepted mail.
        ///
        /// A listener with delivery = "direct" then refuses only mail to several recipients, because it would have to be
        /// stored if the provider accepted it for only some of them.
        min_free_space: MinFreeSpace, default r#""256 MiB""#;
        /// How long a message is remembered, so that an application that did not see the 250 and submits it again gets the same
        /// 250, and no one gets the mail twice. Default: off; every submitted message is sent.
        ///
        /// Messages are the same if they have the same login (without one, the same address), the same Idempotency-Key header
        /// (without one, the same Message-ID), the same recipients and the same content. Date and multipart boundaries may
        /// differ, and the Message-ID if there is an Idempotency-Key. Mail with neither header is always sent.
        deduplicate: Duration, optional r#""10m""#;
    }
    within redis: RedisTable;
}

settings! {
    /// `waxseal doctor` looks at everything between the application and the recipient: configuration, disk, listeners, name
    /// look-up, the provider, its certificate and login, DKIM, SPF and DMARC. docs/troubleshooting.md explains what it finds.
    DoctorTable = "doctor" {
        /// At each start, connect to every upstream once, log in and leave, so that a wrong password is a warning in the log
        /// before the first mail is sent. No mail is sent.
        at_start: bool, default "true";
        /// The DNS server that `waxseal doctor` asks, with or without a port. Default: the system's. A look-up that must show
        /// what the world sees may need one outside your network.
        dns: DnsServer, optional r#""9.9.9.9""#;
        /// Checks whose results are shown and do not count, by the names in docs/troubleshooting.md.
        ignore: Vec<CheckId>, optional r#"["dmarc.record"]"#;
    }
}

settings! {
    /// Health and metrics over HTTP, for this machine only unless you say otherwise: /healthz, /readyz and /metrics (Prometheus).
    /// docs/metrics.md lists the metrics.
    AdminTable = "admin" {
        /// The address and port, or "off". An address that other machines can reach needs a `token`.
        ///
        /// If the default address is taken, the gateway starts without it and says so; an address that you set must be free.
        address: AdminAddress, default r#""127.0.0.1:8025""#;
        /// What a client must send as "Authorization: Bearer TOKEN". Without it, everyone who can reach the address may read.
        token: SecretSource, optional r#"{ env = "WAXSEAL_ADMIN_TOKEN" }"#;
        /// Names by which clients reach the address, besides its IP address, "localhost" and `hostname`; for example the name of the
        /// container. Requests for any other name are refused, so that no web page can read this through a visitor's browser.
        hosts: Vec<AdminHost>, optional r#"["waxseal"]"#;
    }
}

settings! {
    /// The log is written to standard output.
    LogTable = "log" {
        /// "pretty" or "json".
        format: Format, default r#""pretty""#;
        /// "error", "warn", "info", "debug" or "trace"; or a filter such as "info,waxseal::relay=debug".
        level: LogLevel, default r#""info""#;
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

impl UnsignedMail {
    /// Reads a variable: a word, or domains between commas.
    pub fn of_variable(text: &str) -> Result<Self, Complaint> {
        if !text.contains(['.', ',']) {
            return <UnsignedWord as Text>::parse(text).map(|word| word.0);
        }
        let domains = text.split(',').map(str::trim).filter(|domain| !domain.is_empty());
        domains.map(<Domain as Text>::parse).collect::<Result<_, _>>().map(Self::Domains)
    }
}

impl Value for UnsignedMail {
    fn expected() -> String {
        UnsignedWord::EXPECTED.to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>, complaints: &mut Complaints<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Array(_) => Vec::read(value, complaints).map(Self::Domains),
            _ => <UnsignedWord as Value>::read(value, complaints).map(|word| word.0),
        }
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

words! { OverRate, "\"refuse\" or \"wait\"", {
    "refuse" => Self::Refuse,
    "wait" => Self::Wait,
} }

words! { LineEndings, "\"normalize\" or \"reject\"", {
    "normalize" => Self::Normalize,
    "reject" => Self::Reject,
} }

words! { ReceivedDetail, "\"full\", \"without-client\" or \"off\"", {
    "full" => Self::Full,
    "without-client" => Self::WithoutClient,
    "off" => Self::Off,
} }

words! { TlsMode, "\"starttls\" or \"implicit\"", {
    "starttls" => Self::StartTls,
    "implicit" => Self::Implicit,
} }

words! { Format, "\"pretty\" or \"json\"", { "pretty" => Self::Pretty, "json" => Self::Json } }

/// A known provider.
#[derive(Debug, Clone, Copy)]
pub struct ProviderName(pub &'static Preset);

impl Text for ProviderName {
    const EXPECTED: &'static str = "a provider's name such as \"smtp\"";

    fn expected() -> String {
        one_of(&provider::ALL.map(|preset| preset.name))
    }

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
            trace: sections.one(),
            storm: sections.one(),
            expected: sections.many(),
            queue: sections.one(),
            doctor: sections.one(),
            admin: sections.one(),
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
            trace: TraceTable::empty(Place::Nowhere),
            storm: StormTable::empty(Place::Nowhere),
            expected: Vec::new(),
            queue: QueueTable::empty(Place::Nowhere),
            doctor: DoctorTable::empty(Place::Nowhere),
            admin: AdminTable::empty(Place::Nowhere),
            log: LogTable::empty(Place::Nowhere),
        }
    }
}
