//! The gateway's end of the control socket.
//!
//! Only the gateway's own user can connect (0600 in a folder of 0700). Created and removed under the data folder's
//! lock, so a socket found at the start is stale. Requests and clients are bounded; nothing here decides about mail.

use super::change::CurrentRules;
use super::execute::execute;
use super::protocol::{
    Blame, ControlRefusal, ControlRequest, ControlResponse, ExaminedLogin, Reloaded, SubmissionReply,
};
use super::socket::{ControlAddress, SOCKET};
use super::status::{self, LiveStatus, LiveWatch};
use super::wire::MAX_REQUEST;
use crate::message::Envelope;
use crate::observe::Clock;
use crate::queue::Operator;
use crate::smtp::{Mailbox, ReversePath};
use bytes::Bytes;
use std::fmt;
use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// At once; further clients wait to be accepted.
const MAX_CLIENTS: usize = 32;
/// At once: an answer can contain a whole message, and this memory is in no budget.
const MAX_ANSWERS: usize = 4;
/// For a complete request to arrive, and for an answer to be read.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval between checks of the socket, which someone may have deleted.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// For answers in progress at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// What the server asks of the gateway.
#[derive(Clone)]
pub struct GatewayHooks {
    /// The configuration's rules and routes.
    pub rules: Arc<dyn Fn() -> CurrentRules + Send + Sync>,
    /// The operator asks for delivery now.
    pub wake: Arc<dyn Fn() + Send + Sync>,
    /// What only the running gateway knows.
    pub live: LiveWatch,
    pub examiner: Examiner,
    pub submitter: Submitter,
    pub reload: Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Reloaded> + Send>> + Send + Sync>,
}

impl fmt::Debug for GatewayHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatewayHooks")
    }
}

/// Of a gateway without rules that cannot be reloaded.
impl Default for GatewayHooks {
    fn default() -> Self {
        let refused = Reloaded { problems: vec!["this gateway cannot be reloaded".to_owned()], ..Reloaded::default() };
        Self {
            rules: Arc::new(CurrentRules::default),
            wake: Arc::new(|| {}),
            live: LiveWatch::new(LiveStatus::default),
            examiner: Arc::new(|_, _, _| Box::pin(async { None })),
            submitter: Arc::new(|_, _| Box::pin(async { None })),
            reload: Arc::new(move || Box::pin(std::future::ready(refused.clone()))),
        }
    }
}

/// Called with an upstream's name, a sender and a time limit when an operator asks what the upstream shows.
pub type Examiner = Arc<dyn Fn(String, Option<ReversePath>, Duration) -> Examining + Send + Sync>;

type Examining = Pin<Box<dyn Future<Output = Option<Vec<ExaminedLogin>>> + Send>>;

/// Called with the envelope and the message of a mail that an operator hands in.
pub type Submitter = Arc<dyn Fn(Envelope, Bytes) -> Submitting + Send + Sync>;

type Submitting = Pin<Box<dyn Future<Output = Option<SubmissionReply>> + Send>>;

pub struct ControlServer {
    listener: UnixListener,
    data_dir: PathBuf,
    path: PathBuf,
    /// The identities of the folder and of the socket in it.
    identities: (Identity, Identity),
    queue: Arc<dyn Operator>,
    hooks: GatewayHooks,
    clock: Clock,
    answers: Arc<Semaphore>,
}

impl ControlServer {
    /// The caller must hold the data folder's lock.
    pub fn bind(data_dir: &Path, queue: Arc<dyn Operator>, hooks: GatewayHooks, clock: Clock) -> io::Result<Self> {
        let path = data_dir.join(SOCKET);
        let listener = listen(data_dir)?;
        let identities = (identity(data_dir)?, identity(&path)?);
        let answers = Arc::new(Semaphore::new(MAX_ANSWERS));
        Ok(Self { listener, data_dir: data_dir.to_owned(), path, identities, queue, hooks, clock, answers })
    }

    /// Runs until `shutdown` is cancelled; answers in progress are finished.
    pub async fn serve(mut self, shutdown: CancellationToken) {
        let mut clients = JoinSet::new();
        let mut looks = interval(CHECK_INTERVAL);
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = clients.join_next(), if !clients.is_empty() => continue,
                _ = looks.tick() => {
                    self.listen_again();
                    continue;
                }
                accepted = self.listener.accept(), if clients.len() < MAX_CLIENTS => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    clients.spawn(self.conversation().serve(stream, shutdown.clone()));
                }
                Err(error) => {
                    warn!("the control socket cannot accept connections: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
        let _the_rest_is_cut_off = timeout(DRAIN_TIMEOUT, async { while clients.join_next().await.is_some() {} }).await;
    }

    /// Creates the socket again if it was deleted. If the folder was replaced, a socket in it would belong to another
    /// gateway.
    fn listen_again(&mut self) {
        let is_deleted = identity(&self.path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
        if !is_deleted || identity(&self.data_dir).ok() != Some(self.identities.0) {
            return;
        }
        let made = listen(&self.data_dir).and_then(|listener| Ok((listener, identity(&self.path)?)));
        match made {
            Ok((listener, socket)) => {
                warn!(path = %self.path.display(), "the control socket was deleted; it is made again");
                self.listener = listener;
                self.identities.1 = socket;
            }
            Err(error) => {
                warn!(path = %self.path.display(), "the control socket was deleted, and cannot be made again: {error}")
            }
        }
    }

    fn conversation(&self) -> Conversation {
        Conversation {
            queue: self.queue.clone(),
            hooks: self.hooks.clone(),
            clock: self.clock.clone(),
            answers: self.answers.clone(),
        }
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identities.1) {
            let _it_would_be_stale = std::fs::remove_file(&self.path);
        }
    }
}

/// Replaces a stale socket.
fn listen(data_dir: &Path) -> io::Result<UnixListener> {
    let path = data_dir.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let address = ControlAddress::of(data_dir)?;
    let listener = UnixListener::bind(&address.path)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Device and inode.
type Identity = (u64, u64);

fn identity(path: &Path) -> io::Result<Identity> {
    std::fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

impl fmt::Debug for ControlServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlServer").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The conversation with one client, request by request.
struct Conversation {
    queue: Arc<dyn Operator>,
    hooks: GatewayHooks,
    clock: Clock,
    answers: Arc<Semaphore>,
}

impl Conversation {
    async fn serve(self, stream: UnixStream, shutdown: CancellationToken) {
        let (input, mut output) = stream.into_split();
        let mut input = BufReader::new(input);
        loop {
            let request = tokio::select! {
                () = shutdown.cancelled() => return,
                request = timeout(CLIENT_TIMEOUT, read_request(&mut input)) => request,
            };
            // A client that left or stays silent is not worth a log line.
            let Ok(Ok(Some(request))) = request else { return };
            let is_broken = request.is_err();
            // These two hold up no other answer: they take as long as a provider does.
            let (response, _held_until_it_is_sent) = match request {
                Ok(ControlRequest::Examine { upstream, sender, seconds }) => {
                    (self.examine(upstream, sender.as_deref(), seconds).await, None)
                }
                Ok(ControlRequest::Submit { sender, recipient, message }) => {
                    (self.submit(&sender, &recipient, message).await, None)
                }
                request => {
                    let Ok(permit) = self.answers.acquire().await else { return };
                    let response = match request {
                        Ok(request) => self.answer(request).await,
                        Err(refusal) => ControlResponse::Refused(refusal),
                    };
                    (response, Some(permit))
                }
            };
            let sent = timeout(CLIENT_TIMEOUT, send(&mut output, &response)).await;
            if is_broken || !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
    }

    async fn submit(&self, sender: &str, recipient: &str, message: String) -> ControlResponse {
        let (Ok(sender), Ok(recipient)) = (Mailbox::parse(sender), Mailbox::parse(recipient)) else {
            let text = "the sender or the recipient is not a valid address";
            return ControlResponse::Refused(ControlRefusal::new(Blame::Request, text));
        };
        let mut envelope = Envelope::new(ReversePath::Mailbox(sender));
        envelope.add_recipient(recipient);
        ControlResponse::Submitted((self.hooks.submitter)(envelope, message.into()).await)
    }

    async fn examine(&self, upstream: String, sender: Option<&str>, seconds: u64) -> ControlResponse {
        let Ok(sender) = sender.map(Mailbox::parse).transpose() else {
            return ControlResponse::Refused(ControlRefusal::new(Blame::Request, "the sender is not a valid address"));
        };
        let limit = Duration::from_secs(seconds).min(CLIENT_TIMEOUT / 2);
        ControlResponse::Examined((self.hooks.examiner)(upstream, sender.map(ReversePath::Mailbox), limit).await)
    }

    async fn answer(&self, request: ControlRequest) -> ControlResponse {
        let wants_delivery = request.wants_delivery();
        let now = self.clock.now();
        match request {
            ControlRequest::Reload => return ControlResponse::Reloaded((self.hooks.reload)().await),
            ControlRequest::Status => {
                let status = status::gather(self.queue.as_ref(), Some(&self.hooks.live), now).await;
                return status.map_or_else(
                    |error| ControlResponse::Refused(error.into()),
                    |it| ControlResponse::Status(Box::new(it)),
                );
            }
            _ => {}
        }
        let mut response = execute(self.queue.as_ref(), &(self.hooks.rules)(), request, now).await;
        if let ControlResponse::Overview(overview) = &mut response {
            overview.lanes = Some(status::lanes(self.queue.as_ref(), &self.hooks.live, now).await);
        }
        if wants_delivery && response.next().is_none() {
            (self.hooks.wake)();
        }
        response
    }
}

/// `None` at the end of the stream.
async fn read_request(
    input: &mut (impl AsyncBufReadExt + Unpin),
) -> io::Result<Option<Result<ControlRequest, ControlRefusal>>> {
    let mut line = Vec::new();
    let limit = u64::try_from(MAX_REQUEST).unwrap_or(u64::MAX);
    input.take(limit).read_until(b'\n', &mut line).await?;
    Ok(match line.last() {
        None => None,
        Some(b'\n') => Some(ControlRequest::from_line(&line)),
        Some(_) => Some(Err(ControlRefusal::no_whole_line())),
    })
}

async fn send(output: &mut (impl AsyncWriteExt + Unpin), response: &ControlResponse) -> io::Result<()> {
    output.write_all(&response.to_line()).await?;
    output.write_all(response.trailer()).await?;
    output.flush().await
}

#[cfg(test)]
mod tests;
