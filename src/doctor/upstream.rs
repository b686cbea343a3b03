//! One upstream: its name, a connection, TLS, its certificate, the login, the sender, the size. The connection is made by
//! the running gateway under its own permits; if none runs, by this process.

use super::check::{CheckResult, CheckVerdict};
use super::clock;
use super::dns::DnsAnswer;
use super::examination::{Examination, Results};
use crate::config::{Provider, Settings, UpstreamSettings};
use crate::control::{ControlRequest, ControlResponse};
use crate::message::RelayStep;
use crate::observe::CheckId;
use crate::relay::{Account, Deadline, Diagnosis, TlsMode, Upstream, UpstreamExamination};
use crate::smtp::ReversePath;
use jiff::Timestamp;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::time::timeout;

/// Together less than the time of a whole probe.
const LOOK_UP: Duration = Duration::from_secs(5);
const CONNECTION: Duration = Duration::from_secs(18);

/// A certificate that ends sooner is worth a word: renewals happen a month ahead.
const SOON: i64 = 14;

pub async fn probe(exam: &Examination, name: &str, out: &Results) {
    let Some(upstream) = exam.upstreams().find(|upstream| *upstream.name == *name) else { return };
    let Provider::Smtp { endpoint, .. } = &upstream.provider else { return };
    let put = |result| out.put(result);
    let host = endpoint.host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let addresses = resolve(exam, upstream, &host, &put).await;
    let sender = exam.sender.as_ref().map(|sender| sender.path.clone());
    for (login, found) in connect(exam, upstream, &addresses, sender).await {
        let subject = login.map_or_else(|| name.to_owned(), |domain| format!("{name}, login of {domain}"));
        match found {
            Ok(found) => judge(exam, upstream, &subject, &found, &put),
            Err(error) => put(CheckResult::unknown(CheckId::UpstreamConnect, &subject, error)),
        }
    }
}

/// The addresses that are of use only if the system finds none.
async fn resolve(
    exam: &Examination,
    upstream: &UpstreamSettings,
    host: &str,
    put: &impl Fn(CheckResult),
) -> Vec<IpAddr> {
    let name = &*upstream.name;
    if host.parse::<IpAddr>().is_ok() {
        put(CheckResult::not_applicable(CheckId::UpstreamResolve, name, "`host` is an address"));
        return Vec::new();
    }
    let (system, ipv4, ipv6) =
        tokio::join!(timeout(LOOK_UP, tokio::net::lookup_host((host, 0))), exam.dns.ipv4(host), exam.dns.ipv6(host));
    let system: Result<Vec<IpAddr>, String> = match system {
        Ok(Ok(found)) => Ok(found.map(|address| address.ip()).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    };
    let ipv4 = family(exam, CheckId::UpstreamResolveIpv4, name, "IPv4", ipv4, put);
    let ipv6 = family(exam, CheckId::UpstreamResolveIpv6, name, "IPv6", ipv6, put);
    let known: Vec<IpAddr> = ipv4.into_iter().chain(ipv6).filter(|address| !is_fake(*address)).collect();
    match system {
        Ok(found) if !found.is_empty() => {
            put(CheckResult::ok(CheckId::UpstreamResolve, name, format!("{host} is {}", list(&found))));
            Vec::new()
        }
        other => {
            let evidence = other.err().unwrap_or_else(|| "no address".to_owned());
            let result =
                CheckResult::failed(CheckId::UpstreamResolve, name, format!("this machine does not find {host}"));
            let result = result.evidence(evidence);
            put(match known.as_slice() {
                [] => result
                    .cause("the name is wrong, or this machine cannot look names up")
                    .fix("check `host`; in a container, check its DNS server (/etc/resolv.conf)"),
                known => result
                    .cause(format!("{} knows it: {}; the system asks another server", exam.dns.server, list(known)))
                    .fix("correct the system's DNS server (/etc/resolv.conf; in a container, its network)"),
            });
            known
        }
    }
}

fn family<A: Into<IpAddr>>(
    exam: &Examination,
    id: CheckId,
    name: &str,
    family: &str,
    answer: DnsAnswer<A>,
    put: &impl Fn(CheckResult),
) -> Vec<IpAddr> {
    match answer {
        DnsAnswer::Found(found) => {
            let found: Vec<IpAddr> = found.into_iter().map(Into::into).collect();
            put(match found.iter().any(|address| is_fake(*address)) {
                true => CheckResult::unknown(id, name, format!("{} answers with a made-up address", exam.dns.server))
                    .evidence(list(&found))
                    .cause(
                        "a proxy on this machine or network answers look-ups with addresses of its own (198.18.0.0/15)",
                    )
                    .fix("to see the real ones, set `dns` in [doctor] to a server outside"),
                false => CheckResult::ok(id, name, list(&found)),
            });
            found
        }
        DnsAnswer::Missing => {
            put(CheckResult::not_applicable(id, name, format!("the name has no {family} address in the DNS")));
            Vec::new()
        }
        DnsAnswer::Unknown(error) => {
            put(CheckResult::unknown(id, name, error));
            Vec::new()
        }
    }
}

/// RFC 2544 C.2.2; "fake IP" proxies use this network.
fn is_fake(address: IpAddr) -> bool {
    matches!(address.to_canonical(), IpAddr::V4(address) if matches!(address.octets(), [198, 18 | 19, ..]))
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

type Examined = (Option<String>, Result<UpstreamExamination, String>);

/// One for each login, one after the other; the first tries the sender.
async fn connect(
    exam: &Examination,
    upstream: &UpstreamSettings,
    addresses: &[IpAddr],
    sender: Option<ReversePath>,
) -> Vec<Examined> {
    if exam.gateway_runs {
        return by_gateway(exam, upstream, sender.as_ref()).await;
    }
    let deadline = Deadline::after(CONNECTION);
    let mut found = Vec::new();
    let mut sender = sender;
    for (login, upstream) in own_upstreams(&exam.settings, upstream, addresses) {
        found.push((login, Ok(upstream.examine(sender.take().as_ref(), deadline).await)));
    }
    found
}

async fn by_gateway(exam: &Examination, upstream: &UpstreamSettings, sender: Option<&ReversePath>) -> Vec<Examined> {
    let request = ControlRequest::Examine {
        upstream: upstream.name.to_string(),
        sender: sender.map(ToString::to_string),
        seconds: CONNECTION.as_secs(),
    };
    match exam.ask_gateway(request).await {
        Ok(ControlResponse::Examined(Some(found))) => {
            found.into_iter().map(|(login, found)| (login, Ok(*found))).collect()
        }
        Ok(_) => vec![(None, Err("the running gateway has no such upstream; it has another configuration".to_owned()))],
        Err(error) => vec![(None, Err(format!("the running gateway cannot try it: {error:#}")))],
    }
}

/// For this process alone: one connection at a time.
fn own_upstreams(
    settings: &Settings,
    upstream: &UpstreamSettings,
    addresses: &[IpAddr],
) -> Vec<(Option<String>, Upstream)> {
    let Provider::Smtp { endpoint, logins } = &upstream.provider else { return Vec::new() };
    let account = Account::new(1);
    let made = |credentials| {
        let options = upstream.options(endpoint, logins, credentials, &settings.ehlo_name);
        match addresses {
            [] => Upstream::new(options, account.clone()),
            known => {
                let at = known.iter().map(|address| SocketAddr::new(*address, endpoint.port)).collect();
                Upstream::with_addresses(options, account.clone(), at)
            }
        }
    };
    let own = (logins.by_domain.is_empty() || logins.own.is_some()).then(|| (None, made(logins.own.as_ref())));
    let by_domain = logins.by_domain.iter().map(|(domain, login)| (Some(domain.clone()), made(Some(login))));
    own.into_iter().chain(by_domain).collect()
}

fn judge(
    exam: &Examination,
    upstream: &UpstreamSettings,
    subject: &str,
    found: &UpstreamExamination,
    put: &impl Fn(CheckResult),
) {
    passed(upstream, subject, found, put);
    // What the name leads to has been told.
    if let Some(diagnosis) = found.diagnosis.as_ref().filter(|it| it.id != CheckId::UpstreamResolve) {
        put(of_diagnosis(subject, diagnosis, CheckVerdict::Failed));
        ports(subject, found, put);
        if let Some(port) = found.working_port {
            let tls = match port.tls {
                TlsMode::StartTls => "starttls",
                TlsMode::Implicit => "implicit",
            };
            let text = format!("port {} works with tls = \"{tls}\"", port.number);
            put(CheckResult::warning(CheckId::UpstreamTlsMode, subject, text)
                .fix(format!("set port = {} and tls = \"{tls}\" in this [[upstream]]", port.number)));
        }
    }
    if let Some(greeting) = &found.greeting
        && let Some(result) = clock::of_greeting(subject, greeting, Timestamp::now())
    {
        put(result);
    }
    sender(exam, subject, found, put);
}

/// The steps that went well.
fn passed(upstream: &UpstreamSettings, subject: &str, found: &UpstreamExamination, put: &impl Fn(CheckResult)) {
    let Some(port) = found.port else { return };
    let peer = found.peer.map_or_else(|| format!("port {}", port.number), |peer| peer.to_string());
    put(CheckResult::ok(CheckId::UpstreamConnect, subject, format!("connected to {peer}")));
    if let Some(greeting) = &found.greeting {
        put(CheckResult::ok(CheckId::UpstreamGreeting, subject, greeting.clone()));
    }
    if let Some(version) = &found.tls_version {
        let begun = match port.tls {
            TlsMode::StartTls => RelayStep::StartTls.to_string(),
            TlsMode::Implicit => "TLS from the start".to_owned(),
        };
        put(CheckResult::ok(CheckId::UpstreamTls, subject, format!("{begun}, {version}, verified")));
    }
    if let Some(certificate) = &found.certificate {
        put(CheckResult::ok(
            CheckId::UpstreamTlsName,
            subject,
            format!("the certificate is for {}", names(&certificate.names)),
        ));
        put(CheckResult::ok(CheckId::UpstreamTlsIssuer, subject, format!("issued by {}", certificate.issuer)));
        let days = certificate.days_left(Timestamp::now().as_second());
        let text = format!("the certificate is valid for {days} more days, until {}", certificate.end());
        put(match days {
            SOON.. => CheckResult::ok(CheckId::UpstreamTlsExpiry, subject, text),
            _ => CheckResult::warning(CheckId::UpstreamTlsExpiry, subject, text)
                .cause("mail waits once it is over")
                .fix("if it is your own server, renew it; else the provider will"),
        });
    }
    if let Some(keywords) = &found.keywords {
        put(CheckResult::ok(CheckId::UpstreamEhlo, subject, format!("it offers {}", keywords.join(", "))));
        put(size(upstream, subject, found));
    }
    if found.is_open {
        put(CheckResult::ok(CheckId::UpstreamAuth, subject, "the login is accepted, or none is needed"));
    }
}

fn names(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

fn size(upstream: &UpstreamSettings, subject: &str, found: &UpstreamExamination) -> CheckResult {
    const MIB: u64 = 1 << 20;
    let own = upstream.profile.max_size;
    match (found.size, own) {
        (None, _) => CheckResult::ok(CheckId::UpstreamSize, subject, "it announces no limit for the size of a message"),
        (Some(limit), Some(own)) if limit < own => {
            CheckResult::warning(CheckId::UpstreamSize, subject, format!("it takes messages up to {} MiB", limit / MIB))
                .evidence(format!("SIZE {limit}; `max_message_size` of this upstream is {own} octets"))
                .cause("larger mail is accepted here and then fails there")
                .fix("lower `max_message_size` of the [[listener]] and of this [[upstream]]")
        }
        (Some(limit), _) => CheckResult::ok(
            CheckId::UpstreamSize,
            subject,
            format!("it takes messages up to {} MiB (SIZE {limit})", limit / MIB),
        ),
    }
}

fn ports(subject: &str, found: &UpstreamExamination, put: &impl Fn(CheckResult)) {
    let named = |ports: &[u16]| ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match (found.answering_ports.as_slice(), found.silent_ports.as_slice()) {
        ([], []) => {}
        ([], silent) => {
            put(CheckResult::failed(CheckId::UpstreamPorts, subject, "no other port of the provider answers either")
                .evidence(format!("tried {}", named(silent)))
                .cause("this machine reaches the provider on no port: a firewall, a wrong `host`, or no route")
                .fix("ask the hoster, or who runs the firewall, to open port 587"))
        }
        (answering, _) => {
            put(CheckResult::warning(CheckId::UpstreamPorts, subject, format!("port {} answers", named(answering)))
                .cause("the configured port is blocked on the way, and this one is not")
                .fix(format!("set port = {} in this [[upstream]]", answering[0])))
        }
    }
}

fn sender(exam: &Examination, subject: &str, found: &UpstreamExamination, put: &impl Fn(CheckResult)) {
    let id = CheckId::UpstreamSender;
    let Some(sender) = &exam.sender else {
        let text = "no sender is known to ask for; name one with --from";
        return put(CheckResult::not_applicable(id, subject, text));
    };
    let path = &sender.path;
    if let Some(reply) = &found.sender_reply {
        let text =
            format!("it takes mail from {path} as far as MAIL FROM; some providers check it only after the data");
        return put(CheckResult::ok(id, subject, text).evidence(reply.clone()));
    }
    if let Some(diagnosis) = &found.sender_diagnosis {
        let verdict = if sender.is_given { CheckVerdict::Failed } else { CheckVerdict::Warning };
        let mut result = of_diagnosis(subject, diagnosis, verdict);
        result.summary = format!("it refuses mail from {path}: {}", diagnosis.cause);
        if !sender.is_given {
            result.fix = Some(format!("{}; name the real sender with --from", diagnosis.fix));
        }
        put(result);
    }
}

fn of_diagnosis(subject: &str, diagnosis: &Diagnosis, verdict: CheckVerdict) -> CheckResult {
    let verdict = if diagnosis.is_inconclusive { CheckVerdict::Unknown } else { verdict };
    CheckResult::new(diagnosis.id, subject, verdict, diagnosis.cause.clone())
        .evidence(diagnosis.evidence.clone())
        .cause(diagnosis.cause.clone())
        .fix(diagnosis.fix.clone())
}
