//! One message over one session: MAIL, RCPT, DATA, the dot, and the outcome for each recipient.
//!
//! With PIPELINING the whole envelope is sent in one write and the data in another: two round trips. Without it, the
//! same commands are sent one by one. RFC 5321 §3.3, RFC 2920 §3.1.

use super::Mail;
use super::line::CommandLine;
use super::needs::{mail_line, rcpt_line};
use super::recipients::TransactionRecipients;
use super::session::ClientSession;
use super::starttls::Secured;
use crate::message::outcome::{Cause, ConnectionState, Interpretation, Meaning, Outcome, Reason, RelayStep};
use crate::relay::deadline::Deadline;
use crate::smtp::{Mailbox, Reply, ReversePath};
use std::time::Duration;

/// Commands per write. Their replies must fit into the sockets' buffers, or both sides would wait for each other.
const GROUP: usize = 100;

#[derive(Debug)]
pub(in crate::relay) enum Transacted {
    /// One outcome per recipient, in order.
    Settled(Vec<Outcome>),
    /// The reused connection was dead before the server replied to this message.
    NotSent,
}

#[derive(Debug, Clone, Copy)]
enum PlannedCommand {
    Rset,
    Mail,
    Rcpt(usize),
    Data,
}

/// How far a transaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TransactionProgress {
    Unheard,
    Begun,
    /// MAIL was refused: nothing more is sent.
    Refused,
    /// A 354 came: data is due.
    WantsData,
}

impl ClientSession<Secured> {
    /// `reused`: the connection carried a message before and may have died since.
    pub(in crate::relay) async fn transact(&mut self, mail: &Mail<'_>, reused: bool, deadline: Deadline) -> Transacted {
        let mut recipients = TransactionRecipients::new(mail.recipients.len());
        let asks = match self.plan(mail, &mut recipients) {
            Ok(asks) => asks,
            Err(outcome) => {
                recipients.settle_rest(&outcome);
                Vec::new()
            }
        };
        let mut progress = TransactionProgress::Unheard;
        let result = match self
            .converse(&asks, mail.first_reply_timeout, &mut progress, &mut recipients, deadline)
            .await
        {
            Ok(()) if progress == TransactionProgress::WantsData => self.finish(mail, &mut recipients, deadline).await,
            other => other,
        };
        if let Err(reason) = result {
            if reused && progress == TransactionProgress::Unheard && reason.cause != Cause::TimedOut {
                self.mark_unsound();
                return Transacted::NotSent;
            }
            recipients.settle_rest(&Outcome::of(reason, self.options.slow_down));
        }
        let outcomes = recipients.into_outcomes(|| {
            self.reason(RelayStep::Data, Cause::Network("the server did not take the message".to_owned()))
        });
        let outcomes = outcomes.into_iter().zip(mail.recipients);
        let outcomes = outcomes.map(|(outcome, recipient)| with_advice_on_dots(outcome, recipient));
        Transacted::Settled(match mail.envelope.sender {
            ReversePath::Null => outcomes.map(with_advice_on_the_null_sender).collect(),
            ReversePath::Mailbox(_) => outcomes.collect(),
        })
    }

    /// Every command with its line, in order; empty if no recipient is left.
    fn plan(
        &self,
        mail: &Mail<'_>,
        recipients: &mut TransactionRecipients,
    ) -> Result<Vec<(PlannedCommand, CommandLine)>, Outcome> {
        let upstream = &self.options.name;
        let mail_line = mail_line(mail, &self.extensions, upstream, recipients)?;
        let mut asks = Vec::with_capacity(mail.recipients.len() + 3);
        if self.in_transaction {
            asks.push((PlannedCommand::Rset, CommandLine::fixed("RSET")));
        }
        asks.push((PlannedCommand::Mail, mail_line));
        let before = asks.len();
        for at in recipients.open() {
            asks.push((PlannedCommand::Rcpt(at), rcpt_line(&mail.recipients[at], upstream)?));
        }
        if asks.len() == before {
            return Ok(Vec::new());
        }
        asks.push((PlannedCommand::Data, CommandLine::fixed("DATA")));
        Ok(asks)
    }

    /// Runs up to the reply to DATA.
    async fn converse(
        &mut self,
        asks: &[(PlannedCommand, CommandLine)],
        first_reply_timeout: Option<Duration>,
        progress: &mut TransactionProgress,
        recipients: &mut TransactionRecipients,
        deadline: Deadline,
    ) -> Result<(), Reason> {
        let group = if self.extensions.pipelining { GROUP } else { 1 };
        for asks in asks.chunks(group) {
            let only_data = matches!(asks, [(PlannedCommand::Data, _)]);
            if *progress == TransactionProgress::Refused || (only_data && !recipients.has_accepted()) {
                break;
            }
            let mut commands = Vec::new();
            for (_, line) in asks {
                self.log_sent(line);
                commands.extend_from_slice(line.as_bytes());
            }
            self.write_commands(asks, &commands, deadline).await?;
            for (ask, _) in asks {
                let patience = first_reply_timeout.filter(|_| *progress == TransactionProgress::Unheard);
                let deadline = patience.map_or(deadline, |patience| deadline.capped(patience));
                let reply = self.reply(ask.step(), deadline).await?;
                self.on_reply(*ask, reply, progress, recipients)?;
            }
        }
        Ok(())
    }

    async fn write_commands(
        &mut self,
        asks: &[(PlannedCommand, CommandLine)],
        commands: &[u8],
        deadline: Deadline,
    ) -> Result<(), Reason> {
        let step = asks.first().map_or(RelayStep::Mail, |(ask, _)| ask.step());
        self.write(step, commands, deadline).await
    }

    fn on_reply(
        &mut self,
        ask: PlannedCommand,
        reply: Reply,
        progress: &mut TransactionProgress,
        recipients: &mut TransactionRecipients,
    ) -> Result<(), Reason> {
        let step = ask.step();
        let Interpretation { meaning: verdict, connection, .. } = self.interpret(step, &reply);
        let is_positive = reply.is_positive();
        let reason = || self.reason(step, Cause::Reply(reply));
        // Whichever command it answers.
        if connection == ConnectionState::Closed {
            return Err(reason());
        }
        match ask {
            PlannedCommand::Rset if verdict != Meaning::Accepted => return Err(reason()),
            PlannedCommand::Rset => self.in_transaction = false,
            PlannedCommand::Mail if verdict == Meaning::Accepted => {
                *progress = TransactionProgress::Begun;
                self.in_transaction = true;
            }
            PlannedCommand::Mail => {
                *progress = TransactionProgress::Refused;
                recipients.settle_rest(&Outcome::of(reason(), self.options.slow_down));
            }
            // Pipelined after a refused MAIL. A server that accepts these now is not to be trusted with a dot.
            PlannedCommand::Rcpt(_) | PlannedCommand::Data if *progress == TransactionProgress::Refused => {
                if is_positive {
                    self.mark_unsound();
                }
            }
            PlannedCommand::Rcpt(at) if verdict == Meaning::Accepted => recipients.accept(at),
            PlannedCommand::Rcpt(at) => recipients.settle(at, Outcome::of(reason(), self.options.slow_down)),
            PlannedCommand::Data if verdict == Meaning::Accepted => *progress = TransactionProgress::WantsData,
            PlannedCommand::Data if recipients.has_accepted() => return Err(reason()),
            PlannedCommand::Data => {}
        }
        Ok(())
    }

    /// After the 354.
    async fn finish(
        &mut self,
        mail: &Mail<'_>,
        recipients: &mut TransactionRecipients,
        deadline: Deadline,
    ) -> Result<(), Reason> {
        if !recipients.has_accepted() {
            // Every recipient is settled; the answer to an empty message changes nothing.
            let _ignored = self.no_data(deadline.capped(self.options.limits.command_timeout)).await;
            return Ok(());
        }
        let reply = self.data(mail.sealed, deadline).await?;
        let reply = self.expect(RelayStep::EndOfData, reply)?;
        recipients.deliver(&reply);
        Ok(())
    }
}

/// Some servers accept no quoted local part at all, and only say that the address is bad.
fn with_advice_on_dots(outcome: Outcome, recipient: &Mailbox) -> Outcome {
    let is_refused = |reason: &Reason| reason.step == RelayStep::Rcpt && reason.reply().is_some();
    match outcome {
        Outcome::Failed(reason) if is_refused(&reason) && recipient.needs_quotes_for_dots() => {
            Outcome::Failed(reason.with_advice(
                "this address has a dot at its beginning or end, or two in a row, which mail allows in quotes only, and \
                 the server does not take it so",
            ))
        }
        outcome => outcome,
    }
}

/// Servers that want each sender to be verified refuse bounces.
fn with_advice_on_the_null_sender(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Failed(reason) if reason.step == RelayStep::Mail && reason.advice.is_none() => {
            Outcome::Failed(reason.with_advice(
                "the sender is the null path <>; if this provider refuses it, set `bounce_sender` in [queue] for the \
                 gateway's own bounces",
            ))
        }
        outcome => outcome,
    }
}

impl PlannedCommand {
    fn step(self) -> RelayStep {
        match self {
            // An RSET belongs to the MAIL after it.
            Self::Rset | Self::Mail => RelayStep::Mail,
            Self::Rcpt(_) => RelayStep::Rcpt,
            Self::Data => RelayStep::Data,
        }
    }
}
