//! `UpstreamExamination`: everything that one upstream shows without a mail: a probe, and what follows from its result.
//! Plain data, so that a running gateway can make it under its own permits and send it through the control socket.

use super::deadline::Deadline;
use super::diagnosis::Diagnosis;
use super::upstream::{ProbeReport, Upstream};
use super::{Port, TlsMode};
use crate::observe::CheckId;
use crate::smtp::ReversePath;
use crate::tls::ServerCertificate;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;

/// Ports at which providers take submissions. RFC 6409 §3.1, RFC 8314 §3.3; 2525 and 2587 by custom.
pub const SUBMISSION_PORTS: [Port; 4] = [
    Port { number: 587, tls: TlsMode::StartTls },
    Port { number: 2525, tls: TlsMode::StartTls },
    Port { number: 2587, tls: TlsMode::StartTls },
    Port { number: 465, tls: TlsMode::Implicit },
];

/// For each other port.
const PORT_TIME: Duration = Duration::from_millis(1500);

/// What one upstream showed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamExamination {
    /// Where a connection was made.
    pub port: Option<Port>,
    pub peer: Option<SocketAddr>,
    /// This machine's side.
    pub local: Option<SocketAddr>,
    pub greeting: Option<String>,
    /// "TLSv1.2" or "TLSv1.3".
    pub tls_version: Option<String>,
    pub certificate: Option<ServerCertificate>,
    /// As EHLO offers them inside TLS.
    pub keywords: Option<Vec<String>>,
    /// Octets; `None`: no limit is announced.
    pub size: Option<u64>,
    /// The login was accepted, or none was needed.
    pub is_open: bool,
    /// The reply to MAIL.
    pub sender_reply: Option<String>,
    pub sender_diagnosis: Option<Diagnosis>,
    /// Why the connection was not opened.
    pub diagnosis: Option<Diagnosis>,
    /// If the configured port does not answer: the others that do, and those that do not.
    pub answering_ports: Vec<u16>,
    pub silent_ports: Vec<u16>,
    /// If TLS begins in another way: where and how it works.
    pub working_port: Option<Port>,
}

impl Upstream {
    /// Connects, logs in and leaves; MAIL and RSET if there is a sender. Sends no mail.
    pub async fn examine(&self, sender: Option<&ReversePath>, deadline: Deadline) -> UpstreamExamination {
        let report = self.probe(sender, deadline).await;
        let mut found = UpstreamExamination::of(&report);
        found.diagnosis = report.diagnosis(self.options());
        match found.diagnosis.as_ref().map(|diagnosis| diagnosis.id) {
            Some(CheckId::UpstreamConnect) => self.try_other_ports(&mut found, deadline).await,
            Some(CheckId::UpstreamTlsMode) => found.working_port = self.working_port(&report, deadline).await,
            _ => {}
        }
        found
    }

    /// One after the other, so that one permit is enough.
    async fn try_other_ports(&self, found: &mut UpstreamExamination, deadline: Deadline) {
        for Port { number, .. } in SUBMISSION_PORTS {
            if number == self.options().endpoint.port || deadline.has_passed() {
                continue;
            }
            match self.try_port(number, deadline.capped(PORT_TIME)).await {
                Ok(_) => found.answering_ports.push(number),
                Err(_) => found.silent_ports.push(number),
            }
        }
    }

    /// The same port with TLS begun in the other way, otherwise the usual port for that way.
    async fn working_port(&self, report: &ProbeReport, deadline: Deadline) -> Option<Port> {
        let endpoint = &self.options().endpoint;
        let tried = report.port.unwrap_or(Port { number: endpoint.port, tls: endpoint.tls });
        let other = match tried.tls {
            TlsMode::StartTls => TlsMode::Implicit,
            TlsMode::Implicit => TlsMode::StartTls,
        };
        let usual = SUBMISSION_PORTS.into_iter().find(|port| port.tls == other && port.number != tried.number);
        for port in [Some(Port { number: tried.number, tls: other }), usual].into_iter().flatten() {
            let at = self.at(port);
            let report = at.probe(None, deadline.capped(2 * PORT_TIME)).await;
            if report.opening.tls_version.is_some() {
                return Some(port);
            }
        }
        None
    }
}

impl UpstreamExamination {
    fn of(report: &ProbeReport) -> Self {
        let opening = &report.opening;
        Self {
            port: report.port,
            peer: report.peer,
            local: report.local,
            greeting: opening.greeting.as_ref().map(ToString::to_string),
            tls_version: opening.tls_version.map(str::to_owned),
            certificate: opening.certificate.clone(),
            keywords: opening.extensions.as_ref().map(|extensions| {
                let mut lines = extensions.keyword_lines();
                lines.retain(|line| !line.starts_with("AUTH") && !line.starts_with("SIZE"));
                lines.extend(
                    (!extensions.auth_offered.is_empty())
                        .then(|| format!("AUTH {}", extensions.auth_offered.join(" "))),
                );
                lines
            }),
            size: opening.extensions.as_ref().and_then(|extensions| extensions.size.flatten()),
            is_open: report.is_open,
            sender_reply: report.sender.as_ref().and_then(|reply| reply.as_ref().ok()).map(ToString::to_string),
            sender_diagnosis: report.sender_diagnosis(),
            ..Self::default()
        }
    }
}
