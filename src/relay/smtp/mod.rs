//! The SMTP client. A session is `Cleartext` or `Secured`; only a secured one can log in or carry mail.
//!
//! `session` reads and writes, `starttls` turns plain into secured, `auth` logs in, `transaction` carries a message.
//! After an unexpected event (a reply that ends the connection, a malformed one, an expired deadline) a session is
//! unsound and must be closed. RFC 5321, 3207, 8314, 4954, 2920.

mod auth;
mod data;
mod line;
mod needs;
mod opening;
mod recipients;
mod sender_check;
mod session;
mod starttls;
mod transaction;

pub(super) use auth::check as check_credentials;
pub use opening::OpeningNotes;
pub(super) use session::ClientSession;
pub(super) use starttls::Secured;
pub(super) use transaction::Transacted;

use super::deadline::Deadline;
use super::socket::Socket;
use super::{TlsMode, UpstreamOptions};
use crate::dkim::Sealed;
use crate::message::Envelope;
use crate::message::outcome::Reason;
use crate::smtp::Mailbox;
use std::sync::Arc;
use std::time::Duration;

/// What one transaction carries.
#[derive(Debug, Clone, Copy)]
pub(in crate::relay) struct Mail<'a> {
    pub envelope: &'a Envelope,
    /// The envelope's recipients for this transaction.
    pub recipients: &'a [Mailbox],
    pub sealed: &'a Sealed,
    /// How long the server may take for its first reply, if that is less than usual.
    pub first_reply_timeout: Option<Duration>,
}

/// From a TCP connection to one that is verified, encrypted, greeted and logged in. `notes`: how far it came, whatever the
/// result.
pub(super) async fn open(
    socket: Socket,
    tls: TlsMode,
    options: &Arc<UpstreamOptions>,
    deadline: Deadline,
    notes: &mut OpeningNotes,
) -> Result<ClientSession<Secured>, Reason> {
    let mut session = match tls {
        TlsMode::Implicit => starttls::implicit(socket, options, deadline, notes).await?,
        TlsMode::StartTls => {
            let mut session = ClientSession::plain(socket, options);
            notes.greeting = Some(session.greeting(deadline).await?);
            session.ehlo(deadline).await?;
            notes.was_introduced = true;
            starttls::upgrade(session, deadline, notes).await?
        }
    };
    if let Err(reason) = introduce(&mut session, tls, deadline, notes).await {
        return Err(session.with_certificate_advice(reason));
    }
    notes.extensions = Some(session.extensions().clone());
    session.log_in(deadline).await?;
    Ok(session)
}

/// Inside TLS.
async fn introduce(
    session: &mut ClientSession<Secured>,
    tls: TlsMode,
    deadline: Deadline,
    notes: &mut OpeningNotes,
) -> Result<(), Reason> {
    if tls == TlsMode::Implicit {
        notes.greeting = Some(session.greeting(deadline).await?);
    }
    session.ehlo(deadline).await
}
