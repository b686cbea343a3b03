//! The listeners at start: each bound, with the intake that its `delivery` asks for.

use super::StartError;
use super::storage::Memory;
use crate::config::{Delivery as Mode, ListenerSettings, Settings};
use crate::delivery::{Clerk, Delivery};
use crate::dkim::Keyring;
use crate::inbound::auth::Users;
use crate::inbound::{BindError, Listener};
use crate::intake::{DirectIntake, Leftovers, Policy, QueuedIntake, Reception};
use crate::message::Budget;
use crate::observe::Clock;
use crate::queue::Queue;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// A bound listener and what stands behind it.
#[derive(Debug)]
pub(super) struct Door {
    listener: Listener,
    intake: DoorIntake,
}

#[derive(Debug)]
enum DoorIntake {
    Direct(Arc<DirectIntake>),
    Queued(Arc<QueuedIntake>),
}

impl Door {
    pub fn address(&self) -> SocketAddr {
        self.listener.local_address()
    }

    pub fn delivery(&self) -> &'static str {
        match self.intake {
            DoorIntake::Direct(_) => "direct",
            DoorIntake::Queued(_) => "queue",
        }
    }

    pub fn open(self, serving: &mut JoinSet<()>, stop: CancellationToken) {
        match self.intake {
            DoorIntake::Direct(intake) => serving.spawn(self.listener.serve(intake, stop)),
            DoorIntake::Queued(intake) => serving.spawn(self.listener.serve(intake, stop)),
        };
    }
}

/// What all intakes share.
pub(super) struct Behind {
    pub keyring: Arc<Keyring>,
    pub delivery: Arc<Delivery>,
    pub queue: Arc<dyn Queue>,
    pub clerk: Clerk,
    pub leftovers: Leftovers,
    /// The end of the drain time.
    pub cut_off: CancellationToken,
}

pub(super) fn bind(settings: &Settings, memory: Memory, behind: &Behind) -> Result<Vec<Door>, StartError> {
    let budget = Budget::new(memory.inbound);
    let users = Users::new(settings.users.iter().map(|user| (user.name.clone(), user.password.clone())));
    let mut doors = Vec::new();
    for typed in &settings.listeners {
        let reception = reception(settings, typed, &behind.keyring);
        let intake = behind.intake(typed, reception);
        match Listener::bind(typed.options.clone(), users.clone(), budget.clone()) {
            Ok(listener) => doors.push(Door { listener, intake }),
            Err(error) if is_dispensable(&error, settings) => warn!("{error}; going on without it"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(doors)
}

/// How one listener judges, repairs and rewrites.
pub(super) fn reception(settings: &Settings, listener: &ListenerSettings, keyring: &Arc<Keyring>) -> Reception {
    let senders = settings.users.iter().filter_map(|user| Some((user.name.clone(), user.senders.clone()?)));
    let policy = Policy {
        listener_senders: listener.senders.clone(),
        user_senders: Arc::new(senders.collect()),
        unsigned: settings.unsigned_at_intake(),
        keyring: keyring.clone(),
    };
    Reception {
        policy,
        repairs: settings.repairs,
        rules: settings.rules.clone(),
        hostname: settings.hostname.as_str().into(),
        listener: listener.options.address.to_string().into(),
        clock: Clock::System,
    }
}

impl Behind {
    fn intake(&self, typed: &ListenerSettings, reception: Reception) -> DoorIntake {
        match typed.delivery {
            Mode::Queue => {
                let (queue, clerk) = (self.queue.clone(), self.clerk.clone());
                DoorIntake::Queued(Arc::new(QueuedIntake { reception, queue, clerk }))
            }
            Mode::Direct => {
                let leftovers = self.leftovers.clone();
                let (delivery, cut_off) = (self.delivery.clone(), self.cut_off.clone());
                DoorIntake::Direct(Arc::new(DirectIntake { reception, delivery, leftovers, cut_off }))
            }
        }
    }
}

/// Many containers have no IPv6: `[::1]` beside another listener is a convenience there, not a condition.
fn is_dispensable(error: &BindError, settings: &Settings) -> bool {
    let (BindError::NoIpv6 { address } | BindError::NoSuchAddress { address }) = error else { return false };
    let others = settings.listeners.iter().filter(|listener| listener.options.address.is_ipv4()).count();
    address.ip() == Ipv6Addr::LOCALHOST && others > 0
}
