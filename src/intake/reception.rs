//! What every listener does with a message before it is delivered or stored: a name, the rules, the repairs.

use super::policy::Policy;
use super::prepare::prepare;
use crate::inbound::{Client, Received};
use crate::message::MailId;
use crate::message::accepted::Accepted;
use crate::message::repair::Repairs;
use crate::observe::log::Clean;
use crate::observe::{Clock, chance};
use crate::smtp::{Reply, ReversePath};
use std::sync::Arc;
use tracing::warn;

/// One listener's.
#[derive(Debug, Clone)]
pub struct Reception {
    pub policy: Policy,
    pub repairs: Repairs,
    /// The gateway's name, for Received and Message-ID.
    pub hostname: Arc<str>,
    /// Its address as configured, as in "127.0.0.1:2525".
    pub listener: Arc<str>,
    pub clock: Clock,
}

impl Reception {
    /// At MAIL.
    pub(super) fn admit(&self, client: &Client, sender: &ReversePath) -> Result<(), Reply> {
        self.policy.check_envelope(client, sender)
    }

    /// At the final dot. A refusal has been logged.
    pub(super) fn accept(&self, received: &mut Received) -> Result<Accepted, Reply> {
        let now = self.clock.now();
        let id = MailId::new(now, chance());
        prepare(received, self, id, now).inspect_err(|reply| {
            let (from, client, reply) = (Clean(&received.envelope.sender), received.client.peer, Clean(reply));
            // To most applications it is a lost mail, and few of them show the reply.
            warn!(%id, %from, %client, size = received.data.len(), %reply, "refused a message");
        })
    }
}
