//! Access to the queue: through the running gateway's socket, or, under the data folder's lock, directly.

use crate::config::QueueLocation;
use crate::control::{self, ControlRequest, ControlResponse, CurrentRules, Overview};
use crate::gateway::backend::{self, BackendOptions};
use crate::gateway::lock::{Lock, LockError};
use crate::queue::{Backend, Cursor, Filter, Page};
use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// For a gateway that is just starting or stopping.
const CONNECT_ATTEMPTS: u32 = 10;
const RETRY_INTERVAL: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub enum QueueClient {
    /// Each request uses its own connection, so that a question to the user blocks nobody.
    Gateway { data_dir: PathBuf },
    Folder {
        queue: Arc<dyn Backend>,
        /// The configuration's rules, once a command needs them.
        rules: CurrentRules,
        _lock: Lock,
    },
}

impl QueueClient {
    pub async fn open(location: &QueueLocation) -> anyhow::Result<Self> {
        let data_dir = location.data_dir.as_path();
        let mut tries = 0;
        loop {
            tries += 1;
            let refused = match control::connect(data_dir).await {
                Ok(_) => return Ok(Self::Gateway { data_dir: data_dir.to_owned() }),
                Err(error) => error,
            };
            // Not created: a folder created by root could not be opened by the gateway's user.
            if !backend::exists(location).with_context(|| wrong_user(data_dir))? {
                return Err(no_queue(data_dir));
            }
            match Lock::take_as_owner(data_dir) {
                Ok(lock) => {
                    let queue = backend::open(location.clone(), BackendOptions::for_commands()).await?;
                    return Ok(Self::Folder { queue, rules: CurrentRules::default(), _lock: lock });
                }
                Err(LockError::Held { .. }) if tries < CONNECT_ATTEMPTS => tokio::time::sleep(RETRY_INTERVAL).await,
                Err(LockError::Held { holder, .. }) => return Err(unreachable(data_dir, &holder, &refused)),
                Err(error @ LockError::OtherUser { .. }) => return Err(error.into()),
                Err(error) => return Err(error).with_context(|| wrong_user(data_dir)),
            }
        }
    }

    /// A running gateway uses its own.
    pub fn has_rules(&self) -> bool {
        matches!(self, Self::Gateway { .. })
    }

    pub fn use_rules(&mut self, current: CurrentRules) {
        if let Self::Folder { rules, .. } = self {
            *rules = current;
        }
    }

    /// Returns when everything is durable.
    pub async fn close(self) {
        if let Self::Folder { queue, .. } = self {
            queue.close().await;
        }
    }

    pub async fn ask(&self, request: ControlRequest) -> anyhow::Result<ControlResponse> {
        let response = match self {
            Self::Folder { queue, rules, .. } => {
                control::execute(queue.as_ref(), rules, request, Timestamp::now()).await
            }
            Self::Gateway { data_dir } => control::ask(data_dir, &request)
                .await
                .with_context(|| format!("the gateway that uses {} does not answer", data_dir.display()))??,
        };
        match response {
            ControlResponse::Refused(refusal) => Err(refusal.into()),
            response => Ok(response),
        }
    }

    pub async fn overview(&self) -> anyhow::Result<Overview> {
        match self.ask(ControlRequest::Overview).await? {
            ControlResponse::Overview(overview) => Ok(overview),
            other => Err(unexpected(&other)),
        }
    }

    pub async fn page(&self, filter: &Filter, after: Option<Cursor>, limit: usize) -> anyhow::Result<Page> {
        match self.ask(ControlRequest::List { filter: filter.clone(), after, limit }).await? {
            ControlResponse::Page(page) => Ok(page),
            other => Err(unexpected(&other)),
        }
    }
}

pub fn unexpected(response: &ControlResponse) -> anyhow::Error {
    let line = response.to_line();
    anyhow!("the answer is not one to the question: {}", line[..line.len().min(80)].escape_ascii())
}

fn no_queue(data_dir: &Path) -> anyhow::Error {
    anyhow!(
        "there is no queue in {}: no gateway has run with this configuration; name its file with --config",
        data_dir.display()
    )
}

fn wrong_user(data_dir: &Path) -> String {
    format!("the queue in {} cannot be opened; run this as the user that the gateway runs as", data_dir.display())
}

fn unreachable(data_dir: &Path, holder: &str, refused: &io::Error) -> anyhow::Error {
    anyhow!(
        "{holder} holds the lock of {}, but its control socket does not answer ({refused}): it is a gateway that starts \
         or stops, or another `waxseal queue`; try again when it is done",
        data_dir.display()
    )
}
