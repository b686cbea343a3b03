//! Whether the DNS has the record of a key, for a gateway that looks again and again while it runs.

use super::dkim_record;
use super::dns::{Dns, DnsAnswer};
use crate::dkim::DnsRecord;
use std::net::SocketAddr;

/// Whether receivers can verify signatures with what is published; `None`: no answer, or one that says nothing. `server`: that
/// is asked; without one, the system's.
pub async fn is_published(server: Option<SocketAddr>, record: &DnsRecord) -> Option<bool> {
    match Dns::new(server).txt(record.name()).await {
        DnsAnswer::Found(found) => Some(dkim_record::judge(&found, record).is_ok()),
        DnsAnswer::Missing => Some(false),
        DnsAnswer::Unknown(_) => None,
    }
}
