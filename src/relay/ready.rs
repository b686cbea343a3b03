//! `Ready`: one connection, lent to a caller for one message. Dropping it gives it back; a surprise closes it.
//! Exists only after TLS, EHLO and login; a message is handed to it whole, as `Sealed`.

use super::deadline::Deadline;
use super::smtp::{Mail, Transacted};
use super::upstream::{Connection, Upstream};
use crate::dkim::Sealed;
use crate::message::{Envelope, Outcome};
use crate::smtp::{Extensions, Mailbox};

/// Encrypted, verified, greeted and logged in.
#[derive(Debug)]
pub struct Ready {
    upstream: Upstream,
    /// As of the moment it was lent.
    extensions: Extensions,
    tls_version: &'static str,
    reused: bool,
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
    pub(super) fn new(upstream: Upstream, connection: Connection) -> Self {
        Self {
            upstream,
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
        let mail = Mail { envelope, recipients, sealed };
        let transacted = connection.session.transact(&mail, self.reused, deadline).await;
        self.upstream.put_back(connection);
        match transacted {
            Transacted::Settled(outcomes) => Sent::Outcomes(outcomes),
            Transacted::Unheard => Sent::Stale,
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
