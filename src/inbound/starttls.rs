//! Enforces STARTTLS for clients: when it is offered, what it must precede, and that plain text sent before it is
//! never processed after it. RFC 3207; CVE-2011-0411.

use super::Tls;
use super::session::{Connected, Greeted, ServerSession, SessionAction, SessionStep};
use crate::smtp::Reply;
use std::sync::Arc;

/// `active` is the version of the current TLS connection.
pub(super) fn is_offered(tls: &Tls, active: Option<&str>) -> bool {
    matches!(tls, Tls::StartTls(_)) && active.is_none()
}

/// MAIL must wait for TLS. On every listener that offers STARTTLS it is required.
pub(super) fn is_required(tls: &Tls, active: Option<&str>) -> bool {
    !matches!(tls, Tls::Off) && active.is_none()
}

/// Logins cross the network in plain text only if the operator chose a listener without TLS.
pub(super) fn allows_auth(tls: &Tls, active: Option<&str>) -> bool {
    matches!(tls, Tls::Off) || active.is_some()
}

/// 220 is about to be sent; the handshake follows.
#[derive(Debug)]
pub struct Upgrade {
    greeted: Greeted,
    config: Arc<rustls::ServerConfig>,
}

/// Plain text was sent after STARTTLS, to be processed inside TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("plain text followed STARTTLS in the same segment: command injection, or a client that does not wait")]
pub struct InjectedPlaintext;

/// Proof that the buffer was empty when STARTTLS was read; TLS can begin only from this value.
#[derive(Debug)]
pub struct EmptyBuffer {
    upgrade: Upgrade,
}

impl Upgrade {
    pub(super) fn begin(greeted: Greeted) -> SessionStep {
        match &greeted.base.options.tls {
            _ if greeted.base.tls.is_some() => greeted.bad(Reply::tls_already_active()),
            Tls::StartTls(config) => {
                let config = Arc::clone(config);
                SessionStep::new(Reply::ready_for_tls(), SessionAction::StartTls(Self { greeted, config }))
            }
            Tls::Off | Tls::Implicit(_) => greeted.bad(Reply::no_starttls_here()),
        }
    }

    /// `buffered` is what was received after the command.
    pub fn check(self, buffered: &[u8]) -> Result<EmptyBuffer, InjectedPlaintext> {
        if buffered.is_empty() { Ok(EmptyBuffer { upgrade: self }) } else { Err(InjectedPlaintext) }
    }
}

impl EmptyBuffer {
    pub fn config(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.upgrade.config)
    }

    /// The handshake is done. RFC 3207 §4.2: everything that the client said before is discarded.
    pub fn secured(self, version: &'static str) -> ServerSession {
        let mut base = self.upgrade.greeted.base;
        base.tls = Some(version);
        ServerSession::Connected(Connected { base })
    }
}
