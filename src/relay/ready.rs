//! `Ready`: one connection, checked out for one message, with the rate token for it. Dropping it returns both; after an
//! unexpected event the connection is closed. Exists only after TLS, EHLO and login; a message is passed to it whole,
//! as `Sealed`.

use super::connection::PooledConnection;
use super::deadline::Deadline;
use super::gate::RateToken;
use super::health::MonitoredAttempt;
use super::smtp::{Mail, Transacted};
use super::upstream::{CheckedOut, ConnectionRequest, Upstream};
use crate::dkim::Sealed;
use crate::message::{Envelope, Outcome, Reason};
use crate::smtp::{Extensions, Mailbox};
use std::time::Duration;

/// Encrypted, verified, greeted and logged in.
#[derive(Debug)]
pub struct Ready {
    upstream: Upstream,
    /// As offered when it was checked out.
    extensions: Extensions,
    tls_version: &'static str,
    reused: bool,
    /// Receives the result of the message; ends before its token does.
    attempt: MonitoredAttempt,
    token: RateToken,
    /// How long the server may take for its first reply, if that is less than usual.
    first_reply_timeout: Option<Duration>,
    /// `None` only inside `send` and `drop`.
    connection: Option<PooledConnection>,
}

/// The result of [`Ready::send`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// One per recipient, in order.
    Outcomes(Vec<Outcome>),
    /// A reused connection was dead before the server replied, so nothing of the message was sent. Retry with
    /// `Reuse::Fresh`.
    Stale,
}

impl Upstream {
    /// A connection that is encrypted, verified, greeted and logged in. Callers are served in order of arrival. They
    /// stop waiting when the upstream becomes unavailable.
    pub async fn ready(&self, wanted: ConnectionRequest) -> Result<Ready, Reason> {
        let CheckedOut { connection, attempt, token, first_reply_timeout } = self.check_out(wanted).await?;
        Ok(Ready {
            upstream: self.clone(),
            extensions: connection.session.extensions().clone(),
            tls_version: connection.session.tls_version(),
            reused: connection.messages > 0,
            attempt,
            token,
            first_reply_timeout,
            connection: Some(connection),
        })
    }
}

impl Ready {
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

    /// `recipients`: those of the envelope that are still to be served. Dropping the future closes the connection.
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
        let mail = Mail { envelope, recipients, sealed, first_reply_timeout: self.first_reply_timeout };
        let transacted = connection.session.transact(&mail, self.reused, deadline).await;
        let unknown_client = connection.session.unknown_client_advice();
        self.upstream.put_back(connection);
        match transacted {
            Transacted::Settled(outcomes) => {
                let outcomes = self.upstream.without_login(outcomes, unknown_client);
                self.upstream.finished(&mut self.attempt, &outcomes);
                Sent::Outcomes(outcomes)
            }
            Transacted::NotSent => {
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
