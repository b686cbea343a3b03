//! `CheckId`: the names of what `waxseal doctor` looks at. They are stable: they stand in its JSON, in `[doctor] ignore`, in
//! the log, and in docs/troubleshooting.md, which explains each of them. Says nothing about results.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! check_ids {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum CheckId {
            $($(#[doc = $doc])* #[serde(rename = $text)] $name,)*
        }

        impl CheckId {
            /// In the order in which they are reported.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

check_ids! {
    /// The configuration can be read and would start.
    Configuration = "configuration",
    /// `data_dir` exists, belongs to this user and is private.
    DataDirAccess = "data_dir.access",
    /// The disk has room for new mail.
    DataDirSpace = "data_dir.space",
    /// This machine's clock.
    Clock = "clock",
    /// A program that connects to a listener gets a greeting.
    ListenerReachable = "listener.reachable",
    /// The listener's certificate, which the application verifies.
    ListenerTls = "listener.tls",
    /// Who may send without a login.
    ListenerAllow = "listener.allow",
    /// The repairs without which receivers refuse mail.
    IntakeRepair = "intake.repair",
    /// The upstream's name leads to an address, as the gateway looks it up.
    UpstreamResolve = "upstream.resolve",
    /// Its IPv4 addresses in the DNS.
    UpstreamResolveIpv4 = "upstream.resolve.ipv4",
    /// Its IPv6 addresses in the DNS.
    UpstreamResolveIpv6 = "upstream.resolve.ipv6",
    /// A TCP connection to it.
    UpstreamConnect = "upstream.connect",
    /// Which other ports answer, if the configured one does not.
    UpstreamPorts = "upstream.ports",
    /// The provider lets in as many connections as are configured.
    UpstreamConnections = "upstream.connections",
    /// Its greeting.
    UpstreamGreeting = "upstream.greeting",
    /// Its reply to EHLO.
    UpstreamEhlo = "upstream.ehlo",
    /// How TLS begins there.
    UpstreamTlsMode = "upstream.tls.mode",
    /// The TLS handshake.
    UpstreamTls = "upstream.tls",
    /// The name in its certificate.
    UpstreamTlsName = "upstream.tls.name",
    /// Who issued its certificate.
    UpstreamTlsIssuer = "upstream.tls.issuer",
    /// For how long its certificate is valid.
    UpstreamTlsExpiry = "upstream.tls.expiry",
    /// The gateway's client certificate.
    UpstreamTlsClient = "upstream.tls.client",
    /// The login.
    UpstreamAuth = "upstream.auth",
    /// The provider takes the sender.
    UpstreamSender = "upstream.sender",
    /// The largest message that it takes.
    UpstreamSize = "upstream.size",
    /// The public key of each DKIM key.
    DkimRecord = "dkim.record",
    /// The domain's SPF record.
    SpfRecord = "spf.record",
    /// How many look-ups it costs.
    SpfLookups = "spf.lookups",
    /// Whether it permits the provider.
    SpfProvider = "spf.provider",
    /// The domain's DMARC record.
    DmarcRecord = "dmarc.record",
    /// Whether the gateway's signature counts for the domain in From.
    DmarcAlignment = "dmarc.alignment",
    /// The reverse name of the address that connections come from.
    AddressReverse = "address.reverse",
    /// The queue can be asked.
    QueueAccess = "queue.access",
    /// Mail that waits.
    QueueWaiting = "queue.waiting",
    /// Mail that has failed and is kept.
    QueueFailed = "queue.failed",
    /// Mail that cannot be read.
    QueueDamaged = "queue.damaged",
    /// Mail that an operator holds.
    QueueHeld = "queue.held",
    /// A listener takes the test mail.
    SendAccepted = "send.accepted",
    /// What becomes of the test mail.
    SendOutcome = "send.outcome",
}

impl CheckId {
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|id| id.as_str() == name)
    }
}

impl fmt::Display for CheckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
