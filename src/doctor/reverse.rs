//! The reverse name of the address that our connections come from. Providers do not ask for it; a server of one's own
//! often does. RFC 1912 §2.1.

use super::check::CheckResult;
use super::dns::DnsAnswer;
use super::examination::{Examination, Results};
use crate::config::Provider;
use crate::observe::CheckId;
use crate::relay::provider::ReturnPath;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;
use tokio::time::timeout;

const LOOK_UP: Duration = Duration::from_secs(5);

pub async fn probe(exam: &Examination, out: &Results) {
    let mut seen = Vec::new();
    for upstream in exam.upstreams() {
        let Provider::Smtp { endpoint, .. } = &upstream.provider else { continue };
        let host = endpoint.host.trim_start_matches('[').trim_end_matches(']');
        let found = timeout(LOOK_UP, tokio::net::lookup_host((host, endpoint.port))).await;
        let first = found.ok().and_then(Result::ok).and_then(|mut found| found.next());
        let Some(own) = endpoint.source_address.or_else(|| own_address(first?)) else { continue };
        if seen.contains(&own) {
            continue;
        }
        seen.push(own);
        let is_own_server = upstream.preset.return_path == ReturnPath::Unknown;
        out.put(judge(exam, own, is_own_server).await);
    }
    if seen.is_empty() {
        let text = "no connection leaves this machine, or its address is not known";
        out.put(CheckResult::not_applicable(CheckId::AddressReverse, "", text));
    }
}

/// What the system would connect from. Sends nothing.
fn own_address(target: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

async fn judge(exam: &Examination, own: IpAddr, is_own_server: bool) -> CheckResult {
    let id = CheckId::AddressReverse;
    let subject = own.to_string();
    if !is_public(own) {
        let text = "a private address: the provider sees another one, or you are in the same network";
        return CheckResult::not_applicable(id, &subject, text);
    }
    let name = match exam.dns.reverse(own).await {
        DnsAnswer::Unknown(error) => return CheckResult::unknown(id, &subject, error),
        DnsAnswer::Missing if !is_own_server => {
            return CheckResult::not_applicable(id, &subject, "it has no name; providers do not ask for one");
        }
        DnsAnswer::Missing => {
            return CheckResult::warning(id, &subject, "this address has no name in the DNS")
                .cause("many servers refuse clients without one")
                .fix("have its reverse name (PTR) set to `hostname`, where you got the address");
        }
        DnsAnswer::Found(names) => names.into_iter().next().unwrap_or_default(),
    };
    let back: Result<Vec<IpAddr>, String> = match own {
        IpAddr::V4(_) => addresses(exam.dns.ipv4(&name).await),
        IpAddr::V6(_) => addresses(exam.dns.ipv6(&name).await),
    };
    match back {
        Err(error) => CheckResult::unknown(id, &subject, error),
        Ok(back) if back.contains(&own) => {
            CheckResult::ok(id, &subject, format!("its name is {name}, and that leads back"))
        }
        Ok(_) => CheckResult::warning(id, &subject, format!("its name is {name}, which does not lead back to it"))
            .cause("servers take an address whose name leads elsewhere for a dial-in line")
            .fix(format!("give {name} this address in the DNS, or have the reverse name changed")),
    }
}

fn addresses<A: Into<IpAddr>>(answer: DnsAnswer<A>) -> Result<Vec<IpAddr>, String> {
    match answer {
        DnsAnswer::Found(found) => Ok(found.into_iter().map(Into::into).collect()),
        DnsAnswer::Missing => Ok(Vec::new()),
        DnsAnswer::Unknown(error) => Err(error),
    }
}

/// RFC 6890: neither private, shared, local nor loopback.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => {
            let is_shared = matches!(ip.octets(), [100, 64..=127, ..]);
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || is_shared)
        }
        IpAddr::V6(ip) => {
            !(ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local() || ip.is_unicast_link_local())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_behind_a_router_are_not_judged() {
        for (address, expected) in [
            ("127.0.0.1", false),
            ("10.1.2.3", false),
            ("100.64.0.1", false),
            ("::1", false),
            ("fd00::1", false),
            ("::ffff:192.168.0.1", false),
            ("8.8.8.8", true),
            ("2600::1", true),
        ] {
            assert_eq!(is_public(address.parse().expect("an address")), expected, "{address}");
        }
    }
}
