//! The listener: accepts mail from applications over SMTP and passes it to an [`Intake`].
//!
//! `session` is the protocol without I/O, `connection` drives it over a socket, `listener` accepts and limits. Knows
//! nothing of queue, upstreams or configuration files; both the gateway and the sandbox are built on it. RFC 5321,
//! 6409, 3207, 4954, 2920.

mod connection;
mod data;
mod limits;
mod lines;
mod listener;
mod load_balancer;
mod log_limit;
mod mismatch;
mod proxy;
mod rates;
mod refusal;
mod role;
mod sasl;
mod session;
pub(crate) mod sockets;
mod starttls;
#[cfg(any(test, fuzzing))]
pub(crate) mod testing;
pub mod users;
mod verifiers;

pub(crate) use data::READ_OVERHEAD;
pub use listener::Listener;
pub use rates::SubmissionRates;
pub(crate) use rates::{OverRate, RateOwner, RateWait, SubmissionRate};
pub(crate) use refusal::refusal_reason;
pub use role::{CurrentRole, ListenerRole};
pub(crate) use sockets::{BindError, InheritedSocketError, InheritedSockets};

use crate::message::Envelope;
use crate::message::budget::MemoryShare;
use crate::observe::metrics::ListenerMetrics;
use crate::smtp::{EhloName, Reply, ReversePath};
use bytes::Bytes;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// The settings of one listener. Everything is resolved: no file is read and no name is looked up later.
#[derive(Debug, Clone)]
pub struct ListenerOptions {
    pub address: SocketAddr,
    /// For the greeting and the EHLO reply.
    pub hostname: String,
    pub tls: Tls,
    /// Who may send without a login.
    pub allow: Vec<IpNet>,
    pub auth: AuthMode,
    pub line_endings: LineEndings,
    /// In octets.
    pub max_message_size: u64,
    pub max_recipients: usize,
    /// Load balancers: their connections begin with a PROXY header, which says whom each is from.
    pub proxy_protocol: Vec<IpNet>,
    /// A quarter is reserved for clients that need no login.
    pub max_connections: usize,
    /// An IPv6 /64 counts as one address, unless it needs no login.
    pub max_connections_per_address: usize,
    /// Per command; DATA also has a minimum rate, and a login has its own time limit.
    pub timeout: Duration,
    /// How much mail its clients may submit.
    pub rates: SubmissionRates,
    /// Records refusals; the intake records the rest.
    pub metrics: ListenerMetrics,
}

impl ListenerOptions {
    /// Checked at MAIL: a client inside `allow` may send (unless `auth` is required), and so may one that logged in.
    pub fn may_send(&self, client: &Client) -> Result<(), Reply> {
        match self.auth {
            _ if client.user.is_some() => Ok(()),
            _ if self.needs_no_login(client.peer.ip()) => Ok(()),
            AuthMode::Off => Err(Reply::not_allowed()),
            AuthMode::Optional => Err(Reply::authentication_required()),
            AuthMode::Required => Err(Reply::login_required()),
        }
    }

    /// Whether a client at this address may send without a login.
    pub fn needs_no_login(&self, address: IpAddr) -> bool {
        self.auth != AuthMode::Required && self.allows(address)
    }

    /// Whether the address is inside `allow`.
    pub fn allows(&self, address: IpAddr) -> bool {
        is_in(&self.allow, address)
    }

    /// Whether a connection from this address must begin with a PROXY header. No other may.
    pub fn is_load_balancer(&self, address: IpAddr) -> bool {
        is_in(&self.proxy_protocol, address)
    }
}

fn is_in(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address.to_canonical()))
}

#[derive(Debug, Clone)]
pub enum Tls {
    /// STARTTLS is not advertised, because Plausible's current client would insist on verifying it, with no opt-out.
    Off,
    /// Required before MAIL.
    StartTls(Arc<rustls::ServerConfig>),
    Implicit(Arc<rustls::ServerConfig>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// Only clients inside `allow`; AUTH is not offered.
    Off,
    /// Clients inside `allow`, or with a login.
    Optional,
    /// Only with a login.
    Required,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LineEndings {
    /// Bare CR and LF become CRLF.
    #[default]
    Normalize,
    /// A bare CR or LF refuses the message.
    Reject,
}

/// The client of a connection.
#[derive(Debug, Clone)]
pub struct Client {
    pub peer: SocketAddr,
    pub ehlo: EhloName,
    /// The client said EHLO, not HELO.
    pub esmtp: bool,
    /// For example "TLSv1.3"; `None` for plain text.
    pub tls: Option<&'static str>,
    /// Name of the `[[user]]` that logged in.
    pub user: Option<Arc<str>>,
}

impl Client {
    /// "with" clause of the Received field. RFC 3848.
    pub fn protocol(&self) -> &'static str {
        match (self.esmtp, self.tls.is_some(), self.user.is_some()) {
            (false, _, _) => "SMTP",
            (true, false, false) => "ESMTP",
            (true, false, true) => "ESMTPA",
            (true, true, false) => "ESMTPS",
            (true, true, true) => "ESMTPSA",
        }
    }
}

/// One complete message as received, not yet checked.
#[derive(Debug)]
pub struct Received {
    pub client: Client,
    pub envelope: Envelope,
    /// Dot-unstuffed, with CRLF line endings only.
    pub data: Bytes,
    /// A bare CR or LF was changed to CRLF, so the bytes are not those that the application may have signed.
    pub line_endings_changed: bool,
    /// The part of the memory budget that `data` uses.
    pub share: MemoryShare,
    /// The part that `envelope` uses.
    pub envelope_share: MemoryShare,
}

/// Accepts messages from a listener.
pub trait Intake: Send + Sync + 'static {
    /// At MAIL, once the session's own rules are satisfied: whether this client may send as `sender`, and whether there
    /// is room for `size` octets. The error is the reply to MAIL.
    fn admit(&self, client: &Client, sender: &ReversePath, size: Option<u64>) -> Result<(), Reply>;

    /// At the final dot. A positive reply takes responsibility for the message (RFC 5321 §6.1).
    fn accept(&self, received: Received) -> impl Future<Output = Reply> + Send;
}
