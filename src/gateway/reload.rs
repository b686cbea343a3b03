//! Reloading: asks for a configuration to be read again, and prepares the generation that comes of it. Nothing that serves is
//! touched before all of that has succeeded.

use super::generation::{Foundation, Generation};
use super::listeners::{self, BoundListener};
use super::storage::MemoryPlan;
use super::upstreams::{self, SandboxAccess};
use super::{StartError, keys};
use crate::config::{ConfigText, Environment, FileDigests, Problems, Settings};
use crate::control::Reloaded;
use crate::inbound::{BindError, InheritedSockets};
use crate::observe::long_work::in_place;
use crate::sandbox::Sandbox;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Interval between two looks at the files that the configuration names.
const LOOK_AT_FILES: Duration = Duration::from_secs(2);
/// Reloads that wait for their turn.
const MOST_WAITING: usize = 16;

/// Asks a gateway to reload. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reloader(mpsc::Sender<oneshot::Sender<Reloaded>>);

/// Requests to reload, at the gateway.
pub(super) type ReloadRequests = mpsc::Receiver<oneshot::Sender<Reloaded>>;

pub(super) fn channel() -> (Reloader, ReloadRequests) {
    let (sender, requests) = mpsc::channel(MOST_WAITING);
    (Reloader(sender), requests)
}

impl Reloader {
    /// Returns what it did once it is done.
    pub fn reload(&self) -> Pin<Box<dyn Future<Output = Reloaded> + Send>> {
        let requests = self.0.clone();
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let asked = requests.send(answer).await.is_ok();
            let answered = if asked { answered.await.ok() } else { None };
            answered.unwrap_or_else(|| refused(vec!["the gateway is stopping".to_owned()]))
        })
    }
}

/// Nothing has changed.
pub(super) fn refused(problems: Vec<String>) -> Reloaded {
    Reloaded { problems, ..Reloaded::default() }
}

/// The files with keys, certificates and secrets, looked at every few seconds.
#[derive(Debug)]
pub(super) struct FileWatch {
    /// As they were at the last look; a file that was found unusable is not tried again before it changes.
    seen: FileDigests,
    looks: Interval,
}

impl FileWatch {
    pub fn new(files: FileDigests) -> Self {
        let mut looks = interval(LOOK_AT_FILES);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { seen: files, looks }
    }

    /// These are the files now.
    pub fn set(&mut self, files: FileDigests) {
        self.seen = files;
    }

    /// Waits until some have changed.
    pub async fn changed(&mut self) -> Vec<PathBuf> {
        loop {
            self.looks.tick().await;
            let seen = self.seen.clone();
            let Ok(now) = spawn_blocking(move || seen.read_again()).await else { continue };
            let changed: Vec<_> = now.changed_since(&self.seen).map(Path::to_owned).collect();
            self.seen = now;
            if !changed.is_empty() {
                return changed;
            }
        }
    }
}

/// `max_memory` stays until the next start.
const TOO_LARGE_YET: &str = "`max_message_size` (with what the rules need for such a message) is more than half of the \
    `max_memory` that the gateway was started with: restart it for both, or reload with a smaller `max_message_size`";

/// What a reload will put in the place of what serves.
#[derive(Debug)]
pub(super) struct Successor {
    pub generation: Generation,
    /// Not among those that are open.
    pub listeners: Vec<BoundListener>,
    /// Set if there was none and one is needed.
    pub sandbox: Option<Sandbox>,
    /// Settings that stay as they are until the next start.
    pub at_next_start: Vec<String>,
}

/// Reads the files that the configuration names and resolves it.
pub(super) fn resolve(text: &ConfigText) -> Result<Settings, Vec<String>> {
    in_place(true, || text.resolve(&Environment::of_process())).map_err(|problems| in_words(&problems))
}

pub(super) fn read_again(text: &ConfigText) -> Result<ConfigText, Vec<String>> {
    text.read_again().map_err(|problems| in_words(&problems))
}

fn in_words(problems: &Problems) -> Vec<String> {
    problems.iter().map(|problem| problem.to_string()).collect()
}

/// `open`: the configured addresses of the listeners that serve.
pub(super) async fn prepare(
    mut settings: Settings,
    foundation: &Foundation,
    former: &Generation,
    (sandbox, open): (Option<&SandboxAccess>, &[SocketAddr]),
) -> Result<Successor, Vec<String>> {
    let failed = |error: StartError| vec![error.to_string()];
    let at_next_start = settings.keep_until_next_start(&former.settings);
    if settings.largest_message_needs() > MemoryPlan::of(&settings).inbound {
        return Err(vec![TOO_LARGE_YET.to_owned()]);
    }
    upstreams::refuse_own_listeners(&settings).await.map_err(failed)?;
    let keyring = Arc::new(keys::load(std::mem::take(&mut settings.dkim)).map_err(|error| failed(error.into()))?);
    let new_sandbox = match sandbox {
        Some(_) => None,
        None => upstreams::bind_sandbox(&settings, &keyring).map_err(failed)?,
    };
    let access = sandbox.or(new_sandbox.as_ref().map(Sandbox::access));
    let generation = Generation::build(settings, keyring, access, foundation, Some(former)).await.map_err(failed)?;
    let mut none_inherited = InheritedSockets::default();
    let listeners =
        listeners::bind(&generation.settings, (&generation.roles, &foundation.inbound), open, &mut none_inherited)
            .map_err(|error| vec![explain(&error, open)])?;
    let at_next_start = at_next_start.into_iter().map(str::to_owned).collect();
    Ok(Successor { generation, listeners, sandbox: new_sandbox, at_next_start })
}

/// A new listener may want the port of one that would go.
fn explain(error: &StartError, open: &[SocketAddr]) -> String {
    match error {
        StartError::Bind(BindError::InUse { address }) if open.iter().any(|open| open.port() == address.port()) => {
            format!("{error}: this gateway's own listener has that port now; restart the gateway for this change")
        }
        error => error.to_string(),
    }
}
