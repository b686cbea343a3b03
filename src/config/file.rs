//! What can be typed in `config.toml`: every table, every key, each once, with its documentation and default.
//!
//! Values are only checked one by one: `resolve` reads files and follows references.

use super::masking::is_key_without_its_frame;
use super::patterns::{HeaderPatterns, OneOrMore, UpstreamNames};
use super::problem::{Findings, Place};
use super::queue::{MinFreeSpace, QueueBackend, RetryTimes};
use super::rates::Rates;
use super::reader::{Section, Sections, settings};
use super::repair::RepairTable;
use super::rewrite::RewriteTable;
use super::schema::Schema;
use super::secret::SecretSource;
use super::suggest::one_of;
use super::value::{
    ByteSize, Complaint, Complaints, Count, HostName, LogLevel, PatternText, PortNumber, Retries, Text, Value,
    not_among, words,
};
use crate::delivery::Bounce;
use crate::dkim::Selector;
use crate::inbound::{AuthMode, LineEndings};
use crate::message::text_pattern::TextPattern;
use crate::message::trace::ReceivedDetail;
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
    pub trace: TraceTable,
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
    TraceTable::TABLE,
    QueueTable::TABLE,
    LogTable::TABLE,
]);

settings! {
    /// These keys belong at the top of the file, before the first [table].
    GatewayTable = "" {
        /// The gateway's name in greetings, in EHLO and in Received headers. Default: the host's full name. Give a full name
        /// such as this one: some providers drop mail from "localhost", and a name without a dot becomes an address literal
        /// in EHLO.
        hostname: HostName, optional r#""gateway.example.com""#;
        /// Where the gateway keeps what must not get lost, readable by its own user only. It is a folder of its own, which is
        /// made if it is missing; one that holds other files and that other users may enter is refused.
        data_dir: PathBuf, default r#""data""#;
        /// What becomes of mail whose From domain has no DKIM key below: "refuse" (a 550 at once), "send" (it is sent
        /// unsigned), or a list of the domains whose mail may be sent unsigned, as in ["example.org"]. Without any key at all
        /// the default is "send", and every start says so.
        unsigned: UnsignedMail, default r#""refuse""#;
        /// Memory for messages in progress, coming in and going out together; what does not fit waits or gets a 452. Half of
        /// it is for mail coming in; a body whose repair would take more than that half stays as it is.
        max_memory: ByteSize, default r#""256 MiB""#;
        /// How long a stop (SIGTERM) waits for messages in progress. Container engines give 10 seconds in all.
        drain: Duration, default r#""8s""#;
    }
}

settings! {
    /// Several listeners are several tables. Without any, the gateway listens on 127.0.0.1:2525 and [::1]:2525.
    ListenerTable = "listener", many: true {
        /// The address and port to listen on.
        address: SocketAddr, required r#""127.0.0.1:2525""#;
        /// "queue": the application gets its 250 as soon as the message is safe on disk; it is delivered at once, and tried
        /// again for days if need be. "direct": the application waits for the provider's own answer, and gets it.
        delivery: DeliveryMode, default r#""queue""#;
        /// "off", "starttls" (required before mail is taken) or "implicit" (TLS from the start). Off is right on one machine:
        /// Plausible does STARTTLS whenever it is offered, and then insists on a certificate that the public trusts.
        tls: ListenerTls, default r#""off""#;
        /// PEM file with the certificate and its chain, for "starttls" and "implicit".
        certificate: PemSource, optional r#""certs/gateway.pem""#;
        /// PEM file with the certificate's private key.
        private_key: PemSource, optional r#""certs/gateway.key""#;
        /// The networks that may send without a login. A listener that other machines can reach needs a list of its own, or
        /// auth = "required".
        allow: Vec<IpNet>, default r#"["127.0.0.0/8", "::1/128"]"#;
        /// Who may send: "off" (only the networks in `allow`), "optional" (those, or a client with a login) or "required"
        /// (only clients with a login).
        auth: AuthMode, default r#""optional""#;
        /// Which senders are accepted, in the envelope and in the From header. Default: the domains that have a [[dkim]] key
        /// or are listed in `unsigned`, and the domains below them; without any key, all senders.
        senders: Vec<PatternText>, optional r#"["*@example.com"]"#;
        /// What to do with a bare CR or LF in a message: "normalize" makes it CRLF, "reject" refuses the message.
        line_endings: LineEndings, default r#""normalize""#;
        /// The largest message that is taken. It must fit into half of `max_memory`, together with what your rules need for it.
        max_message_size: ByteSize, default r#""25 MiB""#;
        /// Recipients of one message.
        max_recipients: Count, default "1000";
        /// Clients at once. A quarter of them is kept for clients inside `allow`, unless auth = "required".
        max_connections: Count, default "1000";
        /// Clients at once from one address; outside `allow` an IPv6 network of 64 bits counts as one address.
        ///
        /// An address from which nobody has logged in for a day may use half of it, and have sixty connections a minute that
        /// end without a login. From one that has logged in, the connection that has waited longest for its login makes room
        /// for the next.
        max_connections_per_address: Count, default "200";
        /// How long a client may take for each command. Message data also has a minimum rate, and a client that needs a login
        /// has two minutes and a hundred commands for it.
        timeout: Duration, default r#""5m""#;
    }
}

settings! {
    /// One table for each application that logs in.
    UserTable = "user", many: true {
        /// The name to log in with. Names are logged: never use a token as one.
        name: String, required r#""plausible""#;
        /// The password's hash, as `waxseal user hash` prints it. It may also come from { env = "NAME" } or
        /// { file = "/run/secrets/NAME" }; from there the password itself is accepted, too.
        password: SecretSource, required r#""$argon2id$...""#;
        /// The senders that this login may use, within the listener's `senders`. Default: all that the listener accepts.
        senders: Vec<PatternText>, optional r#"["*@example.com"]"#;
    }
}

settings! {
    /// Several keys for one domain sign together (RSA and Ed25519). A key serves the domains below its own, too.
    DkimTable = "dkim", many: true {
        /// The domain in the From header.
        domain: Domain, required r#""example.com""#;
        /// The name of the public key in the DNS: SELECTOR._domainkey.DOMAIN.
        selector: Selector, required r#""wax1""#;
        /// PEM file with the private key.
        private_key: PemSource, required r#""certs/dkim/example.com.wax1.pem""#;
        /// true: make the key at start if the file is missing, and print the DNS record that belongs to it. Default: false;
        /// keys are made with `waxseal dkim generate example.com --selector wax1`.
        generate: bool, default "false";
    }
}

settings! {
    /// Where the mail goes: a known provider, or any other server. TLS is always used and always verified. docs/providers.md
    /// says what is known of each provider (host, ports, limits, headers, how it says "slow down") and what to set up there.
    UpstreamTable = "upstream", many: true {
        /// Its name in routes and in the log.
        name: String, required r#""company""#;
        /// A provider that waxseal knows, whose host, ports and limits are then filled in; "smtp" for any other server; or
        /// "sandbox", the one inside the gateway, which checks the signature and keeps the mail.
        provider: ProviderName, required r#""smtp""#;
        /// Where the provider's servers are: "us" or "eu" for mailgun (default: "us"), a region such as "eu-central-1" for
        /// ses.
        region: String, optional r#""eu""#;
        /// The server's name or address. Needed with provider = "smtp"; default: what is known of the provider.
        host: String, optional r#""smtp.example.com""#;
        /// The server's port. Without it, a known provider's other ports are tried where nothing answers on this one.
        port: PortNumber, default "587";
        /// How TLS begins: "starttls" or "implicit". Default: what the port is for, "implicit" on 465 and 2465, "starttls" on
        /// others.
        tls: TlsMode, optional r#""starttls""#;
        /// The name that the certificate must have. Default: `host`.
        server_name: String, optional r#""smtp.example.com""#;
        /// PEM file with certificates to trust besides the system's authorities. It may hold the server's own certificate.
        ca: PemSource, optional r#""certs/company-ca.pem""#;
        /// The login. Leave out both keys for a server that asks for none.
        username: String, optional r#""relay""#;
        /// Written out, { env = "NAME" } or { file = "/run/secrets/NAME" }.
        password: SecretSource, optional r#"{ env = "RELAY_PASSWORD" }"#;
        /// Only for ses: the secret access key. The SMTP password of the region is made from it.
        secret_key: SecretSource, optional r#"{ env = "AWS_SECRET_ACCESS_KEY" }"#;
        /// Connections at once: what the provider allows for the account. Known providers may have another default.
        max_connections: Count, default "4";
        /// Messages after which a connection is closed and a new one made. Known providers may have another default.
        max_messages_per_connection: Count, default "100";
        /// Recipients of one transaction; more go in several. Default: what is known of the provider.
        max_recipients: Count, optional "50";
        /// Larger messages are not offered to this server. Default: what is known of the provider.
        max_message_size: ByteSize, optional r#""10 MiB""#;
        /// Whether the gateway signs what goes here. Default: true, but for postmark, which takes mail apart and signs it
        /// itself.
        sign: bool, optional "true";
        /// Open and click tracking breaks a signature, so providers are asked to leave it off for each mail. true: it stays as
        /// it is set up there.
        tracking: bool, default "false";
        /// The local address to connect from. Default: the system's choice.
        source_address: IpAddr, optional r#""192.0.2.10""#;
        /// How fast mail may go there, over all connections: one rate or several, per s, min, h or day, never exceeded in any
        /// stretch of that length. Messages are counted, or recipients where the provider counts those. What was used of hours
        /// and days is remembered across restarts. Default: what is known of the provider; [] for no limit. A provider that
        /// asks for a slower pace gets it, whatever is set here.
        rate: Rates, optional r#"["14/s", "50000/day"]"#;
        /// Another upstream with the same account: its connections and rates count for both.
        share_limits_with: String, optional r#""other-upstream""#;
        /// For name lookup and connect together, over all addresses of the host; the TLS handshake gets as much again.
        connect_timeout: Duration, default r#""10s""#;
        /// For the reply to each command. RFC 5321 §4.5.3.2 asks for five minutes. An application that waits
        /// (delivery = "direct") is answered after 25 seconds at most, whatever stands here.
        command_timeout: Duration, default r#""5m""#;
        /// For the reply to the whole message. RFC 5321 §4.5.3.2.6 asks for ten minutes.
        data_timeout: Duration, default r#""10m""#;
        /// After this time an unused connection is closed. Keep it below the provider's own.
        idle_timeout: Duration, default r#""30s""#;
        /// Immediate reconnects before an attempt counts as failed.
        connect_retries: Retries, default "1";
    }
    nested credentials: UpstreamLoginTable
}

settings! {
    /// Where the provider has a login for each sender domain: a table for each, after the keys of its upstream. Other mail
    /// uses the upstream's own login; if it has none, such mail waits.
    UpstreamLoginTable = "upstream.credentials", many: true {
        /// The domain in the From header, else of the envelope's sender. Its login serves the domains below it, too.
        domain: Domain, required r#""example.com""#;
        /// As in [[upstream]].
        username: String, optional r#""postmaster@example.com""#;
        /// As in [[upstream]].
        password: SecretSource, optional r#"{ env = "EXAMPLE_COM_PASSWORD" }"#;
    }
}

settings! {
    /// The first route whose conditions all match is used; mail that no route takes is not sent. Without routes all mail goes
    /// to the first upstream. A changed route also applies to mail that already waits.
    RouteTable = "route", many: true {
        /// Its name in the log.
        name: String, required r#""reports""#;
        /// Condition: the envelope's sender.
        senders: Vec<PatternText>, default r#"["*"]"#;
        /// Condition: the envelope's recipient.
        recipients: Vec<PatternText>, default r#"["*"]"#;
        /// Condition: headers, each of which must be there and match: a pattern as in "report*", or a regular expression as in
        /// "/^report/".
        header: HeaderPatterns, optional r#"{ X-Kind = "report*" }"#;
        /// Condition: the login that the mail came in with: a name, a pattern, or a list of them. Mail without a login does
        /// not match.
        user: OneOrMore<TextPattern>, optional r#""plausible""#;
        /// Condition: the mail's tag, in the same way. Mail without a tag does not match.
        tag: OneOrMore<TextPattern>, optional r#""weekly-*""#;
        /// The upstreams to use. In a list, the next is tried when one is unavailable. With weights, as in
        /// { company = 3, backup = 1 }, one is drawn for each message, and the others are tried when it is unavailable.
        upstreams: UpstreamNames, required r#"["company", "backup"]"#;
        /// What a provider refuses for good is not tried elsewhere. true: it is offered to the next upstream; the last reply
        /// counts.
        retry_refused: bool, default "false";
    }
}

settings! {
    /// A Received header says where a message came from; everyone who gets the mail can read it.
    TraceTable = "trace" {
        /// What the gateway's own Received header tells: "full" (the application's address and name, the gateway's name, id and
        /// time), "without-client" (all but the application's address and name), or "off" (there is no such header; a mail loop
        /// through this gateway is then noticed only by what other servers add).
        received: ReceivedDetail, default r#""full""#;
    }
}

settings! {
    /// Mail that was accepted and is not yet delivered, and what is remembered of mail that was.
    QueueTable = "queue" {
        /// "sqlite": a database in `data_dir`, which needs no care.
        backend: QueueBackend, default r#""sqlite""#;
        /// A provider that is unavailable, or asks for patience, is tried again: soon at first, then less and less often.
        retry: RetryTimes, default r#"{ first = "30s", longest = "1h" }"#;
        /// The age at which undelivered mail has failed, even if its provider was unavailable all the time. RFC 5321 §4.5.4.1
        /// asks for four to five days.
        expire: Duration, default r#""5d""#;
        /// How long failed mail is kept, whole, to be looked at and sent again with `waxseal queue`.
        keep_failed: Duration, default r#""14d""#;
        /// How long one row is kept for each delivered message: addresses, time, upstream, reply.
        keep_history: Duration, default r#""14d""#;
        /// Who gets a bounce for failed mail: "off" (nobody; see `waxseal queue`), "sender", or an address such as
        /// "postmaster@example.com".
        bounce: Bounce, default r#""off""#;
        /// Below this much free space in `data_dir` no new mail is accepted (452: the application tries again); delivery goes
        /// on. At least "16 MiB": what the queue itself needs to deliver and to remove what it has taken.
        ///
        /// On a listener with delivery = "direct" only mail to several recipients is refused then: what the provider takes of
        /// one would have to be kept for the others.
        min_free_space: MinFreeSpace, default r#""256 MiB""#;
        /// How long a message is remembered, so that an application that did not see the 250 and submits it again gets the same
        /// 250, and no one gets the mail twice. Default: off, every message that is submitted is sent.
        ///
        /// The same are messages of one login (or of one address without a login) with the same Idempotency-Key header, or
        /// the same Message-ID without one, to the same recipients and with the same content. Date and multipart boundaries
        /// may differ, and the Message-ID where there is an Idempotency-Key. Mail with neither header is always sent.
        deduplicate: Duration, optional r#""10m""#;
    }
}

settings! {
    /// It goes to standard output.
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

/// Where a key or certificates come from. In the file it is always a path; the environment may hold the PEM text itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PemSource {
    Path(PathBuf),
    Pem(Secret),
}

impl Text for PemSource {
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
            trace: TraceTable::empty(Place::Nowhere),
            queue: QueueTable::empty(Place::Nowhere),
            log: LogTable::empty(Place::Nowhere),
        }
    }
}
