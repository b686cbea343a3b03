//! The listeners at start: binds each one, with the intake that its `delivery` setting asks for.

use super::StartError;
use super::admin::GatewayMetrics;
use super::rates::GatewayRates;
use crate::config::{DeliveryMode as Mode, ListenerSettings, Settings};
use crate::delivery::{Delivery, SettlementPolicy};
use crate::dkim::Keyring;
use crate::inbound::sockets::{self, Ipv4Clients};
use crate::inbound::users::Users;
use crate::inbound::{BindError, InheritedSockets, Listener, ListenerOptions, SubmissionRates};
use crate::intake::{DirectIntake, InProgress, IntakePipeline, Leftovers, QueuedIntake, SenderPolicy, StormWatch};
use crate::message::MemoryBudget;
use crate::observe::Clock;
use crate::observe::metrics::ListenerMetrics;
use crate::queue::Queue;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// A bound listener and its intake.
#[derive(Debug)]
pub(super) struct BoundListener {
    listener: Listener,
    intake: BoundIntake,
}

#[derive(Debug)]
enum BoundIntake {
    Direct(Arc<DirectIntake>),
    Queued(Arc<QueuedIntake>),
}

impl BoundListener {
    pub fn address(&self) -> SocketAddr {
        self.listener.local_address()
    }

    pub fn delivery(&self) -> &'static str {
        match self.intake {
            BoundIntake::Direct(_) => "direct",
            BoundIntake::Queued(_) => "queue",
        }
    }

    pub fn open(self, serving: &mut JoinSet<()>, stop: CancellationToken) {
        match self.intake {
            BoundIntake::Direct(intake) => serving.spawn(self.listener.serve(intake, stop)),
            BoundIntake::Queued(intake) => serving.spawn(self.listener.serve(intake, stop)),
        };
    }
}

/// What all intakes share.
pub(super) struct IntakeParts {
    pub keyring: Arc<Keyring>,
    pub delivery: Arc<Delivery>,
    pub queue: Arc<dyn Queue>,
    pub settlement: SettlementPolicy,
    pub leftovers: Leftovers,
    pub in_progress: InProgress,
    pub storms: Option<StormWatch>,
    /// For incoming messages.
    pub budget: MemoryBudget,
    pub metrics: GatewayMetrics,
    /// Cancelled at the end of the drain time.
    pub cut_off: CancellationToken,
}

pub(super) fn bind(
    settings: &Settings,
    (behind, rates): (&IntakeParts, &GatewayRates),
    mut inherited: InheritedSockets,
) -> Result<Vec<BoundListener>, StartError> {
    let users = Users::new(settings.users.iter().map(|user| (user.name.clone(), user.password.clone())));
    let mut listeners = Vec::new();
    for (number, typed) in settings.listeners.iter().enumerate() {
        let options = ListenerOptions {
            rates: rates.on(number, typed),
            metrics: behind.metrics.listener(typed.options.address),
            ..typed.options.clone()
        };
        let pipeline = pipeline(settings, typed, &behind.keyring);
        let pipeline = IntakePipeline {
            rates: options.rates.clone(),
            storms: behind.storms.clone(),
            metrics: options.metrics.clone(),
            ..pipeline
        };
        let intake = behind.intake(typed, pipeline);
        let opened = match inherited.take(options.address) {
            Some(socket) => Ok(socket),
            None => sockets::open(options.address, ipv4_clients(options.address, settings)),
        };
        match opened.and_then(|socket| Listener::on(socket, options, users.clone(), behind.budget.clone())) {
            Ok(listener) => listeners.push(BoundListener { listener, intake }),
            Err(error) if is_dispensable(&error, settings) => warn!("{error}; continuing without it"),
            Err(error) => return Err(error.into()),
        }
    }
    inherited.all_claimed()?;
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
        metrics: ListenerMetrics::default(),
        clock: Clock::System,
    }
}

impl IntakeParts {
    fn intake(&self, typed: &ListenerSettings, pipeline: IntakePipeline) -> BoundIntake {
        match typed.delivery {
            Mode::Queue => {
                let queue = self.queue.clone();
                let settlement = self.settlement.clone();
                BoundIntake::Queued(Arc::new(QueuedIntake { pipeline, queue, settlement }))
            }
            Mode::Direct => {
                let leftovers = self.leftovers.clone();
                let delivery = self.delivery.clone();
                let cut_off = self.cut_off.clone();
                let in_progress = self.in_progress.clone();
                BoundIntake::Direct(Arc::new(DirectIntake { pipeline, delivery, leftovers, in_progress, cut_off }))
            }
        }
    }
}

/// Many containers have no IPv6, so `[::1]` beside another listener is optional.
fn is_dispensable(error: &BindError, settings: &Settings) -> bool {
    let (BindError::NoIpv6 { address } | BindError::NoSuchAddress { address }) = error else { return false };
    let others = settings.listeners.iter().filter(|listener| listener.options.address.is_ipv4()).count();
    address.ip() == Ipv6Addr::LOCALHOST && others > 0
}
