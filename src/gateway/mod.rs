//! Assembles the gateway: builds every part from the settings, starts them, and stops them in order.
//!
//! Everything that can fail is done before the first connection is accepted, so nothing is half started; a reload, too, is
//! prepared as a whole (`reload`) before anything is replaced (`serving`). Order of stopping: first the listeners and the
//! queue's loop (mail in progress finishes, nothing new begins), then the upstreams' connections (QUIT), then the sandbox,
//! and the queue last.

mod admin;
pub(crate) mod backend;
mod data_dir;
mod descriptors;
mod dry_run;
mod generation;
mod key_records;
mod keys;
mod listeners;
mod live;
pub mod lock;
mod plausible;
mod probe;
mod rates;
mod reload;
mod serving;
mod storage;
mod submission;
mod upstreams;

pub(crate) use self::data_dir::prepare as prepare_data_dir;
pub(crate) use self::dry_run::{DryRun, RecipientPreview, ServerNeed, UpstreamPreview};
pub use self::key_records::KeyRecords;
pub use self::plausible::block as plausible_environment;
pub(crate) use self::upstreams::upstreams_by_account;

use self::admin::{GatewayAdmin, GatewayMetrics};
use self::generation::{Foundation, Generation};
use self::listeners::BoundListener;
use self::live::{LiveParts, WatchedState};
pub use self::reload::Reloader;
use self::serving::{Current, Parts, Serving};
use self::storage::{Lanes, MemoryPlan};
use crate::admin::AdminError;
use crate::config::{ConfigText, Provider, RouteSettings, Settings};
use crate::control::{ControlServer, CurrentRules, GatewayHooks, LiveWatch};
use crate::delivery::{Dispatcher, LaneLimits, Route, Routes};
use crate::inbound::{BindError, InheritedSocketError, InheritedSockets};
use crate::observe::Clock;
use crate::queue::{Backend, QueueError};
use crate::sandbox::{Sandbox, SandboxError};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Why the gateway did not start. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the data folder {path} cannot be used: {source}")]
    DataDir { path: PathBuf, source: data_dir::DataDirError },
    #[error(transparent)]
    Lock(#[from] lock::LockError),
    #[error(transparent)]
    OpenQueue(#[from] backend::BackendError),
    #[error("the queue in {path} cannot be used: {source}")]
    Queue { path: PathBuf, source: QueueError },
    #[error("the quota usage of upstream \"{upstream}\" cannot be read: {cause}")]
    Quotas { upstream: String, cause: String },
    #[error("the usage of a rate cannot be read ({whose}): {cause}")]
    Rates { whose: String, cause: String },
    #[error(transparent)]
    Keys(#[from] keys::KeysError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(
        "upstream \"{upstream}\" is this gateway's own listener {listener}: its mail would loop; \
         set its host and port to the provider's"
    )]
    OwnListener { upstream: String, listener: SocketAddr },
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    InheritedSocket(#[from] InheritedSocketError),
}

/// Assembled and bound, but not serving yet.
#[derive(Debug)]
pub struct Gateway {
    parts: Parts,
    reloader: Reloader,
}

/// Why the gateway stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    AsAsked,
    /// A part of the gateway ended in a panic.
    ByItself,
}

impl Gateway {
    /// `text`: the configuration that the settings are of, for a reload. `inherited`: sockets that the service manager
    /// passed; a listener without one opens its own.
    pub async fn start(
        mut settings: Settings,
        text: ConfigText,
        mut inherited: InheritedSockets,
    ) -> Result<Self, StartError> {
        data_dir::prepare(&settings.data_dir)
            .map_err(|source| StartError::DataDir { path: settings.data_dir.clone(), source })?;
        let sender_domain = plausible::sender_domain(&settings);
        let keyring = Arc::new(keys::load(std::mem::take(&mut settings.dkim))?);
        upstreams::refuse_own_listeners(&settings).await?;
        let sandbox = upstreams::bind_sandbox(&settings, &keyring)?;
        let memory = MemoryPlan::of(&settings);
        let metrics = GatewayMetrics::new(&settings);
        let (lock, queue) = storage::open(&settings, memory, metrics.queue()).await?;
        let foundation = Foundation::new(queue.clone(), memory, metrics.clone());
        let access = sandbox.as_ref().map(Sandbox::access);
        let generation = Generation::build(settings, keyring, access, &foundation, None).await?;
        let mut lanes = Lanes::of(queue.clone(), generation.routes.clone());
        let unusable = |source: QueueError| StartError::Queue { path: generation.settings.data_dir.clone(), source };
        lanes.begin().await.map_err(unusable)?;
        let limits = LaneLimits::default();
        let watched = WatchedState::default();
        watched.follow(&generation);
        let live = live_watch(&generation.settings, &foundation, (&limits, &watched));
        let current = Current::of(&generation, watched);
        let (reloader, requests) = reload::channel();
        let control = bind_control(&generation.settings, &queue, hooks(&current, &live, &foundation, &reloader));
        let listeners =
            listeners::bind(&generation.settings, (&generation.roles, &foundation.inbound), &[], &mut inherited)?;
        inherited.all_claimed()?;
        let admin = GatewayAdmin::bind(&generation.settings, current.hostname.subscribe(), metrics)?;
        descriptors::raise_limit(&generation.settings);
        announce(&generation.settings, &sender_domain, &listeners, &admin);
        let dispatcher = Dispatcher {
            queue,
            plan: current.plan.subscribe(),
            octets: memory.leases,
            cut_off: foundation.cut_off.clone(),
            limits,
        };
        let lock = Arc::new(lock);
        let parts = Parts {
            foundation,
            generation,
            current,
            text,
            listeners,
            sandbox,
            control,
            admin,
            live,
            dispatcher,
            lanes,
            requests,
            lock,
        };
        Ok(Self { parts, reloader })
    }

    /// For looking up in the DNS whether the keys' records are there.
    pub fn key_records(&self) -> KeyRecords {
        KeyRecords(self.parts.current.watched.clone())
    }

    /// The listening addresses, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.parts.listeners.iter().map(BoundListener::address).collect()
    }

    /// Asks it to reload while it serves.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Runs until `shutdown` is cancelled or a part ends unexpectedly, and then until the drain is over.
    pub async fn serve(self, shutdown: CancellationToken) -> StopReason {
        let mut serving = Serving::begin(self.parts, shutdown);
        let ended = serving.run().await;
        serving.finish().await;
        ended
    }
}

/// A gateway that no longer listens or delivers is worse than one that is restarted.
fn part_ended(part: &str) -> StopReason {
    error!("{part} ended unexpectedly (a fault of this program): stopping, so that it can be restarted");
    StopReason::ByItself
}

/// What operators see of the gateway and ask of it.
fn hooks(current: &Current, live: &LiveWatch, foundation: &Foundation, reloader: &Reloader) -> GatewayHooks {
    let Foundation { queue, inbound, .. } = foundation;
    let rules = current.rules.subscribe();
    let woken = queue.clone();
    let reloader = reloader.clone();
    GatewayHooks {
        rules: Arc::new(move || rules.borrow().clone()),
        wake: Arc::new(move || woken.wakeups().retry_now()),
        live: live.clone(),
        examiner: probe::examiner(current.plan.subscribe()),
        submitter: submission::submitter(current.roles.subscribe(), inbound.clone()),
        reload: Arc::new(move || reloader.reload()),
    }
}

fn live_watch(
    settings: &Settings,
    foundation: &Foundation,
    (limits, watched): (&LaneLimits, &WatchedState),
) -> LiveWatch {
    let parts = LiveParts {
        queue: Arc::downgrade(&foundation.queue),
        limits: limits.clone(),
        budgets: [foundation.inbound.clone(), foundation.conversions.clone()],
        data_dir: settings.data_dir.clone(),
        disk_floor: settings.queue.min_free_space,
        state: watched.clone(),
    };
    parts.into_watch()
}

/// Some container file systems do not support sockets; mail is still delivered.
fn bind_control(settings: &Settings, queue: &Arc<dyn Backend>, hooks: GatewayHooks) -> Option<ControlServer> {
    ControlServer::bind(&settings.data_dir, queue.clone(), hooks, Clock::System)
        .inspect_err(|error| {
            let folder = settings.data_dir.display();
            warn!("no control socket can be created in {folder} ({error}): `waxseal queue` and `waxseal reload` cannot reach this gateway");
        })
        .ok()
}

/// For stored mail, when an operator asks for a retry with the rules.
pub fn current_rules(settings: &Settings) -> CurrentRules {
    CurrentRules { rules: settings.rules.clone(), routes: Some(Arc::new(routes(settings))) }
}

/// As delivery uses them; upstreams have the same indices as in the settings.
pub fn routes(settings: &Settings) -> Routes {
    let index_of = |name: &Arc<str>| settings.upstreams.iter().position(|upstream| upstream.name == *name);
    let route = |typed: &RouteSettings| Route {
        name: typed.name.clone(),
        conditions: typed.conditions.clone(),
        upstreams: typed.upstreams.filter_map(index_of),
        retry_refused: typed.retry_refused,
    };
    let names = settings.upstreams.iter().map(|upstream| upstream.name.clone());
    Routes::new(settings.routes.iter().map(route).collect(), names.collect())
}

fn announce(settings: &Settings, sender_domain: &str, listeners: &[BoundListener], admin: &GatewayAdmin) {
    for warning in settings.warnings.iter() {
        warn!("{warning}");
    }
    for listener in listeners {
        info!(address = %listener.address(), delivery = listener.delivery(), "listening");
    }
    if let Some(address) = admin.address() {
        info!(admin = %address, "serving health and metrics: /healthz, /readyz, /metrics");
    }
    plausible::print(settings, sender_domain, listeners);
    for upstream in &settings.upstreams {
        let name = &*upstream.name;
        let described = upstreams::describe(upstream);
        match upstream.provider {
            // Once, and not again for each mail.
            Provider::Sandbox => warn!(upstream = name, "{described}"),
            Provider::Smtp { .. } => info!(upstream = name, "{described}"),
        }
    }
}
