//! The outcome for each recipient, and the one table ([`REPLIES`]) that says what a provider's reply means for the
//! mail, for the connection and for the upstream's breaker. No other file decides by a provider's code.
//!
//! A reply before MAIL is about the upstream, never about the mail: a rotated password or an expired certificate defers
//! and never fails a message. RFC 5321 §4.2.1, §4.5.3.1.10.

use crate::smtp::{EnhancedCode, Reply};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The step of the dialogue with a provider.
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
    /// Before any upstream was tried: sealing, policy, adapting.
    Local,
}

impl RelayStep {
    /// In the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::Permit,
        Self::Resolve,
        Self::Connect,
        Self::Greeting,
        Self::Ehlo,
        Self::StartTls,
        Self::TlsHandshake,
        Self::Auth,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::EndOfData,
        Self::Local,
    ];

    /// One word, for programs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Greeting => "greeting",
            Self::Ehlo => "ehlo",
            Self::StartTls => "starttls",
            Self::TlsHandshake => "tls",
            Self::Auth => "auth",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Data => "data",
            Self::EndOfData => "end_of_data",
            Self::Local => "local",
        }
    }
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

/// What went wrong, in the provider's words if it said anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    Reply(Reply),
    /// No reply within the deadline.
    TimedOut,
    /// The connection broke, could not be established, or was not verified; the text gives the details.
    Network(String),
    /// The gateway's own reason, with a matching enhanced code.
    Local {
        enhanced: EnhancedCode,
        text: String,
    },
    /// The upstream is paused, or one of its limits is used up, so it was not tried.
    Unavailable(Box<Unavailable>),
    /// The gateway is stopping, and this attempt had not begun.
    Stopping,
}

/// Why an upstream was not tried, and when it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    pub text: String,
    pub wait: Duration,
    /// For how long it has accepted nothing; zero if only a limit is used up.
    pub lasting: Duration,
}

/// Why a recipient was not delivered, complete enough to be understood on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Name of the upstream, if one was tried.
    pub upstream: Option<String>,
    pub step: RelayStep,
    pub cause: Cause,
    /// What the reader can do about it, if that is known.
    pub advice: Option<String>,
    /// The final dot was sent and no answer came back, so the provider may have the message.
    pub possible_duplicate: bool,
    /// The reply is about the upstream, by the table ([`Meaning::UpstreamDeferred`]) or by a preset's pattern.
    pub upstream_wide: bool,
    /// The replies of upstreams that were tried earlier, in order.
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

    /// The gateway itself cannot or will not continue; `upstream`: with this one only.
    pub fn local(upstream: Option<&str>, enhanced: EnhancedCode, text: String) -> Self {
        Self::new(upstream, RelayStep::Local, Cause::Local { enhanced, text })
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
            Cause::Reply(reply) => interpret(self.step, reply, &[]).meaning == Meaning::UpstreamDeferred,
        }
    }

    /// Too many recipients for one transaction: another transaction may accept this recipient now.
    pub fn wants_next_transaction(&self) -> bool {
        self.reply().is_some_and(|reply| interpret(self.step, reply, &[]).next_transaction)
    }

    /// What this attempt says about the upstream. `slow_down`: the preset's patterns.
    pub fn signal(&self, slow_down: &[SlowDown]) -> Signal {
        match &self.cause {
            Cause::Stopping | Cause::Unavailable(_) => Signal::None,
            // Our own connection limit, unless the upstream caused it.
            Cause::Local { .. } if self.step == RelayStep::Permit && !self.upstream_wide => Signal::None,
            Cause::Local { .. } if self.step == RelayStep::Local => Signal::None,
            Cause::Reply(reply) => match interpret(self.step, reply, slow_down).signal {
                Signal::Success if self.upstream_wide => Signal::Unavailable,
                signal => signal,
            },
            Cause::TimedOut | Cause::Network(_) if self.step >= RelayStep::Mail => Signal::Broken,
            _ if self.is_about_upstream() => Signal::Unavailable,
            _ => Signal::Success,
        }
    }

    /// The upstream was not tried, because it cannot carry this message (too large, not in ASCII); another one may.
    pub fn is_beyond_upstream(&self) -> bool {
        self.step == RelayStep::Local && self.upstream.is_some()
    }

    /// No upstream was tried, so the mail is as it was before.
    pub fn is_untried(&self) -> bool {
        matches!(self.cause, Cause::Unavailable(_) | Cause::Stopping) && self.before.is_empty()
    }

    /// For where the upstream is named already.
    pub fn without_upstream(&self) -> String {
        Self { upstream: None, ..self.clone() }.to_string()
    }

    /// The provider's enhanced code, or the one of a reason of our own.
    pub fn enhanced(&self) -> Option<EnhancedCode> {
        match &self.cause {
            Cause::Reply(reply) => reply.enhanced(),
            Cause::Local { enhanced, .. } => Some(*enhanced),
            _ => None,
        }
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

/// The result per recipient. Permanence is never a bool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With the provider's reply to the final dot.
    Delivered(Reply),
    Deferred(Reason),
    Failed(Reason),
}

impl Outcome {
    /// The table decides about a reason that is a reply; any other reason may go away by the next attempt.
    pub fn of(reason: Reason, slow_down: &[SlowDown]) -> Self {
        match reason.reply().map(|reply| interpret(reason.step, reply, slow_down).meaning) {
            Some(Meaning::RecipientFailed | Meaning::MessageFailed) => Self::Failed(reason),
            Some(Meaning::UpstreamDeferred) => Self::Deferred(reason.upstream_wide()),
            _ => Self::Deferred(reason),
        }
    }

    /// For an upstream without a login whose server offers AUTH, or asked for a client certificate: a refusal that asks for
    /// either concerns the upstream, so the mail waits. `was_served`: the server has accepted such mail, so the code alone
    /// proves nothing. `advice`: what to set.
    #[must_use]
    pub fn deferred_without_login(self, was_served: bool, advice: &str) -> Self {
        match self {
            Self::Deferred(reason) | Self::Failed(reason)
                if reason.reply().is_some_and(|reply| wants_login(reason.step, reply, was_served)) =>
            {
                Self::Deferred(reason.upstream_wide().with_advice(advice))
            }
            outcome => outcome,
        }
    }

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

/// What a reply means, and how much of the mail it affects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The step succeeded.
    Accepted,
    RecipientDeferred,
    RecipientFailed,
    /// Affects all recipients that are not settled yet.
    MessageDeferred,
    MessageFailed,
    /// Affects all mail for this upstream; the message is not at fault.
    UpstreamDeferred,
}

/// What happens to the connection after a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// It can carry the next command.
    Kept,
    /// Replies to commands that were already sent are read, but no further message is sent over it.
    Spent,
    /// The server closes it: no further reply is expected.
    Closed,
}

/// What an attempt says about the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// It accepted or judged the message.
    Success,
    /// It could not be reached, or refused service.
    Unavailable,
    /// The connection broke during the message: once may be a coincidence, twice in a row is the upstream's fault.
    Broken,
    /// It asks for a slower pace.
    SlowDown,
    /// Nothing: the attempt ended before the upstream was tried.
    None,
}

/// Everything that follows from a reply at its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interpretation {
    pub meaning: Meaning,
    pub connection: ConnectionState,
    pub signal: Signal,
    /// Too many recipients for one transaction; the others need another one, now. RFC 5321 §4.5.3.1.10.
    pub next_transaction: bool,
    /// It does not say whether the message was accepted, so the provider may have it.
    pub leaves_open: bool,
    /// What the reader of the log can do about it.
    pub advice: Option<&'static str>,
}

/// Matches replies at these steps with these codes.
struct ReplyRow {
    /// Empty: every step.
    steps: &'static [RelayStep],
    codes: RangeInclusive<u16>,
    read_as: Interpretation,
}

const fn row(
    steps: &'static [RelayStep],
    codes: RangeInclusive<u16>,
    meaning: Meaning,
    connection: ConnectionState,
    signal: Signal,
) -> ReplyRow {
    let read_as =
        Interpretation { meaning, connection, signal, next_transaction: false, leaves_open: false, advice: None };
    ReplyRow { steps, codes, read_as }
}

impl ReplyRow {
    const fn next_transaction(mut self) -> Self {
        self.read_as.next_transaction = true;
        self
    }

    const fn leaves_open(mut self) -> Self {
        self.read_as.leaves_open = true;
        self
    }

    const fn advice(mut self, advice: &'static str) -> Self {
        self.read_as.advice = Some(advice);
        self
    }
}

/// What to set where a server refuses a client that it does not know.
pub const MISSING_CERTIFICATE: &str = "this upstream has no client certificate: set its `certificate` and `private_key` (in the \
     environment WAXSEAL_CLIENT_CERTIFICATE and WAXSEAL_CLIENT_PRIVATE_KEY)";

pub const MISSING_LOGIN: &str = "the server offers AUTH, and this upstream has no login: set its `username` and `password` \
     (in the environment SMTP_USER_NAME and SMTP_USER_PWD)";

/// Phrases of refusals that ask for a login or a certificate, from Postfix, Exim, Exchange and others; in lower case.
const LOGIN_WORDS: [&str; 7] = ["authenticat", "auth required", "smtp auth", "relay", "log in", "login", "certificate"];

/// Whether this refusal may mean that the client should have said who it is, at a server that can learn that. RFC 4954 §6
/// defines 530 for a missing login, but most servers use other codes. RFC 3463 §3.8: X.7.X, security or policy.
fn wants_login(step: RelayStep, reply: &Reply, was_served: bool) -> bool {
    let is_policy = reply.enhanced().map(|enhanced| enhanced.subject == 7);
    let by_code = match reply.code() {
        530 | 535 | 538 => true,
        554 => !was_served && is_policy != Some(false),
        500..=599 => !was_served && is_policy == Some(true),
        _ => false,
    };
    let text = reply.text().to_lowercase();
    let by_words = reply.code() >= 400 && LOGIN_WORDS.iter().any(|words| text.contains(words));
    step >= RelayStep::Mail && step <= RelayStep::EndOfData && (by_code || by_words)
}

const LOGIN_ADVICE: &str = "check `username` and `password`; some providers want an API key or an app password here";

/// The one table: the first row that matches applies. To change what a reply means, change its row; to change it for one
/// step only, add a row for that step above the row for all steps.
#[rustfmt::skip]
const REPLIES: &[ReplyRow] = {
    use {ConnectionState::*, Meaning::*, RelayStep::*, Signal::*};
    &[
        // RFC 5321 §3.8: the server closes, whichever command it answers.
        row(&[],                   421..=421, UpstreamDeferred,  Closed, SlowDown),
        // A 221 without a QUIT answers no command, and certainly not a message. RFC 5321 §4.2.3.
        row(&[EndOfData],          221..=221, UpstreamDeferred,  Closed, Unavailable).leaves_open(),
        row(&[],                   221..=221, UpstreamDeferred,  Closed, Unavailable),
        row(&[Auth],               535..=535, UpstreamDeferred,  Spent,  Unavailable).advice(LOGIN_ADVICE),
        row(&[Auth],               534..=534, UpstreamDeferred,  Kept,   Unavailable).advice(LOGIN_ADVICE),
        // "Authentication required", "credentials invalid": about us, not about the mail.
        row(&[],                   530..=530, UpstreamDeferred,  Spent,  Unavailable),
        row(&[],                   535..=535, UpstreamDeferred,  Spent,  Unavailable),

        row(&[Greeting, StartTls], 220..=220, Accepted,          Kept,   Success),
        row(&[Auth],               235..=235, Accepted,          Kept,   Success),
        row(&[Data],               354..=354, Accepted,          Kept,   Success),
        row(&[Ehlo, Mail, Rcpt],   200..=299, Accepted,          Kept,   Success),
        row(&[EndOfData],          200..=299, Accepted,          Kept,   Success),

        // "Go on" where nothing can follow: the two sides are out of step.
        row(&[Mail],               300..=399, MessageDeferred,   Spent,  Success),
        row(&[Rcpt],               300..=399, RecipientDeferred, Spent,  Success),
        row(&[EndOfData],          300..=399, MessageDeferred,   Spent,  Success).leaves_open(),
        row(&[Auth],               300..=399, UpstreamDeferred,  Kept,   Unavailable),
        row(&[Data],               300..=399, MessageDeferred,   Kept,   Success),
        row(&[],                   300..=399, UpstreamDeferred,  Spent,  Unavailable),

        // RFC 5321 §4.5.3.1.10: 552 was the old code for 452, "too many recipients".
        row(&[Rcpt],               452..=452, RecipientDeferred, Kept,   Success).next_transaction(),
        row(&[Rcpt],               552..=552, RecipientDeferred, Kept,   Success).next_transaction(),
        row(&[Rcpt],               500..=599, RecipientFailed,   Kept,   Success),
        row(&[Rcpt],               200..=499, RecipientDeferred, Kept,   Success),
        row(&[Mail, Data, EndOfData], 500..=599, MessageFailed,  Kept,   Success),
        row(&[Mail, Data, EndOfData], 200..=499, MessageDeferred, Kept,  Success),
    ]
};

/// In every other case: before MAIL, no reply is about the mail.
const OTHERWISE: ReplyRow =
    row(&[], 0..=u16::MAX, Meaning::UpstreamDeferred, ConnectionState::Kept, Signal::Unavailable);

/// What `reply` means at `step`. `slow_down`: the preset's patterns, which make a refusal a request for patience.
pub fn interpret(step: RelayStep, reply: &Reply, slow_down: &[SlowDown]) -> Interpretation {
    let fits =
        |row: &&ReplyRow| (row.steps.is_empty() || row.steps.contains(&step)) && row.codes.contains(&reply.code());
    let read_as = REPLIES.iter().find(fits).map_or(OTHERWISE.read_as, |row| row.read_as);
    if read_as.meaning != Meaning::Accepted && slow_down.iter().any(|pattern| pattern.matches(reply)) {
        return Interpretation { meaning: Meaning::UpstreamDeferred, signal: Signal::SlowDown, ..read_as };
    }
    read_as
}

/// A reply by which a provider asks for a slower pace, although its code may mean "permanent" (Gmail's `550 5.4.5`).
/// Provided by a preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowDown {
    pub code: u16,
    /// Prefix of enhanced code and text; empty matches every reply with this code.
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

#[cfg(test)]
mod tests;
