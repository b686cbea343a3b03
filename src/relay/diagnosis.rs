//! What a probe that failed means: the check that it belongs to, what happened, and what to do. The one place for these
//! words: the gateway's warning at start and `waxseal doctor` both use them. Never repeats a login.

use super::upstream::ProbeReport;
use super::{TlsMode, UpstreamOptions};
use crate::message::outcome::{Cause, Reason, RelayStep};
use crate::observe::CheckId;
use crate::smtp::Reply;
use crate::smtp::reply::Severity;
use crate::tls::TlsFault;
use serde::{Deserialize, Serialize};

/// Why a probe did not open a connection, or its sender was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    pub id: CheckId,
    /// What was seen, in the server's words if it said anything.
    pub evidence: String,
    pub cause: String,
    pub fix: String,
    /// Nothing was proved: the caller's own time or connections did not suffice.
    pub is_inconclusive: bool,
}

impl ProbeReport {
    /// `None`: the connection was opened.
    pub fn diagnosis(&self, options: &UpstreamOptions) -> Option<Diagnosis> {
        let reason = self.failure.as_ref()?;
        let (id, cause, fix) = self.meaning(reason, options);
        let is_inconclusive =
            reason.step == RelayStep::Permit || (self.was_cut_short && reason.cause == Cause::TimedOut);
        let evidence = evidence(reason);
        // The advice that stands with a reply to AUTH is of a general kind.
        let is_known = matches!(id, CheckId::UpstreamAuth | CheckId::UpstreamConnections) && reason.reply().is_some();
        let fix = reason.advice.clone().filter(|_| !is_known).unwrap_or(fix);
        Some(Diagnosis { id, evidence, cause, fix, is_inconclusive })
    }

    /// Of the reply to MAIL; `None`: it was accepted, or never asked for.
    pub fn sender_diagnosis(&self) -> Option<Diagnosis> {
        let Some(Err(reason)) = &self.sender else { return None };
        let (id, cause, fix) = match reason.reply() {
            Some(reply) if is_about_connections(reply) => too_many_connections(),
            Some(reply) if matches!(reply.code(), 530 | 535 | 538) => (
                CheckId::UpstreamAuth,
                "the provider does not know who the gateway is",
                "set `username` and `password` of this [[upstream]]",
            ),
            _ => (
                CheckId::UpstreamSender,
                "the provider does not let this login send from this address",
                "verify the address or its domain in the provider's settings, or send from an address that is verified there",
            ),
        };
        let is_inconclusive = reason.reply().is_none_or(|reply| reply.severity() != Severity::Permanent);
        let fix = reason.advice.clone().unwrap_or_else(|| fix.to_owned());
        Some(Diagnosis { id, evidence: evidence(reason), cause: cause.to_owned(), fix, is_inconclusive })
    }

    fn meaning(&self, reason: &Reason, options: &UpstreamOptions) -> (CheckId, String, String) {
        let owned = |(id, cause, fix): (CheckId, &str, &str)| (id, cause.to_owned(), fix.to_owned());
        if reason.reply().is_some_and(is_about_connections) {
            return owned(too_many_connections());
        }
        match reason.step {
            RelayStep::Permit => owned((
                CheckId::UpstreamConnections,
                "every connection that `max_connections` allows is in use",
                "try again when less mail is under way",
            )),
            RelayStep::Resolve => owned((
                CheckId::UpstreamResolve,
                "this machine cannot turn the provider's name into an address",
                "check `host`, and that this machine can look names up (/etc/resolv.conf; in a container, its network)",
            )),
            RelayStep::Connect => connect(reason, options),
            RelayStep::Greeting => self.greeting(reason, options),
            RelayStep::Ehlo => owned((
                CheckId::UpstreamEhlo,
                "the server does not accept the gateway's name in EHLO",
                "set `hostname` to a full name that the DNS knows",
            )),
            RelayStep::StartTls => owned((
                CheckId::UpstreamTlsMode,
                "TLS cannot be begun with STARTTLS on this port, and mail is never sent without TLS",
                "check `port` and `tls`: STARTTLS is usually on 587, 2525 or 25, TLS from the start on 465",
            )),
            RelayStep::TlsHandshake => self.handshake(options),
            _ => login(reason),
        }
    }

    fn greeting(&self, reason: &Reason, options: &UpstreamOptions) -> (CheckId, String, String) {
        let port = self.port.map_or(options.endpoint.port, |port| port.number);
        let tls = self.port.map_or(options.endpoint.tls, |port| port.tls);
        if reason.reply().is_some() {
            return (
                CheckId::UpstreamGreeting,
                "the server turns this machine away before anything was said".to_owned(),
                "its text says why: the address may be on a list, or the server may not be meant for your network"
                    .to_owned(),
            );
        }
        if tls == TlsMode::StartTls {
            return (
                CheckId::UpstreamTlsMode,
                format!("the server says nothing on port {port}: it may expect TLS from the start (SSL)"),
                "set tls = \"implicit\", usually with port = 465; or use port 587 with tls = \"starttls\"".to_owned(),
            );
        }
        (
            CheckId::UpstreamGreeting,
            "the server accepts connections and does not greet".to_owned(),
            "check `host` and `port`: is there a mail server?".to_owned(),
        )
    }

    fn handshake(&self, options: &UpstreamOptions) -> (CheckId, String, String) {
        let port = self.port.map_or(options.endpoint.port, |port| port.number);
        let tls = self.port.map_or(options.endpoint.tls, |port| port.tls);
        let (id, cause, fix) = match self.opening.tls_fault {
            Some(TlsFault::Name) => (
                CheckId::UpstreamTlsName,
                "the server's certificate is for another name",
                "set `host` to the name that the provider documents, or `server_name` to a name in the certificate",
            ),
            Some(TlsFault::Issuer) => (
                CheckId::UpstreamTlsIssuer,
                "nobody whom this machine trusts vouches for the server's certificate",
                "if it is your own server, name its certificate or its authority in `ca`; else something between \
                 intercepts the connection",
            ),
            Some(TlsFault::Expiry) => (
                CheckId::UpstreamTlsExpiry,
                "the server's certificate is not valid at the time that this machine's clock shows",
                "the server's operator must renew it, unless this machine's clock is wrong",
            ),
            Some(TlsFault::Client) => (
                CheckId::UpstreamTlsClient,
                "the server asks who the gateway is by a client certificate",
                "set `certificate` and `private_key` of this [[upstream]] to a pair that the server trusts",
            ),
            Some(TlsFault::Version) => (
                CheckId::UpstreamTls,
                "the server and waxseal have no TLS version or cipher in common",
                "the server must offer TLS 1.2 or 1.3",
            ),
            fault if tls == TlsMode::Implicit && fault != Some(TlsFault::Other) => {
                return (
                    CheckId::UpstreamTlsMode,
                    format!("port {port} does not speak TLS from the start"),
                    "set tls = \"starttls\" for this port, or port = 465 for TLS from the start".to_owned(),
                );
            }
            _ => (
                CheckId::UpstreamTls,
                "the TLS handshake was broken off",
                "check `port` and `tls`, and whether a firewall inspects this connection",
            ),
        };
        (id, cause.to_owned(), fix.to_owned())
    }
}

/// Without the upstream's name and without advice.
fn evidence(reason: &Reason) -> String {
    Reason { upstream: None, advice: None, ..reason.clone() }.to_string()
}

fn connect(reason: &Reason, options: &UpstreamOptions) -> (CheckId, String, String) {
    let port = options.endpoint.port;
    let text = match &reason.cause {
        Cause::Network(text) => text.as_str(),
        _ => "no answer in time",
    };
    let all = |what: &str| text.split(", ").all(|one| one.ends_with(what));
    let (cause, fix) = if all("no answer in time") {
        (
            format!("something drops connections to port {port}, as the firewalls of many hosters do"),
            match port {
                25 | 465 => "many hosters block ports 25 and 465: use port 587 or 2525, or ask the hoster to open it",
                _ => "open this port in the firewall, or use another port of the provider",
            },
        )
    } else if all("connection refused") {
        (
            format!(
                "nothing listens at {} on port {port}, or a firewall refuses the connection",
                options.endpoint.host
            ),
            "check `host` and `port` of this [[upstream]]",
        )
    } else if text.contains("no route there") {
        (
            "this machine has no route to some of the provider's addresses".to_owned(),
            "if it has only IPv6, the provider must have IPv6 addresses; if it has only IPv4, IPv4 addresses; see the \
             name's addresses above",
        )
    } else {
        ("no connection could be made".to_owned(), "check `host`, `port`, and the firewall")
    };
    (CheckId::UpstreamConnect, cause, fix.to_owned())
}

const fn too_many_connections() -> (CheckId, &'static str, &'static str) {
    (
        CheckId::UpstreamConnections,
        "the provider has too many connections of this account open, from here or from elsewhere",
        "lower `max_connections`; does another program use the same login?",
    )
}

/// 421 is also how a server says that it is stopping, so words have to be there.
fn is_about_connections(reply: &Reply) -> bool {
    let text = reply.text().to_ascii_lowercase();
    let is_temporary = matches!(reply.code(), 421 | 432 | 450 | 451 | 452 | 454);
    is_temporary
        && text.contains("connection")
        && ["too many", "concurrent", "limit", "maximum"].iter().any(|it| text.contains(it))
}

/// Answers to AUTH whose meaning is not in their words.
const LOGIN_ANSWERS: &[(&str, &str, &str)] = &[
    (
        "5.7.139",
        "SMTP login is switched off for the tenant or the mailbox",
        "turn on Authenticated SMTP for this mailbox in the Microsoft 365 admin centre (it can be set for the tenant and for \
         each mailbox)",
    ),
    (
        "5.7.30",
        "the provider does not take passwords any more",
        "use a login that the provider still takes, such as OAuth or an app password",
    ),
    (
        "5.7.9",
        "the provider wants an app password",
        "turn on two-step verification for the account, make an app password and set it as `password`",
    ),
    ("5.7.57", "the server has seen no login", "set `username` and `password` of this [[upstream]]"),
];

fn login(reason: &Reason) -> (CheckId, String, String) {
    let text = reason.reply().map(Reply::to_string).unwrap_or_default();
    let code = |code: &str| text.split_whitespace().any(|word| word.trim_end_matches([',', ';']) == code);
    let known = LOGIN_ANSWERS.iter().find(|(enhanced, ..)| code(enhanced));
    let (cause, fix) = match known {
        Some((_, cause, fix)) => (*cause, *fix),
        None if reason.reply().is_some() => (
            "the provider does not accept this login",
            "check `username` and `password`: many providers want an API key or an app password here, and a new one after a \
             change",
        ),
        None => ("the login cannot be made", "check `username`, `password` and `port`"),
    };
    (CheckId::UpstreamAuth, cause.to_owned(), fix.to_owned())
}
