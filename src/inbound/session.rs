//! The protocol of one connection, without I/O: a line in, a reply and what to do [`Next`] out.
//!
//! Each state is a type that holds what is legal in it: only [`Transaction`] has an envelope, only [`Greeted`] has a
//! client, and every transition consumes the state it leaves. Says nothing about sockets, clocks or storage.
//! RFC 5321 §3, §4.1.4 (order of commands), RFC 1870, 2920, 6409.

use super::data::Receiving;
use super::lines::Line;
use super::login::{Exchange, Verification};
use super::starttls::{self, Upgrade};
use super::{AuthMode, Client, Intake, Options, Received};
use crate::message::budget::{Budget, BudgetExceeded, Share};
use crate::message::envelope::{Distinct, Envelope, room_for_address};
use crate::smtp::address::{EhloName, Mailbox, ReversePath};
use crate::smtp::command::{Command, CommandError, MailParameters};
use crate::smtp::{Extensions, Reply};
use std::net::SocketAddr;
use std::sync::Arc;

/// Without a message in between; then 421. A mail client makes none.
const MAX_BAD_COMMANDS: u32 = 20;
const MAX_FAILED_LOGINS: u32 = 3;
/// Commands of a client that may not send (yet), besides one for each recipient that it may have pipelined behind a MAIL
/// in vain. Logging in takes six.
const MAX_COMMANDS_WITHOUT_LOGIN: usize = 100;

/// What a transition gives: a reply to write, and what the connection does then.
#[derive(Debug)]
pub struct Step {
    pub reply: Option<Reply>,
    pub next: Next,
}

/// What the connection does next; the state in it is what it goes on with.
#[derive(Debug)]
pub enum Next {
    /// Read a command line.
    Command(Session),
    /// Read a line that answers a 334.
    Response(Exchange),
    /// Check a user's password.
    Verify(Verification),
    /// Upgrade to TLS.
    StartTls(Upgrade),
    /// Ask the intake about the sender.
    Admit(Admission),
    /// Read a message.
    Data(Box<Receiving>),
    /// Hand the message to the intake and say what it says.
    Accept(Box<Received>, Accepting),
    Close,
}

impl Step {
    pub(super) fn new(reply: Reply, next: Next) -> Self {
        // RFC 5321 §3.8: after a 421 the server closes, whoever said it.
        let next = if reply.code() == 421 { Next::Close } else { next };
        Self { reply: Some(reply), next }
    }

    pub(super) fn silent(next: Next) -> Self {
        Self { reply: None, next }
    }
}

/// What lasts as long as the connection.
#[derive(Debug, Clone)]
pub(super) struct Base {
    pub(super) options: Arc<Options>,
    pub(super) budget: Budget,
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
pub enum Session {
    Connected(Connected),
    Greeted(Greeted),
    Transaction(Box<Transaction>),
}

/// Nothing is known about the client: at the start, and again after STARTTLS.
#[derive(Debug)]
pub struct Connected {
    pub(super) base: Base,
}

/// EHLO or HELO was said.
#[derive(Debug)]
pub struct Greeted {
    pub(super) base: Base,
    pub(super) client: Client,
}

/// MAIL was accepted.
#[derive(Debug)]
pub struct Transaction {
    greeted: Greeted,
    envelope: Envelope,
    distinct: Distinct,
    /// Octets that the envelope takes on its way; all of them are in `share`.
    octets: usize,
    share: Share,
}

impl Session {
    /// A new connection; the reply is the greeting. `tls` is the version if TLS is already active.
    pub fn open(options: Arc<Options>, budget: Budget, peer: SocketAddr, tls: Option<&'static str>) -> Step {
        let greeting = Reply::plain(220, [format!("{} ESMTP waxseal", options.hostname)]);
        let base = Base { options, budget, peer, tls, bad_commands: 0, commands: 0, failed_logins: 0 };
        Step::new(greeting, Next::Command(Self::Connected(Connected { base })))
    }

    pub fn line(mut self, line: Line) -> Step {
        if self.is_stranger() {
            let base = self.base_mut();
            base.commands += 1;
            if base.commands > MAX_COMMANDS_WITHOUT_LOGIN + base.options.max_recipients {
                return self.answer(Reply::too_many_commands());
            }
        }
        match line {
            Line::Refused(reply) => self.bad(reply),
            Line::Complete(line) => match Command::parse(&line) {
                Ok(command) => self.command(command),
                Err(error @ CommandError::Recipient(_)) => self.bad_recipient(error.reply()),
                Err(error) => self.bad(error.reply()),
            },
        }
    }

    /// Whether this client may send nothing, or not before a login.
    pub fn is_stranger(&self) -> bool {
        let (base, user) = match self {
            Self::Connected(Connected { base }) => (base, None),
            Self::Greeted(greeted) => (&greeted.base, greeted.client.user.as_ref()),
            Self::Transaction(transaction) => (&transaction.greeted.base, transaction.greeted.client.user.as_ref()),
        };
        user.is_none() && !base.options.needs_no_login(base.peer.ip())
    }

    fn command(self, command: Command) -> Step {
        match command {
            Command::Ehlo(name) => self.greet(name, true),
            Command::Helo(name) => self.greet(name, false),
            Command::Rset => self.reset(),
            Command::Noop => self.answer(Reply::ok()),
            Command::Vrfy => self.answer(Reply::cannot_verify()),
            Command::Expn => self.answer(Reply::not_implemented()),
            Command::Help => self.answer(Reply::help()),
            Command::Quit => Step::new(Reply::goodbye(), Next::Close),
            _ => match self {
                Self::Connected(_) => self.bad(Reply::need_greeting()),
                Self::Greeted(greeted) => greeted.command(command),
                Self::Transaction(transaction) => transaction.command(command),
            },
        }
    }

    fn answer(self, reply: Reply) -> Step {
        Step::new(reply, Next::Command(self))
    }

    /// Answers something that no mail client sends, and counts it.
    pub(super) fn bad(mut self, reply: Reply) -> Step {
        let base = self.base_mut();
        base.bad_commands += 1;
        let reply = if base.bad_commands < MAX_BAD_COMMANDS { reply } else { Reply::too_many_errors() };
        self.answer(reply)
    }

    fn bad_recipient(self, reply: Reply) -> Step {
        match self {
            Self::Connected(_) => self.bad(Reply::need_greeting()),
            Self::Greeted(greeted) => greeted.answer(Reply::need_mail()),
            // Not counted: a list of recipients may have any number of bad ones.
            Self::Transaction(transaction) => transaction.answer(reply),
        }
    }

    fn base_mut(&mut self) -> &mut Base {
        match self {
            Self::Connected(connected) => &mut connected.base,
            Self::Greeted(greeted) => &mut greeted.base,
            Self::Transaction(transaction) => &mut transaction.greeted.base,
        }
    }

    // RFC 5321 §4.1.4: EHLO in the middle resets like RSET. A login outlives it.
    fn greet(self, ehlo: EhloName, esmtp: bool) -> Step {
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

    fn reset(self) -> Step {
        match self {
            Self::Transaction(transaction) => transaction.greeted.answer(Reply::flushed()),
            other => other.answer(Reply::flushed()),
        }
    }
}

/// What the EHLO reply offers now.
fn offered(base: &Base) -> Extensions {
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
    fn command(self, command: Command) -> Step {
        match command {
            Command::StartTls => Upgrade::begin(self),
            Command::Auth { mechanism, initial } => Exchange::begin(self, &mechanism, initial.as_deref()),
            Command::Mail { sender, parameters } => self.mail(sender, parameters),
            // Not counted: a pipelining client sends any number of them behind a MAIL that is refused.
            _ => self.answer(Reply::need_mail()),
        }
    }

    pub(super) fn answer(self, reply: Reply) -> Step {
        Step::new(reply, Next::Command(Session::Greeted(self)))
    }

    pub(super) fn bad(self, reply: Reply) -> Step {
        Session::Greeted(self).bad(reply)
    }

    /// Counts a refused login.
    pub(super) fn login_failed(mut self, reply: Reply) -> Step {
        self.base.failed_logins += 1;
        let over = self.base.failed_logins >= MAX_FAILED_LOGINS;
        self.answer(if over { Reply::too_many_logins() } else { reply })
    }

    fn mail(self, sender: ReversePath, parameters: MailParameters) -> Step {
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
        if !self.base.budget.has_room_for(parameters.size.unwrap_or(1)) {
            return self.answer(Reply::no_memory());
        }
        let (mut share, octets) = (self.base.budget.share(), sender.mailbox().map_or(0, room_for_address));
        if share.grow(octets).is_err() {
            return self.answer(Reply::no_memory());
        }
        let mut envelope = Envelope::new(sender);
        envelope.body = parameters.body;
        envelope.smtputf8 |= parameters.smtputf8;
        let transaction = Transaction { greeted: self, envelope, distinct: Distinct::default(), octets, share };
        Step::silent(Next::Admit(Admission { transaction: Box::new(transaction), size: parameters.size }))
    }
}

impl Transaction {
    fn command(self: Box<Self>, command: Command) -> Step {
        match command {
            Command::Rcpt { recipient } => self.rcpt(recipient),
            Command::Data => self.data(),
            _ => Session::Transaction(self).bad(Reply::nested_mail()),
        }
    }

    fn answer(self: Box<Self>, reply: Reply) -> Step {
        Step::new(reply, Next::Command(Session::Transaction(self)))
    }

    // RFC 5321 §4.5.3.1.10: too many is 452, and those before stay.
    fn rcpt(mut self: Box<Self>, recipient: Mailbox) -> Step {
        let known = &self.envelope.recipients;
        if self.distinct.find(&recipient, known).is_some() {
            return self.answer(Reply::recipient_ok());
        }
        if known.len() >= self.greeted.base.options.max_recipients {
            return self.answer(Reply::too_many_recipients());
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

    fn data(self: Box<Self>) -> Step {
        // RFC 2920 §3.1: a client may have sent DATA before it knew that no recipient was taken.
        if self.envelope.recipients.is_empty() {
            return self.answer(Reply::need_recipient());
        }
        let receiving = Receiving::new(self.greeted, self.envelope, self.share);
        Step::new(Reply::start_mail_input(), Next::Data(Box::new(receiving)))
    }
}

/// MAIL passed the session's own rules; the intake has the last word.
#[derive(Debug)]
pub struct Admission {
    transaction: Box<Transaction>,
    size: Option<u64>,
}

impl Admission {
    pub fn decide(self, intake: &impl Intake) -> Step {
        let transaction = self.transaction;
        match intake.admit(&transaction.greeted.client, &transaction.envelope.sender, self.size) {
            Ok(()) => transaction.answer(Reply::sender_ok()),
            Err(reply) => transaction.greeted.answer(reply),
        }
    }
}

/// The message is with the intake.
#[derive(Debug)]
pub struct Accepting {
    greeted: Greeted,
}

impl Accepting {
    pub(super) fn new(greeted: Greeted) -> Self {
        Self { greeted }
    }

    pub fn replied(mut self, reply: &Reply) -> Step {
        if reply.is_positive() {
            self.greeted.base.bad_commands = 0;
        }
        // One line: one of Plausible's clients takes a 250 of two lines for a failure.
        self.greeted.answer(reply.folded())
    }
}

#[cfg(test)]
mod tests;
