//! The gateway while it serves: its parts run, a reload replaces some of them, and at the end all stop in order.

use super::admin::GatewayAdmin;
use super::generation::{Foundation, Generation};
use super::listeners::{BoundListener, ListenerIntake, OpenListener};
use super::live::WatchedState;
use super::lock::Lock;
use super::reload::{self, FileWatch, ReloadRequests, Successor, refused};
use super::storage::{self, InUse, Lanes, Retention};
use super::upstreams::SandboxAccess;
use super::{StopReason, descriptors, part_ended, probe, upstreams};
use crate::config::{ConfigText, Settings};
use crate::control::{ControlServer, CurrentRules, LiveWatch, Reloaded};
use crate::delivery::{Delivery, DeliveryPlan, Dispatcher};
use crate::inbound::ListenerRole;
use crate::intake::{SilenceWatch, StormWatch};
use crate::queue::QueueError;
use crate::relay::{Deadline, Upstream};
use crate::sandbox::Sandbox;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// At most this much of the drain time is reserved for final replies to clients and providers.
const FINAL_REPLIES: Duration = Duration::from_secs(1);

/// What follows the configuration while the gateway serves.
#[derive(Debug)]
pub(super) struct Current {
    pub plan: watch::Sender<Arc<DeliveryPlan<Delivery>>>,
    pub rules: watch::Sender<CurrentRules>,
    pub retention: watch::Sender<Retention>,
    pub expected: watch::Sender<SilenceWatch>,
    pub storms: watch::Sender<Option<StormWatch>>,
    /// In the order of the configuration.
    pub roles: watch::Sender<Vec<Arc<ListenerRole<ListenerIntake>>>>,
    /// As clients of `[admin]` may address it.
    pub hostname: watch::Sender<String>,
    pub watched: WatchedState,
}

impl Current {
    pub fn of(generation: &Generation, watched: WatchedState) -> Self {
        Self {
            plan: watch::Sender::new(generation.plan.clone()),
            rules: watch::Sender::new(generation.rules()),
            retention: watch::Sender::new(generation.retention()),
            expected: watch::Sender::new(generation.expected.clone()),
            storms: watch::Sender::new(generation.storms.clone()),
            roles: watch::Sender::new(generation.roles.clone()),
            hostname: watch::Sender::new(generation.settings.hostname.clone()),
            watched,
        }
    }

    fn follow(&self, generation: &Generation) {
        self.plan.send_replace(generation.plan.clone());
        self.rules.send_replace(generation.rules());
        self.retention.send_replace(generation.retention());
        self.expected.send_replace(generation.expected.clone());
        self.storms.send_replace(generation.storms.clone());
        self.roles.send_replace(generation.roles.clone());
        self.hostname.send_replace(generation.settings.hostname.clone());
        self.watched.follow(generation);
        self.watched.look_again();
    }
}

/// Everything that [`Serving`] starts.
#[derive(Debug)]
pub(super) struct Parts {
    pub foundation: Foundation,
    pub generation: Generation,
    pub current: Current,
    pub text: ConfigText,
    pub listeners: Vec<BoundListener>,
    pub sandbox: Option<Sandbox>,
    pub control: Option<ControlServer>,
    pub admin: GatewayAdmin,
    pub live: LiveWatch,
    pub dispatcher: Dispatcher<Delivery>,
    pub lanes: Lanes,
    pub requests: ReloadRequests,
    pub lock: Arc<Lock>,
}

pub(super) struct Serving {
    foundation: Foundation,
    generation: Generation,
    current: Current,
    text: ConfigText,
    files: FileWatch,
    requests: ReloadRequests,
    open: Vec<OpenListener>,
    sandbox: Option<(SandboxAccess, JoinHandle<()>)>,
    sandbox_stop: CancellationToken,
    listeners: JoinSet<bool>,
    dispatcher: JoinSet<()>,
    aside: JoinSet<()>,
    reassignment: Reassignment,
    shutdown: CancellationToken,
    /// Closed last.
    lock: Arc<Lock>,
}

/// The task that puts waiting mail on the lanes of the current routes.
struct Reassignment {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Reassignment {
    fn start(mut lanes: Lanes, shutdown: &CancellationToken) -> Self {
        let stop = shutdown.child_token();
        let within = stop.clone();
        let task = tokio::spawn(async move { lanes.reassign_rest(within).await });
        Self { stop, task }
    }

    /// Ends the one under way first: both would move the same mail. What is still in progress under the former routes may put
    /// mail on their lanes until it ends.
    fn replace(&mut self, mut lanes: Lanes, former_use: InUse, shutdown: &CancellationToken) {
        self.stop.cancel();
        let stop = shutdown.child_token();
        let successor = stop.clone();
        let former = std::mem::replace(&mut self.task, tokio::spawn(async {}));
        self.stop = stop;
        self.task = tokio::spawn(async move {
            let _it_ended = former.await;
            if let Err(error) = lanes.begin().await {
                error!("waiting mail cannot be put on the lanes of the new routes yet; it is tried again: {error}");
            }
            lanes.reassign_rest(successor.clone()).await;
            lanes.follow_stragglers(former_use, successor).await;
        });
    }
}

impl Serving {
    pub fn begin(parts: Parts, shutdown: CancellationToken) -> Self {
        let Parts { foundation, generation, current, text, requests, lock, .. } = parts;
        let sandbox_stop = CancellationToken::new();
        let sandbox = parts.sandbox.map(|sandbox| serve_sandbox(sandbox, &sandbox_stop));
        let mut aside = JoinSet::new();
        if let Some(control) = parts.control {
            aside.spawn(control.serve(shutdown.clone()));
        }
        let queue = foundation.queue.clone();
        parts.admin.open(&mut aside, queue.clone(), parts.live, &shutdown);
        aside.spawn(storage::watch(queue.clone(), lock.clone(), shutdown.clone()));
        aside.spawn(storage::prune(queue, current.retention.subscribe(), shutdown.clone()));
        if generation.settings.doctor.at_start {
            aside.spawn(probe::at_start(generation.plan.deliver.clone(), shutdown.clone()));
        }
        aside.spawn(StormWatch::run(current.storms.subscribe(), shutdown.clone()));
        let expected = current.expected.subscribe();
        aside.spawn(SilenceWatch::run(expected, foundation.queue.clone(), shutdown.clone()));
        let mut dispatcher = JoinSet::new();
        dispatcher.spawn(parts.dispatcher.run(shutdown.clone()));
        let mut listeners = JoinSet::new();
        let open: Vec<_> =
            parts.listeners.into_iter().map(|listener| listener.open(&mut listeners, &shutdown)).collect();
        tell_listeners(&current.watched, &open);
        let reassignment = Reassignment::start(parts.lanes, &shutdown);
        let files = FileWatch::new(generation.settings.files.clone());
        Self {
            foundation,
            generation,
            current,
            text,
            files,
            requests,
            open,
            sandbox,
            sandbox_stop,
            listeners,
            dispatcher,
            aside,
            reassignment,
            shutdown,
            lock,
        }
    }

    /// Until the stop, or until a part ends unexpectedly.
    pub async fn run(&mut self) -> StopReason {
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return StopReason::AsAsked,
                Some(ended) = self.listeners.join_next() => if !is_as_asked(ended) {
                    return part_ended("a listener");
                },
                _ = self.dispatcher.join_next() => return part_ended("the queue's loop"),
                Some(answer) = self.requests.recv() => self.reload_as_asked(answer).await,
                files = self.files.changed() => self.reload_changed_files(&files).await,
            }
        }
    }

    async fn reload_as_asked(&mut self, answer: oneshot::Sender<Reloaded>) {
        let reloaded = match reload::read_again(&self.text) {
            Ok(text) => self.reload(text).await,
            Err(problems) => refused(problems),
        };
        self.note(&reloaded, "the configuration");
        // The client may be gone.
        let _ = answer.send(reloaded);
    }

    /// With the configuration as it was last read: an edit of it counts only when it is asked for.
    async fn reload_changed_files(&mut self, files: &[PathBuf]) {
        let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        let reloaded = self.reload(self.text.clone()).await;
        self.note(&reloaded, &names.join(", "));
    }

    fn note(&self, reloaded: &Reloaded, what: &str) {
        self.foundation.metrics.configuration_read(reloaded.problems.is_empty());
        self.current.watched.set_refused(&reloaded.problems);
        log(reloaded, what);
    }

    async fn reload(&mut self, text: ConfigText) -> Reloaded {
        let settings = match reload::resolve(&text) {
            Ok(settings) => settings,
            Err(problems) => return refused(problems),
        };
        let warnings = settings.warnings.iter().map(|warning| warning.to_string()).collect();
        let open: Vec<SocketAddr> = self.open.iter().map(|listener| listener.configured).collect();
        let sandbox = self.sandbox.as_ref().map(|(access, _)| access);
        let prepared = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Err(vec!["the gateway is stopping".to_owned()]),
            prepared = reload::prepare(settings, &self.foundation, &self.generation, (sandbox, &open)) => prepared,
        };
        match prepared {
            Ok(successor) => {
                self.text = text;
                let at_next_start = successor.at_next_start.clone();
                Reloaded { changes: self.replace(successor), at_next_start, warnings, problems: Vec::new() }
            }
            Err(problems) => refused(problems),
        }
    }

    /// Puts the successor in the place of the generation that serves. Nothing here can fail.
    fn replace(&mut self, successor: Successor) -> Vec<String> {
        let Successor { mut generation, listeners, sandbox, .. } = successor;
        let mut changes = Vec::new();
        if let Some(sandbox) = sandbox {
            self.sandbox = Some(serve_sandbox(sandbox, &self.sandbox_stop));
        }
        if let Some((sandbox, _)) = &self.sandbox {
            sandbox.set_records(upstreams::records(&generation.keyring));
        }
        descriptors::raise_limit(&generation.settings);
        self.replace_listeners(&generation, listeners, &mut changes);
        generation.upstreams.apply_limits();
        self.current.follow(&generation);
        self.files.set(generation.settings.files.clone());
        let former = std::mem::replace(&mut self.generation, generation);
        if former.routes.fingerprint() != self.generation.routes.fingerprint() {
            changes.push("routes: waiting mail is put on their lanes".to_owned());
            let lanes = Lanes::of(self.foundation.queue.clone(), self.generation.routes.clone());
            self.reassignment.replace(lanes, former.in_use(), &self.shutdown);
        }
        self.close_what_is_not_used(&former, &mut changes);
        changes.extend(other_changes(&former.settings, &self.generation));
        changes
    }

    fn replace_listeners(&mut self, generation: &Generation, bound: Vec<BoundListener>, changes: &mut Vec<String>) {
        let mut roles = generation.roles.clone();
        self.open.retain(|open| match roles.iter().position(|role| role.options.address == open.configured) {
            Some(at) => {
                open.role.send_replace(roles.swap_remove(at));
                true
            }
            None => {
                changes.push(format!("the listener {} is closed", open.configured));
                open.stop.cancel();
                false
            }
        });
        for listener in bound {
            changes.push(format!("listening on {}", listener.address()));
            info!(address = %listener.address(), delivery = listener.delivery(), "listening");
            self.open.push(listener.open(&mut self.listeners, &self.shutdown));
        }
        tell_listeners(&self.current.watched, &self.open);
    }

    fn close_what_is_not_used(&mut self, former: &Generation, changes: &mut Vec<String>) {
        let name = |upstream: &Upstream| format!("upstream \"{}\"", upstream.name());
        let gone: Vec<_> = former.upstreams.not_in(&self.generation.upstreams).cloned().collect();
        let new: Vec<_> = self.generation.upstreams.not_in(&former.upstreams).map(name).collect();
        let mut told: Vec<String> =
            new.iter().map(|name| format!("{name} is connected to as it is configured now")).collect();
        told.extend(
            gone.iter().map(name).filter(|name| !new.contains(name)).map(|name| format!("{name} is not used any more")),
        );
        told.sort();
        told.dedup();
        changes.extend(told);
        for upstream in gone {
            self.aside.spawn(async move { upstream.close(Deadline::NONE).await });
        }
    }

    /// Lets mail in progress finish, and closes everything in order.
    pub async fn finish(mut self) {
        self.shutdown.cancel();
        self.current.watched.set_listeners(Vec::new());
        let drain = self.generation.settings.drain;
        let farewell = Instant::now() + drain;
        self.drain(farewell, drain).await;
        self.generation.leftovers.finish(farewell).await;
        let _cut_off_at_the_end = timeout_at(farewell, self.generation.rates.close()).await;
        let expected = self.generation.expected.close(&*self.foundation.queue);
        let _cut_off_at_the_end = timeout_at(farewell, expected).await;
        self.generation.upstreams.close(farewell).await;
        self.sandbox_stop.cancel();
        if let Some((_, sandbox)) = self.sandbox {
            let _cut_off_at_the_end = timeout_at(farewell, sandbox).await;
        }
        let _cut_off_at_the_end = timeout_at(farewell, self.reassignment.task).await;
        let _cut_off_at_the_end = timeout_at(farewell, async { while self.aside.join_next().await.is_some() {} }).await;
        let queue = &self.foundation.queue;
        if let Err(error @ QueueError::Moved(_)) = queue.admit(0) {
            warn!("closing the queue without a time limit, because its database may have to be restored: {error}");
            queue.close().await;
        } else if timeout_at(farewell, queue.close()).await.is_err() {
            warn!("the queue could not be closed in time; its mail is safe");
        }
        drop(self.lock);
        info!("stopped");
    }

    /// Lets mail in progress finish on both sides. What is left shortly before the deadline is cut off, and waiting
    /// clients and providers get a reply.
    async fn drain(&mut self, farewell: Instant, drain: Duration) {
        let Self { listeners, dispatcher, .. } = self;
        let final_replies = FINAL_REPLIES.min(drain / 4);
        let finished = timeout_at(farewell - final_replies, async {
            while listeners.join_next().await.is_some() {}
            while dispatcher.join_next().await.is_some() {}
        });
        if finished.await.is_ok() {
            return;
        }
        warn!(?drain, "the drain time is over; cutting off what is still in progress");
        self.foundation.cut_off.cancel();
        let ended = timeout_at(farewell - final_replies / 2, async {
            while listeners.join_next().await.is_some() {}
            while dispatcher.join_next().await.is_some() {}
        });
        let _closed_or_late = ended.await;
        dispatcher.abort_all();
        listeners.abort_all();
        while dispatcher.join_next().await.is_some() {}
    }
}

fn tell_listeners(watched: &WatchedState, open: &[OpenListener]) {
    watched.set_listeners(open.iter().map(|listener| listener.address.to_string()).collect());
}

fn serve_sandbox(sandbox: Sandbox, stop: &CancellationToken) -> (SandboxAccess, JoinHandle<()>) {
    (sandbox.access().clone(), tokio::spawn(sandbox.serve(stop.clone())))
}

fn is_as_asked(ended: Result<bool, JoinError>) -> bool {
    ended.unwrap_or(false)
}

/// What cannot be told from the listeners, the upstreams and the routes.
fn other_changes(former: &Settings, now: &Generation) -> Vec<String> {
    let settings = &now.settings;
    let mut changes = Vec::new();
    let mut tell = |what: &str, is_same: bool| {
        if !is_same {
            changes.push(format!("{what} changed"));
        }
    };
    tell("users or their passwords", former.has_logins_of(settings));
    tell("rewrite rules", format!("{:?}", former.rules) == format!("{:?}", settings.rules));
    tell("repairs", former.repairs == settings.repairs);
    tell("[storm]", former.storm == settings.storm);
    tell("[queue]", former.queue == settings.queue);
    tell("expected mail", former.expected == settings.expected);
    tell("hostname", former.hostname == settings.hostname);
    let changed = settings.files.changed_since(&former.files);
    changes.extend(changed.map(|file| format!("{} is read again", file.display())));
    changes
}

fn log(reloaded: &Reloaded, what: &str) {
    let Reloaded { problems, changes, at_next_start, warnings } = reloaded;
    if !problems.is_empty() {
        for problem in problems {
            error!("{problem}");
        }
        error!("{what} cannot be used, and nothing has changed: the gateway goes on as it was");
        return;
    }
    warnings.iter().for_each(|warning| warn!("{warning}"));
    info!(changes = changes.join("; "), "{what} was read again");
    if !at_next_start.is_empty() {
        warn!("changed in the configuration, and in effect only after a restart: {}", at_next_start.join(", "));
    }
}

#[cfg(test)]
mod tests;
