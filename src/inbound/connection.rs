//! One connection: the only file of the listener that reads and writes a socket.
//!
//! Drives `session` step by step: replies are collected and written when the client must be waited for, so that a
//! pipelined batch is answered in one segment. Decides nothing about the protocol. RFC 5321 §4.5.3.2 (time-outs), RFC 2920.

use super::auth::{Source, Users};
use super::data::Receiving;
use super::limits::Slot;
use super::lines::{Input, Line};
use super::login::Verification;
use super::notes::{Notes, Subject};
use super::session::{Next, Session, Step};
use super::starttls::{Clean, InjectedPlaintext};
use super::{Intake, Options, Received, Tls};
use crate::message::Budget;
use crate::observe::fault::Fault;
use crate::observe::log::Clean as OneLine;
use crate::smtp::Reply;
use bytes::BytesMut;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

/// Octets read at once, while commands are expected and in DATA. They lie on the stack: a client that is silent holds none.
const READ_COMMANDS: usize = 4 * 1024;
const READ_DATA: usize = 32 * 1024;
/// Octets of replies from which they are written although the client has sent more commands. With [`READ_COMMANDS`] this bounds
/// what a client that sends and never reads can make a connection hold.
const MOST_UNWRITTEN: usize = 4 * 1024;
/// Octets a second on average that DATA must bring, over the first `timeout`. Those past the largest message buy no time:
/// what is refused has an end, too.
const MIN_RATE: u64 = 1024;
const LONGEST_HANDSHAKE: Duration = Duration::from_secs(60);
/// From connect to the login of a client that needs one. A slot that costs nothing could be held for ever.
const LONGEST_LOGIN: Duration = Duration::from_secs(120);
/// How long a client may take to read the last reply. A socket closed over unread input resets the connection, and the
/// reply is lost.
const LINGER: Duration = Duration::from_secs(2);

/// What all connections of a listener share.
#[derive(Debug)]
pub(super) struct Service<I> {
    pub(super) options: Arc<Options>,
    pub(super) users: Users,
    pub(super) budget: Budget,
    pub(super) intake: Arc<I>,
    /// Idle clients are told to come back later; a message under way is finished.
    pub(super) stop: CancellationToken,
    pub(super) notes: Notes,
}

/// Why a conversation ended before its QUIT.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the client closed the connection")]
    Closed,
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    #[error("the client took too long")]
    TimedOut,
    #[error("the gateway stops")]
    Stopped,
    #[error("it waited longest for its login and made room for another of its address")]
    MadeRoom,
    #[error(transparent)]
    Injected(#[from] InjectedPlaintext),
    #[error("TLS could not be set up: {0}")]
    Tls(io::Error),
}

/// Talks to one client until it leaves, is sent away, or the gateway stops.
pub(super) async fn serve<S, I>(socket: S, peer: SocketAddr, slot: Slot, service: &Service<I>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    I: Intake,
{
    debug!(%peer, "client connected");
    let needs_no_login = service.options.needs_no_login(peer.ip());
    let mut connection = Connection {
        wire: Wire::Plain(socket),
        input: Input::default(),
        output: Vec::new(),
        timeout: service.options.timeout,
        until: (!needs_no_login).then(|| Instant::now() + LONGEST_LOGIN),
        stop: service.stop.clone(),
        subject: Subject { peer, needs_no_login, may_send: needs_no_login },
    };
    let end = tokio::select! {
        end = connection.converse(&slot, service) => end,
        () = slot.has_to_leave() => Err(End::MadeRoom),
    };
    match &end {
        Ok(()) | Err(End::Closed | End::Stopped) => debug!(%peer, "client left"),
        Err(end @ (End::Broken(_) | End::TimedOut | End::MadeRoom)) => debug!(%peer, "client lost: {end}"),
        Err(end @ (End::Injected(_) | End::Tls(_))) => {
            service.notes.tell(connection.subject, None, format_args!("connection dropped: {}", OneLine(end)));
        }
    }
    match end {
        Ok(()) => Box::pin(connection.part()).await,
        Err(End::TimedOut) if connection.is_overdue() => connection.part_with(Reply::login_overdue()).await,
        Err(End::TimedOut) => connection.part_with(Reply::timed_out()).await,
        Err(End::Stopped) => connection.part_with(Reply::shutting_down()).await,
        Err(End::MadeRoom) => Box::pin(connection.leave_at_once(&Reply::made_room())).await,
        Err(End::Closed | End::Broken(_) | End::Injected(_) | End::Tls(_)) => {}
    }
}

#[derive(Debug)]
struct Connection<S> {
    wire: Wire<S>,
    input: Input,
    /// Replies not yet written.
    output: Vec<u8>,
    timeout: Duration,
    /// The client may not send yet, and has until then to log in.
    until: Option<Instant>,
    stop: CancellationToken,
    subject: Subject,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn converse<I: Intake>(&mut self, slot: &Slot, service: &Service<I>) -> Result<(), End> {
        let tls = match &service.options.tls {
            Tls::Implicit(config) => Some(Box::pin(self.handshake(Arc::clone(config))).await?),
            Tls::Off | Tls::StartTls(_) => None,
        };
        let mut step = Session::open(Arc::clone(&service.options), service.budget.clone(), self.subject.peer, tls);
        loop {
            if let Some(reply) = step.reply {
                reply.write_to(&mut self.output);
                if self.output.len() >= MOST_UNWRITTEN {
                    self.flush().await?;
                }
            }
            step = match step.next {
                Next::Command(session) => {
                    if self.until.is_some() && !session.is_stranger() {
                        self.until = None;
                        self.subject.may_send = true;
                        slot.prove();
                    }
                    let line = self.line().await?;
                    self.noting(&service.notes, session.line(line))
                }
                Next::Response(exchange) => {
                    let line = self.line().await?;
                    self.noting(&service.notes, exchange.response(line))
                }
                Next::Verify(verification) => Box::pin(self.verify(verification, slot, service)).await?,
                Next::StartTls(upgrade) => Box::pin(self.upgrade(upgrade.check(self.input.bytes())?)).await?,
                Next::Admit(admission) => self.noting(&service.notes, admission.decide(&*service.intake)),
                Next::Data(receiving) => {
                    let step = self.data(receiving).await?;
                    self.noting(&service.notes, step)
                }
                Next::Accept(received, accepting) => {
                    self.flush().await?;
                    let reply = hand_over(received, &service.intake).await;
                    if reply.is_positive() {
                        service.notes.forgive(self.subject.peer.ip(), self.subject.needs_no_login);
                    }
                    self.unless_stopped(accepting.replied(&reply))?
                }
                Next::Close => return Ok(()),
            };
        }
    }

    /// A refusal is a lost mail to most applications, and few of them show its text. What the intake says of a message,
    /// it logs itself.
    fn noting(&self, notes: &Notes, step: Step) -> Step {
        let Some(reply) = step.reply.as_ref().filter(|reply| !reply.is_positive()) else { return step };
        // 503 is mostly what a pipelining client sent behind a MAIL that was refused.
        if reply.code() == 503 {
            debug!(peer = %self.subject.peer, "refused: {}", OneLine(reply));
        } else {
            notes.tell(self.subject, None, format_args!("refused: {}", OneLine(reply)));
        }
        step
    }

    async fn verify<I>(&mut self, verification: Verification, slot: &Slot, service: &Service<I>) -> Result<Step, End> {
        self.flush().await?;
        let (users, notes) = (&service.users, &service.notes);
        let source =
            Source { address: self.subject.peer.ip(), is_known: self.subject.needs_no_login || slot.is_proven() };
        let Ok(user) = users.verify(verification.name(), verification.password(), source).await else {
            return Ok(self.noting(notes, verification.unchecked()));
        };
        if user.is_none() {
            match users.name_to_show(verification.name(), verification.password()) {
                Some(name) => notes.tell(self.subject, Some(name), format_args!("login refused: wrong password")),
                None => notes.tell(
                    self.subject,
                    None,
                    format_args!(
                        "login refused: unknown user (a name that is no [[user]]'s may be a secret: it is not shown)"
                    ),
                ),
            }
        }
        Ok(verification.verdict(user))
    }

    async fn upgrade(&mut self, clean: Clean) -> Result<Step, End> {
        self.flush().await?;
        let version = self.handshake(clean.config()).await?;
        Ok(Step { reply: None, next: Next::Command(clean.secured(version)) })
    }

    /// The version.
    async fn handshake(&mut self, config: Arc<rustls::ServerConfig>) -> Result<&'static str, End> {
        let deadline = self.deadline().min(Instant::now() + LONGEST_HANDSHAKE);
        let Wire::Plain(socket) = std::mem::replace(&mut self.wire, Wire::Closed) else {
            return Err(End::Closed);
        };
        let handshake = timeout_at(deadline, TlsAcceptor::from(config).accept(socket));
        let stream = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(End::Stopped),
            result = handshake => result.map_err(|_| End::TimedOut)?.map_err(End::Tls)?,
        };
        let version = match stream.get_ref().1.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        };
        self.wire = Wire::Tls(Box::new(stream));
        Ok(version)
    }

    /// The next line. The deadline is for the whole of it: a client cannot prolong it octet by octet.
    async fn line(&mut self) -> Result<Line, End> {
        let mut deadline = None;
        loop {
            if let Some(line) = self.input.next_line() {
                return Ok(line);
            }
            self.flush().await?;
            let deadline = *deadline.get_or_insert_with(|| self.deadline());
            let stop = self.stop.clone();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(End::Stopped),
                read = self.read::<READ_COMMANDS>(deadline) => read?,
            }
        }
    }

    /// Reads a message to its end; a stopping gateway waits for it.
    async fn data(&mut self, mut receiving: Box<Receiving>) -> Result<Step, End> {
        let (start, mut received) = (Instant::now(), 0);
        loop {
            let consumed = receiving.feed(self.input.bytes());
            self.input.consume(consumed);
            received += consumed as u64;
            if receiving.is_done() {
                return Ok(receiving.finish());
            }
            self.flush().await?;
            let allowed = self.timeout + Duration::from_secs(received.min(receiving.largest()) / MIN_RATE);
            self.read::<READ_DATA>((start + allowed).min(Instant::now() + self.timeout)).await?;
        }
    }

    /// After a message: the way out if the gateway stops.
    fn unless_stopped(&mut self, step: Step) -> Result<Step, End> {
        if !self.stop.is_cancelled() || matches!(step.next, Next::Close) {
            return Ok(step);
        }
        if let Some(reply) = step.reply {
            reply.write_to(&mut self.output);
        }
        Err(End::Stopped)
    }

    async fn read<const OCTETS: usize>(&mut self, deadline: Instant) -> Result<(), End> {
        self.input.release();
        let (wire, buffer) = (&mut self.wire, self.input.buffer());
        match timeout_at(deadline, poll_fn(|context| wire.poll_read::<OCTETS>(context, buffer))).await {
            Err(_) => Err(End::TimedOut),
            Ok(Ok(0)) => Err(End::Closed),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(End::Broken(error)),
        }
    }

    async fn flush(&mut self) -> Result<(), End> {
        if self.output.is_empty() {
            return Ok(());
        }
        let output = std::mem::take(&mut self.output);
        let written = timeout_at(self.deadline(), self.wire.write_all(&output)).await;
        written.map_err(|_| End::TimedOut)?.map_err(End::Broken)
    }

    /// For one step of the conversation that begins now.
    fn deadline(&self) -> Instant {
        let step = Instant::now() + self.timeout;
        self.until.map_or(step, |until| until.min(step))
    }

    fn is_overdue(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }

    /// Boxed: while a connection waits, its task has no room to spare for the end.
    fn part_with(mut self, reply: Reply) -> Pin<Box<impl Future<Output = ()>>> {
        reply.write_to(&mut self.output);
        Box::pin(self.part())
    }

    /// Says why if the client can take it now. Nobody waits: the place is another's already.
    async fn leave_at_once(mut self, reply: &Reply) {
        self.output.clear();
        reply.write_to(&mut self.output);
        let _best_effort = timeout(Duration::ZERO, self.wire.write_all(&self.output)).await;
    }

    /// Writes what is left to say and waits shortly for the client to have read it.
    async fn part(mut self) {
        let goodbye = async {
            self.wire.write_all(&self.output).await?;
            self.wire.shutdown().await?;
            while poll_fn(|context| self.wire.poll_read::<READ_COMMANDS>(context, &mut BytesMut::new())).await? > 0 {}
            Ok::<(), io::Error>(())
        };
        // Whatever goes wrong now: the conversation is over.
        let _over = timeout(LINGER, goodbye).await;
    }
}

/// Lets the intake finish in a task of its own: a client that closes, or a connection that is dropped, takes back no
/// message that may have been stored already.
fn hand_over<I: Intake>(received: Box<Received>, intake: &Arc<I>) -> impl Future<Output = Reply> + use<I> {
    let intake = Arc::clone(intake);
    let taken = tokio::spawn(async move { intake.accept(*received).await });
    async {
        taken.await.unwrap_or_else(|failure| {
            error!("a message could not be taken: {}", Fault(&failure));
            Reply::internal_error()
        })
    }
}

#[derive(Debug)]
enum Wire<S> {
    Plain(S),
    Tls(Box<TlsStream<S>>),
    /// The handshake failed.
    Closed,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Appends what has arrived, at most so many octets; how many it were.
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
