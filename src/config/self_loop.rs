//! Whether an upstream is one of our own listeners: such mail would loop until it has too many Received headers.
//!
//! A shared environment file makes this likely. Pure over given addresses; the caller that starts the gateway looks up
//! names.

use std::net::{IpAddr, SocketAddr, UdpSocket};

/// The address at which the upstream would reach one of `listeners`.
///
/// `is_local` says whether an address belongs to this machine; it is called only if a listener is bound to all
/// addresses.
pub fn is_own_listener(
    upstream: &[SocketAddr],
    listeners: &[SocketAddr],
    is_local: impl Fn(IpAddr) -> bool,
) -> Option<SocketAddr> {
    let reaches = |target: &SocketAddr| {
        let ip = target.ip().to_canonical();
        listeners.iter().filter(|listener| listener.port() == target.port()).any(|listener| {
            let bound = listener.ip().to_canonical();
            let same_family = bound.is_ipv4() == ip.is_ipv4();
            // Connecting to the unspecified address reaches loopback.
            bound == ip
                || (same_family && (ip.is_unspecified() && (bound.is_loopback() || bound.is_unspecified())))
                || (same_family && bound.is_unspecified() && (ip.is_loopback() || is_local(ip)))
        })
    };
    upstream.iter().copied().find(|target| target.port() != 0 && reaches(target))
}

/// A host's addresses without a lookup: literals and "localhost".
pub fn literal_addresses(host: &str, port: u16) -> Vec<SocketAddr> {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        return vec![SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port))];
    }
    host.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port)).into_iter().collect()
}

/// True if this machine has the address, which means that it can be bound. Sends nothing.
pub fn is_local_address(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// Includes the IPv4-mapped form, `::ffff:127.0.0.1`.
pub fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_that_leads_back_is_found() {
        let found = |upstream: &str, listeners: &[&str]| {
            let (host, port) = upstream.rsplit_once(' ').expect("host and port");
            let upstream = literal_addresses(host, port.parse().expect("a port"));
            let listeners: Vec<_> = listeners.iter().map(|listener| listener.parse().expect("an address")).collect();
            is_own_listener(&upstream, &listeners, |ip| ip == IpAddr::from([192, 0, 2, 10])).is_some()
        };
        for (upstream, listeners, expected) in [
            ("127.0.0.1 2525", &["127.0.0.1:2525"][..], true),
            ("127.0.0.1 25", &["127.0.0.1:2525"], false),
            ("127.0.0.2 2525", &["127.0.0.1:2525"], false),
            ("localhost 2525", &["[::1]:2525"], true),
            ("LocalHost. 2525", &["127.0.0.1:2525"], true),
            ("::1 2525", &["127.0.0.1:2525", "[::1]:2525"], true),
            ("::ffff:127.0.0.1 2525", &["127.0.0.1:2525"], true),
            ("127.0.0.2 2525", &["0.0.0.0:2525"], true),
            ("0.0.0.0 2525", &["127.0.0.1:2525"], true),
            ("192.0.2.10 2525", &["0.0.0.0:2525"], true),
            ("192.0.2.10 2525", &["192.0.2.10:2525"], true),
            ("192.0.2.10 2525", &["127.0.0.1:2525"], false),
            ("192.0.2.99 2525", &["0.0.0.0:2525"], false),
            ("127.0.0.1 2525", &["[::]:2525"], false),
        ] {
            assert_eq!(found(upstream, listeners), expected, "{upstream} {listeners:?}");
        }
    }

    #[test]
    fn loopback_is_local() {
        assert!(is_local_address(IpAddr::from([127, 0, 0, 1])));
        assert!(!is_local_address(IpAddr::from([192, 0, 2, 1])));
        assert!(is_loopback("::ffff:127.0.0.1".parse().unwrap()) && !is_loopback("10.0.0.1".parse().unwrap()));
    }
}
