//! DNS look-ups for the probes: what a server answered, told apart from a server that did not answer. A look-up that went
//! wrong is never taken for a missing record.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use mail_auth::spf::verify::SpfParameters;
use mail_auth::{MessageAuthenticator, SpfResult};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::sync::OnceCell;

/// For one request to one server; a name costs two at most.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsAnswer<T> {
    /// Never empty.
    Found(Vec<T>),
    /// The server says that there is none.
    Missing,
    /// No answer, or one that says nothing about the name.
    Unknown(String),
}

/// The character-strings of one TXT record. RFC 1035 §3.3.14.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxtRecord(pub Vec<Vec<u8>>);

impl TxtRecord {
    /// As the protocols that use such records read them: without anything in between. RFC 7208 §3.3, RFC 6376 §3.6.2.2.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.concat()).into_owned()
    }
}

#[derive(Debug)]
pub struct Dns {
    resolver: Result<TokioResolver, String>,
    /// It knows the world's names. Asked once, when the first name is missing.
    sees_the_world: OnceCell<bool>,
    /// For people.
    pub server: String,
}

impl Dns {
    /// `None`: the system's server.
    pub fn new(server: Option<SocketAddr>) -> Self {
        let named = server.map_or_else(|| "this machine's DNS server".to_owned(), |server| server.to_string());
        let resolver = build(server).map_err(|error| error.to_string());
        Self { resolver, sees_the_world: OnceCell::new(), server: named }
    }

    pub async fn txt(&self, name: &str) -> DnsAnswer<TxtRecord> {
        self.ask(name, RecordType::TXT, |data| match data {
            RData::TXT(txt) => Some(TxtRecord(txt.txt_data.iter().map(|part| part.to_vec()).collect())),
            _ => None,
        })
        .await
    }

    pub async fn ipv4(&self, name: &str) -> DnsAnswer<Ipv4Addr> {
        self.ask(name, RecordType::A, |data| match data {
            RData::A(address) => Some(address.0),
            _ => None,
        })
        .await
    }

    pub async fn ipv6(&self, name: &str) -> DnsAnswer<Ipv6Addr> {
        self.ask(name, RecordType::AAAA, |data| match data {
            RData::AAAA(address) => Some(address.0),
            _ => None,
        })
        .await
    }

    /// Without the final dot.
    pub async fn alias(&self, name: &str) -> DnsAnswer<String> {
        self.ask(name, RecordType::CNAME, |data| match data {
            RData::CNAME(target) => Some(without_dot(&target.0.to_ascii())),
            _ => None,
        })
        .await
    }

    pub async fn reverse(&self, address: IpAddr) -> DnsAnswer<String> {
        self.ask(&reverse_name(address), RecordType::PTR, |data| match data {
            RData::PTR(name) => Some(without_dot(&name.0.to_ascii())),
            _ => None,
        })
        .await
    }

    /// How a receiver judges mail from this address with a sender of the domain. `None`: there is no DNS server. RFC 7208 §4.
    pub async fn spf(&self, address: IpAddr, ehlo_name: &str, domain: &str) -> Option<SpfResult> {
        let resolver = self.resolver.as_ref().ok()?.clone();
        let sender = format!("postmaster@{domain}");
        let mail = SpfParameters::verify_mail_from(address, ehlo_name, ehlo_name, &sender);
        Some(MessageAuthenticator(resolver).verify_spf(mail).await.result())
    }

    async fn ask<T>(&self, name: &str, kind: RecordType, pick: impl Fn(&RData) -> Option<T>) -> DnsAnswer<T> {
        match self.look_up(name, kind, pick).await {
            DnsAnswer::Missing if !*self.sees_the_world.get_or_init(|| self.knows_the_root()).await => {
                let server = &self.server;
                DnsAnswer::Unknown(format!(
                    "{server} knows no names outside its own network, so it cannot tell about {name}"
                ))
            }
            answer => answer,
        }
    }

    /// A server without a way out may answer that no name exists.
    async fn knows_the_root(&self) -> bool {
        let is_known = |kind| async move { matches!(self.look_up("", kind, |_| Some(())).await, DnsAnswer::Found(_)) };
        is_known(RecordType::NS).await || is_known(RecordType::SOA).await
    }

    async fn look_up<T>(&self, name: &str, kind: RecordType, pick: impl Fn(&RData) -> Option<T>) -> DnsAnswer<T> {
        let resolver = match &self.resolver {
            Ok(resolver) => resolver,
            Err(error) => return DnsAnswer::Unknown(format!("the system names no DNS server ({error})")),
        };
        // The dot keeps the resolver from trying the name below the system's own domains.
        match resolver.lookup(format!("{}.", without_dot(name)), kind).await {
            Ok(found) => match found.answers().iter().filter_map(|record| pick(&record.data)).collect::<Vec<_>>() {
                none if none.is_empty() => DnsAnswer::Missing,
                found => DnsAnswer::Found(found),
            },
            Err(error) if error.is_no_records_found() => DnsAnswer::Missing,
            Err(error) => DnsAnswer::Unknown(format!("{} gives no answer for {name} ({error})", self.server)),
        }
    }
}

fn build(server: Option<SocketAddr>) -> Result<TokioResolver, hickory_resolver::net::NetError> {
    let mut builder = match server {
        None => TokioResolver::builder_tokio()?,
        Some(server) => {
            let connection = |protocol| {
                let mut connection = ConnectionConfig::new(protocol);
                connection.port = server.port();
                connection
            };
            let connections = vec![connection(ProtocolConfig::Udp), connection(ProtocolConfig::Tcp)];
            let server = NameServerConfig::new(server.ip(), true, connections);
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    let options = builder.options_mut();
    options.timeout = PATIENCE;
    options.attempts = 1;
    options.use_hosts_file = ResolveHosts::Never;
    builder.build()
}

fn without_dot(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// RFC 1035 §3.5, RFC 3596 §2.5.
fn reverse_name(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let octets = address.octets();
            let nibbles = octets.iter().rev().flat_map(|octet| [octet & 0xf, octet >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_names_are_those_of_the_registries() {
        let name = |address: &str| reverse_name(address.parse().expect("an address"));
        assert_eq!(name("192.0.2.10"), "10.2.0.192.in-addr.arpa");
        assert_eq!(name("::ffff:192.0.2.10"), "10.2.0.192.in-addr.arpa");
        let ipv6 = name("2001:db8::1");
        assert!(ipv6.starts_with("1.0.0.0.") && ipv6.ends_with(".8.b.d.0.1.0.0.2.ip6.arpa"), "{ipv6}");
    }
}
