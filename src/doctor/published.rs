//! Whether the DNS has the record of a key, for a gateway that looks again and again while it runs.

use super::dkim_record;
use super::dns::{Dns, DnsAnswer};
use crate::dkim::DnsRecord;
use std::net::SocketAddr;
use std::sync::Arc;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct RecordLookUp(Arc<Dns>);

impl RecordLookUp {
    /// `None`: the system's server.
    pub fn new(server: Option<SocketAddr>) -> Self {
        Self(Arc::new(Dns::new(server)))
    }

    /// Whether receivers can verify signatures with what is published; `None`: no answer, or one that says nothing.
    pub async fn is_published(&self, record: &DnsRecord) -> Option<bool> {
        match self.0.txt(record.name()).await {
            DnsAnswer::Found(found) => Some(dkim_record::judge(&found, record).is_ok()),
            DnsAnswer::Missing => Some(false),
            DnsAnswer::Unknown(_) => None,
        }
    }
}
