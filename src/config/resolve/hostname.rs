//! The gateway's name: as configured, otherwise the host's full name; and its name in EHLO. Looks up no name and sends
//! nothing. RFC 5321 §4.1.1.1, §4.1.3, §4.1.4.

use super::Resolver;
use crate::config::input::{Input, Reported, Resolved, Typed};
use crate::config::value::HostName;
use crate::smtp::Domain;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

impl Resolver<'_> {
    /// The name and the EHLO name. The sandbox accepts any EHLO name; providers do not.
    pub(super) fn hostname(&mut self, typed: Typed<HostName>, has_provider: bool) -> Resolved<(String, String)> {
        let name = match typed.input {
            Input::Default(HostName(domain)) | Input::Given(HostName(domain)) => domain.to_string(),
            Input::Invalid => return Err(Reported),
            Input::Absent => own_name(),
        };
        if name.contains('.') {
            return Ok((name.clone(), name));
        }
        let literal = address_literal(outgoing_address());
        if !has_provider {
            return Ok((name, literal));
        }
        self.findings
            .warning(
                &typed.place,
                format!("the host's name \"{name}\" is not fully qualified, so the gateway introduces itself to providers as {literal}"),
            )
            .help("set `hostname` (or WAXSEAL_HOSTNAME) to a full name such as \"gateway.example.com\"");
        Ok((name, literal))
    }
}

/// The host's full name if it has one, else its short name or "localhost".
pub fn own_name() -> String {
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let name = full_name(&host, &hosts);
    if Domain::parse(&name).is_ok_and(|domain| !domain.is_literal()) && name.is_ascii() {
        name
    } else {
        "localhost".into()
    }
}

/// The first dotted name on the line of /etc/hosts that contains `host`, which is what `hostname -f` finds there.
fn full_name(host: &str, hosts: &str) -> String {
    let names = |line: &str| -> Vec<String> {
        let line = line.split('#').next().unwrap_or_default();
        line.split_whitespace().skip(1).map(str::to_owned).collect()
    };
    let has_dot = |name: &String| name.contains('.');
    if has_dot(&host.to_owned()) {
        return host.to_owned();
    }
    let of_host = hosts.lines().map(names).filter(|names| names.iter().any(|name| name.eq_ignore_ascii_case(host)));
    of_host.flatten().find(has_dot).unwrap_or_else(|| host.to_owned())
}

/// The local address of the route to the Internet; a UDP socket is given its peer, but nothing is sent.
fn outgoing_address() -> IpAddr {
    let found = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        // RFC 5737: an address that no one uses.
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    found.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

// RFC 5321 §4.1.3.
fn address_literal(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("[{ip}]"),
        IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_name_stands_beside_the_short_one() {
        let hosts =
            "127.0.0.1 localhost\n# 127.0.1.1 commented.example.com box\n127.0.1.1\tbox.example.com box # ours\n";
        assert_eq!(full_name("box", hosts), "box.example.com");
        assert_eq!(full_name("BOX", hosts), "box.example.com");
        assert_eq!(full_name("other", hosts), "other");
        assert_eq!(full_name("a.example.org", hosts), "a.example.org");
    }

    #[test]
    fn literals_are_those_of_smtp() {
        assert_eq!(address_literal("192.0.2.7".parse().unwrap()), "[192.0.2.7]");
        assert_eq!(address_literal("2001:db8::1".parse().unwrap()), "[IPv6:2001:db8::1]");
    }
}
