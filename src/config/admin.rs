//! Values of `[admin]`: where health and metrics are served, and under which names.

use super::value::{Complaint, Text};
use std::net::SocketAddr;

/// `address` as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminAddress {
    Off,
    At(SocketAddr),
}

impl Text for AdminAddress {
    const EXPECTED: &'static str = "an address and port such as \"127.0.0.1:8025\", or \"off\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        if text == "off" {
            return Ok(Self::Off);
        }
        <SocketAddr as Text>::parse(text).map(Self::At).map_err(|complaint| Complaint {
            help: complaint.help.map(|help| help.replace("2525", "8025") + "; or \"off\""),
            ..complaint
        })
    }
}

/// A name by which clients may address `[admin]`, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminHost(pub String);

impl Text for AdminHost {
    const EXPECTED: &'static str = "a host name such as \"waxseal\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let host = text.trim().trim_end_matches('.');
        if host.is_empty() || host.len() > 253 || !host.chars().all(is_host) {
            let help =
                "write the name alone, without scheme, port or wildcard, as in \"waxseal\" or \"mail.example.com\"";
            return Err(Complaint::new(format!("\"{}\" is not a host name", text.escape_default()), help));
        }
        Ok(Self(host.to_ascii_lowercase()))
    }
}
