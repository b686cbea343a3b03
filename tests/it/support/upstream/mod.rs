//! A provider inside the test: real SMTP over real TLS on loopback, which does what its script says and takes down
//! everything it hears.
//!
//! ```ignore
//! let upstream = ScriptedUpstream::builder().once(At::Rcpt, "550 5.1.1 nobody").start().await;
//! let options = upstream.options("company");
//! ...
//! assert_eq!(upstream.messages().len(), 1);
//! ```

mod clients;
mod conversation;
mod places;
mod record;
mod rules;
mod script;

pub use clients::Clients;
pub use record::{Counts, Message};
pub use rules::Rules;
pub use script::{Action, At};

use super::canaries;
use super::certificate::{Authority, Issued};
use conversation::serve;
use places::Places;
use record::Record;
use rustls::ServerConfig;
use rustls::pki_types::ServerName;
use script::Script;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use waxseal::observe::Secret;
use waxseal::relay::{self, ConnectionLimits, Credentials, Endpoint, TlsMode, UpstreamOptions};

/// What the server offers inside TLS unless told otherwise.
const KEYWORDS: &[&str] =
    &["PIPELINING", "SIZE 52428800", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "AUTH PLAIN LOGIN"];

/// What every connection shares.
struct Shared {
    tls: TlsMode,
    tls_config: Arc<ServerConfig>,
    keywords_in_clear: Vec<String>,
    keywords: Vec<String>,
    rules: Rules,
    script: Script,
    places: Places,
    record: Record,
}

pub struct ScriptedUpstream {
    address: SocketAddr,
    ca: String,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

pub struct Builder {
    address: SocketAddr,
    tls: TlsMode,
    identity: Option<(Issued, String)>,
    clients: Option<Clients>,
    keywords_in_clear: Vec<String>,
    keywords: Vec<String>,
    rules: Rules,
    script: Script,
    places: Places,
}

impl ScriptedUpstream {
    /// STARTTLS, a certificate for `localhost` and `127.0.0.1`, every extension, and a yes to everything.
    pub fn builder() -> Builder {
        Builder {
            address: ([127, 0, 0, 1], 0).into(),
            tls: TlsMode::StartTls,
            identity: None,
            clients: None,
            keywords_in_clear: vec!["PIPELINING".to_owned(), "STARTTLS".to_owned()],
            keywords: KEYWORDS.iter().map(ToString::to_string).collect(),
            rules: Rules::default(),
            script: Script::default(),
            places: Places::default(),
        }
    }

    pub async fn start() -> Self {
        Self::builder().start().await
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// PEM of what a client must trust.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// Options that reach this server, with a login, time-outs that only guard against hangs, and a cap of 3.
    pub fn options(&self, name: &str) -> UpstreamOptions {
        let ca = waxseal::pem::certificates(self.ca().as_bytes()).unwrap();
        let username = "relay-user".to_owned();
        let password = Secret::new("relay-canary-password");
        let credentials = Credentials { username, password, secret_key: None };
        UpstreamOptions {
            name: name.into(),
            endpoint: Endpoint {
                host: self.address.ip().to_string(),
                port: self.address.port(),
                tls: self.shared.tls,
                fallback_ports: Vec::new(),
                server_name: ServerName::try_from("localhost").unwrap(),
                tls_config: waxseal::tls::client(&ca).unwrap(),
                ca,
                client_certificate: None,
                source_address: None,
            },
            redaction: relay::redaction([&credentials]).into(),
            credentials: Some(credentials),
            ehlo_name: "gateway.example".to_owned(),
            limits: ConnectionLimits {
                max_connections: 3,
                max_messages_per_connection: 100,
                connect_timeout: Duration::from_secs(30),
                command_timeout: Duration::from_secs(60),
                data_timeout: Duration::from_secs(60),
                idle_timeout: Duration::from_secs(60),
                connect_retries: 0,
            },
            slow_down: &[],
        }
    }

    /// Those that were answered with a 2yz, in order.
    pub fn messages(&self) -> Vec<Message> {
        self.shared.record.messages()
    }

    /// Those whose final dot came, and was answered with something else or not at all.
    pub fn not_accepted(&self) -> Vec<Message> {
        self.shared.record.not_accepted()
    }

    pub fn counts(&self) -> Counts {
        self.shared.record.counts()
    }

    /// The refusals that the rules led to.
    pub fn broken_rules(&self) -> Vec<&'static str> {
        self.shared.record.broken_rules()
    }

    /// Command lines, those inside TLS only; AUTH answers and data are not among them.
    pub fn commands(&self) -> Vec<String> {
        self.shared.record.commands()
    }

    pub fn count(&self, verb: &str) -> usize {
        self.commands().iter().filter(|line| line.to_ascii_uppercase().starts_with(verb)).count()
    }

    /// `(mechanism, username, password)` of every login.
    pub fn logins(&self) -> Vec<(String, String, String)> {
        self.shared.record.logins()
    }

    /// Everything that arrived outside TLS, of all connections.
    pub fn heard_in_clear(&self) -> Vec<u8> {
        self.shared.record.in_clear()
    }

    /// Everything that arrived inside TLS.
    pub fn heard_inside_tls(&self) -> Vec<u8> {
        self.shared.record.inside_tls()
    }

    /// How often the client's bytes came in after the server's; one is one round trip. Inside TLS, after the login.
    pub fn round_trips(&self) -> usize {
        self.shared.record.round_trips()
    }

    /// Pieces in which the client's bytes came in. Inside TLS, after the login.
    pub fn segments(&self) -> usize {
        self.shared.record.segments()
    }

    /// From now on; `once` adds to what is left.
    pub fn once(&self, at: At, action: impl Into<Action>) {
        self.shared.script.once(at, action.into());
    }

    pub fn always(&self, at: At, action: impl Into<Action>) {
        self.shared.script.always(at, action.into());
    }

    /// Returns when a client has said this inside TLS.
    pub async fn until_heard(&self, words: &str) {
        let heard = async {
            while memchr::memmem::find(&self.heard_inside_tls(), words.as_bytes()).is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(super::client::HANG_GUARD, heard).await.expect("it is never said");
    }

    /// Nobody is let in any more; who is in stays.
    pub fn shut(&self) {
        self.accepting.abort();
    }

    /// So many connections at once from now on.
    pub fn allow_connections(&self, most: usize) {
        self.shared.places.allow(most);
    }

    /// The most messages that came within any such time.
    pub fn most_within(&self, length: Duration) -> usize {
        let mut came: Vec<_> = self.messages().iter().map(|message| message.at).collect();
        came.sort_unstable();
        let within = |first: usize| came[first..].iter().take_while(|at| **at - came[first] < length).count();
        (0..came.len()).map(within).max().unwrap_or_default()
    }

    /// Returns when no connection is open.
    pub async fn until_alone(&self) {
        self.shared.record.until(|counts| counts.now == 0).await;
    }

    /// Returns when at least so many messages have been accepted.
    pub async fn until_messages(&self, number: usize) {
        self.shared.record.until(|counts| counts.messages >= number).await;
    }
}

impl Builder {
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    pub fn implicit_tls(mut self) -> Self {
        self.tls = TlsMode::Implicit;
        self
    }

    /// `ca`: what `ScriptedUpstream::ca` and `options` will tell the client to trust.
    pub fn identity(mut self, issued: Issued, ca: &str) -> Self {
        self.identity = Some((issued, ca.to_owned()));
        self
    }

    /// Asks for a client certificate.
    pub fn clients(mut self, clients: Clients) -> Self {
        self.clients = Some(clients);
        self
    }

    /// Instead of PIPELINING and STARTTLS.
    pub fn keywords_in_clear(mut self, keywords: &[&str]) -> Self {
        self.keywords_in_clear = keywords.iter().map(ToString::to_string).collect();
        self
    }

    /// Instead of every extension, inside TLS.
    pub fn keywords(mut self, keywords: &[&str]) -> Self {
        self.keywords = keywords.iter().map(ToString::to_string).collect();
        self
    }

    pub fn without(mut self, keyword: &str) -> Self {
        self.keywords.retain(|line| !line.starts_with(keyword));
        self
    }

    /// What it refuses; and what it offers inside TLS.
    pub fn rules(mut self, rules: Rules, keywords: &[&str]) -> Self {
        self.rules = rules;
        self.keywords(keywords)
    }

    /// The next time only; several calls for one place are used up in order.
    pub fn once(self, at: At, action: impl Into<Action>) -> Self {
        self.script.once(at, action.into());
        self
    }

    pub fn always(self, at: At, action: impl Into<Action>) -> Self {
        self.script.always(at, action.into());
        self
    }

    /// So many connections at once; what others are told, and where.
    pub fn connections(mut self, most: usize, at: At, action: impl Into<Action>) -> Self {
        self.places = Places::new(most, at, action.into());
        self
    }

    /// For every recipient whose address contains `part`.
    pub fn recipient(self, part: &str, action: impl Into<Action>) -> Self {
        self.script.recipient(part, action.into());
        self
    }

    pub async fn start(self) -> ScriptedUpstream {
        canaries::watch_this_process();
        let (issued, ca) = self.identity.unwrap_or_else(|| {
            let authority = Authority::new();
            (authority.issue(&["localhost", "127.0.0.1"]), authority.pem())
        });
        let chain = waxseal::pem::certificates(issued.certificate.as_bytes()).unwrap();
        let key = waxseal::pem::private_key(issued.private_key.as_bytes()).unwrap();
        let listener = TcpListener::bind(self.address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            tls: self.tls,
            tls_config: match self.clients {
                None => waxseal::tls::server(chain, key).unwrap(),
                Some(clients) => clients.config(chain, key),
            },
            keywords_in_clear: self.keywords_in_clear,
            keywords: self.keywords,
            rules: self.rules,
            script: self.script,
            places: self.places,
            record: Record::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        ScriptedUpstream { address, ca, shared, accepting }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((tcp, _)) = listener.accept().await {
        tcp.set_nodelay(true).unwrap();
        let connected = shared.record.connected();
        let place = shared.places.take(connected.number);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            serve(tcp, connected, shared).await;
            drop(place);
        });
    }
}

impl Drop for ScriptedUpstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
