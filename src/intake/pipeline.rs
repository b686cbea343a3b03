//! What every listener does with a message before it is delivered or stored: assign an id, apply the policy, repair it,
//! apply the user's rules.

use super::deduplication::deduplication;
use super::policy::SenderPolicy;
use super::prepare::{IntakeReport, PreparedMail, Rejection, is_large, prepare};
use super::report::RefusedMail;
use crate::inbound::{Client, Received};
use crate::message::MailId;
use crate::message::repair::Repairs;
use crate::message::rewrite::Rules;
use crate::message::trace::ReceivedDetail;
use crate::observe::long_work::in_place;
use crate::observe::{Clock, fault, random_u32};
use crate::queue::Deduplication;
use crate::smtp::{EnhancedCode, Reply, ReversePath};
use std::sync::Arc;
use std::time::Duration;

/// The pipeline of one listener.
#[derive(Debug, Clone)]
pub struct IntakePipeline {
    pub policy: SenderPolicy,
    pub repairs: Repairs,
    pub rules: Rules,
    /// The gateway's hostname, for Received and Message-ID.
    pub hostname: Arc<str>,
    /// The listener's address as configured, for example "127.0.0.1:2525".
    pub listener: Arc<str>,
    /// What the Received field tells.
    pub received: ReceivedDetail,
    /// For how long a message that is submitted again is recognised; `None`: never.
    pub deduplicate: Option<Duration>,
    pub clock: Clock,
}

impl IntakePipeline {
    /// At MAIL.
    pub(super) fn admit(&self, client: &Client, sender: &ReversePath) -> Result<(), Reply> {
        fault::provoke("session", sender);
        self.policy.check_envelope(client, sender)
    }

    /// As the message came: what becomes of it here may differ from time to time.
    pub(super) fn deduplication(&self, received: &Received) -> Option<Deduplication> {
        let window = self.deduplicate?;
        in_place(is_large(received.data.len()), || deduplication(received, window))
    }

    /// At the final dot. The error is the reply if nothing is to be delivered: a refusal, or the 250 for a message that
    /// a rule discards. It has been logged.
    pub(super) fn accept(&self, received: &mut Received) -> Result<PreparedMail, Reply> {
        fault::provoke("intake", &received.envelope.sender);
        let now = self.clock.now();
        let id = MailId::new(now, random_u32());
        prepare(received, self, id, now, &mut IntakeReport::default()).map_err(|turned| {
            let mail = RefusedMail { id, received, listener: &self.listener };
            match turned {
                Rejection::Refused { reply, rule } => {
                    mail.log_refused(&reply, rule.as_ref());
                    reply
                }
                Rejection::Discarded { rule } => {
                    mail.log_discarded(&rule);
                    Reply::new(250, EnhancedCode::new(2, 0, 0), format!("Accepted as {id}"))
                }
            }
        })
    }
}
