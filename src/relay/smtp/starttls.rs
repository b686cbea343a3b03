//! Where STARTTLS is enforced: the only two functions that return a `ClientSession<Secured>`.
//!
//! Everything learned before TLS is discarded, and anything that the server sent after its 220 is an attack
//! (CVE-2021-38371): the connection is closed before a byte of TLS. RFC 3207 §4.2, §6; RFC 8314 §3.3.

use super::line::{CommandLine, Opening};
use super::opening::OpeningNotes;
use super::session::{Channel, Cleartext, ClientSession};
use crate::message::outcome::{Cause, Reason, RelayStep};
use crate::relay::deadline::{Deadline, Expired};
use crate::relay::socket::{ConnectionPermit, Socket};
use crate::relay::{TlsMode, UpstreamOptions};
use crate::smtp::EnhancedCode;
use crate::text::host_and_port;
use crate::tls::{self, ClientSide, ServerCertificate};
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::debug;

/// Encrypted, and the peer's certificate names the expected server. Made only in this file.
#[derive(Debug)]
pub(in crate::relay) struct Secured(Box<TlsStream<Socket>>);

impl Secured {
    pub(super) fn permit(&self) -> &ConnectionPermit {
        self.0.get_ref().0.permit()
    }

    /// The server's own certificate, DER.
    pub(super) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.0.get_ref().1.peer_certificates()?.first()
    }

    pub(super) fn into_socket(self) -> Socket {
        (*self.0).into_inner().0
    }

    pub(super) fn version(&self) -> &'static str {
        match self.0.get_ref().1.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        }
    }
}

impl Channel for Secured {
    type Stream = TlsStream<Socket>;
    type Command = CommandLine;

    fn stream(&mut self) -> &mut TlsStream<Socket> {
        &mut self.0
    }
}

/// STARTTLS on a session after EHLO. The caller sends EHLO again.
pub(super) async fn upgrade(
    mut session: ClientSession<Cleartext>,
    deadline: Deadline,
    notes: &mut OpeningNotes,
) -> Result<ClientSession<Secured>, Reason> {
    if !session.extensions.starttls {
        let enhanced = EnhancedCode::new(4, 7, 10);
        let text = "the server does not offer STARTTLS, so nothing was sent".to_owned();
        return Err(session.reason(RelayStep::StartTls, Cause::Local { enhanced, text }).with_advice(
            "check `host` and `port` (STARTTLS is usually on 587, 2525 or 25; 465 needs tls = \"implicit\"); a firewall \
             that inspects SMTP may have removed the keyword",
        ));
    }
    let reply = session.command(RelayStep::StartTls, Opening::StartTls, deadline).await?;
    session.expect(RelayStep::StartTls, reply)?;
    let options = Arc::clone(&session.options);
    let Some(socket) = session.into_socket() else {
        let text = "the server sent more in clear behind its answer to STARTTLS, as an attacker on the way would; \
                    the connection was closed";
        return Err(Reason::new(Some(&options.name), RelayStep::StartTls, Cause::Network(text.to_owned())));
    };
    handshake(socket, &options, TlsMode::StartTls, deadline, notes).await
}

/// TLS from the start of the connection.
pub(super) async fn implicit(
    socket: Socket,
    options: &Arc<UpstreamOptions>,
    deadline: Deadline,
    notes: &mut OpeningNotes,
) -> Result<ClientSession<Secured>, Reason> {
    handshake(socket, options, TlsMode::Implicit, deadline, notes).await
}

async fn handshake(
    socket: Socket,
    options: &Arc<UpstreamOptions>,
    tls: TlsMode,
    deadline: Deadline,
    notes: &mut OpeningNotes,
) -> Result<ClientSession<Secured>, Reason> {
    let port = socket.peer_port().unwrap_or(options.endpoint.port);
    let connector = TlsConnector::from(Arc::clone(&options.endpoint.tls_config));
    let connect = tls::noting_request(connector.connect(options.endpoint.server_name.clone(), socket));
    let reason = |cause| Reason::new(Some(&options.name), RelayStep::TlsHandshake, cause);
    notes.began_tls = true;
    match deadline.capped(options.limits.connect_timeout).limit(connect).await {
        Ok((Ok(stream), was_asked)) => {
            let secured = Secured(Box::new(stream));
            notes.tls_version = Some(secured.version());
            if notes.wants_certificate {
                notes.certificate = secured.certificate().and_then(ServerCertificate::of);
            }
            debug!(upstream = %options.name, "{} with {}", secured.version(), options.endpoint.server_name.to_str());
            let mut session = ClientSession::new(secured, options);
            session.was_asked_for_certificate = was_asked;
            Ok(session)
        }
        Ok((Err(error), was_asked)) => {
            let client = ClientSide { was_asked, certificate: options.endpoint.client_certificate.as_ref() };
            notes.tls_fault = Some(tls::fault(&error));
            let inspect = inspect(options, port, tls);
            let (text, advice) = tls::explain(&error, &options.endpoint.server_name, &inspect, client);
            // Both contain names from the server's certificate.
            let reason = reason(Cause::Network(options.redaction.hide(&text)));
            Err(match advice {
                Some(advice) => reason.with_advice(options.redaction.hide(&advice)),
                None => reason,
            })
        }
        Err(Expired) => Err(reason(Cause::TimedOut)),
    }
}

/// What shows the certificates of the server at the port that was connected to.
fn inspect(options: &UpstreamOptions, port: u16, tls: TlsMode) -> String {
    let starttls = if tls == TlsMode::StartTls { "-starttls smtp " } else { "" };
    format!("openssl s_client {starttls}-showcerts -connect {}", host_and_port(&options.endpoint.host, port))
}
