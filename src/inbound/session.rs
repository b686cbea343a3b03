//! The protocol of one connection, without I/O: a line in, a reply and the next [`SessionAction`] out.
//!
//! Each state is a type that holds what is legal in it: only [`MailTransaction`] has an envelope, only [`Greeted`] has
//! a client, and every transition consumes the state it leaves. Knows nothing of sockets, clocks or storage.
//! RFC 5321 §3, §4.1.4 (order of commands), RFC 1870, 2920, 6409.

use super::data::Receiving;
use super::lines::InputLine;
use super::mismatch::Mismatch;
use super::sasl::{PasswordCheck, SaslExchange};
use super::starttls::{self, Upgrade};
use super::{AuthMode, Client, Intake, ListenerOptions, Received};
use crate::message::budget::{BudgetExceeded, MemoryBudget, MemoryShare};
use crate::message::envelope::{Distinct, Envelope, room_for_address};
use crate::smtp::address::{EhloName, Mailbox, ReversePath};
use crate::smtp::command::{Command, CommandError, MailParameters};
use crate::smtp::{Extensions, Reply};
use std::net::SocketAddr;
use std::sync::Arc;

/// After this many bad commands without a message in between, the reply is 421. A mail client sends none.
const MAX_BAD_COMMANDS: u32 = 20;
const MAX_FAILED_LOGINS: u32 = 3;
/// Commands allowed to a client that may not send (yet). A pipelining client that was refused at MAIL may send one more
/// for each recipient. Logging in needs six.
const MAX_COMMANDS_WITHOUT_LOGIN: usize = 100;

/// The result of a transition: a reply to write, and what the connection does then.
#[derive(Debug)]
pub struct SessionStep {
    pub reply: Option<Reply>,
    pub next: SessionAction,
    /// Whose mail the reply refuses, if it does; for the log.
    pub sender: Option<ReversePath>,
    /// The refusal has been logged.
    pub is_logged: bool,
}

/// What the connection does next. Each variant holds the state with which it continues.
#[derive(Debug)]
pub enum SessionAction {
    /// Read a command line.
    Command(ServerSession),
    /// Read a line that answers a 334.
    Response(SaslExchange),
    /// Check a user's password.
    Verify(PasswordCheck),
    /// Upgrade to TLS.
    StartTls(Upgrade),
    /// Ask the intake about the sender.
    Admit(SenderAdmission),
    /// Read a message.
    Data(Box<Receiving>),
    /// Pass the message to the intake and send its reply.
    Accept(Box<Received>, Accepting),
    Close,
}

impl SessionStep {
    pub(super) fn new(reply: Reply, next: SessionAction) -> Self {
        // RFC 5321 §3.8: after a 421 the server closes, whichever part of it sent the reply.
        let next = if reply.code() == 421 { SessionAction::Close } else { next };
        Self { reply: Some(reply), next, sender: None, is_logged: false }
    }

    pub(super) fn silent(next: SessionAction) -> Self {
        Self { reply: None, next, sender: None, is_logged: false }
    }

    pub(super) fn logged(self) -> Self {
        Self { is_logged: true, ..self }
    }

    /// Whether the reply refuses a message as a whole, at MAIL or after its data. The intake's replies are not among them.
    pub(super) fn refuses_message(&self) -> bool {
        self.sender.is_some()
            && matches!(self.next, SessionAction::Command(ServerSession::Greeted(_)) | SessionAction::Close)
    }

    /// Names the sender if the reply is a refusal.
    pub(super) fn about(mut self, sender: &ReversePath) -> Self {
        if self.reply.as_ref().is_some_and(|reply| !reply.is_positive()) {
            self.sender = Some(sender.clone());
        }
        self
    }
}

/// Data that lives as long as the connection.
#[derive(Debug, Clone)]
pub(super) struct ConnectionBase {
    pub(super) options: Arc<ListenerOptions>,
    pub(super) budget: MemoryBudget,
    peer: SocketAddr,
    /// Version of the active TLS.
    pub(super) tls: Option<&'static str>,
    bad_commands: u32,
    /// Counted until the client may send.
    commands: usize,
    pub(super) failed_logins: u32,
}

/// A connection that waits for a command.
#[derive(Debug)]
pub enum ServerSession {
    Connected(Connected),
    Greeted(Greeted),
    Transaction(Box<MailTransaction>),
}

/// Nothing is known about the client yet: at the start, and again after STARTTLS.
#[derive(Debug)]
pub struct Connected {
    pub(super) base: ConnectionBase,
}

/// EHLO or HELO was said.
#[derive(Debug)]
pub struct Greeted {
    pub(super) base: ConnectionBase,
    pub(super) client: Client,
}

/// MAIL was accepted.
#[derive(Debug)]
pub struct MailTransaction {
    greeted: Greeted,
    envelope: Envelope,
    distinct: Distinct,
    /// Octets that the envelope needs on its way; all of them are in `share`.
    octets: usize,
    share: MemoryShare,
}

impl ServerSession {
    /// A new connection; the reply is the greeting. `tls` is the version if TLS is already active.
    pub fn open(
        options: Arc<ListenerOptions>,
        budget: MemoryBudget,
        peer: SocketAddr,
        tls: Option<&'static str>,
    ) -> SessionStep {
        let greeting = Reply::plain(220, [format!("{} ESMTP waxseal", options.hostname)]);
        let base = ConnectionBase { options, budget, peer, tls, bad_commands: 0, commands: 0, failed_logins: 0 };
        SessionStep::new(greeting, SessionAction::Command(Self::Connected(Connected { base })))
    }

    pub fn line(mut self, line: InputLine) -> SessionStep {
        if self.is_unauthenticated() {
            let base = self.base_mut();
            base.commands += 1;
            if base.commands > MAX_COMMANDS_WITHOUT_LOGIN + base.options.max_recipients {
                return self.answer(Reply::too_many_commands());
            }
        }
        match line {
            InputLine::Refused(reply) => self.bad(reply),
            InputLine::Complete(line) => match Command::parse(&line) {
                Ok(command) => self.command(command),
                Err(error @ CommandError::Recipient(_)) => self.bad_recipient(error.reply()),
                Err(error) => self.bad(error.reply()),
            },
        }
    }

    /// Whether this client may not send anything, or not before a login.
    pub fn is_unauthenticated(&self) -> bool {
        let (base, user) = match self {
            Self::Connected(Connected { base }) => (base, None),
            Self::Greeted(greeted) => (&greeted.base, greeted.client.user.as_ref()),
            Self::Transaction(transaction) => (&transaction.greeted.base, transaction.greeted.client.user.as_ref()),
        };
        user.is_none() && !base.options.needs_no_login(base.peer.ip())
    }

    /// For a client that leaves now: what it was missing, if it left right after EHLO.
    pub(super) fn departure(&self) -> Option<Mismatch> {
        match self {
            Self::Greeted(greeted) if greeted.client.user.is_none() => {
                Mismatch::of_departure(&greeted.base.options, greeted.base.tls)
            }
            Self::Connected(_) | Self::Greeted(_) | Self::Transaction(_) => None,
        }
    }

    fn command(self, command: Command) -> SessionStep {
        match command {
            Command::Ehlo(name) => self.greet(name, true),
            Command::Helo(name) => self.greet(name, false),
            Command::Rset => self.reset(),
            Command::Noop => self.answer(Reply::ok()),
            Command::Vrfy => self.answer(Reply::cannot_verify()),
            Command::Expn => self.answer(Reply::not_implemented()),
            Command::Help => self.answer(Reply::help()),
            Command::Quit => SessionStep::new(Reply::goodbye(), SessionAction::Close),
            _ => match self {
                Self::Connected(_) => self.bad(Reply::need_greeting()),
                Self::Greeted(greeted) => greeted.command(command),
                Self::Transaction(transaction) => transaction.command(command),
            },
        }
    }

    fn answer(self, reply: Reply) -> SessionStep {
        match self {
            Self::Transaction(transaction) => transaction.answer(reply),
            other => SessionStep::new(reply, SessionAction::Command(other)),
        }
    }

    /// Replies to something that no mail client sends, and counts it.
    pub(super) fn bad(mut self, reply: Reply) -> SessionStep {
        let base = self.base_mut();
        base.bad_commands += 1;
        let reply = if base.bad_commands < MAX_BAD_COMMANDS { reply } else { Reply::too_many_errors() };
        self.answer(reply)
    }

    fn bad_recipient(self, reply: Reply) -> SessionStep {
        match self {
            Self::Connected(_) => self.bad(Reply::need_greeting()),
            Self::Greeted(greeted) => greeted.answer(Reply::need_mail()),
            // Not counted, because a list of recipients may contain any number of bad ones.
            Self::Transaction(transaction) => transaction.answer(reply),
        }
    }

    fn base_mut(&mut self) -> &mut ConnectionBase {
        match self {
            Self::Connected(connected) => &mut connected.base,
            Self::Greeted(greeted) => &mut greeted.base,
            Self::Transaction(transaction) => &mut transaction.greeted.base,
        }
    }

    // RFC 5321 §4.1.4: EHLO during a transaction resets it like RSET. A login stays valid.
    fn greet(self, ehlo: EhloName, esmtp: bool) -> SessionStep {
        let (base, user) = match self {
            Self::Connected(connected) => (connected.base, None),
            Self::Greeted(greeted) => (greeted.base, greeted.client.user),
            Self::Transaction(transaction) => (transaction.greeted.base, transaction.greeted.client.user),
        };
        let reply = if esmtp {
            let name = format!("{} greets {}", base.options.hostname, ehlo.as_str());
            Reply::plain(250, std::iter::once(name).chain(offered(&base).keyword_lines()))
        } else {
            Reply::plain(250, [base.options.hostname.clone()])
        };
        let client = Client { peer: base.peer, ehlo, esmtp, tls: base.tls, user };
        Greeted { base, client }.answer(reply)
    }

    fn reset(self) -> SessionStep {
        match self {
            Self::Transaction(transaction) => transaction.greeted.answer(Reply::flushed()),
            other => other.answer(Reply::flushed()),
        }
    }
}

/// What the EHLO reply offers now.
fn offered(base: &ConnectionBase) -> Extensions {
    let logins = base.options.auth != AuthMode::Off && starttls::allows_auth(&base.options.tls, base.tls);
    Extensions {
        starttls: starttls::is_offered(&base.options.tls, base.tls),
        pipelining: true,
        eight_bit_mime: true,
        smtputf8: true,
        enhanced_status_codes: true,
        size: Some(Some(base.options.max_message_size)),
        auth_plain: logins,
        auth_login: logins,
        auth_offered: Vec::new(),
    }
}

impl Greeted {
    fn command(self, command: Command) -> SessionStep {
        match command {
            Command::StartTls => Upgrade::begin(self),
            Command::Auth { mechanism, initial } => SaslExchange::begin(self, &mechanism, initial.as_deref()),
            Command::Mail { sender, parameters } => self.mail(sender.clone(), parameters).about(&sender),
            // Not counted: a pipelining client sends any number of them after a MAIL that is refused.
            _ => self.answer(Reply::need_mail()),
        }
    }

    pub(super) fn answer(self, reply: Reply) -> SessionStep {
        SessionStep::new(reply, SessionAction::Command(ServerSession::Greeted(self)))
    }

    pub(super) fn bad(self, reply: Reply) -> SessionStep {
        ServerSession::Greeted(self).bad(reply)
    }

    /// Counts a refused login.
    pub(super) fn login_failed(mut self, reply: Reply) -> SessionStep {
        self.base.failed_logins += 1;
        let over = self.base.failed_logins >= MAX_FAILED_LOGINS;
        self.answer(if over { Reply::too_many_logins() } else { reply })
    }

    fn mail(self, sender: ReversePath, parameters: MailParameters) -> SessionStep {
        let options = &self.base.options;
        if starttls::is_required(&options.tls, self.base.tls) {
            return self.bad(Reply::must_start_tls());
        }
        if let Err(reply) = options.may_send(&self.client) {
            return self.bad(reply);
        }
        // RFC 1870 §6.1
        if parameters.size.is_some_and(|size| size > options.max_message_size) {
            return self.answer(Reply::message_too_big());
        }
        if let Err(reply) = options.rates.check(&self.client, 1) {
            return self.answer(reply).logged();
        }
        if !self.base.budget.has_room_for(parameters.size.unwrap_or(1)) {
            return self.answer(Reply::no_memory());
        }
        let mut share = self.base.budget.share();
        let octets = sender.mailbox().map_or(0, room_for_address);
        if share.grow(octets).is_err() {
            return self.answer(Reply::no_memory());
        }
        let mut envelope = Envelope::new(sender);
        envelope.body = parameters.body;
        envelope.smtputf8 |= parameters.smtputf8;
        let transaction = MailTransaction { greeted: self, envelope, distinct: Distinct::default(), octets, share };
        SessionStep::silent(SessionAction::Admit(SenderAdmission {
            transaction: Box::new(transaction),
            size: parameters.size,
        }))
    }
}

impl MailTransaction {
    fn command(self: Box<Self>, command: Command) -> SessionStep {
        match command {
            Command::Rcpt { recipient } => self.rcpt(recipient),
            Command::Data => self.data(),
            _ => ServerSession::Transaction(self).bad(Reply::nested_mail()),
        }
    }

    fn answer(self: Box<Self>, reply: Reply) -> SessionStep {
        let sender = (!reply.is_positive()).then(|| self.envelope.sender.clone());
        SessionStep { sender, ..SessionStep::new(reply, SessionAction::Command(ServerSession::Transaction(self))) }
    }

    // RFC 5321 §4.5.3.1.10: too many is 452, and those before stay.
    fn rcpt(mut self: Box<Self>, recipient: Mailbox) -> SessionStep {
        let known = &self.envelope.recipients;
        if self.distinct.find(&recipient, known).is_some() {
            return self.answer(Reply::recipient_ok());
        }
        if known.len() >= self.greeted.base.options.max_recipients {
            return self.answer(Reply::too_many_recipients());
        }
        if let Err(reply) = self.greeted.base.options.rates.check(&self.greeted.client, known.len() + 1) {
            return self.answer(reply).logged();
        }
        let octets = self.octets + room_for_address(&recipient);
        if let Err(BudgetExceeded) = self.share.grow(octets) {
            return self.answer(Reply::no_memory());
        }
        self.octets = octets;
        self.distinct.add(&recipient, known.len());
        self.envelope.add_recipient(recipient);
        self.answer(Reply::recipient_ok())
    }

    fn data(self: Box<Self>) -> SessionStep {
        // RFC 2920 §3.1: a client may have sent DATA before it knew that no recipient was accepted.
        if self.envelope.recipients.is_empty() {
            return self.answer(Reply::need_recipient());
        }
        let receiving = Receiving::new(self.greeted, self.envelope, self.share);
        SessionStep::new(Reply::start_mail_input(), SessionAction::Data(Box::new(receiving)))
    }
}

/// MAIL passed the session's own rules; the intake decides.
#[derive(Debug)]
pub struct SenderAdmission {
    transaction: Box<MailTransaction>,
    size: Option<u64>,
}

impl SenderAdmission {
    pub fn decide(self, intake: &impl Intake) -> SessionStep {
        let transaction = self.transaction;
        match intake.admit(&transaction.greeted.client, &transaction.envelope.sender, self.size) {
            Ok(()) => transaction.answer(Reply::sender_ok()),
            Err(reply) => transaction.greeted.answer(reply).about(&transaction.envelope.sender),
        }
    }
}

/// The intake has the message.
#[derive(Debug)]
pub struct Accepting {
    greeted: Greeted,
}

impl Accepting {
    pub(super) fn new(greeted: Greeted) -> Self {
        Self { greeted }
    }

    pub fn replied(mut self, reply: &Reply) -> SessionStep {
        if reply.is_positive() {
            self.greeted.base.bad_commands = 0;
        }
        // On one line, because one of Plausible's clients treats a 250 of two lines as a failure.
        self.greeted.answer(reply.folded())
    }
}

#[cfg(test)]
mod tests;
