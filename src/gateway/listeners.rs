//! The listeners: binds each one, and gives it the role that its settings ask for. A reload gives those that stay another role.

use super::StartError;
use crate::config::{ListenerSettings, Settings};
use crate::dkim::Keyring;
use crate::inbound::sockets::{self, Ipv4Clients};
use crate::inbound::{
    BindError, Client, InheritedSockets, Intake, Listener, ListenerOptions, ListenerRole, Received, SubmissionRates,
};
use crate::intake::{DirectIntake, IntakePipeline, QueuedIntake, SenderPolicy, SilenceWatch};
use crate::message::MemoryBudget;
use crate::observe::Clock;
use crate::observe::metrics::ListenerMetrics;
use crate::smtp::{Reply, ReversePath};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// A bound listener that does not serve yet.
#[derive(Debug)]
pub(super) struct BoundListener {
    listener: Listener,
    /// As configured: the port may be 0.
    configured: SocketAddr,
    role: Arc<ListenerRole<ListenerIntake>>,
}

/// A listener that serves.
#[derive(Debug)]
pub(super) struct OpenListener {
    pub configured: SocketAddr,
    pub address: SocketAddr,
    pub role: watch::Sender<Arc<ListenerRole<ListenerIntake>>>,
    /// Its own; the gateway's stops it too.
    pub stop: CancellationToken,
}

/// What becomes of the mail of one listener.
#[derive(Debug)]
pub(super) enum ListenerIntake {
    Direct(DirectIntake),
    Queued(QueuedIntake),
}

impl Intake for ListenerIntake {
    fn admit(&self, client: &Client, sender: &ReversePath, size: Option<u64>) -> Result<(), Reply> {
        match self {
            Self::Direct(intake) => intake.admit(client, sender, size),
            Self::Queued(intake) => intake.admit(client, sender, size),
        }
    }

    async fn accept(&self, received: Received) -> Reply {
        match self {
            // Larger than the other, which would be moved around with as many octets.
            Self::Direct(intake) => Box::pin(intake.accept(received)).await,
            Self::Queued(intake) => intake.accept(received).await,
        }
    }
}

impl BoundListener {
    pub fn address(&self) -> SocketAddr {
        self.listener.local_address()
    }

    pub fn delivery(&self) -> &'static str {
        match *self.role.intake {
            ListenerIntake::Direct(_) => "direct",
            ListenerIntake::Queued(_) => "queue",
        }
    }

    /// The task returns whether it was asked to end.
    pub fn open(self, serving: &mut JoinSet<bool>, stop: &CancellationToken) -> OpenListener {
        let address = self.address();
        let Self { listener, configured, role } = self;
        let stop = stop.child_token();
        let role = watch::Sender::new(role);
        let serve = listener.serve_as(role.subscribe(), stop.clone());
        let stopped = stop.clone();
        serving.spawn(async move {
            serve.await;
            stopped.is_cancelled()
        });
        OpenListener { configured, address, role, stop }
    }
}

/// Binds those of the listeners that are not among `open`, which are configured addresses. `budget`: for the messages that come in.
pub(super) fn bind(
    settings: &Settings,
    (roles, budget): (&[Arc<ListenerRole<ListenerIntake>>], &MemoryBudget),
    open: &[SocketAddr],
    inherited: &mut InheritedSockets,
) -> Result<Vec<BoundListener>, StartError> {
    let mut open = open.to_vec();
    let mut listeners = Vec::new();
    for role in roles {
        let configured = role.options.address;
        if let Some(at) = open.iter().position(|address| *address == configured) {
            open.swap_remove(at);
            continue;
        }
        let opened = match inherited.take(configured) {
            Some(socket) => Ok(socket),
            None => sockets::open(configured, ipv4_clients(configured, settings)),
        };
        let options = ListenerOptions::clone(&role.options);
        let users = role.users.clone();
        match opened.and_then(|socket| Listener::on(socket, options, users, budget.clone())) {
            Ok(listener) => listeners.push(BoundListener { listener, configured, role: role.clone() }),
            Err(error) if is_dispensable(&error, settings) => warn!("{error}; continuing without it"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(listeners)
}

/// `[::]` accepts IPv4 clients too, as people expect, unless an IPv4 listener has the same port.
fn ipv4_clients(address: SocketAddr, settings: &Settings) -> Ipv4Clients {
    let others = settings.listeners.iter().map(|listener| listener.options.address);
    let is_taken = others.filter(SocketAddr::is_ipv4).any(|other| other.port() == address.port());
    if is_taken { Ipv4Clients::LeftToOthers } else { Ipv4Clients::Accepted }
}

/// The intake pipeline of one listener.
pub(super) fn pipeline(settings: &Settings, listener: &ListenerSettings, keyring: &Arc<Keyring>) -> IntakePipeline {
    let senders = settings.users.iter().filter_map(|user| Some((user.name.clone(), user.senders.clone()?)));
    let policy = SenderPolicy {
        listener_senders: listener.senders.clone(),
        user_senders: Arc::new(senders.collect()),
        unsigned: settings.unsigned_at_intake(),
        keyring: keyring.clone(),
    };
    IntakePipeline {
        policy,
        repairs: settings.repairs,
        rules: settings.rules.clone(),
        hostname: settings.hostname.as_str().into(),
        listener: listener.options.address.to_string().into(),
        received: settings.received,
        deduplicate: settings.queue.deduplicate,
        rates: SubmissionRates::default(),
        storms: None,
        expected: SilenceWatch::default(),
        metrics: ListenerMetrics::default(),
        clock: Clock::System,
    }
}

/// Many containers have no IPv6, so `[::1]` beside another listener is optional.
fn is_dispensable(error: &BindError, settings: &Settings) -> bool {
    let (BindError::NoIpv6 { address } | BindError::NoSuchAddress { address }) = error else { return false };
    let others = settings.listeners.iter().filter(|listener| listener.options.address.is_ipv4()).count();
    address.ip() == Ipv6Addr::LOCALHOST && others > 0
}
