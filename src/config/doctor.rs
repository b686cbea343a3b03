//! Values of `[doctor]`: a DNS server, and the names of checks.

use super::suggest::nearest;
use super::value::{Complaint, Text};
use crate::observe::CheckId;
use std::net::{IpAddr, SocketAddr};

/// RFC 1035 §4.2.
const DNS_PORT: u16 = 53;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsServer(pub SocketAddr);

impl Text for DnsServer {
    const EXPECTED: &'static str = "an address such as \"9.9.9.9\" or \"127.0.0.1:5353\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let address = text.parse::<SocketAddr>();
        let address = address.or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT)));
        address.map(Self).map_err(|_| {
            Complaint::new(format!("\"{text}\" is not an address"), format!("use {}, without a name", Self::EXPECTED))
        })
    }
}

impl Text for CheckId {
    const EXPECTED: &'static str = "the name of a check such as \"dmarc.record\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        Self::named(text).ok_or_else(|| {
            let help = match nearest(text, Self::ALL.iter().map(|id| id.as_str())) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => "docs/troubleshooting.md lists all of them".to_owned(),
            };
            Complaint::new(format!("there is no check named \"{text}\""), help)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dns_server_needs_no_port_and_no_name_is_taken_for_one() {
        let parsed = |text: &str| DnsServer::parse(text).map(|server| server.0.to_string());
        assert_eq!(parsed("9.9.9.9"), Ok("9.9.9.9:53".to_owned()));
        assert_eq!(parsed("2620:fe::fe"), Ok("[2620:fe::fe]:53".to_owned()));
        assert_eq!(parsed("127.0.0.1:5353"), Ok("127.0.0.1:5353".to_owned()));
        assert!(parsed("dns.example").is_err() && parsed("").is_err());
    }

    #[test]
    fn an_unknown_check_gets_the_one_that_was_meant() {
        assert_eq!(<CheckId as Text>::parse("dmarc.record"), Ok(CheckId::DmarcRecord));
        let complaint = <CheckId as Text>::parse("dmarc.recrod").expect_err("unknown");
        assert_eq!(complaint.help.as_deref(), Some("did you mean \"dmarc.record\"?"));
    }
}
