//! Assembles the gateway: builds every part from the settings, starts them, and stops them in order.
//!
//! Everything that can fail is done before the first connection is accepted, so nothing is half started. Order of
//! stopping: first the listeners and the queue's loop (mail in progress finishes, nothing new begins), then the
//! upstreams' connections (QUIT), then the sandbox, and the queue last.

mod admin;
pub(crate) mod backend;
mod data_dir;
mod descriptors;
mod dry_run;
mod keys;
mod listeners;
mod live;
pub mod lock;
mod plausible;
mod probe;
mod rates;
mod storage;
mod upstreams;

pub(crate) use self::dry_run::{DryRun, RecipientPreview, ServerNeed, UpstreamPreview};

use self::admin::{GatewayAdmin, GatewayMetrics};
use self::listeners::{BoundListener, IntakeParts};
use self::live::{LiveParts, WatchedState};
use self::lock::Lock;
use self::rates::GatewayRates;
use self::storage::{Lanes, MemoryPlan, Retention};
use crate::admin::AdminError;
use crate::config::{Provider, RouteSettings, Settings};
use crate::control::{ControlServer, CurrentRules, Examiner, LiveWatch};
use crate::delivery::{Bouncer, Delivery, DeliveryPlan, Dispatcher, LaneLimits, Route, Routes, SettlementPolicy};
use crate::inbound::{BindError, InheritedSocketError, InheritedSockets};
use crate::intake::{InProgress, Leftovers, StormWatch};
use crate::message::MemoryBudget;
use crate::observe::Clock;
use crate::queue::{Backend, QueueError};
use crate::relay::Deadline;
use crate::sandbox::{Sandbox, SandboxError};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
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
    listeners: Vec<BoundListener>,
    sandbox: Option<Sandbox>,
    delivery: Arc<Delivery>,
    dispatcher: Dispatcher<Delivery>,
    leftovers: Leftovers,
    rates: GatewayRates,
    storms: Option<StormWatch>,
    control: Option<ControlServer>,
    admin: GatewayAdmin,
    live: LiveWatch,
    watched: WatchedState,
    queue: Arc<dyn Backend>,
    lanes: Lanes,
    keep: Retention,
    /// The upstreams are tried once at the start.
    probes: bool,
    drain: Duration,
    /// Cancels waits for providers when the drain time is over.
    cut_off: CancellationToken,
    /// Closed last.
    lock: Arc<Lock>,
}

/// Why the gateway stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    AsAsked,
    /// A part of the gateway ended in a panic.
    ByItself,
}

/// At most this much of the drain time is reserved for final replies to clients and providers.
const FINAL_REPLIES: Duration = Duration::from_secs(1);

impl Gateway {
    /// `inherited`: sockets that the service manager passed; a listener without one opens its own.
    pub async fn start(mut settings: Settings, inherited: InheritedSockets) -> Result<Self, StartError> {
        data_dir::prepare(&settings.data_dir)
            .map_err(|source| StartError::DataDir { path: settings.data_dir.clone(), source })?;
        let sender_domain = plausible::sender_domain(&settings);
        let keyring = Arc::new(keys::load(std::mem::take(&mut settings.dkim))?);
        upstreams::refuse_own_listeners(&settings).await?;
        let sandbox = upstreams::bind_sandbox(&settings, &keyring)?;
        let memory = MemoryPlan::of(&settings);
        let routes = Arc::new(routes(&settings));
        let metrics = GatewayMetrics::new(&settings);
        let (lock, queue, lanes) = storage::open(&settings, memory, (&routes, metrics.queue())).await?;
        let targets = upstreams::targets(&settings, sandbox.as_ref(), queue.clone()).await?;
        let unsigned = settings.unsigned.clone();
        let conversions = MemoryBudget::new(memory.conversions);
        let recorded = metrics.delivery(&settings);
        let delivery = Delivery::new(targets, routes.clone(), keyring.clone(), unsigned, conversions.clone(), recorded);
        let delivery = Arc::new(delivery);
        let limits = LaneLimits::default();
        let budget = MemoryBudget::new(memory.inbound);
        let watched = WatchedState::default();
        watched.follow(&settings, &keyring, &delivery);
        let live = LiveParts {
            queue: Arc::downgrade(&queue),
            limits: limits.clone(),
            budgets: [budget.clone(), conversions],
            data_dir: settings.data_dir.clone(),
            disk_floor: settings.queue.min_free_space,
            state: watched.clone(),
        };
        let live = live.into_watch();
        let control = bind_control(&settings, &queue, (live.clone(), probe::examiner(&delivery)));
        let settlement = SettlementPolicy { schedule: settings.queue.schedule, routes, clock: Clock::System };
        let bouncer = Arc::new(bouncer(&settings, &settlement, &queue));
        let leftovers = Leftovers::new(queue.clone(), settlement.clone(), bouncer.clone());
        let behind = IntakeParts {
            keyring,
            delivery,
            queue: queue.clone(),
            settlement,
            leftovers,
            in_progress: InProgress::default(),
            storms: settings.storm.map(StormWatch::new),
            cut_off: CancellationToken::new(),
            budget,
            metrics: metrics.clone(),
        };
        let rates = GatewayRates::restore(&settings, queue.clone()).await?;
        let listeners = listeners::bind(&settings, (&behind, &rates), inherited)?;
        let admin = GatewayAdmin::bind(&settings, metrics)?;
        descriptors::raise_limit(&settings);
        announce(&settings, &sender_domain, &listeners, &admin);
        let IntakeParts { delivery, settlement, leftovers, storms, cut_off, .. } = behind;
        let lanes_of_mail = delivery.lanes().cloned().collect();
        let metrics = delivery.metrics().clone();
        let plan = DeliveryPlan { deliver: delivery.clone(), settlement, bouncer, lanes: lanes_of_mail, metrics };
        let dispatcher = Dispatcher {
            queue: queue.clone(),
            plan: watch::Sender::new(Arc::new(plan)).subscribe(),
            octets: memory.leases,
            cut_off: cut_off.clone(),
            limits,
        };
        Ok(Self {
            listeners,
            sandbox,
            delivery,
            dispatcher,
            leftovers,
            rates,
            storms,
            control,
            admin,
            live,
            watched,
            queue,
            lanes,
            keep: Retention { failed: settings.queue.keep_failed, history: settings.queue.keep_history },
            probes: settings.doctor.at_start,
            drain: settings.drain,
            cut_off,
            lock: Arc::new(lock),
        })
    }

    /// The listening addresses, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(BoundListener::address).collect()
    }

    /// Runs until `shutdown` is cancelled or a part ends unexpectedly, and then until the drain is over.
    pub async fn serve(self, shutdown: CancellationToken) -> StopReason {
        let sandbox_stop = CancellationToken::new();
        let sandbox = self.sandbox.map(|sandbox| tokio::spawn(sandbox.serve(sandbox_stop.clone())));
        let mut aside = JoinSet::new();
        if let Some(control) = self.control {
            aside.spawn(control.serve(shutdown.clone()));
        }
        self.admin.open(&mut aside, self.queue.clone(), self.live, &shutdown);
        aside.spawn(storage::watch(self.queue.clone(), self.lock.clone(), shutdown.clone()));
        aside.spawn(storage::prune(self.queue.clone(), self.keep, shutdown.clone()));
        aside.spawn(self.lanes.reassign_rest(shutdown.clone()));
        if self.probes {
            aside.spawn(probe::at_start(self.delivery.clone(), shutdown.clone()));
        }
        if let Some(storms) = self.storms {
            aside.spawn(storms.run(shutdown.clone()));
        }
        let mut dispatcher = JoinSet::new();
        dispatcher.spawn(self.dispatcher.run(shutdown.clone()));
        let mut listeners = JoinSet::new();
        self.watched.set_listeners(self.listeners.iter().map(|listener| listener.address().to_string()).collect());
        for listener in self.listeners {
            listener.open(&mut listeners, shutdown.clone());
        }
        let ended = tokio::select! {
            biased;
            () = shutdown.cancelled() => StopReason::AsAsked,
            _ = listeners.join_next() => part_ended("a listener"),
            _ = dispatcher.join_next() => part_ended("the queue's loop"),
        };
        shutdown.cancel();
        self.watched.set_listeners(Vec::new());
        let farewell = Instant::now() + self.drain;
        drain(listeners, dispatcher, &self.cut_off, farewell, self.drain).await;
        self.leftovers.finish(farewell).await;
        let _cut_off_at_the_end = timeout_at(farewell, self.rates.close()).await;
        close_upstreams(&self.delivery, farewell).await;
        sandbox_stop.cancel();
        if let Some(sandbox) = sandbox {
            let _cut_off_at_the_end = timeout_at(farewell, sandbox).await;
        }
        let _cut_off_at_the_end = timeout_at(farewell, async { while aside.join_next().await.is_some() {} }).await;
        if let Err(error @ QueueError::Moved(_)) = self.queue.admit(0) {
            warn!("closing the queue without a time limit, because its database may have to be restored: {error}");
            self.queue.close().await;
        } else if timeout_at(farewell, self.queue.close()).await.is_err() {
            warn!("the queue could not be closed in time; its mail is safe");
        }
        drop(self.lock);
        info!("stopped");
        ended
    }
}

/// A gateway that no longer listens or delivers is worse than one that is restarted.
fn part_ended(part: &str) -> StopReason {
    error!("{part} ended unexpectedly (a fault of this program): stopping, so that it can be restarted");
    StopReason::ByItself
}

/// Lets mail in progress finish on both sides. What is left shortly before the deadline is cut off, and waiting clients
/// and providers get a reply.
async fn drain(
    mut listeners: JoinSet<()>,
    mut dispatcher: JoinSet<()>,
    cut_off: &CancellationToken,
    farewell: Instant,
    drain: Duration,
) {
    let final_replies = FINAL_REPLIES.min(drain / 4);
    let finished = timeout_at(farewell - final_replies, async {
        while listeners.join_next().await.is_some() {}
        while dispatcher.join_next().await.is_some() {}
    });
    if finished.await.is_ok() {
        return;
    }
    warn!(?drain, "the drain time is over; cutting off what is still in progress");
    cut_off.cancel();
    let ended = timeout_at(farewell - final_replies / 2, async {
        while listeners.join_next().await.is_some() {}
        while dispatcher.join_next().await.is_some() {}
    });
    let _closed_or_late = ended.await;
    dispatcher.abort_all();
    listeners.abort_all();
    while dispatcher.join_next().await.is_some() {}
}

async fn close_upstreams(delivery: &Delivery, farewell: Instant) {
    let mut closing = JoinSet::new();
    for upstream in delivery.targets().iter().flat_map(|target| target.logins.all()) {
        let upstream = upstream.clone();
        closing.spawn(async move { upstream.close(Deadline { at: Some(farewell) }).await });
    }
    while closing.join_next().await.is_some() {}
}

/// Some container file systems do not support sockets; mail is still delivered.
fn bind_control(settings: &Settings, queue: &Arc<dyn Backend>, asked: (LiveWatch, Examiner)) -> Option<ControlServer> {
    let woken = queue.clone();
    let wake = Arc::new(move || woken.wakeups().retry_now());
    ControlServer::bind(&settings.data_dir, queue.clone(), current_rules(settings), wake, asked, Clock::System)
        .inspect_err(|error| {
            let folder = settings.data_dir.display();
            warn!("no control socket can be created in {folder} ({error}): `waxseal queue` works only while the gateway is stopped");
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

fn bouncer(settings: &Settings, settlement: &SettlementPolicy, queue: &Arc<dyn Backend>) -> Bouncer {
    Bouncer {
        bounce: settings.queue.bounce.clone(),
        sender: settings.queue.bounce_sender.clone(),
        hostname: settings.hostname.as_str().into(),
        settlement: settlement.clone(),
        queue: queue.clone(),
    }
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
