//! One connection's dialogue: writes and reads with a deadline, and tracks whether the session is still sound.
//!
//! Generic over the channel, which determines what may be sent: a plain session cannot send MAIL or AUTH. RFC 5321
//! §4.2, §4.5.3.2.

use super::line::{CommandLine, Opening};
use super::starttls::Secured;
use crate::message::outcome::{
    Cause, ConnectionState, Interpretation, MISSING_CERTIFICATE, MISSING_LOGIN, Meaning, Reason, RelayStep, interpret,
};
use crate::observe::log::Clean;
use crate::relay::deadline::{Deadline, Expired};
use crate::relay::socket::{ConnectionPermit, Socket};
use crate::relay::{TlsMode, UpstreamOptions};
use crate::smtp::reply::{ReplyError, ReplyParser};
use crate::smtp::{Extensions, Reply};
use crate::tls::{self, ClientSide};
use bytes::BytesMut;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tracing::debug;

/// What a session communicates over, and what it may send there.
pub(in crate::relay) trait Channel {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send;
    type Command: Into<CommandLine> + From<Opening>;

    fn stream(&mut self) -> &mut Self::Stream;
}

/// Not encrypted: only EHLO and STARTTLS are allowed.
#[derive(Debug)]
pub(in crate::relay) struct Cleartext(Socket);

impl Channel for Cleartext {
    type Stream = Socket;
    type Command = Opening;

    fn stream(&mut self) -> &mut Socket {
        &mut self.0
    }
}

/// Dropping it closes the connection.
#[derive(Debug)]
pub(in crate::relay) struct ClientSession<C> {
    channel: C,
    input: BytesMut,
    parser: ReplyParser,
    pub(super) options: Arc<UpstreamOptions>,
    pub(super) extensions: Extensions,
    /// In the TLS handshake.
    pub(super) was_asked_for_certificate: bool,
    /// False after an unexpected event: the two sides may have lost synchronisation.
    sound: bool,
    /// MAIL was accepted and no final dot has been answered since: RSET is due before the next MAIL.
    pub(super) in_transaction: bool,
}

impl ClientSession<Cleartext> {
    pub(super) fn plain(socket: Socket, options: &Arc<UpstreamOptions>) -> Self {
        Self::new(Cleartext(socket), options)
    }

    /// The bare socket, for TLS; only if nothing was read beyond the last reply.
    pub(super) fn into_socket(self) -> Option<Socket> {
        self.input.is_empty().then_some(self.channel.0)
    }
}

impl ClientSession<Secured> {
    pub(in crate::relay) fn permit(&self) -> &ConnectionPermit {
        self.channel.permit()
    }

    /// Closes the connection and keeps its permit.
    pub(in crate::relay) async fn into_permit(self) -> ConnectionPermit {
        self.channel.into_socket().close().await
    }

    /// For example "TLSv1.3".
    pub(in crate::relay) fn tls_version(&self) -> &'static str {
        self.channel.version()
    }

    pub(in crate::relay) fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// True if another message may be sent.
    pub(in crate::relay) fn is_sound(&self) -> bool {
        self.sound && self.input.is_empty()
    }

    /// After a reply that ends the login and not the session.
    pub(super) fn stay_sound(&mut self) {
        self.sound = true;
    }

    /// What the reader can do about a server that does not know the gateway. `None` if the server has no way to learn
    /// who the gateway is, or knows it by a login.
    pub(in crate::relay) fn unknown_client_advice(&self) -> Option<String> {
        let options = &self.options;
        let offers_auth = !self.extensions.auth_offered.is_empty();
        match &options.endpoint.client_certificate {
            _ if options.credentials.is_some() => None,
            Some(certificate) if offers_auth || self.was_asked_for_certificate => Some(format!(
                "the server does not let this upstream's client certificate ({certificate}) send: have it allowed there, \
                 or set `username` and `password`"
            )),
            None if offers_auth && self.was_asked_for_certificate => {
                Some(format!("{MISSING_LOGIN}; or, as it also asks for certificates, {MISSING_CERTIFICATE}"))
            }
            None if offers_auth => Some(MISSING_LOGIN.to_owned()),
            None if self.was_asked_for_certificate => {
                Some(format!("the server asks for certificates, and {MISSING_CERTIFICATE}"))
            }
            _ => None,
        }
    }

    /// A refusal right after the handshake, or the end of the connection, may be for want of a certificate; some servers
    /// say so in SMTP.
    pub(super) fn with_certificate_advice(&self, reason: Reason) -> Reason {
        let is_about_it = match &reason.cause {
            Cause::Network(_) => self.was_asked_for_certificate && self.options.endpoint.client_certificate.is_none(),
            Cause::Reply(reply) => reply.text().to_ascii_lowercase().contains("certificate"),
            _ => false,
        };
        if !is_about_it || reason.advice.is_some() {
            return reason;
        }
        match &self.options.endpoint.client_certificate {
            Some(certificate) => reason.with_advice(format!("the client certificate is {certificate}")),
            None => reason.with_advice(format!("the server asks for certificates, and {MISSING_CERTIFICATE}")),
        }
    }

    /// True if the peer has neither closed the connection nor sent anything while it was idle.
    pub(in crate::relay) fn is_quiet(&mut self) -> bool {
        let mut octet = [0];
        let mut cx = Context::from_waker(Waker::noop());
        let read = std::pin::Pin::new(self.channel.stream()).poll_read(&mut cx, &mut ReadBuf::new(&mut octet));
        matches!(read, Poll::Pending) && self.is_sound()
    }

    /// QUIT, and a short wait for the answer.
    pub(in crate::relay) async fn quit(mut self) {
        const QUIT_TIMEOUT: Duration = Duration::from_secs(3);
        let deadline = Deadline::after(QUIT_TIMEOUT);
        if self.command(RelayStep::EndOfData, CommandLine::fixed("QUIT"), deadline).await.is_ok() {
            let _polite = deadline.limit(self.channel.stream().shutdown()).await;
        }
    }

    /// Several commands in one segment, or a piece of data.
    pub(super) async fn write(&mut self, step: RelayStep, bytes: &[u8], deadline: Deadline) -> Result<(), Reason> {
        self.write_all(step, bytes, deadline).await
    }
}

impl<C: Channel> ClientSession<C> {
    pub(super) fn new(channel: C, options: &Arc<UpstreamOptions>) -> Self {
        Self {
            channel,
            input: BytesMut::with_capacity(4096),
            parser: ReplyParser::default(),
            options: Arc::clone(options),
            extensions: Extensions::default(),
            was_asked_for_certificate: false,
            sound: true,
            in_transaction: false,
        }
    }

    pub(super) async fn greeting(&mut self, deadline: Deadline) -> Result<Reply, Reason> {
        let reply = self.reply(RelayStep::Greeting, deadline).await.map_err(|reason| match reason.cause {
            Cause::TimedOut if self.options.endpoint.tls == TlsMode::StartTls => reason.with_advice(
                "a server that says nothing may expect TLS from the start: try tls = \"implicit\" (usually port 465)",
            ),
            _ => reason,
        })?;
        self.expect(RelayStep::Greeting, reply)
    }

    /// Learns what the server offers. HELO is not tried: it would mean mail without STARTTLS.
    pub(super) async fn ehlo(&mut self, deadline: Deadline) -> Result<(), Reason> {
        let name = CommandLine::new(&format!("EHLO {}", self.options.ehlo_name)).map_err(|error| {
            let enhanced = crate::smtp::EnhancedCode::new(4, 3, 5);
            self.reason(
                RelayStep::Ehlo,
                Cause::Local { enhanced, text: format!("the name for EHLO is not usable: {error}") },
            )
        })?;
        let reply = self.command(RelayStep::Ehlo, Opening::Ehlo(name), deadline).await?;
        self.expect(RelayStep::Ehlo, reply).map(drop)
    }

    /// One command and its reply.
    pub(super) async fn command(
        &mut self,
        step: RelayStep,
        command: impl Into<C::Command>,
        deadline: Deadline,
    ) -> Result<Reply, Reason> {
        let line: CommandLine = command.into().into();
        self.log_sent(&line);
        self.write_all(step, line.as_bytes(), deadline).await?;
        self.reply(step, deadline).await
    }

    /// The next reply, whatever it says. An error, or a reply after which the table does not keep the connection, makes
    /// the session unsound.
    pub(super) async fn reply(&mut self, step: RelayStep, deadline: Deadline) -> Result<Reply, Reason> {
        let limit = deadline.capped(self.patience(step));
        let reply = match limit.limit(self.read_reply()).await {
            Ok(Ok(heard)) => self.redacted(step, &heard),
            Ok(Err(error)) => return Err(self.interrupted(step, &error)),
            Err(Expired) => return Err(self.broken(step, Cause::TimedOut)),
        };
        debug!(upstream = %self.options.name, "S: {}", Clean(&reply));
        // A message can have a thousand recipients with a stored reply each.
        let reply = if step >= RelayStep::Mail { reply.shortened() } else { reply };
        self.sound &= self.interpret(step, &reply).connection == ConnectionState::Kept;
        Ok(reply)
    }

    /// Every reply leaves this type only through here, without any login of the upstream. A keyword that happens to be
    /// a password still has its effect, but is not shown.
    fn redacted(&mut self, step: RelayStep, heard: &Reply) -> Reply {
        let lines: Vec<&str> = heard.lines().collect();
        let reply = heard.with_lines(self.options.redaction.hide(&lines.join("\n")).split('\n'));
        if step == RelayStep::Ehlo {
            let auth_offered = Extensions::from_ehlo(&reply).auth_offered;
            self.extensions = Extensions { auth_offered, ..Extensions::from_ehlo(heard) };
        }
        reply
    }

    pub(super) fn interpret(&self, step: RelayStep, reply: &Reply) -> Interpretation {
        interpret(step, reply, self.options.slow_down)
    }

    /// The reply itself if it means that the step succeeded.
    pub(super) fn expect(&mut self, step: RelayStep, reply: Reply) -> Result<Reply, Reason> {
        let Interpretation { meaning, advice, .. } = self.interpret(step, &reply);
        if meaning == Meaning::Accepted {
            return Ok(reply);
        }
        let reason = self.reason(step, Cause::Reply(reply));
        Err(match advice {
            Some(advice) => reason.with_advice(advice),
            None => reason,
        })
    }

    pub(super) fn reason(&self, step: RelayStep, cause: Cause) -> Reason {
        Reason::new(Some(&self.options.name), step, cause)
    }

    pub(super) fn mark_unsound(&mut self) {
        self.sound = false;
    }

    pub(super) fn log_sent(&self, line: &CommandLine) {
        debug!(upstream = %self.options.name, "C: {}", Clean(line));
    }

    /// Two answers to one command: an attacker may want the second to pass for the answer to the next command.
    pub(super) fn refuse_surplus(&mut self, step: RelayStep) -> Result<(), Reason> {
        if self.input.is_empty() {
            return Ok(());
        }
        Err(self.broken(step, Cause::Network("the server said more than it was asked for".to_owned())))
    }

    async fn write_all(&mut self, step: RelayStep, bytes: &[u8], deadline: Deadline) -> Result<(), Reason> {
        self.refuse_surplus(step)?;
        let limit = deadline.capped(self.options.limits.command_timeout);
        let stream = self.channel.stream();
        let written = limit.limit(async {
            stream.write_all(bytes).await?;
            stream.flush().await
        });
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                let error = self.last_words().await.unwrap_or(error);
                Err(self.interrupted(step, &ReadError::Io(error)))
            }
            Err(Expired) => Err(self.broken(step, Cause::TimedOut)),
        }
    }

    /// A server that closed the connection may have sent a TLS alert before, which says why.
    async fn last_words(&mut self) -> Option<io::Error> {
        const PATIENCE: Duration = Duration::from_secs(1);
        let read = self.channel.stream().read_buf(&mut self.input);
        Deadline::after(PATIENCE).limit(read).await.ok()?.err()
    }

    async fn read_reply(&mut self) -> Result<Reply, ReadError> {
        loop {
            let (consumed, reply) = self.parser.parse(&self.input)?;
            let _consumed = self.input.split_to(consumed);
            if let Some(reply) = reply {
                return Ok(reply);
            }
            self.input.reserve(4096);
            if self.channel.stream().read_buf(&mut self.input).await? == 0 {
                return Err(ReadError::Closed);
            }
        }
    }

    /// In TLS 1.3 the server's opinion of the client's certificate arrives after the handshake.
    fn interrupted(&mut self, step: RelayStep, error: &ReadError) -> Reason {
        let client = ClientSide {
            was_asked: self.was_asked_for_certificate,
            certificate: self.options.endpoint.client_certificate.as_ref(),
        };
        match error {
            ReadError::Io(io) if step < RelayStep::Mail => match tls::explain_late_alert(io, client) {
                Some((text, advice)) => self.broken(RelayStep::TlsHandshake, Cause::Network(text)).with_advice(advice),
                None => self.broken(step, Cause::Network(error.to_string())),
            },
            _ => self.broken(step, Cause::Network(error.to_string())),
        }
    }

    fn broken(&mut self, step: RelayStep, cause: Cause) -> Reason {
        self.sound = false;
        self.reason(step, cause)
    }

    fn patience(&self, step: RelayStep) -> Duration {
        let limits = &self.options.limits;
        match step {
            // A reachable server greets at once; one that waits for a TLS handshake never does.
            RelayStep::Greeting => limits.connect_timeout,
            RelayStep::EndOfData => limits.data_timeout,
            _ => limits.command_timeout,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("the server closed the connection")]
    Closed,
    #[error("this is not SMTP: {0}")]
    Malformed(#[from] ReplyError),
    #[error("{}", explain(.0))]
    Io(#[from] io::Error),
}

fn explain(error: &io::Error) -> String {
    use io::ErrorKind::*;
    match error.kind() {
        // Many servers close without TLS's close_notify.
        UnexpectedEof => ReadError::Closed.to_string(),
        ConnectionReset | ConnectionAborted | BrokenPipe => "the server broke off the connection".to_owned(),
        _ => format!("the connection broke: {error}"),
    }
}
