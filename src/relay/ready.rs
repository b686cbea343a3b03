//! `Ready`: one connection, lent to a caller for one message, with what the account's rates allow for it. Dropping it gives
//! both back; a surprise closes the connection.
//! Exists only after TLS, EHLO and login; a message is handed to it whole, as `Sealed`.

use super::deadline::Deadline;
use super::health::Attempt;
use super::limits::Token;
use super::smtp::{Mail, Transacted};
use super::upstream::{Connection, Upstream};
use crate::dkim::Sealed;
use crate::message::{Envelope, Outcome};
use crate::smtp::{Extensions, Mailbox};
use std::time::Duration;

/// Encrypted, verified, greeted and logged in.
#[derive(Debug)]
pub struct Ready {
    upstream: Upstream,
    /// As of the moment it was lent.
    extensions: Extensions,
    tls_version: &'static str,
    reused: bool,
    /// Told what became of the message; ends before its token does.
    attempt: Attempt,
    token: Token,
    /// How long the server may take for its first word, where that is less than usual.
    first_word: Option<Duration>,
    /// `None` only inside `send` and `drop`.
    connection: Option<Connection>,
}

/// What came of [`Ready::send`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// One per recipient, in order.
    Outcomes(Vec<Outcome>),
    /// A reused connection turned out dead before the server said a word: nothing of the message was sent. To be tried
    /// again with `Reuse::Fresh`.
    Stale,
}

impl Ready {
    pub(super) fn new(
        upstream: Upstream,
        connection: Connection,
        attempt: Attempt,
        token: Token,
        first_word: Option<Duration>,
    ) -> Self {
        Self {
            upstream,
            attempt,
            token,
            first_word,
            extensions: connection.session.extensions().clone(),
            tls_version: connection.session.tls_version(),
            reused: connection.messages > 0,
            connection: Some(connection),
        }
    }

    /// What the server offers after TLS and login.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// "TLSv1.2" or "TLSv1.3".
    pub fn tls_version(&self) -> &'static str {
        self.tls_version
    }

    /// The upstream's name.
    pub fn upstream(&self) -> &str {
        self.upstream.name()
    }

    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// `recipients`: those of the envelope's that are still to be served. Dropping the future closes the connection.
    pub async fn send(
        mut self,
        envelope: &Envelope,
        recipients: &[Mailbox],
        sealed: &Sealed,
        deadline: Deadline,
    ) -> Sent {
        let Some(mut connection) = self.connection.take() else { return Sent::Stale };
        connection.messages += 1;
        self.token.begin();
        let mail = Mail { envelope, recipients, sealed, first_word: self.first_word };
        let transacted = connection.session.transact(&mail, self.reused, deadline).await;
        self.upstream.put_back(connection);
        match transacted {
            Transacted::Settled(outcomes) => {
                self.upstream.told(&mut self.attempt, &outcomes);
                Sent::Outcomes(outcomes)
            }
            Transacted::Unheard => {
                self.token.take_back();
                Sent::Stale
            }
        }
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.upstream.put_back(connection);
        }
    }
}
