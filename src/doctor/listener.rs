//! Each listener: whether it greets, whether its certificate is one that an application accepts, and who may send there
//! without a login. Says nothing there but QUIT.

use super::check::CheckResult;
use super::examination::{Examination, Results};
use crate::config::ListenerSettings;
use crate::inbound::{AuthMode, Tls};
use crate::observe::CheckId;
use crate::text::counted;
use crate::tls::ServerCertificate;
use jiff::Timestamp;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(5);

/// Days before the end of a certificate that are a warning.
const EXPIRES_SOON: i64 = 14;

/// The gateway address of Docker's default network: what connections to a published port come from.
const DOCKER_GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 17, 0, 1));

pub async fn probe(exam: &Examination, at: usize, out: &Results) {
    let Some(listener) = exam.settings.listeners.get(at) else { return };
    out.put(reachable(exam, listener).await);
    if let Some(result) = container(listener) {
        out.put(result);
    }
    out.put(tls(listener));
    out.put(allow(listener));
}

async fn reachable(exam: &Examination, ListenerSettings { options, .. }: &ListenerSettings) -> CheckResult {
    let id = CheckId::ListenerReachable;
    let name = options.address.to_string();
    let is_implicit = matches!(options.tls, Tls::Implicit(_));
    if options.address.port() == 0 {
        return CheckResult::not_applicable(id, &name, "the system chooses its port at each start");
    }
    if options.is_load_balancer(IpAddr::V4(Ipv4Addr::LOCALHOST)) {
        let text = "connections from this machine must begin with a load balancer's PROXY header";
        return CheckResult::not_applicable(id, &name, text);
    }
    match (greeting(dialled(options.address), is_implicit).await, exam.gateway_runs) {
        (Ok(greeting), true) => CheckResult::ok(id, &name, "it greets").evidence(greeting),
        (Ok(greeting), false) => CheckResult::failed(id, &name, "another program has this address")
            .evidence(greeting)
            .cause("the gateway does not run, and something answers here all the same")
            .fix("stop the other program, or give the listener another port"),
        (Err(_), false) => CheckResult::not_applicable(id, &name, "the gateway does not run; `waxseal run` starts it"),
        (Err(error), true) => CheckResult::failed(id, &name, "the gateway runs, and this listener does not greet")
            .evidence(error)
            .cause("the running gateway has another configuration, or a firewall is in the way")
            .fix("start the gateway again with this configuration, and look at its log"),
    }
}

/// The address by which a program on this machine reaches the listener.
pub(super) fn dialled(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The first line; of a listener that begins with TLS, only that it accepts the connection.
async fn greeting(address: SocketAddr, is_implicit: bool) -> Result<String, String> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        if is_implicit {
            return Ok("(TLS from the start)".to_owned());
        }
        let mut line = String::new();
        let (input, mut output) = stream.split();
        BufReader::new(input).read_line(&mut line).await?;
        let _it_may_have_closed = output.write_all(b"QUIT\r\n").await;
        Ok(line.trim_end().to_owned())
    };
    match timeout(PATIENCE, asked).await {
        Ok(Ok(line)) if line.is_empty() => Err("it closed the connection".to_owned()),
        Ok(Ok(line)) => Ok(line),
        Ok(Err(error)) => Err(std::io::Error::to_string(&error)),
        Err(_) => Err("no greeting in time".to_owned()),
    }
}

/// In a container, loopback is the container's own.
fn container(ListenerSettings { options, .. }: &ListenerSettings) -> Option<CheckResult> {
    let is_container = Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists();
    (is_container && options.address.ip().to_canonical().is_loopback()).then(|| {
        let text = "whether the application reaches it cannot be told: another container does not reach a loopback address";
        CheckResult::unknown(CheckId::ListenerReachable, &options.address.to_string(), text)
            .cause("this is a container, and its loopback address is its own")
            .fix("unless the application is in this container, listen on 0.0.0.0:2525 and put the applications' network into `allow`")
    })
}

fn tls(ListenerSettings { options, certificate, .. }: &ListenerSettings) -> CheckResult {
    let id = CheckId::ListenerTls;
    let name = options.address.to_string();
    match options.tls {
        Tls::Off => CheckResult::not_applicable(id, &name, "no TLS is offered here, so no application refuses a certificate"),
        Tls::StartTls(_) | Tls::Implicit(_) if options.address.ip().to_canonical().is_loopback() => {
            CheckResult::warning(id, &name, "TLS is offered on a loopback address")
                .cause(
                    "Plausible uses STARTTLS wherever it is offered and then requires a publicly trusted certificate for \
                     SMTP_HOST_ADDR; a self-signed one loses its mail",
                )
                .fix("set tls = \"off\" for this listener: nothing leaves this machine")
        }
        Tls::StartTls(_) | Tls::Implicit(_) => match certificate {
            Some(certificate) => shown(certificate, &name, Timestamp::now()),
            None => CheckResult::unknown(id, &name, "the certificate cannot be read"),
        },
    }
}

/// Applications verify it for the name that they connect to.
fn shown(certificate: &ServerCertificate, name: &str, now: Timestamp) -> CheckResult {
    let id = CheckId::ListenerTls;
    let evidence =
        format!("for {}, by {}, until {}", certificate.names.join(", "), certificate.issuer, certificate.end());
    let renew = "renew it: the gateway notices the new file by itself";
    match certificate.days_left(now.as_second()) {
        ..0 => CheckResult::failed(id, name, "the certificate has expired")
            .cause("no application that verifies it hands in its mail")
            .fix(renew),
        days @ 0..EXPIRES_SOON => {
            CheckResult::warning(id, name, format!("the certificate ends in {}", counted(days.unsigned_abs(), "day"))).fix(renew)
        }
        _ if certificate.is_self_signed => CheckResult::warning(id, name, "the certificate is self-signed")
            .cause("Plausible uses STARTTLS wherever it is offered, does not trust this certificate, and loses its mail")
            .fix("use a publicly trusted certificate for the name in SMTP_HOST_ADDR, or tls = \"off\" in a network of your own"),
        days => {
            let days = counted(days.unsigned_abs(), "more day");
            let text = format!("TLS is offered, with a certificate for {days}; applications verify it for the name that they connect to");
            CheckResult::ok(id, name, text)
        }
    }
    .evidence(evidence)
}

fn allow(ListenerSettings { options, senders, .. }: &ListenerSettings) -> CheckResult {
    let id = CheckId::ListenerAllow;
    let name = options.address.to_string();
    if options.auth == AuthMode::Required {
        return CheckResult::ok(id, &name, "nobody sends here without a login");
    }
    let everybody = options.allow.iter().find(|network| network.prefix_len() == 0);
    if let Some(network) = everybody {
        return CheckResult::failed(id, &name, "anybody who reaches this listener may send")
            .evidence(format!("`allow` has {network}"))
            .cause("such a relay is found and used for spam within hours")
            .fix("name the applications' networks in `allow`, or set auth = \"required\"");
    }
    let bridge = options.allow.iter().find(|network| network.contains(&DOCKER_GATEWAY));
    match bridge {
        Some(network) if senders.is_any() => CheckResult::warning(
            id,
            &name,
            "what comes through a published port may send as anybody",
        )
        .evidence(format!("`allow` has {network}"))
        .cause(
            "connections to a published port come from the bridge's own address, 172.17.0.1, wherever they really \
                     come from",
        )
        .fix("publish the port on 127.0.0.1 only, or set `senders` or auth = \"required\""),
        _ => {
            let networks = options.allow.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            CheckResult::ok(id, &name, format!("clients from {networks} send without a login"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::CheckVerdict;

    #[test]
    fn a_certificate_that_applications_refuse_is_named() {
        const NOW: i64 = 1_700_000_000;
        const DAY: i64 = 24 * 3600;
        let judged = |is_self_signed: bool, days: i64| {
            let certificate = ServerCertificate {
                names: vec!["mail.example.com".into()],
                issuer: "CN=some authority".into(),
                is_self_signed,
                not_before: 0,
                not_after: NOW + days * DAY,
            };
            let now = Timestamp::from_second(NOW).expect("a time");
            let result = shown(&certificate, "192.0.2.1:2525", now);
            (result.verdict, result.summary)
        };
        for (is_self_signed, days, verdict, words) in [
            (false, 90, CheckVerdict::Ok, "90 more days"),
            (false, 14, CheckVerdict::Ok, "14 more days"),
            (false, 13, CheckVerdict::Warning, "13 days"),
            (false, 1, CheckVerdict::Warning, "1 day"),
            (false, -1, CheckVerdict::Failed, "expired"),
            (true, 90, CheckVerdict::Warning, "self-signed"),
            (true, -1, CheckVerdict::Failed, "expired"),
        ] {
            let (found, summary) = judged(is_self_signed, days);
            assert!(found == verdict && summary.contains(words), "{is_self_signed} {days}: {found:?} {summary}");
        }
    }
}
