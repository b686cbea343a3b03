//! What became of each recipient, and the one table that says what a provider's reply means for the mail.
//!
//! A reply before MAIL is about the upstream, never about the mail: a rotated password or an expired certificate defers
//! and never fails a message. RFC 5321 §4.2.1, §4.5.3.1.10.

use crate::smtp::Reply;
use crate::smtp::reply::Severity;
use std::fmt;
use std::time::Duration;

/// Where in the dialogue with a provider something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RelayStep {
    /// Waiting for the upstream's limits, or for the upstream to recover.
    Permit,
    /// Looking up the host's addresses.
    Resolve,
    Connect,
    Greeting,
    Ehlo,
    StartTls,
    TlsHandshake,
    Auth,
    Mail,
    Rcpt,
    Data,
    /// The final dot: from here on the provider may have the message.
    EndOfData,
    /// Before any upstream was asked: sealing, policy, adapting.
    Local,
}

impl fmt::Display for RelayStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Permit => "waiting for capacity",
            Self::Resolve => "name lookup",
            Self::Connect => "connect",
            Self::Greeting => "greeting",
            Self::Ehlo => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::TlsHandshake => "TLS handshake",
            Self::Auth => "AUTH",
            Self::Mail => "MAIL FROM",
            Self::Rcpt => "RCPT TO",
            Self::Data => "DATA",
            Self::EndOfData => "final dot",
            Self::Local => "gateway",
        })
    }
}

/// What went wrong, in the provider's words where it said any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    Reply(Reply),
    /// No reply within the deadline.
    TimedOut,
    /// The connection broke, could not be made, or did not verify; the text says how.
    Network(String),
    /// A reason of the gateway's own, with the enhanced code that fits it.
    Local {
        enhanced: crate::smtp::EnhancedCode,
        text: String,
    },
    /// The upstream is paused, or one of its limits is used up: it was not asked.
    Unavailable(Box<Unavailable>),
    /// The gateway is stopping, and this had not begun.
    Stopping,
}

/// Why an upstream was not asked, and after how long it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    pub text: String,
    pub wait: Duration,
    /// For how long without a break nothing was taken; zero while only a limit is used up.
    pub lasting: Duration,
}

/// Why a recipient was not delivered, complete enough to be understood alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Name of the upstream, if one was asked.
    pub upstream: Option<String>,
    pub step: RelayStep,
    pub cause: Cause,
    /// What the reader can do about it, if something is known.
    pub advice: Option<String>,
    /// The final dot went out and no answer came back: the provider may have the message.
    pub possible_duplicate: bool,
    /// The table says that the reply is about the upstream ([`Meaning::UpstreamDeferred`]), whatever its step and code.
    pub upstream_wide: bool,
    /// The replies of upstreams that were asked earlier, in order.
    pub before: Vec<String>,
}

impl Reason {
    pub fn new(upstream: Option<&str>, step: RelayStep, cause: Cause) -> Self {
        let upstream = upstream.map(str::to_owned);
        Self {
            upstream,
            step,
            cause,
            advice: None,
            possible_duplicate: false,
            upstream_wide: false,
            before: Vec::new(),
        }
    }

    pub fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    pub fn maybe_delivered(mut self) -> Self {
        self.possible_duplicate = true;
        self
    }

    pub fn upstream_wide(mut self) -> Self {
        self.upstream_wide = true;
        self
    }

    /// The upstream is at fault, not this message: another upstream may accept it at once.
    pub fn is_about_upstream(&self) -> bool {
        if self.upstream_wide {
            return true;
        }
        match &self.cause {
            Cause::Local { .. } => self.step < RelayStep::Mail,
            Cause::Stopping => false,
            Cause::TimedOut | Cause::Network(_) | Cause::Unavailable(_) => true,
            Cause::Reply(reply) => self.step < RelayStep::Mail || matches!(reply.code(), 421 | 530 | 535),
        }
    }

    /// The upstream was not asked, since it cannot carry this message (too large, not in ASCII): another one may.
    pub fn is_beyond_upstream(&self) -> bool {
        self.step == RelayStep::Local && self.upstream.is_some()
    }

    /// No upstream was asked: the mail is as it was before.
    pub fn is_untried(&self) -> bool {
        matches!(self.cause, Cause::Unavailable(_) | Cause::Stopping) && self.before.is_empty()
    }

    pub fn reply(&self) -> Option<&Reply> {
        match &self.cause {
            Cause::Reply(reply) => Some(reply),
            _ => None,
        }
    }
}

/// One line: `upstream "company", STARTTLS: 454 4.7.0 TLS not available; advice`.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(upstream) = &self.upstream {
            write!(f, "upstream \"{upstream}\", ")?;
        }
        write!(f, "{}: ", self.step)?;
        match &self.cause {
            Cause::Reply(reply) => write!(f, "{reply}")?,
            Cause::TimedOut => f.write_str("no answer in time")?,
            Cause::Stopping => f.write_str("the gateway is stopping; nothing was sent")?,
            Cause::Network(text) | Cause::Local { text, .. } => f.write_str(text)?,
            Cause::Unavailable(unavailable) => f.write_str(&unavailable.text)?,
        }
        if self.possible_duplicate {
            f.write_str("; the message may have been delivered all the same")?;
        }
        if let Some(advice) = &self.advice {
            write!(f, "; {advice}")?;
        }
        self.before.iter().rev().try_for_each(|before| write!(f, "; before that, {before}"))
    }
}

/// Per recipient. Permanence is never a bool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With the provider's reply to the final dot.
    Delivered(Reply),
    Deferred(Reason),
    Failed(Reason),
}

impl Outcome {
    /// Keeps what another upstream said `before`, so that the reason names all of them.
    #[must_use]
    pub fn after(mut self, before: Self) -> Self {
        if let (Self::Deferred(reason) | Self::Failed(reason), Self::Deferred(mut before) | Self::Failed(mut before)) =
            (&mut self, before)
        {
            reason.before = std::mem::take(&mut before.before);
            if before.upstream != reason.upstream {
                reason.before.push(before.to_string());
            }
        }
        self
    }
}

/// What a reply means, and for how much of the mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The step succeeded.
    Accepted,
    RecipientDeferred,
    RecipientFailed,
    /// All recipients not yet settled.
    MessageDeferred,
    MessageFailed,
    /// Everything for this upstream waits; the message is not at fault.
    UpstreamDeferred,
}

/// A reply by which a provider asks for a slower pace, although its code may say "permanent"
/// (Gmail's `550 5.4.5`). A preset's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowDown {
    pub code: u16,
    /// Beginning of enhanced code and text; empty matches every reply with this code.
    pub starts_with: &'static str,
}

impl SlowDown {
    fn matches(&self, reply: &Reply) -> bool {
        let text = match reply.enhanced() {
            Some(enhanced) => format!("{enhanced} {}", reply.text()),
            None => reply.text(),
        };
        reply.code() == self.code && text.starts_with(self.starts_with)
    }
}

/// A provider asks for a slower pace: 421, or one of the preset's patterns.
pub fn asks_for_patience(reply: &Reply, slow_down: &[SlowDown]) -> bool {
    reply.code() == 421 || slow_down.iter().any(|pattern| pattern.matches(reply))
}

/// 221: the server closes. Without a QUIT it answers no command, least of all a message. RFC 5321 §4.2.3.
pub fn is_goodbye(reply: &Reply) -> bool {
    reply.code() == 221
}

/// The one table. `slow_down`: the preset's patterns.
pub fn meaning(step: RelayStep, reply: &Reply, slow_down: &[SlowDown]) -> Meaning {
    use Meaning::*;
    let expected = match step {
        RelayStep::Greeting | RelayStep::StartTls => reply.code() == 220,
        RelayStep::Data => reply.code() == 354,
        RelayStep::Auth => reply.code() == 235,
        _ => reply.severity() == Severity::Completed && !is_goodbye(reply),
    };
    if expected {
        return Accepted;
    }
    if asks_for_patience(reply, slow_down) {
        return UpstreamDeferred;
    }
    match (step, reply.code()) {
        _ if is_goodbye(reply) => UpstreamDeferred,
        // "Authentication required", "credentials invalid": about us, not about the mail.
        (RelayStep::Mail | RelayStep::Rcpt | RelayStep::Data | RelayStep::EndOfData, 530 | 535) => UpstreamDeferred,
        // RFC 5321 §4.5.3.1.10: 552 was the old word for 452, "too many recipients".
        (RelayStep::Rcpt, 552) => RecipientDeferred,
        (RelayStep::Rcpt, 500..) => RecipientFailed,
        (RelayStep::Rcpt, _) => RecipientDeferred,
        (RelayStep::Mail | RelayStep::Data | RelayStep::EndOfData, 500..) => MessageFailed,
        (RelayStep::Mail | RelayStep::Data | RelayStep::EndOfData, _) => MessageDeferred,
        _ => UpstreamDeferred,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::ReplyParser;

    #[test]
    fn the_table_row_by_row() {
        use Meaning::*;
        let gmail = [SlowDown { code: 550, starts_with: "5.4.5" }];
        for (step, line, expected) in [
            (RelayStep::Greeting, "220 hello", Accepted),
            (RelayStep::Greeting, "554 go away", UpstreamDeferred),
            (RelayStep::Ehlo, "500 what", UpstreamDeferred),
            (RelayStep::Ehlo, "221 2.0.0 bye", UpstreamDeferred),
            (RelayStep::StartTls, "354 odd", UpstreamDeferred),
            (RelayStep::StartTls, "221 bye", UpstreamDeferred),
            (RelayStep::StartTls, "554 5.7.3 no", UpstreamDeferred),
            (RelayStep::Auth, "235 2.7.0 in", Accepted),
            (RelayStep::Auth, "535 5.7.8 wrong", UpstreamDeferred),
            (RelayStep::Mail, "250 ok", Accepted),
            (RelayStep::Mail, "451 4.3.0 later", MessageDeferred),
            (RelayStep::Mail, "550 5.7.1 sender not verified", MessageFailed),
            (RelayStep::Mail, "530 5.7.0 login first", UpstreamDeferred),
            (RelayStep::Mail, "421 4.7.0 bye", UpstreamDeferred),
            (RelayStep::Mail, "221 2.0.0 bye", UpstreamDeferred),
            (RelayStep::Rcpt, "250 ok", Accepted),
            (RelayStep::Rcpt, "251 forwarding", Accepted),
            (RelayStep::Rcpt, "550 5.1.1 unknown", RecipientFailed),
            (RelayStep::Rcpt, "450 4.2.1 later", RecipientDeferred),
            (RelayStep::Rcpt, "452 4.5.3 too many", RecipientDeferred),
            (RelayStep::Rcpt, "552 too many", RecipientDeferred),
            (RelayStep::Rcpt, "421 bye", UpstreamDeferred),
            (RelayStep::Rcpt, "221 2.0.0 bye", UpstreamDeferred),
            (RelayStep::Data, "354 go", Accepted),
            (RelayStep::Data, "250 odd", MessageDeferred),
            (RelayStep::Data, "221 2.0.0 bye", UpstreamDeferred),
            (RelayStep::Data, "554 5.5.1 no valid recipients", MessageFailed),
            (RelayStep::EndOfData, "250 2.0.0 queued", Accepted),
            (RelayStep::EndOfData, "354 odd", MessageDeferred),
            (RelayStep::EndOfData, "221 2.0.0 bye", UpstreamDeferred),
            (RelayStep::EndOfData, "451 4.7.1 greylisted", MessageDeferred),
            (RelayStep::EndOfData, "550 5.7.1 spam", MessageFailed),
            (RelayStep::EndOfData, "535 5.7.8 expired", UpstreamDeferred),
            (RelayStep::EndOfData, "550 5.4.5 daily limit", UpstreamDeferred),
        ] {
            let parsed = ReplyParser::default().parse(format!("{line}\r\n").as_bytes());
            let reply = parsed.expect("a reply").1.expect("a whole reply");
            assert_eq!(meaning(step, &reply, &gmail), expected, "{step}: {line}");
        }
    }

    #[test]
    fn the_last_word_tells_what_the_others_said_before() {
        let said = |upstream, step| Reason::new(Some(upstream), step, Cause::TimedOut);
        let (first, again) = (said("a", RelayStep::Connect), said("b", RelayStep::Rcpt));
        let (second, third) = (said("b", RelayStep::Mail), said("c", RelayStep::Auth));
        let outcome = Outcome::Deferred(second).after(Outcome::Failed(first));
        let outcome = Outcome::Deferred(again).after(outcome);
        let Outcome::Failed(reason) = Outcome::Failed(third).after(outcome) else { panic!("the last one decides") };
        assert_eq!(
            reason.to_string(),
            "upstream \"c\", AUTH: no answer in time; before that, upstream \"b\", RCPT TO: no answer in time; \
             before that, upstream \"a\", connect: no answer in time"
        );
    }
}
