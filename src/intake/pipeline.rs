//! What every listener does with a message before it is delivered or stored: a name, the policy, the repairs, the user's rules.

use super::policy::SenderPolicy;
use super::prepare::{IntakeReport, PreparedMail, Rejection, prepare};
use crate::inbound::{Client, Received};
use crate::message::MailId;
use crate::message::repair::Repairs;
use crate::message::rewrite::Rules;
use crate::observe::log::Clean;
use crate::observe::{Clock, fault, random_u32};
use crate::smtp::{EnhancedCode, Reply, ReversePath};
use std::sync::Arc;
use tracing::{info, warn};

/// Of one listener.
#[derive(Debug, Clone)]
pub struct IntakePipeline {
    pub policy: SenderPolicy,
    pub repairs: Repairs,
    pub rules: Rules,
    /// The gateway's name, for Received and Message-ID.
    pub hostname: Arc<str>,
    /// Its address as configured, as in "127.0.0.1:2525".
    pub listener: Arc<str>,
    pub clock: Clock,
}

impl IntakePipeline {
    /// At MAIL.
    pub(super) fn admit(&self, client: &Client, sender: &ReversePath) -> Result<(), Reply> {
        fault::provoke("session", sender);
        self.policy.check_envelope(client, sender)
    }

    /// At the final dot. The error is the reply where nothing is to be delivered: a refusal, or the 250 of a message that a
    /// rule discards. It has been logged.
    pub(super) fn accept(&self, received: &mut Received) -> Result<PreparedMail, Reply> {
        fault::provoke("intake", &received.envelope.sender);
        let now = self.clock.now();
        let id = MailId::new(now, random_u32());
        prepare(received, self, id, now, &mut IntakeReport::default()).map_err(|turned| {
            let from = Clean(&received.envelope.sender);
            let client = received.client.peer;
            let size = received.data.len();
            match turned {
                Rejection::Refused(reply) => {
                    // To most applications it is a lost mail, and few of them show the reply.
                    warn!(%id, %from, %client, size, reply = %Clean(&reply), "refused a message");
                    reply
                }
                Rejection::Discarded { rule } => {
                    info!(%id, %from, %client, size, rule = %Clean(rule), "discarded, as a rule wants it: nobody gets this message");
                    Reply::new(250, EnhancedCode::new(2, 0, 0), format!("Accepted as {id}"))
                }
            }
        })
    }
}
