//! One message over one session: MAIL, RCPT, DATA, the dot, and what became of each recipient.
//!
//! With PIPELINING the whole envelope goes out in one write and the data in another: two round trips. Without, the same
//! commands go one by one. RFC 5321 §3.3, RFC 2920 §3.1.

use super::ledger::{Ledger, judge};
use super::line::Line;
use super::needs::{mail_line, rcpt_line};
use super::session::Session;
use super::starttls::Secured;
use crate::dkim::Sealed;
use crate::message::Envelope;
use crate::message::outcome::{Cause, Meaning, Outcome, Reason, Step, is_goodbye, meaning};
use crate::relay::deadline::Deadline;
use crate::smtp::{Mailbox, Reply};
use std::time::Duration;

/// Commands in one write. Their replies must fit into the sockets' buffers, or both sides would wait for each other.
const GROUP: usize = 100;

#[derive(Debug, Clone, Copy)]
pub(in crate::relay) struct Mail<'a> {
    pub envelope: &'a Envelope,
    /// Of the envelope's, those that this transaction is for.
    pub recipients: &'a [Mailbox],
    pub sealed: &'a Sealed,
    /// How long the server may take for its first reply, where that is less than usual.
    pub first_word: Option<Duration>,
}

#[derive(Debug)]
pub(in crate::relay) enum Transacted {
    /// One outcome per recipient, in order.
    Settled(Vec<Outcome>),
    /// The reused connection was dead before the server said a word about this message.
    Unheard,
}

#[derive(Debug, Clone, Copy)]
enum Ask {
    Rset,
    Mail,
    Rcpt(usize),
    Data,
}

/// How far a transaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Unheard,
    Begun,
    /// MAIL was refused: nothing more is asked.
    Refused,
    /// 354 came: data is due.
    WantsData,
}

impl Session<Secured> {
    /// `reused`: the connection carried a message before and may have died since.
    pub(in crate::relay) async fn transact(&mut self, mail: &Mail<'_>, reused: bool, deadline: Deadline) -> Transacted {
        let mut ledger = Ledger::new(mail.recipients.len());
        let asks = match self.plan(mail, &mut ledger) {
            Ok(asks) => asks,
            Err(outcome) => {
                ledger.settle_rest(&outcome);
                Vec::new()
            }
        };
        let mut progress = Progress::Unheard;
        let result = match self.converse(&asks, mail.first_word, &mut progress, &mut ledger, deadline).await {
            Ok(()) if progress == Progress::WantsData => self.finish(mail, &mut ledger, deadline).await,
            other => other,
        };
        if let Err(reason) = result {
            if reused && progress == Progress::Unheard && reason.cause != Cause::TimedOut {
                self.mark_unsound();
                return Transacted::Unheard;
            }
            ledger.settle_rest(&judge(reason, self.options.slow_down));
        }
        Transacted::Settled(ledger.into_outcomes(|| {
            self.reason(Step::Data, Cause::Network("the server did not take the message".to_owned()))
        }))
    }

    /// Every command with its line, in order; empty if nobody is left to ask for.
    fn plan(&self, mail: &Mail<'_>, ledger: &mut Ledger) -> Result<Vec<(Ask, Line)>, Outcome> {
        let upstream = &self.options.name;
        let mail_line = mail_line(mail, &self.extensions, upstream, ledger)?;
        let mut asks = Vec::with_capacity(mail.recipients.len() + 3);
        if self.in_transaction {
            asks.push((Ask::Rset, Line::fixed("RSET")));
        }
        asks.push((Ask::Mail, mail_line));
        let before = asks.len();
        for at in ledger.open() {
            asks.push((Ask::Rcpt(at), rcpt_line(&mail.recipients[at], upstream)?));
        }
        if asks.len() == before {
            return Ok(Vec::new());
        }
        asks.push((Ask::Data, Line::fixed("DATA")));
        Ok(asks)
    }

    /// Up to the reply to DATA.
    async fn converse(
        &mut self,
        asks: &[(Ask, Line)],
        first_word: Option<Duration>,
        progress: &mut Progress,
        ledger: &mut Ledger,
        deadline: Deadline,
    ) -> Result<(), Reason> {
        let group = if self.extensions.pipelining { GROUP } else { 1 };
        for asks in asks.chunks(group) {
            let only_data = matches!(asks, [(Ask::Data, _)]);
            if *progress == Progress::Refused || (only_data && !ledger.has_accepted()) {
                break;
            }
            let mut commands = Vec::new();
            for (_, line) in asks {
                self.say(line);
                commands.extend_from_slice(line.as_bytes());
            }
            self.write_commands(asks, &commands, deadline).await?;
            for (ask, _) in asks {
                let patience = first_word.filter(|_| *progress == Progress::Unheard);
                let deadline = patience.map_or(deadline, |patience| deadline.capped(patience));
                let reply = self.reply(ask.step(), deadline).await?;
                self.hear(*ask, reply, progress, ledger)?;
            }
        }
        Ok(())
    }

    async fn write_commands(
        &mut self,
        asks: &[(Ask, Line)],
        commands: &[u8],
        deadline: Deadline,
    ) -> Result<(), Reason> {
        let step = asks.first().map_or(Step::Mail, |(ask, _)| ask.step());
        self.write(step, commands, deadline).await
    }

    fn hear(&mut self, ask: Ask, reply: Reply, progress: &mut Progress, ledger: &mut Ledger) -> Result<(), Reason> {
        let step = ask.step();
        let verdict = meaning(step, &reply, self.options.slow_down);
        let (code, is_last) = (reply.code(), reply.code() == 421 || is_goodbye(&reply));
        let reason = || self.reason(step, Cause::Reply(reply));
        // The connection is as good as closed, whatever was asked.
        if is_last {
            return Err(reason());
        }
        match ask {
            Ask::Rset if verdict != Meaning::Accepted => return Err(reason()),
            Ask::Rset => self.in_transaction = false,
            Ask::Mail if verdict == Meaning::Accepted => {
                (*progress, self.in_transaction) = (Progress::Begun, true);
            }
            Ask::Mail => {
                *progress = Progress::Refused;
                ledger.settle_rest(&judge(reason(), self.options.slow_down));
            }
            // Pipelined behind a refused MAIL. A server that likes them now is not to be trusted with a dot.
            Ask::Rcpt(_) | Ask::Data if *progress == Progress::Refused => {
                if code < 400 {
                    self.mark_unsound();
                }
            }
            Ask::Rcpt(at) if verdict == Meaning::Accepted => ledger.accept(at),
            Ask::Rcpt(at) => ledger.settle(at, judge(reason(), self.options.slow_down)),
            Ask::Data if verdict == Meaning::Accepted => *progress = Progress::WantsData,
            Ask::Data if ledger.has_accepted() => return Err(reason()),
            Ask::Data => {}
        }
        Ok(())
    }

    /// After the 354.
    async fn finish(&mut self, mail: &Mail<'_>, ledger: &mut Ledger, deadline: Deadline) -> Result<(), Reason> {
        if !ledger.has_accepted() {
            // Everyone is settled; the answer to an empty message changes nothing.
            let _ignored = self.no_data(deadline.capped(self.options.command_timeout)).await;
            return Ok(());
        }
        let reply = self.data(mail.sealed, deadline).await?;
        let reply = self.expect(Step::EndOfData, reply)?;
        ledger.deliver(&reply);
        Ok(())
    }
}

impl Ask {
    fn step(self) -> Step {
        match self {
            // An RSET belongs to the MAIL behind it.
            Self::Rset | Self::Mail => Step::Mail,
            Self::Rcpt(_) => Step::Rcpt,
            Self::Data => Step::Data,
        }
    }
}
