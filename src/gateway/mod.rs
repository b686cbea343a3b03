//! The only assembler: builds every part from the settings, starts them, and stops them in order.
//!
//! Everything that can fail is done before the first connection is accepted; nothing half-starts. Order of stopping:
//! listeners first (mail in progress finishes), then the upstreams' connections (QUIT), then the sandbox.

pub mod control;
mod data_dir;
mod keys;
pub mod lock;
mod upstreams;

use crate::config::{RouteSettings, Settings};
use crate::delivery::{Delivery, Route, Routes};
use crate::dkim::Keyring;
use crate::inbound::auth::Users;
use crate::inbound::{BindError, Listener};
use crate::intake::{DirectIntake, Policy};
use crate::message::Budget;
use crate::observe::Clock;
use crate::relay::Deadline;
use crate::sandbox::{Sandbox, SandboxError};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Why the gateway did not start. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the data folder {path} cannot be used: {source}; set `data_dir` to a folder this user may write to")]
    DataDir { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Keys(#[from] keys::KeysError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(
        "upstream \"{upstream}\" is this gateway's own listener {listener}: its mail would go round in circles; \
         set its host and port to the provider's"
    )]
    OwnListener { upstream: String, listener: SocketAddr },
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// Assembled and bound, not yet serving.
#[derive(Debug)]
pub struct Gateway {
    listeners: Vec<(Listener, Arc<DirectIntake>)>,
    sandbox: Option<Sandbox>,
    delivery: Arc<Delivery>,
    drain: Duration,
}

impl Gateway {
    pub async fn start(mut settings: Settings) -> Result<Self, StartError> {
        data_dir::prepare(&settings.data_dir)
            .map_err(|source| StartError::DataDir { path: settings.data_dir.clone(), source })?;
        let keyring = Arc::new(keys::load(std::mem::take(&mut settings.dkim))?);
        upstreams::refuse_own_listeners(&settings).await?;
        let sandbox = upstreams::bind_sandbox(&settings, &keyring)?;
        let targets = upstreams::targets(&settings, sandbox.as_ref())?;
        let delivery = Arc::new(Delivery::new(targets, routes(&settings), keyring.clone(), settings.unsigned.clone()));
        let listeners = bind_listeners(&settings, &keyring, &delivery)?;
        announce(&settings, &listeners);
        Ok(Self { listeners, sandbox, delivery, drain: settings.drain })
    }

    /// Where it listens, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|(listener, _)| listener.local_address()).collect()
    }

    /// Until `shutdown` is cancelled and the drain is over.
    pub async fn serve(self, shutdown: CancellationToken) {
        let sandbox_stop = CancellationToken::new();
        let sandbox = self.sandbox.map(|sandbox| tokio::spawn(sandbox.serve(sandbox_stop.clone())));
        let mut listeners = JoinSet::new();
        for (listener, intake) in self.listeners {
            listeners.spawn(listener.serve(intake, shutdown.clone()));
        }
        shutdown.cancelled().await;
        let deadline = Instant::now() + self.drain;
        let finished = timeout_at(deadline, async { while listeners.join_next().await.is_some() {} }).await;
        if finished.is_err() {
            warn!(drain = ?self.drain, "the drain time is over; cutting off what is still in progress");
            listeners.abort_all();
        }
        // A little is kept for QUIT even when clients used the whole drain time.
        let farewell = deadline.max(Instant::now() + Duration::from_millis(500));
        let closing = self.delivery.targets().iter().map(|target| {
            let upstream = target.upstream.clone();
            async move { upstream.close(Deadline { at: Some(farewell) }).await }
        });
        let mut all = JoinSet::new();
        closing.for_each(|close| drop(all.spawn(close)));
        while all.join_next().await.is_some() {}
        sandbox_stop.cancel();
        if let Some(sandbox) = sandbox {
            let _cut_off_at_the_end = timeout_at(farewell, sandbox).await;
        }
        info!("stopped");
    }
}

fn routes(settings: &Settings) -> Routes {
    let index_of = |name: &Arc<str>| settings.upstreams.iter().position(|upstream| upstream.name == *name);
    let route = |typed: &RouteSettings| Route {
        name: typed.name.clone(),
        senders: typed.senders.clone(),
        recipients: typed.recipients.clone(),
        upstreams: typed.upstreams.iter().filter_map(index_of).collect(),
    };
    Routes::new(settings.routes.iter().map(route).collect())
}

fn bind_listeners(
    settings: &Settings,
    keyring: &Arc<Keyring>,
    delivery: &Arc<Delivery>,
) -> Result<Vec<(Listener, Arc<DirectIntake>)>, StartError> {
    let budget = Budget::new(settings.max_memory);
    let hostname: Arc<str> = settings.hostname.as_str().into();
    let senders = settings.users.iter().filter_map(|user| Some((user.name.clone(), user.senders.clone()?)));
    let user_senders = Arc::new(senders.collect::<HashMap<_, _>>());
    let users = users(settings);
    let mut bound = Vec::new();
    for listener in &settings.listeners {
        let intake = DirectIntake {
            policy: Policy {
                listener_senders: listener.senders.clone(),
                user_senders: user_senders.clone(),
                unsigned: settings.unsigned.clone(),
                keyring: keyring.clone(),
            },
            hostname: hostname.clone(),
            delivery: delivery.clone(),
            clock: Clock::System,
        };
        match Listener::bind(listener.options.clone(), users.clone(), budget.clone()) {
            Ok(listener) => bound.push((listener, Arc::new(intake))),
            Err(error) if is_dispensable(&error, settings) => warn!("{error}; going on without it"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bound)
}

/// Many containers have no IPv6: `[::1]` beside another listener is a convenience there, not a condition.
fn is_dispensable(error: &BindError, settings: &Settings) -> bool {
    let (BindError::NoIpv6 { address } | BindError::NoSuchAddress { address }) = error else { return false };
    let others = settings.listeners.iter().filter(|listener| listener.options.address.is_ipv4()).count();
    address.ip() == Ipv6Addr::LOCALHOST && others > 0
}

fn users(settings: &Settings) -> Users {
    Users::new(settings.users.iter().map(|user| (user.name.clone(), user.password.clone())))
}

fn announce(settings: &Settings, listeners: &[(Listener, Arc<DirectIntake>)]) {
    for warning in settings.warnings.iter() {
        warn!("{warning}");
    }
    for (listener, _) in listeners {
        info!(address = %listener.local_address(), "listening");
    }
    for upstream in &settings.upstreams {
        info!(upstream = &*upstream.name, "{}", upstreams::describe(upstream));
    }
}
