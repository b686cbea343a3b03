//! One connection: the only file of the listener that reads and writes a socket, after `load_balancer`.
//!
//! Drives `session` step by step. Replies are collected and written when the connection has to wait for the client, so
//! that a pipelined batch is answered in one segment. Decides nothing about the protocol. RFC 5321 §4.5.3.2
//! (time-outs), RFC 2920.

use super::data::Receiving;
use super::limits::ConnectionSlot;
use super::lines::{InputLine, LineBuffer};
use super::log_limit::{LogAbout, LogLimiter, LogPeer};
use super::mismatch::Mismatch;
use super::refusal::refusal_reason;
use super::sasl::PasswordCheck;
use super::session::{ServerSession, SessionAction, SessionStep};
use super::starttls::{EmptyBuffer, InjectedPlaintext};
use super::users::{LoginSource, Users};
use super::{CurrentRole, Intake, ListenerOptions, ListenerRole, Received, Tls};
use crate::message::MemoryBudget;
use crate::observe::fault::Fault;
use crate::observe::log::Clean as OneLine;
use crate::smtp::Reply;
use bytes::BytesMut;
use rustls::server::Acceptor;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

/// Octets read at once, for commands and in DATA. The buffer is on the stack, so a silent client uses none.
const READ_COMMANDS: usize = 4 * 1024;
const READ_DATA: usize = 32 * 1024;
/// Once this many octets of replies are collected, they are written even if the client has sent more commands. With
/// [`READ_COMMANDS`] this bounds the memory that a client can use by sending without reading.
const MOST_UNWRITTEN: usize = 4 * 1024;
/// Octets per second on average that DATA must deliver after the first `timeout`. Octets beyond the largest message add
/// no time, so that a message that is refused anyway comes to an end too.
const MIN_RATE: u64 = 1024;
const LONGEST_HANDSHAKE: Duration = Duration::from_secs(60);
/// From connect to the login of a client that needs one. Otherwise a client could hold a slot indefinitely at no cost.
const LONGEST_LOGIN: Duration = Duration::from_secs(120);
/// How long a client may take to read the last reply. Closing a socket with unread input resets the connection, and the
/// reply is lost.
const LINGER: Duration = Duration::from_secs(2);
/// When the gateway stops: how long a client that has not submitted anything may take for its next command. One that
/// has just connected is about to send its mail, and most applications try only once.
const LAST_COMMAND: Duration = Duration::from_secs(1);

/// What all connections of a listener share.
#[derive(Debug)]
pub(super) struct ListenerService<I> {
    /// Those under which new connections begin.
    pub(super) options: Arc<ListenerOptions>,
    pub(super) users: Users,
    pub(super) budget: MemoryBudget,
    pub(super) role: CurrentRole<I>,
    /// Idle clients get a 421; a message in progress is finished.
    pub(super) stop: CancellationToken,
    pub(super) log_limiter: Arc<LogLimiter>,
}

impl<I> ListenerService<I> {
    fn role(&self) -> Arc<ListenerRole<I>> {
        self.role.borrow().clone()
    }
}

/// Why a connection ended before its QUIT.
#[derive(Debug, thiserror::Error)]
enum ConnectionEnd {
    #[error("the client closed the connection")]
    Closed,
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    #[error("the client took too long")]
    TimedOut,
    #[error("the gateway stops")]
    Stopped,
    #[error("it waited longest for its login and was evicted for another connection from its address")]
    Evicted,
    #[error(transparent)]
    Injected(#[from] InjectedPlaintext),
    #[error("TLS could not be set up: {0}")]
    Tls(io::Error),
    #[error("{0}")]
    Mismatch(Mismatch),
}

/// Serves one client until it leaves, is rejected, or the gateway stops.
pub(super) async fn serve<S, I>(socket: S, peer: SocketAddr, slot: ConnectionSlot, service: &ListenerService<I>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    I: Intake,
{
    debug!(%peer, "client connected");
    let needs_no_login = service.options.needs_no_login(peer.ip());
    let mut connection = ClientConnection {
        wire: ClientStream::Plain(socket),
        input: LineBuffer::default(),
        output: Vec::new(),
        options: Arc::clone(&service.options),
        until: (!needs_no_login).then(|| Instant::now() + LONGEST_LOGIN),
        has_sent: false,
        has_quit: false,
        departure: None,
        stop: service.stop.clone(),
        log_peer: LogPeer { listener: service.options.address, peer, needs_no_login, may_send: needs_no_login },
        user: None,
    };
    let end = tokio::select! {
        end = connection.run(&slot, service) => end,
        () = slot.evicted() => Err(ConnectionEnd::Evicted),
    };
    match &end {
        Ok(()) | Err(ConnectionEnd::Closed | ConnectionEnd::Stopped) => debug!(%peer, "client left"),
        Err(end @ (ConnectionEnd::Broken(_) | ConnectionEnd::TimedOut | ConnectionEnd::Evicted)) => {
            debug!(%peer, "client lost: {end}")
        }
        Err(end @ (ConnectionEnd::Injected(_) | ConnectionEnd::Tls(_) | ConnectionEnd::Mismatch(_))) => {
            service.log_limiter.warn(
                connection.log_peer,
                connection.about(),
                format_args!("connection dropped: {}", OneLine(end)),
            );
        }
    }
    if let (Ok(()) | Err(ConnectionEnd::Closed), Some(mismatch)) = (&end, connection.departure) {
        service.log_limiter.warn(connection.log_peer, connection.about(), format_args!("{mismatch}"));
    }
    match end {
        Ok(()) if connection.has_quit && connection.input.bytes().is_empty() => connection.leave().await,
        Ok(()) => Box::pin(connection.close()).await,
        Err(ConnectionEnd::TimedOut) if connection.login_is_overdue() => {
            connection.close_with(Reply::login_overdue()).await
        }
        Err(ConnectionEnd::TimedOut) => connection.close_with(Reply::timed_out()).await,
        Err(ConnectionEnd::Stopped) => connection.close_with(Reply::shutting_down()).await,
        Err(ConnectionEnd::Evicted) => Box::pin(connection.close_now(&Reply::evicted())).await,
        Err(
            ConnectionEnd::Closed
            | ConnectionEnd::Broken(_)
            | ConnectionEnd::Injected(_)
            | ConnectionEnd::Tls(_)
            | ConnectionEnd::Mismatch(_),
        ) => {}
    }
}

#[derive(Debug)]
struct ClientConnection<S> {
    wire: ClientStream<S>,
    input: LineBuffer,
    /// Replies not yet written.
    output: Vec<u8>,
    options: Arc<ListenerOptions>,
    /// Set while the client may not send yet: the time limit for its login.
    until: Option<Instant>,
    stop: CancellationToken,
    log_peer: LogPeer,
    /// The login, once it succeeded.
    user: Option<Arc<str>>,
    /// The client has submitted a message.
    has_sent: bool,
    /// The client has said QUIT, and says nothing more.
    has_quit: bool,
    /// What to log if the client leaves now.
    departure: Option<Mismatch>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientConnection<S> {
    async fn run<I: Intake>(
        &mut self,
        slot: &ConnectionSlot,
        service: &ListenerService<I>,
    ) -> Result<(), ConnectionEnd> {
        let tls = match &service.options.tls {
            Tls::Implicit(config) => Some(Box::pin(self.handshake(Arc::clone(config))).await?),
            Tls::Off | Tls::StartTls(_) => None,
        };
        let mut step =
            ServerSession::open(Arc::clone(&service.options), service.budget.clone(), self.log_peer.peer, tls);
        // A client that goes beyond EHLO found what it expected.
        let mut only_greeted = true;
        loop {
            only_greeted &= matches!(step.next, SessionAction::Command(_) | SessionAction::Close)
                && step.reply.as_ref().is_none_or(Reply::is_positive);
            self.count_refusal(&step);
            let is_goodbye = step.reply.as_ref().is_some_and(|reply| reply.code() == 221);
            if let Some(reply) = &step.reply {
                self.reply(reply).await?;
            }
            step = match step.next {
                SessionAction::Command(session) => {
                    if !session.is_unauthenticated() {
                        self.note_login(slot);
                    }
                    self.departure = session.departure().filter(|_| only_greeted);
                    let line = self.line().await?;
                    self.logged(&service.log_limiter, session.line(line))
                }
                SessionAction::Response(exchange) => {
                    let line = self.line().await?;
                    self.logged(&service.log_limiter, exchange.response(line))
                }
                SessionAction::Verify(verification) => Box::pin(self.verify(verification, slot, service)).await?,
                SessionAction::StartTls(upgrade) => Box::pin(self.upgrade(upgrade.check(self.input.bytes())?)).await?,
                SessionAction::Admit(admission) => {
                    self.logged(&service.log_limiter, admission.decide(&*service.role()))
                }
                SessionAction::Data(receiving) => {
                    let step = self.data(receiving).await?;
                    self.logged(&service.log_limiter, step)
                }
                SessionAction::Accept(received, accepting) => {
                    self.flush().await?;
                    self.has_sent = true;
                    let reply = pass_to_intake(received, service.role()).await;
                    if reply.is_positive() {
                        service.log_limiter.reset(self.log_peer.peer.ip(), self.log_peer.needs_no_login);
                    }
                    self.unless_stopped(accepting.replied(&reply))?
                }
                SessionAction::Close => {
                    self.has_quit = is_goodbye;
                    return Ok(());
                }
            };
        }
    }

    /// Sent at once only if much is waiting to be written; otherwise before the client is waited for.
    async fn reply(&mut self, reply: &Reply) -> Result<(), ConnectionEnd> {
        reply.write_to(&mut self.output);
        if self.output.len() >= MOST_UNWRITTEN {
            self.flush().await?;
        }
        Ok(())
    }

    /// From now on the connection may last, and it counts as one that sends.
    fn note_login(&mut self, slot: &ConnectionSlot) {
        if self.until.take().is_some() {
            self.log_peer.may_send = true;
            slot.mark_authenticated();
        }
    }

    fn count_refusal(&self, step: &SessionStep) {
        if step.refuses_message()
            && let Some(reply) = &step.reply
        {
            self.options.metrics.refused(refusal_reason(reply));
        }
    }

    fn about(&self) -> LogAbout<'_> {
        LogAbout { user: self.user.as_deref(), sender: None }
    }

    /// For most applications a refusal is a lost mail, and few of them show its text. The intake logs its own decisions
    /// about messages.
    fn logged(&self, log_limiter: &LogLimiter, step: SessionStep) -> SessionStep {
        let Some(reply) = step.reply.as_ref().filter(|reply| !reply.is_positive()) else { return step };
        if step.is_logged {
            return step;
        }
        // A 503 usually answers what a pipelining client sent after a MAIL that was refused.
        if reply.code() == 503 {
            debug!(peer = %self.log_peer.peer, "refused: {}", OneLine(reply));
        } else {
            let about = LogAbout { user: self.user.as_deref(), sender: step.sender.as_ref() };
            log_limiter.warn(self.log_peer, about, format_args!("refused: {}", OneLine(reply)));
        }
        step
    }

    async fn verify<I>(
        &mut self,
        verification: PasswordCheck,
        slot: &ConnectionSlot,
        service: &ListenerService<I>,
    ) -> Result<SessionStep, ConnectionEnd> {
        self.flush().await?;
        let users = &service.users;
        let log_limiter = &service.log_limiter;
        let source = LoginSource {
            address: self.log_peer.peer.ip(),
            is_known: self.log_peer.needs_no_login || slot.is_proven(),
        };
        let Ok(user) = users.verify(verification.name(), verification.password(), source).await else {
            return Ok(self.logged(log_limiter, verification.unchecked()));
        };
        if user.is_none() {
            match users.loggable_name(verification.name(), verification.password()) {
                Some(name) => {
                    let about = LogAbout { user: Some(name), sender: None };
                    log_limiter.warn(self.log_peer, about, format_args!("login refused: wrong password"))
                }
                None => log_limiter.warn(
                    self.log_peer,
                    LogAbout::default(),
                    format_args!("login refused: unknown user (the name may be a secret and is not shown)"),
                ),
            }
        }
        self.user.clone_from(&user);
        Ok(verification.verdict(user))
    }

    async fn upgrade(&mut self, clean: EmptyBuffer) -> Result<SessionStep, ConnectionEnd> {
        self.flush().await?;
        let version = self.handshake(clean.config()).await?;
        Ok(SessionStep::silent(SessionAction::Command(clean.secured(version))))
    }

    /// Returns the TLS version.
    async fn handshake(&mut self, config: Arc<rustls::ServerConfig>) -> Result<&'static str, ConnectionEnd> {
        let deadline = self.deadline().min(Instant::now() + LONGEST_HANDSHAKE);
        let ClientStream::Plain(socket) = std::mem::replace(&mut self.wire, ClientStream::Closed) else {
            return Err(ConnectionEnd::Closed);
        };
        let is_implicit = matches!(self.options.tls, Tls::Implicit(_));
        let handshake = async {
            let hello = LazyConfigAcceptor::new(Acceptor::default(), socket);
            let (mismatch, end) = match timeout_at(deadline, hello).await {
                Ok(Ok(begun)) => return begun.into_stream(config).await.map_err(ConnectionEnd::Tls),
                Ok(Err(error)) => (Mismatch::of_handshake(&error), ConnectionEnd::Tls(error)),
                Err(_late) => (Some(Mismatch::SilentAtTls), ConnectionEnd::TimedOut),
            };
            // After STARTTLS the client knows what the listener speaks.
            Err(mismatch.filter(|_| is_implicit).map_or(end, ConnectionEnd::Mismatch))
        };
        let stream = tokio::select! {
            biased;
            () = self.stopped() => return Err(ConnectionEnd::Stopped),
            result = timeout_at(deadline, handshake) => result.map_err(|_| ConnectionEnd::TimedOut)??,
        };
        let version = match stream.get_ref().1.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        };
        self.wire = ClientStream::Tls(Box::new(stream));
        Ok(version)
    }

    /// The next line. The deadline applies to the whole line, so a client cannot prolong it octet by octet.
    async fn line(&mut self) -> Result<InputLine, ConnectionEnd> {
        let mut deadline = None;
        loop {
            if let Some(line) = self.input.next_line() {
                return Ok(line);
            }
            self.flush().await?;
            let deadline = *deadline.get_or_insert_with(|| self.deadline());
            let stopped = self.stopped();
            tokio::select! {
                biased;
                () = stopped => return Err(ConnectionEnd::Stopped),
                read = self.read::<READ_COMMANDS>(deadline) => read?,
            }
            if let ClientStream::Plain(_) = self.wire
                && let Some(mismatch) = Mismatch::of_input(self.input.bytes(), &self.options.tls)
            {
                return Err(ConnectionEnd::Mismatch(mismatch));
            }
        }
    }

    /// Returns once the gateway stops and this client has had its time for another command.
    fn stopped(&self) -> impl Future<Output = ()> + use<S> {
        let stop = self.stop.clone();
        let grace = if self.has_sent { Duration::ZERO } else { LAST_COMMAND };
        async move {
            stop.cancelled().await;
            if !grace.is_zero() {
                sleep(grace).await;
            }
        }
    }

    /// Reads a message to its end; a stopping gateway waits for it.
    async fn data(&mut self, mut receiving: Box<Receiving>) -> Result<SessionStep, ConnectionEnd> {
        let start = Instant::now();
        let mut received = 0;
        loop {
            let consumed = receiving.feed(self.input.bytes());
            self.input.consume(consumed);
            received += consumed as u64;
            if receiving.is_done() {
                return Ok(receiving.finish());
            }
            self.flush().await?;
            let timeout = self.options.timeout;
            let allowed = timeout + Duration::from_secs(received.min(receiving.largest()) / MIN_RATE);
            self.read::<READ_DATA>((start + allowed).min(Instant::now() + timeout)).await?;
        }
    }

    /// After a message: ends the connection if the gateway stops.
    fn unless_stopped(&mut self, step: SessionStep) -> Result<SessionStep, ConnectionEnd> {
        if !self.stop.is_cancelled() || matches!(step.next, SessionAction::Close) {
            return Ok(step);
        }
        if let Some(reply) = step.reply {
            reply.write_to(&mut self.output);
        }
        Err(ConnectionEnd::Stopped)
    }

    async fn read<const OCTETS: usize>(&mut self, deadline: Instant) -> Result<(), ConnectionEnd> {
        self.input.release();
        let wire = &mut self.wire;
        let buffer = self.input.buffer();
        match timeout_at(deadline, poll_fn(|context| wire.poll_read::<OCTETS>(context, buffer))).await {
            Err(_) => Err(ConnectionEnd::TimedOut),
            Ok(Ok(0)) => Err(ConnectionEnd::Closed),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(ConnectionEnd::Broken(error)),
        }
    }

    async fn flush(&mut self) -> Result<(), ConnectionEnd> {
        if self.output.is_empty() {
            return Ok(());
        }
        let output = std::mem::take(&mut self.output);
        let written = timeout_at(self.deadline(), self.wire.write_all(&output)).await;
        written.map_err(|_| ConnectionEnd::TimedOut)?.map_err(ConnectionEnd::Broken)
    }

    /// The deadline for a step of the conversation that begins now.
    fn deadline(&self) -> Instant {
        let step = Instant::now() + self.options.timeout;
        self.until.map_or(step, |until| until.min(step))
    }

    fn login_is_overdue(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }

    /// Boxed to keep this future out of the task's size while a connection waits.
    fn close_with(mut self, reply: Reply) -> Pin<Box<impl Future<Output = ()>>> {
        reply.write_to(&mut self.output);
        Box::pin(self.close())
    }

    /// Sends the reason if the client can receive it at once. Does not wait, because another connection already has the
    /// slot.
    async fn close_now(mut self, reply: &Reply) {
        self.output.clear();
        reply.write_to(&mut self.output);
        let _best_effort = timeout(Duration::ZERO, self.wire.write_all(&self.output)).await;
    }

    /// After QUIT. Nothing is left to read, so the system sends the replies and the end without anyone waiting for the client.
    /// Inside TLS the client's own end may still come.
    async fn leave(mut self) {
        if !matches!(self.wire, ClientStream::Plain(_)) {
            return Box::pin(self.close()).await;
        }
        let _over = timeout(LINGER, self.wire.write_all(&self.output)).await;
    }

    /// Flushes pending replies and waits briefly until the client has read them.
    async fn close(mut self) {
        let goodbye = async {
            self.wire.write_all(&self.output).await?;
            self.wire.shutdown().await?;
            while poll_fn(|context| self.wire.poll_read::<READ_COMMANDS>(context, &mut BytesMut::new())).await? > 0 {}
            Ok::<(), io::Error>(())
        };
        // Errors no longer matter: the connection is being closed.
        let _over = timeout(LINGER, goodbye).await;
    }
}

/// Lets the intake finish in its own task: if the client closes or the connection is dropped, a message that may
/// already be stored is not undone.
fn pass_to_intake<I: Intake>(
    received: Box<Received>,
    intake: Arc<ListenerRole<I>>,
) -> impl Future<Output = Reply> + use<I> {
    let taken = tokio::spawn(async move { intake.accept(*received).await });
    async {
        taken.await.unwrap_or_else(|failure| {
            error!("a message could not be accepted: {}", Fault(&failure));
            Reply::internal_error()
        })
    }
}

#[derive(Debug)]
enum ClientStream<S> {
    Plain(S),
    Tls(Box<TlsStream<S>>),
    /// The handshake failed.
    Closed,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientStream<S> {
    /// Appends what has arrived, up to so many octets; returns their number.
    fn poll_read<const OCTETS: usize>(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let mut chunk = [const { MaybeUninit::uninit() }; OCTETS];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        ready!(match self {
            Self::Plain(socket) => Pin::new(socket).poll_read(context, &mut chunk),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(context, &mut chunk),
            Self::Closed => Poll::Ready(Ok(())),
        })?;
        buffer.extend_from_slice(chunk.filled());
        Poll::Ready(Ok(chunk.filled().len()))
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(socket) => {
                socket.write_all(bytes).await?;
                socket.flush().await
            }
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
            Self::Closed => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.shutdown().await,
            Self::Tls(stream) => stream.shutdown().await,
            Self::Closed => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
